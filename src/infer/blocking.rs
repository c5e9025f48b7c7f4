//! An asynchronous backend out of engines that block: one thread each, rings to and from it, and order.
//!
//! Each engine works on one batch at a time and gets the next only when it is idle, so that the heart chooses
//! a batch's members as late as possible. An engine that is done before an older batch waits its turn:
//! batches come back in the order of submission. Nothing here locks or allocates after the start.

use super::{Backend, Capabilities, InferError, fault};
use crate::job::{Batch, BatchFault};
use crate::platform::{Waker, clock};
use crate::ring::{Receiver, Sender, ring};
use crate::time::Instant;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, park};

/// Something that computes a batch on the thread that calls it.
pub trait Engine<P>: Send + 'static {
    /// Computes the `outputs` of a batch that fits the capabilities, or says in its `fault` why there are
    /// none. After a fault, the next batch may work again.
    fn run(&mut self, batch: &mut Batch<P>);
}

/// A backend of one or more engines.
#[derive(Debug)]
pub struct Blocking<P: Send + 'static> {
    capabilities: Capabilities,
    workers: Vec<Worker<P>>,
    /// Which worker has each batch in flight, in order of submission; capacity fixed at start.
    order: VecDeque<usize>,
    flags: Arc<Flags>,
}

struct Worker<P: 'static> {
    work: Sender<Box<Batch<P>>>,
    done: Receiver<Box<Batch<P>>>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl<P> std::fmt::Debug for Worker<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("busy", &self.busy).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Flags {
    /// The backend is being dropped: no more computing.
    stopping: AtomicBool,
    /// An engine panicked: what it left behind is not to be trusted.
    broken: AtomicBool,
}

impl<P: Send + 'static> Blocking<P> {
    /// Starts a thread `infer-<n>` for each engine. `capabilities.lanes` becomes one of the CPU's for each.
    /// `waker` is woken after every completion. The threads inherit scheduling and CPUs from the caller: call this
    /// before the caller becomes SCHED_FIFO.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start<E: Engine<P>>(
        engines: Vec<E>,
        mut capabilities: Capabilities,
        waker: &Waker,
    ) -> Result<Self, InferError> {
        capabilities.lanes = vec!["cpu".to_owned(); engines.len()];
        let order = VecDeque::with_capacity(engines.len());
        // Built up in place: should a thread be refused, dropping `backend` ends those before it.
        let mut backend = Self { capabilities, workers: Vec::new(), order, flags: Arc::default() };
        for (index, engine) in engines.into_iter().enumerate() {
            let (work, todo) = ring::<_, 2>();
            let (results, done) = ring::<_, 2>();
            let (flags, waker) = (backend.flags.clone(), waker.clone());
            let name = format!("infer-{index}");
            let thread = Builder::new()
                .name(name.clone())
                .spawn(move || serve(engine, todo, results, &flags, &waker))
                .map_err(|why| InferError::System(format!("can't start the thread {name}: {why}")))?;
            backend.workers.push(Worker { work, done, busy: false, thread: Some(thread) });
        }
        Ok(backend)
    }
}

/// An engine's thread: batch after batch, until told to stop or the engine panics.
fn serve<P, E: Engine<P>>(
    mut engine: E,
    mut todo: Receiver<Box<Batch<P>>>,
    mut results: Sender<Box<Batch<P>>>,
    flags: &Flags,
    waker: &Waker,
) {
    loop {
        let Some(mut batch) = todo.dequeue() else {
            if flags.stopping.load(Ordering::Acquire) {
                return;
            }
            park();
            continue;
        };
        let start = clock::now();
        let panicked = if flags.stopping.load(Ordering::Acquire) {
            batch.fault = Some(fault(format_args!("the backend is stopping")));
            false
        } else {
            // The batch is looked at again only as far as every panic leaves it valid; the engine never.
            catch_unwind(AssertUnwindSafe(|| engine.run(&mut batch))).is_err()
        };
        batch.completed = clock::now();
        batch.service = batch.completed.since(start);
        if panicked {
            batch.fault = Some(broken());
            flags.broken.store(true, Ordering::Release);
        }
        // Never full: the ring holds one batch, and there is only one.
        let _ = results.enqueue(batch);
        waker.wake();
        if panicked {
            return;
        }
    }
}

fn broken() -> BatchFault {
    fault(format_args!("the backend panicked; it takes no more work"))
}

impl<P: Send + 'static> Backend<P> for Blocking<P> {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, now: Instant, mut batch: Box<Batch<P>>) -> Result<(), Box<Batch<P>>> {
        let refuse = |mut batch: Box<Batch<P>>, why| {
            batch.fault = Some(why);
            Err(batch)
        };
        if self.flags.broken.load(Ordering::Acquire) {
            return refuse(batch, broken());
        }
        if let Some(refusal) = self.capabilities.refusal(self.order.len(), &batch) {
            return refuse(batch, refusal);
        }
        // As many engines as batches may be in flight, so one is idle.
        let idle = self.workers.iter_mut().enumerate().find(|(_, worker)| !worker.busy);
        let Some((index, worker)) = idle else {
            return refuse(batch, fault(format_args!("no engine is idle")));
        };
        (batch.submitted, batch.lane, batch.fault) = (now, index, None);
        worker.work.enqueue(batch)?;
        worker.busy = true;
        self.order.push_back(index);
        if let Some(thread) = &worker.thread {
            thread.thread().unpark();
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<Box<Batch<P>>> {
        let worker = &mut self.workers[*self.order.front()?];
        // One that was completed after the caller read the clock is left for the next call: its wake-up is
        // still to come, or already makes the caller's next wait return at once.
        if worker.done.peek()?.completed > now {
            return None;
        }
        worker.busy = false;
        self.order.pop_front();
        worker.done.dequeue()
    }

    fn poll_at(&self) -> Option<Instant> {
        None
    }
}

/// Waits for the batches that are being computed; all that are in flight are dropped here, with their frames.
impl<P: Send + 'static> Drop for Blocking<P> {
    fn drop(&mut self) {
        self.flags.stopping.store(true, Ordering::Release);
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                thread.thread().unpark();
                // An engine's panic was caught; there is nothing to hear from the thread.
                let _ = thread.join();
            }
            while worker.done.dequeue().is_some() {}
        }
    }
}
