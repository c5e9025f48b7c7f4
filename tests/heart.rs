//! The heart alone, driven by random events on a virtual clock: nothing is lost, nothing counted twice,
//! records leave in order.

mod common;

use common::{board, ms, one_set, profile, stream};
use ocelli::board::Board;
use ocelli::cause::Way;
use ocelli::job::{Batch, BatchFault, DropReason, Job, Lost, Outcome};
use ocelli::pipeline::{Effect, Pipeline};
use ocelli::record::SetRecord;
use ocelli::sched::{Schedule, Scheduler};
use ocelli::stats::Ledger;
use ocelli::stream::{Criticality, ModelId, StreamId, StreamState};
use ocelli::time::Instant;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::time::Duration;

/// A heart with everything around it that a driver has, and a book of what it said.
struct Rig {
    heart: Pipeline<()>,
    now: Instant,
    at_accelerator: VecDeque<Box<Batch<()>>>,
    at_publisher: VecDeque<Box<Batch<()>>>,
    next: Vec<u64>,
    /// Per stream: when its newest frame came.
    heard: Vec<Instant>,
    /// Per stream: every record, in the order in which it left.
    records: Vec<Vec<(u64, Outcome)>>,
    sets: Vec<SetRecord>,
    /// What streams changed for, where that was told.
    causes: Vec<String>,
    batches: Vec<(ModelId, Vec<Job>)>,
}

impl Rig {
    fn new(board: &Board, in_flight: usize) -> Self {
        let schedule = Schedule::admit(board, profile(board).with_places(in_flight)).expect("admitted");
        Self::with(board, schedule, in_flight)
    }

    fn with(board: &Board, schedule: Schedule, in_flight: usize) -> Self {
        let batches = (0..in_flight + 2).map(|_| Box::new(Batch::with_capacity(64))).collect();
        let now = Instant::from_nanos(1_000_000_000);
        let mut rig = Self {
            heart: Pipeline::new(now, board, schedule, batches, in_flight),
            now,
            at_accelerator: VecDeque::new(),
            at_publisher: VecDeque::new(),
            next: vec![0; board.streams.len()],
            heard: vec![now; board.streams.len()],
            records: vec![Vec::new(); board.streams.len()],
            sets: Vec::new(),
            causes: Vec::new(),
            batches: Vec::new(),
        };
        rig.act();
        rig
    }

    fn arrive(&mut self, stream: usize) {
        let captured = self.now;
        self.arrive_captured(stream, captured);
    }

    /// The first frames of so many streams come before anything is done; the streams of each batch that has started.
    fn start_together(&mut self, streams: u16) -> Vec<Vec<u16>> {
        for index in 0..streams {
            self.next[usize::from(index)] = 1;
            self.heart.frame_arrived(self.now, StreamId(index), 0, self.now, ());
        }
        self.act();
        let started = |(_, jobs): &(ModelId, Vec<Job>)| jobs.iter().map(|job| job.stream.0).collect();
        self.batches.iter().map(started).collect()
    }

    fn arrive_captured(&mut self, stream: usize, captured: Instant) {
        let sequence = self.next[stream];
        self.next[stream] += 1;
        self.heard[stream] = self.now;
        self.heart.frame_arrived(self.now, StreamId(stream as u16), sequence, captured, ());
        self.act();
    }

    /// One that came a while ago, while others were heard already.
    fn hear_late(&mut self, stream: usize, ago: Duration) {
        let sequence = self.next[stream];
        self.next[stream] += 1;
        let came = self.now.saturating_sub(ago).max(self.heard[stream]);
        self.heard[stream] = came;
        self.heart.frame_arrived(came, StreamId(stream as u16), sequence, came, ());
        self.act();
    }

    fn lose(&mut self, stream: usize, count: u64, reason: DropReason) {
        let sequence = self.next[stream];
        self.next[stream] += count;
        self.heart.frames_lost(StreamId(stream as u16), Lost { sequence, count, captured: self.now, reason });
        self.act();
    }

    fn complete(&mut self, fault: bool) {
        if let Some(mut batch) = self.at_accelerator.pop_front() {
            batch.completed = self.now;
            batch.fault = fault.then(|| BatchFault::new("injected"));
            self.heart.batch_done(batch);
            self.act();
        }
    }

