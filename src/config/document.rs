//! A file being turned from text into what it means.

use super::Surroundings;
use super::check::{Check, Finding};
use super::inherit::Reading;
use super::problem::{Kind, Problem, Problems};
use super::secret::redact;
use super::tree::{KeyPath, Node};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// A file that was read, with what it inherits. Errors are collected until [`Document::finish`].
pub struct Document<'s> {
    reading: Reading<'s>,
    root: Node,
    flawed: BTreeSet<KeyPath>,
}

impl<'s> Document<'s> {
    /// Reads the file at `path`, and what it inherits. `kind` is what its problems are problems of.
    ///
    /// # Errors
    /// What can't be read or is not TOML.
    pub fn read(surroundings: &'s dyn Surroundings, path: &Path, kind: Kind) -> Result<Self, Problems> {
        let mut reading = Reading::new(surroundings, &path.display().to_string(), kind);
        let root = reading.read(path, None);
        match root {
            // After a syntax error or a missing file, half of what a check would say were wrong.
            Some(root) if !reading.incomplete => Ok(Self { reading, root, flawed: BTreeSet::new() }),
            _ => Err(reading.problems),
        }
    }

    /// The raw form of the file. It is always whole: where the file is wrong, the error is kept and a
    /// stand-in takes the place.
    ///
    /// # Errors
    /// If the raw form's own reader is stricter than its schema, which a test excludes.
    pub fn check<T: DeserializeOwned>(&mut self, schema: &Json) -> Result<T, Problems> {
        let (texts, flawed) = (self.reading.texts.as_slice(), std::mem::take(&mut self.flawed));
        let mut check = Check { texts, findings: Vec::new(), flawed };
        let value = check.value(&self.root, schema, &KeyPath::default());
        let Check { findings, flawed, .. } = check;
        self.flawed = flawed;
        for Finding { path, key, message } in findings {
            match key {
                Some(place) => self.reading.say(place, &path, false, self.reading.kind, message),
                None => self.say(&path, message),
            }
        }
        serde_json::from_value(value).map_err(|error| {
            let mut problems = Problems::of(&self.name());
            problems.push(Problem {
                kind: self.reading.kind,
                file: self.name(),
                at: Some((1, 1)),
                key: String::new(),
                value: None,
                message: redact(&format!("the schema allows what the reader refuses: {error}")),
            });
            problems
        })
    }

    /// Says what is wrong with the value at `path`, unless something was said about it before.
    pub fn report(&mut self, path: &KeyPath, message: impl Into<String>) {
        if self.is_sound(path) {
            self.say(path, message.into());
            self.flawed.insert(path.clone());
        }
    }

    /// Says that the value at `path` does not go with the one at `other`, unless one of both is wrong.
    pub fn report_both(&mut self, path: &KeyPath, other: &KeyPath, message: &str) {
        if self.is_sound(path) && self.is_sound(other) {
            let (node, exact) = self.root.at(other);
            let place = self.reading.name_of(node.place);
            let there = if exact { format!(" (see {other} at {place})") } else { String::new() };
            self.say(path, format!("{message}{there}"));
            self.flawed.insert(path.clone());
        }
    }

    /// Says that the file which the value at `path` names, or one that it names in turn, is wrong.
    pub fn report_all(&mut self, path: &KeyPath, problems: Problems) {
        self.flawed.insert(path.clone());
        self.reading.problems.append(problems);
    }

    /// The text of `file`, which the value at `path` names; else says what is wrong with it.
    pub fn read_beside(&mut self, path: &KeyPath, file: &Path) -> Option<String> {
        if !self.is_sound(path) {
            return None;
        }
        self.reading
            .text(file)
            .map_err(|(kind, message)| {
                let (node, _) = self.root.at(path);
                self.reading.say(node.place, path, true, kind, message);
                self.flawed.insert(path.clone());
            })
            .ok()
    }

    /// `file:line:column: key` of a value, for warnings.
    #[must_use]
    pub fn place(&self, path: &KeyPath) -> String {
        format!("{}: {path}", self.reading.name_of(self.root.at(path).0.place))
    }

    /// The texts that were read, in the order of reading.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.reading.texts.iter().map(|text| text.text.as_str())
    }

    /// What lies outside.
    #[must_use]
    pub fn surroundings(&self) -> &'s dyn Surroundings {
        self.reading.surroundings
    }

    /// `value`, if nothing was wrong.
    ///
    /// # Errors
    /// Everything that was.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Problems> {
        self.reading.problems.sort();
        match value {
            Some(value) if self.reading.problems.is_empty() => Ok(value),
            _ => Err(self.reading.problems),
        }
    }

    fn name(&self) -> String {
        self.reading.texts.first().map(|text| text.name.clone()).unwrap_or_default()
    }

    /// Whether nothing was said about the value at `path`, what it lies in, or what lies in it.
    fn is_sound(&self, path: &KeyPath) -> bool {
        // In the order of paths, what lies within one follows it.
        let within = self.flawed.range(path..).next().is_some_and(|next| next.is_within(path));
        !within && path.outward().all(|path| !self.flawed.contains(&path))
    }

    fn say(&mut self, path: &KeyPath, message: String) {
        let (node, exact) = self.root.at(path);
        self.reading.say(node.place, path, exact && node.is_plain(), self.reading.kind, message);
    }
}

/// SHA-256 of texts, credentials taken out, in hex.
#[derive(Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Takes a text in.
    pub fn add(&mut self, text: &str) {
        let text = redact(text);
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// The hash of all texts.
    #[must_use]
    pub fn hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
