//! Cluster versions: which of them this node speaks, and how the cluster comes to the next one.
//!
//! A node tells in its join what it speaks. Once every node speaks a later version, the leader of the root group raises the
//! cluster to it; from then on commands of that version are proposed, and nobody who does not speak it comes back. Until then
//! any node may go back to an earlier program. A node that is told not to speak more than some version (`cluster.version_max`)
//! keeps that way open for as long as it likes.

use std::sync::Weak;

use stoa_env::{Disk, Transport};
use stoa_protocol::read::ConfirmBy;
use stoa_protocol::{ErrorBody, ErrorCode};
use stoa_raft::root::state::HEARTBEAT_VERSION;
use stoa_raft::root::{RootCommand, RootState};

use super::{LOOP_PAUSE, NODE_CALL_LIMIT, Node};

impl<D: Disk, T: Transport> Node<D, T> {
    /// Why this node can be no part of a cluster with that state, if so.
    pub(super) fn cannot_speak(&self, state: &RootState) -> Option<String> {
        let (low, high) = self.options.versions;
        let formed = !state.map.root.is_empty();
        (formed && !(low..=high).contains(&state.cluster_version)).then(|| {
            format!(
                "the cluster is at version {}, and this node speaks {low} to {high}: start it with a program that speaks the \
                 cluster's version, or raise cluster.version_max if that is what holds it back",
                state.cluster_version
            )
        })
    }

    /// Refuses a way to confirm that no program knows which speaks no later version than this node says it does. One that is
    /// held back is so to others what it says it is.
    pub(super) fn check_known(&self, by: ConfirmBy) -> Result<(), ErrorBody> {
        let speaks = self.options.versions.1;
        if by != ConfirmBy::Heartbeat || speaks >= HEARTBEAT_VERSION {
            return Ok(());
        }
        let message = format!(
            "confirmation by heartbeat is of cluster version {HEARTBEAT_VERSION}, and node {} speaks up to {speaks}; ask for \
             it by read index",
            self.info.id
        );
        Err(ErrorBody::new(ErrorCode::BadRequest, message))
    }
}

/// Raises the cluster's version when every node speaks a later one and this node leads the root group.
pub(super) async fn raise<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        if let Some(version) =
            strong.state().version_ahead().filter(|_| strong.root_replica().is_some_and(|r| r.leads()))
        {
            match strong.propose_to_root(RootCommand::RaiseVersion(version), NODE_CALL_LIMIT).await {
                Ok(_) => tracing::info!(version, "every node speaks it: the cluster is raised to this version"),
                Err(error) => tracing::debug!(version, %error, "raising the cluster's version"),
            }
        }
        drop(strong);
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}