    /// The accelerator is given up, with all that it has.
    fn lose_accelerator(&mut self) {
        let lost = self.at_accelerator.len();
        self.at_accelerator.clear();
        let mut boxes = (0..8).map(|_| Box::new(Batch::with_capacity(64))).collect::<Vec<_>>();
        self.heart.accelerator_lost(self.now, BatchFault::new("given up"), &mut boxes);
        assert_eq!(boxes.len(), 8 - lost, "one for each that is lost");
        self.act();
    }

    fn publish(&mut self, decoded: bool) {
        self.publish_without_acting(decoded);
        self.act();
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.act();
    }

    /// The publisher takes orders one after the other, so a record that leaves the heart while concluded
    /// batches wait comes after theirs.
    fn act(&mut self) {
        while let Some(effect) = self.heart.poll(self.now) {
            match effect {
                Effect::Submit(batch) => {
                    self.batches.push((batch.model, batch.jobs.iter().map(|member| member.job).collect()));
                    self.at_accelerator.push_back(batch);
                }
                Effect::Conclude(batch) => self.at_publisher.push_back(batch),
                Effect::Dropped(stream, lost) => {
                    while !self.at_publisher.is_empty() {
                        self.publish_without_acting(true);
                    }
                    self.note_dropped(stream, lost);
                }
                Effect::Changed(event) if !event.cause.is_empty() => {
                    self.causes.push(event.cause.as_str().to_owned());
                }
                Effect::Changed(_) | Effect::Certified(_) => {}
                Effect::Set(set) => self.sets.push(set),
            }
            self.check();
        }
        self.check();
    }

    fn publish_without_acting(&mut self, decoded: bool) {
        let Some(mut batch) = self.at_publisher.pop_front() else { return };
        let mut between = std::mem::take(&mut batch.between);
        for member in &batch.jobs {
            let job = &member.job;
            between.retain(|&(stream, lost)| {
                let earlier = stream == job.stream && lost.sequence < job.sequence;
                if earlier {
                    self.note_dropped(stream, lost);
                }
                !earlier
            });
            let outcome =
                if decoded { job.outcome_at(self.now) } else { Outcome::Dropped(DropReason::DecodeFailed) };
            self.records[job.stream.index()].push((job.sequence, outcome));
            let cause = (outcome == Outcome::Late)
                .then(|| Way::of(&batch, self.now).cause(job, Duration::ZERO, self.now));
            self.heart.settled(job, self.now, decoded, cause);
        }
        assert!(between.is_empty(), "a record between jobs that are not there");
        batch.between = between;
        self.heart.batch_returned(batch);
    }

    fn note_dropped(&mut self, stream: StreamId, lost: Lost) {
        for index in 0..lost.count {
            self.records[stream.index()].push((lost.sequence + index, Outcome::Dropped(lost.reason)));
        }
    }

    /// The law of the ledger, at every step.
    fn check(&self) {
        for (totals, captured) in self.heart.totals().zip(&self.next) {
            assert!(totals.ledger.balances(), "{:?}", totals.ledger);
            assert!(totals.ledger.captured <= *captured);
            assert_eq!(totals.causes.iter().sum::<u64>(), totals.ledger.late);
        }
    }

