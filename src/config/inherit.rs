//! Reads a file and those that it inherits from into one tree.
//!
//! Inheriting adds: tables merge, arrays of tables follow one another (the inherited entries first), and a
//! key that is set twice must be set alike. So the order of files never decides a value.

use super::problem::{Kind, Problem, Problems};
use super::secret::redact;
use super::tree::{Entry, KeyPath, Node, Place, Text, Value};
use super::{MAX_BYTES, Surroundings, nearest};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

/// The key that names the files to inherit from.
const KEY: &str = "inherit";
/// Most brackets open at a time.
const MAX_BRACKETS: usize = 16;
/// Most dots in a key.
const MAX_DOTS: usize = 16;
/// Most files that one file may bring in.
const MAX_FILES: usize = 64;

/// Files read, what was wrong with them, and how each was reached.
pub(super) struct Reading<'s> {
    pub surroundings: &'s dyn Surroundings,
    pub kind: Kind,
    pub texts: Vec<Text>,
    pub problems: Problems,
    /// Whether a file could not be read or parsed.
    pub incomplete: bool,
    /// Which file each one is, and where it is inherited from.
    reached: Vec<(PathBuf, Option<String>)>,
}

impl<'s> Reading<'s> {
    pub fn new(surroundings: &'s dyn Surroundings, file: &str, kind: Kind) -> Self {
        Self {
            surroundings,
            kind,
            texts: Vec::new(),
            problems: Problems::of(file),
            incomplete: false,
            reached: Vec::new(),
        }
    }

    /// The tree of the file at `path` with all that it inherits; `from` is the place that names it.
    pub fn read(&mut self, path: &Path, from: Option<(Place, &KeyPath)>) -> Option<Node> {
        let node = self.read_one(path, from);
        self.incomplete |= node.is_none();
        node
    }

    fn read_one(&mut self, path: &Path, from: Option<(Place, &KeyPath)>) -> Option<Node> {
        let identity = self.surroundings.identity(path);
        if let Some((_, first)) = self.reached.iter().find(|(known, _)| *known == identity) {
            let first = match first {
                None => "it is where the reading began".to_owned(),
                Some(first) => format!("it is inherited at {first} already"),
            };
            let message = format!("a file may be reached by one way only: {first}");
            self.refuse(path, from, self.kind, message);
            return None;
        }
        if self.texts.len() == MAX_FILES {
            self.refuse(path, from, self.kind, format!("more than {MAX_FILES} files are brought in"));
            return None;
        }
        let text = match self.text(path) {
            Ok(text) => text,
            Err((kind, message)) => {
                self.refuse(path, from, kind, message);
                return None;
            }
        };
        self.reached.push((identity, from.map(|(place, _)| self.name_of(place))));
        let file = self.texts.len();
        self.texts.push(Text::new(path.display().to_string(), text));
        let mut node = self.parse(file)?;
        for (index, (base, place)) in self.take_bases(&mut node).into_iter().enumerate() {
            let path = self.texts[file].relative(&base);
            let key = KeyPath::default().key(KEY).index(index);
            if let Some(base) = self.read(&path, Some((place, &key))) {
                self.merge(&mut node, base, &KeyPath::default());
            }
        }
        Some(node)
    }

