//! Boards on a virtual clock: exact times, equal runs, faults that stay where they are, and scenario files.

mod common;
#[path = "board/memory.rs"]
#[allow(dead_code)] // Manifests are for other tests.
mod memory;

use common::{board, ms, one_set, stream};
use memory::Memory;
use ocelli::board::{Address, Board, SourceSpec};
use ocelli::job::{DropReason, Outcome};
use ocelli::record::Message;
use ocelli::runtime::Host;
use ocelli::sched::Schedule;
use ocelli::sim::{self, Disturbance, Event, PUBLISHING, Plan, START, Scenario, Simulation, What};
use ocelli::stats::Ledger;
use ocelli::stream::StreamId;
use ocelli::time::Instant;
use proptest::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

/// A frame's end, as it was published.
#[derive(Clone, Copy, Debug, PartialEq)]
struct End {
    stream: usize,
    sequence: u64,
    captured: Instant,
    outcome: Outcome,
    latency: Duration,
}

/// A simulation and what it published.
struct Ran {
    simulation: Simulation,
    ends: Vec<End>,
    sets: usize,
}

impl Ran {
    fn ledger(&self, stream: usize) -> Ledger {
        self.simulation.finished.streams()[stream].ledger
    }

    fn dropped(&self, stream: usize, reason: DropReason) -> u64 {
        self.ledger(stream).dropped[reason.index()]
    }

    fn of(&self, stream: usize) -> impl Iterator<Item = &End> {
        self.ends.iter().filter(move |end| end.stream == stream)
    }
}

fn simulate(board: &Board, events: &[Event], seed: u64, time: Duration) -> Ran {
    let service = sim::service_of(board).expect("a simulated accelerator");
    let schedule = Schedule::admit(board, sim::profile(board, &service)).expect("admitted");
    let scenario = Scenario { events: events.to_vec(), ..Scenario::default() };
    let (mut ends, mut sets) = (Vec::new(), 0);
    let plan = Plan { service, scenario, seed, time };
    let result = sim::simulate(Arc::new(board.clone()), schedule, plan, &mut |message| {
        match message {
            Message::Frame(record) => ends.push(End {
                stream: record.stream.index(),
                sequence: record.sequence,
                captured: record.captured,
                outcome: record.outcome,
                latency: record.finished.since(record.captured),
            }),
            Message::Set(_) => sets += 1,
            Message::Event(_) | Message::Certificate(_) | Message::Intervention(_) => {}
        }
        Ok::<(), ()>(())
    });
    let simulation = result.expect("nothing fails here");
    Ran { simulation, ends, sets }
}

fn event(at: Duration, lasts: Option<Duration>, what: What) -> Event {
    Event { at, until: lasts.map(|lasts| at + lasts), what }
}

/// From 2 s to 4 s, to the first stream.
fn disturbed(disturbance: Disturbance) -> Event {
    event(ms(2000), Some(ms(2000)), What::Stream(StreamId(0), disturbance))
}

fn with_phases(streams: usize, period: u64, bound: u64) -> Vec<ocelli::board::Stream> {
    let make = |index: usize| {
        let mut stream = stream(&format!("s{index}"), ms(period), ms(bound));
        let phase = ms(period) * index as u32 / streams as u32;
        stream.source = SourceSpec::Synthetic { phase, jitter: Duration::ZERO, seed: 0 };
        stream
    };
    (0..streams).map(make).collect()
}

/// Four streams of 50 fps that never meet at the accelerator: l(1) = 3 ms, and 5 ms between releases.
fn four() -> Board {
    board(with_phases(4, 20, 20), ms(2), ms(1), 4)
}

/// What holds whatever happens: every captured frame has ended, once, in order, and was published so.
fn check(ran: &Ran) {
    for (stream, totals) in ran.simulation.finished.streams().iter().enumerate() {
        let ledger = totals.ledger;
        assert_eq!(totals.causes.iter().sum::<u64>(), ledger.late, "every late frame has one cause");
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!((ledger.in_flight, totals.records_lost), (0, 0));
        assert!(ran.of(stream).map(|end| end.sequence).eq(0..ledger.captured), "every frame, in order");
        let count = |outcome| ran.of(stream).filter(|end| end.outcome == outcome).count() as u64;
        assert_eq!((count(Outcome::Met), count(Outcome::Late)), (ledger.met, ledger.late));
        for reason in DropReason::ALL {
            assert_eq!(count(Outcome::Dropped(reason)), ledger.dropped[reason.index()], "{reason:?}");
        }
    }
}

