//! Where values and keys of variable length lie: slots of about two sizes an octave, each size a [`Slab`] with a list of
//! free slots. A reference says size class, length and slot in 8 bytes.

use std::sync::Arc;

use stoa_protocol::limits::VALUE_BYTES_MAX;

use crate::lanes::Slab;

const CLASSES: usize = 26;

/// 8, 16, 24, 32, 48, 64, 96 and so on to the largest value: at most a third of a slot is wasted beyond 16 bytes.
const CLASS_BYTES: [usize; CLASSES] = {
    let mut sizes = [8; CLASSES];
    sizes[1] = 16;
    sizes[2] = 24;
    let mut at = 3;
    let mut octave = 32;
    while at < CLASSES {
        sizes[at] = octave;
        if at + 1 < CLASSES {
            sizes[at + 1] = octave / 2 * 3;
        }
        at += 2;
        octave *= 2;
    }
    sizes
};

const _: () = {
    assert!(CLASS_BYTES[CLASSES - 1] == VALUE_BYTES_MAX, "the largest class holds the largest value");
    assert!(VALUE_BYTES_MAX < 1 << 24, "a reference has 24 bits of length");
};

/// Where a value lies: class in bits 56 to 63, length in bits 32 to 55, slot in bits 0 to 31. No bytes take no slot: the
/// reference 0, which validity tells apart from a null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct ArenaRef(pub u64);

impl ArenaRef {
    /// Stands in the row of an answer, and nowhere else, where the default of a feature belongs. As no value has so few
    /// bytes and a slot, it is nobody's.
    pub const DEFAULT: Self = Self(1);

    fn new(class: usize, length: usize, slot: u32) -> Self {
        Self((class as u64) << 56 | (length as u64) << 32 | u64::from(slot))
    }
    fn class(self) -> usize {
        (self.0 >> 56) as usize
    }
    fn slot(self) -> u32 {
        self.0 as u32
    }
    /// Bytes of the value.
    pub fn len(self) -> usize {
        (self.0 >> 32 & 0xff_ffff) as usize
    }
    /// Bytes of its slot.
    pub fn slot_bytes(self) -> usize {
        if self.len() == 0 { 0 } else { CLASS_BYTES[self.class()] }
    }
}

/// The readers' half.
pub(crate) struct Arena {
    classes: [Slab; CLASSES],
}

impl Arena {
    /// Appends the value to `out`.
    pub fn read(&self, reference: ArenaRef, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + reference.len(), 0);
        if reference.len() > 0 {
            self.classes[reference.class()].read(reference.slot(), &mut out[start..]);
        }
    }

    /// Whether the value is these bytes.
    pub fn equals(&self, reference: ArenaRef, bytes: &[u8]) -> bool {
        reference.len() == bytes.len()
            && (bytes.is_empty() || self.classes[reference.class()].equals(reference.slot(), bytes))
    }

    /// Asks for the value to be brought near.
    pub fn prefetch(&self, reference: ArenaRef) {
        if reference.len() > 0 {
            self.classes[reference.class()].prefetch(reference.slot(), 0, reference.len());
        }
    }
}

#[derive(Default)]
struct Class {
    next: u32,
    free: Vec<u32>,
}

/// The writer's half.
pub(crate) struct ArenaWriter {
    shared: Arc<Arena>,
    classes: [Class; CLASSES],
    live_slots: [u32; CLASSES],
}

impl ArenaWriter {
    pub fn new() -> Self {
        let shared = Arc::new(Arena { classes: CLASS_BYTES.map(Slab::new) });
        Self { shared, classes: Default::default(), live_slots: [0; CLASSES] }
    }

    pub fn shared(&self) -> &Arc<Arena> {
        &self.shared
    }

    /// Copies a value into a slot that nobody reads.
    pub fn put(&mut self, bytes: &[u8]) -> ArenaRef {
        if bytes.is_empty() {
            return ArenaRef::default();
        }
        let class = CLASS_BYTES.partition_point(|&size| size < bytes.len());
        assert!(class < CLASSES, "a value of {} bytes is over the limit that a batch is parsed with", bytes.len());
        let state = &mut self.classes[class];
        let slot = state.free.pop().unwrap_or_else(|| {
            let slot = state.next;
            state.next = slot.checked_add(1).expect("2^32 values do not fit a machine");
            self.shared.classes[class].reserve(slot);
            slot
        });
        self.live_slots[class] += 1;
        self.shared.classes[class].write(slot, bytes);
        ArenaRef::new(class, bytes.len(), slot)
    }

    /// Takes a slot back that nobody reads any more.
    pub fn free(&mut self, reference: ArenaRef) {
        if reference.len() > 0 {
            self.live_slots[reference.class()] -= 1;
            self.classes[reference.class()].free.push(reference.slot());
        }
    }

    /// Bytes of slots in use (those that wait for readers among them) and of free ones.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |count: &dyn Fn(usize) -> usize| (0..CLASSES).map(|c| (count(c) * CLASS_BYTES[c]) as u64).sum();
        (sum(&|c| self.live_slots[c] as usize), sum(&|c| self.classes[c].free.len()))
    }

    /// Asserts that exactly these references are in use, each once.
    pub fn check(&self, live: &mut Vec<ArenaRef>) {
        live.retain(|reference| reference.len() > 0);
        live.sort_unstable_by_key(|reference| (reference.class(), reference.slot()));
        let twice = live.windows(2).find(|p| (p[0].class(), p[0].slot()) == (p[1].class(), p[1].slot()));
        assert!(twice.is_none(), "an arena slot is used twice: {twice:?}");
        for (class, state) in self.classes.iter().enumerate() {
            let count = live.iter().filter(|reference| reference.class() == class).count();
            assert_eq!(count, self.live_slots[class] as usize, "slots in use of class {class}");
            assert_eq!(count + state.free.len(), state.next as usize, "no slot of class {class} is lost");
            assert!(state.free.iter().all(|&slot| slot < state.next), "free slots were given out once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_length_come_back_and_slots_are_used_again() {
        let mut arena = ArenaWriter::new();
        let lengths = [0, 1, 7, 8, 9, 16, 17, 24, 25, 33, 48, 49, 1_000, 49_153, VALUE_BYTES_MAX];
        let mut live: Vec<_> = lengths.iter().map(|&n| arena.put(&vec![n as u8; n])).collect();
        for (&length, &reference) in lengths.iter().zip(&live) {
            let mut out = vec![1];
            arena.shared().read(reference, &mut out);
            assert_eq!(out[1..], vec![length as u8; length]);
            assert!(arena.shared().equals(reference, &out[1..]) && reference.slot_bytes() >= length);
        }
        arena.check(&mut live);
        let (used, _) = arena.bytes();
        live.drain(..).for_each(|reference| arena.free(reference));
        arena.check(&mut live);
        assert_eq!(arena.bytes(), (0, used));
        lengths.iter().for_each(|&n| live.push(arena.put(&vec![0; n])));
        assert_eq!(arena.bytes(), (used, 0));
    }
}
