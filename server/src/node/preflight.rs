//! Before a node touches its data directory: whether those that should be its neighbours are of the same cluster.
//!
//! Certificates of another authority, or another cluster's id, can be seen only from outside. If two first members are not
//! of this node's cluster and none is, it is this node that is wrong, and it must say so rather than wait for ever. One by
//! itself is named in the log, and the node starts: one bad node must not keep the others down. It goes on looking then
//! (strangers.rs).

use std::time::Duration;

use stoa_env::{Channel, JoinSet, Transport, TransportError};
use stoa_protocol::message::Kind;
use stoa_protocol::{ErrorCode, NodeId};
use stoa_raft::{CallError, Peers};

use super::{NodeError, RootMember};

/// How long a start waits for a sign of a neighbour: handshakes between zones take some ten milliseconds. Nobody may be
/// there yet, or any more, so this is short.
const PREFLIGHT_LIMIT: Duration = Duration::from_millis(500);

/// Why a node is not of this cluster, if that is what the error says.
pub(super) fn stranger(error: &CallError) -> Option<String> {
    match error {
        CallError::Transport(TransportError::Untrusted { .. }) => Some(error.to_string()),
        CallError::Refused(refusal) if refusal.code == ErrorCode::WrongCluster => Some(refusal.message.clone()),
        _ => None,
    }
}

/// Asks the other first members for a sign of life, all at once, until one is of this cluster.
///
/// # Errors
/// [`NodeError::Strangers`] if two of them answered that they are not of this cluster, and none that it is.
pub(super) async fn check<T: Transport>(peers: &Peers<T>, root: &[RootMember], me: NodeId) -> Result<(), NodeError> {
    let mut asked = JoinSet::new();
    for node in root.iter().map(|member| member.node).filter(|node| *node != me) {
        let peers = peers.clone();
        asked.spawn(async move { peers.call(node, Channel::Liveness, Kind::Ping, &[], PREFLIGHT_LIMIT).await });
    }
    let mut strangers = Vec::new();
    while let Some(ended) = asked.join_next().await {
        match ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
            Ok(_) => return Ok(()),
            Err(error) => strangers.extend(stranger(&error)),
        }
    }
    strangers.iter().for_each(|why| tracing::error!(why, "a neighbour is not of this cluster"));
    match strangers.len() {
        0 | 1 => Ok(()),
        _ => Err(NodeError::Strangers { each: strangers.join("; ") }),
    }
}