/// Two cameras released together every 100 ms, l(b) = 2 ms + b * 1 ms. Each number here was worked out by
/// hand.
#[test]
fn a_small_scenario_to_the_nanosecond() {
    let board = board(vec![stream("a", ms(100), ms(50)), stream("b", ms(100), ms(50))], ms(2), ms(1), 4);
    let events = [
        event(ms(150), None, What::Hang(ms(10))),
        event(ms(250), Some(ms(100)), What::Stream(StreamId(0), Disturbance::Silent)),
        event(ms(350), Some(ms(100)), What::Fail),
        event(ms(450), None, What::Slow { factor: 2.0, ramp: Duration::ZERO }),
    ];
    let ran = simulate(&board, &events, 0, ms(600));
    check(&ran);
    let (met, lost) = (Outcome::Met, |reason| Outcome::Dropped(reason));
    // In the order of publishing: the instant of release, the camera, its end, and the time until then.
    let expected = [
        // Both in one batch: 4 ms; they are published one after the other.
        (0, 0, met, ms(4) + PUBLISHING),
        (0, 1, met, ms(4) + 2 * PUBLISHING),
        (100, 0, met, ms(4) + PUBLISHING),
        (100, 1, met, ms(4) + 2 * PUBLISHING),
        // The accelerator hangs for 10 ms.
        (200, 0, met, ms(14) + PUBLISHING),
        (200, 1, met, ms(14) + 2 * PUBLISHING),
        // The first camera is silent: the other one is alone, 3 ms. It is told with the next frame.
        (300, 1, met, ms(3) + PUBLISHING),
        (300, 0, lost(DropReason::DriverLost), ms(100)),
        // The batch fails after its 4 ms.
        (400, 1, lost(DropReason::BackendFailed), ms(4)),
        (400, 0, lost(DropReason::BackendFailed), ms(4)),
        // Twice as slow.
        (500, 0, met, ms(8) + PUBLISHING),
        (500, 1, met, ms(8) + 2 * PUBLISHING),
    ];
    let seen: Vec<_> = ran
        .ends
        .iter()
        .map(|end| (end.captured.since(START), end.stream, end.outcome, end.latency))
        .collect();
    let mut expected =
        expected.map(|(at, stream, outcome, latency)| (ms(at), stream, outcome, latency)).to_vec();
    let mut sorted = seen.clone();
    // Records of different cameras may leave in any order within an instant.
    sorted.sort_by_key(|&(at, stream, ..)| (at, stream));
    expected.sort_by_key(|&(at, stream, ..)| (at, stream));
    assert_eq!(sorted, expected);
}

#[test]
fn equal_seeds_give_equal_digests_and_others_do_not() {
    let mut description = four();
    description.streams[1].source = SourceSpec::Synthetic { phase: ms(1), jitter: ms(3), seed: 5 };
    description.sets = vec![one_set(&description, ms(40))];
    let events = [disturbed(Disturbance::Drop(0.3)), event(ms(500), None, What::Overload(1.3))];
    let digest = |seed, events: &[Event]| simulate(&description, events, seed, ms(5000)).simulation.digest;
    assert_eq!(digest(7, &events), digest(7, &events));
    assert_ne!(digest(7, &events), digest(8, &events));
    assert_ne!(digest(7, &events), digest(7, &events[..1]));
}

#[test]
fn a_live_cameras_phase_comes_from_the_seed() {
    let mut description = four();
    let uri = Address::new("rtsp://10.0.0.4/main");
    description.streams[2].source = SourceSpec::Uri { uri, latency: ms(5) };
    let first = |seed| {
        let ran = simulate(&description, &[], seed, ms(1000));
        let captured = ran.of(2).next().expect("a frame").captured;
        assert_eq!(ran.of(1).next().expect("a frame").captured, START + ms(5), "the board says this one's");
        captured.since(START)
    };
    assert!(first(1) < ms(20) && first(2) < ms(20));
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
}

#[test]
fn an_undisturbed_camera_is_on_the_boards_grid() {
    let ran = simulate(&four(), &[], 0, ms(10_000));
    check(&ran);
    for index in 0..4 {
        let stamps = ran.of(index).map(|end| end.captured.since(START));
        assert!(stamps.eq((0..500).map(|k| ms(5 * index as u64 + 20 * k))));
        assert!(ran.of(index).all(|end| end.outcome == Outcome::Met && end.latency == ms(3) + PUBLISHING));
    }
}

