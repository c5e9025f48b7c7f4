//! Who uses whom, read from the sources' tokens (so comments and texts do not count).

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// Source files by path below `src/`.
type Sources = BTreeMap<String, String>;

/// Breaches of the layering: an import from a module that `lib` names further down, or of one stage by
/// another. Files of the binary (whose top module `lib` does not name) may import anything.
pub fn check(lib: &str, sources: &Sources, stages: &[&str]) -> Vec<String> {
    let layers = layers(lib);
    let level = |module: &str| layers.iter().position(|layer| layer == module);
    let mut problems = Vec::new();
    for (file, source) in sources {
        let own = module_path(file);
        let Some(own_level) = own.first().and_then(|top| level(top)) else { continue };
        for used in used_modules(source, &own) {
            let Some(used_level) = level(&used) else {
                problems.push(format!("src/{file} uses crate::{used}, which lib.rs does not declare"));
                continue;
            };
            let (own, used) = (own[0].as_str(), used.as_str());
            if used_level > own_level {
                problems.push(format!("src/{file} uses crate::{used}, which is below {own} in lib.rs"));
            } else if used != own && stages.contains(&own) && stages.contains(&used) {
                problems.push(format!("src/{file} uses crate::{used}: stages do not know each other"));
            }
        }
    }
    problems
}

/// Dependencies without a room, rooms without a dependency, and uses outside of rooms.
pub fn rooms(dependencies: &BTreeSet<String>, sources: &Sources, rooms: &[(&str, &[&str])]) -> Vec<String> {
    let mut problems = Vec::new();
    for dependency in dependencies {
        if !rooms.iter().any(|(name, _)| name == dependency) {
            problems.push(format!("the dependency {dependency} has no line in ROOMS"));
        }
    }
    for (name, places) in rooms {
        if !dependencies.contains(*name) {
            problems.push(format!("ROOMS names {name}, which is no dependency"));
        }
        for (file, source) in sources {
            let inside = |place: &&str| {
                file.strip_prefix(*place)
                    .is_some_and(|rest| place.is_empty() || rest.is_empty() || rest.starts_with(['/', '.']))
            };
            if !places.iter().any(inside) && external(source, name) {
                problems.push(format!("src/{file} uses {name}, which stays in {}", places.join(", ")));
            }
        }
    }
    problems
}

/// Files that say `unsafe` and may not, and files that may and do not.
pub fn unsafe_files(sources: &Sources, allowed: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, source) in sources {
        let says = flat(tokens(source)).iter().any(|token| token == "unsafe");
        match (says, allowed.contains(&file.as_str())) {
            (true, false) => problems.push(format!("src/{file} says unsafe and is not in UNSAFE")),
            (false, true) => problems.push(format!("src/{file} is in UNSAFE and needs it no more")),
            _ => {}
        }
    }
    problems
}

/// Names in `[dependencies]`, as they are written in code.
pub fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    manifest["dependencies"].as_table().expect("a table").keys().map(|name| name.replace('-', "_")).collect()
}

/// Modules in the order of `lib`.
fn layers(lib: &str) -> Vec<String> {
    let tokens = flat(tokens(lib));
    tokens
        .windows(3)
        .filter(|three| three[0] == "mod" && three[2] == ";")
        .map(|three| three[1].clone())
        .collect()
}

/// `a/mod.rs` and `a.rs` are `[a]`; `a/b.rs` is `[a, b]`; `lib.rs` and `main.rs` are the root.
fn module_path(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs");
    let mut path: Vec<_> = stem.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] || path == ["main"] {
        path.pop();
    }
    path
}

/// Top-level modules that `source`, the module at `own`, reaches through `crate::` or `super::`.
fn used_modules(source: &str, own: &[String]) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    collect(tokens(source), own, &mut used);
    used
}

fn collect(stream: TokenStream, own: &[String], used: &mut BTreeSet<String>) {
    let tokens: Vec<_> = stream.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if is_ident(&tokens, at, "mod")
            && let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                (tokens.get(at + 1), tokens.get(at + 2))
        {
            let inner: Vec<_> = own.iter().cloned().chain([name.to_string()]).collect();
            collect(body.stream(), &inner, used);
            at += 3;
            continue;
        }
        let mut depth = own.len();
        let mut next = at;
        if is_ident(&tokens, at, "crate") && is_path(&tokens, at + 1) {
            depth = 0;
            next = at + 3;
        } else {
            while is_ident(&tokens, next, "super") && is_path(&tokens, next + 1) {
                depth = depth.saturating_sub(1);
                next += 3;
            }
        }
        if next > at && depth == 0 {
            used.extend(tokens.get(next).map(first_names).unwrap_or_default());
        }
        if let Some(TokenTree::Group(group)) = tokens.get(at) {
            collect(group.stream(), own, used);
        }
        at = next.max(at + 1);
    }
}

/// `a` of `a::b`, and `a`, `c` of `{a::b, c}`.
fn first_names(token: &TokenTree) -> Vec<String> {
    match token {
        TokenTree::Ident(name) => vec![name.to_string()],
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
            let tokens: Vec<_> = group.stream().into_iter().collect();
            tokens
                .split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','))
                .filter_map(|item| Some(item.first()?.to_string()))
                .collect()
        }
        _ => vec![],
    }
}

