//! Plans that tests build on a GPU: those of scripts/gpu-test's boards, so that each is built once.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where they are kept, and their largest batch.
pub struct Plans {
    folder: PathBuf,
    pub max_batch: u16,
    _own: Option<TempDir>,
}

impl Plans {
    /// In `OCELLI_GPU_ENGINES` for batches of `OCELLI_GPU_MAX_BATCH`; in a folder of their own for 4, where nobody says.
    pub fn shared() -> Self {
        let most = std::env::var("OCELLI_GPU_MAX_BATCH");
        let max_batch = most.map_or(4, |most| most.parse().expect("a number of jobs"));
        let folder = std::env::var_os("OCELLI_GPU_ENGINES").map(PathBuf::from);
        let own = folder.is_none().then(|| tempfile::tempdir().expect("a folder"));
        let folder = folder.or_else(|| own.as_ref().map(|own| own.path().to_owned())).unwrap_or_default();
        Self { folder, max_batch, _own: own }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