#[test]
fn jitter_moves_releases_by_less_than_it() {
    let ran = simulate(&four(), &[disturbed(Disturbance::Jitter(ms(15)))], 0, ms(10_000));
    check(&ran);
    let off = |end: &End| end.captured.since(START + ms(20) * end.sequence as u32);
    assert!(ran.of(0).all(|end| off(end) < ms(15)));
    assert!(ran.of(0).filter(|end| off(end) > Duration::ZERO).count() >= 95);
    assert_eq!(ran.ledger(0).captured, 500);
}

#[test]
fn a_fast_clock_gives_more_frames_and_a_slow_one_fewer() {
    // 2 s of 10 % make ten frames of fifty a second.
    for (ppm, captured) in [(100_000.0, 510), (-100_000.0, 490)] {
        let ran = simulate(&four(), &[disturbed(Disturbance::Drift(ppm))], 0, ms(10_000));
        check(&ran);
        assert!(ran.ledger(0).captured.abs_diff(captured) <= 1, "{:?}", ran.ledger(0));
    }
}

#[test]
fn a_silent_camera_loses_its_frames() {
    let ran = simulate(&four(), &[disturbed(Disturbance::Silent)], 0, ms(10_000));
    check(&ran);
    assert_eq!((ran.ledger(0).met, ran.dropped(0, DropReason::DriverLost)), (400, 100));
}

#[test]
fn silence_to_the_end_is_told_at_the_end() {
    let silent = event(ms(2000), None, What::Stream(StreamId(0), Disturbance::Silent));
    let ran = simulate(&four(), &[silent], 0, ms(10_000));
    check(&ran);
    assert_eq!((ran.ledger(0).met, ran.dropped(0, DropReason::DriverLost)), (100, 400));
}

#[test]
fn what_is_behind_a_late_frame_waits() {
    let ran = simulate(&four(), &[disturbed(Disturbance::Late(ms(3000)))], 0, ms(10_000));
    check(&ran);
    // Stamps of 2 s to 4 s arrive from 5 s to 7 s (the last at 6.98 s), and with that one all those that
    // were released meanwhile, of which the newest, just released, makes it.
    let ledger = ran.ledger(0);
    assert_eq!((ledger.captured, ledger.met), (500, 500 - 249));
    // Those that arrived all at once came early, but for the newest.
    assert_eq!((ran.dropped(0, DropReason::Hopeless), ran.dropped(0, DropReason::Early)), (100, 149));
}

#[test]
fn what_is_late_at_the_end_is_counted() {
    let late = event(ms(0), None, What::Stream(StreamId(0), Disturbance::Late(ms(3000))));
    let ran = simulate(&four(), &[late], 0, ms(2000));
    check(&ran);
    assert_eq!(ran.dropped(0, DropReason::Shutdown), 100);
}

#[test]
fn a_burst_gives_more_frames() {
    let ran = simulate(&four(), &[disturbed(Disturbance::Burst(5.0))], 0, ms(10_000));
    check(&ran);
    assert_eq!(ran.ledger(0).captured, 400 + 500);
}

#[test]
fn a_share_is_lost() {
    let ran = simulate(&four(), &[disturbed(Disturbance::Drop(0.5))], 0, ms(10_000));
    check(&ran);
    let lost = ran.dropped(0, DropReason::DriverLost);
    assert!((25..75).contains(&lost), "{lost} of 100");
    assert_eq!(ran.ledger(0).met, 500 - lost);
}

#[test]
fn stamps_of_the_past_are_hopeless_and_those_of_the_future_buy_nothing() {
    let second = 1_000_000_000;
    let ran = simulate(&four(), &[disturbed(Disturbance::Jump(-second))], 0, ms(10_000));
    check(&ran);
    assert_eq!(ran.dropped(0, DropReason::Hopeless), 100);
    let ran = simulate(&four(), &[disturbed(Disturbance::Jump(second))], 0, ms(10_000));
    check(&ran);
    assert!(ran.of(0).all(|end| end.outcome == Outcome::Met && end.latency == ms(3) + PUBLISHING));
}

