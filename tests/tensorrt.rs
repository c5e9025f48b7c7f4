//! TensorRT without a GPU: TensorRT-RTX's builder reads and builds the shipped networks, plans are kept with their
//! passports, and what is wrong is said. Needs the feature, and the libraries that scripts/tensorrt fetches.
#![cfg(feature = "tensorrt")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod onnx;

use ocelli::infer::tensorrt::Progress;
use ocelli::infer::tensorrt::builder::{self, Request, Target};
use ocelli::infer::tensorrt::library::Library;
use ocelli::model::{Element, Model};
use onnx::{TOY, Toy};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A board with this model, in a folder of its own.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(manifest: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let board = format!(
            "config_version = 1\n[accelerator]\nbackend = \"tensorrt\"\nmax_batch = 8\nengine_cache = \"cache\"\n\
             [models.it]\nmanifest = {manifest:?}\n[[streams]]\nid = \"cam\"\nsource = {{ type = \"synthetic\" }}\n\
             fps = 30\nsize = [640, 360]\nformat = \"NV12\"\nlatency_bound_ms = 33\nmodel = \"it\"\n"
        );
        fs::write(folder.path().join("board.toml"), board).unwrap();
        Self { folder }
    }

    /// With a manifest of its own: the detector's, for another file.
    fn with_network(bytes: &[u8]) -> Self {
        let bench = Self::new(Path::new("model.toml"));
        let manifest = fs::read_to_string(Path::new(ROOT).join("models/person-ssdlite.fp32.toml")).unwrap();
        let base = Path::new(ROOT).join("models/base/person-ssdlite.toml");
        let sum = sha256(bytes);
        let lines = manifest.lines().map(|line| match line.split(' ').next() {
            Some("inherit") => format!("inherit = [{base:?}]"),
            Some("file") => "file = \"model.onnx\"".to_owned(),
            Some("sha256") => format!("sha256 = {sum:?}"),
            _ => line.to_owned(),
        });
        fs::write(bench.folder.path().join("model.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        fs::write(bench.folder.path().join("model.onnx"), bytes).unwrap();
        bench
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// The one plan that there is.
    fn plan(&self) -> PathBuf {
        let files = fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path());
        let plans: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "plan")).collect();
        let [plan] = plans.as_slice() else { panic!("{plans:?}") };
        plan.clone()
    }

    fn engine(&self, command: &str, more: &[&str]) -> Answer {
        self.engine_with(Path::new(ROOT).join("assets/tensorrt/lib").to_str().unwrap(), command, more)
    }

    fn engine_with(&self, libraries: &str, command: &str, more: &[&str]) -> Answer {
        let mut ocelli = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        let board = self.folder.path().join("board.toml");
        ocelli.args(["engine", command]).args(more).env("OCELLI_TENSORRT_LIBRARIES", libraries);
        if command != "inspect" {
            ocelli.arg(board);
        }
        Answer::of(&ocelli.output().unwrap())
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn is(self, code: i32, parts: &[&str]) -> Self {
        let said = format!("{}{}", self.out, self.err);
        let missing: Vec<_> = parts.iter().filter(|part| !said.contains(**part)).collect();
        assert!(self.code == Some(code) && missing.is_empty(), "wanted {code} and {missing:?}: {self:#?}");
        self
    }
}

/// Builds, looks at and verifies the plan of a model, and gives its passport.
fn built(manifest: &str) -> serde_json::Value {
    let bench = Bench::new(&Path::new(ROOT).join(manifest));
    let elsewhere = ["--for", "8.6,12.0"];
    bench
        .engine("build", &elsewhere)
        .is(0, &["for compute capability 8.6, 12.0", "building with TensorRT-RTX 1.7"]);
    bench.engine("verify", &elsewhere).is(0, &["whole, not loaded"]);
    let plan = bench.plan();
    bench.engine("inspect", &[plan.to_str().unwrap()]).is(0, &["whole", "batches of 1 to 8"]);
    bench.engine("build", &elsewhere).is(0, &["is here already"]);
    serde_json::from_slice(&fs::read(plan.with_extension("json")).unwrap()).unwrap()
}

fn shapes(passport: &serde_json::Value) -> Vec<String> {
    let tensors = passport["tensors"].as_array().unwrap();
    tensors
        .iter()
        .map(|tensor| format!("{} {} {}", tensor["name"], tensor["element"], tensor["shape"]))
        .collect()
}

#[test]
fn the_detector_builds_in_every_precision() {
    for precision in ["fp32", "fp16", "qdq"] {
        let passport = built(&format!("models/person-ssdlite.{precision}.toml"));
        assert_eq!(
            shapes(&passport),
            [
                "\"Preprocessor/mul:0\" \"f32\" [-1,300,300,3]",
                "\"concat:0\" \"f32\" [-1,1917,1,4]",
                "\"concat_1:0\" \"f32\" [-1,1917,2]",
            ],
            "{precision}"
        );
    }
}

