//! Copies out of relaxed atomics, more than a word at a time.
//!
//! The compiler makes of a loop over atomics what is written there: a load and a store for each word. x86_64 loads two words at
//! once, and from any byte on; and a relaxed load asks for no order that it would not keep. So the load is an instruction by
//! itself ([`opaque`]), which the compiler knows nothing of: to it this is code that reads the words in some order, as relaxed
//! loads do. Elsewhere and in models they are loaded one by one ([`by_words`]). AddressSanitizer does not see into instructions
//! either: `.ci/asan` runs the tests both ways, once for the loads and once for the stores.

use super::slab::Slot;
use super::sync::AtomicU64;

#[cfg(not(all(target_arch = "x86_64", not(loom), not(by_words))))]
use by_words as how;
#[cfg(all(target_arch = "x86_64", not(loom), not(by_words)))]
use opaque as how;

/// Copies `out.len()` bytes from byte `offset` of these words on; panics if there are not so many.
#[inline]
pub(super) fn copy(words: &[AtomicU64], offset: usize, out: &mut [u8]) {
    check(words, offset, out.len());
    // SAFETY: the words have so many bytes there, and `out` is as long.
    unsafe { how::copy(words, offset, out.as_mut_ptr(), out.len()) };
}

/// Eight bytes from byte `offset` of these words on; panics if there are not so many.
#[inline]
pub(super) fn eight(words: &[AtomicU64], offset: usize) -> u64 {
    check(words, offset, size_of::<u64>());
    // SAFETY: the words have eight bytes there.
    unsafe { how::eight(words, offset) }
}

#[inline]
fn check(words: &[AtomicU64], offset: usize, bytes: usize) {
    let end = offset.checked_add(bytes).expect("a place within a slot");
    assert!(end <= bytes_of(words), "bytes {offset} to {end} of {}", bytes_of(words));
}

/// Bytes of words, whatever their atomics are made of.
#[inline]
fn bytes_of(words: &[AtomicU64]) -> usize {
    words.len() * size_of::<u64>()
}

/// Some bytes of a slot that a row has, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copied {
    /// The first byte in the slot.
    pub from: u32,
    /// How many.
    pub bytes: u32,
    /// The first byte in the row.
    pub to: u32,
}

/// What of a slot goes where in a row: places that are checked once, and not again for each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copies {
    slot_bytes: usize,
    row_bytes: usize,
    all: Box<[Copied]>,
}

impl Copies {
    /// These, out of slots and into rows of so many bytes; panics if one is not within them.
    pub fn new(slot_bytes: usize, row_bytes: usize, all: impl Iterator<Item = Copied>) -> Self {
        let all: Box<[_]> = all.collect();
        for &Copied { from, bytes, to } in &all {
            let end = |first: u32| first as usize + bytes as usize;
            assert!(
                end(from) <= slot_bytes && end(to) <= row_bytes,
                "{bytes} bytes from {from} of {slot_bytes} have no place at {to} of {row_bytes}"
            );
        }
        Self { slot_bytes, row_bytes, all }
    }

    /// The same, if there is one alone.
    pub fn single(&self) -> Option<Single> {
        let [copied] = *self.all else { return None };
        Some(Single { slot_bytes: self.slot_bytes, row_bytes: self.row_bytes, copied })
    }

    /// Copies out of one slot; panics if it or the row is not as long as was said.
    #[inline(always)]
    pub fn run(&self, slot: Slot<'_>, row: &mut [u8]) {
        let (words, bytes) = (slot.words(), row.len());
        let is_as_said = bytes_of(words) == self.slot_bytes && bytes == self.row_bytes;
        assert!(is_as_said, "a slot of {} bytes, a row of {bytes}: {self:?}", bytes_of(words));
        let row = row.as_mut_ptr();
        for &Copied { from, bytes, to } in &self.all {
            // SAFETY: `new` has seen that these are places of a slot and a row of these lengths.
            unsafe { how::copy(words, from as usize, row.add(to as usize), bytes as usize) };
        }
    }
}

/// [`Copies`] of one piece, which a loop over rows has at hand.
#[derive(Clone, Copy)]
pub(crate) struct Single {
    slot_bytes: usize,
    row_bytes: usize,
    copied: Copied,
}

impl Single {
    /// As [`Copies::run`].
    #[inline(always)]
    pub fn run(self, slot: Slot<'_>, row: &mut [u8]) {
        let words = slot.words();
        let is_as_said = bytes_of(words) == self.slot_bytes && row.len() == self.row_bytes;
        assert!(is_as_said, "a slot of {} bytes, a row of {}", bytes_of(words), row.len());
        let Copied { from, bytes, to } = self.copied;
        // SAFETY: `Copies::new` has seen that this is a place of a slot and a row of these lengths.
        unsafe { how::copy(words, from as usize, row.as_mut_ptr().add(to as usize), bytes as usize) };
    }
}

