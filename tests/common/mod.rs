//! Boards for tests, without files.
#![allow(dead_code)] // Each test binary uses its part.

pub mod running;

use ocelli::board::{
    Accelerator, BackendSpec, Board, Platform, Realtime, Set, SourceSpec, Stream, Supervision,
};
use ocelli::image::PixelFormat;
use ocelli::model::{Activation, Channels, Decoder, Element, Fit, Input, Model, TensorLayout};
use ocelli::random::Random;
use ocelli::sched::{Decoding, Profile, Service};
use ocelli::stream::{Criticality, ModelId, StreamId};
use ocelli::time::Instant;
use std::time::Duration;

/// Milliseconds.
pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A stream of tiny grey frames with this period and bound.
pub fn stream(id: &str, period: Duration, latency_bound: Duration) -> Stream {
    Stream {
        id: id.to_owned(),
        source: SourceSpec::Synthetic { phase: Duration::ZERO, jitter: Duration::ZERO, seed: 0 },
        faults: None,
        period,
        width: 16,
        height: 16,
        format: PixelFormat::Gray8,
        color: None,
        latency_bound,
        criticality: Criticality::Normal,
        model: ModelId(0),
        stale_results: false,
        watch: Default::default(),
        trigger: None,
    }
}

/// A classifier that nobody runs.
pub fn model(id: &str) -> Model {
    Model {
        id: id.to_owned(),
        file: "none.onnx".into(),
        sha256: String::new(),
        precision: "fp32".to_owned(),
        input: Input {
            tensor: "in".to_owned(),
            layout: TensorLayout::Nchw,
            element: Element::F32,
            width: 16,
            height: 16,
            channels: Channels::Gray,
            fit: Fit::Stretch,
            fill: 0,
            scale: [1.0; 3],
            offset: [0.0; 3],
        },
        decoder: Decoder::Classification {
            output: "out".to_owned(),
            activation: Activation::None,
            top: 1,
            score_threshold: 0.5,
        },
        labels: vec!["thing".to_owned(), "other".to_owned()],
    }
}

/// A board with a simulated accelerator, l(b) = intercept + slope * b.
pub fn board(streams: Vec<Stream>, intercept: Duration, slope: Duration, max_batch: u16) -> Board {
    let models = streams.iter().map(|s| s.model.index() + 1).max().unwrap_or(1);
    Board {
        name: "test".to_owned(),
        digest: "0".repeat(64),
        accelerator: Accelerator {
            backend: BackendSpec::Simulated {
                intercept,
                slope,
                jitter: Duration::ZERO,
                seed: 1,
                fail_every: 0,
                hang_at: None,
            },
            max_batch,
        },
        streams,
        models: (0..models).map(|index| model(&format!("m{index}"))).collect(),
        sets: Vec::new(),
        outputs: Vec::new(),
        realtime: Realtime::default(),
        platform: Platform::default(),
        supervision: Supervision::default(),
        warnings: Vec::new(),
    }
}

/// All streams of a board in one set.
pub fn one_set(board: &Board, deadline: Duration) -> Set {
    let streams = (0..board.streams.len()).map(|index| StreamId(index as u16)).collect();
    Set { id: "all".to_owned(), streams, deadline }
}

/// The exact profile of a linear accelerator, to admit by utilisation with.
pub fn profile(board: &Board) -> Profile {
    let BackendSpec::Simulated { intercept, slope, .. } = board.accelerator.backend else {
        panic!("a simulated board");
    };
    let table = (1..=board.accelerator.max_batch).map(|size| {
        let l = intercept + slope * u32::from(size);
        (size, Service { fastest: l, planned: l })
    });
    let table: Vec<_> = table.collect();
    Profile::new(vec![table; board.models.len()], true)
}

/// What admission keeps free for what is not decoding.
pub const TAIL: Duration = Duration::from_micros(500);

/// Half of the time results of `models` take time to decode: a frame's up to 3 ms.
pub fn decodings(random: &mut Random, models: u64) -> Vec<Decoding> {
    let slow = random.bits() % 2;
    let each = (0..models).map(|_| {
        let most = Duration::from_micros(slow * (random.bits() % 3_000));
        Decoding { usual: random.below(most), most }
    });
    each.collect()
}

/// A thread that decodes and publishes, one frame after the other, and is no quicker than it has to be.
#[derive(Default)]
pub struct Publisher {
    free: Instant,
}

impl Publisher {
    /// When the results of a frame are out whose batch is `done`, and was handed over after all before it.
    pub fn publish(&mut self, done: Instant, most: Duration, random: &mut Random) -> Instant {
        let decoding = if random.bits().is_multiple_of(4) { random.below(most) } else { most };
        self.free = self.free.max(done) + decoding;
        self.free + TAIL
    }
}