#[test]
fn a_classifier_with_open_batch_builds() {
    let passport = built("tests/data/light_resnet50.toml");
    assert_eq!(
        shapes(&passport),
        ["\"gpu_0/data_0\" \"f32\" [-1,3,224,224]", "\"gpu_0/softmax_1\" \"f32\" [-1,1000]"]
    );
    assert!(passport["layers"].as_u64().unwrap() > 100);
}

#[test]
fn what_is_no_network_is_refused_with_the_reason() {
    let real = fs::read(Path::new(ROOT).join("models/person-ssdlite.fp32.onnx")).unwrap();
    let garbage: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut flipped = real.clone();
    flipped[200..400].fill(0xFF);
    for (what, bytes) in [("garbage", &garbage[..]), ("half", &real[..real.len() / 2]), ("flipped", &flipped)]
    {
        let answer = Bench::with_network(bytes).engine("build", &["--for", "8.6"]);
        assert_eq!(answer.code, Some(65), "{what}: {answer:#?}");
        assert!(answer.err.contains("model.onnx") && answer.err.contains("ONNX"), "{what}: {answer:#?}");
    }
    Bench::with_network(b"").engine("build", &["--for", "8.6"]).is(65, &["empty"]);
}

#[test]
fn a_network_that_is_not_its_manifests_is_refused() {
    let other = fs::read(Path::new(ROOT).join("tests/data/light_resnet50.onnx")).unwrap();
    let said = ["gpu_0/data_0", "the manifest says \"Preprocessor/mul:0\""];
    Bench::with_network(&other).engine("build", &["--for", "8.6"]).is(65, &said);
}

#[test]
fn plans_that_do_not_fit_are_refused_with_the_difference() {
    let bench = Bench::new(&Path::new(ROOT).join("tests/data/light_resnet50.toml"));
    bench.engine("verify", &["--for", "8.6"]).is(65, &["there is no plan", "ocelli engine build"]);
    bench.engine("build", &["--for", "8.6"]).is(0, &[]);
    bench.engine("verify", &["--for", "8.9"]).is(65, &["for compute capability 8.6, here 8.9"]);
    bench
        .engine("verify", &["--for", "8.6", "--level", "1"])
        .is(65, &["optimization level TensorRT's choice, here 1"]);
    // A plan that was changed is not used.
    let plan = bench.plan();
    let mut bytes = fs::read(&plan).unwrap();
    bytes.truncate(1000);
    fs::write(&plan, bytes).unwrap();
    bench.engine("verify", &["--for", "8.6"]).is(65, &["not the plan of its passport", "1000 bytes"]);
    bench.engine("inspect", &[plan.to_str().unwrap()]).is(65, &["not the plan of its passport"]);
    // And is built again when asked to build.
    bench.engine("build", &["--for", "8.6"]).is(0, &["building with"]);
    bench.engine("verify", &["--for", "8.6"]).is(0, &["whole"]);
}

/// Whether this process was told which TensorRT is meant; else `test` runs, and passes, in one that is.
fn inside(test: &str) -> bool {
    const INSIDE: &str = "OCELLI_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut inside = Command::new(std::env::current_exe().unwrap());
    inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    inside.env("OCELLI_TENSORRT_LIBRARIES", format!("{ROOT}/assets/tensorrt/lib"));
    Answer::of(&inside.output().unwrap()).is(0, &["1 passed"]);
    false
}

/// What is built for the device here is what is built for its compute capability. There is none here, so its name and
/// number are made up.
#[test]
fn a_plan_for_the_device_here_is_for_its_compute_capability() {
    if !inside("a_plan_for_the_device_here_is_for_its_compute_capability") {
        return;
    }
    let library = Library::open().unwrap();
    let model = Model::load(&Path::new(ROOT).join("tests/data/light_resnet50.toml"), "it").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let plan = |target| {
        let request = Request::of_board(target, 8, 1);
        let silent = Progress::new(|_| ());
        let (path, passport) =
            builder::build(&library, None, &model, &request, folder.path(), "test", &silent).unwrap();
        passport.plan(&path).unwrap()
    };
    let here = |capability| plan(Target::Here { device: "a device".into(), capability });
    let elsewhere = |capability| plan(Target::Capabilities(vec![capability]));
    assert!(here(86) == elsewhere(86) && here(120) == elsewhere(120) && here(86) != here(120));
}

/// A network that takes signed bytes, quantized with its manifest's scale and offset.
#[test]
fn a_quantized_input_builds() {
    if !inside("a_quantized_input_builds") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toy.onnx");
    let bytes = Toy { element: Element::I8, ..TOY }.bytes();
    fs::write(&file, &bytes).unwrap();
    let mut model = onnx::manifest(&file);
    (model.input.element, model.sha256) = (Element::I8, sha256(&bytes));
    let (library, silent) = (Library::open().unwrap(), Progress::new(|_| ()));
    let request = Request::of_board(Target::Capabilities(vec![86]), 8, 1);
    let built = builder::build(&library, None, &model, &request, folder.path(), "test", &silent);
    let input = built.unwrap().1.tensors.into_iter().find(|tensor| tensor.input).unwrap();
    assert_eq!(input.element, "i8");
}

