//! What the ladder leaves out: kept for a moment in which the accelerator would be idle, and at nobody's cost.

mod common;

use common::{board, ms, profile, stream};
use ocelli::board::{Board, Trigger};
use ocelli::job::{Batch, DropReason, Job};
use ocelli::sched::{Schedule, Scheduler};
use ocelli::stream::{ModelId, StreamId};
use ocelli::time::Instant;
use std::time::Duration;

/// A scheduler, and its next frames.
struct Rig {
    scheduler: Scheduler<()>,
    batch: Batch<()>,
    next: Vec<u64>,
}

impl Rig {
    fn new(board: &Board) -> Self {
        Self::with(Schedule::admit(board, profile(board)).expect("admitted"))
    }

    fn with(schedule: Schedule) -> Self {
        let next = vec![0; schedule.streams().len()];
        let scheduler = Scheduler::new(schedule);
        Self { scheduler, batch: Batch::with_capacity(8), next }
    }

    /// A frame that was captured just now.
    fn job(&mut self, now: Instant, stream: u16) -> Job {
        let sequence = self.next[usize::from(stream)];
        self.next[usize::from(stream)] += 1;
        let stream = StreamId(stream);
        let deadline = now + self.scheduler.schedule().stream(stream).latency_bound;
        Job { stream, sequence, model: ModelId(0), captured: now, arrived: now, deadline }
    }

    fn push(&mut self, now: Instant, stream: u16) {
        let job = self.job(now, stream);
        self.scheduler.push(now, job, ());
    }

    fn leave_out(&mut self, now: Instant, stream: u16) {
        let job = self.job(now, stream);
        self.scheduler.left_out(now, job.stream, now);
        assert!(self.scheduler.can_keep(job.stream));
        self.scheduler.keep(job, ());
    }

    /// What starts: stream and frame number.
    fn starts(&mut self, now: Instant) -> Vec<(u16, u64)> {
        self.scheduler.advance(now);
        let _ = self.scheduler.fill(now, 1, &mut self.batch);
        self.started()
    }

    fn starts_spare(&mut self, now: Instant) -> Vec<(u16, u64)> {
        self.scheduler.advance(now);
        let _ = self.scheduler.fill_spare(now, 1, &mut self.batch);
        self.started()
    }

    /// Lets all come and be served until it is known when they do: each so long after the period's beginning. The
    /// beginning of the next period.
    fn learn(&mut self, period: Duration, offsets: &[u64]) -> Instant {
        let mut start = NOW;
        for _ in 0..20 {
            for (stream, &offset) in offsets.iter().enumerate() {
                self.push(start + ms(offset), stream as u16);
                while !self.starts(start + ms(offset)).is_empty() {}
            }
            start = start + period;
        }
        assert_eq!(self.ended(), []);
        start
    }

    fn started(&mut self) -> Vec<(u16, u64)> {
        let started =
            self.batch.jobs.iter().map(|member| (member.job.stream.0, member.job.sequence)).collect();
        self.batch.clear();
        started
    }

    fn ended(&mut self) -> Vec<(u16, u64, DropReason)> {
        let ended = std::iter::from_fn(|| self.scheduler.pop_ended());
        ended.map(|(member, reason)| (member.job.stream.0, member.job.sequence, reason)).collect()
    }
}

/// l(b) = 2 ms + b * 1 ms.
fn cameras(bounds: &[u64]) -> Board {
    let streams =
        bounds.iter().enumerate().map(|(index, &bound)| stream(&format!("s{index}"), ms(100), ms(bound)));
    board(streams.collect(), ms(2), ms(1), 8)
}

const NOW: Instant = Instant::from_nanos(1_000_000_000);

#[test]
fn they_start_when_nothing_waits_the_first_deadline_first() {
    let mut rig = Rig::new(&cameras(&[50, 50, 40]));
    rig.leave_out(NOW, 1);
    rig.leave_out(NOW, 2);
    rig.push(NOW, 0);
    assert_eq!(rig.starts_spare(NOW), [], "something waits");
    assert_eq!(rig.starts(NOW), [(0, 0)], "and takes nobody along, as nobody knows who comes when");
    assert_eq!(rig.starts(NOW), []);
    assert_eq!(rig.starts_spare(NOW), [(2, 0), (1, 0)]);
    assert_eq!(rig.starts_spare(NOW), []);
    assert_eq!(rig.ended(), []);
    assert_eq!(rig.scheduler.poll_at(), None);
}

