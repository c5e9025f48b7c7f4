//! An accelerator of several units: each is measured by itself, what is used is what carries more streams, and what is
//! left idle gets no batch.

mod common;

use common::{ms, running};
use ocelli::board::{BackendSpec, Board};
use ocelli::infer::{Backend, Capabilities};
use ocelli::job::{Batch, BatchFault};
use ocelli::platform::Waker;
use ocelli::pool::{FrameRef, Pool};
use ocelli::runtime::{self, Arrangement, Choice, Decodings, Key, Measured, Stored, Timing, UnitTimes};
use ocelli::sched::Service;
use ocelli::stream::ModelId;
use ocelli::time::Instant;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Wall};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);
const LANES: [&str; 3] = ["gpu", "gpu", "dla 0"];

/// A GPU of two lanes and a DLA. A batch is there for `hold`; how long it says that it took is what the test wants.
struct Units {
    capabilities: Capabilities,
    hold: Duration,
    /// Of a batch on the GPU while the DLA is idle, and on the GPU and on the DLA while all lanes are at work.
    times: [Duration; 3],
    /// A model that it takes no batch of.
    refused: Option<ModelId>,
    /// The DLA fails every batch.
    faulty: bool,
    running: VecDeque<Box<Batch<FrameRef>>>,
    /// Batches that the DLA was given.
    on_dla: Arc<AtomicU64>,
}

impl Units {
    fn new(board: &Board, hold: u64, times: [u64; 3]) -> Self {
        let capabilities = Capabilities {
            name: "units".into(),
            lanes: LANES.map(String::from).to_vec(),
            batch_sizes: vec![(1..=board.accelerator.max_batch).collect(); board.models.len()],
            output_rows: vec![vec![2]; board.models.len()],
        };
        let (running, on_dla) = (VecDeque::with_capacity(LANES.len()), Arc::default());
        Self {
            capabilities,
            hold: ms(hold),
            times: times.map(ms),
            refused: None,
            faulty: false,
            running,
            on_dla,
        }
    }
}

impl Backend<FrameRef> for Units {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, now: Instant, mut batch: Box<Batch<FrameRef>>) -> Result<(), Box<Batch<FrameRef>>> {
        let is_idle = |lane: &usize| self.running.iter().all(|running| running.lane != *lane);
        let lane = (0..LANES.len()).find(is_idle).filter(|_| self.refused != Some(batch.model));
        let Some(lane) = lane else {
            batch.fault = Some(BatchFault::new("not this one"));
            return Err(batch);
        };
        (batch.submitted, batch.lane) = (now, lane);
        for tensor in &mut batch.outputs {
            tensor.row = 2;
        }
        self.on_dla.fetch_add(u64::from(LANES[lane] == "dla 0"), Ordering::Relaxed);
        self.running.push_back(batch);
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<Box<Batch<FrameRef>>> {
        self.poll_at().filter(|&at| at <= now)?;
        let all = self.running.len() == LANES.len();
        let mut batch = self.running.pop_front()?;
        let [alone, beside, dla] = self.times;
        batch.service = match (LANES[batch.lane], all) {
            ("gpu", false) => alone,
            ("gpu", true) => beside,
            _ => dla,
        };
        batch.completed = batch.submitted + self.hold;
        batch.fault = (self.faulty && LANES[batch.lane] == "dla 0").then(|| BatchFault::new("broken"));
        Some(batch)
    }

    fn poll_at(&self) -> Option<Instant> {
        self.running.front().map(|batch| batch.submitted + self.hold)
    }
}

/// Four streams of 30 fps.
fn board(max_batch: u16) -> Board {
    let mut board = running::synthetic(4);
    board.accelerator.max_batch = max_batch;
    board
}

fn pool(board: &Board) -> Pool {
    Pool::new(&runtime::shares(board, LANES.len()), false).expect("memory")
}

