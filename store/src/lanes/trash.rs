//! What is out of use and waits for its last readers.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use stoa_protocol::FeatureGroupId;

use super::epochs::Epochs;
use crate::arena::ArenaRef;
use crate::index::Place;

/// A thing out of use.
pub(crate) enum Dead {
    /// A row number of a group.
    Row(FeatureGroupId, u32),
    /// A value or key in the arena.
    Value(ArenaRef),
    /// A segment of the index of a group.
    Segment(FeatureGroupId, Place),
    /// A directory, a table of groups.
    Memory(Box<Retired>),
}

/// Memory out of use.
pub(crate) struct Retired {
    pub memory: Arc<dyn Any + Send + Sync>,
    /// What goes with it when it is dropped; 0 if that is counted elsewhere.
    pub bytes: usize,
}

/// The writer's half of the [`Epochs`]: things out of use, oldest first.
pub(crate) struct Trash {
    epochs: Arc<Epochs>,
    queue: VecDeque<(u64, Dead)>,
    /// Bytes of retired memory that waits, with the boxes around it.
    memory_bytes: usize,
}

/// Room that the queue keeps when it has become short again.
const QUEUE_KEPT: usize = 4_096;

impl Trash {
    pub(super) fn new(epochs: Arc<Epochs>) -> Self {
        Self { epochs, queue: VecDeque::new(), memory_bytes: 0 }
    }

    /// Takes a thing that no reader can reach from now on.
    pub fn push(&mut self, dead: Dead) {
        self.memory_bytes += dead.memory_bytes();
        self.queue.push_back((self.epochs.current(), dead));
    }

    /// Hands out what no reader can be looking at any more. One scan of the readers' slots, so once per command.
    pub fn collect(&mut self, mut reuse: impl FnMut(Dead)) {
        if self.queue.is_empty() {
            return;
        }
        let held = self.epochs.advance();
        while self.queue.front().is_some_and(|(epoch, _)| *epoch < held) {
            let (_, dead) = self.queue.pop_front().expect("the front was there");
            self.memory_bytes -= dead.memory_bytes();
            reuse(dead);
        }
        // A long snapshot leaves a long queue behind, once.
        if self.queue.capacity() > QUEUE_KEPT && self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to(self.queue.len() * 2);
        }
    }

    /// Bytes of retired memory that waits.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Bytes of the list itself.
    pub fn list_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<(u64, Dead)>()
    }

    /// What waits, for the accounts.
    pub fn iter(&self) -> impl Iterator<Item = &Dead> {
        self.queue.iter().map(|(_, dead)| dead)
    }
}

impl Dead {
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Memory(retired) => retired.bytes + size_of::<Retired>(),
            Self::Row(..) | Self::Value(_) | Self::Segment(..) => 0,
        }
    }
}

impl Drop for Trash {
    /// Readers may outlive the writer: what they could be looking at goes with the last of them.
    fn drop(&mut self) {
        let memory = self.queue.drain(..).filter_map(|(_, dead)| match dead {
            Dead::Memory(retired) => Some(retired.memory),
            Dead::Row(..) | Dead::Value(_) | Dead::Segment(..) => None,
        });
        self.epochs.bury(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_defers_what_was_retired_during_its_stay_and_nothing_later_comers_do() {
        let (epochs, mut trash) = Epochs::new();
        let row = |row| Dead::Row(FeatureGroupId(1), row);
        let collect = |trash: &mut Trash| {
            let mut rows = Vec::new();
            trash.collect(|dead| {
                if let Dead::Row(_, row) = dead {
                    rows.push(row);
                }
            });
            rows
        };
        trash.push(row(1));
        let reader = epochs.pin(0);
        assert_eq!(collect(&mut trash), [] as [u32; 0], "retired before the reader came, in the same epoch");
        let late = epochs.pin(0);
        trash.push(row(2));
        drop(reader);
        assert_eq!(collect(&mut trash), [1], "the late reader came after row 1 was out of reach");
        drop(late);
        assert_eq!(collect(&mut trash), [2]);
    }
}
