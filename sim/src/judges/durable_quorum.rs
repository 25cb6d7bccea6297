//! Acknowledged is durable on a quorum: at the moment at which a node acknowledges a write to a client, the entry would be
//! left by a loss of power of all machines at once on a majority of the voters' disks, in a log or in a snapshot.

use std::collections::BTreeMap;

use super::one_majority::is_quorum;
use crate::observe::disk_log::GroupLog;
use crate::observe::frames::Members;

/// The term of entry `index` of `group`, which is acknowledged, or what is wrong. No term where it is in snapshots alone. `disks` are what is durable on each node; `members` are the memberships that
/// count: the last one before the entry, and those after it.
pub fn judge<'a>(
    group: u64,
    index: u64,
    disks: &BTreeMap<u64, &GroupLog>,
    members: impl Iterator<Item = &'a Members> + Clone,
) -> Result<Option<u64>, String> {
    let mut terms: Vec<Option<u64>> = disks.values().map(|disk| disk.term_at(index)).collect();
    terms.push(None);
    terms.sort_unstable();
    terms.dedup();
    let holders = |term: Option<u64>| -> Vec<u64> {
        let has = |disk: &&GroupLog| (term.is_some() && disk.term_at(index) == term) || disk.is_covered(index);
        disks.iter().filter(|(_, disk)| has(disk)).map(|(node, _)| *node).collect()
    };
    let kept = terms.iter().rev().find(|term| {
        let nodes = holders(**term);
        members.clone().any(|members| {
            is_quorum(members, &|replica| members.nodes.iter().any(|(id, node)| *id == replica && nodes.contains(node)))
        })
    });
    kept.copied().ok_or_else(|| {
        let held: Vec<_> = disks
            .iter()
            .map(|(node, disk)| format!("node {node}: term {:?}, snapshot to {:?}", disk.term_at(index), disk.snapshot))
            .collect();
        let members: Vec<_> = members.collect();
        format!(
            "group {group}: entry {index} is acknowledged, and on the disks is {}; members {members:?}",
            held.join("; ")
        )
    })
}