/// Its units' names, and the shortest, longest and number of service times of batches of `jobs`.
fn seen(Arrangement(units): &Arrangement, jobs: usize) -> Vec<(&str, u64, u64, usize)> {
    let timing = |timing: &Timing| (timing.fastest_ns / 1_000_000, timing.max_ns / 1_000_000, timing.runs);
    let each = units.iter().map(|unit| {
        let (fastest, longest, runs) = timing(&unit.services[0][jobs - 1]);
        (unit.unit.as_str(), fastest, longest, runs)
    });
    each.collect()
}

#[test]
fn each_unit_is_measured_by_itself_with_all_at_work_and_the_first_alone() {
    let board = board(2);
    let mut units = Units::new(&board, 0, [2, 3, 7]);
    let measured = runtime::measure_for(&board, &pool(&board), &mut units, Duration::ZERO, 10..=10);
    let [alone, all] = measured.expect("a profile").arrangements.try_into().expect("two arrangements");
    for jobs in [1, 2] {
        assert_eq!(seen(&alone, jobs), [("gpu", 2, 2, 10)]);
        assert_eq!(seen(&all, jobs), [("gpu", 3, 3, 10), ("dla 0", 7, 7, 10)]);
    }
    let lanes = |Arrangement(units): &Arrangement| units.iter().map(|unit| unit.lanes).collect::<Vec<_>>();
    assert_eq!((lanes(&alone), lanes(&all)), (vec![2], vec![2, 1]));
}

/// What a start without a kept profile makes of it.
fn provisional(times: [u64; 3]) -> Choice {
    let board = board(1);
    let mut units = Units::new(&board, 0, times);
    runtime::measure(&board, &pool(&board), &mut units, || false).expect("a profile")
}

#[test]
fn a_slow_dla_is_left_idle_and_a_fast_one_used() {
    let service = |choice: &Choice| choice.profile.service(ModelId(0), 1);
    let planned = |fastest, planned| Some(Service { fastest: ms(fastest), planned: ms(planned) });

    let slow = provisional([2, 3, 7]);
    let [alone, all] = slow.candidates.as_slice() else { panic!("two arrangements") };
    assert_eq!(alone.units, LANES[..1]);
    assert_eq!(all.units, LANES[1..]);
    assert!(alone.fits.max_streams > all.fits.max_streams, "{slow:?}");
    assert_eq!((slow.used, slow.profile.places, service(&slow)), (0, 2, planned(2, 2)));
    let said = format!(
        "dla 0 is left idle: {} streams fit with it, {} without",
        all.fits.max_streams, alone.fits.max_streams
    );
    assert_eq!(slow.said(), Some(said));

    // As many are certain either way; by capacity it is a place more.
    let fast = provisional([2, 2, 2]);
    assert_eq!((fast.used, fast.profile.places, service(&fast)), (1, 3, planned(2, 2)));
    assert!(fast.said().is_some_and(|said| said.starts_with("dla 0 is used: ")), "{fast:?}");
}

#[test]
fn a_model_that_is_refused_costs_those_after_it_nothing() {
    let mut board = board(1);
    board.streams[3].model = ModelId(1);
    board.models.push(common::model("m1"));
    let mut units = Units::new(&board, 0, [2, 3, 7]);
    units.refused = Some(ModelId(0));
    let choice = runtime::measure(&board, &pool(&board), &mut units, || false).expect("a profile");
    let planned = |model| choice.profile.service(ModelId(model), 1).map(|service| service.planned);
    assert_eq!((planned(0), planned(1)), (Some(Duration::from_micros(1)), Some(ms(2))));
    assert!(units.running.is_empty());
}

#[test]
fn a_dla_that_fails_is_left_idle_and_ends_the_measurement_of_nothing_else() {
    let board = board(1);
    let mut units = Units::new(&board, 0, [2, 2, 2]);
    units.faulty = true;
    let measured = runtime::measure_for(&board, &pool(&board), &mut units, Duration::ZERO, 10..=10);
    let [alone] = measured.expect("a profile").arrangements.try_into().expect("one arrangement");
    assert_eq!(seen(&alone, 1), [("gpu", 2, 2, 10)]);
    assert!(units.running.is_empty(), "what was at work would come back to whoever is next");
    let choice = runtime::measure(&board, &pool(&board), &mut units, || false).expect("a profile");
    assert_eq!((choice.used, choice.profile.places, choice.said()), (0, 2, None));
}