    fn finish(mut self) -> (Vec<Ledger>, Self) {
        self.heart.shutdown();
        self.act();
        while !self.at_accelerator.is_empty() || !self.at_publisher.is_empty() {
            self.complete(false);
            self.publish(true);
        }
        self.act();
        let ledgers = self.heart.totals().map(|totals| totals.ledger).collect();
        (ledgers, self)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Early(usize, u64),
    Old(usize, u64),
    HearLate(usize, u64),
    Lose(usize, u64, usize),
    Complete(bool),
    Publish(bool),
    LoseAccelerator,
    Wait(u64),
    Down(usize),
}

const STREAMS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..STREAMS).prop_map(Step::Arrive),
        1 => (0..STREAMS, 0..50_000_000u64).prop_map(|(s, ns)| Step::Early(s, ns)),
        1 => (0..STREAMS, 0..200_000_000u64).prop_map(|(s, ns)| Step::Old(s, ns)),
        2 => (0..STREAMS, 0..40_000_000u64).prop_map(|(s, ns)| Step::HearLate(s, ns)),
        1 => (0..STREAMS, 1..5u64, 0..4usize).prop_map(|(s, n, r)| Step::Lose(s, n, r)),
        4 => prop::bool::weighted(0.1).prop_map(Step::Complete),
        4 => prop::bool::weighted(0.9).prop_map(Step::Publish),
        1 => Just(Step::LoseAccelerator),
        6 => (0..40_000_000u64).prop_map(Step::Wait),
        1 => (0..STREAMS).prop_map(Step::Down),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// `captured == met + late + dropped + in flight` at every step; in the end nothing is in flight, every
    /// captured frame has left exactly one record, in sequence order, and records and ledger agree.
    #[test]
    fn every_captured_frame_ends_once_and_in_order(
        steps in prop::collection::vec(step(), 1..300),
        in_flight in 1usize..3,
        bound in 20u64..150,
    ) {
        let mut streams: Vec<_> =
            (0..STREAMS).map(|index| stream(&format!("s{index}"), ms(33), ms(bound))).collect();
        streams[1].stale_results = true;
        streams[2].model = ModelId(1);
        streams[3].latency_bound = ms(10);
        let mut description = board(streams, ms(2), ms(1), 8);
        description.sets = vec![one_set(&description, ms(200))];
        let mut rig = Rig::new(&description, in_flight);
        let reasons =
            [DropReason::SourceLate, DropReason::NoSlot, DropReason::DriverLost, DropReason::Injected];
        for step in steps {
            match step {
                Step::Arrive(stream) => rig.arrive(stream),
                Step::Early(stream, ahead) => {
                    let captured = rig.now + Duration::from_nanos(ahead);
                    rig.arrive_captured(stream, captured);
                }
                Step::Old(stream, ago) => {
                    let captured = rig.now.saturating_sub(Duration::from_nanos(ago));
                    rig.arrive_captured(stream, captured);
                }
                Step::HearLate(stream, ago) => rig.hear_late(stream, Duration::from_nanos(ago)),
                Step::Lose(stream, count, reason) => rig.lose(stream, count, reasons[reason]),
                Step::Complete(fault) => rig.complete(fault),
                Step::Publish(decoded) => rig.publish(decoded),
                Step::LoseAccelerator => rig.lose_accelerator(),
                Step::Wait(nanos) => rig.advance(Duration::from_nanos(nanos)),
                Step::Down(stream) => {
                    let stream = StreamId(stream as u16);
                    rig.heart.stream_changed(rig.now, stream, StreamState::Down, "unplugged");
                    rig.act();
                }
            }
        }
        let (ledgers, rig) = rig.finish();
        for (stream, ledger) in ledgers.iter().enumerate() {
            prop_assert_eq!(ledger.in_flight, 0);
            prop_assert_eq!(ledger.captured, rig.next[stream]);
            let left: Vec<u64> = rig.records[stream].iter().map(|&(sequence, _)| sequence).collect();
            let captured: Vec<u64> = (0..rig.next[stream]).collect();
            prop_assert_eq!(left, captured);
            let count = |wanted| rig.records[stream].iter().filter(|&&(_, o)| o == wanted).count() as u64;
            prop_assert_eq!(count(Outcome::Met), ledger.met);
            prop_assert_eq!(count(Outcome::Late), ledger.late);
            for reason in DropReason::ALL {
                prop_assert_eq!(count(Outcome::Dropped(reason)), ledger.dropped[reason.index()]);
            }
        }
        // A frame stands in one set only.
        for stream in 0..STREAMS {
            let mut members: Vec<u64> = rig.sets.iter()
                .filter_map(|set| set.members[stream].frame.map(|(sequence, _)| sequence))
                .collect();
            let all = members.len();
            members.sort_unstable();
            members.dedup();
            prop_assert_eq!(members.len(), all);
        }
    }
}

fn two_streams(bound: u64) -> Board {
    board(vec![stream("a", ms(100), ms(bound)), stream("b", ms(100), ms(bound))], ms(2), ms(1), 8)
}

