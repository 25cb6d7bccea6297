//! What all groups of a partition share for writing: the arena, the trash, and what snapshots hold.

use std::sync::{Arc, Mutex, Weak};

use stoa_planted::planted;

use crate::arena::{ArenaRef, ArenaWriter};
use crate::lanes::{Dead, Trash};

/// The writer's shared means.
pub(crate) struct Space {
    pub arena: ArenaWriter,
    pub trash: Trash,
    /// Bytes of arena slots that wait for readers.
    pub waiting_bytes: u64,
    /// The seed of the index hash.
    pub seed: u64,
    /// Snapshots begun before this command; index segments carry the number of their time.
    pub generation: u64,
    /// Index segments older than this belong to a snapshot that is being read.
    pub shared_before: u64,
    snapshots: Mutex<Snapshots>,
}

/// A snapshot is begun through a shared reference, hence the lock; apply takes it once a command.
#[derive(Default)]
struct Snapshots {
    begun: u64,
    /// Those that may still be read, by their number.
    live: Vec<(u64, Weak<()>)>,
}

impl Space {
    pub fn new(seed: u64, trash: Trash) -> Self {
        Self {
            arena: ArenaWriter::new(),
            trash,
            waiting_bytes: 0,
            seed,
            generation: 0,
            shared_before: 0,
            snapshots: Mutex::new(Snapshots::default()),
        }
    }

    /// Takes a value out of use.
    pub fn retire_value(&mut self, reference: ArenaRef) {
        if planted!(ReuseValueTooEarly) {
            return self.arena.free(reference);
        }
        if reference.len() > 0 {
            self.waiting_bytes += reference.slot_bytes() as u64;
            self.trash.push(Dead::Value(reference));
        }
    }

    /// Whether a snapshot may be read, as it was noticed last.
    pub fn has_snapshots(&self) -> bool {
        self.shared_before > 0
    }

    /// Counts a snapshot that begins now; it ends when the token is dropped.
    pub fn begin_snapshot(&self) -> Arc<()> {
        let token = Arc::new(());
        let mut snapshots = self.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        snapshots.begun += 1;
        let number = snapshots.begun;
        snapshots.live.push((number, Arc::downgrade(&token)));
        token
    }

    /// Notices snapshots that have begun or ended; before each command.
    pub fn notice_snapshots(&mut self) {
        let snapshots = self.snapshots.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        snapshots.live.retain(|(_, token)| token.strong_count() > 0);
        self.generation = snapshots.begun;
        self.shared_before = snapshots.live.last().map_or(0, |(number, _)| *number);
    }
}
