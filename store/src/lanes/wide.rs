//! Copies out of relaxed atomics, more than a word at a time.
//!
//! The compiler makes of a loop over atomics what is written there: a load and a store for each word. x86_64 loads two words at
//! once, and a relaxed load asks for no order that it would not keep. So the load is an instruction by itself, which the
//! compiler knows nothing of: to it this is code that reads the words in some order, as relaxed loads do. Elsewhere, and in
//! models, they are loaded one by one.

use super::sync::AtomicU64;

/// What is shorter is copied by words.
pub(super) const BYTES_MIN: usize = 16;

const WORD: usize = size_of::<u64>();
/// Bytes of a cache line.
#[cfg(all(target_arch = "x86_64", not(loom)))]
const LINE_BYTES: usize = 64;

/// Copies `out.len()` bytes, [`BYTES_MIN`] or more, from byte `offset` of these words on; panics if there are not so many.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline]
pub(super) fn copy(words: &[AtomicU64], offset: usize, out: &mut [u8]) {
    use std::arch::asm;
    use std::arch::x86_64::{__m128i, _mm_storeu_si128};

    let end = offset.checked_add(out.len()).expect("a place within a slot");
    assert!(end <= words.len() * WORD, "bytes {offset} to {end} of {}", words.len() * WORD);
    // SAFETY: `offset` is within the words, as asserted.
    let from = unsafe { words.as_ptr().cast::<u8>().add(offset) };
    // SAFETY, of both: the bytes from `at` on are within the words, as is seen where they are called. They are atomics, which
    // other threads may store to meanwhile; the instructions load what is there, as relaxed loads of the words would, and the
    // compiler takes them for no access of its own that could race.
    let sixteen = |at: usize| {
        let bytes: __m128i;
        unsafe {
            asm!(
                "movdqu {bytes}, [{from}]",
                bytes = lateout(xmm_reg) bytes,
                from = in(reg) from.add(at),
                options(nostack, preserves_flags, readonly),
            );
        }
        bytes
    };
    let line = |at: usize| {
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
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
                from = in(reg) from.add(at),
                options(nostack, preserves_flags, readonly),
            );
        }
        [a, b, c, d]
    };
    let store = |to: &mut [u8; BYTES_MIN], bytes| {
        // SAFETY: sixteen bytes that are ours alone.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
    };
    let last = out.len() - BYTES_MIN;
    let is_whole = out.len().is_multiple_of(BYTES_MIN);
    let (lines, few) = out.as_chunks_mut::<LINE_BYTES>();
    let mut at = 0;
    for to in lines {
        to.as_chunks_mut().0.iter_mut().zip(line(at)).for_each(|(to, bytes)| store(to, bytes));
        at += LINE_BYTES;
    }
    for to in few.as_chunks_mut().0 {
        store(to, sixteen(at));
        at += BYTES_MIN;
    }
    if !is_whole {
        // The last sixteen overlap what was copied before.
        store(out.last_chunk_mut().expect("sixteen or more"), sixteen(last));
    }
}

/// Copies `out.len()` bytes, [`BYTES_MIN`] or more, from byte `offset` of these words on; panics if there are not so many.
#[cfg(not(all(target_arch = "x86_64", not(loom))))]
#[inline]
pub(super) fn copy(words: &[AtomicU64], offset: usize, out: &mut [u8]) {
    super::slab::Slot::of(words).copy_by_words(offset / WORD, (offset % WORD) as u32 * 8, out);
}
