//! Zeroed words that many threads read and one writes.

use std::ops::Deref;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

use super::sync::AtomicU64;

/// Bytes of a huge page, and the alignment of mapped words: a mapping that begins elsewhere has no huge page at its ends.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Bytes of a cache line, and the alignment of words on the heap.
const LINE_BYTES: usize = 64;
const WORD_BYTES: usize = size_of::<AtomicU64>();

/// Zeroed words, the first at the start of a cache line. They are backed with memory as they are first written.
pub(super) struct Words {
    first: NonNull<AtomicU64>,
    count: usize,
    memory: Memory,
}

/// What words lie in, until they go.
enum Memory {
    /// A boxed slice that was leaked, with room to begin at a line.
    Heap(NonNull<[AtomicU64]>),
    /// Of the system, with room to begin at a huge page.
    Map(#[allow(dead_code)] MmapMut), // unmapped when it is dropped
}

// SAFETY: `first` and `memory` point to memory that belongs to this alone and that may change threads as any allocation does,
// and all that can be reached through a shared reference are atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// So many words, all zero; from `mapped_bytes_min` on of the system's memory, in huge pages if it grants them. Random
    /// rows of a table of gigabytes miss the translation caches at each row with pages of 4 KiB; pages of 2 MiB take that
    /// away. Up to a page of them stays unused at the end of what was written.
    pub fn zeroed(count: usize, mapped_bytes_min: usize) -> Self {
        let bytes = count * WORD_BYTES;
        let map = || MmapOptions::new().len(bytes + HUGE_PAGE_BYTES).map_anon().ok();
        // A system that maps nothing more refuses the heap, too; that then says so.
        match (bytes >= mapped_bytes_min).then(map).flatten() {
            Some(map) => Self::mapped(map, count),
            None => Self::heap(count),
        }
    }

    fn mapped(mut map: MmapMut, count: usize) -> Self {
        #[cfg(target_os = "linux")]
        // A wish: without it everything works, slower.
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = map.as_mut_ptr().align_offset(HUGE_PAGE_BYTES);
        assert!(start + count * WORD_BYTES <= map.len(), "a mapping has a huge page more than its words");
        // SAFETY: `start` is within the mapping, as asserted.
        let first = unsafe { map.as_mut_ptr().add(start) };
        let first = NonNull::new(first.cast()).expect("a mapping has an address");
        Self { first, count, memory: Memory::Map(map) }
    }

    fn heap(count: usize) -> Self {
        let room = count + LINE_BYTES / WORD_BYTES - 1;
        #[cfg(not(loom))]
        let words = {
            let words = Box::<[AtomicU64]>::new_zeroed_slice(room);
            // SAFETY: an AtomicU64 has the representation of a u64, for which all bits zero is a value.
            NonNull::from(Box::leak(unsafe { words.assume_init() }))
        };
        // Those of loom are larger and made one by one.
        #[cfg(loom)]
        let words = NonNull::from(Box::leak((0..room).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>()));
        let start = words.cast::<AtomicU64>().align_offset(LINE_BYTES).min(room - count);
        // SAFETY: `start` is within the slice.
        let first = unsafe { words.cast::<AtomicU64>().add(start) };
        Self { first, count, memory: Memory::Heap(words) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if let Memory::Heap(words) = self.memory {
            // SAFETY: this is the slice that `heap` leaked, and nobody borrows it any more.
            drop(unsafe { Box::from_raw(words.as_ptr()) });
        }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `first` is the start of `count` words, in a mapping or a leaked slice that lives as long as `self`, and
        // aligned (a mapping to a page). They are initialised: an anonymous mapping is zero bytes. All access is through
        // shared references to atomics; nobody makes an exclusive one.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const MAPPED_BYTES_MIN: usize = 4 << 20;

    #[test]
    fn words_of_either_kind_begin_at_a_line_are_zero_and_keep_what_is_written() {
        for count in [0, 1, 7, 8, 1_000, MAPPED_BYTES_MIN / 8, MAPPED_BYTES_MIN / 8 + 1] {
            let words = Words::zeroed(count, MAPPED_BYTES_MIN);
            assert_eq!(words.len(), count);
            let mapped = matches!(words.memory, Memory::Map(_));
            assert_eq!(mapped, count >= MAPPED_BYTES_MIN / 8);
            let alignment = if mapped { HUGE_PAGE_BYTES } else { LINE_BYTES };
            assert!(words.as_ptr().addr().is_multiple_of(alignment), "{count} words");
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            for at in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|at| *at < count) {
                words[at].store(!0, Ordering::Relaxed);
                assert_eq!(words[at].load(Ordering::Relaxed), !0);
            }
        }
    }
}