#[test]
fn the_earliest_deadline_goes_first_and_brings_company() {
    let mut description = two_streams(100);
    description.streams[1].latency_bound = ms(50);
    let mut rig = Rig::new(&description, 1);
    rig.arrive(0);
    rig.advance(ms(99));
    rig.arrive(0);
    rig.arrive(1);
    rig.complete(false);
    assert_eq!(rig.batches.len(), 2, "the first frame at once, the others when the accelerator is free");
    let streams: Vec<u16> = rig.batches[1].1.iter().map(|job| job.stream.0).collect();
    assert_eq!(streams, [1, 0], "earliest deadline first");
}

#[test]
fn a_batch_is_no_larger_than_its_first_deadline_allows() {
    // 8 ms are left: l(5) = 7 ms and the reserve fit, l(6) = 8 ms does not.
    let streams = (0..9).map(|index| stream(&format!("s{index}"), ms(100), ms(11))).collect();
    let mut rig = Rig::new(&board(streams, ms(2), ms(1), 8), 1);
    (0..9).for_each(|index| rig.arrive(index));
    rig.advance(ms(3));
    rig.complete(false);
    assert_eq!(rig.batches[1].1.len(), 5);
}

#[test]
fn hopeless_jobs_cost_the_accelerator_nothing() {
    let mut rig = Rig::new(&two_streams(20), 1);
    rig.arrive(0);
    rig.arrive(1);
    rig.advance(ms(18));
    rig.complete(false);
    assert_eq!(rig.batches.len(), 1, "2 ms are less than l(1) = 3 ms");
    assert_eq!(rig.records[1], [(0, Outcome::Dropped(DropReason::Hopeless))]);
}

#[test]
fn stale_results_are_delivered_late_where_the_board_wants_them() {
    let mut description = two_streams(20);
    description.streams[1].stale_results = true;
    let mut rig = Rig::new(&description, 1);
    rig.arrive(0);
    rig.arrive(1);
    rig.advance(ms(30));
    rig.complete(false);
    rig.publish(true);
    rig.complete(false);
    rig.publish(true);
    assert_eq!(rig.records[1], [(0, Outcome::Late)]);
}

#[test]
fn results_that_are_wanted_late_take_no_critical_frames_place() {
    // l(4) = 6 ms and 0.5 are too long for the third camera, which is given up for two more; its result is wanted late.
    let bounds = [8, 8, 3, 7, 7, 7];
    let cameras = bounds.iter().enumerate().map(|(index, &bound)| {
        let mut camera = stream(&format!("s{index}"), ms(100), ms(bound));
        camera.criticality = if index < 2 { Criticality::Critical } else { Criticality::Normal };
        camera.stale_results = index == 2;
        camera
    });
    let board = board(cameras.collect(), ms(2), ms(1), 4);
    let mut scheduler = Scheduler::new(Schedule::overcommitted_for_measuring(&board, profile(&board)));
    scheduler.set_guard(true);
    let now = Instant::from_nanos(1_000_000_000);
    for (index, bound) in bounds.into_iter().enumerate() {
        let (stream, deadline) = (StreamId(index as u16), now + ms(bound));
        let job = Job { stream, sequence: 0, model: ModelId(0), captured: now, arrived: now, deadline };
        scheduler.push(now, job, ());
    }
    let mut batch = Batch::with_capacity(4);
    scheduler.advance(now);
    assert!(scheduler.fill(now, 1, &mut batch));
    let started: Vec<u16> = batch.jobs.iter().map(|member| member.job.stream.0).collect();
    assert_eq!(started, [2, 3, 0, 1]);
}

#[test]
fn the_newest_frame_wins() {
    let mut rig = Rig::new(&two_streams(100), 1);
    rig.arrive(0);
    rig.arrive(1);
    rig.advance(ms(99));
    rig.arrive(1);
    assert_eq!(rig.records[1], [(0, Outcome::Dropped(DropReason::Superseded))]);
}

