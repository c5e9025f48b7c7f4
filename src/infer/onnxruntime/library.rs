//! Finding and loading the shared library, once a process.

use crate::infer::InferError;
use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;
use std::env::var_os;
use std::ffi::OsStr;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Mutex, PoisonError};

/// The system's library, where neither the board nor the environment names one.
const SYSTEM: &str = "libonnxruntime.so";

/// What was loaded, from where. ONNX Runtime has one environment a process, for its whole life.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Loads the library (the board's, else `ORT_DYLIB_PATH`, else the system's) unless it is loaded already.
pub fn environment(library: Option<&Path>) -> Result<Environment, InferError> {
    let path = match library {
        Some(path) => named(path)?,
        None => match var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
            Some(path) => named(Path::new(&path))?,
            None => PathBuf::from(SYSTEM),
        },
    };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((first, environment)) = loaded.as_ref() {
        if *first == path {
            return Ok(environment.clone());
        }
        let what = format!(
            "ONNX Runtime was loaded from {} already and can't be loaded from {} as well",
            first.display(),
            path.display()
        );
        return Err(unavailable(what));
    }
    let environment = ort::init_from(&path)
        .map_err(|why| unusable(&path, &why))?
        .with_name("ocelli")
        .with_telemetry(false)
        .build()
        .map_err(|why| unavailable(format!("ONNX Runtime ({}) does not start: {why}", path.display())))?;
    // Every error comes back as a result; on its own the library would write them to standard error too.
    environment.set_log_level(LogLevel::Fatal);
    *loaded = Some((path, environment.clone()));
    Ok(environment)
}

/// The loaded library's name and version, as far as it can be known: some builds say only their commit, then
/// the file's name may tell (`libonnxruntime.so.1.32.0`, through links).
pub fn name() -> String {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let file = loaded.as_ref().and_then(|(path, _)| path.canonicalize().ok());
    let file = file.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    named_version(ort::info(), file)
}

/// `info` is "ORT Build Info: git-branch=rel-1.32.0, git-commit-id=fab30a4, ...", or has another branch.
fn named_version(info: &str, file: &str) -> String {
    let entry = |key: &str| info.split([' ', ',']).find_map(|entry| entry.strip_prefix(key));
    let released = entry("git-branch=rel-").or(file.split_once(".so.").map(|(_, version)| version));
    match (released, entry("git-commit-id=")) {
        (Some(version), _) => format!("onnxruntime {version}"),
        (None, Some(commit)) => format!("onnxruntime (commit {commit})"),
        (None, None) => "onnxruntime".into(),
    }
}

/// A library that somebody named must be a file.
fn named(path: &Path) -> Result<PathBuf, InferError> {
    match absolute(path) {
        Ok(path) if path.is_file() => Ok(path),
        _ => Err(unavailable(format!(
            "ONNX Runtime's shared library is to be loaded from {}, but there is no such file",
            path.display()
        ))),
    }
}

fn unusable(path: &Path, why: &LoadDynamicError) -> InferError {
    let path = path.display();
    unavailable(match why {
        LoadDynamicError::Dlopen { error, .. } => {
            format!("can't load ONNX Runtime's shared library {path}: {error}")
        }
        LoadDynamicError::MissingApi { .. } => {
            format!("{path} is a shared library, but not ONNX Runtime's (it has no OrtGetApiBase)")
        }
        LoadDynamicError::InvalidVersionString => format!("{path} does not say which version it is"),
        LoadDynamicError::BadVersion { version_str, .. } => {
            format!("{path} is ONNX Runtime {version_str}, which is too old")
        }
    })
}

fn unavailable(what: String) -> InferError {
    let remedy = format!(
        "run scripts/setup, which fetches the right one, or name a libonnxruntime.so of version 1.{} or later \
         in the board's [accelerator] as `library`, or in ORT_DYLIB_PATH",
        ort::MINOR_VERSION
    );
    InferError::Unavailable { what, remedy }
}

#[cfg(test)]
mod tests {
    use super::named_version;

    #[test]
    fn versions_come_from_the_branch_the_file_or_the_commit() {
        let release = "ORT Build Info: git-branch=rel-1.24.1, git-commit-id=01f2e3d, build type=Release";
        let head = "ORT Build Info: git-branch=HEAD, git-commit-id=fab30a4, build type=Release";
        assert_eq!(named_version(release, "libonnxruntime.so"), "onnxruntime 1.24.1");
        assert_eq!(named_version(head, "libonnxruntime.so.1.32.0"), "onnxruntime 1.32.0");
        assert_eq!(named_version(head, "libonnxruntime.so"), "onnxruntime (commit fab30a4)");
        assert_eq!(named_version("", ""), "onnxruntime");
    }
}
