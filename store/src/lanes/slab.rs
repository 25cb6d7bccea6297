//! An array of slots of one width that grows by segments: 64 slots, then 128, 256 and so on. Nothing ever moves, so a
//! reader that knows a slot number needs nothing else; half of the largest size is reserved address space at worst,
//! which the system backs with memory only as slots are first written (large zeroed allocations come unbacked).
//!
//! The words are relaxed atomics. The writer fills a slot, then publishes its number with a release store elsewhere
//! (the index); a reader that loads the number with acquire sees the whole slot. A slot is filled again only after the
//! epochs have shown that nobody can be reading it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::prefetch::prefetch;

const FIRST_SLOTS: u64 = 64;
/// 64 x (2^27 - 1) slots: more than a u32 can name.
const SEGMENTS: usize = 27;
const WORD: usize = 8;

/// Fixed-width slots, numbered by a u32, zero until they are written.
pub(crate) struct Slab {
    words: usize,
    segments: [OnceLock<Box<[AtomicU64]>>; SEGMENTS],
}

impl Slab {
    /// An empty slab whose slots have `bytes` bytes, a multiple of 8.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes > 0 && bytes.is_multiple_of(WORD), "a slot of {bytes} bytes is not whole words");
        Self { words: bytes / WORD, segments: [const { OnceLock::new() }; SEGMENTS] }
    }

    /// Bytes of a slot.
    pub fn stride(&self) -> usize {
        self.words * WORD
    }

    /// Gives all slots up to `slot` their memory; to be called before the first write to a slot.
    pub fn reserve(&self, slot: u32) {
        let (segment, _) = locate(slot);
        for at in (0..=segment).rev() {
            if self.segments[at].get().is_some() {
                break;
            }
            self.segments[at].get_or_init(|| zeroed((FIRST_SLOTS << at) as usize * self.words));
        }
    }

    /// Fills a slot from its first byte on. The rest of the last word becomes zero, further words stay.
    pub fn write(&self, slot: u32, bytes: &[u8]) {
        let words = self.slot(slot);
        assert!(bytes.len() <= words.len() * WORD, "{} bytes into a slot of {}", bytes.len(), words.len() * WORD);
        let (whole, rest) = bytes.as_chunks::<WORD>();
        for (word, chunk) in words.iter().zip(whole) {
            word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            words[whole.len()].store(u64::from_le_bytes(last), Ordering::Relaxed);
        }
    }

    /// Copies `out.len()` bytes of a slot from word `from_word` on.
    #[inline]
    pub fn read(&self, slot: u32, from_word: usize, out: &mut [u8]) {
        let words = &self.slot(slot)[from_word..];
        assert!(out.len() <= words.len() * WORD, "{} bytes out of {} words", out.len(), words.len());
        let whole = out.len() / WORD;
        let (chunks, rest) = out.as_chunks_mut::<WORD>();
        for (word, chunk) in words.iter().zip(chunks) {
            *chunk = word.load(Ordering::Relaxed).to_le_bytes();
        }
        if !rest.is_empty() {
            let last = words[whole].load(Ordering::Relaxed).to_le_bytes();
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }

    /// Whether a slot begins with these bytes.
    pub fn equals(&self, slot: u32, bytes: &[u8]) -> bool {
        let words = self.slot(slot);
        bytes.len() <= words.len() * WORD
            && bytes.chunks(WORD).zip(words).all(|(chunk, word)| {
                let stored = word.load(Ordering::Relaxed).to_le_bytes();
                stored[..chunk.len()] == *chunk
            })
    }

    /// Asks for the first `bytes` bytes of a slot to be brought near.
    #[inline]
    pub fn prefetch(&self, slot: u32, bytes: usize) {
        let words = self.slot(slot);
        let bytes = bytes.min(PREFETCH_BYTES_MAX);
        words[..bytes.div_ceil(WORD).min(words.len())].chunks(8).for_each(|line| prefetch(&line[0]));
        // A slot begins in the middle of a line as a rule: its end lies one line further.
        prefetch(&words[(bytes.div_ceil(WORD).max(1) - 1).min(words.len() - 1)]);
    }

    #[inline]
    fn slot(&self, slot: u32) -> &[AtomicU64] {
        let (segment, offset) = locate(slot);
        let segment = self.segments[segment].get().expect("a slot is reserved before its number is given away");
        &segment[offset * self.words..(offset + 1) * self.words]
    }
}

/// Four lines; the hardware's own prefetcher sees the pattern after that.
const PREFETCH_BYTES_MAX: usize = 256;

#[inline]
fn locate(slot: u32) -> (usize, usize) {
    let at = u64::from(slot) + FIRST_SLOTS;
    let segment = at.ilog2() - FIRST_SLOTS.ilog2();
    (segment as usize, (at - (FIRST_SLOTS << segment)) as usize)
}

fn zeroed(words: usize) -> Box<[AtomicU64]> {
    let words = Box::<[AtomicU64]>::new_zeroed_slice(words);
    // SAFETY: an AtomicU64 has the representation of a u64, for which all bits zero is a value.
    unsafe { words.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_all_segments_are_apart_and_keep_their_bytes() {
        let slab = Slab::new(16);
        let slots = [0, 1, 63, 64, 191, 192, 447, 448, 5_000];
        slab.reserve(5_000);
        for &slot in &slots {
            slab.write(slot, &[slot as u8; 13]);
        }
        for &slot in &slots {
            let mut out = [9; 16];
            slab.read(slot, 0, &mut out);
            assert_eq!(out[..13], [slot as u8; 13]);
            assert_eq!(out[13..], [0; 3]);
            slab.read(slot, 1, &mut out[..3]);
            assert!(slab.equals(slot, &[slot as u8; 13]));
            assert!(!slab.equals(slot, &[slot as u8; 14]) || slot as u8 == 0);
            slab.prefetch(slot, 16);
        }
        let mut out = [9; 16];
        slab.read(2, 0, &mut out);
        assert_eq!(out, [0; 16], "a slot is zero until it is written");
    }

    #[test]
    fn the_last_slot_of_all_has_a_place() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(63), (0, 63));
        assert_eq!(locate(64), (1, 0));
        assert!(locate(u32::MAX).0 < SEGMENTS);
    }
}
