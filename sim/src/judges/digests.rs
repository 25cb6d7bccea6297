//! Equal digests at equal positions: two replicas that have applied the same index hold the same rows, and one that comes
//! to an index again after a restart holds what it held there before.

use std::collections::BTreeMap;

use stoa_protocol::message::DigestAnswer;
use stoa_protocol::{LogIndex, PartitionId};

/// Positions that are kept for each partition: replicas are compared every few hundred milliseconds, and none is
/// further behind than the log of a run.
const POSITIONS_MAX: usize = 4_096;

/// The digests seen so far.
#[derive(Debug, Default)]
pub struct Digests {
    seen: BTreeMap<PartitionId, BTreeMap<LogIndex, (u64, DigestAnswer)>>,
    /// Pairs of replicas that were compared.
    pub compared: u64,
}

impl Digests {
    /// Compares what a node's replica is with what others were at that position.
    pub fn judge(&mut self, node: u64, partition: PartitionId, digest: DigestAnswer) -> Option<String> {
        let seen = self.seen.entry(partition).or_default();
        if seen.len() >= POSITIONS_MAX {
            seen.pop_first();
        }
        let at = digest.applied;
        let (other, first) = seen.entry(at).or_insert_with(|| (node, digest.clone()));
        self.compared += u64::from(*other != node);
        (*first != digest)
            .then(|| format!("partition {partition} at {at}: node {other} has {first:?}, and node {node} {digest:?}"))
    }
}
