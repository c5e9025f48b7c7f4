//! Service time of the person detector on ONNX Runtime, pre-processing of 640x360 NV12 frames included:
//! l(b) for every batch size, for sessions and threads as a board may share out two cores. With several
//! sessions all are kept busy, and images per second count all of them. Prints medians of alternated rounds.
#![allow(clippy::print_stdout)]

use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::onnxruntime::{OnnxRuntime, Settings};
use ocelli::infer::{Backend, InferError};
use ocelli::job::{BatchJob, Job};
use ocelli::model::{
    Activation, Anchors, Channels, Decoder, Element, Fit, Input, Model, Suppression, TensorLayout,
};
use ocelli::platform::{Waker, clock};
use ocelli::pool::{FrameRef, Pool, ShareSpec};
use ocelli::stream::{ModelId, StreamId};
use std::path::Path;
use std::time::Duration;

const FRAME: (PixelFormat, u32, u32) = (PixelFormat::Nv12, 640, 360);
const MAX_BATCH: u16 = 8;
const ROUNDS: usize = 5;
/// Batches of each session in a round; the middle ones count.
const BATCHES: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("assets/onnxruntime/libonnxruntime.so");
    let layout = ImageLayout::packed(FRAME.0, FRAME.1, FRAME.2);
    let slot_bytes = layout.extent().ok_or("the layout is sound")?;
    let share = Pool::new(&[ShareSpec { slots: 1, slot_bytes }], false)?.share(StreamId(0));
    let frame = share.take().and_then(|frame| frame.freeze(layout).ok()).ok_or("one slot")?;
    let models = [person_detector(root)];
    for (sessions, threads) in [(1, 1), (1, 2), (2, 1)] {
        let waker = Waker::new();
        waker.attach();
        let settings = Settings { library: Some(&library), sessions, threads, max_batch: MAX_BATCH };
        let backend = OnnxRuntime::open(&settings, &models, &[vec![FRAME]], &waker)?;
        measure(backend, &waker, &frame, sessions, threads)?;
    }
    Ok(())
}

fn measure(
    mut backend: OnnxRuntime,
    waker: &Waker,
    frame: &FrameRef,
    sessions: u16,
    threads: u16,
) -> Result<(), InferError> {
    let mut spare: Vec<_> = (0..sessions).map(|_| backend.capabilities().new_batch()).collect();
    let mut services = vec![Vec::new(); usize::from(MAX_BATCH) + 1];
    let mut seconds = vec![Vec::new(); usize::from(MAX_BATCH) + 1];
    for _ in 0..ROUNDS {
        for size in 1..=usize::from(MAX_BATCH) {
            let start = clock::now();
            let (mut left, mut running) = (BATCHES * usize::from(sessions), 0);
            while left > 0 || running > 0 {
                while let Some(mut batch) = spare.pop_if(|_| left > 0) {
                    batch.clear();
                    batch.jobs.extend((0..size).map(|_| BatchJob { job: job(), payload: frame.clone() }));
                    backend.submit(clock::now(), batch).map_err(|batch| refused(batch.fault))?;
                    (left, running) = (left - 1, running + 1);
                }
                match backend.poll(clock::now()) {
                    Some(batch) if batch.fault.is_some() => return Err(refused(batch.fault)),
                    Some(batch) => {
                        services[size].push(batch.service);
                        spare.push(batch);
                        running -= 1;
                    }
                    None => waker.wait_until(None),
                }
            }
            let batches = (BATCHES * usize::from(sessions)) as u32;
            seconds[size].push(clock::now().since(start) / batches);
        }
    }
    for size in 1..=usize::from(MAX_BATCH) {
        let rate = size as f64 / median(&mut seconds[size]).as_secs_f64();
        let service = median(&mut services[size]).as_secs_f64() * 1e3;
        let worst = services[size].last().copied().unwrap_or_default().as_secs_f64() * 1e3;
        println!(
            "service/int8/sessions={sessions}/threads={threads}/b={size}  l(b) {service:6.2} ms  worst \
             {worst:6.2} ms  {rate:5.0} images/s"
        );
    }
    Ok(())
}

fn refused(fault: Option<ocelli::job::BatchFault>) -> InferError {
    InferError::System(format!("the backend did not compute: {fault:?}"))
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort();
    values[values.len() / 2]
}

fn job() -> Job {
    let now = clock::now();
    Job {
        stream: StreamId(0),
        sequence: 0,
        model: ModelId(0),
        captured: now,
        arrived: now,
        deadline: now + Duration::from_millis(100),
    }
}

fn person_detector(root: &Path) -> Model {
    Model {
        id: "person-ssdlite".into(),
        file: root.join("models/person-ssdlite.int8.onnx"),
        sha256: String::new(),
        precision: "int8".into(),
        input: Input {
            tensor: "Preprocessor/mul:0".into(),
            layout: TensorLayout::Nhwc,
            element: Element::F32,
            width: 300,
            height: 300,
            channels: Channels::Rgb,
            fit: Fit::Stretch,
            fill: 0,
            scale: [1.0 / 127.5; 3],
            offset: [0.0; 3],
        },
        decoder: Decoder::Ssd {
            boxes: "concat:0".into(),
            scores: "concat_1:0".into(),
            background: true,
            activation: Activation::Sigmoid,
            anchors: Anchors {
                maps: Vec::new(),
                min_scale: 0.0,
                max_scale: 0.0,
                ratios: Vec::new(),
                interpolated: false,
                first: Vec::new(),
            },
            variance: [1.0; 4],
            suppression: Suppression { score_threshold: 0.4, iou_threshold: 0.5, candidates: 100 },
        },
        labels: vec!["person".into()],
    }
}
