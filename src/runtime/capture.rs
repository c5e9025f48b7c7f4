//! A capture thread: one camera, from its source into its ring, reopened when it fails.

use crate::board::Realtime;
use crate::capture::{Captured, Next, Resources, Source, SourceError};
use crate::job::{DropReason, Lost, bounded};
use crate::platform::{Waker, clock, realtime};
use crate::ring::Sender;
use crate::runtime::Flags;
use crate::runtime::heartbeat::{Phase, Replaced, Seat};
use crate::stream::StreamState;
use crate::time::Instant;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Frames and news of one camera on their way to the exec thread (one less than this).
pub(super) const RING: usize = 64;
/// Longest that a source is left alone: how soon a stop is noticed.
const GLANCE: Duration = Duration::from_millis(100);
/// First pause before a failed source is opened again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A source that delivered for this long starts again with the first pause.
const HEALTHY: Duration = Duration::from_secs(10);

/// What a capture thread tells the exec thread.
#[derive(Debug)]
pub(super) enum News {
    /// A frame, and when it was handed over.
    Frame(Captured, Instant),
    /// Captured frames that are lost.
    Lost(Lost),
    /// The stream's source changed.
    Changed(StreamState, heapless::String<160>),
}

/// One camera's thread.
pub(super) struct Camera {
    pub(super) id: String,
    pub(super) source: Box<dyn Source>,
    pub(super) resources: Resources,
    pub(super) port: Port,
    pub(super) flags: Arc<Flags>,
}

/// The way to the exec thread.
pub(super) struct Port {
    ring: Sender<News>,
    exec: Waker,
    flags: Arc<Flags>,
    seat: Arc<Seat>,
    /// Frames that found the ring full, not reported yet.
    overflow: Option<Lost>,
}

/// Why a source is left.
enum Left {
    Stopped,
    Ended,
    Failed(SourceError),
}

impl Camera {
    /// Runs the camera until the run stops, the source ends, or another thread has taken the camera over. Gives
    /// back the ring, for another thread's use.
    pub(super) fn run(mut self, asked: &Realtime) -> Sender<News> {
        if self.serve(asked).is_err() {
            log::warn!(
                "{}: the thread that was stuck has come back; another has its camera: it ends",
                self.id
            );
            self.source.close();
        }
        self.port.ring
    }

