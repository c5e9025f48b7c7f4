//! What every backend must do, run on all of them: the simulated one, a blocking engine behind threads, and
//! ONNX Runtime with the real library.
#![allow(clippy::unwrap_used)]

#[path = "common/conformance.rs"]
mod conformance;
mod onnx;

use conformance::{MAX_BATCH, PATIENCE, Rig, conforms, rig};

use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::blocking::{Blocking, Engine};
use ocelli::infer::onnxruntime::{OnnxRuntime, Settings};
use ocelli::infer::simulated::{self, Simulated};
use ocelli::infer::{Capabilities, InferError};
use ocelli::job::{Batch, BatchFault};
use ocelli::model::{Activation, Anchors, Decoder, Element, Model, Suppression, TensorLayout, YoloHead};
use ocelli::platform::{Waker, clock};
use ocelli::pool::{FrameRef, Pool, ShareSpec};
use ocelli::stream::StreamId;
use ocelli::time::Instant;
use onnx::{EDGE, TABLE, TOY, Toy, manifest};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

// ---------------------------------------------------------------------------------------------- simulated

#[test]
fn simulated() {
    let rig = |in_flight, fail_every| {
        let settings = simulated::Settings {
            jitter: Duration::from_millis(1),
            in_flight,
            fail_every,
            ..simulated::Settings::linear(Duration::from_millis(2), Duration::from_millis(3))
        };
        let backend = Simulated::new(settings, MAX_BATCH, vec![vec![vec![7.0; 3]]]);
        let count = Arc::new(());
        let made = count.clone();
        Rig {
            backend: Box::new(backend),
            waker: Waker::new(),
            virtual_now: Some(Instant::from_nanos(1_000_000)),
            frame: Box::new(move |_| made.clone()),
            alive: Box::new(move || Arc::strong_count(&count) - 2),
            answer: |_| [7.0; 3],
        }
    };
    for in_flight in [1, 3] {
        conforms(rig(in_flight, 0), rig(in_flight, 2));
    }
}

// ------------------------------------------------------------------------------------- engines that block

/// Answers each job with its mark. Waits at its gate first, where it has one.
struct Echo(Option<Arc<Gate>>);

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
    }
}

const PANIC: u8 = 255;

impl Engine<FrameRef> for Echo {
    fn run(&mut self, batch: &mut Batch<FrameRef>) {
        if let Some(gate) = &self.0 {
            gate.pass();
        }
        batch.outputs[0].row = 3;
        for (index, job) in batch.jobs.iter().enumerate() {
            let mark = job.payload.bytes()[0];
            assert_ne!(mark, PANIC, "a panic that the test asks for");
            if mark >= TABLE {
                batch.fault = Some(BatchFault::new("too bright"));
            }
            batch.outputs[0].data[index * 3..][..3].fill(f32::from(mark));
        }
    }
}

fn echo(engines: Vec<Echo>) -> Rig<FrameRef> {
    let capabilities = Capabilities {
        name: "echo".into(),
        lanes: Vec::new(),
        batch_sizes: vec![(1..=MAX_BATCH).collect()],
        output_rows: vec![vec![3]],
    };
    let rig = rig(|waker| Box::new(Blocking::start(engines, capabilities, waker).unwrap()));
    rig.waker.attach();
    rig
}

#[test]
fn blocking() {
    for engines in [1, 3] {
        let engines = || (0..engines).map(|_| Echo(None)).collect();
        conforms(echo(engines()), echo(engines()));
    }
}

#[test]
fn submitting_does_not_wait_and_order_is_kept() {
    let gate = Arc::new(Gate::default());
    let mut rig = echo(vec![Echo(Some(gate.clone())), Echo(None)]);
    // The first engine is held at its gate, so a submission that waited would never return.
    rig.submit(&[1]);
    rig.submit(&[2]);
    // The second engine's completion wakes, but its batch waits for the first's.
    rig.waker.wait_until(Some(clock::now() + PATIENCE));
    let later = clock::now() + PATIENCE;
    assert!(rig.backend.poll(later).is_none());
    gate.open();
    assert_eq!(rig.complete().jobs[0].job.sequence, 1);
    assert_eq!(rig.complete().jobs[0].job.sequence, 2);
}

