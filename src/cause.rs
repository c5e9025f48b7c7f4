//! Why a result came out late: one cause each, so that the causes of a stream's late frames add up to them.
//!
//! The way from capture to finish is cut into stages that follow each other without a gap. Each has a budget;
//! the stage that is furthest beyond its own is the cause, the earlier one of equals. Where none is beyond its
//! budget (the bound is shorter than the plan) the longest is. But a batch that was submitted early enough for its results
//! to be out in time as planned, [`BUDGET`] included, is late for what came after that, however long it waited before: for
//! the one of the last three that is furthest beyond its plan.
//!
//! | cause | from | to | budget |
//! |---|---|---|---|
//! | late capture | capture | arrival | what the source's buffer and jitter may take |
//! | queue | arrival | a place at the accelerator is free | none |
//! | batch wait | that place | submission, and what the batch is planned longer than a batch of one | none |
//! | overrun | submission | completion, less what stands under batch wait | the plan for a batch of one |
//! | output | completion | the publisher gets to the batch | [`BUDGET`] |
//! | decode | that | the record is handed out | what the batch's results are planned to take, and [`BUDGET`] |
//!
//! A dropped frame's cause is its reason; of those, `superseded` and `hopeless` are for want of accelerator
//! time, as `queue` is.

use crate::job::{Batch, Job};
use crate::time::Instant;
use std::time::Duration;

/// What publishing, and decoding beyond its plan, may take before it counts as a cause; as long as admission keeps free.
pub const BUDGET: Duration = Duration::from_micros(500);

/// Why a result was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissCause {
    /// It took too long from the camera to the scheduler.
    LateCapture,
    /// The accelerator was busy with other batches.
    Queue,
    /// Held back on purpose, or waited in a larger batch for its other members.
    BatchWait,
    /// The accelerator took longer than planned.
    Overrun,
    /// Decoding took too long, that of others in its batch included.
    Decode,
    /// The publisher was busy with other records.
    Output,
}

impl MissCause {
    /// All causes; the position is the index wherever they are counted.
    pub const ALL: [Self; 6] =
        [Self::LateCapture, Self::Queue, Self::BatchWait, Self::Overrun, Self::Decode, Self::Output];

    /// The word used in records and summaries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LateCapture => "late_capture",
            Self::Queue => "queue",
            Self::BatchWait => "batch_wait",
            Self::Overrun => "overrun",
            Self::Decode => "decode",
            Self::Output => "output",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Where a batch was, and what was planned for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// When a place at the accelerator became free for it.
    pub free: Instant,
    /// When it was handed to the backend.
    pub submitted: Instant,
    /// When the backend was done.
    pub completed: Instant,
    /// When the publisher got to it.
    pub taken: Instant,
    /// Planned service time.
    pub planned: Duration,
    /// Planned service time of a batch of one.
    pub alone: Duration,
    /// Time planned to decode its results.
    pub decoding: Duration,
}

impl Way {
    /// The way of a batch that the publisher got to at `taken`.
    #[must_use]
    pub fn of<P>(batch: &Batch<P>, taken: Instant) -> Self {
        let &Batch { free, submitted, completed, planned, alone, decoding, .. } = batch;
        Self { free, submitted, completed, taken, planned, alone, decoding }
    }

    /// Why a job is late that went this way and was published at `finish`. `travel`: what its source may take
    /// from capture to arrival.
    #[must_use]
    pub fn cause(&self, job: &Job, travel: Duration, finish: Instant) -> MissCause {
        let free = self.free.clamp(job.arrived.min(self.submitted), self.submitted);
        let company = self.planned.saturating_sub(self.alone);
        let service = self.completed.since(self.submitted);
        let as_planned = self.submitted + self.planned + BUDGET + self.decoding;
        // Where the first three stages, before the submission, are no cause.
        let (first, budget) = if as_planned <= job.deadline { (3, Duration::ZERO) } else { (0, BUDGET) };
        let stages = [
            (MissCause::LateCapture, job.arrived.since(job.captured), travel),
            (MissCause::Queue, free.since(job.arrived), Duration::ZERO),
            (MissCause::BatchWait, self.submitted.since(free) + company.min(service), Duration::ZERO),
            (MissCause::Overrun, service.saturating_sub(company), self.alone),
            (MissCause::Output, self.taken.since(self.completed), budget),
            (MissCause::Decode, finish.since(self.taken.max(self.completed)), budget + self.decoding),
        ];
        let mut worst = (stages[first].0, (Duration::ZERO, Duration::ZERO));
        for &(cause, time, budget) in &stages[first..] {
            let weight = (time.saturating_sub(budget), time);
            if weight > worst.1 {
                worst = (cause, weight);
            }
        }
        worst.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{ModelId, StreamId};

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// Captured at 0, due at 20; a batch of several planned for 6 ms, alone 4, and 1 ms to decode.
    fn cause(arrived: u64, free: u64, submitted: u64, completed: u64, taken: u64, finish: u64) -> MissCause {
        let job = Job {
            stream: StreamId(0),
            sequence: 0,
            model: ModelId(0),
            captured: at(0),
            arrived: at(arrived),
            deadline: at(20),
        };
        let way = Way {
            free: at(free),
            submitted: at(submitted),
            completed: at(completed),
            taken: at(taken),
            planned: Duration::from_millis(6),
            alone: Duration::from_millis(4),
            decoding: Duration::from_millis(1),
        };
        way.cause(&job, Duration::from_millis(3), at(finish))
    }

    #[test]
    fn the_stage_furthest_beyond_its_budget_is_the_cause() {
        assert_eq!(cause(18, 10, 18, 24, 24, 24), MissCause::LateCapture);
        assert_eq!(cause(2, 15, 15, 21, 21, 21), MissCause::Queue);
        assert_eq!(cause(2, 1, 15, 21, 21, 21), MissCause::BatchWait);
        assert_eq!(cause(2, 1, 2, 21, 21, 21), MissCause::Overrun);
        assert_eq!(cause(2, 1, 2, 8, 21, 21), MissCause::Output);
        assert_eq!(cause(2, 1, 2, 8, 8, 21), MissCause::Decode);
        // A delay that its source may have is not the cause, and equals go to the earlier stage.
        assert_eq!(cause(3, 5, 5, 11, 11, 21), MissCause::Decode);
        assert_eq!(cause(10, 17, 17, 21, 21, 21), MissCause::LateCapture);
        // Nor is what was planned: 6 ms of decoding are 4.5 beyond it, 11 at the accelerator are 5.
        assert_eq!(cause(2, 2, 2, 15, 15, 21), MissCause::Overrun);
    }

    #[test]
    fn what_was_submitted_in_time_is_not_late_for_what_was_before() {
        // 12 + 6 + 0.5 + 1 are in time for 20, 13 + 6 + 0.5 + 1 are not; either way 12 or 13 were spent waiting.
        assert_eq!(cause(0, 12, 12, 21, 21, 22), MissCause::Overrun);
        assert_eq!(cause(0, 12, 12, 18, 20, 21), MissCause::Output);
        assert_eq!(cause(0, 12, 12, 18, 18, 21), MissCause::Decode);
        assert_eq!(cause(0, 0, 12, 21, 21, 22), MissCause::Overrun);
        assert_eq!(cause(0, 13, 13, 22, 22, 23), MissCause::Queue);
    }

    #[test]
    fn causes_are_indexed_by_position() {
        assert!(MissCause::ALL.into_iter().enumerate().all(|(index, cause)| cause.index() == index));
    }
}
