//! An array of slots of one width that grows by segments: 64 slots as a rule, then 128, 256 and so on. Nothing ever moves,
//! so a reader that knows a slot number needs nothing else; half of the largest size is reserved address space at worst,
//! which the system backs with memory only as slots are first written ([`Words`]).
//!
//! The words are relaxed atomics. The writer fills a slot, then publishes its number with a release store elsewhere
//! (the index); a reader that loads the number with acquire sees the whole slot. A slot is filled again only after the
//! epochs have shown that nobody can be reading it.

use std::sync::OnceLock;
use std::sync::atomic::AtomicPtr;

use super::prefetch::prefetch_all;
use super::sync::{AtomicU64, Ordering};
use super::wide;
use super::words::{HUGE_PAGE_BYTES, Words};

/// 64 x (2^27 - 1) slots: more than a u32 can name.
const SEGMENTS: usize = 27;
const WORD: usize = 8;

/// How a slab takes memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    /// Slots of the first segment, as a power of two.
    pub first_slots_log2: u32,
    /// From so many bytes on a segment lies in huge pages, if the system grants them.
    pub huge_bytes_min: usize,
}

impl Growth {
    /// As columns and values do. What stays unused of the last huge page is an eighth of the least segment at worst. (Models
    /// pay for every word that there is.)
    pub const OF_VALUES: Self =
        Self { first_slots_log2: if cfg!(loom) { 1 } else { 6 }, huge_bytes_min: 8 * HUGE_PAGE_BYTES };
}

/// Fixed-width slots, numbered by a u32, zero until they are written.
pub(crate) struct Slab {
    words: usize,
    growth: Growth,
    /// The first word of each segment, null before there is one: all that a reader needs to know of it. (Of std in models,
    /// too, as the segments are: what they go through is who publishes a slot's number.)
    firsts: [AtomicPtr<AtomicU64>; SEGMENTS],
    /// What they lie in. Boxed, as a partition has many slabs, and most of them few segments.
    segments: [OnceLock<Box<Words>>; SEGMENTS],
}

impl Slab {
    /// An empty slab for values, whose slots have `bytes` bytes, a multiple of 8.
    pub fn new(bytes: usize) -> Self {
        Self::growing(bytes, Growth::OF_VALUES)
    }

    /// The same, which takes its memory in another way.
    pub fn growing(bytes: usize, growth: Growth) -> Self {
        assert!(bytes > 0 && bytes.is_multiple_of(WORD), "a slot of {bytes} bytes is not whole words");
        Self {
            words: bytes / WORD,
            growth,
            firsts: [const { AtomicPtr::new(std::ptr::null_mut()) }; SEGMENTS],
            segments: [const { OnceLock::new() }; SEGMENTS],
        }
    }

    /// Bytes of a slot.
    pub fn stride(&self) -> usize {
        self.words * WORD
    }

    /// Gives all slots up to `slot` their memory; to be called before the first write to a slot.
    pub fn reserve(&self, slot: u32) {
        let (segment, _) = self.growth.locate(slot);
        for at in (0..=segment).rev() {
            if self.segments[at].get().is_some() {
                break;
            }
            let slots = 1 << (self.growth.first_slots_log2 as usize + at);
            let words = || Box::new(Words::zeroed(slots * self.words, self.growth.huge_bytes_min));
            let words = self.segments[at].get_or_init(words);
            // Release: the words are zero before they can be reached.
            self.firsts[at].store(words.as_ptr().cast_mut(), Ordering::Release);
        }
    }

    /// Bytes of its segments' memory once the first so many slots have been written.
    pub fn bytes(&self, slots: u32) -> usize {
        let mut bytes = 0;
        for (at, words) in self.segments.iter().enumerate() {
            let Some(words) = words.get() else { break };
            let before = self.growth.slots_before(at);
            bytes += size_of::<Words>() + words.bytes(u64::from(slots).saturating_sub(before) as usize * self.words);
        }
        bytes
    }

