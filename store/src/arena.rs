//! Where values and keys of variable length lie: slots of about two sizes an octave, each size a [`Slab`] with a list of
//! free slots. A reference says size class, length and slot in 8 bytes.

use std::sync::Arc;

use stoa_protocol::limits::VALUE_BYTES_MAX;

use crate::lanes::Slab;
use crate::memory::ARC_BYTES;
use crate::numbers::Numbers;

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
    assert!(CLASSES <= 1 << 7, "a reference has seven bits of class");
};

/// Where a value lies: bit 63 if rows may share the slot, class in bits 56 to 62, length in bits 32 to 55, slot in bits 0
/// to 31. No bytes take no slot: the reference 0, which validity tells apart from a null.
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
        (self.0 >> 56 & 0x7f) as usize
    }
    /// The same slot, which rows may share from now on: [`crate::dictionary`] counts them.
    pub fn into_shared(self) -> Self {
        Self(self.0 | 1 << 63)
    }
    /// Whether rows may share the slot.
    pub fn is_shared(self) -> bool {
        self.0 >> 63 == 1
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
        self.copy(reference, &mut out[start..]);
    }

    /// Copies the value, which is as long as `out`.
    pub fn copy(&self, reference: ArenaRef, out: &mut [u8]) {
        if reference.len() > 0 {
            self.classes[reference.class()].read(reference.slot(), out);
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
    slots: Numbers,
    /// What its slab takes of memory.
    slab_bytes: usize,
}

/// The writer's half.
pub(crate) struct ArenaWriter {
    shared: Arc<Arena>,
    classes: [Class; CLASSES],
}

/// Bytes of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ArenaBytes {
    /// Slots in use, those that wait for readers among them.
    pub used: u64,
    /// Slots that are free.
    pub free: u64,
    /// Lists of free slots, ends of slabs, and what else it is made of.
    pub overhead: u64,
}

impl ArenaWriter {
    pub fn new() -> Self {
        let shared = Arc::new(Arena { classes: CLASS_BYTES.map(Slab::new) });
        Self { shared, classes: Default::default() }
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
        let Class { slots, slab_bytes } = &mut self.classes[class];
        let slot = slots.take().unwrap_or_else(|| {
            let slot = slots.grow("values");
            let slab = &self.shared.classes[class];
            slab.reserve(slot);
            *slab_bytes = slab.bytes(slots.end());
            slot
        });
        self.shared.classes[class].write(slot, bytes);
        ArenaRef::new(class, bytes.len(), slot)
    }

    /// Takes a slot back that nobody reads any more.
    pub fn free(&mut self, reference: ArenaRef) {
        if reference.len() > 0 {
            self.classes[reference.class()].slots.give_back(reference.slot());
        }
    }

    /// What its memory is used for.
    pub fn bytes(&self) -> ArenaBytes {
        let mut sum = ArenaBytes { overhead: (ARC_BYTES + size_of::<Arena>()) as u64, ..ArenaBytes::default() };
        for (class, slot_bytes) in self.classes.iter().zip(CLASS_BYTES) {
            let slots = class.slots.end() as usize * slot_bytes;
            let free = class.slots.free() as usize * slot_bytes;
            sum.used += (slots - free) as u64;
            sum.free += free as u64;
            sum.overhead += (class.slab_bytes - slots + class.slots.list_bytes()) as u64;
        }
        sum
    }

    /// Whether values are to move so that memory can go back, of so many bytes at the least; draws borders if so.
    pub fn begin_moving(&mut self, bytes_min: usize) -> bool {
        let mut any = false;
        for (class, slot_bytes) in self.classes.iter_mut().zip(CLASS_BYTES) {
            if class.slots.is_worth(slot_bytes, bytes_min) {
                class.slots.begin();
                any = true;
            }
        }
        any
    }

    /// Whether so much is free, of so many bytes at the least, that it is worth to move values.
    pub fn is_worth_moving(&self, bytes_min: usize) -> bool {
        self.classes.iter().zip(CLASS_BYTES).any(|(class, slot_bytes)| class.slots.is_worth(slot_bytes, bytes_min))
    }

    /// Whether a value is to move to another slot.
    #[inline]
    pub fn leaves(&self, reference: ArenaRef) -> bool {
        reference.len() > 0 && self.classes[reference.class()].slots.leaves(reference.slot())
    }

    /// Whether values that were to move have not all been given back.
    pub fn is_moving(&self) -> bool {
        self.classes.iter().any(|class| class.slots.is_moving())
    }

    /// Gives memory back beyond a border, up to so many bytes of one size; says how many.
    pub fn release(&mut self, bytes_max: usize) -> usize {
        for ((class, slab), slot_bytes) in self.classes.iter_mut().zip(&self.shared.classes).zip(CLASS_BYTES) {
            if class.slots.drained() {
                let slots = class.slots.release((bytes_max / slot_bytes).max(1) as u32);
                let bytes = slots.len() * slot_bytes;
                slab.release(slots);
                class.slab_bytes = slab.bytes(class.slots.end());
                if bytes > 0 {
                    return bytes;
                }
            }
        }
        0
    }

    /// Asserts that exactly these references are in use, each once; those of shared slots as well, however many rows there
    /// are.
    pub fn check(&self, live: &mut Vec<ArenaRef>) {
        live.retain(|reference| reference.len() > 0);
        live.sort_unstable_by_key(|reference| (reference.class(), reference.slot()));
        let twice = live.windows(2).find(|p| (p[0].class(), p[0].slot()) == (p[1].class(), p[1].slot()));
        assert!(twice.is_none(), "an arena slot is used twice: {twice:?}");
        for (class, state) in self.classes.iter().enumerate() {
            let used = live.iter().filter(|reference| reference.class() == class).map(|reference| reference.slot());
            state.slots.check("slot of the arena", used.collect());
            assert_eq!(state.slab_bytes, self.shared.classes[class].bytes(state.slots.end()));
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
        let used = arena.bytes().used;
        live.drain(..).for_each(|reference| arena.free(reference));
        arena.check(&mut live);
        assert_eq!((arena.bytes().used, arena.bytes().free), (0, used));
        lengths.iter().for_each(|&n| live.push(arena.put(&vec![0; n])));
        assert_eq!((arena.bytes().used, arena.bytes().free), (used, 0));
    }
}
