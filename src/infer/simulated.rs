//! A backend that computes nothing and takes the time of a linear model, on the driver's clock.
//!
//! It behaves as one serial accelerator: a batch starts when it is submitted or when the one before it ends,
//! whichever is later, and takes `intercept + slope * jobs`, plus jitter: its lanes are places in its queue. The
//! same seed and the same batches give the same completions to the nanosecond.

use super::{Backend, Capabilities, fault};
use crate::job::Batch;
use crate::random::Random;
use crate::time::{Instant, nanos};
use std::collections::VecDeque;
use std::time::Duration;

/// Time and faults of a simulated accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Service time that does not depend on the batch size.
    pub intercept: Duration,
    /// Service time for each job.
    pub slope: Duration,
    /// Each batch takes up to this much longer, evenly spread.
    pub jitter: Duration,
    /// Seed of the jitter.
    pub seed: u64,
    /// Every n-th batch fails (after its time), 0 for none.
    pub fail_every: u32,
    /// The accelerator hangs at this batch (counted from 0): it and those after it never complete.
    pub hang_at: Option<u64>,
    /// Batches that may be in flight.
    pub in_flight: usize,
}

impl Settings {
    /// l(b) = intercept + slope * b, without jitter or faults, one batch at a time.
    #[must_use]
    pub const fn linear(intercept: Duration, slope: Duration) -> Self {
        Self { intercept, slope, jitter: Duration::ZERO, seed: 0, fail_every: 0, hang_at: None, in_flight: 1 }
    }
}

/// What besets the accelerator for a while; see [`Simulated::set_conditions`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Batches take this many times as long.
    pub pace: f64,
    /// And this much longer.
    pub delay: Duration,
    /// And fail after it.
    pub fails: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { pace: 1.0, delay: Duration::ZERO, fails: false }
    }
}

/// The simulated accelerator. `P` is whatever the driver's frames are.
#[derive(Debug)]
pub struct Simulated<P> {
    settings: Settings,
    conditions: Conditions,
    capabilities: Capabilities,
    /// Per model and output: what every job's row holds.
    answers: Vec<Vec<Vec<f32>>>,
    random: Random,
    /// Batches taken so far.
    taken: u64,
    /// When the accelerator will have worked off all of `running`.
    free_at: Instant,
    /// In order of submission; capacity fixed at start.
    running: VecDeque<Running<P>>,
}

#[derive(Debug)]
struct Running<P> {
    batch: Box<Batch<P>>,
    /// `None`: hangs.
    ends: Option<Instant>,
}

impl<P> Simulated<P> {
    /// An accelerator for one model per entry of `answers`: what every job's row holds, one row an output in
    /// the manifest's order. Batches of 1 to `max_batch`.
    #[must_use]
    pub fn new(settings: Settings, max_batch: u16, answers: Vec<Vec<Vec<f32>>>) -> Self {
        let capabilities = Capabilities {
            name: "simulated".into(),
            lanes: vec!["simulated".into(); settings.in_flight],
            batch_sizes: vec![(1..=max_batch).collect(); answers.len()],
            output_rows: answers.iter().map(|rows| rows.iter().map(Vec::len).collect()).collect(),
        };
        Self {
            random: Random::new(settings.seed),
            running: VecDeque::with_capacity(settings.in_flight),
            answers,
            taken: 0,
            free_at: Instant::default(),
            capabilities,
            conditions: Conditions::default(),
            settings,
        }
    }

    /// What holds for batches submitted from now on.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    fn service(&mut self, jobs: usize) -> Duration {
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        let Settings { intercept, slope, jitter, .. } = self.settings;
        let planned = nanos(intercept + slope * jobs + self.random.below(jitter));
        let Conditions { pace, delay, .. } = self.conditions;
        Duration::from_nanos((planned as f64 * pace).round() as u64) + delay
    }

    /// Writes what the model would.
    fn answer(&self, batch: &mut Batch<P>) {
        let model = batch.model.index();
        for (tensor, row) in batch.outputs.iter_mut().zip(&self.capabilities.output_rows[model]) {
            tensor.row = *row;
        }
        for (tensor, answer) in batch.outputs.iter_mut().zip(&self.answers[model]) {
            for index in 0..batch.jobs.len() {
                tensor.data[index * tensor.row..][..tensor.row].copy_from_slice(answer);
            }
        }
    }
}

impl<P: Send> Backend<P> for Simulated<P> {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, now: Instant, mut batch: Box<Batch<P>>) -> Result<(), Box<Batch<P>>> {
        if let Some(refusal) = self.capabilities.refusal(self.running.len(), &batch) {
            batch.fault = Some(refusal);
            return Err(batch);
        }
        let service = self.service(batch.jobs.len());
        let hangs = self.settings.hang_at.is_some_and(|at| self.taken >= at);
        self.taken += 1;
        let every = u64::from(self.settings.fail_every);
        let fails = self.conditions.fails || (every > 0 && self.taken.is_multiple_of(every));
        self.free_at = self.free_at.max(now) + service;
        (batch.submitted, batch.service) = (now, service);
        let is_idle = |lane: &usize| self.running.iter().all(|running| running.batch.lane != *lane);
        batch.lane = (0..).find(is_idle).unwrap_or_default();
        batch.fault = fails.then(|| fault(format_args!("batch {} fails, as asked for", self.taken)));
        if !fails {
            // Now, as an accelerator has written it when a batch ends.
            self.answer(&mut batch);
        }
        self.running.push_back(Running { batch, ends: (!hangs).then_some(self.free_at) });
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<Box<Batch<P>>> {
        let ends = self.poll_at().filter(|&ends| ends <= now)?;
        let mut batch = self.running.pop_front()?.batch;
        batch.completed = ends;
        Some(batch)
    }

