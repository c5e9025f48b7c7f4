//! Decoding against its NumPy reference, against properties, and against what does not fit.
#![allow(clippy::unwrap_used)] // Here a panic is a failed test.

use ocelli::decode::{DecodeFailed, Decoder};
use ocelli::detection::{Detection, Detections, MAX_DETECTIONS};
use ocelli::model::{
    self, Activation, Anchors, Channels, Element, Fit, Input, Model, Suppression, TensorLayout, YoloHead,
};
use proptest::prelude::*;
use std::path::PathBuf;

fn model(decoder: model::Decoder, labels: usize, (width, height): (u32, u32), fit: Fit) -> Model {
    Model {
        id: "probe".into(),
        file: "probe.onnx".into(),
        sha256: String::new(),
        precision: "fp32".into(),
        input: Input {
            tensor: "input".into(),
            layout: TensorLayout::Nhwc,
            element: Element::F32,
            width,
            height,
            channels: Channels::Rgb,
            fit,
            fill: 0,
            scale: [1.0; 3],
            offset: [0.0; 3],
        },
        decoder,
        labels: (0..labels).map(|label| format!("label {label}")).collect(),
    }
}

fn limits(score_threshold: f32, candidates: usize) -> Suppression {
    Suppression { score_threshold, iou_threshold: 0.5, candidates }
}

fn ssd(
    background: bool,
    activation: Activation,
    anchors: Anchors,
    variance: [f32; 4],
    suppression: Suppression,
) -> model::Decoder {
    let (boxes, scores) = ("boxes".into(), "scores".into());
    model::Decoder::Ssd { boxes, scores, background, activation, anchors, variance, suppression }
}

fn yolo(head: YoloHead, suppression: Suppression) -> model::Decoder {
    model::Decoder::Yolo { output: "rows".into(), head, suppression }
}

fn classification(activation: Activation, top: usize, score_threshold: f32) -> model::Decoder {
    model::Decoder::Classification { output: "classes".into(), activation, top, score_threshold }
}

fn small_anchors() -> Anchors {
    Anchors {
        maps: vec![6, 3, 1],
        min_scale: 0.3,
        max_scale: 0.9,
        ratios: vec![1.0, 2.0, 0.5],
        interpolated: true,
        first: vec![],
    }
}

fn person() -> model::Decoder {
    let anchors = Anchors {
        maps: vec![19, 10, 5, 3, 2, 1],
        min_scale: 0.2,
        max_scale: 0.95,
        ratios: vec![1.0, 2.0, 0.5, 3.0, 1.0 / 3.0],
        interpolated: true,
        first: vec![(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)],
    };
    ssd(true, Activation::Sigmoid, anchors, [10.0, 10.0, 5.0, 5.0], limits(0.01, 100))
}

/// The models of the cases in `scripts/reference/decode.py`.
fn reference(name: &str) -> Model {
    let plain = Anchors {
        maps: vec![5],
        interpolated: false,
        first: vec![(0.25, 1.0), (0.4, 2.5)],
        ..small_anchors()
    };
    let two_maps = Anchors { maps: vec![8, 4], ..small_anchors() };
    match name {
        "person" => model(person(), 1, (300, 300), Fit::Stretch),
        "ssd softmax" => {
            let head =
                ssd(true, Activation::Softmax, small_anchors(), [10.0, 10.0, 5.0, 5.0], limits(0.4, 300));
            model(head, 3, (128, 96), Fit::Letterbox)
        }
        "ssd probabilities" => {
            model(ssd(false, Activation::None, plain, [1.0; 4], limits(0.4, 300)), 2, (96, 96), Fit::Topleft)
        }
        "ssd sigmoid" => {
            let head = ssd(false, Activation::Sigmoid, two_maps, [10.0, 8.0, 5.0, 4.0], limits(0.25, 120));
            model(head, 4, (64, 64), Fit::Stretch)
        }
        "yolo v5" => model(yolo(YoloHead::V5, limits(0.4, 60)), 3, (64, 64), Fit::Letterbox),
        "yolo v8" => model(yolo(YoloHead::V8, limits(0.4, 300)), 4, (96, 64), Fit::Topleft),
        "yolox" => model(yolo(YoloHead::Yolox, limits(0.4, 300)), 2, (64, 96), Fit::Topleft),
        "classification softmax" => {
            model(classification(Activation::Softmax, 5, 0.01), 50, (32, 32), Fit::Stretch)
        }
        "classification sigmoid" => {
            model(classification(Activation::Sigmoid, 100, 0.6), 50, (32, 32), Fit::Stretch)
        }
        "classification none" => model(classification(Activation::None, 3, 0.0), 50, (32, 32), Fit::Stretch),
        other => panic!("tests/data/decode.json has a case that is not here: {other}"),
    }
}