#[test]
fn a_source_that_fails_comes_back() {
    let late = event(ms(1900), Some(ms(100)), What::Stream(StreamId(0), Disturbance::Late(ms(200))));
    let ran = simulate(&four(), &[disturbed(Disturbance::Down), late], 0, ms(10_000));
    check(&ran);
    // Its frames of the last 100 ms were on the way, and are lost with it.
    assert_eq!((ran.ledger(0).met, ran.dropped(0, DropReason::SourceDown)), (395, 105));
    let totals = &ran.simulation.finished.streams()[0];
    assert_eq!((totals.failures, totals.state.as_str()), (1, "full"));
}

#[test]
fn overload_and_slowness_cost_frames() {
    let overload = event(ms(2000), Some(ms(2000)), What::Overload(20.0));
    let slow = event(ms(2000), Some(ms(2000)), What::Slow { factor: 10.0, ramp: ms(1000) });
    for what in [overload, slow] {
        let ran = simulate(&four(), &[what], 0, ms(10_000));
        check(&ran);
        let (all, before) = (ran.simulation.finished.total(), START + ms(2000));
        assert!(all.dropped_total() > 100, "{all:?}");
        assert!(ran.ends.iter().filter(|end| end.captured < before).all(|end| end.outcome == Outcome::Met));
    }
}

#[test]
fn an_accelerator_that_fails_or_hangs_comes_back() {
    let ran = simulate(&four(), &[event(ms(2000), Some(ms(2000)), What::Fail)], 0, ms(10_000));
    check(&ran);
    assert_eq!(
        (0..4).map(|index| ran.dropped(index, DropReason::BackendFailed)).collect::<Vec<_>>(),
        [100; 4]
    );
    let ran = simulate(&four(), &[event(ms(2000), None, What::Hang(ms(2000)))], 0, ms(10_000));
    check(&ran);
    let all = ran.simulation.finished.total();
    assert_eq!(all.late, 1, "the frame that hung: {all:?}");
    assert!((390..=400).contains(&all.dropped_total()), "those that came meanwhile: {all:?}");
}

#[test]
fn an_accelerator_that_hangs_at_the_end_is_given_up() {
    let ran = simulate(&four(), &[event(ms(900), None, What::Hang(ms(3_600_000)))], 0, ms(1000));
    check(&ran);
    assert!(ran.simulation.finished.total().dropped[DropReason::Shutdown.index()] > 0);
}

/// Any stream, or all of them.
fn what() -> impl Strategy<Value = What> {
    let ns = -3_000_000_000..3_000_000_000i64;
    let disturbance = prop_oneof![
        (0..50u64).prop_map(|jitter| Disturbance::Jitter(ms(jitter))),
        (-100_000.0..100_000.0).prop_map(Disturbance::Drift),
        Just(Disturbance::Silent),
        (0..3000u64).prop_map(|late| Disturbance::Late(ms(late))),
        (0.1..20.0).prop_map(Disturbance::Burst),
        (0.0..1.0).prop_map(Disturbance::Drop),
        ns.prop_map(Disturbance::Jump),
        Just(Disturbance::Down),
    ];
    prop_oneof![
        8 => (0..4u16, disturbance).prop_map(|(stream, what)| What::Stream(StreamId(stream), what)),
        1 => (0.1..20.0).prop_map(What::Overload),
        1 => (0.1..10.0, 0..1000u64).prop_map(|(factor, ramp)| What::Slow { factor, ramp: ms(ramp) }),
        1 => Just(What::Fail),
        1 => (0..3000u64).prop_map(|hang| What::Hang(ms(hang))),
    ]
}

fn anything() -> impl Strategy<Value = Event> {
    let lasts = prop::option::of(1..2000u64);
    (0..4000u64, lasts, what()).prop_map(|(at, lasts, what)| event(ms(at), lasts.map(ms), what))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens at once, every captured frame ends once and leaves in order, and equal seeds are equal.
    #[test]
    fn whatever_happens_every_frame_ends_once(
        events in prop::collection::vec(anything(), 1..8),
        bound in 5..100u64,
        seed: u64,
    ) {
        let mut description = board(with_phases(4, 20, bound), ms(2), ms(1), 4);
        description.streams[1].stale_results = true;
        description.sets = vec![one_set(&description, ms(50))];
        let ran = simulate(&description, &events, seed, ms(4000));
        let totals = ran.simulation.finished.streams();
        if totals.iter().all(|totals| totals.records_lost == 0) {
            check(&ran);
        }
        // A hang among alternating reasons may cost records, which then are counted, and no frame.
        for (stream, totals) in totals.iter().enumerate() {
            let ledger = totals.ledger;
            prop_assert!(ledger.balances() && ledger.in_flight == 0, "{:?}", ledger);
            prop_assert!(ran.of(stream).map(|end| end.sequence).is_sorted_by(|a, b| a < b));
            prop_assert_eq!(ran.of(stream).count() as u64 + totals.records_lost, ledger.captured);
        }
        let again = simulate(&description, &events, seed, ms(4000));
        prop_assert_eq!(ran.simulation.digest, again.simulation.digest);
    }
}

