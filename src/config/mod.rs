//! Text that people write: TOML files held to a schema, with every error at once.
//!
//! A raw form is a plain struct that derives `Deserialize` and `JsonSchema`. Its JSON Schema is the one
//! source of truth: [`Document::check`] holds the file to it, `ocelli schema` prints it, editors read it. So
//! a key, its range, its default and its meaning are written down once.
//!
//! Architecture invariant: the file system and the environment are reached through [`Surroundings`] only,
//! so that everything here also runs on texts in memory.

mod check;
mod document;
mod inherit;
mod problem;
mod scalar;
mod schema;
mod secret;
mod tree;

#[cfg(test)]
pub(crate) use check::tests::says_what_the_check_does;
pub use document::{Document, Fingerprint};
pub use problem::{Kind, Problem, Problems};
pub use schema::{Id, RelativePath, Sha256, WatchdogName, schema_of};
pub use secret::{Address, redact};
pub use tree::KeyPath;

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// What a text refers to outside itself.
pub trait Surroundings {
    /// The bytes of a file.
    ///
    /// # Errors
    /// Those of the file system; `FileTooLarge` above [`MAX_BYTES`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// Whether there is something at `path`.
    fn exists(&self, path: &Path) -> bool {
        self.read(path).is_ok()
    }

    /// Names of the files beside `path`, for "did you mean".
    fn neighbours(&self, _path: &Path) -> Vec<String> {
        Vec::new()
    }

    /// The one name of a file that has many; two paths are the same file if this is the same.
    fn identity(&self, path: &Path) -> PathBuf {
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir if clean.file_name().is_some() => {
                    clean.pop();
                }
                other => clean.push(other),
            }
        }
        clean
    }
}

/// The real file system and environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Surroundings for System {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Asked before opening: opening a FIFO would wait for its writer.
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn neighbours(&self, path: &Path) -> Vec<String> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    fn identity(&self, path: &Path) -> PathBuf {
        fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
    }
}

/// The candidate that is most like `word`, if one is like it at all.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (likeness(&word, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// 0 to 1. Jaro-Winkler does not see that two letters of a short word were exchanged (`fsp` for `fps`).
fn likeness(word: &str, candidate: &str) -> f64 {
    let one_slip = word.len() > 2 && strsim::damerau_levenshtein(word, candidate) <= 1;
    strsim::jaro_winkler(word, candidate).max(if one_slip { 0.9 } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_of_the_finger_find_their_key() {
        let keys = ["fps", "faults", "format", "period_ms", "criticality"];
        for (typed, meant) in
            [("fsp", "fps"), ("periodms", "period_ms"), ("criticalty", "criticality"), ("FORMAT", "format")]
        {
            assert_eq!(nearest(typed, keys), Some(meant), "{typed}");
        }
        assert_eq!(nearest("gpu", keys), None);
        assert_eq!(nearest("x", keys), None);
    }
}