/// Words are loaded as what they are.
#[cfg_attr(all(target_arch = "x86_64", not(loom), not(by_words)), allow(dead_code))]
mod by_words {
    use super::{AtomicU64, Slot};

    /// Copies so many bytes.
    ///
    /// # Safety
    /// The words have so many from `offset` on, and those at `to` are there, initialised and the caller's alone.
    pub unsafe fn copy(words: &[AtomicU64], offset: usize, to: *mut u8, bytes: usize) {
        // SAFETY: as above.
        let out = unsafe { std::slice::from_raw_parts_mut(to, bytes) };
        Slot::of(words).copy_by_words(offset, out);
    }

    /// Eight bytes.
    ///
    /// # Safety
    /// None that is needed here.
    pub unsafe fn eight(words: &[AtomicU64], offset: usize) -> u64 {
        Slot::of(words).eight_by_words(offset)
    }
}

/// Loads that the compiler knows nothing of. All read bytes of atomics, which other threads may store to meanwhile: they load
/// what is there, as relaxed loads of the words would, and the compiler takes them for no access of its own that could race.
#[cfg(all(target_arch = "x86_64", not(loom), not(by_words)))]
mod opaque {
    use std::arch::asm;
    use std::arch::x86_64::{__m128i, _mm_storeu_si128};

    use super::AtomicU64;

    /// Bytes of a vector.
    const WIDE: usize = 16;
    /// Bytes of a cache line.
    const LINE: usize = 64;

    /// # Safety
    /// The bytes at `from` are of atomics that are there.
    #[inline(always)]
    unsafe fn wide(from: *const u8) -> __m128i {
        let bytes;
        // SAFETY: as above, and a vector may lie anywhere.
        unsafe {
            asm!("movdqu {}, [{}]", lateout(xmm_reg) bytes, in(reg) from, options(nostack, preserves_flags, readonly))
        };
        bytes
    }

    /// # Safety
    /// As of [`wide`].
    #[inline(always)]
    unsafe fn line(from: *const u8) -> [__m128i; 4] {
        let (a, b, c, d);
        // SAFETY: as above.
        unsafe {
            asm!(
                "movdqu {a}, [{from}]",
                "movdqu {b}, [{from} + 16]",
                "movdqu {c}, [{from} + 32]",
                "movdqu {d}, [{from} + 48]",
                a = out(xmm_reg) a,
                b = out(xmm_reg) b,
                c = out(xmm_reg) c,
                d = out(xmm_reg) d,
                from = in(reg) from,
                options(nostack, preserves_flags, readonly),
            );
        }
        [a, b, c, d]
    }

    /// # Safety
    /// As of [`wide`].
    #[inline(always)]
    unsafe fn word(from: *const u8) -> u64 {
        let bytes;
        // SAFETY: as above.
        unsafe { asm!("mov {}, [{}]", lateout(reg) bytes, in(reg) from, options(nostack, preserves_flags, readonly)) };
        bytes
    }

    /// # Safety
    /// As of [`wide`].
    #[inline(always)]
    unsafe fn four(from: *const u8) -> u32 {
        let bytes;
        // SAFETY: as above.
        unsafe {
            asm!("mov {:e}, [{}]", lateout(reg) bytes, in(reg) from, options(nostack, preserves_flags, readonly))
        };
        bytes
    }

    /// # Safety
    /// As of [`wide`].
    #[inline(always)]
    unsafe fn one(from: *const u8) -> u8 {
        let byte: u32;
        // SAFETY: as above.
        unsafe {
            asm!("movzx {:e}, byte ptr [{}]", lateout(reg) byte, in(reg) from, options(nostack, preserves_flags, readonly))
        };
        byte as u8
    }

    /// Eight bytes.
    ///
    /// # Safety
    /// The words have so many from `offset` on.
    #[inline(always)]
    pub unsafe fn eight(words: &[AtomicU64], offset: usize) -> u64 {
        // SAFETY: as above.
        unsafe { word(words.as_ptr().cast::<u8>().add(offset)) }
    }