/// One bad camera among eight, on an accelerator with room for it: the others miss nothing, and every instant
/// of theirs has its set.
#[test]
fn a_bad_camera_costs_the_others_nothing() {
    let hour = 3_600_000_000_000;
    let bad = [
        Disturbance::Silent,
        Disturbance::Late(ms(3000)),
        Disturbance::Burst(10.0),
        Disturbance::Jump(hour),
        Disturbance::Jump(-hour),
        Disturbance::Drop(0.5),
        Disturbance::Down,
    ];
    for bound in [33, 100] {
        let description = board(with_phases(8, 33, bound), ms(2), ms(1), 16);
        let others = |ran: &Ran| (1..8).map(|index| ran.ledger(index)).collect::<Vec<_>>();
        let healthy = simulate(&description, &[], 0, ms(10_000));
        assert!(others(&healthy).iter().all(|ledger| ledger.met == ledger.captured && ledger.met >= 303));
        for disturbance in bad {
            let ran = simulate(&description, &[disturbed(disturbance)], 0, ms(10_000));
            check(&ran);
            // A stamp in the future counts as now.
            let harmless = disturbance == Disturbance::Jump(hour);
            let equal = ran.simulation.digest == healthy.simulation.digest;
            assert_eq!(equal, harmless, "{disturbance:?}");
            assert_eq!(others(&ran), others(&healthy), "{disturbance:?}, bound {bound} ms");
        }
    }
}

#[test]
fn sets_are_closed_on_the_virtual_clock() {
    let mut description = board(with_phases(4, 20, 20), ms(2), ms(1), 4);
    description.streams.iter_mut().for_each(|stream| {
        stream.source = SourceSpec::Synthetic { phase: ms(1), jitter: Duration::ZERO, seed: 0 };
    });
    description.sets = vec![one_set(&description, ms(15))];
    let ran = simulate(&description, &[disturbed(Disturbance::Silent)], 0, ms(10_000));
    check(&ran);
    // The last instant's set may be cut off by the end.
    assert!((499..=500).contains(&ran.sets), "{}", ran.sets);
}

const GARBAGE: &str = "config_version = 2
[[events]]
what = \"silent\"
at_s = -1
stream = \"s9\"
[[events]]
what = \"explode\"
at_s = 1
[[events]]
what = \"hang\"
at_s = 1
[[events]]
what = \"slow\"
at_s = 1
for_s = 2
ramp_s = 3
factor = \"much\"
speed = 1
[[events]]
what = \"drop\"
at_s = 1
stream = \"other\"
share = 1.5
";

