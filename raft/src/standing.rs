//! Where a replica stands, for whoever looks at a node from outside: operators, and judges of a simulation.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use stoa_env::Disk;
use stoa_protocol::{PartitionId, ReplicaId};

use crate::machine::Machine;
use crate::replica::Replica;
use crate::types::LogId;

/// A place in a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// The index; the first entry has 0.
    pub index: u64,
    /// The term of the entry there.
    pub term: u64,
}

/// Where a replica stands in its group, all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The group.
    pub partition: PartitionId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its term.
    pub term: u64,
    /// Whether it takes itself for the leader of that term.
    pub leads: bool,
    /// For a leader, how long ago a message was sent that a quorum has acknowledged; by the node's clock. `None` also once
    /// it has begun to hand its leadership over: the next leader does not wait for its lease, and it answers no strong
    /// read any more.
    pub quorum_age: Option<Duration>,
    /// The index of its last entry.
    pub last: Option<u64>,
    /// The last place it knows to be committed.
    pub committed: Option<LogPlace>,
    /// The last place it has applied.
    pub applied: Option<LogPlace>,
    /// Where its newest snapshot ends.
    pub snapshot: Option<LogPlace>,
    /// Where its log was cut: what it has begins after it.
    pub purged: Option<LogPlace>,
}

impl<D: Disk, M: Machine> Replica<D, M> {
    /// Where this replica stands.
    pub fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let place = |id: &Option<LogId>| id.map(|id| LogPlace { index: id.index, term: id.leader_id.term });
        Standing {
            partition: self.partition(),
            replica: self.id(),
            term: metrics.current_term,
            leads: metrics.state == ServerState::Leader,
            quorum_age: metrics
                .last_quorum_acked
                .filter(|_| !self.hands_over(metrics.current_term))
                .map(|acked| self.context.since(acked.into_inner())),
            last: metrics.last_log_index,
            committed: place(&metrics.local_committed),
            applied: place(&metrics.last_applied),
            snapshot: place(&metrics.snapshot),
            purged: place(&metrics.purged),
        }
    }
}
