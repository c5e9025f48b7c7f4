//! Who owns which slot: the lock-free core of a share, without the memory.
//!
//! A free slot is a set bit in a bitmap. A slot in use has a state word: the number of frame references on
//! it, a flag while a foreign owner leases it, and a flag for the few instructions in which one thread alone
//! may touch the slot's cells. **Whoever brings the state to zero sets the bit again.** Every operation is a
//! bounded number of atomic instructions but for retries against threads that made progress; no locks, no
//! waiting, no allocation.
//!
//! | state | meaning | leaves by |
//! |---|---|---|
//! | 0 | free, its bit is set | `take` |
//! | 1 | being filled, or frozen with one reference | `give_back`, `lease`; `share`, `release` |
//! | n | frozen, n references | `share`, `release` |
//! | LEASED | a foreign owner fills it | `adopt`, `end_lease` |
//! | LEASED + n | adopted: n references that keep the foreign owner | `share`, `release`, `adopt` |
//! | BUSY (+ LEASED) | cells change hands | the thread that set it |
//!
//! A lease that ends while frames are on the slot only clears its flag; the last reference frees the slot.
#![allow(unsafe_code)] // The cells belong to whoever the state word says, which the compiler can't see.

use super::sync::{AtomicU64, Ordering, UnsafeCell};

const LEASED: u64 = 1 << 63;
const BUSY: u64 = 1 << 62;
/// 2^62 references would take a century to make; each of them also counts in an `Arc`.
const REFERENCES: u64 = BUSY - 1;

/// The slots of one share. `V` says what a frozen slot holds, `K` keeps its foreign owner.
#[derive(Debug)]
pub struct Slots<V, K> {
    free: Box<[AtomicU64]>,
    slots: Box<[Slot<V, K>]>,
}

/// Two cache lines, so that neighbours' counters don't fight.
#[derive(Debug)]
#[repr(align(128))]
struct Slot<V, K> {
    state: AtomicU64,
    view: UnsafeCell<Option<V>>,
    keeper: UnsafeCell<Option<K>>,
}

// SAFETY: the state word orders all access to the cells: `view` and `keeper` are written only by a slot's one
// owner (taken, or BUSY), `view` is read through shared references only while references are counted
// (hence V: Sync), and both may be dropped by another thread than the one that wrote them (hence Send).
unsafe impl<V: Send + Sync, K: Send> Sync for Slots<V, K> {}