    /// The text of a file, or what is wrong with it.
    pub fn text(&self, path: &Path) -> Result<String, (Kind, String)> {
        if path.to_str().is_none() {
            return Err((self.kind, "the path is not UTF-8".into()));
        }
        let bytes = self.surroundings.read(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => (Kind::MissingInput, not_found(self.surroundings, path)),
            ErrorKind::IsADirectory => (self.kind, "this is a folder; a file is needed".into()),
            ErrorKind::FileTooLarge => {
                (self.kind, format!("the file is larger than {MAX_BYTES} bytes, which no board needs"))
            }
            _ => (self.kind, format!("the file can't be read: {error}")),
        })?;
        String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
            let (line, column) = Text::new(String::new(), before).position(good);
            let at = format!("line {line}, column {column}");
            (self.kind, format!("the file is not UTF-8 text, from {at} on; save it as UTF-8"))
        })
    }

    /// Says that the file at `path` can't be had, at the key that names it, if one does.
    fn refuse(&mut self, path: &Path, from: Option<(Place, &KeyPath)>, kind: Kind, message: String) {
        match from {
            Some((place, key)) => self.say(place, key, true, kind, message),
            None => self.problems.push(Problem {
                kind,
                file: path.display().to_string(),
                at: Some((1, 1)),
                key: String::new(),
                value: None,
                message,
            }),
        }
    }

    pub fn say(&mut self, place: Place, key: &KeyPath, shown: bool, kind: Kind, message: String) {
        let text = &self.texts[place.file];
        self.problems.push(Problem {
            kind,
            file: text.name.clone(),
            at: Some(text.position(place.start)),
            key: key.to_string(),
            value: shown.then(|| text.shown(place.start..place.end)),
            message,
        });
    }

    /// `file:line:column` of a place.
    pub fn name_of(&self, place: Place) -> String {
        let text = &self.texts[place.file];
        let (line, column) = text.position(place.start);
        format!("{}:{line}:{column}", text.name)
    }

    /// The file's own tree; with syntax errors, one a line, there is none.
    fn parse(&mut self, file: usize) -> Option<Node> {
        let text = &self.texts[file].text;
        if let Some(at) = too_deep(text) {
            let place = Place { file, start: at, end: at };
            let message = format!("nested too deeply: more than {MAX_BRACKETS} brackets or {MAX_DOTS} dots");
            self.say(place, &KeyPath::default(), false, self.kind, message);
            return None;
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Some(Node::of_table(table.get_ref(), file, 0..0));
        }
        let mut last_line = 0;
        let found: Vec<_> =
            errors.iter().map(|e| (e.span().unwrap_or(0..0), e.message().to_owned())).collect();
        for (span, message) in found {
            let (line, _) = self.texts[file].position(span.start);
            if line != last_line {
                last_line = line;
                let place = Place { file, start: span.start, end: span.end };
                self.say(place, &KeyPath::default(), false, self.kind, format!("not TOML: {message}"));
            }
        }
        None
    }

    /// The files to inherit from, with their places. A malformed list stays, for the check to refuse.
    fn take_bases(&self, node: &mut Node) -> Vec<(String, Place)> {
        let Value::Table(table) = &mut node.value else { return Vec::new() };
        let Some(Value::Array(items)) = table.get(KEY).map(|entry| &entry.node.value) else {
            return Vec::new();
        };
        let name = |item: &Node| match &item.value {
            Value::String(name) if !name.is_empty() => Some((name.clone(), item.place)),
            _ => None,
        };
        let names: Option<Vec<_>> = items.iter().map(name).collect();
        names.inspect(|_| drop(table.remove(KEY))).unwrap_or_default()
    }

    /// Adds what `base` says to `node`; in conflict, `node` stays.
    fn merge(&mut self, node: &mut Node, base: Node, path: &KeyPath) {
        match (&mut node.value, base.value) {
            (Value::Table(own), Value::Table(inherited)) => self.merge_tables(own, inherited, path),
            (Value::Array(own), Value::Array(mut inherited)) if tables(own) && tables(&inherited) => {
                inherited.append(own);
                *own = inherited;
            }
            (own, inherited) if own.means(&inherited) => {}
            _ => {
                let other = self.name_of(base.place);
                let message =
                    format!("set to something else at {other}, which is inherited; keep one of both");
                self.say(node.place, path, node.is_plain(), self.kind, message);
            }
        }
    }

    fn merge_tables(
        &mut self,
        own: &mut BTreeMap<String, Entry>,
        inherited: BTreeMap<String, Entry>,
        path: &KeyPath,
    ) {
        for (key, entry) in inherited {
            let at = path.key(&key);
            match own.entry(key) {
                Slot::Vacant(slot) => drop(slot.insert(entry)),
                Slot::Occupied(mut slot) => self.merge(&mut slot.get_mut().node, entry.node, &at),
            }
        }
    }
}

/// Where a text is nested so deeply that trees of it would exhaust the stack: the parser's own limits, 80
/// brackets around 80 dots each, are too wide for that.
fn too_deep(text: &str) -> Option<usize> {
    let (mut brackets, mut dots) = (0_usize, 0);
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::Whitespace | TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString => {}
            kind => {
                dots = 0;
                match kind {
                    TokenKind::LeftCurlyBracket | TokenKind::LeftSquareBracket => brackets += 1,
                    TokenKind::RightCurlyBracket | TokenKind::RightSquareBracket => {
                        brackets = brackets.saturating_sub(1);
                    }
                    _ => {}
                }
            }
        }
        if brackets > MAX_BRACKETS || dots > MAX_DOTS {
            return Some(token.span().start());
        }
    }
    None
}

/// Whether an array is one of tables, to which inheriting adds.
fn tables(items: &[Node]) -> bool {
    items.iter().all(|item| matches!(item.value, Value::Table(_)))
}

/// That nothing is at `path`, and what may have been meant.
fn not_found(surroundings: &dyn Surroundings, path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let beside = surroundings.neighbours(path);
    let near = nearest(name, beside.iter().map(String::as_str));
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    redact(&format!("there is no file {}{hint}", path.display()))
}
