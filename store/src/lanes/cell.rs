//! A pointer that readers follow without a lock while the writer may replace it.

use std::marker::PhantomData;
use std::sync::Arc;

use super::epochs::Guard;
use super::sync::{AtomicPtr, Ordering, last_pointer};
use super::trash::{Dead, Retired, Trash};

/// Holds one `Arc<T>`. A replaced value goes to the trash of the cell's epochs and lives until every guard of its time
/// is gone.
pub(crate) struct EpochCell<T> {
    pointer: AtomicPtr<T>,
    owned: PhantomData<Arc<T>>,
}

impl<T: Send + Sync + 'static> EpochCell<T> {
    /// A cell with its first value.
    pub fn new(value: Arc<T>) -> Self {
        Self { pointer: AtomicPtr::new(Arc::into_raw(value).cast_mut()), owned: PhantomData }
    }

    /// The value of this moment, or a later one. The guard must be of the partition that the cell belongs to.
    #[inline]
    pub fn load<'g>(&'g self, _guard: &'g Guard<'_>) -> &'g T {
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: the pointer comes from `Arc::into_raw` and the cell holds that count until `replace` hands it to the
        // trash or the cell is dropped. It is not dropped during 'g, which borrows it. The trash gives the count up
        // only after all guards that were there at the replacement are gone (module `epochs`), and a guard that came
        // later cannot have loaded the old pointer. Acquire pairs with the release of `replace`.
        unsafe { &*pointer }
    }

    /// Puts another value in place. For the one writer, who says how many bytes go with the old one.
    pub fn replace(&self, value: Arc<T>, old_bytes: usize, trash: &mut Trash) {
        let old = self.pointer.swap(Arc::into_raw(value).cast_mut(), Ordering::AcqRel);
        // SAFETY: the pointer comes from `Arc::into_raw`, and the swap took it out of the cell, so its count is ours.
        let old = unsafe { Arc::from_raw(old.cast_const()) };
        trash.push(Dead::Memory(Box::new(Retired { memory: old, bytes: old_bytes })));
    }
}

impl<T> Drop for EpochCell<T> {
    fn drop(&mut self) {
        let pointer = last_pointer(&mut self.pointer);
        // SAFETY: `&mut self` shows that nobody borrows the cell, and the pointer with its count comes from
        // `Arc::into_raw`; it is not used again.
        unsafe { drop(Arc::from_raw(pointer.cast_const())) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Epochs;

    #[test]
    fn a_replaced_value_lives_as_long_as_the_guard_that_saw_it() {
        let (epochs, mut trash) = Epochs::new();
        let first = Arc::new(String::from("first"));
        let weak = Arc::downgrade(&first);
        let cell = EpochCell::new(first);
        let guard = epochs.pin(0);
        let seen = cell.load(&guard);
        cell.replace(Arc::new("second".into()), 30, &mut trash);
        trash.collect(drop);
        assert_eq!((seen.as_str(), weak.strong_count()), ("first", 1));
        assert_eq!(cell.load(&epochs.pin(1)), "second");
        drop(guard);
        trash.collect(drop);
        assert_eq!(weak.strong_count(), 0);
        drop(trash);
        drop(cell);
    }

    #[test]
    fn what_waits_when_the_writer_goes_outlives_its_readers() {
        let (epochs, mut trash) = Epochs::new();
        let cell = EpochCell::new(Arc::new(7));
        let guard = epochs.pin(0);
        let seen = cell.load(&guard);
        cell.replace(Arc::new(8), 4, &mut trash);
        drop(trash);
        assert_eq!(*seen, 7);
    }
}
