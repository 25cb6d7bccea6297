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

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)] // delays are in true time

    use std::net::SocketAddr;
    use std::time::Instant;

    use super::*;

    /// Answers at once with what it was asked, and counts.
    #[derive(Clone, Default)]
    struct Mirror(Arc<AtomicU64>);

    impl Transport for Mirror {
        async fn call(&self, _: Peer, _: Channel, request: Bytes, _: Duration) -> Result<Bytes, TransportError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(request)
        }
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn apart(mirror: Mirror) -> Delayed<Mirror> {
        let zones = [(addr(1), "a".to_owned()), (addr(2), "b".to_owned())].into();
        Delayed::new(mirror, ZonePlan { one_way_us: 5_000, jitter_us: 0, zones }, "a").unwrap()
    }

    async fn call(delayed: &Delayed<Mirror>, port: u16, limit: Duration) -> (Result<Bytes, TransportError>, Duration) {
        let (to, start) = (Peer { addr: addr(port), node: None }, Instant::now());
        (delayed.call(to, Channel::Client, Bytes::from_static(b"x"), limit).await, start.elapsed())
    }

    #[tokio::test]
    async fn a_message_to_another_zone_takes_the_way_there_and_the_way_back() {
        let delayed = apart(Mirror::default());
        let (answer, took) = call(&delayed, 2, Duration::from_secs(5)).await;
        assert_eq!(answer, Ok(Bytes::from_static(b"x")));
        assert!(took >= Duration::from_millis(10), "both ways are 10 ms, and it took {took:?}");
    }

    #[tokio::test]
    async fn a_call_that_cannot_be_back_in_time_times_out_and_is_not_sent() {
        let mirror = Mirror::default();
        let limit = Duration::from_millis(8);
        let (answer, took) = call(&apart(mirror.clone()), 2, limit).await;
        assert_eq!(answer, Err(TransportError::TimedOut { addr: addr(2), limit }));
        assert!(took >= limit);
        assert_eq!(mirror.0.load(Ordering::Relaxed), 0);
    }
}