    fn poll_at(&self) -> Option<Instant> {
        self.running.front()?.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{BatchJob, Job};
    use crate::stream::{ModelId, StreamId};

    const MS: u64 = 1_000_000;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * MS)
    }

    fn batch(backend: &Simulated<()>, jobs: usize) -> Box<Batch<()>> {
        let mut batch = backend.capabilities().new_batch();
        batch.jobs.extend((0..jobs).map(|sequence| BatchJob {
            job: Job {
                stream: StreamId(0),
                sequence: sequence as u64,
                model: ModelId(0),
                captured: at(0),
                arrived: at(0),
                deadline: at(100),
            },
            payload: (),
        }));
        batch
    }

    fn linear() -> Settings {
        Settings::linear(Duration::from_millis(2), Duration::from_millis(3))
    }

    #[test]
    fn batches_run_one_after_the_other() {
        let settings = Settings { in_flight: 2, ..linear() };
        let mut backend = Simulated::new(settings, 4, vec![vec![vec![0.0; 2]]]);
        backend.submit(at(10), batch(&backend, 1)).unwrap();
        backend.submit(at(11), batch(&backend, 2)).unwrap();
        // 10 + (2 + 3) = 15, then 15 + (2 + 6) = 23.
        assert_eq!(backend.poll_at(), Some(at(15)));
        assert!(backend.poll(Instant::from_nanos(15 * MS - 1)).is_none());
        let first = backend.poll(at(15)).unwrap();
        assert_eq!((first.completed, first.service), (at(15), Duration::from_millis(5)));
        assert!(backend.poll(at(15)).is_none());
        let second = backend.poll(at(40)).unwrap();
        assert_eq!(
            (second.submitted, second.completed, second.service),
            (at(11), at(23), Duration::from_millis(8))
        );
        // Idle since 23: the next starts when it is submitted.
        backend.submit(at(50), batch(&backend, 1)).unwrap();
        assert_eq!(backend.poll_at(), Some(at(55)));
    }

    #[test]
    fn jitter_is_within_bounds_and_repeats() {
        let run = |seed| {
            let settings = Settings { jitter: Duration::from_millis(1), seed, ..linear() };
            let mut backend = Simulated::new(settings, 4, vec![vec![vec![0.0; 2]]]);
            let services = (0..50).map(|index| {
                backend.submit(at(index * 100), batch(&backend, 1)).unwrap();
                backend.poll(at(index * 100 + 99)).unwrap().service
            });
            services.collect::<Vec<_>>()
        };
        let services = run(7);
        let (least, most) = (services.iter().min().unwrap(), services.iter().max().unwrap());
        assert!(*least >= Duration::from_millis(5) && *most < Duration::from_millis(6) && least < most);
        assert_eq!(services, run(7));
        assert_ne!(services, run(8));
    }

    #[test]
    fn conditions_hold_for_what_is_submitted_under_them() {
        let settings = Settings { in_flight: 3, ..linear() };
        let mut backend = Simulated::new(settings, 4, vec![vec![vec![0.0; 2]]]);
        backend.submit(at(0), batch(&backend, 1)).unwrap();
        backend.set_conditions(Conditions { pace: 1.5, delay: Duration::from_millis(2), fails: true });
        backend.submit(at(0), batch(&backend, 2)).unwrap();
        backend.set_conditions(Conditions::default());
        backend.submit(at(0), batch(&backend, 1)).unwrap();
        // 5, then 1.5 * 8 + 2 = 14 more, then 5 more.
        let ends = [5, 19, 24].map(|millis| {
            let done = backend.poll(at(millis)).unwrap();
            assert_eq!(done.completed, at(millis));
            done.fault.is_some()
        });
        assert_eq!(ends, [false, true, false]);
    }

    #[test]
    fn answers_fill_every_row() {
        let mut backend = Simulated::new(linear(), 4, vec![vec![vec![1.0, 2.0], vec![9.0]]]);
        backend.submit(at(0), batch(&backend, 3)).unwrap();
        let done = backend.poll(at(100)).unwrap();
        assert_eq!((done.outputs[0].row(2), done.outputs[1].row(0)), (&[1.0, 2.0][..], &[9.0][..]));
    }

    #[test]
    fn a_hang_is_for_ever() {
        let settings = Settings { hang_at: Some(1), in_flight: 2, ..linear() };
        let mut backend = Simulated::new(settings, 4, vec![vec![vec![0.0; 2]]]);
        backend.submit(at(0), batch(&backend, 1)).unwrap();
        assert!(backend.poll(at(5)).is_some());
        backend.submit(at(5), batch(&backend, 1)).unwrap();
        backend.submit(at(6), batch(&backend, 1)).unwrap();
        assert_eq!((backend.poll_at(), backend.poll(at(1_000_000)).is_none()), (None, true));
        assert!(backend.submit(at(7), batch(&backend, 1)).unwrap_err().fault.is_some());
    }
}
