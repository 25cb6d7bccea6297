//! A transport that counts what a client sends and receives, so that an echo can be asked for the same bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Peer, Transport, TransportError};

/// Requests smaller than this are pings, maps and their like, no reads of rows.
const READ_BYTES_MIN: usize = 256;

/// The transport beneath, and counts of the calls on it that were answered.
#[derive(Clone)]
pub struct Counted<T> {
    inner: T,
    counts: Arc<Counts>,
}

/// Calls of at least [`READ_BYTES_MIN`] bytes, and the bytes of their messages, frames and all.
#[derive(Debug, Default)]
pub struct Counts {
    calls: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// The means of some calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallBytes {
    /// Bytes of a request.
    pub up: usize,
    /// Bytes of an answer.
    pub down: usize,
    /// Calls.
    pub calls: u64,
}

impl<T> Counted<T> {
    /// Counts from zero.
    pub fn new(inner: T) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// Where it counts.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

impl Counts {
    /// What there was since the last time; the means of nothing are 0.
    pub fn take(&self) -> CallBytes {
        let take = |of: &AtomicU64| of.swap(0, Ordering::Relaxed);
        let (calls, up, down) = (take(&self.calls), take(&self.up), take(&self.down));
        let mean = |sum: u64| (sum / calls.max(1)) as usize;
        CallBytes { up: mean(up), down: mean(down), calls }
    }
}

impl<T: Transport> Transport for Counted<T> {
    async fn call(&self, to: Peer, channel: Channel, request: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        let up = request.len();
        let answer = self.inner.call(to, channel, request, limit).await?;
        if up >= READ_BYTES_MIN {
            let add = |to: &AtomicU64, much: usize| to.fetch_add(much as u64, Ordering::Relaxed);
            add(&self.counts.calls, 1);
            add(&self.counts.up, up);
            add(&self.counts.down, answer.len());
        }
        Ok(answer)
    }
}
