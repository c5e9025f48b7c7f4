//! Service time of the person detector on ONNX Runtime, pre-processing of 640x360 NV12 frames included:
//! l(b) for every batch size, for sessions and threads as a board may share out two cores. With several
//! sessions all are kept busy, and images per second count all of them. The cases take turns.
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
/// Batches of each session in a round.
const BATCHES: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("assets/onnxruntime/libonnxruntime.so");
    let layout = ImageLayout::packed(FRAME.0, FRAME.1, FRAME.2);
    let slot_bytes = layout.extent().ok_or("the layout is sound")?;
    let share = Pool::new(&[ShareSpec { slots: 1, slot_bytes }], false)?.share(StreamId(0));
    let frame = share.take().and_then(|frame| frame.freeze(layout).ok()).ok_or("one slot")?;
    let models = [person_detector(root)];
    let waker = Waker::new();
    waker.attach();
    let mut cases = Vec::new();
    for (sessions, threads) in [(1, 1), (1, 2), (2, 1)] {
        let settings = Settings { library: Some(&library), sessions, threads, max_batch: MAX_BATCH };
        let backend = OnnxRuntime::open(&settings, &models, &[vec![FRAME]], &waker)?;
        cases.push(Case::new(format!("sessions={sessions}/threads={threads}"), backend));
    }
    for _ in 0..ROUNDS {
        for size in 1..=usize::from(MAX_BATCH) {
            for case in &mut cases {
                case.round(size, &waker, &frame)?;
            }
        }
    }
    cases.iter_mut().for_each(Case::print);
    Ok(())
}

/// A backend and what was measured of it, by batch size.
struct Case {
    name: String,
    backend: OnnxRuntime,
    services: Vec<Vec<Duration>>,
    /// Wall time per batch of a round, all sessions busy.
    walls: Vec<Vec<Duration>>,
    submits: Vec<Duration>,
}

impl Case {
    fn new(name: String, backend: OnnxRuntime) -> Self {
        let sizes = usize::from(MAX_BATCH) + 1;
        Self {
            name,
            backend,
            services: vec![Vec::new(); sizes],
            walls: vec![Vec::new(); sizes],
            submits: Vec::new(),
        }
    }

    fn round(&mut self, size: usize, waker: &Waker, frame: &FrameRef) -> Result<(), InferError> {
        let in_flight = self.backend.capabilities().in_flight();
        let mut spare: Vec<_> = (0..in_flight).map(|_| self.backend.capabilities().new_batch()).collect();
        let (batches, mut submitted, mut completed) = (BATCHES * in_flight, 0, 0);
        let start = clock::now();
        while completed < batches {
            while let Some(mut batch) = spare.pop_if(|_| submitted < batches) {
                batch.clear();
                batch.jobs.extend((0..size).map(|_| BatchJob { job: job(), payload: frame.clone() }));
                let now = clock::now();
                self.backend.submit(now, batch).map_err(|batch| failed(batch.fault))?;
                self.submits.push(clock::now().since(now));
                submitted += 1;
            }
            match self.backend.poll(clock::now()) {
                Some(batch) if batch.fault.is_some() => return Err(failed(batch.fault)),
                Some(batch) => {
                    self.services[size].push(batch.service);
                    spare.push(batch);
                    completed += 1;
                }
                None => waker.wait_until(None),
            }
        }
        self.walls[size].push(clock::now().since(start) / u32::try_from(batches).unwrap_or(u32::MAX));
        Ok(())
    }

    fn print(&mut self) {
        let (name, millis) = (&self.name, |duration: Duration| duration.as_secs_f64() * 1e3);
        for size in 1..=usize::from(MAX_BATCH) {
            let rate = size as f64 / quantile(&mut self.walls[size], 0.5).as_secs_f64();
            let services = &mut self.services[size];
            let [best, median, high] = [0.0, 0.5, 0.95].map(|share| millis(quantile(services, share)));
            println!(
                "service/int8/{name}/b={size}  l(b) best {best:6.2}  median {median:6.2}  p95 {high:6.2} ms  \
                 {rate:5.0} images/s"
            );
        }
        let [median, high] = [0.5, 0.99].map(|share| millis(quantile(&mut self.submits, share)) * 1e3);
        println!("service/submit/{name}  median {median:.1} us  p99 {high:.1} us  (promise: under 100 us)");
    }
}

/// The value that the share of values does not exceed.
fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort();
    values[((values.len() - 1) as f64 * share) as usize]
}

fn failed(fault: Option<ocelli::job::BatchFault>) -> InferError {
    InferError::System(format!("the backend did not compute: {fault:?}"))
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