impl<V: PartialEq, K> Slots<V, K> {
    /// `count` free slots.
    pub fn new(count: usize) -> Self {
        let free = (0..count.div_ceil(64)).map(|word| {
            let bits = (count - word * 64).min(64);
            AtomicU64::new(u64::MAX >> (64 - bits))
        });
        let slot =
            || Slot { state: AtomicU64::new(0), view: UnsafeCell::new(None), keeper: UnsafeCell::new(None) };
        Self { free: free.collect(), slots: (0..count).map(|_| slot()).collect() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// How many are free at the moment.
    pub fn free(&self) -> usize {
        self.free.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Takes a free slot; the caller is its one owner.
    pub fn take(&self) -> Option<usize> {
        for (index, word) in self.free.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != 0 {
                let without = seen & (seen - 1);
                // Acquire: what the last owner did to the slot happened before (its Release in `set_free`).
                match word.compare_exchange_weak(seen, without, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => {
                        let slot = index * 64 + seen.trailing_zeros() as usize;
                        self.slots[slot].state.store(1, Ordering::Relaxed);
                        return Some(slot);
                    }
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Returns a slot that was never frozen.
    ///
    /// # Safety
    /// The caller is the slot's one owner (from [`Self::take`]), and no more after this.
    pub unsafe fn give_back(&self, slot: usize) {
        self.slots[slot].state.store(0, Ordering::Relaxed);
        self.set_free(slot);
    }

    /// Says what the slot holds. Its owner now holds the first of its references.
    ///
    /// # Safety
    /// The caller is the slot's one owner (from [`Self::take`]).
    pub unsafe fn freeze(&self, slot: usize, view: V) {
        // SAFETY: the one owner calls; there is no reference yet.
        self.slots[slot].view.with_mut(|cell| unsafe { *cell = Some(view) });
    }

    /// What a frozen slot holds.
    ///
    /// # Safety
    /// The caller holds a reference for as long as it uses the answer.
    pub unsafe fn view(&self, slot: usize) -> Option<&V> {
        // SAFETY: nobody writes the cell while references are counted.
        self.slots[slot].view.with(|cell| unsafe { (*cell).as_ref() })
    }

    /// Counts one more reference.
    ///
    /// # Safety
    /// The caller holds a reference.
    pub unsafe fn share(&self, slot: usize) {
        // Relaxed, as for `Arc`: the new reference is handed on by the holder of an old one.
        self.slots[slot].state.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a reference; the last one frees the slot, or hands back the keeper, to be dropped by the caller
    /// (who must not hold anything of the slot then: dropping a keeper may end the lease).
    ///
    /// # Safety
    /// The caller holds a reference, and no more after this.
    pub unsafe fn release(&self, slot: usize) -> Option<K> {
        let Slot { state, keeper, .. } = &self.slots[slot];
        let mut seen = state.load(Ordering::Relaxed);
        loop {
            let last = seen & REFERENCES == 1;
            let next = if last { (seen & LEASED) | BUSY } else { seen - 1 };
            // Release: this reference's reads are over. Acquire: so are those of all earlier ones.
            match state.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if last => break,
                Ok(_) => return None,
                Err(now) => seen = now,
            }
        }
        // SAFETY: BUSY is ours: no reference is left, `adopt` refuses, `end_lease` touches no cell.
        let kept = keeper.with_mut(|cell| unsafe { (*cell).take() });
        if state.fetch_sub(BUSY, Ordering::AcqRel) == BUSY {
            self.set_free(slot);
        }
        kept
    }

    /// Lends the slot to a foreign owner.
    ///
    /// # Safety
    /// The caller is the slot's one owner (from [`Self::take`]); after this it holds the lease instead.
    pub unsafe fn lease(&self, slot: usize) {
        self.slots[slot].state.store(LEASED, Ordering::Release);
    }

    /// Whether a leased slot has no reference on it; whoever asks may then write to it, if it holds the lease.
    pub fn is_idle(&self, slot: usize) -> bool {
        // Acquire: all references' reads are over (their Release in `release`).
        self.slots[slot].state.load(Ordering::Acquire) == LEASED
    }

    /// Ends a lease; frees the slot unless frames are on it, whose last one will.
    ///
    /// # Safety
    /// The caller holds the slot's lease, and no more after this.
    pub unsafe fn end_lease(&self, slot: usize) {
        if self.slots[slot].state.fetch_and(!LEASED, Ordering::AcqRel) == LEASED {
            self.set_free(slot);
        }
    }

    /// Makes a reference on a leased slot; its keeper is handed back when the last reference ends. A slot
    /// that holds the same `view` already is shared once more, and `keeper` comes back in `Ok`.
    ///
    /// # Errors
    /// The keeper, when the slot is not leased, holds something else, or is at this moment being let go by
    /// another thread (which is not waited for).
    pub fn adopt(&self, slot: usize, view: V, keeper: K) -> Result<Option<K>, K> {
        let Slot { state, view: views, keeper: keepers } = &self.slots[slot];
        let mut seen = state.load(Ordering::Relaxed);
        let shared = loop {
            if seen & LEASED == 0 || seen & BUSY != 0 {
                return Err(keeper);
            }
            let shared = seen & REFERENCES > 0;
            let next = if shared { seen + 1 } else { seen | BUSY };
            // Acquire: the cells are as the thread that cleared BUSY left them.
            match state.compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break shared,
                Err(now) => seen = now,
            }
        };
        if shared {
            // SAFETY: a reference is ours since the exchange above.
            if unsafe { self.view(slot) } == Some(&view) {
                return Ok(Some(keeper));
            }
            // SAFETY: the same reference. Should it have become the last, its keeper is dropped here.
            drop(unsafe { self.release(slot) });
            return Err(keeper);
        }
        // SAFETY: BUSY is ours, see `release`.
        views.with_mut(|cell| unsafe { *cell = Some(view) });
        // SAFETY: the same.
        keepers.with_mut(|cell| unsafe { *cell = Some(keeper) });
        // From BUSY to the first reference in one step; the lease may have ended meanwhile.
        state.fetch_sub(BUSY - 1, Ordering::AcqRel);
        Ok(None)
    }

    fn set_free(&self, slot: usize) {
        self.free[slot / 64].fetch_or(1 << (slot % 64), Ordering::Release);
    }
}
