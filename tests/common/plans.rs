//! Plans that tests build on a GPU: those of scripts/gpu-test's boards, so that each is built once.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where they are kept, their largest batch, and how many contexts they are for.
pub struct Plans {
    folder: PathBuf,
    pub max_batch: u16,
    pub contexts: u16,
    _own: Option<TempDir>,
}

impl Plans {
    /// In `OCELLI_GPU_ENGINES` for batches of `OCELLI_GPU_MAX_BATCH` in `OCELLI_GPU_CONTEXTS`; in a folder of their own
    /// for 4 in 2, where nobody says.
    pub fn shared() -> Self {
        let number = |name: &str, or| std::env::var(name).map_or(or, |said| said.parse().expect("a number"));
        let (max_batch, contexts) = (number("OCELLI_GPU_MAX_BATCH", 4), number("OCELLI_GPU_CONTEXTS", 2));
        let folder = std::env::var_os("OCELLI_GPU_ENGINES").map(PathBuf::from);
        let own = folder.is_none().then(|| tempfile::tempdir().expect("a folder"));
        let folder = folder.or_else(|| own.as_ref().map(|own| own.path().to_owned())).unwrap_or_default();
        Self { folder, max_batch, contexts, _own: own }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
