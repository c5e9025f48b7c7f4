//! Which frames stand in one set: against a brute-force reference on random stamps, and what happens when
//! cameras drift, miss, burst, jump or fail.

mod common;

use common::{board, ms, one_set, stream};
use ocelli::align::Aligner;
use ocelli::job::{DropReason, Outcome};
use ocelli::record::{Missing, SetRecord};
use ocelli::stream::{StreamId, StreamState};
use ocelli::time::Instant;
use proptest::prelude::*;
use std::collections::BTreeSet;

const START: u64 = 10_000_000_000;

/// Cameras of these periods in one set, all served, on a clock that is moved by hand.
struct Rig {
    aligner: Aligner,
    now: Instant,
    next: Vec<u64>,
    closed: Vec<SetRecord>,
}

impl Rig {
    fn new(periods: &[u64], deadline: u64) -> Self {
        let streams = periods.iter().enumerate();
        let streams = streams.map(|(index, &period)| stream(&format!("s{index}"), ms(period), ms(50)));
        let mut description = board(streams.collect(), ms(1), ms(1), 8);
        description.sets = vec![one_set(&description, ms(deadline))];
        let mut aligner = Aligner::new(&description);
        for index in 0..periods.len() {
            aligner.stream_changed(StreamId(index as u16), StreamState::Full);
        }
        Self { aligner, now: at(0), next: vec![0; periods.len()], closed: Vec::new() }
    }

    /// A frame captured `micros` after the start, known at once and not ended yet.
    fn capture(&mut self, stream: usize, micros: u64) -> u64 {
        let sequence = self.next[stream];
        self.next[stream] += 1;
        self.aligner.captured(StreamId(stream as u16), sequence, at(micros));
        sequence
    }

    fn end(&mut self, stream: usize, sequence: u64, outcome: Outcome) {
        self.aligner.settled(StreamId(stream as u16), sequence, outcome);
    }

    /// A frame that is captured and met.
    fn met(&mut self, stream: usize, micros: u64) {
        self.until(micros);
        let sequence = self.capture(stream, micros);
        self.end(stream, sequence, Outcome::Met);
        self.poll();
    }

    fn until(&mut self, micros: u64) {
        while let Some(due) = self.aligner.poll_at().filter(|&due| due <= at(micros)) {
            self.now = self.now.max(due);
            let before = self.closed.len();
            self.poll();
            assert!(self.closed.len() > before, "a deadline passed and nothing was closed");
        }
        self.now = self.now.max(at(micros));
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(set) = self.aligner.poll(self.now) {
            self.closed.push(set);
        }
    }

    /// Frames of each closed set, by sequence.
    fn table(&self) -> Vec<Vec<Option<u64>>> {
        let sequences = |set: &SetRecord| set.members.iter().map(|m| m.frame.map(|(s, _)| s)).collect();
        self.closed.iter().map(sequences).collect()
    }

    fn missing(&self, set: usize) -> Vec<Option<Missing>> {
        self.closed[set].members.iter().map(|member| member.missing).collect()
    }
}

fn at(micros: u64) -> Instant {
    Instant::from_nanos(START + micros * 1000)
}

/// Stamps (in microseconds) of one camera: period, phase, drift in parts per thousand, jitter, and which frames
/// are lost on the way to us.
fn camera(period: u64) -> impl Strategy<Value = Vec<u64>> {
    let frames = prop::collection::vec((0..period / 3, prop::bool::weighted(0.1)), 4..24);
    (0..2 * period, 0..20u64, frames).prop_map(move |(phase, drift, frames)| {
        let stamp = |(index, (jitter, lost)): (usize, (u64, bool))| {
            let index = index as u64;
            (!lost).then_some(50_000 + phase + index * (period + period * drift / 1000) + jitter)
        };
        frames.into_iter().enumerate().filter_map(stamp).collect()
    })
}

