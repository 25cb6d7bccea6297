//! Who may still be looking at memory that is out of use.
//!
//! There is one writer. A reader writes the current epoch into a slot of its own before it follows any pointer or row
//! number, and clears the slot when it has copied what it wanted. What the writer takes out of use it marks with the
//! current epoch, then raises the epoch; it uses the memory again once every occupied slot shows a later epoch.
//!
//! Why that is enough. Let the writer (1) unlink X, (2) mark it with epoch E, (3) store E + 1 as the current epoch with
//! release, (4) run a SeqCst fence, (5) load all slots; and a reader (a) load the current epoch with acquire, (b) write
//! it into its slot, (c) run a SeqCst fence, (d) follow pointers.
//!
//! - If (5) does not see (b), then the fence (4) precedes (c) in the one order of all SeqCst fences (had (c) come first,
//!   (5) would see (b)), so (d) sees (1): the reader cannot reach X.
//! - If (5) sees an epoch above E, the reader loaded it in (a) from a store after (1), so (d) sees (1) again.
//! - If (5) sees E or less, the writer waits.
//!
//! The copies that a reader made happen before its slot is cleared with release, and (5) loads with acquire; taking a
//! slot over is an AcqRel exchange, which passes the former holder's release on. So the writer's next use of the memory
//! comes after those copies.

use std::any::Any;
use std::sync::{Arc, Mutex};

use super::sync::{AtomicU64, AtomicUsize, Ordering, fence, yield_now};
use super::trash::Trash;
use crate::memory::ARC_BYTES;

/// Readers and snapshots of one partition at the same instant. A read holds its slot for microseconds and never waits
/// while it does, so there are as many as threads run reads at once (one a core), and a snapshot holds one more. Were
/// they all taken, the next reader would yield its thread until one is free. Models have two: what can happen grows with
/// each slot that the writer looks at.
pub(crate) const READERS_MAX: usize = if cfg!(loom) { 2 } else { 128 };

const FREE: u64 = 0;

/// One cache line each, so that readers do not slow each other down.
#[repr(align(64))]
struct Padded(AtomicU64);

/// The current epoch and the readers' slots.
pub(crate) struct Epochs {
    current: Padded,
    slots: [Padded; READERS_MAX],
    homes: AtomicUsize,
    /// What waited for readers when the writer went away; goes with the last of them.
    graveyard: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl Epochs {
    /// Bytes in memory, behind an `Arc`.
    pub const BYTES: usize = ARC_BYTES + size_of::<Self>();

    /// The epochs of one partition, and the writer's half. All cells that are read under a guard of these epochs must
    /// be changed with this trash.
    pub fn new() -> (Arc<Self>, Trash) {
        let epochs = Arc::new(Self {
            current: Padded(AtomicU64::new(FREE + 1)),
            slots: std::array::from_fn(|_| Padded(AtomicU64::new(FREE))),
            homes: AtomicUsize::new(0),
            graveyard: Mutex::new(Vec::new()),
        });
        (epochs.clone(), Trash::new(epochs))
    }

    /// A slot to try first, another one for each caller.
    pub fn home(&self) -> usize {
        self.homes.fetch_add(1, Ordering::Relaxed) % READERS_MAX
    }

    /// Keeps everything that can be reached now from being used again while the guard lives.
    pub fn pin(&self, home: usize) -> Guard<'_> {
        Guard { epochs: self, slot: self.claim(home) }
    }

    /// As [`Epochs::pin`], for as long as a snapshot takes.
    pub fn pin_long(self: &Arc<Self>) -> LongGuard {
        LongGuard { slot: self.claim(self.home()), epochs: self.clone() }
    }

    fn claim(&self, home: usize) -> usize {
        loop {
            for step in 0..READERS_MAX {
                let at = (home + step) % READERS_MAX;
                let slot = &self.slots[at].0;
                if slot.load(Ordering::Relaxed) != FREE {
                    continue;
                }
                let now = self.current.0.load(Ordering::Acquire);
                if slot.compare_exchange(FREE, now, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    fence(Ordering::SeqCst);
                    return at;
                }
            }
            yield_now();
        }
    }

    fn leave(&self, slot: usize) {
        self.slots[slot].0.store(FREE, Ordering::Release);
    }

    /// The current epoch, for the writer.
    pub(super) fn current(&self) -> u64 {
        self.current.0.load(Ordering::Relaxed)
    }

    /// Raises the epoch; gives the lowest epoch that a reader holds. For the writer alone.
    pub(super) fn advance(&self) -> u64 {
        self.current.0.store(self.current() + 1, Ordering::Release);
        fence(Ordering::SeqCst);
        let held = self.slots.iter().map(|slot| slot.0.load(Ordering::Acquire)).filter(|&epoch| epoch != FREE);
        held.min().unwrap_or(u64::MAX)
    }

    pub(super) fn bury(&self, dead: impl Iterator<Item = Arc<dyn Any + Send + Sync>>) {
        self.graveyard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend(dead);
    }
}

/// A reader's stay.
pub(crate) struct Guard<'a> {
    epochs: &'a Epochs,
    slot: usize,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.epochs.leave(self.slot);
    }
}

/// A snapshot's stay.
pub(crate) struct LongGuard {
    epochs: Arc<Epochs>,
    slot: usize,
}

impl Drop for LongGuard {
    fn drop(&mut self) {
        self.epochs.leave(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_has_a_slot_of_its_own_and_gives_it_back() {
        let (epochs, _trash) = Epochs::new();
        let guards: Vec<_> = (0..READERS_MAX).map(|_| epochs.pin(7)).collect();
        let mut slots: Vec<_> = guards.iter().map(|guard| guard.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..READERS_MAX).collect::<Vec<_>>());
        drop(guards);
        assert_eq!(epochs.pin(7).slot, 7);
        assert_eq!(epochs.advance(), u64::MAX);
    }
}
