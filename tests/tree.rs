//! What the tree holds, and who may use whom. The checks are functions of text, so that they are tested
//! themselves, on small trees that are wrong.

#[path = "tree/layers.rs"]
mod layers;
#[path = "tree/entries.rs"]
mod entries;

use std::collections::BTreeMap;
use std::path::Path;

/// Third-party crates and the places below `src/` that may use them; `""` is everywhere.
/// A new dependency needs a line here, and a new place a reason.
const ROOMS: &[(&str, &[&str])] = &[
    // Plain data and words: everywhere.
    ("heapless", &[""]),
    ("thiserror", &[""]),
    // Words for people, never on a frame's path.
    ("log", &["capture", "infer/tensorrt", "platform", "publish", "runtime", "telemetry", "cli", "main.rs"]),
    // The operating system.
    ("rustix", &["capture/v4l2", "platform", "pool", "publish", "runtime", "telemetry", "cli"]),
    ("libc", &["platform/exit.rs"]),
    ("thread_priority", &["platform"]),
    // One room each.
    ("gstreamer", &["capture/gst", "capture/mod.rs", "cli"]),
    ("gstreamer_allocators", &["capture/gst"]),
    ("gstreamer_app", &["capture/gst"]),
    ("gstreamer_base", &["capture/gst"]),
    ("gstreamer_video", &["capture/gst"]),
    ("crossbeam_utils", &["capture/v4l2"]),
    ("turbojpeg", &["capture/v4l2"]),
    ("v4l", &["capture/v4l2"]),
    ("ort", &["infer/onnxruntime"]),
    ("cudarc", &["infer/tensorrt"]),
    ("cxx", &["infer/tensorrt"]),
    ("nvml_wrapper", &["platform/sensors"]),
    ("half", &["infer"]),
    ("tokio", &["telemetry"]),
    ("env_filter", &["telemetry"]),
    ("jiff", &["telemetry"]),
    ("clap", &["cli", "main.rs"]),
    ("clap_complete", &["cli", "main.rs"]),
    ("hdrhistogram", &["stats.rs"]),
    ("embedded_graphics", &["publish/pictures"]),
    ("image", &["publish/pictures.rs"]),
    // Text in and out.
    (
        "serde",
        &[
            "image.rs",
            "job.rs",
            "stream.rs",
            "config",
            "model",
            "board",
            "infer/tensorrt",
            "publish",
            "runtime",
            "sim",
        ],
    ),
    (
        "serde_json",
        &[
            "image.rs",
            "config",
            "model",
            "board",
            "infer/tensorrt",
            "publish",
            "runtime",
            "sim",
            "bench",
            "cli",
        ],
    ),
    ("schemars", &["image.rs", "stream.rs", "config", "model", "board", "publish", "sim"]),
    ("toml", &["config"]),
    ("toml_parser", &["config"]),
    ("sha2", &["config", "infer/tensorrt", "model", "runtime/last", "sim"]),
    ("strsim", &["config"]),
];

/// Modules that each do one step of a frame's way, and know nothing of each other.
const STAGES: &[&str] = &["capture", "sched", "infer", "decode", "align", "publish", "watchdog"];

/// Files that may say `unsafe`.
const UNSAFE: &[&str] = &[
    "capture/gst/memory.rs",
    "capture/v4l2/device.rs",
    "capture/v4l2/ioctl.rs",
    "capture/v4l2/queue.rs",
    "infer/preprocess/simd/avx2.rs",
    "infer/preprocess/simd/neon.rs",
    "infer/tensorrt/bridge.rs",
    "infer/tensorrt/cuda.rs",
    "infer/tensorrt/golden.rs",
    "infer/tensorrt/kernels.rs",
    "infer/tensorrt/lane.rs",
    "infer/tensorrt/library.rs",
    "infer/tensorrt/memory.rs",
    "infer/tensorrt/stream.rs",
    "infer/tensorrt/upload.rs",
    "platform/exit.rs",
    "platform/watchdog_device.rs",
    "pool/mapping.rs",
    "pool/mod.rs",
    "pool/slab.rs",
    "pool/slots.rs",
    "pool/tests.rs",
];

/// What lies at the top, and what may lie there.
const REQUIRED: &[&str] = &[
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "boards",
    "clippy.toml",
    "models",
    "rustfmt.toml",
    "scripts",
    "src",
    "tests",
];
const ALLOWED: &[&str] = &["build.rs", "cpp"];

/// Largest file in bytes.
const LARGEST: u64 = 20_000_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Rust files below `src/`, by path from there.
fn sources() -> BTreeMap<String, String> {
    let files = entries::files(root());
    let sources = files.iter().filter_map(|file| Some((file.strip_prefix("src/")?, file)));
    sources
        .filter(|(name, _)| name.ends_with(".rs"))
        .map(|(name, file)| (name.to_owned(), read(file)))
        .collect()
}

/// Fails with one problem a line.
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn modules_import_only_from_above() {
    let sources = sources();
    assert!(sources.len() > 30, "the sources were not found");
    none(&layers::check(&sources["lib.rs"], &sources, STAGES));
}

#[test]
fn third_party_code_stays_in_its_room() {
    none(&layers::rooms(&layers::dependencies(&read("Cargo.toml")), &sources(), ROOMS));
}

#[test]
fn unsafe_stays_in_the_named_files() {
    none(&layers::unsafe_files(&sources(), UNSAFE));
}

#[test]
fn the_top_level_is_as_listed() {
    none(&entries::top(&entries::files(root()), REQUIRED, ALLOWED));
}

#[test]
fn no_file_is_huge() {
    let files = entries::files(root());
    let size = |file: &String| root().join(file).metadata().map_or(0, |metadata| metadata.len());
    none(&entries::huge(files.iter().map(|file| (file.as_str(), size(file))), LARGEST));
}

#[test]
fn texts_name_no_machine_and_leave_nothing_for_later() {
    let mut problems = Vec::new();
    for file in entries::files(root()) {
        // What is no text is data.
        if let Ok(text) = std::fs::read_to_string(root().join(&file)) {
            problems.extend(entries::text(&file, &text));
        }
    }
    none(&problems);
}

#[test]
fn models_are_what_their_manifests_say() {
    none(&entries::models(&root().join("models")));
}

#[test]
fn scripts_can_be_run() {
    let files = entries::files(root());
    let scripts: Vec<_> = files
        .iter()
        .filter(|file| file.rsplit_once('/').is_some_and(|(at, _)| at == "scripts" || at == ".ci"))
        .collect();
    for name in ["scripts/setup", "scripts/run", "scripts/rig", "scripts/test", ".ci/run"] {
        assert!(scripts.iter().any(|script| *script == name), "{name} is missing");
    }
    none(&scripts.iter().filter_map(|script| entries::script(root(), script)).collect::<Vec<_>>());
}