    /// Copies so many bytes. What is not a whole number of vectors, words or halves of them ends with one that overlaps the one
    /// before.
    ///
    /// # Safety
    /// The words have so many from `offset` on, and those at `to` are the caller's alone.
    #[inline(always)]
    pub unsafe fn copy(words: &[AtomicU64], offset: usize, to: *mut u8, bytes: usize) {
        // SAFETY: all places are within the bytes, as can be seen at each.
        unsafe {
            let from = words.as_ptr().cast::<u8>().add(offset);
            if bytes >= WIDE {
                let mut at = 0;
                while at + LINE <= bytes {
                    for (part, vector) in line(from.add(at)).into_iter().enumerate() {
                        _mm_storeu_si128(to.add(at + part * WIDE).cast(), vector);
                    }
                    at += LINE;
                }
                while at + WIDE <= bytes {
                    _mm_storeu_si128(to.add(at).cast(), wide(from.add(at)));
                    at += WIDE;
                }
                if at < bytes {
                    let last = bytes - WIDE;
                    _mm_storeu_si128(to.add(last).cast(), wide(from.add(last)));
                }
            } else if bytes >= 8 {
                let last = bytes - 8;
                let (first, second) = (word(from), word(from.add(last)));
                to.cast::<u64>().write_unaligned(first);
                to.add(last).cast::<u64>().write_unaligned(second);
            } else if bytes >= 4 {
                let last = bytes - 4;
                let (first, second) = (four(from), four(from.add(last)));
                to.cast::<u32>().write_unaligned(first);
                to.add(last).cast::<u32>().write_unaligned(second);
            } else {
                for at in 0..bytes {
                    to.add(at).write(one(from.add(at)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Slab;

    const SLOT_BYTES: usize = 160;

    fn slab() -> (Slab, Vec<u8>) {
        let slab = Slab::new(SLOT_BYTES);
        slab.reserve(1);
        let written: Vec<u8> = (0..SLOT_BYTES).map(|at| (at * 7 + 1) as u8).collect();
        slab.write(0, &[0xee; SLOT_BYTES]);
        slab.write(1, &written);
        (slab, written)
    }

    #[test]
    fn either_way_copies_the_same_of_any_length_and_nothing_beside_it() {
        let (slab, written) = slab();
        for bytes in 0..SLOT_BYTES {
            for from in [0, 1, 7, 8, 13].into_iter().filter(|from| from + bytes <= SLOT_BYTES) {
                let mut rows = [const { [0x55; SLOT_BYTES + 4] }; 2];
                // SAFETY: the slot has so many bytes there, and the rows have, too.
                unsafe {
                    how::copy(slab.slot(1).words(), from, rows[0].as_mut_ptr().add(2), bytes);
                    by_words::copy(slab.slot(1).words(), from, rows[1].as_mut_ptr().add(2), bytes);
                }
                for row in rows {
                    assert_eq!(row[2..2 + bytes], written[from..from + bytes], "{bytes} bytes from {from} on");
                    let beside = row[..2].iter().chain(&row[2 + bytes..]);
                    assert!(beside.into_iter().all(|byte| *byte == 0x55), "{bytes} bytes from {from} on");
                }
            }
        }
    }

    #[test]
    fn pieces_go_to_their_places_and_a_slot_or_row_of_another_length_is_refused() {
        let (slab, written) = slab();
        let all = [(3, 5, 0), (40, 64, 5), (8, 1, 69), (100, 60, 72)];
        let all = all.map(|(from, bytes, to)| Copied { from, bytes, to });
        let copies = Copies::new(SLOT_BYTES, 140, all.into_iter());
        let mut row = [0x55; 140];
        copies.run(slab.slot(1), &mut row);
        let mut wanted = [0x55; 140];
        for Copied { from, bytes, to } in all {
            let (from, to, bytes) = (from as usize, to as usize, bytes as usize);
            wanted[to..to + bytes].copy_from_slice(&written[from..from + bytes]);
        }
        assert_eq!(row, wanted);
        let other = Slab::new(SLOT_BYTES - 8);
        other.reserve(0);
        let refused = |slot: Slot<'_>, bytes: usize| {
            let run = std::panic::AssertUnwindSafe(|| copies.run(slot, &mut vec![0; bytes]));
            std::panic::catch_unwind(run).is_err()
        };
        assert!(refused(other.slot(0), 140) && refused(slab.slot(1), 139) && refused(slab.slot(1), 141));
        assert!(!refused(slab.slot(1), 140));
        assert!(copies.single().is_none(), "there are four");
        for copied in all {
            let single = Copies::new(SLOT_BYTES, 140, [copied].into_iter()).single().expect("there is one");
            let mut row = [0x55; 140];
            single.run(slab.slot(1), &mut row);
            let mut wanted = [0x55; 140];
            let (from, to, bytes) = (copied.from as usize, copied.to as usize, copied.bytes as usize);
            wanted[to..to + bytes].copy_from_slice(&written[from..from + bytes]);
            assert_eq!(row, wanted);
            let refused = |slot: Slot<'_>, bytes: usize| {
                let run = std::panic::AssertUnwindSafe(|| single.run(slot, &mut vec![0; bytes]));
                std::panic::catch_unwind(run).is_err()
            };
            assert!(refused(other.slot(0), 140) && refused(slab.slot(1), 139) && refused(slab.slot(1), 141));
        }
    }

    #[test]
    fn a_piece_that_is_not_within_slot_and_row_is_refused() {
        let cases =
            [(0, 24, 0, true), (1, 24, 0, false), (0, 24, 7, false), (24, 0, 30, true), (u32::MAX, 1, 0, false)];
        for (from, bytes, to, is_there) in cases {
            let made = std::panic::catch_unwind(|| Copies::new(24, 30, [Copied { from, bytes, to }].into_iter()));
            assert_eq!(made.is_ok(), is_there, "{bytes} bytes from {from} to {to}");
        }
    }
}
