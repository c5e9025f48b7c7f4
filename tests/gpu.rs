//! On a real GPU, where `OCELLI_GPU=1` says that there is one (scripts/gpu-test): the suite of all backends, kernels equal
//! to the CPU's definition, and persons where the CPU finds them. Paths are those of the package's folder, in which tests run.
#![cfg(feature = "tensorrt")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "launching kernels")]

#[path = "common/conformance.rs"]
mod conformance;
mod onnx;
#[path = "common/plans.rs"]
mod plans;
#[path = "common/rows.rs"]
mod rows;

use conformance::{BRIGHT, MAX_BATCH, conforms, rig};
use ocelli::decode::Decoder;
use ocelli::detection::{Detection, Detections};
use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::onnxruntime::{self, OnnxRuntime};
use ocelli::infer::tensorrt::cuda::Device;
use ocelli::infer::tensorrt::kernels::{FRAME_BYTES, Frame, Kernels};
use ocelli::infer::tensorrt::{Building, Progress, Settings, TensorRt};
use ocelli::infer::{Backend, Capabilities};
use ocelli::job::{Batch, BatchFault, BatchJob, Job};
use ocelli::model::{Channels, Element, Fit, Input, Model, TensorLayout};
use ocelli::platform::{Waker, clock};
use ocelli::pool::{FrameRef, Pool, Reader, ShareSpec};
use ocelli::stats::Copies;
use ocelli::stream::{ModelId, StreamId};
use ocelli::time::Instant;
use onnx::{TOY, manifest};
use plans::Plans;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Whether there is a GPU; a test that leaves it out says so.
fn gpu() -> bool {
    let there = std::env::var_os("OCELLI_GPU").is_some_and(|set| set == "1");
    if !there {
        eprintln!("SKIPPED: OCELLI_GPU=1 runs this on a GPU");
    }
    there
}

fn input(element: Element, layout: TensorLayout, channels: Channels, fit: Fit) -> Input {
    Input {
        tensor: "image".into(),
        layout,
        element,
        width: 113,
        height: 97,
        channels,
        fit,
        fill: 114,
        scale: [0.9, 1.0, 1.1],
        offset: [1.0, 2.0, 3.0],
    }
}

/// Bytes without a pattern; samples of ten bits stay within them.
fn noise(format: PixelFormat, bytes: &mut [u8]) {
    let ten = format.as_str().ends_with("10");
    for (at, byte) in bytes.iter_mut().enumerate() {
        let random = (at.wrapping_mul(2_654_435_761) >> 13) as u8;
        *byte = if ten && at % 2 == 1 { random & 3 } else { random };
    }
}

#[test]
fn kernels_equal_the_cpus_definition_bit_for_bit() {
    if !gpu() {
        return;
    }
    let device = Device::open(0).unwrap();
    let mut checked = 0;
    for (element, layout, channels, fit) in [
        (Element::F32, TensorLayout::Nchw, Channels::Rgb, Fit::Letterbox),
        (Element::F32, TensorLayout::Nhwc, Channels::Bgr, Fit::Stretch),
        (Element::F16, TensorLayout::Nchw, Channels::Rgb, Fit::Stretch),
        (Element::U8, TensorLayout::Nhwc, Channels::Gray, Fit::Letterbox),
        (Element::I8, TensorLayout::Nchw, Channels::Bgr, Fit::Stretch),
    ] {
        let input = input(element, layout, channels, fit);
        // Smaller and larger than the input, and odd.
        checked += rows::are_alike(&device, &input, &[(640, 360), (50, 34), (107, 203)], noise).unwrap();
    }
    assert_eq!(checked, 5 * PixelFormat::ALL.len());
}

