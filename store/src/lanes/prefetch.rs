//! A hint that memory will be read soon.
//!
//! It asks for lines to come into the second cache, not the first. The first has room for few lines on their way,
//! one or two dozen: what asks for more waits. The second has room for several times as many, and a line there is some
//! nanoseconds away.

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Asks the processor to bring the cache line of `place` near; does nothing where it has no such instruction.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    prefetch_at(std::ptr::from_ref(place).cast());
}

/// The same of all lines of these.
#[inline(always)]
pub(crate) fn prefetch_all<T>(places: &[T]) {
    let first: *const u8 = places.as_ptr().cast();
    let end = first.wrapping_add(size_of_val(places));
    // From the start of the first line on: each is asked for once, however the places lie.
    let mut at = first.wrapping_sub(first.addr() % LINE_BYTES);
    while at < end {
        prefetch_at(at);
        at = at.wrapping_add(LINE_BYTES);
    }
}

#[inline(always)]
fn prefetch_at(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see, and is no access: it may be of any address. SSE is
    // part of every x86_64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
