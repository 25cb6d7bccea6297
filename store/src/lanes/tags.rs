//! The tags of a line of the index, looked at together: by SSE2, which every x86_64 has, and elsewhere in two words.
//!
//! A tag is a byte: 0 for an empty slot, else the top bit and 7 bits of hash. Twelve are looked at. In the four bytes that
//! follow each slot has a mark, two more bits of hash: of entries of one line that are not of the key, one in 128 has its tag,
//! and one in 512 its mark as well. Each of them costs a row that is looked at for nothing.

/// Slots of a line.
pub(crate) const LINE_SLOTS: usize = 12;
/// Words of a line that hold tags and marks.
pub(crate) const TAG_WORDS: usize = 2;

/// A bit for each slot of a line.
pub(crate) type Slots = u32;
/// All of them.
pub(crate) const ALL_SLOTS: Slots = (1 << LINE_SLOTS) - 1;

/// Bits of a hash that choose neither the line, in a segment of up to 2^30 of them, nor the segment, by a directory of up to 2^25: those
/// are the bits from 7 on, and the highest.
const MARK_SHIFT: u32 = 37;
/// Where the marks begin in the second word.
const MARKS_AT: u32 = 32;

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use portable::{matching, used};
#[cfg(target_arch = "x86_64")]
pub(crate) use sse2::{matching, used};

/// The tag of a hash.
#[inline]
pub(crate) fn tag(hash: u64) -> u8 {
    0x80 | hash as u8 & 0x7f
}

/// Whether a slot has the mark of the hash.
#[inline]
pub(crate) fn has_mark(tags: [u64; TAG_WORDS], slot: usize, hash: u64) -> bool {
    (tags[1] >> (MARKS_AT + 2 * slot as u32) ^ hash >> MARK_SHIFT) & 3 == 0
}

/// The tags and marks of a line with those of the hash in a slot that was empty.
pub(crate) fn with_entry(mut tags: [u64; TAG_WORDS], slot: usize, hash: u64) -> [u64; TAG_WORDS] {
    tags[slot / 8] |= u64::from(tag(hash)) << (slot % 8 * 8);
    tags[1] |= (hash >> MARK_SHIFT & 3) << (MARKS_AT + 2 * slot as u32);
    tags
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};

    use super::{ALL_SLOTS, Slots, TAG_WORDS};

    #[inline]
    fn vector(tags: [u64; TAG_WORDS]) -> __m128i {
        // SAFETY: SSE2 is part of every x86_64.
        unsafe { _mm_set_epi64x(tags[1] as i64, tags[0] as i64) }
    }

    /// The slots in use.
    #[inline]
    pub fn used(tags: [u64; TAG_WORDS]) -> Slots {
        // SAFETY: as above.
        unsafe { _mm_movemask_epi8(vector(tags)) as Slots & ALL_SLOTS }
    }

    /// The slots whose tag is `tag`.
    #[inline]
    pub fn matching(tags: [u64; TAG_WORDS], tag: u8) -> Slots {
        // SAFETY: as above.
        let equal = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(vector(tags), _mm_set1_epi8(tag as i8))) };
        equal as Slots & ALL_SLOTS
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::{ALL_SLOTS, Slots, TAG_WORDS};

    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    /// The slots in use.
    #[inline]
    pub fn used(tags: [u64; TAG_WORDS]) -> Slots {
        // The product moves bit 8 n to bit 56 + n, and no other there.
        let of_word = |tags: u64| ((tags & HIGH) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        (of_word(tags[0]) | of_word(tags[1]) << 8) as Slots & ALL_SLOTS
    }

    /// The slots whose tag is `tag`.
    #[inline]
    pub fn matching(tags: [u64; TAG_WORDS], tag: u8) -> Slots {
        // A tag in use has its top bit, as `tag` has: so the sum of the other bits with 0x7f reaches the top bit where they
        // differ, and cannot reach beyond it.
        let equal = |tags: u64| {
            let difference = tags ^ (LOW * u64::from(tag));
            !((difference & !HIGH) + !HIGH) & tags & HIGH
        };
        used(tags.map(equal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tag_is_missed_and_no_other_or_empty_slot_matches_in_either_way_whatever_the_marks_are() {
        for tag in 0x80..=0xff_u8 {
            for other in [0x80, 0x81, 0xfe, 0xff, tag ^ 1, tag ^ 0x40].into_iter().filter(|other| *other != tag) {
                for at in 0..LINE_SLOTS {
                    for marks in [0, tag, other, 0xff] {
                        let mut bytes = [other; 16];
                        bytes[at] = tag;
                        bytes[(at + 1) % LINE_SLOTS] = 0;
                        bytes[LINE_SLOTS..].fill(marks);
                        let words = [0, 8].map(|from: usize| u64::from_le_bytes(*bytes[from..].first_chunk().unwrap()));
                        let in_use = ALL_SLOTS & !(1 << ((at + 1) % LINE_SLOTS));
                        assert_eq!((matching(words, tag), used(words)), (1 << at, in_use), "{tag:x} among {bytes:x?}");
                        assert_eq!((portable::matching(words, tag), portable::used(words)), (1 << at, in_use));
                    }
                }
            }
        }
    }

    #[test]
    fn each_slot_has_the_mark_of_its_own_hash() {
        let hash = |slot: usize, mark: u64| mark << MARK_SHIFT | slot as u64;
        for marks in 0..4 {
            let mark = |slot: usize| (slot as u64 + marks) % 4;
            let mut tags = [0; TAG_WORDS];
            for slot in 0..LINE_SLOTS {
                tags = with_entry(tags, slot, hash(slot, mark(slot)));
            }
            for slot in 0..LINE_SLOTS {
                assert_eq!(matching(tags, tag(slot as u64)), 1 << slot);
                let fits: Vec<u64> = (0..4).filter(|mark| has_mark(tags, slot, hash(slot, *mark))).collect();
                assert_eq!(fits, [mark(slot)], "slot {slot} of {tags:x?}");
            }
        }
    }
}