/// Frames in the device's memory, as on a discrete GPU after their upload.
#[test]
fn preprocess_time_of_1080p_frames_is_told() {
    if !gpu() {
        return;
    }
    const BATCH: usize = 8;
    const BATCHES: u32 = 500;
    let device = Device::open(0).unwrap();
    let stream = device.stream().unwrap();
    let input = Input {
        width: 300,
        height: 300,
        ..input(Element::F32, TensorLayout::Nchw, Channels::Rgb, Fit::Letterbox)
    };
    let kernels = Kernels::load(&device, &input).unwrap();
    let layout = ImageLayout::packed(PixelFormat::Nv12, 1920, 1080);
    let bytes = layout.extent().unwrap();
    let mut host = device.pinned(bytes).unwrap();
    noise(PixelFormat::Nv12, host.bytes_mut());
    let slots = device.memory(BATCH * bytes).unwrap();
    let mut descriptions = device.pinned(BATCH * FRAME_BYTES).unwrap();
    for index in 0..BATCH {
        let address = slots.address() + (index * bytes) as u64;
        // SAFETY: `host` stays until the stream was waited for; `address` has room for it.
        unsafe { stream.copy_in(host.bytes(), address) }.unwrap();
        let frame = Frame::new(&layout, address, &input).unwrap();
        descriptions.bytes_mut()[index * FRAME_BYTES..][..FRAME_BYTES].copy_from_slice(&frame.bytes());
    }
    let rows = device.memory(BATCH * 300 * 300 * 3 * 4).unwrap();
    let run = |batches: u32| {
        let began = std::time::Instant::now();
        for _ in 0..batches {
            // SAFETY: frames, descriptions and rows outlive the stream's work, which is waited for below.
            unsafe { kernels.launch(&stream, descriptions.address(), BATCH as u32, rows.address()) }.unwrap();
        }
        stream.synchronize().unwrap();
        began.elapsed()
    };
    run(20);
    let took = run(BATCHES).as_secs_f64() * 1e6 / f64::from(BATCHES) / BATCH as f64;
    eprintln!("preprocess: {took:.2} us a frame");
    assert!(took > 0.0);
}

/// A picture of persons in a slot.
fn picture(share: &ocelli::pool::Share) -> FrameRef {
    let picture = image::open("tests/data/square.jpg").unwrap().into_rgb8();
    let layout = ImageLayout::packed(PixelFormat::Rgb, picture.width(), picture.height());
    let mut frame = share.take().unwrap();
    frame.bytes_mut()[..picture.len()].copy_from_slice(&picture);
    frame.freeze(layout).unwrap()
}

/// What a backend finds in the picture, in each place of a batch of this size.
fn found(
    backend: &mut dyn Backend<FrameRef>,
    waker: &Waker,
    model: &Model,
    size: usize,
) -> Vec<Vec<Detection>> {
    let spec = ShareSpec { slots: size, slot_bytes: 768 * 576 * 3 };
    let pool = Pool::read_by(backend.reader(), &[spec], false).unwrap();
    let now = clock::now();
    let mut batch = backend.capabilities().new_batch();
    for sequence in 0..size as u64 {
        let deadline = now + Duration::from_secs(60);
        let job =
            Job { stream: StreamId(0), sequence, model: ModelId(0), captured: now, arrived: now, deadline };
        batch.jobs.push(BatchJob { job, payload: picture(&pool.share(StreamId(0))) });
    }
    backend.submit(now, batch).map_err(|batch| batch.fault).unwrap();
    let batch = complete(backend, waker);
    assert_eq!(batch.fault, None);
    let mut decoder = Decoder::new(model, &backend.capabilities().output_rows[0]).unwrap();
    let layout = batch.jobs[0].payload.layout();
    (0..size)
        .map(|index| {
            let rows: Vec<&[f32]> = batch.outputs.iter().map(|output| output.row(index)).collect();
            let mut detections = Detections::new();
            decoder.decode(&rows, (layout.width, layout.height), &mut detections).unwrap();
            detections.to_vec()
        })
        .collect()
}

fn complete(backend: &mut dyn Backend<FrameRef>, waker: &Waker) -> Box<Batch<FrameRef>> {
    let give_up = clock::now() + Duration::from_secs(60);
    loop {
        if let Some(batch) = backend.poll(clock::now()) {
            return batch;
        }
        assert!(clock::now() < give_up, "no completion");
        waker.wait_until(Some(backend.poll_at().unwrap_or(give_up).min(give_up)));
    }
}

