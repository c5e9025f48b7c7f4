//! The pool's lock-free core under loom: every interleaving of a few threads, with the memory order that the
//! language promises rather than the one that this processor happens to have.
#![allow(unsafe_code)] // The core's callers promise who owns a slot; here the tests are the callers.

#[path = "../src/pool/slots.rs"]
mod slots;

/// What `slots` is made of, in loom's version.
mod sync {
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

type Slots = slots::Slots<u32, Keeper>;

/// Counts its drop, once.
struct Keeper(Arc<AtomicUsize>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two threads take and return: no slot has two owners (loom would see both write its cell), none is lost.
#[test]
fn a_slot_has_one_owner() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1));
        let work = |slots: Arc<Slots>, mark: u32| {
            move || {
                if let Some(slot) = slots.take() {
                    // SAFETY: taken just now.
                    unsafe { slots.freeze(slot, mark) };
                    // SAFETY: frozen just now.
                    assert_eq!(unsafe { slots.view(slot) }, Some(&mark));
                    // SAFETY: the one reference.
                    assert!(unsafe { slots.release(slot) }.is_none());
                }
                if let Some(slot) = slots.take() {
                    // SAFETY: taken just now.
                    unsafe { slots.give_back(slot) };
                }
            }
        };
        let other = thread::spawn(work(slots.clone(), 1));
        work(slots.clone(), 2)();
        other.join().unwrap();
        assert_eq!(slots.free(), 1);
    });
}

/// Two slots for two threads: nobody is turned away, nobody gets the other's.
#[test]
fn enough_slots_are_enough() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(2));
        let theirs = slots.clone();
        let other = thread::spawn(move || theirs.take().expect("two slots, two threads"));
        let mine = slots.take().expect("two slots, two threads");
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        assert_eq!((slots.free(), slots.count()), (0, 2));
    });
}

/// References end on two threads: the slot is freed once, after both have read.
#[test]
fn the_last_reference_frees() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1));
        let slot = slots.take().unwrap();
        // SAFETY: taken; then one reference for each thread.
        unsafe {
            slots.freeze(slot, 7);
            slots.share(slot);
        }
        let read_and_release = |slots: Arc<Slots>| {
            move || {
                // SAFETY: this thread's reference.
                assert_eq!(unsafe { slots.view(slot) }, Some(&7));
                // SAFETY: the same, for the last time.
                assert!(unsafe { slots.release(slot) }.is_none());
                if let Some(slot) = slots.take() {
                    // SAFETY: taken: whoever gets it may write.
                    unsafe { slots.freeze(slot, 8) };
                    // SAFETY: the one reference.
                    assert!(unsafe { slots.release(slot) }.is_none());
                }
            }
        };
        let other = thread::spawn(read_and_release(slots.clone()));
        read_and_release(slots.clone())();
        other.join().unwrap();
        assert_eq!(slots.free(), 1);
    });
}

/// The last reference of an adopted frame ends while the same buffer is adopted again: either the same frame
/// goes on, or a new one begins, or the adoption is refused; every keeper is dropped exactly once.
#[test]
fn adopting_meets_the_last_drop() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1));
        let drops = Arc::new(AtomicUsize::new(0));
        let slot = slots.take().unwrap();
        // SAFETY: taken.
        unsafe { slots.lease(slot) };
        assert!(matches!(slots.adopt(slot, 1, Keeper(drops.clone())), Ok(None)));
        let theirs = slots.clone();
        let other = thread::spawn(move || {
            // SAFETY: the adopted frame's reference.
            drop(unsafe { theirs.release(slot) });
        });
        if let Ok(spare) = slots.adopt(slot, 1, Keeper(drops.clone())) {
            drop(spare);
            // SAFETY: the reference from just now.
            assert_eq!(unsafe { slots.view(slot) }, Some(&1));
            // SAFETY: the same, for the last time.
            drop(unsafe { slots.release(slot) });
        }
        other.join().unwrap();
        assert_eq!((drops.load(Ordering::Relaxed), slots.free()), (2, 0));
        // SAFETY: the lease from above.
        unsafe { slots.end_lease(slot) };
        assert_eq!(slots.free(), 1);
    });
}

