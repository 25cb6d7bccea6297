//! Messages between processes: one request, one answer. The bytes are whole protocol frames; this layer neither reads
//! nor changes them.
//!
//! Each pair of processes has one connection per [`Channel`], because the streams of one QUIC connection share a
//! congestion window: a snapshot must not delay a heartbeat.

mod accept;
mod complaints;
pub mod credentials;
mod limits;
mod outcome;
mod pool;
pub mod quic;
mod socket;
mod stream;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Address of the peer's socket.
    pub addr: SocketAddr,
    /// The node expected there: its certificate must name it. `None` accepts any node of the cluster (seeds).
    pub node: Option<u64>,
}

/// What a message is for; each has a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Small, urgent and answered at once: pings, votes, heartbeats. Nothing that a node may hold goes here, or votes
    /// would wait behind it.
    Liveness = 1,
    /// Log entries between replicas.
    Append = 2,
    /// Chunks of snapshots.
    Snapshot = 3,
    /// Clients' requests, administration, and what a node asks of another that may hold it for a while: watches,
    /// barriers, joins.
    Client = 4,
}

/// Who sent a message, as proven by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A node of this cluster.
    Node(u64),
    /// A client, with the principal that its certificate names.
    Client(String),
}

/// Why a call gave no answer. `NotSent` and `NoRoom` say that the peer has not acted on the request, `AnswerDropped` that it
/// has; the others leave that open, `Untrusted` apart: nobody of this cluster was asked.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TransportError {
    /// No connection could be made, so the peer has not seen the request.
    #[error("no connection to {addr}: {reason}")]
    NotSent {
        /// Where the connection was tried.
        addr: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The peer's certificate is not of this cluster, or names another node: asking again is pointless.
    #[error("{addr} is not who it should be: {reason}")]
    Untrusted {
        /// Where the peer listens.
        addr: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The connection broke after the request was sent.
    #[error("the connection to {addr} broke: {reason}")]
    Broken {
        /// Where the peer listens.
        addr: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The peer lives and has no room for the request: nobody has begun to work on it.
    #[error("{addr} has no room for the request: {reason}")]
    NoRoom {
        /// Where the peer listens.
        addr: SocketAddr,
        /// What there is too much of.
        reason: String,
    },
    /// The peer lives, has worked on the request, and has dropped its answer, as answers are not read fast enough.
    #[error("{addr} dropped its answer: {reason}")]
    AnswerDropped {
        /// Where the peer listens.
        addr: SocketAddr,
        /// What there is too much of.
        reason: String,
    },
    /// No answer came within the call's time limit.
    #[error("no answer from {addr} within {limit:?}")]
    TimedOut {
        /// Where the peer listens.
        addr: SocketAddr,
        /// The call's time limit.
        limit: Duration,
    },
    /// The request or its answer is larger than a frame may be.
    #[error("a message of {bytes} bytes to or from {addr} is over the limit of {limit}")]
    TooLarge {
        /// Where the peer listens.
        addr: SocketAddr,
        /// Bytes of the message.
        bytes: usize,
        /// The largest allowed size.
        limit: usize,
    },
}

/// Sends requests and receives answers.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Sends `request` and waits for the answer, `limit` at the most. Ends by `limit` whatever the peer does. Dropping
    /// the future gives the answer up.
    fn call(
        &self,
        to: Peer,
        channel: Channel,
        request: Bytes,
        limit: Duration,
    ) -> impl Future<Output = Result<Bytes, TransportError>> + Send;
}

/// Answers requests. An empty answer closes the stream without one.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. `from` is proven; `request` is foreign bytes.
    fn handle(
        self: Arc<Self>,
        from: Arc<PeerIdentity>,
        channel: Channel,
        request: Bytes,
    ) -> impl Future<Output = Bytes> + Send;
}
