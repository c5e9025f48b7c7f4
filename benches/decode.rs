//! Time to decode one frame: a usual scene, the crowd that admission keeps time for, and the worst that outputs can do
//! (everything scores high, no two boxes overlap enough to go). `cargo bench --bench decode`
#![allow(clippy::print_stdout)] // Its output is its purpose.

use ocelli::decode::Decoder;
use ocelli::detection::Detections;
use ocelli::model::{
    self, Activation, Anchors, Channels, Element, Fit, Input, Model, Suppression, TensorLayout, YoloHead,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

const FRAME: (u32, u32) = (1280, 720);
const ROUNDS: usize = 200;

fn main() {
    println!(
        "{:<34} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "us a frame", "usual p50", "usual max", "crowd p50", "crowd max", "worst p50", "worst max"
    );
    for (name, model, rows) in networks() {
        let mut times = Vec::new();
        let mut decoder = Decoder::new(&model, &rows).expect("the networks below fit themselves");
        for outputs in [scene(&model, &rows, false), decoder.scene(usize::MAX), scene(&model, &rows, true)] {
            let outputs: Vec<&[f32]> = outputs.iter().map(Vec::as_slice).collect();
            let mut found = Detections::new();
            let mut samples: Vec<Duration> = (0..ROUNDS)
                .map(|_| {
                    let start = Instant::now();
                    decoder.decode(black_box(&outputs), FRAME, &mut found).expect("scores are probabilities");
                    black_box(&found);
                    start.elapsed()
                })
                .collect();
            samples.sort();
            times.extend([samples[ROUNDS / 2], samples[ROUNDS - 1]]);
        }
        print!("{name:<34}");
        for time in times {
            print!(" {:>12.1}", time.as_secs_f64() * 1e6);
        }
        println!();
    }
}

fn networks() -> Vec<(&'static str, Model, Vec<usize>)> {
    let suppression = Suppression { score_threshold: 0.4, iou_threshold: 0.5, candidates: 1000 };
    let yolo = |head| model::Decoder::Yolo { output: "output".into(), head, suppression };
    let ssd = |activation| model::Decoder::Ssd {
        boxes: "boxes".into(),
        scores: "scores".into(),
        background: true,
        activation,
        anchors: Anchors {
            maps: vec![19, 10, 5, 3, 2, 1],
            min_scale: 0.2,
            max_scale: 0.95,
            ratios: vec![1.0, 2.0, 0.5, 3.0, 1.0 / 3.0],
            interpolated: true,
            first: vec![(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)],
        },
        variance: [10.0, 10.0, 5.0, 5.0],
        suppression,
    };
    let classes = model::Decoder::Classification {
        output: "output".into(),
        activation: Activation::Softmax,
        top: 5,
        score_threshold: 0.0,
    };
    vec![
        ("ssd 300, 1 class, sigmoid", model(ssd(Activation::Sigmoid), 300, 1), vec![1917 * 4, 1917 * 2]),
        ("ssd 300, 90 classes, softmax", model(ssd(Activation::Softmax), 300, 90), vec![1917 * 4, 1917 * 91]),
        ("yolo v5 640, 80 classes", model(yolo(YoloHead::V5), 640, 80), vec![25200 * 85]),
        ("yolo v8 640, 80 classes", model(yolo(YoloHead::V8), 640, 80), vec![8400 * 84]),
        ("yolox 416, 80 classes", model(yolo(YoloHead::Yolox), 416, 80), vec![3549 * 85]),
        ("classification, 1000 classes", model(classes, 224, 1000), vec![1000]),
    ]
}

fn model(decoder: model::Decoder, edge: u32, labels: usize) -> Model {
    Model {
        id: "bench".into(),
        file: "bench.onnx".into(),
        sha256: String::new(),
        precision: "fp32".into(),
        input: Input {
            tensor: "input".into(),
            layout: TensorLayout::Nchw,
            element: Element::F32,
            width: edge,
            height: edge,
            channels: Channels::Rgb,
            fit: Fit::Letterbox,
            fill: 114,
            scale: [1.0; 3],
            offset: [0.0; 3],
        },
        decoder,
        labels: (0..labels).map(|label| format!("class {label}")).collect(),
    }
}

/// Outputs in which one row in 500 scores high, or all rows do. Boxes are small and everywhere.
fn scene(model: &Model, rows: &[usize], busy: bool) -> Vec<Vec<f32>> {
    let mut noise = noise();
    let edge = model.input.width as f32;
    let labels = model.labels.len();
    let mut score = move || if busy || noise() < 0.002 { 0.5 + noise() / 2.0 } else { noise() / 10.0 };
    let mut place = self::noise();
    match &model.decoder {
        model::Decoder::Ssd { activation, .. } => {
            let logit = |p: f32| match activation {
                Activation::Softmax => 10.0 * p,
                Activation::Sigmoid | Activation::None => (p / (1.0 - p + 1e-6)).ln(),
            };
            let boxes = (0..rows[0]).map(|at| if at % 4 < 2 { 20.0 * place() } else { -20.0 }).collect();
            // Where nothing is to be seen a softmax sees the background.
            let mut scores: Vec<f32> = (0..rows[1]).map(|_| logit(score())).collect();
            for row in scores.chunks_exact_mut(labels + 1) {
                let empty = row.iter().all(|score| *score < logit(0.4));
                row[0] = if empty { logit(1.0) } else { logit(0.1) };
            }
            vec![boxes, scores]
        }
        model::Decoder::Yolo { head, .. } => {
            let fields = labels + if *head == YoloHead::V8 { 4 } else { 5 };
            let count = rows[0] / fields;
            let mut output = vec![0.0; rows[0]];
            for row in 0..count {
                let seen = score();
                for field in 0..fields {
                    let value = match (head, field) {
                        (YoloHead::Yolox, 0 | 1) => place(),
                        (YoloHead::Yolox, 2 | 3) => -1.0,
                        (_, 0 | 1) => edge * place(),
                        (_, 2 | 3) => 4.0,
                        _ => seen,
                    };
                    output[if *head == YoloHead::V8 { field * count + row } else { row * fields + field }] =
                        value;
                }
            }
            vec![output]
        }
        model::Decoder::Classification { .. } => vec![(0..rows[0]).map(|_| score()).collect()],
    }
}

/// Numbers from 0 to 1, the same every time (xorshift, Marsaglia 2003).
fn noise() -> impl FnMut() -> f32 {
    let mut state = 0x9e37_79b9_u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32
    }
}
