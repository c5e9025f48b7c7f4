//! Pre-processing: time a frame on one thread, and against OpenCV in the same run.
//!
//! `cargo bench --bench preprocess`. OpenCV is Python's, found as `$OCELLI_PYTHON` or in `assets/python`.
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::preprocess::{Preprocessor, Row};
use ocelli::model::{Channels, Element, Fit, Input, TensorLayout};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Frames in one measurement; its median counts.
const REPETITIONS: usize = 40;
/// Measurements of either side, alternated.
const PAIRS: usize = 31;
/// Most of OpenCV's time that ours may take.
const GOAL: f64 = 0.6;

fn input(width: u32, height: u32, layout: TensorLayout, element: Element, fit: Fit) -> Input {
    Input {
        tensor: "image".into(),
        layout,
        element,
        width,
        height,
        channels: Channels::Rgb,
        fit,
        fill: 114,
        scale: [1.0 / 127.5; 3],
        offset: [0.0; 3],
    }
}

/// A frame without structure that a cache or a branch predictor could learn.
fn frame(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no NaN is measured"));
    values[values.len() / 2]
}

/// A pre-processor with a frame and a row.
struct Ours {
    preprocessor: Preprocessor,
    frame: Vec<u8>,
    layout: ImageLayout,
    row: Vec<f32>,
}

impl Ours {
    fn new(
        mut preprocessor: Preprocessor,
        input: &Input,
        format: PixelFormat,
        width: u32,
        height: u32,
    ) -> Self {
        let layout = ImageLayout::packed(format, width, height);
        preprocessor.prepare(format, width, height);
        let frame = frame(layout.extent().expect("a packed layout has an end"));
        let row = vec![0.0; (input.width * input.height) as usize * input.channels.count()];
        Self { preprocessor, frame, layout, row }
    }

    fn measure(&mut self) -> Duration {
        let one = |_| {
            let start = Instant::now();
            let row = Row::F32(std::hint::black_box(&mut self.row));
            self.preprocessor
                .run(std::hint::black_box(&self.frame), &self.layout, row)
                .expect("prepared for it");
            start.elapsed()
        };
        median((0..REPETITIONS).map(one).collect())
    }
}

/// OpenCV in a Python process of its own, idle while we measure.
struct OpenCv {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    version: String,
}

impl OpenCv {
    fn start(frame: &[u8], sizes: [u32; 4]) -> Result<Self, String> {
        let root = env!("CARGO_MANIFEST_DIR");
        let python =
            std::env::var("OCELLI_PYTHON").unwrap_or_else(|_| format!("{root}/assets/python/bin/python"));
        let failed = |what: &str| format!("{python}: {what}");
        let path = std::env::temp_dir().join(format!("ocelli-bench-{}.nv12", std::process::id()));
        std::fs::write(&path, frame).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut process = Command::new(&python)
            .arg(format!("{root}/benches/opencv.py"))
            .arg(&path)
            .args(sizes.map(|size| size.to_string()))
            .env("OPENBLAS_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let stdin = process.stdin.take().ok_or_else(|| failed("no input"))?;
        let mut stdout = BufReader::new(process.stdout.take().ok_or_else(|| failed("no output"))?);
        let mut version = String::new();
        let read = stdout.read_line(&mut version);
        // It has read the frame once it answers, or never will.
        let _ = std::fs::remove_file(&path);
        if !matches!(read, Ok(1..)) {
            let _ = process.wait();
            return Err(failed("has no OpenCV (pip install opencv-python-headless numpy)"));
        }
        Ok(Self { process, stdin, stdout, version: version.trim().to_owned() })
    }

    /// Time of the fastest order of its steps, and which that is.
    fn measure(&mut self) -> (Duration, String) {
        writeln!(self.stdin, "{REPETITIONS}").expect("OpenCV's process is alive");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("OpenCV's process answers");
        let orders = line.split_whitespace().filter_map(|order| order.split_once('='));
        let times = orders.map(|(name, ns)| (ns.parse::<u64>().expect("whole nanoseconds"), name));
        let (ns, name) = times.min().expect("at least one order");
        (Duration::from_nanos(ns), name.to_owned())
    }
}

impl Drop for OpenCv {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn main() {
    let detector = input(300, 300, TensorLayout::Nhwc, Element::F32, Fit::Stretch);
    println!("pre-processing, one thread, instructions: {}", Preprocessor::new(&detector).instructions());
    println!("\n640x360 to 300x300 RGB f32 NHWC, median of {REPETITIONS}:");
    for format in PixelFormat::ALL {
        let best = Ours::new(Preprocessor::new(&detector), &detector, format, 640, 360).measure();
        let portable = Ours::new(Preprocessor::portable(&detector), &detector, format, 640, 360).measure();
        println!("  {:6} {:7.1} us   (portable code {:7.1} us)", format.as_str(), us(best), us(portable));
    }
    let yolo = input(640, 640, TensorLayout::Nchw, Element::F32, Fit::Letterbox);
    println!("\n1920x1080 to 640x640 RGB f32 NCHW, letterbox:");
    for format in PixelFormat::ALL {
        let best = Ours::new(Preprocessor::new(&yolo), &yolo, format, 1920, 1080).measure();
        println!("  {:6} {:7.1} us", format.as_str(), us(best));
    }

    println!("\n640x360 NV12 to 300x300 RGB f32 NHWC against OpenCV (resize, cvtColor, scale; one thread):");
    let mut ours = Ours::new(Preprocessor::new(&detector), &detector, PixelFormat::Nv12, 640, 360);
    let mut theirs = match OpenCv::start(&ours.frame, [640, 360, 300, 300]) {
        Ok(opencv) => opencv,
        Err(reason) => {
            println!("  NOT MEASURED: {reason}");
            println!("  Set OCELLI_PYTHON to a Python that has numpy and opencv-python-headless.");
            return;
        }
    };
    let (mut own, mut other, mut ratios, mut orders) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let (a, (b, order)) = (ours.measure(), theirs.measure());
        own.push(us(a));
        other.push(us(b));
        ratios.push(us(a) / us(b));
        orders.push(order);
    }
    orders.sort();
    let (ratio, order) = (median(ratios), &orders[orders.len() / 2]);
    println!("  ocelli {:7.1} us", median(own));
    println!("  OpenCV {:7.1} us   ({}, mostly fastest as {order})", median(other), theirs.version);
    let verdict = if ratio <= GOAL { "within" } else { "MISSES" };
    println!("  ratio  {ratio:7.3}      (median of {PAIRS} alternated pairs; {verdict} the goal of {GOAL})");
}