    /// Gives the memory of the slots in `slots` back, the highest that were ever written: nobody reads them, and they are
    /// reserved again before they are written. What shares a page with a lower slot stays.
    pub fn release(&self, slots: std::ops::Range<u32>) {
        if slots.is_empty() {
            return;
        }
        let (first, last) = (self.growth.locate(slots.start).0, self.growth.locate(slots.end - 1).0);
        for at in first..=last {
            let Some(words) = self.segments[at].get() else {
                break;
            };
            let before = self.growth.slots_before(at);
            words.release(u64::from(slots.start).saturating_sub(before) as usize * self.words);
        }
    }

    /// Fills a slot from its first byte on. The rest of the last word becomes zero, further words stay.
    pub fn write(&self, slot: u32, bytes: &[u8]) {
        let words = self.words_of(slot);
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

    /// Copies the first `out.len()` bytes of a slot.
    #[inline]
    pub fn read(&self, slot: u32, out: &mut [u8]) {
        self.slot(slot).copy(0, out);
    }

    /// Whether a slot begins with these bytes.
    pub fn equals(&self, slot: u32, bytes: &[u8]) -> bool {
        bytes.len() <= self.stride() && self.slot(slot).equals(0, bytes)
    }

    /// Asks for these bytes of a slot to be brought near, or for as many as are worth it.
    #[inline]
    pub fn prefetch(&self, slot: u32, offset: usize, bytes: usize) {
        let bytes = bytes.clamp(1, PREFETCH_BYTES_MAX);
        let last = ((offset + bytes).div_ceil(WORD) - 1).min(self.words - 1);
        self.slot(slot).prefetch(offset / WORD, last);
    }

    /// A slot, to look into.
    #[inline]
    pub fn slot(&self, slot: u32) -> Slot<'_> {
        Slot { words: self.words_of(slot) }
    }

    /// The words of a slot. They are the caller's to order, who loads and stores them by itself.
    #[inline]
    pub fn words_of(&self, slot: u32) -> &[AtomicU64] {
        let (segment, offset) = self.growth.locate(slot);
        // Acquire: as the store of it is a release.
        let first = self.firsts[segment].load(Ordering::Acquire);
        assert!(!first.is_null(), "a slot is reserved before its number is given away");
        // SAFETY: a segment that is there has all slots that `locate` places in it, each of so many words, and stays as long
        // as `self`. They are reached by shared references alone.
        unsafe { std::slice::from_raw_parts(first.add(offset * self.words), self.words) }
    }
}