#[test]
fn golden_picture_of_persons_is_seen_as_the_cpu_sees_it() {
    let waker = Waker::new();
    waker.attach();
    let load = |precision: &str| {
        Model::load(Path::new(&format!("models/person-ssdlite.{precision}.toml")), "person").unwrap()
    };
    let model = load("fp32");
    let library = Path::new("assets/onnxruntime/libonnxruntime.so");
    let library = std::env::var_os("ORT_DYLIB_PATH").is_none().then_some(library);
    let settings = onnxruntime::Settings { library, sessions: 1, threads: 2, max_batch: 1 };
    let frames = [vec![(PixelFormat::Rgb, 768, 576)]];
    let mut cpu = OnnxRuntime::open(&settings, std::slice::from_ref(&model), &frames, &waker).unwrap();
    let expected = found(&mut cpu, &waker, &model, 1).remove(0);
    assert!(expected.len() >= 4, "the picture has persons: {expected:?}");
    if !gpu() {
        return;
    }

    let plans = Plans::shared();
    let silent = |_: &str| Progress::new(|_| {});
    for (precision, lanes) in [("fp32", 1), ("fp16", plans.contexts)] {
        let model = load(precision);
        let settings = Settings {
            device: 0,
            lanes,
            dla: &[],
            max_batch: plans.max_batch,
            cache: plans.folder(),
            frame_bytes: 768 * 576 * 3,
            build: Some(Building { progress: &silent, by: "test" }),
        };
        let copies = Arc::new(Copies::default());
        let mut gpu = TensorRt::open(&settings, std::slice::from_ref(&model), &copies, &waker).unwrap();
        for size in [1, 3, 4] {
            for seen in found(&mut gpu, &waker, &model, size) {
                assert_eq!(seen.len(), expected.len(), "{precision}: {seen:?}, expected {expected:?}");
                for reference in &expected {
                    assert!(
                        seen.iter().any(|seen| close(seen, reference)),
                        "{precision}: {reference:?} in {seen:?}"
                    );
                }
            }
        }
        assert!(
            ocelli::stats::CopyStage::ALL.iter().all(|stage| copies.bytes(*stage) == 0),
            "{precision}: copied"
        );
    }
}

fn close(a: &Detection, b: &Detection) -> bool {
    let apart = [a.x - b.x, a.y - b.y, a.width - b.width, a.height - b.height];
    a.label == b.label && apart.iter().all(|pixels| pixels.abs() <= 3.0) && (a.score - b.score).abs() <= 0.02
}

/// Fails batches that the suite marks for it: on a device nothing fails by itself.
struct FailsWhereMarked(TensorRt);

impl Backend<FrameRef> for FailsWhereMarked {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn submit(&mut self, now: Instant, batch: Box<Batch<FrameRef>>) -> Result<(), Box<Batch<FrameRef>>> {
        self.0.submit(now, batch)
    }

    fn poll(&mut self, now: Instant) -> Option<Box<Batch<FrameRef>>> {
        let mut batch = self.0.poll(now)?;
        if batch.jobs.iter().any(|job| job.job.sequence == u64::from(BRIGHT)) {
            batch.fault = Some(BatchFault::new("marked"));
        }
        Some(batch)
    }

    fn poll_at(&self) -> Option<Instant> {
        self.0.poll_at()
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        self.0.reader()
    }
}

#[test]
fn conforms_as_all_do() {
    if !gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toy.onnx");
    std::fs::write(&file, TOY.bytes()).unwrap();
    let mut model = manifest(&file);
    model.sha256 = Sha256::digest(TOY.bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    // No pixel leads beyond the network's table, where what a device does is not said.
    model.input.scale = [0.5; 3];
    let silent = |_: &str| Progress::new(|_| {});
    for lanes in [1, 2] {
        let settings = Settings {
            device: 0,
            lanes,
            dla: &[],
            max_batch: MAX_BATCH,
            cache: folder.path(),
            frame_bytes: 4096,
            build: Some(Building { progress: &silent, by: "test" }),
        };
        let open = |waker: &Waker| {
            TensorRt::open(&settings, std::slice::from_ref(&model), &Arc::default(), waker).unwrap()
        };
        let failing = rig(|waker| Box::new(FailsWhereMarked(open(waker))));
        let mut working = rig(|waker| Box::new(open(waker)));
        working.answer = |mark| [f32::from(mark / 2); 3];
        conforms(working, failing);
    }
}