/// The rule of the module's text, from all stamps at once: instants are the first camera's captures at least
/// half a period apart; a frame goes to the nearest one (of equals the older) less than half a period away; an
/// instant takes the nearest of those (of equals the older).
fn reference(stamps: &[Vec<u64>], half: u64) -> Vec<Vec<Option<u64>>> {
    let mut instants: Vec<(u64, u64)> = Vec::new();
    for (sequence, &stamp) in stamps[0].iter().enumerate() {
        if instants.last().is_none_or(|&(last, _)| stamp - last >= half) {
            instants.push((stamp, sequence as u64));
        }
    }
    let mut sets: Vec<Vec<Option<u64>>> = Vec::new();
    for &(instant, sequence) in &instants {
        let mut set = vec![Some(sequence)];
        for camera in &stamps[1..] {
            let mine = camera.iter().enumerate().filter(|&(_, &stamp)| {
                let nearest = instants.iter().map(|&(other, _)| (stamp.abs_diff(other), other)).min();
                stamp.abs_diff(instant) < half && nearest.is_some_and(|(_, other)| other == instant)
            });
            let best = mine.min_by_key(|&(_, &stamp)| (stamp.abs_diff(instant), stamp));
            set.push(best.map(|(sequence, _)| sequence as u64));
        }
        sets.push(set);
    }
    sets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// With everything known before the first set is closed, sets are those of the reference; whatever else is
    /// closed was led by no frame of the first camera.
    #[test]
    fn frames_go_to_the_nearest_instant(
        lead in camera(40_000),
        others in prop::collection::vec(prop_oneof![camera(40_000), camera(60_000), camera(80_000)], 1..4),
    ) {
        let mut stamps = vec![lead];
        stamps.extend(others);
        // The first is the fastest, so it leads; the deadline is beyond all stamps.
        let mut periods = vec![40];
        periods.resize(stamps.len(), 60);
        let mut rig = Rig::new(&periods, 4000);
        let mut all: Vec<_> = stamps.iter().enumerate()
            .flat_map(|(camera, stamps)| stamps.iter().map(move |&stamp| (stamp, camera))).collect();
        all.sort_unstable();
        let sequences: Vec<_> = all.iter().map(|&(stamp, camera)| (camera, rig.capture(camera, stamp))).collect();
        rig.poll();
        prop_assert!(rig.closed.is_empty(), "no frame has ended");
        for (camera, sequence) in sequences {
            rig.end(camera, sequence, Outcome::Met);
        }
        rig.aligner.close();
        rig.poll();
        let led: Vec<_> = rig.table().into_iter().filter(|set| set[0].is_some()).collect();
        prop_assert_eq!(led, reference(&stamps, 20_000));
        once_each(&rig)?;
        for set in &rig.closed {
            prop_assert!(set.skew < ms(40));
        }
    }

    /// Live: frames end in any order and any time after capture, sets are closed by the deadline, in order,
    /// and no frame stands in two.
    #[test]
    fn live_sets_are_closed_in_time_and_hold_a_frame_once(
        cameras in prop::collection::vec(prop_oneof![camera(40_000), camera(80_000)], 1..5),
        delays in prop::collection::vec(0..200_000u64, 8),
        down in prop::option::of((0..5usize, 0..800_000u64)),
    ) {
        let periods = vec![40; cameras.len()];
        let mut rig = Rig::new(&periods, 100);
        let mut steps = Vec::new();
        for (camera, stamps) in cameras.iter().enumerate() {
            for (sequence, &stamp) in stamps.iter().enumerate() {
                let delay = delays[(camera * 5 + sequence * 3) % delays.len()];
                let arrival = stamp + delay / 8;
                steps.push((arrival, 0, camera, sequence as u64, stamp));
                steps.push((arrival + delay, 1, camera, sequence as u64, stamp));
            }
        }
        if let Some((camera, when)) = down.filter(|&(camera, _)| camera < cameras.len()) {
            steps.push((when, 2, camera, 0, 0));
        }
        steps.sort_unstable();
        for (when, what, camera, sequence, stamp) in steps {
            rig.until(when);
            match what {
                0 => rig.aligner.captured(StreamId(camera as u16), sequence, at(stamp)),
                1 => rig.end(camera, sequence, Outcome::Met),
                _ => rig.aligner.stream_changed(StreamId(camera as u16), StreamState::Down),
            }
            rig.poll();
        }
        rig.until(10_000_000);
        once_each(&rig)?;
        for set in &rig.closed {
            let first = set.members.iter().filter_map(|member| member.captured).min();
            // A frame that arrives after its deadline (25 ms at most after capture here) closes at once.
            prop_assert!(set.finished <= first.expect("no set is empty") + ms(100));
            for member in &set.members {
                let result = matches!(member.frame, Some((_, Outcome::Met)));
                prop_assert_eq!(result, member.missing.is_none());
            }
        }
    }
}

fn once_each(rig: &Rig) -> Result<(), TestCaseError> {
    for camera in 0..rig.next.len() {
        let sequences = || rig.closed.iter().filter_map(|set| set.members[camera].frame).map(|(s, _)| s);
        prop_assert_eq!(sequences().collect::<BTreeSet<_>>().len(), sequences().count(), "in two sets");
        prop_assert!(sequences().is_sorted(), "out of order");
    }
    Ok(())
}

#[test]
fn free_running_cameras_stay_paired_with_the_nearest() {
    // Phases of 0, 0.3 and 0.7 periods: the third belongs to the instant after it.
    let mut rig = Rig::new(&[100, 100, 100], 300);
    for index in 0..10 {
        rig.met(0, index * 100_000);
        rig.met(1, index * 100_000 + 30_000);
        rig.met(2, index * 100_000 + 70_000);
    }
    let table = rig.table();
    assert!(table.len() >= 8, "{table:?}");
    assert_eq!(table[0], [Some(0), Some(0), None], "nothing of the third is near the first instant");
    for (index, set) in (1u64..).zip(&table[1..]) {
        assert_eq!(set, &[Some(index), Some(index), Some(index - 1)]);
        assert_eq!(rig.closed[index as usize].skew, ms(60));
    }
}

