//! What files there are, and what is in them.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The tree's files by path from `root`: those that git knows, or, without git, all but built and fetched ones.
pub fn files(root: &Path) -> Vec<String> {
    let listed = Command::new("git").current_dir(root).args(["ls-files", "-z"]).output();
    if let Ok(listed) = listed
        && listed.status.success()
        && !listed.stdout.is_empty()
    {
        let text = String::from_utf8(listed.stdout).expect("names are UTF-8");
        let there = |name: &&str| !name.is_empty() && root.join(name).exists();
        return text.split('\0').filter(there).map(str::to_owned).collect();
    }
    let mut files = Vec::new();
    walk(root, "", &mut files);
    files
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree").flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            if !["target", "assets", ".git"].contains(&name.as_str()) {
                walk(&entry.path(), &format!("{name}/"), files);
            }
        } else if name != ".git" {
            files.push(name);
        }
    }
}

/// Top-level entries that are missing, and those that do not belong there.
pub fn top(files: &[String], required: &[&str], allowed: &[&str]) -> Vec<String> {
    let there: BTreeSet<_> = files.iter().map(|file| file.split('/').next().unwrap_or(file)).collect();
    let missing =
        required.iter().filter(|name| !there.contains(*name)).map(|name| format!("{name} is missing"));
    let strange = there.iter().filter(|name| !required.contains(name) && !allowed.contains(name));
    missing.chain(strange.map(|name| format!("{name} does not belong at the top"))).collect()
}

/// Files larger than `largest` bytes.
pub fn huge<'a>(files: impl Iterator<Item = (&'a str, u64)>, largest: u64) -> Vec<String> {
    let huge = files.filter(|(_, size)| *size > largest);
    huge.map(|(file, size)| format!("{file} has {size} bytes, more than {largest}")).collect()
}

/// Folders of one person's machine, and marks of unfinished work.
pub fn text(file: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let folders = ["home", "root", "work", "tmp", "Users"].map(|folder| format!("/{folder}/"));
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["dbg", "!("]].map(|halves| halves.concat());
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let absolute = |folder: &String| {
            line.match_indices(folder.as_str()).any(|(at, _)| {
                !line[..at].ends_with(|char: char| {
                    char.is_alphanumeric() || matches!(char, '.' | '_' | '-' | '}' | '*' | '>')
                })
            })
        };
        let found =
            folders.iter().find(|folder| absolute(folder)).or(marks.iter().find(|mark| line.contains(*mark)));
        if let Some(found) = found {
            problems.push(format!("{file}:{} has {found}", number + 1));
        }
    }
    problems
}

/// Manifests in `folder` whose model is missing or has another sha256 than they say.
pub fn models(folder: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let mut checked = 0;
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let manifest: toml::Table =
            fs::read_to_string(entry.path()).expect("a manifest").parse().expect("TOML");
        let (Some(file), Some(sha256)) = (manifest["file"].as_str(), manifest["sha256"].as_str()) else {
            problems.push(format!("{name} names no file or no sha256"));
            continue;
        };
        match fs::read(folder.join(file)) {
            Err(error) => problems.push(format!("{name} names {file}: {error}")),
            Ok(bytes) => {
                let digest: String =
                    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                if digest != sha256 {
                    problems
                        .push(format!("{name} says that {file} has the sha256 {sha256}; it has {digest}"));
                }
            }
        }
        checked += 1;
    }
    if checked == 0 {
        problems.push(format!("{} has no manifests", folder.display()));
    }
    problems
}

/// Why a script can't be run, if it can't.
pub fn script(root: &Path, script: &str) -> Option<String> {
    let path = root.join(script);
    let mode = path.metadata().expect("listed").permissions().mode();
    let text = fs::read_to_string(path).unwrap_or_default();
    if mode & 0o111 != 0o111 {
        return Some(format!("{script} is not executable"));
    }
    (!text.starts_with("#!")).then(|| format!("{script} does not say what runs it (#!)"))
}

#[test]
fn a_missing_and_a_strange_entry_are_found() {
    let files = ["src/lib.rs".to_owned(), "notes.txt".to_owned(), "README.md".to_owned()];
    assert_eq!(top(&files, &["src"], &["README.md", "notes.txt"]), Vec::<String>::new());
    assert_eq!(
        top(&files, &["src", "tests"], &["README.md"]),
        ["tests is missing", "notes.txt does not belong at the top"]
    );
}

#[test]
fn a_huge_file_is_found() {
    assert_eq!(huge([("a", 10), ("b", 11)].into_iter(), 10), ["b has 11 bytes, more than 10"]);
}

#[test]
fn machines_and_marks_are_found() {
    let home = ["/ho", "me/someone/x"].concat();
    for line in [format!("see {home}"), home, ["TO", "DO: later"].concat(), ["dbg", "!(x)"].concat()] {
        assert_eq!(text("a.rs", &format!("fine\n{line}")).len(), 1, "{line}");
    }
    for line in ["../work/x", "net/work/x", "a homely root", "todos", "$root/work/x", "{base}/tmp/x"] {
        assert_eq!(text("a.rs", line), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn a_model_that_is_another_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    assert_eq!(models(folder.path()).len(), 1, "nothing to check");
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    write("m.toml", &format!("file = \"m.onnx\"\nsha256 = \"{empty}\""));
    assert_eq!(models(folder.path()).len(), 1, "missing");
    write("m.onnx", "");
    assert_eq!(models(folder.path()), Vec::<String>::new());
    write("m.onnx", "x");
    assert_eq!(models(folder.path()).len(), 1, "another");
}

#[test]
fn a_script_that_can_not_be_run_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let set = |text: &str, mode| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set("#!/bin/sh\n", 0o755);
    assert_eq!(script(folder.path(), "run"), None);
    set("#!/bin/sh\n", 0o644);
    assert!(script(folder.path(), "run").is_some());
    set("echo\n", 0o755);
    assert!(script(folder.path(), "run").is_some());
}

#[test]
fn files_are_found_with_and_without_git() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["src/a.rs", "target/b", "assets/c", "d"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let mut found = files(folder.path());
    found.sort();
    assert_eq!(found, ["d", "src/a.rs"]);
    assert!(files(Path::new(env!("CARGO_MANIFEST_DIR"))).contains(&"Cargo.toml".to_owned()));
}