#[test]
fn an_early_frame_is_held_back_until_it_is_due_and_a_newer_one_takes_its_place() {
    let mut rig = Rig::new(&two_streams(100), 2);
    for _ in 0..3 {
        rig.arrive(0);
        rig.advance(ms(10));
    }
    assert_eq!(rig.batches.len(), 1, "a place is free, and yet");
    // A period of 100 ms, less a thousandth for the clock and a hundredth of tolerance.
    let due = rig.now + Duration::from_micros(68_900);
    assert_eq!(rig.heart.poll_at(), Some(due));
    rig.advance(ms(68));
    assert_eq!(rig.batches.len(), 1);
    rig.advance(due.since(rig.now));
    let started: Vec<u64> = rig.batches.iter().map(|(_, jobs)| jobs[0].sequence).collect();
    assert_eq!(started, [0, 2]);
    assert!(rig.heart.scheduler().is_guarded(rig.now));
    rig.complete(false);
    rig.publish(true);
    assert_eq!(rig.records[0][1], (1, Outcome::Dropped(DropReason::Early)));
}

#[test]
fn a_camera_that_is_persistently_too_fast_is_told_of_once_and_once_when_it_is_not() {
    let mut rig = Rig::new(&two_streams(100), 2);
    let mut deliver = |frames: usize, gap: Duration| {
        for _ in 0..frames {
            rig.arrive(0);
            rig.complete(false);
            rig.publish(true);
            rig.advance(gap);
            // The one that was held back.
            rig.complete(false);
            rig.publish(true);
        }
        std::mem::take(&mut rig.causes)
    };
    assert!(deliver(300, ms(100)).is_empty());
    assert!(deliver(8, ms(10)).is_empty(), "a burst");
    assert!(deliver(192, ms(100)).is_empty());
    let told = deliver(1000, ms(50));
    assert_eq!(told.len(), 1, "{told:?}");
    let begins = "camera early: delivers 2.0 times the frames that its period on the board allows; ";
    assert!(
        told[0].starts_with(begins) && told[0].ends_with(" of the last 100 were dropped as early"),
        "{told:?}"
    );
    let told = deliver(1000, ms(100));
    assert_eq!(told, ["the camera keeps to its period on the board again"]);
}

#[test]
fn a_frame_that_was_late_does_not_make_the_next_one_early() {
    let mut rig = Rig::new(&two_streams(100), 2);
    let captured = rig.now;
    rig.advance(ms(20));
    rig.arrive_captured(0, captured);
    rig.advance(ms(80));
    rig.arrive(0);
    assert_eq!(rig.batches.len(), 2);
}

#[test]
fn a_dropped_frames_record_waits_for_older_frames() {
    let mut rig = Rig::new(&two_streams(100), 1);
    rig.arrive(0);
    rig.lose(0, 3, DropReason::DriverLost);
    assert!(rig.records[0].is_empty(), "frame 0 is at the accelerator");
    rig.complete(false);
    rig.publish(true);
    let sequences: Vec<u64> = rig.records[0].iter().map(|&(sequence, _)| sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3]);
}

#[test]
fn no_record_is_lost_however_long_a_batch_stays_away() {
    let mut rig = Rig::new(&two_streams(100), 1);
    rig.arrive(0);
    for _ in 0..300 {
        rig.advance(ms(100));
        rig.arrive(0);
    }
    assert!(rig.records[0].is_empty(), "frame 0 is at the accelerator");
    let (ledgers, rig) = rig.finish();
    assert_eq!(ledgers[0].captured, 301);
    assert!(rig.records[0].iter().map(|&(sequence, _)| sequence).eq(0..301));
    assert_eq!(rig.heart.totals().map(|totals| totals.records_lost).sum::<u64>(), 0);
}

#[test]
fn records_stay_in_order_when_stamps_jump_back() {
    let mut rig = Rig::new(&board(vec![stream("a", ms(33), ms(100))], ms(2), ms(1), 8), 1);
    rig.arrive(0);
    rig.advance(ms(33));
    rig.arrive(0);
    for ago in [50, 60] {
        rig.advance(ms(33));
        let captured = rig.now.saturating_sub(ms(ago));
        rig.arrive_captured(0, captured);
    }
    (0..2).for_each(|_| {
        rig.complete(false);
        rig.publish(true);
    });
    assert!(rig.records[0].iter().map(|&(sequence, _)| sequence).eq(0..4), "{:?}", rig.records[0]);
}

