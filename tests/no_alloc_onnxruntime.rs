//! With ONNX Runtime: still no allocation on the threads that handle frames, decoding of real outputs included.
//! What the library and its bindings allocate on the inference thread is theirs, and told.

mod common;
#[path = "common/malloc.rs"]
mod malloc;

use common::running;
use malloc::{handles_frames, of_threads};
use ocelli::board::{BackendSpec, Board};
use ocelli::infer::onnxruntime::{OnnxRuntime, Settings};
use ocelli::platform::Waker;
use std::path::Path;

#[test]
fn frames_cost_no_allocation_of_ours() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("assets/onnxruntime/libonnxruntime.so");
    assert!(library.exists(), "{} is missing: run scripts/setup", library.display());
    let mut board = running::synthetic(2);
    board.models = Board::load(&root.join("boards/simulated.toml")).expect("a board").models;
    board.accelerator.backend =
        BackendSpec::OnnxRuntime { library: Some(library.clone()), sessions: 1, threads: 1 };
    let settings = Settings { library: Some(&library), sessions: 1, threads: 1, max_batch: 4 };
    let frames = board.streams.iter().map(|stream| (stream.format, stream.width, stream.height)).collect();
    let waker = Waker::new();
    let backend =
        OnnxRuntime::open(&settings, &board.models, &[frames], &waker).expect("the library and the model");
    let mut run = running::start_on(&board, Box::new(backend), waker);
    run.wait_for_frames(20);
    let all = |name: &str| handles_frames(name) || name.starts_with("infer-");
    let (before, batches) = (of_threads(all), run.look().batches.0);
    run.wait_for_frames(60);
    let (after, batches) = (of_threads(all), run.look().batches.0 - batches);
    run.stop();
    assert!(batches > 10, "frames were served meanwhile");
    for (thread, count) in after {
        let during = count - before[&thread];
        if handles_frames(&thread.0) {
            assert_eq!(during, 0, "{}", thread.0);
        } else {
            eprintln!("{}: {:.1} allocations a batch", thread.0, during as f64 / batches as f64);
        }
    }
}