/// Whether a path in `source` starts with the crate `name`.
fn external(source: &str, name: &str) -> bool {
    let tokens = flat(tokens(source));
    // `a::name` is no start; `::name` is one, and `use ::name` as well.
    let starts = |at: usize| at < 3 || tokens[at - 2..at] != [":", ":"] || !segment(&tokens[at - 3]);
    let used = |at: usize| {
        tokens[at] == name
            && ((tokens.get(at + 1..at + 3).is_some_and(|next| next == [":", ":"]) && starts(at))
                || (at > 0
                    && tokens[at - 1] == "use"
                    && tokens.get(at + 1).is_some_and(|next| next == "as" || next == ";")))
    };
    (0..tokens.len()).any(used)
}

/// Whether `token` can come before `::` in a path.
fn segment(token: &str) -> bool {
    let keyword = ["use", "as", "in", "dyn", "impl", "mut", "return", "for", "where"].contains(&token);
    token == ">" || (!keyword && token.starts_with(|char: char| char.is_alphanumeric() || char == '_'))
}

fn is_ident(tokens: &[TokenTree], at: usize, name: &str) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Ident(ident)) if ident == name)
}

fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(at) && colon(at + 1)
}

fn tokens(source: &str) -> TokenStream {
    source.parse().unwrap_or_else(|error| panic!("not Rust: {error}"))
}

/// All tokens in a row, groups opened up.
fn flat(stream: TokenStream) -> Vec<String> {
    let mut all = Vec::new();
    for token in stream {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                all.push(open.to_owned());
                all.extend(flat(group.stream()));
                all.push(close.to_owned());
            }
            other => all.push(other.to_string()),
        }
    }
    all
}

fn sources(files: &[(&str, &str)]) -> Sources {
    files.iter().map(|(file, source)| ((*file).to_owned(), (*source).to_owned())).collect()
}

const LIB: &str = "//! mod none;\npub mod low; pub mod left; pub mod right; pub mod high;";

fn breaches(files: &[(&str, &str)]) -> usize {
    check(LIB, &sources(files), &["left", "right"]).len()
}

#[test]
fn imports_from_above_are_fine() {
    let fine =
        "//! crate::high\nuse crate::low::Thing; pub(crate) fn f() -> &'static str { \"crate::high\" }";
    assert_eq!(breaches(&[("left/mod.rs", fine), ("left/part.rs", "use super::x; use crate::left::y;")]), 0);
    assert_eq!(breaches(&[("high.rs", "use crate::{low::a, left::b, right};")]), 0);
    assert_eq!(breaches(&[("main.rs", "use crate::high;"), ("face/run.rs", "use crate::face;")]), 0);
    assert_eq!(
        breaches(&[("low.rs", "mod tests { use super::*; use super::high; }")]),
        0,
        "a name of its own"
    );
}

#[test]
fn imports_from_below_are_found() {
    for source in [
        "use crate::high::Thing;",
        "use crate::{low::a, high::b};",
        "fn f() { crate::high::f(); }",
        "macro_rules! m { () => { $crate::high::f() } }",
        "mod tests { fn f() { [crate::high::X]; } }",
        "use super::super::high;",
        "mod tests { use super::super::super::high; }",
    ] {
        assert_eq!(breaches(&[("low/part.rs", source)]), 1, "{source}");
    }
    assert_eq!(breaches(&[("low.rs", "use super::high;")]), 1);
}

#[test]
fn stages_that_know_each_other_are_found() {
    assert_eq!(breaches(&[("right.rs", "use crate::left::Thing;")]), 1);
    assert_eq!(breaches(&[("right.rs", "use crate::nowhere::Thing;")]), 1);
}

#[test]
fn strangers_outside_of_their_room_are_found() {
    let named: BTreeSet<_> = ["tokio".to_owned()].into();
    let found = |file, source| rooms(&named, &sources(&[(file, source)]), &[("tokio", &["net"])]).len();
    for source in
        ["use tokio::net;", "use tokio;", "use tokio as t;", "fn f() { tokio::spawn(); }", "use ::tokio::x;"]
    {
        assert_eq!(found("heart.rs", source), 1, "{source}");
        assert_eq!(found("network.rs", source), 1, "another file that starts alike: {source}");
        assert_eq!(found("net/part.rs", source) + found("net.rs", source), 0, "{source}");
    }
    for source in ["// tokio::net", "use crate::tokio::x;", "fn tokio() {}", "const T: &str = \"tokio::x\";"]
    {
        assert_eq!(found("heart.rs", source), 0, "{source}");
    }
    assert_eq!(rooms(&named, &sources(&[]), &[]).len(), 1, "a dependency without a room");
    assert_eq!(rooms(&BTreeSet::new(), &sources(&[]), &[("tokio", &["net"])]).len(), 1, "a room without one");
    assert_eq!(
        dependencies("[dependencies]\na-b = \"1\"\n[dev-dependencies]\nc = \"1\""),
        ["a_b".to_owned()].into()
    );
}

#[test]
fn unsafe_outside_of_the_named_files_is_found() {
    let files = sources(&[("a.rs", "unsafe fn f() {}"), ("b.rs", "//! unsafe\n#![allow(unsafe_code)]")]);
    assert_eq!(unsafe_files(&files, &["a.rs"]).len(), 0);
    assert_eq!(unsafe_files(&files, &[]).len(), 1);
    assert_eq!(unsafe_files(&files, &["a.rs", "b.rs"]).len(), 1, "a name that is needed no more");
}
