//! A transport whose messages to other zones are delayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Peer, Transport, TransportError};

use super::ZonePlan;
use super::line::DelayLine;

/// The transport beneath, with the way between zones around each message: the request waits before it is sent, and its answer
/// before it is handed over.
#[derive(Clone)]
pub struct Delayed<T> {
    inner: T,
    shared: Arc<Shared>,
}

struct Shared {
    plan: ZonePlan,
    here: String,
    line: DelayLine,
    messages: AtomicU64,
}

impl<T: Transport> Delayed<T> {
    /// Of a process in zone `here`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(inner: T, plan: ZonePlan, here: &str) -> std::io::Result<Self> {
        let (line, here, messages) = (DelayLine::start()?, here.to_owned(), AtomicU64::new(0));
        Ok(Self { inner, shared: Arc::new(Shared { plan, here, line, messages }) })
    }

    fn delay(&self, to: Peer) -> Option<Duration> {
        let n = self.shared.messages.fetch_add(1, Ordering::Relaxed);
        self.shared.plan.delay(&self.shared.here, to.addr, crate::rows::mix(n))
    }
}

impl<T: Transport> Transport for Delayed<T> {
    async fn call(&self, to: Peer, channel: Channel, request: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        let (Some(there), Some(back)) = (self.delay(to), self.delay(to)) else {
            return self.inner.call(to, channel, request, limit).await;
        };
        let Some(left) = limit.checked_sub(there + back).filter(|left| !left.is_zero()) else {
            self.shared.line.wait(limit).await;
            return Err(TransportError::TimedOut { addr: to.addr, limit });
        };
        self.shared.line.wait(there).await;
        let result = self.inner.call(to, channel, request, left).await;
        self.shared.line.wait(back).await;
        result
    }
}
