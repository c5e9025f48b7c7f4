//! With TensorRT on a real GPU, where `OCELLI_GPU=1` says that there is one: no allocation for a frame on any thread that
//! handles frames, and no byte copied on the host.
#![cfg(feature = "tensorrt")]

mod common;
#[path = "common/malloc.rs"]
mod malloc;
#[path = "common/plans.rs"]
mod plans;

use common::running;
use malloc::{handles_frames, of_threads};
use ocelli::board::BackendSpec;
use ocelli::infer::tensorrt::{Building, Progress, Settings, TensorRt};
use ocelli::model::Model;
use ocelli::platform::Waker;
use ocelli::stats::{Copies, CopyStage};
use plans::Plans;
use std::path::Path;
use std::sync::Arc;

#[test]
fn no_allocation_for_a_frame_on_tensorrt() {
    if std::env::var_os("OCELLI_GPU").is_none_or(|set| set != "1") {
        eprintln!("SKIPPED: OCELLI_GPU=1 runs this on a GPU");
        return;
    }
    let mut board = running::synthetic(4);
    board.models =
        vec![Model::load(Path::new("models/person-ssdlite.fp16.toml"), "person").expect("a model")];
    let plans = Plans::shared();
    board.accelerator.backend = BackendSpec::TensorRt {
        device: 0,
        engine_cache: plans.folder().to_owned(),
        contexts: plans.contexts,
        dla: Vec::new(),
        build_plans: false,
    };
    let silent = |_: &str| Progress::new(|_| {});
    let frame_bytes = 64 * 48 * 3;
    let settings = Settings {
        device: 0,
        lanes: plans.contexts,
        dla: &[],
        max_batch: plans.max_batch,
        cache: plans.folder(),
        frame_bytes,
        build: Some(Building { progress: &silent, by: "test" }),
    };
    let (waker, copies) = (Waker::new(), Arc::new(Copies::default()));
    let backend = TensorRt::open(&settings, &board.models, &copies, &waker).expect("TensorRT and the model");
    let mut run = running::start_on(&board, Box::new(backend), waker);
    run.wait_for_frames(30);
    let (before, batches) = (of_threads(handles_frames), run.look().batches.0);
    run.wait_for_frames(120);
    let (after, batches) = (of_threads(handles_frames), run.look().batches.0 - batches);
    let finished = run.stop();
    assert!(batches > 10, "frames were served meanwhile");
    assert_eq!(after, before);
    assert!(finished.total().balances());
    for stage in CopyStage::ALL {
        assert_eq!(copies.bytes(stage), 0, "{}", stage.as_str());
    }
}
