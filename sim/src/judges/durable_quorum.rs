//! Acknowledged is durable on a quorum: at the moment at which a node acknowledges a write to a client, the entry would be
//! left by a loss of power of all machines at once on a majority of the voters' disks, in a log or in a snapshot.
//!
//! In a joint configuration that is majorities of both halves. Once the joint configuration itself is durable on both,
//! nobody is elected without a majority of the newer half, and a leader counts that half alone from the moment at which it
//! has appended the final configuration (Ongaro, Consensus: Bridging Theory and Practice, section 4.3).

use std::collections::BTreeMap;

use super::one_majority::is_quorum;
use crate::observe::disk_log::GroupLog;
use crate::observe::frames::Members;

/// The term of entry `index` of `group`, which is acknowledged, or what is wrong. No term where it is in snapshots alone.
/// `disks` are what is durable on each node; `deciding` are the memberships that count in a log, each with its index: the
/// last one up to the entry, and those after it.
pub fn judge(
    group: u64,
    index: u64,
    disks: &BTreeMap<u64, &GroupLog>,
    deciding: &dyn Fn(&GroupLog) -> Vec<(u64, Members)>,
) -> Result<Option<u64>, String> {
    // Another entry may stand at that place, with another past.
    let members = |term: Option<u64>| {
        let logs = disks.values().filter(move |disk| has(disk, index, term));
        logs.flat_map(|disk| deciding(disk))
    };
    let decides = |term| {
        members(term).any(|(at, members)| {
            let on_newer_half = || {
                let newer =
                    Members { configs: members.configs.iter().rev().take(1).cloned().collect(), ..members.clone() };
                holds(disks, index, term, &newer)
            };
            let is_final = |at| terms(disks, at).any(|term| holds(disks, at, term, &members));
            holds(disks, index, term, &members) || members.configs.len() > 1 && is_final(at) && on_newer_half()
        })
    };
    terms(disks, index).find(|term| decides(*term)).ok_or_else(|| {
        let held: Vec<_> = disks
            .iter()
            .map(|(node, disk)| format!("node {node}: term {:?}, snapshot to {:?}", disk.term_at(index), disk.snapshot))
            .collect();
        let members: Vec<_> = terms(disks, index).map(|term| (term, members(term).collect::<Vec<_>>())).collect();
        format!(
            "group {group}: entry {index} is acknowledged, and on the disks is {}; members by term {members:?}",
            held.join("; ")
        )
    })
}

/// The terms that entry `index` has on disks, the highest first, and in the end none, for what snapshots alone have.
fn terms(disks: &BTreeMap<u64, &GroupLog>, index: u64) -> impl Iterator<Item = Option<u64>> + use<> {
    let mut terms: Vec<Option<u64>> = disks.values().map(|disk| disk.term_at(index)).collect();
    terms.push(None);
    terms.sort_unstable_by(|a, b| b.cmp(a));
    terms.dedup();
    terms.into_iter()
}

/// Whether a disk has entry `index` of this term, or a snapshot with what stands there.
fn has(disk: &GroupLog, index: u64, term: Option<u64>) -> bool {
    (term.is_some() && disk.term_at(index) == term) || disk.is_covered(index)
}

/// Whether entry `index` of this term is on a majority of each configuration.
fn holds(disks: &BTreeMap<u64, &GroupLog>, index: u64, term: Option<u64>, members: &Members) -> bool {
    let has = |node: &u64| disks.get(node).is_some_and(|disk| has(disk, index, term));
    is_quorum(members, &|replica| members.nodes.iter().any(|(id, node)| *id == replica && has(node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::disk_log::Held;

    fn log(upto: u64) -> GroupLog {
        GroupLog { entries: (1..=upto).map(|index| (index, Held::new(1, index))).collect(), ..GroupLog::default() }
    }

    fn verdict(upto: [u64; 4], configs: &[&[u64]]) -> bool {
        let logs = upto.map(log);
        let disks = (1..).zip(&logs).collect();
        let configs = configs.iter().map(|config| config.to_vec()).collect();
        let members = Members { configs, nodes: (1..=4).map(|id| (id, id)).collect() };
        judge(7, 9, &disks, &|_| vec![(5, members.clone())]).is_ok()
    }

    #[test]
    fn a_majority_of_both_halves_or_of_the_newer_one_once_the_joint_configuration_is_durable() {
        assert!(verdict([9, 9, 0, 0], &[&[1, 2, 3]]));
        assert!(!verdict([9, 8, 8, 9], &[&[1, 2, 3]]));
        let joint: &[&[u64]] = &[&[1, 2, 3], &[1, 2, 4]];
        assert!(verdict([9, 9, 0, 0], joint));
        assert!(verdict([9, 5, 0, 9], joint));
        assert!(!verdict([9, 4, 0, 9], joint), "the joint configuration is on one disk of the older half");
        assert!(!verdict([9, 5, 9, 5], joint), "the older half does not decide alone");
    }
}