/// A shared library of this source, as `file` in `folder`.
fn library(folder: &Path, file: &str, source: &str) {
    let text = folder.join("library.c");
    fs::write(&text, source).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status =
        Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(folder.join(file)).arg(&text).status();
    assert!(status.unwrap().success());
}

#[test]
fn another_version_is_refused_before_it_is_called() {
    let bench = Bench::new(&Path::new(ROOT).join("tests/data/light_resnet50.toml"));
    let folder = bench.folder.path();
    let said = [
        "is TensorRT-RTX 1.3.2, and this program was compiled for TensorRT-RTX 1.7",
        "OCELLI_TENSORRT_INCLUDE",
    ];
    library(folder, "libtensorrt_rtx.so.1", "int getInferLibVersion(void) { return 10302; }");
    bench.engine_with(folder.to_str().unwrap(), "build", &["--for", "8.6"]).is(69, &said);
    library(folder, "libtensorrt_rtx.so.1", "int nothing(void) { return 0; }");
    let none = ["has no getInferLibVersion"];
    bench.engine_with(folder.to_str().unwrap(), "build", &["--for", "8.6"]).is(69, &none);
}

#[test]
fn a_driver_that_fails_is_said() {
    let bench = Bench::new(&Path::new(ROOT).join("tests/data/light_resnet50.toml"));
    let driver = |source: &str, said: &str| {
        let folder = tempfile::tempdir().unwrap();
        library(folder.path(), "libcuda.so.1", source);
        let mut ocelli = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        ocelli.args(["engine", "build"]).arg(bench.folder.path().join("board.toml"));
        ocelli.env("OCELLI_TENSORRT_LIBRARIES", format!("{ROOT}/assets/tensorrt/lib"));
        ocelli.env("LD_LIBRARY_PATH", folder.path());
        Answer::of(&ocelli.output().unwrap()).is(69, &[said, "--for builds for devices elsewhere"]);
    };
    driver("int cuInit(unsigned flags) { return 100; }", "cuInit gives error 100");
    driver("int other(void) { return 0; }", "libcuda.so.1 has no cuInit");
    let none =
        "int cuInit(unsigned flags) { return 0; } int cuDeviceGetCount(int *count) { *count = 0; return 0; }";
    driver(none, "there is no CUDA device number 0; there are 0");
    let hopper = "int cuInit(unsigned flags) { return 0; } int cuDeviceGetCount(int *count) { *count = 1; return 0; }
        int cuDeviceGet(int *device, int number) { *device = number; return 0; }
        int cuDeviceGetName(char *name, int length, int device) { *name = 0; return 0; }
        int cuDeviceGetAttribute(int *value, int what, int device) { *value = what == 75 ? 9 : 0; return 0; }";
    driver(
        hopper,
        "TensorRT-RTX 1.7.1 does not serve devices of compute capability 9.0; full TensorRT does: install it",
    );
}

#[test]
fn what_is_missing_on_this_machine_is_said() {
    let bench = Bench::new(&Path::new(ROOT).join("tests/data/light_resnet50.toml"));
    let folder = bench.folder.path();
    let named = folder.to_str().unwrap();
    let gone = ["libtensorrt_rtx.so.1", "OCELLI_TENSORRT_LIBRARIES"];
    bench.engine_with(named, "build", &["--for", "8.6"]).is(69, &gone);
    // A library that is not TensorRT's.
    fs::write(folder.join("libtensorrt_rtx.so.1"), b"no library").unwrap();
    bench.engine_with(named, "build", &["--for", "8.6"]).is(69, &gone);
    bench.engine("build", &["--for", "8.6", "--model", "that"]).is(64, &["the board has it"]);
    bench.engine("build", &["--for", "sm_86"]).is(64, &["a number like 8.9"]);
    bench
        .engine("build", &["--for", "8.6,8.7"])
        .is(69, &["does not serve devices of compute capability 8.7"]);
    bench.engine("build", &["--for", "8.6", "--dla", "0"]).is(65, &["DLA"]);
    bench.engine("inspect", &[named]).is(66, &["there are no plans"]);
    // And a board that is to run says it in one sentence.
    let run = |libraries: &str| {
        let mut ocelli = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        ocelli.arg("run").arg(folder.join("board.toml")).env("OCELLI_TENSORRT_LIBRARIES", libraries);
        let answer = Answer::of(&ocelli.output().unwrap());
        assert_eq!(answer.err.lines().count(), 1, "{answer:#?}");
        answer
    };
    run(named).is(69, &gone);
    run(&format!("{ROOT}/assets/tensorrt/lib")).is(69, &["there is no NVIDIA driver (libcuda.so.1)"]);
}