#[test]
fn a_panic_is_a_fault_and_then_a_refusal() {
    let mut rig = echo(vec![Echo(None), Echo(None)]);
    rig.submit(&[1, PANIC]);
    rig.submit(&[2]);
    let batch = rig.complete();
    assert_eq!((batch.fault.is_some(), batch.jobs.len()), (true, 2));
    assert_eq!(rig.complete().fault, None, "the other engine's batch is not lost");
    let (now, batch) = (rig.now(), rig.batch(&[3]));
    let Err(refused) = rig.backend.submit(now, batch) else { panic!("a broken backend takes work") };
    assert!(refused.fault.unwrap().as_str().contains("panicked"));
}

// ------------------------------------------------------------------------------------------- ONNX Runtime

/// The real library, as `scripts/setup` fetches it.
fn library() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/onnxruntime/libonnxruntime.so");
    assert!(path.is_file(), "{} is missing: run scripts/setup", path.display());
    path
}

fn open(model: &Model, sessions: u16, waker: &Waker) -> Result<OnnxRuntime, InferError> {
    let library = library();
    let settings = Settings { library: Some(&library), sessions, threads: 1, max_batch: MAX_BATCH };
    let frames = [vec![(PixelFormat::Rgb, EDGE, EDGE)]];
    OnnxRuntime::open(&settings, std::slice::from_ref(model), &frames, waker)
}

/// A folder with a network in it, and its manifest.
fn written(bytes: &[u8]) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toy.onnx");
    std::fs::write(&file, bytes).unwrap();
    (folder, manifest(&file))
}

#[test]
fn onnxruntime() {
    let (_folder, model) = written(&TOY.bytes());
    for sessions in [1, 2] {
        let open = || rig(|waker| Box::new(open(&model, sessions, waker).unwrap()));
        conforms(open(), open());
    }
}

#[test]
fn every_type_of_elements_is_fed_and_read() {
    for element in [Element::F32, Element::F16, Element::U8, Element::I8] {
        for half_output in [false, true] {
            let (_folder, mut model) = written(&Toy { element, half_output, ..TOY }.bytes());
            model.input.element = element;
            let mut rig = rig(|waker| Box::new(open(&model, 1, waker).unwrap()));
            rig.waker.attach();
            let name = &rig.backend.capabilities().name;
            assert!(name.starts_with("onnxruntime "), "{name}");
            rig.submit(&[3, 9, 27]);
            let batch = rig.complete();
            assert_eq!(batch.fault, None);
            assert_eq!(batch.outputs[0].data[..9], [3., 3., 3., 9., 9., 9., 27., 27., 27.]);
        }
    }
}

/// The detector itself, from `models/`.
fn person_detector() -> Model {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person-ssdlite.int8.onnx");
    let mut model = manifest(&file);
    model.id = "person-ssdlite".into();
    (model.input.tensor, model.input.width, model.input.height) = ("Preprocessor/mul:0".into(), 300, 300);
    model.input.scale = [1.0 / 127.5; 3];
    model.decoder = Decoder::Ssd {
        boxes: "concat:0".into(),
        scores: "concat_1:0".into(),
        background: true,
        activation: Activation::Sigmoid,
        anchors: Anchors {
            maps: vec![19, 10, 5, 3, 2, 1],
            min_scale: 0.2,
            max_scale: 0.95,
            ratios: vec![1.0, 2.0, 0.5, 3.0, 1.0 / 3.0],
            interpolated: true,
            first: vec![(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)],
        },
        variance: [10.0, 10.0, 5.0, 5.0],
        suppression: Suppression { score_threshold: 0.4, iou_threshold: 0.5, candidates: 100 },
    };
    model
}

/// What a frame's outputs are does not depend on its neighbours in the batch, on the batch's size, or on the
/// session.
#[test]
fn a_detector_answers_a_frame_alike_in_any_batch() {
    let model = person_detector();
    let mut rig = rig(|waker| Box::new(open(&model, 2, waker).unwrap()));
    rig.waker.attach();
    assert_eq!(rig.backend.capabilities().output_rows, [[1917 * 4, 1917 * 2]]);
    let mut outputs = |on_second_session: bool, marks: &[u8], index: usize| {
        rig.submit(&[1; MAX_BATCH as usize]);
        rig.submit(marks);
        rig.complete();
        let second = rig.complete();
        let batch = if on_second_session {
            second
        } else {
            rig.submit(marks);
            rig.complete()
        };
        assert_eq!(batch.fault, None);
        let rows = [0, 1].map(|tensor| batch.outputs[tensor].row(index).to_vec());
        assert!(rows.iter().flatten().all(|value| value.is_finite()));
        rows
    };
    let alone = outputs(false, &[90], 0);
    assert_eq!(alone, outputs(false, &[200, 90, 10], 1));
    assert_eq!(alone, outputs(true, &[90, 90, 90, 90], 3));
    assert_ne!(alone, outputs(true, &[10], 0));
}

