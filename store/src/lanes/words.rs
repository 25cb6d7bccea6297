//! Zeroed words that many threads read and one writes.

use std::ops::Deref;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

use super::sync::AtomicU64;

/// From here on memory comes from the system itself, not from the heap: pages of it that were never written are none. (The
/// heap of the C library does the same with what is larger than this.)
const MAPPED_BYTES_MIN: usize = 128 << 10;

/// From here on it comes in huge pages if the system grants them. Random rows of a table of gigabytes miss the translation
/// caches at each row with pages of 4 KiB; pages of 2 MiB take that away. A page of them is the most that stays unused at
/// the end of what was written, so an eighth of the least segment at worst.
const HUGE_BYTES_MIN: usize = 16 << 20;

const PAGE_BYTES: usize = 4 << 10;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed words. They are backed with memory as they are first written.
pub(super) struct Words {
    first: NonNull<AtomicU64>,
    count: usize,
    /// The mapping that they lie in, until they go; `None` if they are a boxed slice of the heap.
    map: Option<MmapMut>,
}

// SAFETY: `first` points to memory that belongs to this alone and that may change threads as any allocation does, and all
// that can be reached through a shared reference are atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// So many words, all zero.
    pub fn zeroed(count: usize) -> Self {
        let bytes = count * size_of::<AtomicU64>();
        // A system that maps nothing more refuses the heap, too; that then says so.
        let mapped = (bytes >= MAPPED_BYTES_MIN).then(|| MmapOptions::new().len(bytes).map_anon().ok()).flatten();
        match mapped {
            Some(map) => Self::mapped(map, count),
            None => Self::heap(count),
        }
    }

    fn mapped(mut map: MmapMut, count: usize) -> Self {
        // A wish: without it everything works, slower.
        #[cfg(target_os = "linux")]
        if is_huge(map.len()) {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let first = NonNull::new(map.as_mut_ptr().cast()).expect("a mapping has an address");
        Self { first, count, map: Some(map) }
    }

    fn heap(count: usize) -> Self {
        #[cfg(not(loom))]
        let words = {
            let words = Box::<[AtomicU64]>::new_zeroed_slice(count);
            // SAFETY: an AtomicU64 has the representation of a u64, for which all bits zero is a value.
            Box::leak(unsafe { words.assume_init() })
        };
        // Those of loom are larger and made one by one.
        #[cfg(loom)]
        let words = Box::leak((0..count).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>());
        Self { first: NonNull::from(words).cast(), count, map: None }
    }

    /// Bytes of memory once the first so many words have been written: all of a slice of the heap; of a mapping the pages
    /// up to there, as if every wish for huge pages were granted.
    pub fn bytes(&self, written: usize) -> usize {
        let written = written.min(self.count) * size_of::<AtomicU64>();
        match &self.map {
            None => self.count * size_of::<AtomicU64>(),
            Some(map) => pages_end(map.as_ptr().addr(), map.len(), written),
        }
    }
}

impl Words {
    /// Gives the pages back that lie wholly behind the first so many words: they read as zero, and take memory when they are
    /// written again. Memory of the heap stays.
    pub fn release(&self, kept: usize) {
        #[cfg(target_os = "linux")]
        if let Some(map) = &self.map {
            let end = pages_end(map.as_ptr().addr(), map.len(), kept * size_of::<AtomicU64>());
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

/// Whether a mapping of so many bytes is to have huge pages.
fn is_huge(bytes: usize) -> bool {
    cfg!(target_os = "linux") && bytes >= HUGE_BYTES_MIN
}

/// Where the page ends that holds the last of so many bytes of a mapping, counted from its start.
fn pages_end(start: usize, length: usize, bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    // A huge page lies on a border of its size, and whole in the mapping.
    let page_start = (start + bytes - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    let page_end = page_start + HUGE_PAGE_BYTES;
    if is_huge(length) && page_start >= start && page_end <= start + length {
        return page_end - start;
    }
    bytes.next_multiple_of(PAGE_BYTES)
}

impl Drop for Words {
    fn drop(&mut self) {
        if self.map.is_none() {
            let words = std::ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.count);
            // SAFETY: this is the slice that `heap` leaked, and nobody borrows it any more.
            drop(unsafe { Box::from_raw(words) });
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

    #[test]
    #[cfg(target_os = "linux")]
    fn a_mapping_is_counted_by_pages_that_are_huge_where_one_fits() {
        let start = 10 * HUGE_PAGE_BYTES + 5 * PAGE_BYTES;
        let to_border = HUGE_PAGE_BYTES - 5 * PAGE_BYTES;
        let length = to_border + HUGE_BYTES_MIN + 3 * PAGE_BYTES;
        let cases = [
            (0, 0),
            (1, PAGE_BYTES),
            (to_border, to_border),
            (to_border + 1, to_border + HUGE_PAGE_BYTES),
            (to_border + HUGE_BYTES_MIN + 1, to_border + HUGE_BYTES_MIN + PAGE_BYTES),
            (length, length),
        ];
        for (bytes, counted) in cases {
            assert_eq!(pages_end(start, length, bytes), counted, "{bytes} bytes");
            let small = HUGE_BYTES_MIN - PAGE_BYTES;
            assert_eq!(pages_end(start, small, bytes.min(small)), bytes.min(small).next_multiple_of(PAGE_BYTES));
        }
    }

    #[test]
    fn words_of_either_kind_are_zero_and_keep_what_is_written() {
        for count in [0, 1, 1_000, MAPPED_BYTES_MIN / 8, MAPPED_BYTES_MIN / 8 + 1] {
            let words = Words::zeroed(count);
            assert_eq!(words.len(), count);
            assert_eq!(words.map.is_some(), count >= MAPPED_BYTES_MIN / 8);
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            for at in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|at| *at < count) {
                words[at].store(!0, Ordering::Relaxed);
                assert_eq!(words[at].load(Ordering::Relaxed), !0);
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_were_given_back_are_zero_and_those_before_them_as_they_were() {
        for count in [1_000, MAPPED_BYTES_MIN / 8, HUGE_BYTES_MIN / 8] {
            let words = Words::zeroed(count);
            words.iter().for_each(|word| word.store(!0, Ordering::Relaxed));
            let kept = count / 3;
            words.release(kept);
            let end = words.bytes(kept) / 8;
            assert!(words[..end].iter().all(|word| word.load(Ordering::Relaxed) == !0));
            assert!(words[end..].iter().all(|word| word.load(Ordering::Relaxed) == 0));
            assert_eq!(end < count, words.map.is_some());
            words[count - 1].store(7, Ordering::Relaxed);
            assert_eq!(words[count - 1].load(Ordering::Relaxed), 7, "they are there to be written");
        }
    }
}
