//! Calls to other nodes by their number: addresses come from the map, frames are put around bodies, and every call ends
//! by its limit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Peer, Transport, TransportError, planted};
use stoa_protocol::codec::Wire;
use stoa_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, decode_frame, encode_frame};
use stoa_protocol::limits::{DEADLINE_US_MAX, FRAME_BYTES_MAX};
use stoa_protocol::message::{ANSWER, KIND_ERROR, Kind};
use stoa_protocol::{ClusterId, ErrorBody, ErrorCode, MapVersion, NodeId};

const _: () =
    assert!(FRAME_BYTES_MAX <= stoa_env::FRAME_BYTES_MAX, "the transport carries every frame of the protocol");

/// Why a call to another node gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The map knows no such node.
    #[error("node {0} is not in the cluster map")]
    UnknownNode(NodeId),
    /// The message did not get there, or its answer not back.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The node answered with an error.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// The answer makes no sense.
    #[error("node {node} gave an answer that is none: {why}")]
    BadAnswer {
        /// Who answered.
        node: NodeId,
        /// What is wrong.
        why: String,
    },
}

/// The way to all other nodes; clones share it.
pub struct Peers<T> {
    transport: T,
    cluster: ClusterId,
    book: Arc<RwLock<BTreeMap<NodeId, SocketAddr>>>,
    next_request: Arc<AtomicU64>,
}

impl<T: Clone> Clone for Peers<T> {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            cluster: self.cluster,
            book: self.book.clone(),
            next_request: self.next_request.clone(),
        }
    }
}

impl<T: Transport> Peers<T> {
    /// Knows nobody yet.
    pub fn new(transport: T, cluster: ClusterId) -> Self {
        Self { transport, cluster, book: Arc::default(), next_request: Arc::new(AtomicU64::new(1)) }
    }

    /// Learns where a node listens; a later address replaces an earlier one.
    pub fn learn(&self, node: NodeId, addr: SocketAddr) {
        self.book.write().unwrap_or_else(|e| e.into_inner()).insert(node, addr);
    }

    /// Of how many nodes that is known: of those of the map, and of the first members.
    pub fn known(&self) -> usize {
        self.book.read().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// Where a node listens.
    pub fn addr(&self, node: NodeId) -> Option<SocketAddr> {
        self.book.read().unwrap_or_else(|e| e.into_inner()).get(&node).copied()
    }

    /// Sends `body` to a node and waits for the body of its answer, `limit` at the most.
    pub async fn call(
        &self,
        node: NodeId,
        channel: Channel,
        kind: Kind,
        body: &[u8],
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let addr = self.addr(node).ok_or(CallError::UnknownNode(node))?;
        if body.len() + FRAME_HEADER_BYTES > FRAME_BYTES_MAX {
            return Err(TransportError::TooLarge { addr, bytes: body.len(), limit: FRAME_BYTES_MAX }.into());
        }
        let request_id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let header = FrameHeader {
            kind: kind as u16,
            request_id,
            cluster: self.cluster,
            map_version: MapVersion(0),
            remaining_us: u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).min(DEADLINE_US_MAX),
        };
        let frame = encode_frame(&header, body);
        let answer = self.transport.call(Peer { addr, node: Some(node.0) }, channel, frame, limit).await?;
        let bad = |why: String| CallError::BadAnswer { node, why };
        let (header, body) = decode_frame(&answer).map_err(|e| bad(e.to_string()))?;
        if header.cluster != self.cluster {
            let message = format!("node {node} at {addr} is of cluster {}, not {}", header.cluster, self.cluster);
            return Err(ErrorBody::new(ErrorCode::WrongCluster, message).into());
        }
        if header.request_id != request_id && !planted!(CountStaleAcks) {
            return Err(bad(format!("it is for request {}, not {request_id}", header.request_id)));
        }
        if header.kind == KIND_ERROR {
            return Err(ErrorBody::from_bytes(&body).map_err(|e| bad(e.to_string()))?.into());
        }
        if header.kind != kind as u16 | ANSWER {
            return Err(bad(format!("it is of kind {}", header.kind)));
        }
        Ok(body)
    }
}
