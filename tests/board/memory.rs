//! Files and environment variables in memory.

use ocelli::config::Surroundings;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Default)]
pub struct Memory {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pub variables: BTreeMap<String, String>,
}

impl Memory {
    pub fn with(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.into(), text.as_ref().to_vec());
        self
    }
}

impl Surroundings for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(&self.identity(path)).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn neighbours(&self, path: &Path) -> Vec<String> {
        let folder = self.identity(path).parent().map(Path::to_owned);
        let beside = self.files.keys().filter(|file| file.parent().map(Path::to_owned) == folder);
        beside.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned())).collect()
    }
}

/// A manifest that is right.
pub const MANIFEST: &str = r#"manifest_version = 1
name = "a person detector"
source = "nowhere"
licence = "MIT"
file = "person.onnx"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
precision = "fp32"
labels = ["person"]
[input]
tensor = "images"
layout = "nchw"
type = "f32"
size = [320, 320]
channels = "rgb"
fit = "letterbox"
mean = [0.5]
std = [0.5]
[decoder]
kind = "yolo"
output = "output0"
head = "v8"
score_threshold = 0.4
iou_threshold = 0.5
"#;