#[test]
fn all_that_is_wrong_with_a_scenario_is_told_at_once() {
    let memory = Memory::default().with("x.toml", GARBAGE);
    let problems = Scenario::load_from(&memory, Path::new("x.toml"), &four()).expect_err("garbage");
    let expected = "x.toml:1:18: config_version = 2
    must be 1; for example config_version = 1
x.toml:4:8: events[0].at_s = -1
    too small: 0 to 31536000 is allowed
x.toml:5:10: events[0].stream = \"s9\"
    is not a stream of test; its streams: s0, s1, s2, s3
x.toml:7:8: events[1].what = \"explode\"
    not known here; one of \"jitter\", \"drift\", \"silent\", \"late\", \"burst\", \"drop\", \"jump\", \"down\", \
    \"overload\", \"slow\", \"fail\", \"pressure\", \"hang\" is
x.toml:9:1: events[2].hang_ms
    missing. By how much
x.toml:15:9: events[3].for_s = 2
    shorter than its coming takes (see events[3].ramp_s at x.toml:16:10)
x.toml:17:10: events[3].factor = \"much\"
    a number is needed here, not a string
x.toml:18:1: events[3].speed
    unknown key; known here: at_s, factor, for_s, ramp_s, what
x.toml:22:10: events[4].stream = \"other\"
    is not a stream of test; its streams: s0, s1, s2, s3
x.toml:23:9: events[4].share = 1.5
    too large: 0 to 1 is allowed
10 problems in x.toml";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn a_scenario_is_read() {
    let text = "config_version = 1\n[[events]]\nwhat = \"late\"\nat_s = 1.5\nfor_s = 2\nstream = \"s3\"\nlate_ms = 7\n";
    let memory = Memory::default().with("some/late.toml", text);
    let read = Scenario::load_from(&memory, Path::new("some/late.toml"), &four()).expect("it is right");
    let late = What::Stream(StreamId(3), Disturbance::Late(ms(7)));
    assert_eq!((read.name.as_str(), read.events), ("late", vec![event(ms(1500), Some(ms(2000)), late)]));
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn ocelli(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    command.arg("sim").args(arguments).current_dir(repository("."));
    command.output().expect("it starts")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a summary")
}

#[test]
fn the_sample_scenario_fits_the_sample_board() {
    let arguments = [
        "boards/simulated.toml",
        "--scenario",
        "boards/scenarios/bad-day.toml",
        "--summary",
        "-",
        "--seed",
        "3",
    ];
    let output = ocelli(&arguments);
    let summary = json(&output);
    assert_eq!(summary["sim"]["scenario"], "bad-day");
    assert_eq!((&summary["sim"]["seed"], &summary["sim"]["virtual_s"]), (&3.into(), &60.0.into()));
    assert_eq!(summary["sim"]["digest"].as_str().map(str::len), Some(64));
    assert_eq!(summary["ended_wall_ns"], Value::Null);
    let dropped = summary["total"]["dropped"].as_object().expect("a table");
    for reason in ["driver_lost", "source_down", "superseded", "hopeless", "backend_failed"] {
        assert!(dropped.contains_key(reason), "{reason} did not happen: {dropped:?}");
    }
    assert_eq!(ocelli(&arguments).stdout, output.stdout, "equal seeds, equal summaries");
}

#[test]
fn the_summary_is_a_runs() {
    let board = Arc::new(four());
    let ran = simulate(&board, &[], 0, ms(1000));
    let host = Host::default();
    let mut summary = ran.simulation.to_json(&host);
    let of_run: Vec<String> = keys(&ran.simulation.finished.to_json(&host));
    summary.as_object_mut().expect("a table").remove("sim").expect("what was simulated");
    assert_eq!(keys(&summary), of_run);
    assert_eq!(summary["duration_us"], 1_000_000);
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().expect("a table").keys().cloned().collect()
}

#[test]
fn a_real_accelerators_times_must_be_said() {
    let refused = ocelli(&["boards/host.toml", "--for", "1"]);
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--service INTERCEPT_MS,SLOPE_MS"), "{said}");
    let summary =
        json(&ocelli(&["boards/host.toml", "--for", "1", "--service", "2.5,1.25", "--summary", "-"]));
    assert_eq!(
        (&summary["sim"]["intercept_us"], &summary["sim"]["slope_us"]),
        (&2500.0.into(), &1250.0.into())
    );
    assert_eq!(summary["total"]["captured"], 2 * 10 + 2 * 25);
    for wrong in ["5", "a,b", "-1,2", "0,0", "nan,1"] {
        let argument = format!("--service={wrong}");
        assert_eq!(ocelli(&["boards/host.toml", &argument]).status.code(), Some(64), "{wrong}");
    }
}

#[test]
fn results_are_those_of_a_run_on_the_virtual_clock() {
    let arguments = ["boards/simulated.toml", "--for", "0.5", "--results", "-"];
    let output = ocelli(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["type"], "header");
    let frames: Vec<&Value> = lines.iter().filter(|line| line["type"] == "frame").collect();
    assert_eq!(frames.len(), 16 * 15);
    assert!(frames.iter().all(|frame| frame["wall_ns"] == frame["finished_ns"] && frame["outcome"] == "met"));
    assert_eq!(ocelli(&arguments).stdout, output.stdout, "equal to the byte");
}

#[test]
fn outputs_that_can_not_be_written_are_refused() {
    let both = ocelli(&["boards/simulated.toml", "--results", "-", "--summary", "-"]);
    assert_eq!(both.status.code(), Some(64));
    let nowhere = ocelli(&["boards/simulated.toml", "--summary", "no/such/folder/s.json"]);
    assert_eq!(nowhere.status.code(), Some(73));
    let missing = ocelli(&["boards/simulated.toml", "--scenario", "no/such.toml"]);
    assert_eq!(missing.status.code(), Some(66));
}
