//! A small board and records of it, for the tests of this module.

use crate::board::{
    Accelerator, BackendSpec, Board, Platform, Realtime, Set, SourceSpec, Stream, Supervision, Watch,
};
use crate::detection::Detection;
use crate::image::PixelFormat;
use crate::job::{DropReason, Outcome, bounded};
use crate::model::{Activation, Channels, Decoder, Element, Fit, Input, Model, TensorLayout};
use crate::record::{
    Action, Certificate, Event, Intervention, Missing, Record, Scope, Served, SetMember, SetRecord,
};
use crate::stream::{Criticality, ModelId, StreamId, StreamState};
use crate::time::Instant;
use std::sync::Arc;
use std::time::Duration;

pub fn board() -> Arc<Board> {
    let stream = |id: &str| Stream {
        id: id.into(),
        source: SourceSpec::Synthetic { phase: Duration::ZERO, jitter: Duration::ZERO, seed: 0 },
        faults: None,
        period: Duration::from_millis(33),
        width: 320,
        height: 240,
        format: PixelFormat::Nv12,
        color: None,
        latency_bound: Duration::from_millis(100),
        criticality: Criticality::Normal,
        model: ModelId(0),
        stale_results: false,
        watch: Watch::default(),
        trigger: None,
    };
    Arc::new(Board {
        name: "bench".into(),
        digest: "0123".into(),
        accelerator: Accelerator {
            backend: BackendSpec::Simulated {
                intercept: Duration::ZERO,
                slope: Duration::ZERO,
                jitter: Duration::ZERO,
                seed: 0,
                fail_every: 0,
                hang_at: None,
            },
            max_batch: 8,
        },
        streams: vec![stream("front"), stream("rear")],
        models: vec![Model {
            id: "person".into(),
            file: "person.onnx".into(),
            sha256: "4567".into(),
            precision: "int8".into(),
            input: Input {
                tensor: "image".into(),
                layout: TensorLayout::Nhwc,
                element: Element::F32,
                width: 300,
                height: 300,
                channels: Channels::Rgb,
                fit: Fit::Stretch,
                fill: 0,
                scale: [1.0; 3],
                offset: [0.0; 3],
            },
            decoder: Decoder::Classification {
                output: "classes".into(),
                activation: Activation::None,
                top: 1,
                score_threshold: 0.0,
            },
            labels: vec!["person".into()],
        }],
        sets: vec![Set {
            id: "ring".into(),
            streams: vec![StreamId(0), StreamId(1)],
            deadline: Duration::from_millis(100),
        }],
        outputs: vec![],
        realtime: Realtime::default(),
        platform: Platform::default(),
        supervision: Supervision::default(),
        warnings: vec![],
    })
}

/// Captured at one second, finished 41.230001 ms later, with two detections.
pub fn served(sequence: u64) -> Record {
    let captured = Instant::from_nanos(1_000_000_000);
    let after = |micros| captured + Duration::from_micros(micros);
    let mut detections = heapless::Vec::new();
    let person = Detection { label: 0, score: 0.887_654, x: 10.25, y: 20.333, width: 30.0, height: 40.5 };
    let unnamed = Detection { label: 7, score: 0.5, x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
    detections.push(person).unwrap();
    detections.push(unnamed).unwrap();
    Record {
        stream: StreamId(0),
        sequence,
        captured,
        deadline: after(100_000),
        finished: after(41_230) + Duration::from_nanos(1),
        outcome: Outcome::Met,
        cause: None,
        state: StreamState::Full,
        last_good_age: Some(Duration::from_nanos(74_230_001)),
        served: Some(Served {
            model: ModelId(0),
            batch: 2,
            arrived: after(2_000) + Duration::from_nanos(1),
            submitted: after(10_001),
            completed: after(40_001),
            detections,
        }),
    }
}

pub fn dropped(sequence: u64) -> Record {
    let outcome = Outcome::Dropped(DropReason::Hopeless);
    Record { outcome, served: None, last_good_age: None, ..served(sequence) }
}

pub fn set() -> SetRecord {
    let member = |stream, frame: Option<_>| SetMember {
        stream: StreamId(stream),
        frame,
        captured: frame.map(|_| Instant::from_nanos(1_000_000_000)),
        missing: if frame.is_none() { Some(Missing::NotDue) } else { None },
        state: StreamState::Full,
    };
    SetRecord {
        set: 0,
        instant: Instant::from_nanos(1_000_000_000),
        skew: Duration::from_micros(700),
        finished: Instant::from_nanos(1_050_000_000),
        members: [member(0, Some((3, Outcome::Met))), member(1, None)].into_iter().collect(),
    }
}

pub fn event(cause: &str) -> Event {
    let at = Instant::from_nanos(2_000_000_000);
    Event { at, stream: StreamId(1), state: StreamState::Down, cause: bounded(cause) }
}

pub fn intervention() -> Intervention {
    Intervention {
        at: Instant::from_nanos(2_000_000_000),
        scope: Scope::Capture,
        subject: bounded("front"),
        action: Action::Replaced,
        cause: bounded("stuck in waiting for its source for 1.0 s"),
    }
}

pub fn certificate() -> Certificate {
    let at = Instant::from_nanos(2_000_000_000);
    Certificate { at, holds: false, streams: 2, cause: bounded("overrun") }
}
