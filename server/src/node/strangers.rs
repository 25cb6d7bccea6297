//! Whether those that should be this node's neighbours are of the same cluster.
//!
//! Certificates of another authority, or another cluster's id, can be seen only from outside: some neighbour does not
//! accept this node, or this node does not accept it. One such neighbour by itself proves nothing, it may be the one that is
//! wrong, and one bad node must not keep the others down. So:
//! 1. As soon as one neighbour is known to be of this cluster, this node is not the one that is wrong.
//! 2. Until then a node that has met a stranger says so, in its log, in its status, and to whoever asks for the map.
//! 3. It ends when all neighbours are strangers, and when there is a stranger and no neighbour of this cluster has been
//!    found for [`ALONE_MAX`]: whoever is silent for so long cannot speak for this node.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Channel, Disk, JoinSet, Transport};
use stoa_protocol::NodeId;
use stoa_protocol::message::Kind;
use stoa_raft::CallError;

use super::preflight::stranger;
use super::upkeep::each;
use super::{Node, NodeError};

/// How long a node that has met a stranger may look for a neighbour of its own cluster. Nodes that are started together
/// meet within a second or two; a supervisor that starts the node again gives it as long once more.
pub(crate) const ALONE_MAX: Duration = Duration::from_secs(15);
/// Between two rounds of asking.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// How long a neighbour may take to answer a ping.
const PING_LIMIT: Duration = Duration::from_secs(1);

/// What this node has learnt of its neighbours since it started.
#[derive(Default)]
pub(crate) struct Neighbours(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// One of them is of this cluster.
    acquainted: bool,
    /// Those that are not, as it seems from here, and why.
    strangers: BTreeMap<NodeId, String>,
    /// When the first of them was met.
    since: Option<BootTime>,
}

impl Neighbours {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A neighbour is of this cluster.
    pub(crate) fn know(&self, node: NodeId) {
        let mut known = self.lock();
        known.acquainted = true;
        known.strangers.remove(&node);
    }

    /// A call to a neighbour failed: if that means that it is not of this cluster, it is noted, and said once.
    pub(crate) fn failed(&self, node: NodeId, error: &CallError, now: BootTime) {
        let Some(why) = stranger(error) else { return tracing::debug!(to = node.0, %error, "no answer") };
        let mut known = self.lock();
        known.since.get_or_insert(now);
        if known.strangers.insert(node, why).is_none() {
            tracing::error!(to = node.0, %error, "a node that should be of this cluster is not, or this one is not");
        }
    }

    /// What is wrong, if this node has met strangers alone.
    pub(crate) fn trouble(&self) -> Option<String> {
        let known = self.lock();
        if known.acquainted || known.strangers.is_empty() {
            return None;
        }
        Some(NodeError::Strangers { each: known.each() }.to_string())
    }

    fn acquainted(&self) -> bool {
        self.lock().acquainted
    }

    /// Why this node must end, if it must, out of so many neighbours.
    fn verdict(&self, neighbours: usize, now: BootTime) -> Option<NodeError> {
        let known = self.lock();
        let alone = known.since.is_some_and(|since| now.since(since) >= ALONE_MAX);
        let all = known.strangers.len() >= neighbours.max(2);
        (!known.acquainted && (all || alone)).then(|| NodeError::Strangers { each: known.each() })
    }
}

impl Known {
    fn each(&self) -> String {
        self.strangers.values().cloned().collect::<Vec<_>>().join("; ")
    }
}

/// Asks the neighbours until one is of this cluster, or the node has to end. What was found out before the start, and what
/// others find out meanwhile, counts too.
pub(super) async fn look_around<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let neighbours: Vec<NodeId> = strong.root_nodes().into_iter().filter(|id| *id != strong.info.id).collect();
        let mut asked = JoinSet::new();
        for to in neighbours.iter().copied() {
            let peers = strong.env.peers.clone();
            asked.spawn(async move { (to, peers.call(to, Channel::Liveness, Kind::Ping, &[], PING_LIMIT).await) });
        }
        each(asked, |(to, answer)| match answer {
            Ok(_) => strong.neighbours.know(to),
            Err(error) => strong.neighbours.failed(to, &error, strong.env.context.clock.boot()),
        })
        .await;
        if strong.neighbours.acquainted() {
            return;
        }
        if let Some(why) = strong.neighbours.verdict(neighbours.len(), strong.env.context.clock.boot()) {
            return strong.fail(why.to_string());
        }
        drop(strong);
        stoa_env::sleep(ROUND_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use stoa_env::TransportError;

    use super::*;

    fn untrusted() -> CallError {
        TransportError::Untrusted { addr: ([127, 0, 0, 1], 7).into(), reason: "another authority's".into() }.into()
    }

    #[test]
    fn one_stranger_is_borne_for_a_while_and_two_are_not() {
        let (start, end) = (BootTime(5), BootTime(5).plus(ALONE_MAX));
        let neighbours = Neighbours::default();
        assert!(neighbours.verdict(2, end).is_none() && neighbours.trouble().is_none(), "nobody has answered yet");
        neighbours.failed(NodeId(2), &untrusted(), start);
        assert!(neighbours.verdict(2, start).is_none());
        assert!(neighbours.trouble().unwrap().contains("another authority's"));
        assert!(neighbours.verdict(2, end).is_some(), "the other one is silent for too long");
        neighbours.failed(NodeId(3), &untrusted(), start);
        assert!(neighbours.verdict(2, start).is_some());
    }

    #[test]
    fn a_neighbour_of_this_cluster_ends_all_doubt() {
        let neighbours = Neighbours::default();
        neighbours.failed(NodeId(2), &untrusted(), BootTime(0));
        neighbours.know(NodeId(3));
        assert!(neighbours.verdict(2, BootTime(0).plus(ALONE_MAX)).is_none() && neighbours.trouble().is_none());
    }
}
