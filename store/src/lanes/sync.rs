//! The atomics of all that readers look at beside the writer: those of std, and in a build with `--cfg loom` those of loom, whose
//! models (`models.rs`) go through the orders in which threads can run and the values that a load may give.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::thread::yield_now;

/// The pointer of a cell that nobody else can reach. loom checks that all that was done with it came before.
#[inline]
pub(super) fn last_pointer<T>(pointer: &mut AtomicPtr<T>) -> *mut T {
    #[cfg(loom)]
    {
        pointer.with_mut(|pointer| *pointer)
    }
    #[cfg(not(loom))]
    {
        *pointer.get_mut()
    }
}

#[cfg(loom)]
loom::lazy_static! {
    static ref FENCES: AtomicUsize = AtomicUsize::new(0);
}

/// A fence that loom may turn to another thread before. By itself it runs a fence at once with the access that comes
/// first, and takes two fences in one order only if nothing else makes it try both. So all of them have one access in
/// common, which is relaxed and tells nobody what the fences do not.
#[cfg(loom)]
pub(crate) fn fence(order: Ordering) {
    FENCES.fetch_add(1, Ordering::Relaxed);
    loom::sync::atomic::fence(order);
}

/// What fences have in common is there before the first thread is: its making would order who makes it before others.
#[cfg(all(test, loom))]
pub(super) fn prepare_fences() {
    FENCES.load(Ordering::Relaxed);
}