/// Runs until enough has been seen, and gives how many batches the DLA got in that time.
fn run(times: [u64; 3], enough: impl Fn(&mut running::Run, u64) -> bool) -> u64 {
    let board = board(1);
    // Frames come faster than two lanes can take them.
    let units = Units::new(&board, 25, times);
    let on_dla = units.on_dla.clone();
    let mut run = running::start_on(&board, Box::new(units), Waker::new());
    let (before, start) = (on_dla.load(Ordering::Relaxed), Wall::now());
    while !enough(&mut run, on_dla.load(Ordering::Relaxed) - before) {
        assert!(start.elapsed() < PATIENCE, "nothing comes of it");
        std::thread::sleep(ms(5));
    }
    assert!(run.stop().total().balances());
    on_dla.load(Ordering::Relaxed) - before
}

#[test]
fn what_is_left_idle_gets_no_batch() {
    let served = |run: &mut running::Run, batches: u64| run.look().batches.0 >= batches;
    assert_eq!(run([2, 3, 7], |run, _| served(run, 60)), 0);
    // Where it is used it has work.
    assert!(run([2, 2, 2], |_, on_dla| on_dla > 0) > 0);
}

#[test]
fn a_kept_profile_says_how_the_choice_stood_and_is_asked_again_when_the_board_has_changed() {
    let board = board(1);
    let unit = |unit: &str, lanes: usize, micros: u64| {
        let services = vec![vec![Timing::new(1, &[Duration::from_micros(micros)])]];
        UnitTimes { unit: unit.to_owned(), lanes, services }
    };
    let arrangements = vec![
        Arrangement(vec![unit("gpu", 2, 2000)]),
        Arrangement(vec![unit("gpu", 2, 2100), unit("dla 0", 1, 2200)]),
    ];
    let decoding = |micros: u64| Timing::new(1, &[Duration::from_micros(micros)]);
    let decodings = vec![Decodings { empty: decoding(5), crowd: decoding(50) }];
    let measured = Measured { arrangements, decodings };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("p.json");
    Stored::new(&board, Key::new(&board, "units"), measured).save(&path).expect("kept");
    let stored = Stored::load(&path).expect("a profile");
    let used: Vec<bool> = stored.arrangements.iter().map(|kept| kept.used).collect();
    assert_eq!(used, [true, false]);
    let choice = stored.choice(&board);
    assert_eq!((choice.used, choice.candidates[0].fits.max_streams), (0, stored.arrangements[0].max_streams));
    // A bound within which no frame can wait for a batch: one stream alone is certain either way, and capacity decides.
    let mut hurried = board.clone();
    hurried.streams.iter_mut().for_each(|stream| stream.latency_bound = Duration::from_micros(4000));
    let choice = stored.choice(&hurried);
    assert_eq!((choice.used, choice.profile.places), (1, 3));
    let certain = choice.candidates.iter().map(|candidate| candidate.fits.max_streams);
    assert_eq!(certain.collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_profile_of_other_dlas_is_of_something_else() {
    let key = |dla: &[u8]| {
        let mut board = board(1);
        board.accelerator.backend = BackendSpec::TensorRt {
            device: 0,
            engine_cache: "cache".into(),
            contexts: 1,
            dla: dla.to_vec(),
            build_plans: false,
        };
        Key::new(&board, "TensorRT")
    };
    assert!(key(&[0, 1]).differences(&key(&[0, 1])).is_empty());
    let differences = key(&[0]).differences(&key(&[0, 1]));
    assert!(matches!(differences.as_slice(), [one] if one.contains("DLA 1")), "{differences:?}");
}
