//! Slots and rings for capture threads: what is free for the next one, and what a stuck one still owns.

use crate::pool::Share;
use crate::ring::{Receiver, Sender, ring};
use crate::runtime::capture::{self, News};
use crate::stream::StreamId;
use std::thread::JoinHandle;

/// What a capture thread needs beside its source: slots, and a ring to the exec thread.
pub(super) struct Kit {
    pub(super) share: Share,
    /// None where a thread died with it.
    ring: Option<(Sender<News>, Receiver<News>)>,
}

impl Kit {
    pub(super) fn new(share: Share) -> Self {
        Self { share, ring: None }
    }

    pub(super) fn into_parts(self) -> (Share, Sender<News>, Receiver<News>) {
        let (to_exec, from_capture) = self.ring.unwrap_or_else(ring::<_, { capture::RING }>);
        (self.share, to_exec, from_capture)
    }
}

/// What a stuck thread still owns, and what has come back of it.
struct Quarantined {
    stream: StreamId,
    share: Share,
    thread: Option<JoinHandle<Sender<News>>>,
    sender: Option<Sender<News>>,
    receiver: Option<Receiver<News>>,
}

/// What can be used for the next thread, and what will be when its owner lets go.
#[derive(Default)]
pub(super) struct Stock {
    kits: Vec<Kit>,
    quarantine: Vec<Quarantined>,
}

impl Stock {
    pub(super) fn new(spare: Option<Share>) -> Self {
        Self { kits: spare.map(Kit::new).into_iter().collect(), quarantine: Vec::new() }
    }

    /// The smallest kit with slots enough for what used `share`.
    pub(super) fn take(&mut self, share: &Share) -> Option<Kit> {
        let fits =
            |kit: &&Kit| kit.share.slots() >= share.slots() && kit.share.slot_bytes() >= share.slot_bytes();
        let size = |kit: &Kit| kit.share.slots() * kit.share.slot_bytes();
        let best = self.kits.iter().filter(fits).map(size).min()?;
        let at = self.kits.iter().position(|kit| fits(&kit) && size(kit) == best)?;
        Some(self.kits.swap_remove(at))
    }

    /// One that was not used after all.
    pub(super) fn put_back(&mut self, share: Share) {
        self.kits.push(Kit::new(share));
    }

    /// A thread has been given up: what it owns stays its own until it ends. Exec will send its ring.
    pub(super) fn quarantine(
        &mut self,
        stream: StreamId,
        share: Share,
        thread: Option<JoinHandle<Sender<News>>>,
    ) {
        self.quarantine.push(Quarantined { stream, share, thread, sender: None, receiver: None });
    }

    /// Exec's end of the ring of the thread that was given up first.
    pub(super) fn ring_back(&mut self, stream: StreamId, ring: Receiver<News>) {
        let first = self.quarantine.iter_mut().find(|q| q.stream == stream && q.receiver.is_none());
        if let Some(quarantined) = first {
            quarantined.receiver = Some(ring);
        }
    }

    /// Looks who has let go. Everything counts: the thread has ended, exec has sent the ring's other end, and
    /// nobody reads one of the frames any more.
    pub(super) fn collect(&mut self) {
        let mut index = 0;
        while let Some(q) = self.quarantine.get_mut(index) {
            if let Some(thread) = q.thread.take_if(|thread| thread.is_finished()) {
                // A thread that panicked has taken its end of the ring along.
                q.sender = thread.join().ok();
            }
            let free = q.share.free_slots() == q.share.slots();
            if q.thread.is_some() || q.receiver.is_none() || !free {
                index += 1;
                continue;
            }
            let Quarantined { share, sender, receiver, .. } = self.quarantine.swap_remove(index);
            self.kits.push(Kit { share, ring: sender.zip(receiver) });
        }
    }

    /// Threads that were given up and have not come back.
    pub(super) fn stuck(&self) -> usize {
        self.quarantine.iter().filter(|q| q.thread.is_some()).count()
    }
}
