//! Zeroed words that many threads read and one writes.

use std::ops::Deref;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

use super::sync::AtomicU64;

/// From here on memory comes from the system itself, not from the heap: pages of it that were never written are none. (The
/// heap of the C library does the same with what is larger than this.)
const MAPPED_BYTES_MIN: usize = 128 << 10;

const PAGE_BYTES: usize = 4 << 10;
/// Bytes of a huge page, and the alignment of words that are to lie in such: a mapping that begins elsewhere has none at its
/// ends.
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
    /// Of the system, in pages of so many bytes, which begin so many bytes behind the start of the mapping.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))] // there they are unmapped when they go, and no more
    Map { map: MmapMut, page_bytes: usize, start: usize },
}

// SAFETY: `first` and `memory` point to memory that belongs to this alone and that may change threads as any allocation does,
// and all that can be reached through a shared reference are atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// So many words, all zero; from `huge_bytes_min` on in huge pages if the system grants them. Random rows of a table of
    /// gigabytes miss the translation caches at each row with pages of 4 KiB; pages of 2 MiB take that away. Up to a page of
    /// them stays unused at the end of what was written.
    pub fn zeroed(count: usize, huge_bytes_min: usize) -> Self {
        let bytes = count * WORD_BYTES;
        let is_huge = cfg!(target_os = "linux") && bytes >= huge_bytes_min;
        let page_bytes = if is_huge { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        // Whole pages, and room to begin at the border of one where the system does not do that by itself.
        let room = if is_huge { HUGE_PAGE_BYTES } else { 0 };
        let map = || MmapOptions::new().len(bytes.next_multiple_of(page_bytes) + room).map_anon().ok();
        // A system that maps nothing more refuses the heap, too; that then says so.
        match (bytes >= MAPPED_BYTES_MIN).then(map).flatten() {
            Some(map) => Self::mapped(map, page_bytes, count),
            None => Self::heap(count),
        }
    }

    fn mapped(mut map: MmapMut, page_bytes: usize, count: usize) -> Self {
        #[cfg(target_os = "linux")]
        if page_bytes == HUGE_PAGE_BYTES {
            // A wish: without it everything works, slower.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let start = map.as_mut_ptr().align_offset(page_bytes);
        assert!(start + count * WORD_BYTES <= map.len(), "a mapping has room to begin at the border of a page");
        // SAFETY: `start` is within the mapping, as asserted.
        let first = unsafe { map.as_mut_ptr().add(start) };
        let first = NonNull::new(first.cast()).expect("a mapping has an address");
        Self { first, count, memory: Memory::Map { map, page_bytes, start } }
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

    /// Bytes of memory once the first so many words have been written: all of a slice of the heap; of a mapping the pages
    /// up to there, as if every wish for huge pages were granted.
    pub fn bytes(&self, written: usize) -> usize {
        match &self.memory {
            Memory::Heap(words) => words.len() * WORD_BYTES,
            Memory::Map { page_bytes, .. } => (written.min(self.count) * WORD_BYTES).next_multiple_of(*page_bytes),
        }
    }

    /// Gives the pages back that lie wholly behind the first so many words: they read as zero, and take memory when they are
    /// written again. Memory of the heap stays.
    pub fn release(&self, kept: usize) {
        #[cfg(target_os = "linux")]
        if let Memory::Map { map, start, .. } = &self.memory {
            let end = start + self.bytes(kept);
            if end < map.len() {
                // SAFETY: the mapping is private and anonymous, and no file or other mapping shares its pages; so all that
                // happens is that words behind `end`, a border of pages within the mapping, become zero, as if another
                // thread had stored that. They are atomics, and whoever calls has seen that nobody reads them.
                // A wish, as huge pages are: a system that keeps the pages has lost nothing.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, end, map.len() - end) };
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = kept;
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

    const HUGE_BYTES_MIN: usize = 4 << 20;

    #[test]
    fn words_of_every_kind_begin_at_a_line_are_zero_and_keep_what_is_written() {
        let (mapped, huge) = (MAPPED_BYTES_MIN / 8, HUGE_BYTES_MIN / 8);
        for count in [0, 1, 7, 8, 1_000, mapped - 1, mapped, mapped + 1, huge - 1, huge, huge + 1] {
            let words = Words::zeroed(count, HUGE_BYTES_MIN);
            assert_eq!(words.len(), count);
            assert_eq!(matches!(words.memory, Memory::Map { .. }), count >= mapped);
            let alignment = match words.memory {
                Memory::Heap(_) => LINE_BYTES,
                Memory::Map { page_bytes, .. } => page_bytes,
            };
            assert_eq!(alignment == HUGE_PAGE_BYTES, count >= huge && cfg!(target_os = "linux"));
            assert!(words.as_ptr().addr().is_multiple_of(alignment), "{count} words");
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            for at in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|at| *at < count) {
                words[at].store(!0, Ordering::Relaxed);
                assert_eq!(words[at].load(Ordering::Relaxed), !0);
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_mapping_is_counted_by_the_pages_that_were_written_and_the_heap_whole() {
        let page = PAGE_BYTES / 8;
        let mapped = Words::zeroed(MAPPED_BYTES_MIN / 8 + 1, HUGE_BYTES_MIN);
        let cases = [(0, 0), (1, 1), (page, 1), (page + 1, 2), (usize::MAX, MAPPED_BYTES_MIN / PAGE_BYTES + 1)];
        cases.iter().for_each(|&(words, pages)| assert_eq!(mapped.bytes(words), pages * PAGE_BYTES, "{words} words"));
        let huge = Words::zeroed(HUGE_BYTES_MIN / 8 + 1, HUGE_BYTES_MIN);
        let page = HUGE_PAGE_BYTES / 8;
        let cases = [(0, 0), (1, 1), (page, 1), (page + 1, 2), (usize::MAX, HUGE_BYTES_MIN / HUGE_PAGE_BYTES + 1)];
        cases
            .iter()
            .for_each(|&(words, pages)| assert_eq!(huge.bytes(words), pages * HUGE_PAGE_BYTES, "{words} words"));
        let heap = Words::zeroed(10, HUGE_BYTES_MIN);
        assert_eq!([0, 10].map(|words| heap.bytes(words)), [10 * 8 + LINE_BYTES - 8; 2]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_were_given_back_are_zero_and_those_before_them_as_they_were() {
        for count in [1_000, MAPPED_BYTES_MIN / 8, HUGE_BYTES_MIN / 8, 2 * HUGE_BYTES_MIN / 8 + 5] {
            let words = Words::zeroed(count, HUGE_BYTES_MIN);
            words.iter().for_each(|word| word.store(!0, Ordering::Relaxed));
            let kept = count / 3;
            words.release(kept);
            let end = (words.bytes(kept) / 8).min(count);
            assert!(words[..end].iter().all(|word| word.load(Ordering::Relaxed) == !0));
            assert!(words[end..].iter().all(|word| word.load(Ordering::Relaxed) == 0));
            assert_eq!(end < count, matches!(words.memory, Memory::Map { .. }));
            words[count - 1].store(7, Ordering::Relaxed);
            assert_eq!(words[count - 1].load(Ordering::Relaxed), 7, "they are there to be written");
        }
    }
}
