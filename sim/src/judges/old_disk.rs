//! An old disk answers for nothing: a node whose disk is an old image of itself has forgotten what it answered for since, and
//! others know that. It gives no vote and takes no entries until it has another disk.

use std::collections::BTreeSet;

use stoa_raft::Promise;

/// Node `node` gives `promise`; `old` are the nodes with old disks.
pub fn judge(node: u64, group: u64, promise: Promise, old: &BTreeSet<u64>) -> Option<String> {
    old.contains(&node)
        .then(|| format!("node {node}, group {group}: it answers with {promise:?} on an old image of its disk"))
}
