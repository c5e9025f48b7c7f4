//! What is said when ONNX Runtime's library is not there or is something else. A process of its own, because
//! a process loads the library once.

use ocelli::infer::InferError;
use ocelli::infer::onnxruntime::{OnnxRuntime, Settings};
use ocelli::platform::Waker;
use std::path::Path;

fn complaint(library: &Path) -> String {
    let settings = Settings { library: Some(library), sessions: 1, threads: 1, max_batch: 1 };
    match OnnxRuntime::open(&settings, &[], &[], &Waker::new()) {
        Err(error @ InferError::Unavailable { .. }) => error.to_string(),
        other => panic!("not an error about the library: {other:?}"),
    }
}

#[test]
fn a_library_that_cannot_be_used_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("libonnxruntime.so");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    // Some other library: the one that this process itself is running with.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let other =
        maps.split_whitespace().find(|path| path.contains("/libc.so")).expect("a C library is mapped");
    for (path, says) in [
        (missing.as_path(), "no such file"),
        (text.as_path(), "can't load"),
        (Path::new(other), "not ONNX Runtime's"),
    ] {
        let text = complaint(path);
        for says in [says, path.to_str().unwrap(), "scripts/setup", "`library`", "ORT_DYLIB_PATH"] {
            assert!(text.contains(says), "{text}\ndoes not say {says:?}");
        }
    }
}
