//! A parsed text in which everything knows where it stands.

use super::secret::redact;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest piece of a value that an error shows, in characters.
const MAX_SHOWN: usize = 60;

/// A file's text.
#[derive(Debug)]
pub(super) struct Text {
    /// Its path as it was reached, for people and as the base of relative paths.
    pub name: String,
    pub text: String,
    line_starts: Vec<usize>,
}

impl Text {
    pub fn new(name: String, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, line_starts }
    }

    /// Line and column of a byte, both from 1, columns in characters.
    pub fn position(&self, byte: usize) -> (u32, u32) {
        let byte = self.text.floor_char_boundary(byte);
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let column = self.text[self.line_starts[line - 1]..byte].chars().count() + 1;
        (line as u32, column as u32)
    }

    /// The first line of what stands at `span`, short enough for an error, without credentials.
    pub fn shown(&self, span: Range<usize>) -> String {
        let end = self.text.floor_char_boundary(span.end);
        let start = self.text.floor_char_boundary(span.start).min(end);
        let whole = redact(&self.text[start..end]);
        let mut shown: String = whole.lines().next().unwrap_or_default().chars().take(MAX_SHOWN).collect();
        if shown.len() < whole.len() {
            shown.push_str("...");
        }
        shown
    }

    /// Where a path that stands in this file leads.
    pub fn relative(&self, path: &str) -> PathBuf {
        Path::new(&self.name).parent().unwrap_or(Path::new("")).join(path)
    }
}

/// Where something stands: bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

/// A value.
#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Value {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Date,
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

impl Value {
    /// Whether both mean the same, wherever they stand.
    pub fn means(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b).is_eq(),
            (Self::Boolean(a), Self::Boolean(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.value.means(&b.value))
            }
            (Self::Table(a), Self::Table(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|((i, a), (k, b))| i == k && a.node.value.means(&b.node.value))
            }
            _ => false,
        }
    }
}

/// A value in a table, with the place of its key.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Place,
    pub node: Node,
}

impl Node {
    pub fn of_table(table: &DeTable<'_>, file: usize, span: Range<usize>) -> Self {
        let place = |span: Range<usize>| Place { file, start: span.start, end: span.end };
        let entry = |(key, value): (&Spanned<_>, &Spanned<_>)| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            (name.to_string(), Entry { key: place(key.span()), node: Self::of(value, file) })
        };
        Self { place: place(span), value: Value::Table(table.iter().map(entry).collect()) }
    }

    fn of(value: &Spanned<DeValue<'_>>, file: usize) -> Self {
        let span = value.span();
        let place = Place { file, start: span.start, end: span.end };
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => Value::Integer(integer(number.as_str(), number.radix())),
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(array) => Value::Array(array.iter().map(|item| Self::of(item, file)).collect()),
            DeValue::Table(table) => return Self::of_table(table, file, span),
        };
        Self { place, value }
    }

    /// The value at `path` and `true`, or what it would stand in, as far as the path leads, and `false`.
    pub fn at(&self, path: &KeyPath) -> (&Self, bool) {
        let mut node = self;
        for step in &path.0 {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Table(table)) => table.get(key).map(|entry| &entry.node),
                (Step::Index(index), Value::Array(items)) => items.get(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }

    /// Whether its text is short enough to be shown: tables are not, and arrays of them.
    pub fn is_plain(&self) -> bool {
        match &self.value {
            Value::Table(_) => false,
            Value::Array(items) => items.iter().all(Self::is_plain),
            _ => true,
        }
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Date => "a date or time",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

/// An integer beyond 128 bits is as good as the largest: no key takes either.
fn integer(digits: &str, radix: u32) -> i128 {
    let limit = if digits.starts_with('-') { i128::MIN } else { i128::MAX };
    i128::from_str_radix(digits, radix).unwrap_or(limit)
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

/// A key with the tables and arrays around it: `streams[2].source.path`. Positions count from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(Vec<Step>);

impl KeyPath {
    /// The key `key` of the table here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The entry `index` of the array here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// Whether this is `other` or lies in it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The last key, if it is not followed by a position.
    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Key(key)) => Some(key),
            _ => None,
        }
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// This, then what it lies in, out to the whole file.
    pub(super) fn outward(&self) -> impl Iterator<Item = Self> {
        (0..=self.0.len()).rev().map(|length| Self(self.0[..length].to_vec()))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    f.write_str(if position == 0 { "" } else { "." })?;
                    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                    match !key.is_empty() && key.bytes().all(bare) {
                        true => f.write_str(key)?,
                        false => write!(f, "{:?}", redact(key))?,
                    }
                }
            }
        }
        Ok(())
    }
}
