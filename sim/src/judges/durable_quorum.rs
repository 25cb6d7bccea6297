//! Acknowledged is durable on a quorum: at the moment at which a node acknowledges a write to a client, the entry would be
//! left by a loss of power of all machines at once on a majority of the voters' disks, in a log or in a snapshot.

use std::collections::BTreeMap;

use super::one_majority::is_quorum;
use crate::observe::disk_log::GroupLog;
use crate::observe::frames::Members;

/// Entry `index` of `group` is acknowledged. `disks` are what is durable on each node; `members` are the memberships that
/// count: the last one before the entry, and those after it.
pub fn judge<'a>(
    group: u64,
    index: u64,
    disks: &BTreeMap<u64, &GroupLog>,
    members: impl Iterator<Item = &'a Members> + Clone,
) -> Option<String> {
    let mut terms: Vec<u64> = disks.values().filter_map(|disk| disk.term_at(index)).collect();
    terms.dedup();
    // Where everybody has it in a snapshot alone, no term is left.
    terms.push(0);
    let holders = |term: u64| -> Vec<u64> {
        let has = |disk: &&GroupLog| disk.term_at(index) == Some(term) || disk.is_covered(index);
        disks.iter().filter(|(_, disk)| has(disk)).map(|(node, _)| *node).collect()
    };
    let kept = terms.iter().any(|term| {
        let nodes = holders(*term);
        members.clone().any(|members| {
            is_quorum(members, &|replica| members.nodes.iter().any(|(id, node)| *id == replica && nodes.contains(node)))
        })
    });
    (!kept).then(|| {
        let held: Vec<_> = disks
            .iter()
            .map(|(node, disk)| format!("node {node}: term {:?}, snapshot to {:?}", disk.term_at(index), disk.snapshot))
            .collect();
        format!("group {group}: entry {index} is acknowledged, and on the disks is {}", held.join("; "))
    })
}