#[test]
fn as_many_start_as_cost_nobody_a_result() {
    // Behind l(4) = 6 ms of them there is time for one camera, behind l(8) = 10 ms there is none.
    let mut bounds = [50; 9];
    bounds[8] = 10;
    let mut rig = Rig::new(&cameras(&bounds));
    (0..8).for_each(|stream| rig.leave_out(NOW, stream));
    assert_eq!(rig.starts_spare(NOW), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    // Before their first deadline ends, not after it.
    assert_eq!(rig.starts_spare(NOW + ms(46)), [(4, 0)]);
}

#[test]
fn more_start_where_another_place_has_time_for_those_that_may_come() {
    for (places, expected) in [(1, vec![]), (2, vec![(0, 0)])] {
        // Batches of one take 3 ms each: behind one, a single place has no time for four more.
        let streams: Vec<_> = (0..4).map(|index| stream(&format!("s{index}"), ms(100), ms(11))).collect();
        let board = board(streams, ms(2), ms(1), 1);
        let profile = profile(&board).with_places(places);
        let mut rig = Rig::with(Schedule::overcommitted_for_measuring(&board, profile));
        rig.leave_out(NOW, 0);
        rig.scheduler.advance(NOW);
        let _ = rig.scheduler.fill_spare(NOW, places, &mut rig.batch);
        assert_eq!(rig.started(), expected, "{places}");
    }
}

#[test]
fn it_rides_along_in_a_batch_that_has_room() {
    let board = cameras(&[99, 99, 99, 99]);
    let mut rig = Rig::with(Schedule::overcommitted_for_measuring(&board, profile(&board)));
    let now = rig.learn(ms(100), &[0, 0, 0, 50]);
    rig.push(now, 0);
    rig.leave_out(now, 1);
    rig.leave_out(now, 2);
    assert_eq!(rig.starts(now), [(0, 20), (1, 20), (2, 20)]);
    assert_eq!(rig.starts_spare(now), []);
    assert_eq!(rig.ended(), []);
}

#[test]
fn it_does_not_ride_where_who_is_due_would_have_no_time_to_spare() {
    // The last one comes after 2 ms, and needs l(1) = 3 ms and 0.5 behind a batch of 3, 4 or 5 ms; all batches a tenth
    // longer that is 7.1, 8.2 or 9.3 ms.
    for (bound, expected) in
        [(6, vec![(0, 20)]), (7, vec![(0, 20), (1, 20)]), (8, vec![(0, 20), (1, 20), (2, 20)])]
    {
        let board = cameras(&[99, 99, 99, bound]);
        let mut rig = Rig::with(Schedule::overcommitted_for_measuring(&board, profile(&board)));
        let now = rig.learn(ms(100), &[0, 0, 0, 2]);
        rig.push(now, 0);
        rig.leave_out(now, 1);
        rig.leave_out(now, 2);
        assert_eq!(rig.starts(now), expected, "{bound} ms");
    }
}

#[test]
fn it_does_not_make_an_instant_longer_than_until_the_next_one() {
    // Batches of up to eight take 10 ms; instants are 9 ms apart, with time enough for two.
    let mut board = cameras(&[40; 8]);
    for stream in &mut board.streams {
        stream.period = ms(9);
        stream.trigger = Some(Trigger { id: "t".to_owned(), offset: ms(0), jitter: ms(0) });
    }
    let mut rig = Rig::with(Schedule::overcommitted_for_measuring(&board, profile(&board)));
    (4..8).for_each(|stream| rig.scheduler.set_every(StreamId(stream), Some(2)));
    let mut now = NOW;
    for _ in 0..20 {
        (0..4).for_each(|stream| rig.push(now, stream));
        (4..8).for_each(|stream| rig.leave_out(now, stream));
        let started = rig.starts(now);
        assert!(started.len() >= 4 && rig.starts(now).is_empty(), "one batch: {started:?}");
        now = now + ms(9);
    }
    (0..4).for_each(|stream| rig.push(now, stream));
    (4..8).for_each(|stream| rig.leave_out(now, stream));
    assert_eq!(rig.starts(now).len(), 7, "l(7) = 9 ms");
    assert_eq!(rig.starts_spare(now), [], "an instant's frames do not start without it");
}

#[test]
fn its_streams_next_frame_ends_it_left_out_or_not() {
    let mut rig = Rig::new(&cameras(&[250, 250]));
    rig.leave_out(NOW, 0);
    rig.leave_out(NOW, 1);
    rig.leave_out(NOW + ms(100), 0);
    rig.push(NOW + ms(100), 1);
    assert_eq!(rig.ended(), [(0, 0, DropReason::Skipped), (1, 0, DropReason::Skipped)]);
    assert_eq!(rig.starts(NOW + ms(100)), [(1, 1)]);
    assert_eq!(rig.starts_spare(NOW + ms(100)), [(0, 1)]);
}

#[test]
fn it_ends_when_it_would_be_late() {
    let mut rig = Rig::new(&cameras(&[20, 50]));
    rig.leave_out(NOW, 0);
    rig.leave_out(NOW, 1);
    assert_eq!(rig.scheduler.poll_at(), Some(NOW + ms(20)));
    rig.scheduler.advance(NOW + ms(16));
    assert_eq!(rig.ended(), []);
    // l(1) = 3 ms.
    rig.scheduler.advance(NOW + ms(18));
    assert_eq!(rig.ended(), [(0, 0, DropReason::Skipped)]);
    assert_eq!(rig.scheduler.poll_at(), Some(NOW + ms(50)));
    rig.scheduler.advance(NOW + ms(50));
    assert_eq!(rig.ended(), [(1, 0, DropReason::Skipped)]);
    assert_eq!(rig.scheduler.poll_at(), None);
}

#[test]
fn it_does_not_start_while_somebody_may_come_who_would_be_late_for_it() {
    // Behind 3 ms of it, l(1) = 3 ms is more than the second camera's bound.
    let mut rig = Rig::new(&cameras(&[90, 5]));
    rig.leave_out(NOW, 0);
    assert_eq!(rig.starts_spare(NOW), [], "the second camera's frame may come now");
    rig.push(NOW, 1);
    assert_eq!(rig.starts(NOW), [(1, 0)]);
    assert_eq!(rig.starts_spare(NOW + ms(3)), [(0, 0)], "the next one does not come before a period is over");
}

#[test]
fn a_shed_stream_keeps_none_and_a_stop_finds_them_all() {
    let mut rig = Rig::new(&cameras(&[50, 50, 50]));
    (0..3).for_each(|stream| rig.leave_out(NOW, stream));
    rig.scheduler.set_every(StreamId(0), None);
    assert_eq!(rig.ended(), [(0, 0, DropReason::Skipped)]);
    assert!(rig.scheduler.holds(StreamId(1), 0) && !rig.scheduler.holds(StreamId(0), 0));
    let left = std::iter::from_fn(|| rig.scheduler.pop_any()).map(|member| member.job.stream.0);
    assert_eq!(left.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn it_takes_a_place_of_its_streams_queue_and_never_overtakes() {
    // A place for one frame.
    let mut rig = Rig::new(&cameras(&[50, 50]));
    rig.push(NOW, 0);
    assert!(!rig.scheduler.can_keep(StreamId(0)), "its queue is full");
    assert!(rig.scheduler.can_keep(StreamId(1)));
    assert_eq!(rig.starts(NOW), [(0, 0)]);
    assert!(rig.scheduler.can_keep(StreamId(0)));
    // Half a period early: held back.
    rig.push(NOW + ms(90), 0);
    assert!(rig.scheduler.holds(StreamId(0), 1));
    assert!(!rig.scheduler.can_keep(StreamId(0)), "an older frame of it is yet to enter");

    let mut two = cameras(&[50, 50]);
    two.streams[1].model = ModelId(1);
    let two = board(two.streams, ms(2), ms(1), 8);
    assert!(!Rig::new(&two).scheduler.can_keep(StreamId(0)), "several models share the accelerator");
}