/// As above, but the second delivery differs: it must be refused as long as the first frame lives.
#[test]
fn adopting_something_else_never_changes_a_frame() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1));
        let drops = Arc::new(AtomicUsize::new(0));
        let slot = slots.take().unwrap();
        // SAFETY: taken.
        unsafe { slots.lease(slot) };
        assert!(slots.adopt(slot, 1, Keeper(drops.clone())).is_ok());
        let theirs = slots.clone();
        let other = thread::spawn(move || {
            // SAFETY: the adopted frame's reference.
            assert_eq!(unsafe { theirs.view(slot) }, Some(&1));
            // SAFETY: the same, for the last time.
            drop(unsafe { theirs.release(slot) });
        });
        if slots.adopt(slot, 2, Keeper(drops.clone())).is_ok() {
            // SAFETY: the reference from just now.
            assert_eq!(unsafe { slots.view(slot) }, Some(&2));
            // SAFETY: the same, for the last time.
            drop(unsafe { slots.release(slot) });
        }
        other.join().unwrap();
        assert_eq!((drops.load(Ordering::Relaxed), slots.free()), (2, 0));
    });
}

/// The owner of a lease looks whether its slot is idle while the frame's last reference ends: when it is, everything
/// has been read, and the owner may have it written to. (Loom would see a write beside the other thread's read.)
#[test]
fn an_idle_slot_has_been_read() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1));
        let drops = Arc::new(AtomicUsize::new(0));
        let slot = slots.take().unwrap();
        // SAFETY: taken.
        unsafe { slots.lease(slot) };
        assert!(slots.is_idle(slot));
        assert!(slots.adopt(slot, 1, Keeper(drops.clone())).is_ok());
        assert!(!slots.is_idle(slot));
        let theirs = slots.clone();
        let other = thread::spawn(move || {
            // SAFETY: the adopted frame's reference.
            assert_eq!(unsafe { theirs.view(slot) }, Some(&1));
            // SAFETY: the same, for the last time.
            drop(unsafe { theirs.release(slot) });
        });
        if slots.is_idle(slot) {
            assert!(slots.adopt(slot, 2, Keeper(drops.clone())).is_ok(), "nobody else puts frames there");
            // SAFETY: the reference from just now.
            drop(unsafe { slots.release(slot) });
        }
        other.join().unwrap();
        assert!(slots.is_idle(slot));
        // SAFETY: the lease from above.
        unsafe { slots.end_lease(slot) };
        assert!(!slots.is_idle(slot) && slots.free() == 1);
    });
}

/// A lease ends while its frame's last reference ends: the slot is freed exactly once.
#[test]
fn a_lease_ends_beside_its_frame() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1));
        let drops = Arc::new(AtomicUsize::new(0));
        let slot = slots.take().unwrap();
        // SAFETY: taken.
        unsafe { slots.lease(slot) };
        assert!(slots.adopt(slot, 1, Keeper(drops.clone())).is_ok());
        let theirs = slots.clone();
        let other = thread::spawn(move || {
            // SAFETY: the lease from above.
            unsafe { theirs.end_lease(slot) };
            theirs.take().is_some_and(|slot| {
                // SAFETY: taken just now; were the frame still on it, loom would see both at the cell.
                unsafe { theirs.freeze(slot, 2) };
                true
            })
        });
        // SAFETY: the adopted frame's reference.
        assert_eq!(unsafe { slots.view(slot) }, Some(&1));
        // SAFETY: the same, for the last time.
        drop(unsafe { slots.release(slot) });
        let taken_again = other.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(slots.free(), usize::from(!taken_again));
    });
}
