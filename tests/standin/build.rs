//! Building the stand-ins, and running a test on them.

use ocelli::infer::tensorrt::Version;
use ocelli::infer::tensorrt::library::compiled_version;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Set in a process that runs on the stand-ins.
const INSIDE: &str = "OCELLI_ON_STANDIN";
/// What the process says when the test has passed there.
const PASSED: &str = "passed on the stand-ins";

/// Whether this process runs on them.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Tells the process outside how it went.
pub fn tell(outcome: Result<(), String>) {
    let said = outcome.err().unwrap_or_else(|| PASSED.to_owned());
    std::io::stdout().lock().write_all(said.as_bytes()).unwrap();
}

/// Runs `test` on the stand-ins, with these variables, and gives what it said.
pub fn run(test: &str, variables: &[(&str, &str)]) -> String {
    let folder = folder();
    let asan = Command::new("cc").arg("-print-file-name=libasan.so").output().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env("LD_LIBRARY_PATH", folder)
        .env("OCELLI_TENSORRT_LIBRARIES", folder)
        .env("LD_PRELOAD", String::from_utf8(asan.stdout).unwrap().trim())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !said.contains("Sanitizer"), "{test} {variables:?}: {said}");
    said
}

/// A folder with nothing but a library of that name in which every call fails, as the CUDA toolkit's is.
pub fn stub() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("stub.cpp");
    std::fs::write(&source, "extern \"C\" int cuInit(unsigned) { return 34; }").unwrap();
    compile(
        &["-Wno-missing-declarations", "-Wl,-soname,libcuda.so.1"],
        &source,
        &folder.path().join("libcuda.so"),
    );
    folder
}

/// The same, where it has to pass.
pub fn passes(test: &str, variables: &[(&str, &str)]) {
    let said = run(test, variables);
    assert!(said.contains(PASSED), "{test} {variables:?}: {said}");
}

/// The same, where a call was told to fail: it says so, whatever it says beside.
pub fn fails(test: &str, variables: &[(&str, &str)], says: &[&str]) {
    let said = run(test, variables);
    let says_one = says.iter().any(|says| said.contains(says));
    assert!(says_one && !said.contains(PASSED), "{test} {variables:?} says none of {says:?}: {said}");
}

/// Where the stand-ins lie, built once a process.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let cuda = folder.path().join("libcuda.so");
            compile(&["-ffp-contract=off"], &Path::new(ROOT).join("tests/standin/cuda.cpp"), &cuda);
            std::os::unix::fs::symlink(&cuda, folder.path().join("libcuda.so.1")).unwrap();
            let headers = PathBuf::from(env!("OCELLI_TENSORRT_HEADERS"));
            let absent = absent(&std::fs::read_to_string(headers.join("NvInferImpl.h")).unwrap());
            std::fs::write(folder.path().join("absent.h"), absent).unwrap();
            let beside = format!("-I{}", folder.path().display());
            let cuda_headers = Path::new(ROOT).join("assets/tensorrt/include/cuda");
            let system = ["-isystem", headers.to_str().unwrap(), "-isystem", cuda_headers.to_str().unwrap()];
            let source = Path::new(ROOT).join("tests/standin/nvinfer.cpp");
            let Version { rtx, major, .. } = compiled_version();
            let name = if rtx { "libtensorrt_rtx" } else { "libnvinfer" };
            let library = folder.path().join(format!("{name}.so.{major}"));
            compile(&[&[beside.as_str()], &system[..]].concat(), &source, &library);
            folder
        })
        .path()
}

fn compile(more: &[&str], source: &Path, library: &Path) {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-g", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"])
        .args(["-fsanitize=address", "-pthread"])
        .args(more)
        .arg("-o")
        .args([library, source])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Classes for the parts of TensorRT that its own classes forward to, in which every call ends the process.
fn absent(header: &str) -> String {
    let code: String = header.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut code, line| {
            let _ = writeln!(code, "{line}");
            code
        },
    );
    let classes: BTreeMap<&str, &str> = code
        .split("\nclass V")
        .skip(1)
        .filter_map(|rest| {
            Some((rest.split_whitespace().next()?, rest.split_once('{')?.1.split_once("\n};")?.0))
        })
        .collect();
    let mut text = String::from(
        "#pragma once\n#pragma GCC diagnostic push\n#pragma GCC diagnostic ignored \"-Wunused-parameter\"\n\
         #pragma GCC diagnostic ignored \"-Wdeprecated-declarations\"\n#include <NvInferRuntime.h>\n\
         #include <cstdio>\n#include <cstdlib>\n\
         [[noreturn]] inline void unexpected(const char *call) {\n    \
         std::fprintf(stderr, \"the stand-in has no %s\\n\", call);\n    std::abort();\n}\n\
         namespace nvinfer1 {\nusing namespace apiv;\n",
    );
    for name in ["Runtime", "RuntimeConfig", "RuntimeCache", "HostMemory", "CudaEngine", "ExecutionContext"] {
        // Full TensorRT has no runtime cache.
        if !classes.contains_key(name) {
            continue;
        }
        let _ = writeln!(text, "class Absent{name} : public V{name} {{\n  public:");
        for declaration in classes[name].split(';') {
            let Some((_, method)) = declaration.split_once("virtual ") else { continue };
            let signature = method.rsplit_once('=').map_or(method, |(signature, _)| signature);
            let _ = writeln!(text, "    {signature} override {{ unexpected(__func__); }}");
        }
        text.push_str("};\n");
    }
    text.push_str("} // namespace nvinfer1\n#pragma GCC diagnostic pop\n");
    text
}
