//! The only unsafe code of the store: memory that one writer fills while readers on other threads look on.
//!
//! - [`slab`]: arrays of fixed stride that grow without moving. Their words are relaxed atomics, so a mistake elsewhere
//!   could show a wrong value and never be undefined behaviour. Over [`words`]; unsafe, to reach a slot in a few instructions.
//! - [`wide`]: copies out of them; unsafe, by instructions that load more than a word, to places that were checked before.
//! - [`words`]: zeroed memory for them, of huge pages where that is worth it; unsafe.
//! - [`epochs`] and [`trash`]: who may still be looking, and what therefore waits before it is used again. Safe code,
//!   and here because the next one rests on it.
//! - [`cell`]: a pointer that readers follow without a lock; unsafe, argued from the epochs.
//! - [`prefetch`]: a hint to the processor. [`tags`]: a comparison of bytes, side by side.
//! - [`sync`]: the atomics of all this; in models, those of loom.
#![allow(unsafe_code)]

pub(crate) mod cell;
pub(crate) mod epochs;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod prefetch;
pub(crate) mod slab;
pub(crate) mod sync;
pub(crate) mod tags;
pub(crate) mod trash;
mod wide;
mod words;

pub(crate) use cell::EpochCell;
pub(crate) use epochs::{Epochs, Guard, LongGuard};
pub(crate) use slab::{Growth, Slab, Slot, copy_few};
pub(crate) use trash::{Dead, Trash};
pub(crate) use wide::{Copied, Copies, Single};
