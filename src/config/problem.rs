//! What is wrong with a text, all of it, with places.

use std::fmt;

/// Most problems that are kept; more are counted.
const MAX_KEPT: usize = 100;

/// What a problem is a problem of, for the exit code. The worst of several comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A file that is read does not exist (exit 66).
    MissingInput,
    /// A model's manifest or file is wrong (exit 65).
    Model,
    /// A board file is wrong, or a scenario (exit 78).
    Board,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is a problem of.
    pub kind: Kind,
    /// The file.
    pub file: String,
    /// Line and column, both from 1, columns in characters; `None` for the file as a whole.
    pub at: Option<(u32, u32)>,
    /// The key with its tables: `streams[2].fps`; empty for the file as a whole.
    pub key: String,
    /// The value as it stands in the file, shortened, without credentials.
    pub value: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        match (self.key.as_str(), &self.value) {
            ("", _) => {}
            (key, None) => write!(f, ": {key}")?,
            (key, Some(value)) => write!(f, ": {key} = {value}")?,
        }
        write!(f, "\n    {}", self.message)
    }
}

/// Everything that is wrong with a file and those that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
    not_kept: usize,
}

impl Problems {
    pub(super) fn of(file: &str) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), not_kept: 0 }
    }

    /// The problems, in the order of reading; at most the first hundred.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// What they are problems of: the worst.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.list.iter().map(|problem| problem.kind).max().unwrap_or(Kind::Board)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, problem: Problem) {
        if self.list.len() < MAX_KEPT {
            self.list.push(problem);
        } else {
            self.not_kept += 1;
        }
    }

    /// Puts the problems of each file in the order of its lines.
    pub(super) fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for problem in &self.list {
            if !files.contains(&problem.file) {
                files.push(problem.file.clone());
            }
        }
        self.list.sort_by_key(|problem| (files.iter().position(|f| *f == problem.file), problem.at));
    }

    pub(super) fn append(&mut self, other: Self) {
        self.not_kept += other.not_kept;
        other.list.into_iter().for_each(|problem| self.push(problem));
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            writeln!(f, "{problem}")?;
        }
        match self.list.len() + self.not_kept {
            1 => write!(f, "1 problem in {}", self.file),
            count if self.not_kept > 0 => {
                write!(f, "{count} problems in {}, the first {MAX_KEPT} are shown", self.file)
            }
            count => write!(f, "{count} problems in {}", self.file),
        }
    }
}

impl std::error::Error for Problems {}