#[test]
fn a_stamp_in_the_future_buys_no_time() {
    let mut rig = Rig::new(&two_streams(50), 1);
    let future = rig.now + ms(500);
    rig.arrive_captured(0, future);
    assert_eq!(rig.batches[0].1[0].deadline, rig.now + ms(50));
}

#[test]
fn a_set_is_closed_when_complete_and_names_who_is_down() {
    let mut description = two_streams(100);
    description.sets = vec![one_set(&description, ms(80))];
    let mut rig = Rig::new(&description, 2);
    rig.arrive(0);
    rig.advance(ms(7));
    rig.arrive(1);
    rig.complete(false);
    rig.complete(false);
    rig.publish(true);
    assert!(rig.sets.is_empty());
    rig.publish(true);
    rig.act();
    assert_eq!(rig.sets.len(), 1);
    assert_eq!(rig.sets[0].skew, ms(7));
    rig.heart.stream_changed(rig.now, StreamId(1), StreamState::Down, "gone");
    rig.advance(ms(93));
    rig.arrive(0);
    rig.complete(false);
    rig.publish(true);
    rig.act();
    assert_eq!(rig.sets.len(), 2, "nobody waits for a camera that is down");
    assert_eq!(rig.sets[1].members[1].frame, None);
    assert_eq!(rig.sets[1].members[1].state, StreamState::Down);
}

#[test]
fn a_set_is_closed_at_its_deadline_without_a_silent_member() {
    let mut description = two_streams(100);
    description.sets = vec![one_set(&description, ms(80))];
    let mut rig = Rig::new(&description, 1);
    rig.arrive(0);
    rig.complete(false);
    rig.publish(true);
    assert_eq!(rig.heart.poll_at(), Some(rig.now + ms(80)));
    rig.advance(ms(79));
    assert!(rig.sets.is_empty());
    rig.advance(ms(1));
    assert_eq!(rig.sets[0].members[1].frame, None);
}

#[test]
fn what_never_comes_back_is_settled_when_it_is_given_up() {
    let mut rig = Rig::new(&two_streams(100), 1);
    rig.arrive(0);
    rig.arrive(1);
    rig.heart.abandon();
    let ledgers: Vec<Ledger> = rig.heart.totals().map(|totals| totals.ledger).collect();
    for ledger in ledgers {
        assert_eq!(ledger.dropped[DropReason::Shutdown.index()], 1);
        assert_eq!(ledger.in_flight, 0);
    }
}

#[test]
fn an_accelerator_that_is_lost_takes_its_frames_along_and_no_others() {
    let mut rig = Rig::new(&two_streams(100), 1);
    rig.arrive(0);
    rig.complete(false);
    rig.arrive(1);
    rig.advance(ms(10));
    rig.arrive_captured(0, rig.now);
    assert_eq!((rig.at_publisher.len(), rig.at_accelerator.len()), (1, 1), "one is back, one is there");
    rig.lose_accelerator();
    assert_eq!(rig.records[1], [(0, Outcome::Dropped(DropReason::BackendFailed))]);
    assert_eq!(rig.heart.last_fault().expect("a fault").as_str(), "given up");
    assert_eq!(rig.heart.batches().faults, 1);
    rig.publish(true);
    assert_eq!(rig.records[0], [(0, Outcome::Met)], "it had come back before");
    // What waited goes to the next accelerator.
    rig.advance(ms(90));
    rig.complete(false);
    rig.publish(true);
    assert_eq!(rig.records[0].len(), 2);
}

#[test]
fn admission_refuses_critical_streams_that_do_not_fit_and_sheds_others() {
    // At best (2 + 8) / 8 = 1.25 ms a frame: eight streams of 10 ms fill the accelerator.
    let mut streams: Vec<_> = (0..10).map(|index| stream(&format!("s{index}"), ms(10), ms(20))).collect();
    let description = board(streams.clone(), ms(2), ms(1), 8);
    let schedule = Schedule::admit(&description, profile(&description)).expect("normal streams are shed");
    assert_eq!(schedule.streams().iter().filter(|s| s.served).count(), 8);
    assert!(!schedule.streams()[9].served);

    streams.iter_mut().for_each(|s| s.criticality = Criticality::Critical);
    let description = board(streams, ms(2), ms(1), 8);
    let refusal = Schedule::admit(&description, profile(&description)).expect_err("ten do not fit");
    assert_eq!((refusal.fits, refusal.critical), (8, 10));
    assert!(refusal.to_string().starts_with("8 of 10 critical streams fit"), "{refusal}");
}