/// One slot. Places in it are in bytes, and need not be those of words; what lies beyond its end panics.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Slot<'a> {
    /// One without bytes.
    pub const EMPTY: Self = Self { words: &[] };

    /// A slot of these words.
    pub(super) fn of(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// All of its words.
    #[inline]
    pub(super) fn words(self) -> &'a [AtomicU64] {
        self.words
    }

    /// The word at a place, counted in words.
    #[inline]
    pub fn word(self, at: usize) -> u64 {
        self.words[at].load(Ordering::Relaxed)
    }

    /// Asks for the lines of the words `first` to `last` to be brought near.
    #[inline]
    pub fn prefetch(self, first: usize, last: usize) {
        prefetch_all(&self.words[first..=last]);
    }

    /// Copies `out.len()` bytes from `offset` on.
    #[inline]
    pub fn copy(self, offset: usize, out: &mut [u8]) {
        wide::copy(self.words, offset, out);
    }

    /// The same, word by word.
    pub(super) fn copy_by_words(self, offset: usize, out: &mut [u8]) {
        let (mut at, shift) = (offset / WORD, (offset % WORD) as u32 * 8);
        let (whole, rest) = out.as_chunks_mut::<WORD>();
        for chunk in whole {
            *chunk = self.word_from(at, shift, WORD).to_le_bytes();
            at += 1;
        }
        if !rest.is_empty() {
            copy_few(rest, self.word_from(at, shift, rest.len()));
        }
    }

    /// The `count` bytes from a place within a word on, and others behind them.
    #[inline]
    fn word_from(self, at: usize, shift: u32, count: usize) -> u64 {
        let low = self.word(at) >> shift;
        // The next word is read only if the bytes reach into it. A shift by 64, for a whole word, would be no shift.
        if count * 8 > 64 - shift as usize { low | self.word(at + 1) << 1 << (63 - shift) } else { low }
    }

    /// Whether these bytes stand at `offset`.
    #[inline(always)]
    pub fn equals(self, offset: usize, bytes: &[u8]) -> bool {
        if let (Some(first), Some(last), ..=16) = (bytes.first_chunk(), bytes.last_chunk(), bytes.len()) {
            // Two words that overlap: keys, as a rule.
            let end = offset + bytes.len() - WORD;
            return wide::eight(self.words, offset) == u64::from_le_bytes(*first)
                && wide::eight(self.words, end) == u64::from_le_bytes(*last);
        }
        self.equals_by_words(offset, bytes)
    }

    /// The same, word by word.
    fn equals_by_words(self, offset: usize, bytes: &[u8]) -> bool {
        let (at, shift) = (offset / WORD, (offset % WORD) as u32 * 8);
        let (whole, rest) = bytes.as_chunks::<WORD>();
        let mask = (1 << (rest.len() * 8)) - 1;
        let is_word =
            |(word, chunk): (usize, &[u8; WORD])| self.word_from(at + word, shift, WORD) == u64::from_le_bytes(*chunk);
        whole.iter().enumerate().all(is_word)
            && (rest.is_empty() || self.word_from(at + whole.len(), shift, rest.len()) & mask == word_of_few(rest))
    }

    /// Eight bytes from `offset` on.
    pub(super) fn eight_by_words(self, offset: usize) -> u64 {
        self.word_from(offset / WORD, (offset % WORD) as u32 * 8, WORD)
    }
}

/// Fewer bytes than a word has, the first of it: a call of the C library's copy costs more than they do.
#[inline]
pub(crate) fn copy_few(out: &mut [u8], word: u64) {
    let count = out.len();
    // Two halves that overlap where the bytes are not as many.
    if let Some(first) = out.first_chunk_mut() {
        *first = (word as u32).to_le_bytes();
        *out.last_chunk_mut().expect("as long as the first") = ((word >> ((count - 4) * 8)) as u32).to_le_bytes();
    } else if count > 0 {
        // Up to three: first, middle and last, which may be the same.
        for at in [0, count / 2, count - 1] {
            out[at] = (word >> (at * 8)) as u8;
        }
    }
}

