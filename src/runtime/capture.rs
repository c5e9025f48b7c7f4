//! A capture thread: one camera, from its source into its ring, reopened when it fails.

use crate::board::Realtime;
use crate::capture::{Captured, Next, Resources, Source, SourceError};
use crate::job::{DropReason, Lost, bounded};
use crate::platform::{Waker, clock, realtime};
use crate::ring::Sender;
use crate::runtime::Flags;
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
    /// A frame.
    Frame(Captured),
    /// Captured frames that are lost.
    Lost(Lost),
    /// The stream's source changed.
    Changed(StreamState, heapless::String<160>),
}

/// One camera's thread.
pub(super) struct Camera {
    id: String,
    source: Box<dyn Source>,
    resources: Resources,
    port: Port,
    flags: Arc<Flags>,
}

/// The way to the exec thread.
struct Port {
    ring: Sender<News>,
    exec: Waker,
    flags: Arc<Flags>,
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
    pub(super) fn new(
        id: String,
        source: Box<dyn Source>,
        resources: Resources,
        ring: Sender<News>,
        exec: Waker,
        flags: Arc<Flags>,
    ) -> Self {
        let port = Port { ring, exec, flags: flags.clone(), overflow: None };
        Self { id, source, resources, port, flags }
    }

    /// Runs the camera until the run stops or the source ends.
    pub(super) fn run(mut self, asked: &Realtime) {
        let mut pause = FIRST_PAUSE;
        let mut first = true;
        loop {
            let opened = self.source.open(&self.resources);
            if opened.is_ok() {
                self.flags.opened.store(true, Ordering::Release);
            }
            if std::mem::take(&mut first) {
                if opened.is_err() {
                    self.flags.refused.fetch_add(1, Ordering::AcqRel);
                }
                self.flags.tried.fetch_add(1, Ordering::AcqRel);
                self.await_beginning();
            }
            let since = clock::now();
            let left = match opened {
                Ok(opened) => {
                    for note in &opened.notes {
                        log::info!("{}: {note}", self.id);
                    }
                    self.watch(asked)
                }
                Err(error) => Left::Failed(error),
            };
            match left {
                Left::Stopped => break,
                Left::Ended => {
                    log::info!("{}: its video has come to an end", self.id);
                    self.port.tell(News::Changed(StreamState::Ended, bounded("end of stream")));
                    self.source.close();
                    self.flags.ended.fetch_add(1, Ordering::AcqRel);
                    return;
                }
                Left::Failed(error) => {
                    if clock::now().since(since) > HEALTHY {
                        pause = FIRST_PAUSE;
                    }
                    log::warn!("{}: down: {error} (trying again in {pause:.1?})", self.id);
                    self.port.tell(News::Changed(StreamState::Down, bounded(&error.to_string())));
                    self.source.close();
                    if !self.pause(clock::now() + pause) {
                        break;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        self.tell_missed();
        self.port.flush();
        self.source.close();
        self.flags.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until all cameras have been tried; releases before the run's beginning do not count.
    fn await_beginning(&mut self) {
        while self.flags.began.get().is_none() && !self.stopping() {
            clock::sleep_until(clock::now() + Duration::from_millis(2));
        }
        if let Some(&began) = self.flags.began.get() {
            while self.source.missed(began).is_some() {}
        }
    }

    fn watch(&mut self, asked: &Realtime) -> Left {
        // Only here: what opening starts (a decoder's threads) must not inherit it. A refusal was reported at
        // start, once for all threads.
        let _place = realtime::enter(realtime::Role::Capture, asked);
        while !self.stopping() {
            match self.source.next(clock::now() + GLANCE) {
                Next::Frame(captured) => self.port.deliver(captured),
                Next::Lost(lost) => self.port.tell(News::Lost(lost)),
                Next::Nothing => self.port.flush(),
                Next::Ended => return Left::Ended,
                Next::Failed(error) => return Left::Failed(error),
            }
        }
        Left::Stopped
    }

    /// Pauses before the next try, reporting what is missed meanwhile; false when the run stops.
    fn pause(&mut self, until: Instant) -> bool {
        while clock::now() < until {
            if self.stopping() {
                return false;
            }
            clock::sleep_until(until.min(clock::now() + GLANCE));
            self.tell_missed();
        }
        !self.stopping()
    }

    fn tell_missed(&mut self) {
        let now = clock::now();
        while let Some(lost) = self.source.missed(now) {
            self.port.tell(News::Lost(lost));
        }
    }

    fn stopping(&self) -> bool {
        self.flags.stop.load(Ordering::Acquire)
    }
}

impl Port {
    /// Hands a frame over; a full ring costs the frame, not the camera.
    fn deliver(&mut self, frame: Captured) {
        self.try_flush();
        let (sequence, captured) = (frame.sequence, frame.captured);
        let refused = match self.overflow {
            Some(_) => true,
            None => self.ring.enqueue(News::Frame(frame)).is_err(),
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
        }
        self.exec.arrived();
    }

    /// Hands news over that must not be lost: waits for room. The exec thread empties this ring until every
    /// camera has ended, so room comes unless that thread has died.
    fn tell(&mut self, news: News) {
        self.flush();
        self.insist(news);
    }

    fn flush(&mut self) {
        if let Some(lost) = self.overflow.take() {
            self.insist(News::Lost(lost));
        }
    }

    fn try_flush(&mut self) {
        if let Some(lost) = self.overflow
            && self.ring.enqueue(News::Lost(lost)).is_ok()
        {
            self.overflow = None;
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