struct Case {
    name: String,
    frame: (u32, u32),
    outputs: Vec<Vec<f32>>,
    /// Label, score, x, y, width, height.
    detections: Vec<[f64; 6]>,
}

fn cases() -> Vec<Case> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let raw: Vec<f32> = std::fs::read(data.join("decode.bin"))
        .unwrap()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("decode.json")).unwrap()).unwrap();
    let case = |entry: &serde_json::Value| Case {
        name: entry["name"].as_str().unwrap().into(),
        frame: serde_json::from_value(entry["frame"].clone()).unwrap(),
        outputs: serde_json::from_value::<Vec<(usize, usize)>>(entry["outputs"].clone())
            .unwrap()
            .into_iter()
            .map(|(at, size)| raw[at..at + size].to_vec())
            .collect(),
        detections: serde_json::from_value(entry["detections"].clone()).unwrap(),
    };
    index.as_array().unwrap().iter().map(case).collect()
}

fn lengths(outputs: &[Vec<f32>]) -> Vec<usize> {
    outputs.iter().map(Vec::len).collect()
}

fn slices(outputs: &[Vec<f32>]) -> Vec<&[f32]> {
    outputs.iter().map(Vec::as_slice).collect()
}

#[test]
fn equals_the_reference() {
    let cases = cases();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let mut decoder = Decoder::new(&reference(&case.name), &lengths(&case.outputs)).unwrap();
        let mut found = Detections::new();
        // Twice: nothing of the first frame may be left in the second.
        for round in 0..2 {
            decoder.decode(&slices(&case.outputs), case.frame, &mut found).unwrap();
            let name = format!("{}, round {round}", case.name);
            assert_eq!(found.len(), case.detections.len(), "{name}");
            for (at, (seen, expected)) in found.iter().zip(&case.detections).enumerate() {
                assert_eq!(f64::from(seen.label), expected[0], "{name}, detection {at}");
                assert!(
                    (f64::from(seen.score) - expected[1]).abs() < 1e-5,
                    "{name}, {at}: {seen:?}, {expected:?}"
                );
                let place = [seen.x, seen.y, seen.width, seen.height];
                for (seen, expected) in place.into_iter().zip(&expected[2..]) {
                    assert!(
                        (f64::from(seen) - expected).abs() < 1e-3,
                        "{name}, {at}: {place:?}, {expected:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_golden_frame_is_among_the_kept_outputs() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("data/golden_vtest_100.json")).unwrap();
    let expected = golden["models"]["int8"].as_array().unwrap();
    assert!(expected.len() >= 4, "persons in the pedestrian video");
    let case = cases().into_iter().find(|case| case.name == "person").unwrap();
    let mut decoder = Decoder::new(&reference("person"), &lengths(&case.outputs)).unwrap();
    let mut found = Detections::new();
    decoder.decode(&slices(&case.outputs), case.frame, &mut found).unwrap();
    let threshold = golden["score_threshold"].as_f64().unwrap();
    assert_eq!(found.iter().filter(|seen| f64::from(seen.score) >= threshold).count(), expected.len());
    for (seen, expected) in found.iter().zip(expected) {
        let near = |seen: f32, key: &str, tolerance: f64| {
            assert!(
                (f64::from(seen) - expected[key].as_f64().unwrap()).abs() < tolerance,
                "{key} of {expected}: {seen}"
            );
        };
        near(seen.score, "score", 1e-4);
        for (seen, key) in [(seen.x, "x"), (seen.y, "y"), (seen.width, "width"), (seen.height, "height")] {
            near(seen, key, 0.01);
        }
    }
}

/// All heads, small, with the lengths of their outputs.
fn heads() -> Vec<(Model, Vec<usize>)> {
    let anchors = 6 * 6 * 4 + 3 * 3 * 4 + 4;
    vec![
        (reference("ssd softmax"), vec![anchors * 4, anchors * 4]),
        (reference("ssd probabilities"), vec![50 * 4, 50 * 2]),
        (reference("ssd sigmoid"), vec![320 * 4, 320 * 4]),
        (reference("yolo v5"), vec![252 * 8]),
        (reference("yolo v8"), vec![126 * 8]),
        (reference("yolox"), vec![126 * 7]),
        (reference("classification softmax"), vec![50]),
        (reference("classification sigmoid"), vec![50]),
        (reference("classification none"), vec![50]),
    ]
}

/// Fills outputs with numbers from `low` to `high` (splitmix64).
fn fill(rows: &[usize], mut seed: u64, low: f32, high: f32) -> Vec<Vec<f32>> {
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    rows.iter().map(|&length| (0..length).map(|_| low + (high - low) * next()).collect()).collect()
}

/// Intersection over union in double precision.
fn overlap(a: &Detection, b: &Detection) -> f64 {
    let edges = |d: &Detection| [d.x, d.y, d.x + d.width, d.y + d.height].map(f64::from);
    let (p, q) = (edges(a), edges(b));
    let shared = (p[2].min(q[2]) - p[0].max(q[0])).max(0.0) * (p[3].min(q[3]) - p[1].max(q[1])).max(0.0);
    let area = |e: [f64; 4]| (e[2] - e[0]) * (e[3] - e[1]);
    shared / (area(p) + area(q) - shared)
}

/// What holds whatever a network writes.
fn sane(model: &Model, frame: (u32, u32), found: &Detections) -> Result<(), TestCaseError> {
    prop_assert!(found.is_sorted_by(|a, b| a.score >= b.score), "best first");
    let suppressed = !matches!(model.decoder, model::Decoder::Classification { .. });
    for (at, seen) in found.iter().enumerate() {
        prop_assert!(usize::from(seen.label) < model.labels.len());
        prop_assert!((0.0..=1.0).contains(&seen.score), "{seen:?}");
        prop_assert!(seen.x >= 0.0 && seen.y >= 0.0 && seen.width > 0.0 && seen.height > 0.0, "{seen:?}");
        // An edge is a sum of two rounded numbers.
        let (right, bottom) = (f64::from(seen.x + seen.width), f64::from(seen.y + seen.height));
        prop_assert!(right <= f64::from(frame.0) + 1e-3 && bottom <= f64::from(frame.1) + 1e-3, "{seen:?}");
        for other in found[..at].iter().filter(|other| suppressed && other.label == seen.label) {
            // Beside a frame's edge a sliver's area is all rounding.
            let thin = [seen, other].iter().any(|d| d.width.min(d.height) < 0.1);
            prop_assert!(thin || overlap(seen, other) <= 0.5 + 1e-2, "{seen:?} {other:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_a_network_writes(
        head in 0..9usize,
        seed in any::<u64>(),
        (low, high) in prop_oneof![
            Just((0.0, 1.0)), Just((-1.0, 1.05)), Just((-8.0, 8.0)), Just((0.0, 100.0)), Just((f32::MIN / 2.0, f32::MAX / 2.0)),
        ],
        frame in prop_oneof![Just((1, 1)), (1u32..5000, 1u32..5000), Just((0, 0)), Just((7680, 1))],
    ) {
        let (model, rows) = heads().swap_remove(head);
        let outputs = fill(&rows, seed, low, high);
        let mut found = Detections::new();
        match Decoder::new(&model, &rows).unwrap().decode(&slices(&outputs), frame, &mut found) {
            Ok(()) if frame.0 > 0 => sane(&model, frame, &found)?,
            Ok(()) => {}
            Err(DecodeFailed::NotProbability { score, .. }) => prop_assert!(score > 1.0 && found.is_empty()),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn one_sick_element_fails_the_frame(
        head in 0..9usize,
        at in any::<prop::sample::Index>(),
        sick in prop_oneof![Just(f32::NAN), Just(-f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ) {
        let (model, rows) = heads().swap_remove(head);
        let mut outputs = fill(&rows, 1, 0.0, 0.3);
        let at = at.index(rows.iter().sum());
        let (output, element) = if at < rows[0] { (0, at) } else { (1, at - rows[0]) };
        outputs[output][element] = sick;
        let mut decoder = Decoder::new(&model, &rows).unwrap();
        let mut found = Detections::new();
        found.push(Detection::default()).unwrap();
        match decoder.decode(&slices(&outputs), (640, 480), &mut found) {
            Err(DecodeFailed::NotFinite { output: o, element: e, .. }) => prop_assert_eq!((o, e), (output, element)),
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert!(found.is_empty(), "what another frame left is gone");
        // The next frame is none the worse for it.
        outputs[output][element] = 0.1;
        prop_assert!(decoder.decode(&slices(&outputs), (640, 480), &mut found).is_ok());
    }
}

#[test]
fn a_crowd_ends_at_the_cap() {
    // 252 boxes of 2 by 2 pixels side by side, all certain.
    let model = model(yolo(YoloHead::V5, limits(0.4, 1000)), 1, (64, 64), Fit::Stretch);
    let rows: Vec<f32> = (0..252)
        .flat_map(|row| [2.0 * (row % 32) as f32 + 1.0, 2.0 * (row / 32) as f32 + 1.0, 2.0, 2.0, 1.0, 1.0])
        .collect();
    let mut found = Detections::new();
    Decoder::new(&model, &[rows.len()]).unwrap().decode(&[&rows], (64, 64), &mut found).unwrap();
    assert_eq!(found.len(), MAX_DETECTIONS);
    assert_eq!((found[0].x, found[0].y), (0.0, 0.0), "of equal scores the first rows stay");
    assert_eq!((found[99].x, found[99].y), (6.0, 6.0));
}

#[test]
fn classes_do_not_suppress_each_other() {
    let model = model(yolo(YoloHead::V5, limits(0.4, 10)), 2, (64, 64), Fit::Stretch);
    let mut rows = vec![0.0; 252 * 7];
    for (row, classes) in [[0.9, 0.1], [0.1, 0.8], [0.7, 0.1]].into_iter().enumerate() {
        rows[row * 7..row * 7 + 5].copy_from_slice(&[32.0, 32.0, 10.0, 20.0, 1.0]);
        rows[row * 7 + 5..row * 7 + 7].copy_from_slice(&classes);
    }
    let mut found = Detections::new();
    Decoder::new(&model, &[rows.len()]).unwrap().decode(&[&rows], (64, 64), &mut found).unwrap();
    assert_eq!(found.iter().map(|seen| (seen.label, seen.score)).collect::<Vec<_>>(), [(0, 0.9), (1, 0.8)]);
}

#[test]
fn scores_that_are_no_probabilities_fail_the_frame() {
    let (model, rows) = heads().swap_remove(8);
    let mut decoder = Decoder::new(&model, &rows).unwrap();
    let mut found = Detections::new();
    let mut scores = vec![0.1; 50];
    scores[7] = 1.004;
    decoder.decode(&[&scores], (64, 64), &mut found).unwrap();
    assert_eq!((found[0].label, found[0].score), (7, 1.0), "an integer engine's rounding is forgiven");
    scores[7] = 3.5;
    let failed = decoder.decode(&[&scores], (64, 64), &mut found).unwrap_err();
    assert_eq!(failed, DecodeFailed::NotProbability { output: 0, score: 3.5 });
    assert_eq!(
        failed.to_string(),
        "output 0 scores 3.5 where 1 is the most: is the manifest's activation the network's?"
    );
}

#[test]
fn outputs_of_another_size_fail_the_frame() {
    let (model, rows) = heads().swap_remove(0);
    let mut decoder = Decoder::new(&model, &rows).unwrap();
    let outputs = fill(&rows, 1, 0.0, 1.0);
    let mut found = Detections::new();
    let mut fails =
        |outputs: &[&[f32]]| decoder.decode(outputs, (64, 64), &mut found).unwrap_err().to_string();
    assert_eq!(fails(&[&outputs[0]]), "1 outputs where 2 were agreed at start");
    assert_eq!(
        fails(&[&outputs[0], &outputs[1][1..]]),
        "output 1 has 735 elements where 736 were agreed at start"
    );
}

#[test]
fn what_does_not_fit_is_named_with_what_would() {
    let error = |model: &Model, rows: &[usize]| Decoder::new(model, rows).unwrap_err().to_string();
    let person = model(person(), 1, (300, 300), Fit::Stretch);
    let two = Model { labels: vec!["person".into(), "bicycle".into()], ..person.clone() };
    let none = Model { labels: vec![], ..person.clone() };
    let large = |head, labels| model(yolo(head, limits(0.4, 100)), labels, (640, 640), Fit::Letterbox);
    let with = |decoder| model(decoder, 50, (32, 32), Fit::Stretch);
    let strict = |suppression| model(yolo(YoloHead::V8, suppression), 4, (96, 64), Fit::Stretch);
    for (model, rows, expected) in [
        (
            &person,
            &[7668][..],
            "model probe: the network hands over 1 outputs, its manifest names 2: boxes, scores",
        ),
        (
            &person,
            &[7664, 3834],
            "model probe: output boxes has 7664 elements a frame, right would be 4 for each of the manifest's 1917 anchors (it fits 1916 anchors)",
        ),
        (
            &two,
            &[7668, 3834],
            "model probe: output scores has 3834 elements a frame, right would be 3 for each of 1917 anchors, the background and 2 labels (it fits 1 labels)",
        ),
        (&none, &[7668, 3834], "model probe: number of labels is 0, right would be 1 to 65536"),
        (
            &large(YoloHead::V8, 79),
            &[84 * 8400],
            "model probe: output rows has 705600 elements a frame, right would be 697200 for 79 labels on 640x640 pixels: 8400 rows of 83 (it fits head = \"v5\" or head = \"yolox\" or 80 labels)",
        ),
        (
            &large(YoloHead::V5, 80),
            &[84 * 8400],
            "model probe: output rows has 705600 elements a frame, right would be 2142000 for 80 labels on 640x640 pixels: 25200 rows of 85 (it fits head = \"v8\" or 23 labels)",
        ),
        (
            &large(YoloHead::Yolox, 80),
            &[1],
            "model probe: output rows has 1 elements a frame, right would be 714000 for 80 labels on 640x640 pixels: 8400 rows of 85",
        ),
        // Four labels instead of six: 84000 elements are a whole number of rows of 8, but no head has 10500.
        (
            &large(YoloHead::V8, 4),
            &[10 * 8400],
            "model probe: output rows has 84000 elements a frame, right would be 67200 for 4 labels on 640x640 pixels: 8400 rows of 8 (it fits 6 labels)",
        ),
        (
            &with(classification(Activation::Softmax, 5, 0.1)),
            &[51],
            "model probe: output classes has 51 elements a frame, right would be 50, one for each label",
        ),
        (
            &with(classification(Activation::Softmax, 0, 0.1)),
            &[50],
            "model probe: top is 0, right would be 1 to 100",
        ),
        (
            &with(classification(Activation::Softmax, 5, f32::NAN)),
            &[50],
            "model probe: score_threshold is NaN, right would be 0 to 1",
        ),
        (&strict(limits(1.5, 10)), &[8 * 126], "model probe: score_threshold is 1.5, right would be 0 to 1"),
        (&strict(limits(0.5, 0)), &[8 * 126], "model probe: candidates is 0, right would be at least 1"),
        (
            &strict(Suppression { iou_threshold: -0.1, ..limits(0.5, 10) }),
            &[8 * 126],
            "model probe: iou_threshold is -0.1, right would be 0 to 1",
        ),
        (
            &with(ssd(false, Activation::None, small_anchors(), [10.0, 10.0, 5.0, 0.0], limits(0.4, 10))),
            &[736, 184 * 50],
            "model probe: variance is [10.0, 10.0, 5.0, 0.0], right would be four divisors above 0, such as 10, 10, 5, 5",
        ),
    ] {
        assert_eq!(error(model, rows), expected);
    }
}

#[test]
fn heads_with_other_feature_maps_are_accepted() {
    let fits = |head, rows: usize| {
        let fields = if head == YoloHead::V8 { 5 } else { 6 };
        let model = model(yolo(head, limits(0.4, 100)), 1, (640, 640), Fit::Letterbox);
        Decoder::new(&model, &[rows * fields]).is_ok()
    };
    let cells =
        |strides: &[usize]| strides.iter().map(|stride| (640 / stride) * (640 / stride)).sum::<usize>();
    assert!(fits(YoloHead::V8, cells(&[8, 16, 32])), "the usual three");
    assert!(fits(YoloHead::V8, cells(&[4, 8, 16, 32])), "small objects");
    assert!(fits(YoloHead::V5, 3 * cells(&[8, 16, 32, 64])), "large inputs");
    assert!(fits(YoloHead::V5, 3 * cells(&[16, 32])), "tiny networks");
    assert!(fits(YoloHead::V5, cells(&[8, 16, 32])), "anchor-free with objectness");
    assert!(fits(YoloHead::Yolox, cells(&[8, 16, 32])));
    assert!(!fits(YoloHead::Yolox, cells(&[8, 16])), "its strides are part of the head");
    assert!(!fits(YoloHead::V8, cells(&[8, 32])), "a gap");
}

#[test]
fn a_crowd_is_as_many_things_as_are_kept_and_as_many_candidates_as_are_looked_at() {
    for name in ["person", "ssd softmax", "ssd probabilities", "ssd sigmoid", "yolo v5", "yolo v8", "yolox"] {
        let model = reference(name);
        let rows: Vec<usize> = ocelli::decode::blank_outputs(&model).iter().map(Vec::len).collect();
        let mut decoder = Decoder::new(&model, &rows).unwrap();
        let (model::Decoder::Ssd { suppression, .. } | model::Decoder::Yolo { suppression, .. }) =
            &model.decoder
        else {
            panic!("{name} has no boxes")
        };
        let outputs = decoder.scene(usize::MAX);
        assert_eq!(outputs.iter().map(Vec::len).collect::<Vec<_>>(), rows, "{name}");
        let outputs: Vec<&[f32]> = outputs.iter().map(Vec::as_slice).collect();
        let mut found = Detections::new();
        // The frame fills the input, so that none of its places lies beside it.
        decoder.decode(&outputs, (model.input.width, model.input.height), &mut found).unwrap();
        let fields = match &model.decoder {
            model::Decoder::Ssd { .. } => 4,
            model::Decoder::Yolo { head: YoloHead::V8, .. } => 4 + model.labels.len(),
            _ => 5 + model.labels.len(),
        };
        let candidates = suppression.candidates.min(rows[0] / fields);
        assert_eq!(found.len(), candidates.min(MAX_DETECTIONS - 1), "{name}");
        // A network that sees something writes more than zero for its class.
        let last = outputs[outputs.len() - 1];
        let seen = match &model.decoder {
            model::Decoder::Ssd { background, .. } => {
                let columns = usize::from(*background) + model.labels.len();
                last.chunks(columns).filter(|scores| scores[columns - 1] > 0.0).count()
            }
            model::Decoder::Yolo { head: YoloHead::V8, .. } => {
                last[rows[0] - rows[0] / fields..].iter().filter(|score| **score > 0.0).count()
            }
            _ => last.chunks(fields).filter(|row| row[fields - 1] > 0.0).count(),
        };
        assert_eq!(seen, candidates, "{name}");
        let (width, height) = (model.input.width as f32 / 20.0, model.input.height as f32 / 20.0);
        for Detection { label, score, width: w, height: h, .. } in &found {
            assert_eq!((usize::from(*label), *score > 0.99), (model.labels.len() - 1, true), "{name}");
            assert!((w - width).abs() < 0.01 && (h - height).abs() < 0.01, "{name}: {w} x {h}");
        }
    }
}
