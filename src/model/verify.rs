//! Whether a network's file is the one that its manifest names.

use super::Model;
use crate::config::Kind;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;

/// What is wrong with a network's file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Nothing is there.
    #[error("model {id}: there is no file {}; the manifest's `file` says where the network is", file.display())]
    Missing {
        /// The model.
        id: String,
        /// Its file.
        file: PathBuf,
    },
    /// It can't be read.
    #[error("model {id}: {} can't be read: {error}", file.display())]
    Unreadable {
        /// The model.
        id: String,
        /// Its file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It has no bytes, as an interrupted download leaves it.
    #[error("model {id}: {} is empty; put the network there again", file.display())]
    Empty {
        /// The model.
        id: String,
        /// Its file.
        file: PathBuf,
    },
    /// Git left a pointer in its place.
    #[error("model {id}: {} is a Git LFS pointer, not the network; run `git lfs pull`", file.display())]
    LfsPointer {
        /// The model.
        id: String,
        /// Its file.
        file: PathBuf,
    },
    /// It is another file than the manifest was written for.
    #[error(
        "model {id}: {} is not the network of its manifest: its SHA-256 is {found}, the manifest says \
         {expected}; put the right file there, or, if this one is meant, write its SHA-256 into the manifest",
        file.display()
    )]
    Mismatch {
        /// The model.
        id: String,
        /// Its file.
        file: PathBuf,
        /// SHA-256 of the manifest.
        expected: String,
        /// SHA-256 of the file.
        found: String,
    },
}

impl ModelError {
    /// What it is a problem of, for the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::MissingInput,
            _ => Kind::Model,
        }
    }
}

impl Model {
    /// Reads the network's file and holds it to the manifest's SHA-256. Takes about 5 ms a megabyte.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub fn verify(&self) -> Result<(), ModelError> {
        const LFS: &[u8] = b"version https://git-lfs";
        let (id, file) = (self.id.clone(), self.file.clone());
        let (found, start) = match hash(&self.file) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ModelError::Missing { id, file });
            }
            Err(error) => return Err(ModelError::Unreadable { id, file, error }),
        };
        if found == self.sha256 {
            Ok(())
        } else if start.is_empty() {
            Err(ModelError::Empty { id, file })
        } else if start.starts_with(LFS) {
            Err(ModelError::LfsPointer { id, file })
        } else {
            Err(ModelError::Mismatch { id, file, expected: self.sha256.clone(), found })
        }
    }
}

/// SHA-256 of a file in hex, and its first bytes.
fn hash(path: &std::path::Path) -> io::Result<(String, Vec<u8>)> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let (mut hash, mut start, mut buffer) = (Sha256::new(), Vec::new(), vec![0; 1 << 16]);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        if start.is_empty() {
            start = buffer[..count.min(64)].to_vec();
        }
    }
    Ok((hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), start))
}

#[cfg(test)]
mod tests {
    use crate::config::Kind;
    use crate::model::Model;
    use std::path::Path;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn model(folder: &Path) -> Model {
        let manifest = format!(
            "manifest_version = 1\nname = 'n'\nsource = 's'\nlicence = 'l'\nprecision = 'fp32'\n\
             file = 'net.onnx'\nsha256 = '{ABC}'\nlabels = ['a']\n\
             [input]\ntensor = 't'\nlayout = 'nchw'\ntype = 'f32'\nsize = [8, 8]\nchannels = 'rgb'\n\
             fit = 'stretch'\n[decoder]\nkind = 'classification'\noutput = 'o'\nactivation = 'softmax'\n\
             top = 1\n"
        );
        let path = folder.join("m.toml");
        std::fs::write(&path, manifest).unwrap();
        Model::load(&path, "m").unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn every_wrong_file_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let model = model(folder.path());
        let shown = model.file.display().to_string();
        let said = |content: Option<&str>| {
            if let Some(content) = content {
                std::fs::write(&model.file, content).unwrap();
            }
            model.verify().map_err(|error| (error.kind(), error.to_string().replace(&shown, "FILE")))
        };
        let missing = "model m: there is no file FILE; the manifest's `file` says where the network is";
        assert_eq!(said(None), Err((Kind::MissingInput, missing.into())));
        let empty = "model m: FILE is empty; put the network there again";
        assert_eq!(said(Some("")), Err((Kind::Model, empty.into())));
        let pointer = "model m: FILE is a Git LFS pointer, not the network; run `git lfs pull`";
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        assert_eq!(said(Some(lfs)), Err((Kind::Model, pointer.into())));
        let (kind, mismatch) = said(Some("abd")).unwrap_err();
        assert_eq!(kind, Kind::Model);
        assert!(mismatch.contains(&format!("the manifest says {ABC}; put the right file there")));
        assert_eq!(said(Some("abc")), Ok(()));
        std::fs::remove_file(&model.file).unwrap();
        std::fs::create_dir(&model.file).unwrap();
        let folder = "model m: FILE can't be read: it is not a regular file";
        assert_eq!(said(None), Err((Kind::Model, folder.into())));
    }
}
