//! A transport to one node alone: for measurements of what that one serves.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Peer, Transport, TransportError};

/// The transport beneath, for messages to one address, if there is one; others are not sent.
#[derive(Clone)]
pub struct Directed<T> {
    inner: T,
    only: Option<SocketAddr>,
}

impl<T> Directed<T> {
    /// To `only`, or to everybody.
    pub fn new(inner: T, only: Option<SocketAddr>) -> Self {
        Self { inner, only }
    }
}

impl<T: Transport> Transport for Directed<T> {
    async fn call(&self, to: Peer, channel: Channel, request: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        match self.only {
            Some(only) if only != to.addr => {
                Err(TransportError::NotSent { addr: to.addr, reason: format!("this measurement asks {only} alone") })
            }
            _ => self.inner.call(to, channel, request, limit).await,
        }
    }
}