#[test]
fn a_fixed_batch_size_is_the_only_one() {
    let (_folder, model) = written(&Toy { batch: Some(2), ..TOY }.bytes());
    let mut rig = rig(|waker| Box::new(open(&model, 1, waker).unwrap()));
    rig.waker.attach();
    assert_eq!(rig.backend.capabilities().batch_sizes, [[2]]);
    let (now, batch) = (rig.now(), rig.batch(&[1]));
    assert!(rig.backend.submit(now, batch).is_err());
    rig.submit(&[1, 2]);
    assert_eq!(rig.complete().outputs[0].row(1), [2.0; 3]);
}

#[test]
fn a_frame_that_cannot_be_prepared_costs_only_itself() {
    let (_folder, model) = written(&TOY.bytes());
    let mut rig = rig(|waker| Box::new(open(&model, 1, waker).unwrap()));
    rig.waker.attach();
    let mut batch = rig.batch(&[1, 2, 3]);
    let odd = ImageLayout::packed(PixelFormat::Gray8, EDGE, EDGE);
    let share = Pool::new(&[ShareSpec { slots: 1, slot_bytes: 64 }], false).unwrap().share(StreamId(0));
    batch.jobs[1].payload = share.take().unwrap().freeze(odd).unwrap();
    let now = rig.now();
    assert!(rig.backend.submit(now, batch).is_ok());
    let batch = rig.complete();
    assert_eq!(
        (batch.fault.is_none(), batch.outputs[0].row(0), batch.outputs[0].row(2)),
        (true, &[1.0; 3][..], &[3.0; 3][..])
    );
    assert!(batch.outputs[0].row(1).iter().all(|value| value.is_nan()));
}

/// What opening says about a model that can't be used.
fn complaint(model: &Model) -> String {
    match open(model, 1, &Waker::new()) {
        Err(error @ InferError::Model { .. }) => {
            let text = error.to_string();
            assert!(text.contains("\"toy\"") && text.contains("toy.onnx"), "{text} names model and file");
            text
        }
        other => panic!("not an error about the model: {other:?}"),
    }
}

#[test]
fn files_that_are_no_models_are_refused() {
    let whole = TOY.bytes();
    for (bytes, says) in [
        (&b""[..], "empty (0 bytes)"),
        (b"this is not a network, whatever its name says", "ONNX Runtime can't load it"),
        (&whole[..whole.len() / 2], "ONNX Runtime can't load it"),
    ] {
        let (_folder, model) = written(bytes);
        let text = complaint(&model);
        assert!(text.contains(says), "{text} does not say {says:?}");
    }
    let (folder, model) = written(&whole);
    drop(folder);
    assert!(complaint(&model).contains("can't read the file"));
}

#[test]
fn models_that_are_not_as_their_manifest_says_are_refused() {
    let refused = |toy: Toy, change: fn(&mut Model), says: &[&str]| {
        let (_folder, mut model) = written(&toy.bytes());
        change(&mut model);
        let text = complaint(&model);
        for says in says {
            assert!(text.contains(says), "{text} does not say {says:?}");
        }
    };
    let same = |_: &mut Model| {};
    refused(Toy { input: "picture", ..TOY }, same, &["\"picture\"", "\"image\""]);
    refused(Toy { element: Element::U8, ..TOY }, same, &["u8", "f32"]);
    refused(TOY, |model| model.input.width = 8, &["[batch, 4, 8, 3]", "4"]);
    refused(TOY, |model| model.input.layout = TensorLayout::Nchw, &["[batch, 3, 4, 4]"]);
    refused(Toy { second_input: true, ..TOY }, same, &["threshold", "one, \"image\""]);
    refused(Toy { output: "dimmest", ..TOY }, same, &["no output \"brightest\"", "dimmest"]);
    refused(Toy { rank: 3, ..TOY }, same, &["3 dimensions", "reads 2"]);
    refused(Toy { batch: Some(8), ..TOY }, same, &["fixed to 8", "max_batch 4"]);
    refused(
        TOY,
        |model| {
            let output = "brightest".to_string();
            model.decoder = Decoder::Yolo {
                output,
                head: YoloHead::V5,
                suppression: Suppression { score_threshold: 0.5, iou_threshold: 0.5, candidates: 10 },
            };
        },
        &["2 dimensions", "reads 3"],
    );
}