/// The word that fewer bytes than it has are the first of; the others are zero.
#[inline]
fn word_of_few(bytes: &[u8]) -> u64 {
    let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => four(first) | four(last) << ((bytes.len() - 4) * 8),
        _ => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Four lines; the hardware's own prefetcher sees the pattern after that.
const PREFETCH_BYTES_MAX: usize = 256;

impl Growth {
    /// How many slots are in the segments before this one.
    fn slots_before(self, segment: usize) -> u64 {
        (1 << (self.first_slots_log2 as usize + segment)) - (1 << self.first_slots_log2)
    }

    /// The segment of a slot, and its place there.
    #[inline]
    fn locate(self, slot: u32) -> (usize, usize) {
        let at = u64::from(slot) + (1 << self.first_slots_log2);
        let octave = at.ilog2();
        ((octave - self.first_slots_log2) as usize, (at ^ 1 << octave) as usize)
    }
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
            slab.read(slot, &mut out);
            assert_eq!(out[..13], [slot as u8; 13]);
            assert_eq!(out[13..], [0; 3]);
            for (from, to) in [(0, 13), (1, 13), (3, 5), (3, 8), (3, 9), (8, 13), (11, 16), (13, 13)] {
                let mut out = vec![9; to - from];
                slab.slot(slot).copy(from, &mut out);
                let wanted: Vec<_> = (from..to).map(|at| if at < 13 { slot as u8 } else { 0 }).collect();
                assert_eq!(out, wanted, "bytes {from} to {to}");
                assert!(slab.slot(slot).equals(from, &wanted), "bytes {from} to {to}");
                for at in 0..wanted.len() {
                    let mut other = wanted.clone();
                    other[at] ^= 0x10;
                    assert!(!slab.slot(slot).equals(from, &other), "byte {at} of {from} to {to}");
                }
            }
            assert_eq!(slab.slot(slot).word(0).to_le_bytes(), [slot as u8; 8]);
            assert!(slab.equals(slot, &[slot as u8; 13]));
            assert!(!slab.equals(slot, &[slot as u8; 14]) || slot as u8 == 0);
            slab.prefetch(slot, 0, 16);
            slab.prefetch(slot, 9, 7);
        }
        let mut out = [9; 16];
        slab.read(2, &mut out);
        assert_eq!(out, [0; 16], "a slot is zero until it is written");
    }

    #[test]
    fn all_parts_of_a_wide_slot_are_copied_and_compared_as_they_are() {
        const BYTES: usize = 304;
        let slab = Slab::new(BYTES);
        slab.reserve(2);
        let written: Vec<u8> = (0..BYTES).map(|at| (at * 7 + at / 256 + 1) as u8).collect();
        [0, 2].iter().for_each(|slot| slab.write(*slot, &[0xee; BYTES]));
        slab.write(1, &written);
        let slot = slab.slot(1);
        for from in (0..24).chain(BYTES - 24..=BYTES) {
            for to in from..=BYTES {
                let mut out = vec![0x55; to - from + 2];
                let room = out.len() - 1;
                slot.copy(from, &mut out[1..room]);
                assert_eq!(out[1..room], written[from..to], "bytes {from} to {to}");
                assert_eq!((out[0], out[room]), (0x55, 0x55), "bytes {from} to {to}: what is beside them");
                let mut by_words = vec![0; to - from];
                slot.copy_by_words(from, &mut by_words);
                assert_eq!(by_words, written[from..to], "bytes {from} to {to}");
                assert!(slot.equals(from, &by_words), "bytes {from} to {to}");
                for at in [0, 7, 8, 15, 16].into_iter().chain([by_words.len().saturating_sub(1)]) {
                    let mut other = by_words.clone();
                    if let Some(byte) = other.get_mut(at) {
                        *byte ^= 0x80;
                        assert!(!slot.equals(from, &other), "byte {at} of {from} to {to}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_lies_beyond_a_slot_is_refused() {
        let slab = Slab::new(64);
        slab.reserve(1);
        for (from, bytes) in [(0, 65), (1, 64), (48, 17), (60, 8), (64, 1), (usize::MAX, 16), (usize::MAX - 7, 20)] {
            let slot = std::panic::AssertUnwindSafe(slab.slot(0));
            let copied = std::panic::catch_unwind(|| slot.copy(from, &mut vec![0; bytes]));
            assert!(copied.is_err(), "{bytes} bytes from {from} on of a slot of 64");
        }
    }

    #[test]
    fn a_slot_that_is_not_reserved_is_refused() {
        let slab = Slab::new(64);
        for slot in [0, 64, u32::MAX] {
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| slab.slot(slot).word(0)));
            assert!(read.is_err(), "slot {slot} has no memory");
            slab.reserve(0);
        }
        assert_eq!(slab.slot(0).word(0), 0);
    }

    #[test]
    fn the_last_slot_of_all_has_a_place() {
        let growth = Growth::OF_VALUES;
        assert_eq!([0, 63, 64, 191, 192].map(|slot| growth.locate(slot)), [(0, 0), (0, 63), (1, 0), (1, 127), (2, 0)]);
        assert!(growth.locate(u32::MAX).0 < SEGMENTS);
        let from_one = Growth { first_slots_log2: 0, ..growth };
        assert_eq!([0, 1, 2, 3, 6].map(|slot| from_one.locate(slot)), [(0, 0), (1, 0), (1, 1), (2, 0), (2, 3)]);
    }
}
