//! What records say beside the frame itself: their stream's service, and how old its last good result is.

use crate::cause::Way;
use crate::job::{DropReason, Job, Lost, Outcome};
use crate::record::{Event, Record, Served};
use crate::sched::Schedule;
use crate::stream::{ModelId, StreamId, StreamState};
use crate::time::Instant;
use std::time::Duration;

/// Makes records. To be told everything in the order in which it is published.
#[derive(Debug)]
pub(crate) struct Records(Vec<View>);

/// A stream as its records see it.
#[derive(Debug)]
struct View {
    period: Duration,
    latency_bound: Duration,
    travel: Duration,
    state: StreamState,
    /// Capture of the last frame that met its deadline.
    last_good: Option<Instant>,
}

impl Records {
    /// Nothing has been published yet.
    pub(crate) fn new(schedule: &Schedule) -> Self {
        let view = |stream: &crate::sched::Admitted| View {
            period: stream.period,
            latency_bound: stream.latency_bound,
            travel: stream.travel,
            state: StreamState::Starting,
            last_good: None,
        };
        Self(schedule.streams().iter().map(view).collect())
    }

    /// From one frame of a stream to the next.
    pub(crate) fn period(&self, stream: StreamId) -> Duration {
        self.0[stream.index()].period
    }

    /// A stream changed its state.
    pub(crate) fn changed(&mut self, event: &Event) {
        self.0[event.stream.index()].state = event.state;
    }

    /// A job that went through the accelerator on this way; `served` is `None` when its outputs could not be
    /// decoded.
    pub(crate) fn settled(&mut self, job: Job, finish: Instant, served: Option<Served>, way: &Way) -> Record {
        let outcome = match served {
            Some(_) => job.outcome_at(finish),
            None => Outcome::Dropped(DropReason::DecodeFailed),
        };
        let mut record = self.record(job, finish, outcome, served);
        if outcome == Outcome::Late {
            record.cause = Some(way.cause(&job, self.0[job.stream.index()].travel, finish));
        }
        if outcome == Outcome::Met {
            self.0[job.stream.index()].last_good = Some(job.captured);
        }
        record
    }

    /// Frame number `index` (from 0) of a run without results.
    pub(crate) fn dropped(&self, stream: StreamId, lost: &Lost, index: u64, finish: Instant) -> Record {
        let View { period, latency_bound, .. } = self.0[stream.index()];
        let captured = lost.captured + period.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
        let job = Job {
            stream,
            sequence: lost.sequence + index,
            model: ModelId(0),
            captured,
            arrived: captured,
            deadline: captured + latency_bound,
        };
        self.record(job, finish, Outcome::Dropped(lost.reason), None)
    }

    fn record(&self, job: Job, finished: Instant, outcome: Outcome, served: Option<Served>) -> Record {
        let view = &self.0[job.stream.index()];
        Record {
            stream: job.stream,
            sequence: job.sequence,
            captured: job.captured,
            deadline: job.deadline,
            finished,
            outcome,
            cause: None,
            state: view.state,
            last_good_age: view.last_good.map(|captured| finished.since(captured)),
            served,
        }
    }
}

/// Takes the next run out of a batch's `between` whose records leave before that of `job`.
pub(crate) fn take_older(between: &mut Vec<(StreamId, Lost)>, job: &Job) -> Option<Lost> {
    let first =
        between.iter().position(|(stream, lost)| *stream == job.stream && lost.sequence < job.sequence)?;
    Some(between.remove(first).1)
}
