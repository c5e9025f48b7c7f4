//! Sources for measuring: frames that cost nothing to deliver, and a watch over who is late.

use crate::board::{SourceSpec, Stream};
use crate::capture::grid::{Grid, Turn};
use crate::capture::{Captured, Next, Opened, Resources, Source, SourceError};
use crate::image::ImageLayout;
use crate::job::{DropReason, Lost};
use crate::platform::clock;
use crate::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How punctual the sources of a run were: facts about the machine, not about the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Punctuality {
    /// Releases.
    pub releases: u64,
    /// Of those, skipped because their instant had passed, or delivered later than tolerated.
    pub late: u64,
}

impl Punctuality {
    /// Most of all releases that may be late: 0.05 %, as a share of one.
    pub const TOLERATED: f64 = 0.0005;

    /// Late releases, as a share of one.
    #[must_use]
    pub fn share(self) -> f64 {
        if self.releases == 0 { 0.0 } else { self.late as f64 / self.releases as f64 }
    }

    /// Whether a run with these sources says something about the board.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.share() <= Self::TOLERATED
    }
}

/// What the watched sources of a run have counted.
#[derive(Debug, Default)]
pub(super) struct Watch {
    releases: AtomicU64,
    late: AtomicU64,
}

impl Watch {
    pub(super) fn punctuality(&self) -> Punctuality {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Punctuality { releases: read(&self.releases), late: read(&self.late) }
    }
}

/// Nothing is released for so long after a run's beginning: until then its threads come to rest.
pub(super) const SETTLING: Duration = Duration::from_millis(100);

/// A source whose deliveries are held against their stamps before anybody else has touched them.
pub(super) struct Watched {
    pub(super) source: Box<dyn Source>,
    /// A delivery this long after its stamp is the machine's fault.
    pub(super) tolerated: Duration,
    pub(super) watch: Arc<Watch>,
    /// Whether the run has begun: what it is asked for before are the releases that do not count.
    pub(super) begun: bool,
}

impl Source for Watched {
    fn resume(&mut self, next: u64) {
        self.source.resume(next);
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        self.source.open(resources)
    }

    fn next(&mut self, until: Instant) -> Next {
        self.begun = true;
        let next = self.source.next(until);
        let (releases, late) = match &next {
            Next::Frame(frame) => (1, u64::from(clock::now().since(frame.captured) > self.tolerated)),
            Next::Lost(lost) if lost.reason == DropReason::SourceLate => (lost.count, lost.count),
            Next::Lost(lost) => (lost.count, 0),
            Next::Nothing | Next::Ended | Next::Failed(_) => (0, 0),
        };
        self.watch.releases.fetch_add(releases, Ordering::Relaxed);
        self.watch.late.fetch_add(late, Ordering::Relaxed);
        next
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        self.source.missed(if self.begun { now } else { now + SETTLING })
    }

    fn close(&mut self) {
        self.source.close();
    }
}

/// Frames that lie in the slots already, as a camera's DMA leaves them: a release costs a slot and a stamp.
pub(super) struct Memory {
    id: String,
    layout: ImageLayout,
    period: Duration,
    phase: Duration,
    jitter: Duration,
    seed: u64,
    first: u64,
    grid: Option<Grid>,
    resources: Option<Resources>,
}

impl Memory {
    /// The source of a stream whose source is synthetic: [`super::like`] has made it so.
    pub(super) fn new(stream: &Stream) -> Self {
        let (phase, jitter, seed) = match stream.source {
            SourceSpec::Synthetic { phase, jitter, seed } => (phase, jitter, seed),
            SourceSpec::File { .. }
            | SourceSpec::Uri { .. }
            | SourceSpec::Pipeline { .. }
            | SourceSpec::V4l2(_) => (Duration::ZERO, Duration::ZERO, 0),
        };
        let mut layout = ImageLayout::packed(stream.format, stream.width, stream.height);
        layout.color = stream.color.unwrap_or(layout.color);
        Self {
            id: stream.id.clone(),
            layout,
            period: stream.period,
            phase,
            jitter,
            seed,
            first: 0,
            grid: None,
            resources: None,
        }
    }
}

impl Source for Memory {
    fn resume(&mut self, next: u64) {
        self.first = next;
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        // All slots at once, so that each is written: memory that nobody wrote to costs less to read.
        let mut slots: Vec<_> = std::iter::from_fn(|| resources.share.take()).collect();
        for slot in &mut slots {
            for (index, byte) in slot.bytes_mut().iter_mut().enumerate() {
                *byte = (index / 7 + index / 640) as u8;
            }
        }
        let (start, Self { period, phase, jitter, seed, .. }) = (resources.start, &*self);
        self.grid = Some(Grid::new(start + *phase, *period, *jitter, *seed).from(self.first));
        self.resources = Some(resources.clone());
        Ok(Opened { layout: self.layout, notes: Vec::new() })
    }

    fn next(&mut self, until: Instant) -> Next {
        let (Some(grid), Some(resources)) = (&mut self.grid, &self.resources) else {
            let what = format!("stream `{}` is not open", self.id);
            return Next::Failed(SourceError::new(what, "open it before asking for frames"));
        };
        loop {
            let now = clock::now();
            let wake = match grid.turn(now) {
                Turn::Late(late) => return Next::Lost(late),
                Turn::Due(release) => {
                    grid.settle();
                    let (sequence, captured) = (release.sequence, release.at);
                    let frame = resources.share.take().and_then(|slot| slot.freeze(self.layout).ok());
                    return match frame {
                        Some(frame) => Next::Frame(Captured { sequence, captured, frame }),
                        None => Next::Lost(Lost { sequence, count: 1, captured, reason: DropReason::NoSlot }),
                    };
                }
                Turn::Wait(at) => at.min(until),
            };
            if now >= until {
                return Next::Nothing;
            }
            clock::sleep_until(wake);
        }
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        self.grid.as_mut()?.missed(now, DropReason::Shutdown)
    }

    fn close(&mut self) {
        self.resources = None;
    }
}