#[test]
fn a_critical_stream_is_admitted_before_others() {
    let mut streams: Vec<_> = (0..9).map(|index| stream(&format!("s{index}"), ms(10), ms(20))).collect();
    streams[8].criticality = Criticality::Critical;
    let description = board(streams, ms(2), ms(1), 8);
    let schedule = Schedule::admit(&description, profile(&description)).expect("one critical stream fits");
    let served: Vec<bool> = schedule.streams().iter().map(|s| s.served).collect();
    assert_eq!(served, [true, true, true, true, true, true, true, false, true]);
}

#[test]
fn frames_of_a_shed_stream_are_counted() {
    let streams = (0..9).map(|index| stream(&format!("s{index}"), ms(10), ms(20))).collect();
    let mut rig = Rig::new(&board(streams, ms(2), ms(1), 8), 1);
    rig.arrive(8);
    assert_eq!(rig.records[8], [(0, Outcome::Dropped(DropReason::Shed))]);
    assert!(rig.batches.is_empty());
}

/// Four jobs and two free places: two batches of two end sooner than one of four, unless each batch costs much.
#[test]
fn free_places_share_what_waits_where_small_batches_cost_little() {
    for (intercept, slope, expected) in [(ms(1), ms(5), vec![2, 2]), (ms(10), ms(1), vec![4])] {
        let streams = (0..4).map(|index| stream(&index.to_string(), ms(100), ms(100))).collect();
        let mut rig = Rig::new(&board(streams, intercept, slope, 8), 2);
        let sizes: Vec<usize> = rig.start_together(4).iter().map(Vec::len).collect();
        assert_eq!(sizes, expected);
    }
}

/// A job that is due so soon that its batch can hold no other is given up where the others would be late behind it, and
/// not where another place is free for them, or will be soon enough.
#[test]
fn jobs_that_another_place_has_time_for_cost_nobody_a_result() {
    let started = |places: usize, running: bool| {
        // l(b) = 10 ms + b * 1 ms.
        let mut streams: Vec<_> = (0..5).map(|index| stream(&index.to_string(), ms(100), ms(23))).collect();
        streams[0].latency_bound = ms(12);
        let board = board(streams, ms(10), ms(1), 8);
        let schedule = Schedule::overcommitted_for_measuring(&board, profile(&board).with_places(places));
        let mut rig = Rig::with(&board, schedule, places);
        if running {
            rig.arrive(4);
        }
        rig.start_together(4)
    };
    assert_eq!(started(1, false), [[1, 2, 3]]);
    assert_eq!(started(2, false), [vec![0], vec![1, 2, 3]]);
    // From 11 ms on, and l(3) is 13 ms: not soon enough.
    assert_eq!(started(2, true), [vec![4], vec![1, 2, 3]]);
    // But one of three is free at once.
    assert_eq!(started(3, true), [vec![4], vec![0], vec![1, 2, 3]]);
}

/// The same while critical streams come first: who is due too soon to be in a batch with all that is critical is given up
/// where there is one place, and has the other one where there are two.
#[test]
fn another_place_is_for_those_that_cannot_wait_for_critical_ones() {
    let started = |places: usize| {
        // l(b) = 10 ms + b * 1 ms.
        let mut streams: Vec<_> = (0..5).map(|index| stream(&index.to_string(), ms(200), ms(100))).collect();
        streams[..3].iter_mut().for_each(|stream| stream.criticality = Criticality::Critical);
        streams[3].latency_bound = ms(12);
        let board = board(streams, ms(10), ms(1), 8);
        let mut profile = profile(&board).with_places(places);
        profile.provisional = true;
        let schedule = Schedule::admit(&board, profile).expect("the critical ones fit");
        let mut rig = Rig::with(&board, schedule, places);
        rig.start_together(5)
    };
    assert_eq!(started(1), [[0, 1, 2, 4]]);
    assert_eq!(started(2), [vec![0, 1, 2], vec![3]]);
}