#[test]
fn drift_slips_one_frame_and_pairs_again() {
    let mut rig = Rig::new(&[100, 100], 300);
    for index in 0..60 {
        rig.met(0, index * 100_000);
        rig.met(1, index * 102_000 + 1);
    }
    let (whole, alone): (Vec<_>, Vec<_>) = rig.table().into_iter().partition(|set| !set.contains(&None));
    assert!(whole.iter().all(|set| set[0] >= set[1]), "the second falls behind");
    assert!(whole.iter().any(|set| set[0] == set[1].map(|index| index + 1)), "it slipped by one");
    assert!(whole.len() >= 56 && alone.len() <= 4, "{} and {alone:?}", whole.len());
    assert!(rig.closed.iter().all(|set| set.skew <= ms(50)));
}

#[test]
fn a_slower_camera_is_not_waited_for_when_it_is_not_due() {
    let mut rig = Rig::new(&[33, 66], 500);
    for index in 0..10 {
        rig.met(0, index * 33_000);
        if index % 2 == 0 {
            rig.met(1, index * 33_000);
        }
    }
    assert_eq!(rig.closed.len(), 10, "none waits for its deadline: {:?}", rig.table());
    for (index, _) in rig.closed.iter().enumerate() {
        let expected = if index % 2 == 0 { None } else { Some(Missing::NotDue) };
        assert_eq!(rig.missing(index), [None, expected]);
    }
}

#[test]
fn every_missing_member_is_named_with_why() {
    let mut rig = Rig::new(&[100; 6], 80);
    let states = [(1, StreamState::Down), (2, StreamState::Ended), (3, StreamState::Shed)];
    for (stream, state) in states {
        rig.aligner.stream_changed(StreamId(stream), state);
    }
    rig.met(0, 0);
    let lost = rig.capture(4, 1000);
    rig.end(4, lost, Outcome::Dropped(DropReason::Hopeless));
    let pending = rig.capture(5, 2000);
    rig.until(79_999);
    assert!(rig.closed.is_empty());
    rig.until(80_000);
    let expected = [
        None,
        Some(Missing::Down),
        Some(Missing::Ended),
        Some(Missing::Shed),
        Some(Missing::Lost(DropReason::Hopeless)),
        Some(Missing::Late),
    ];
    assert_eq!(rig.missing(0), expected);
    assert_eq!(rig.closed[0].members[5].captured, Some(at(2000)));
    // What ends after the deadline changes nothing.
    rig.end(5, pending, Outcome::Met);
    rig.until(90_000);
    assert_eq!(rig.closed.len(), 1);
}

#[test]
fn a_camera_that_never_came_up_costs_the_deadline_and_no_more() {
    let mut rig = Rig::new(&[100, 100], 80);
    rig.aligner.stream_changed(StreamId(1), StreamState::Starting);
    for index in 0..5 {
        rig.met(0, index * 100_000);
        assert_eq!(rig.closed.len(), index as usize);
        rig.until(index * 100_000 + 80_000);
        assert_eq!(rig.missing(index as usize), [None, Some(Missing::Late)]);
    }
}

#[test]
fn when_the_leader_fails_the_others_still_meet() {
    let mut rig = Rig::new(&[50, 100, 100], 80);
    rig.aligner.stream_changed(StreamId(0), StreamState::Down);
    for index in 0..5 {
        rig.met(1, index * 100_000);
        rig.met(2, index * 100_000 + 10_000);
    }
    for (index, set) in rig.table().into_iter().enumerate() {
        assert_eq!(set, [None, Some(index as u64), Some(index as u64)]);
        assert_eq!(rig.closed[index].finished, at(index as u64 * 100_000 + 10_000), "at completion");
    }
    assert_eq!(rig.closed.len(), 5);
}

#[test]
fn a_silent_leader_costs_the_deadline_and_no_more() {
    let mut rig = Rig::new(&[100, 100, 100], 80);
    for index in 0..3 {
        rig.met(1, index * 100_000);
        rig.met(2, index * 100_000 + 10_000);
        rig.until(index * 100_000 + 80_000);
        assert_eq!(rig.table()[index as usize], [None, Some(index), Some(index)]);
    }
}

#[test]
fn a_burst_and_a_jump_of_one_camera_leave_the_others_sets_whole() {
    let mut rig = Rig::new(&[100, 100, 100], 300);
    for index in 0..20 {
        let now = index * 100_000;
        rig.met(0, now);
        if (5..10).contains(&index) {
            (0..10).for_each(|burst| rig.met(2, now + burst * 1000));
        } else if (10..15).contains(&index) {
            // An hour back would be before the start: a second is as good.
            let sequence = rig.capture(2, now.saturating_sub(1_000_000));
            rig.end(2, sequence, Outcome::Dropped(DropReason::Hopeless));
        } else {
            rig.met(2, now + 1000);
        }
        rig.met(1, now + 12_000);
    }
    rig.until(4_000_000);
    let table = rig.table();
    assert_eq!(table.len(), 20, "{table:?}");
    for (index, set) in (0u64..).zip(&table) {
        assert_eq!(&set[..2], [Some(index), Some(index)]);
        assert_eq!(set[2].is_some(), !(10..15).contains(&index), "{index}: {set:?}");
    }
}