    fn serve(&mut self, asked: &Realtime) -> Result<(), Replaced> {
        let mut pause = FIRST_PAUSE;
        let mut resumes = self.port.seat.resumes;
        loop {
            let seat = &self.port.seat;
            let opened = seat.during(Phase::Opening, || self.source.open(&self.resources))?;
            if opened.is_ok() {
                self.flags.opened.store(true, Ordering::Release);
            }
            if seat.try_first() {
                if opened.is_err() {
                    self.flags.refused.fetch_add(1, Ordering::AcqRel);
                }
                self.flags.tried.fetch_add(1, Ordering::AcqRel);
            }
            if !seat.has_begun() {
                self.await_beginning()?;
            }
            let since = clock::now();
            let left = match opened {
                Ok(opened) => {
                    for note in &opened.notes {
                        log::info!("{}: {note}", self.id);
                    }
                    self.watch(asked, &mut resumes)?
                }
                Err(error) => Left::Failed(error),
            };
            match left {
                Left::Stopped => break,
                Left::Ended => {
                    log::info!("{}: its video has come to an end", self.id);
                    self.port.tell(News::Changed(StreamState::Ended, bounded("end of stream")));
                    self.close()?;
                    self.flags.ended.fetch_add(1, Ordering::AcqRel);
                    return Ok(());
                }
                Left::Failed(error) => {
                    if clock::now().since(since) > HEALTHY {
                        pause = FIRST_PAUSE;
                    }
                    log::warn!("{}: down: {error} (trying again in {pause:.1?})", self.id);
                    self.port.tell(News::Changed(StreamState::Down, bounded(&error.to_string())));
                    self.close()?;
                    if !self.pause(clock::now() + pause)? {
                        break;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        self.tell_missed()?;
        self.port.flush();
        self.close()?;
        self.flags.ended.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Waits until all cameras have been tried; releases before the run's beginning do not count. They are taken
    /// all the same, or a camera that streams already would find no buffer free when it counts.
    fn await_beginning(&mut self) -> Result<(), Replaced> {
        while self.flags.began.get().is_none() && !self.stopping() {
            self.pass_over(clock::now())?;
            self.nap(clock::now() + Duration::from_millis(2))?;
        }
        if let Some(&began) = self.flags.began.get() {
            self.pass_over(began)?;
            self.port.seat.begin();
        }
        Ok(())
    }

    /// Takes what was released up to `now`, and tells nobody.
    fn pass_over(&mut self, now: Instant) -> Result<(), Replaced> {
        while let Some(before) = self.missed(now)? {
            self.port.seat.told(before.sequence + before.count);
        }
        Ok(())
    }

    /// Takes what the source has. As long as that `resumes` what another left, what it says is lost was released
    /// while nobody was there.
    fn watch(&mut self, asked: &Realtime, resumes: &mut bool) -> Result<Left, Replaced> {
        // Only here: what opening starts (a decoder's threads) must not inherit it. A refusal was reported at
        // start, once for all threads.
        let _place = realtime::enter(realtime::Role::Capture, asked);
        while !self.stopping() {
            let until = clock::now() + GLANCE;
            match self.port.seat.during(Phase::Watching, || self.source.next(until))? {
                Next::Frame(captured) => {
                    *resumes = false;
                    self.port.deliver(captured);
                }
                Next::Lost(lost) if *resumes => {
                    self.port.tell(News::Lost(Lost { reason: DropReason::SourceDown, ..lost }));
                }
                Next::Lost(lost) => self.port.tell(News::Lost(lost)),
                Next::Nothing => self.port.flush(),
                Next::Ended => return Ok(Left::Ended),
                Next::Failed(error) => return Ok(Left::Failed(error)),
            }
        }
        Ok(Left::Stopped)
    }

    /// Pauses before the next try, or until the camera is back, reporting what is missed meanwhile; false when the
    /// run stops.
    fn pause(&mut self, until: Instant) -> Result<bool, Replaced> {
        while clock::now() < until {
            if self.stopping() {
                return Ok(false);
            }
            let glance = until.min(clock::now() + GLANCE);
            let back = self.port.seat.during(Phase::Pausing, || self.source.await_return(glance))?;
            self.tell_missed()?;
            if back {
                break;
            }
        }
        Ok(!self.stopping())
    }

    fn nap(&self, until: Instant) -> Result<(), Replaced> {
        self.port.seat.during(Phase::Pausing, || clock::sleep_until(until))
    }

    fn missed(&mut self, now: Instant) -> Result<Option<Lost>, Replaced> {
        self.port.seat.during(Phase::Watching, || self.source.missed(now))
    }

    fn tell_missed(&mut self) -> Result<(), Replaced> {
        let now = clock::now();
        while let Some(lost) = self.missed(now)? {
            self.port.tell(News::Lost(lost));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Replaced> {
        self.port.seat.during(Phase::Closing, || self.source.close())
    }

    fn stopping(&self) -> bool {
        self.flags.stop.load(Ordering::Acquire)
    }
}

impl Port {
    pub(super) fn new(ring: Sender<News>, exec: Waker, flags: Arc<Flags>, seat: Arc<Seat>) -> Self {
        Self { ring, exec, flags, seat, overflow: None }
    }

    /// Hands a frame over; a full ring costs the frame, not the camera.
    fn deliver(&mut self, frame: Captured) {
        self.try_flush();
        let (sequence, captured) = (frame.sequence, frame.captured);
        self.seat.told(sequence + 1);
        let refused = match self.overflow {
            Some(_) => true,
            None => self.ring.enqueue(News::Frame(frame, clock::now())).is_err(),
        };
        if refused {
            match &mut self.overflow {
                Some(run) if run.sequence + run.count == sequence => run.count += 1,
                _ => {
                    self.flush();
                    self.overflow =
                        Some(Lost { sequence, count: 1, captured, reason: DropReason::QueueFull });
                }
            }
            self.seat.keep(self.overflow);
        }
        self.exec.arrived();
    }

    /// Hands news over that must not be lost: waits for room. The exec thread empties this ring until every
    /// camera has ended, so room comes unless that thread has died.
    fn tell(&mut self, news: News) {
        self.flush();
        if let News::Lost(lost) = &news {
            self.seat.told(lost.sequence + lost.count);
        }
        self.insist(news);
    }

    fn flush(&mut self) {
        if let Some(lost) = self.overflow.take() {
            self.insist(News::Lost(lost));
            self.seat.keep(None);
        }
    }

    fn try_flush(&mut self) {
        if let Some(lost) = self.overflow
            && self.ring.enqueue(News::Lost(lost)).is_ok()
        {
            self.overflow = None;
            self.seat.keep(None);
        }
    }

    fn insist(&mut self, mut news: News) {
        while let Err(back) = self.ring.enqueue(news) {
            if self.flags.last.load(Ordering::Acquire) {
                return;
            }
            news = back;
            self.exec.wake();
            clock::sleep_until(clock::now() + Duration::from_millis(1));
        }
        self.exec.wake();
    }
}
