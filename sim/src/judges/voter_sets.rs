//! Every voter set has one voter in each of three zones: the loss of a zone is the loss of one vote, at every instant,
//! also in both halves of a configuration that is changing, and also in one that will never be committed. Judged of every
//! entry that becomes durable somewhere, and every 200 ms of what replicas say.

use std::collections::BTreeSet;

use stoa_protocol::{NodeId, PartitionId};
use stoa_raft::Members;

use crate::observe::frames;

/// Judges the members of a group as one of its replicas has them.
pub fn judge(partition: PartitionId, members: &Members, zone_of: impl Fn(NodeId) -> Option<String>) -> Option<String> {
    members.voters.iter().find_map(|voters| {
        let zones: BTreeSet<_> = voters.iter().map(|(_, node)| zone_of(*node)).collect();
        let fits = voters.len() == 3 && zones.len() == 3 && !zones.contains(&None);
        (!fits).then(|| format!("group {partition}: the voters {voters:?} lie in the zones {zones:?}, of {members:?}"))
    })
}

/// Judges the members that an entry of a group's log gives it, whether or not it will ever be committed.
pub fn judge_entry(group: u64, members: &frames::Members, zone_of: impl Fn(u64) -> Option<String>) -> Option<String> {
    let node_of = |replica: &u64| members.nodes.iter().find(|(id, _)| id == replica).map(|(_, node)| *node);
    members.configs.iter().find_map(|voters| {
        let zones: BTreeSet<_> = voters.iter().map(|replica| node_of(replica).and_then(&zone_of)).collect();
        let fits = voters.len() == 3 && zones.len() == 3 && !zones.contains(&None);
        (!fits).then(|| format!("group {group}: the voters {voters:?} lie in the zones {zones:?}, of {members:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::{LogIndex, ReplicaId};

    #[test]
    fn an_entry_with_two_voters_in_a_zone_or_one_that_lies_nowhere_is_seen() {
        let zone_of = |node: u64| (node <= 6).then(|| ["a", "b", "c"][node as usize % 3].to_owned());
        let judged = |configs: &[&[u64]], nodes: &[(u64, u64)]| {
            let configs = configs.iter().map(|voters| voters.to_vec()).collect();
            judge_entry(2, &frames::Members { configs, nodes: nodes.to_vec() }, zone_of)
        };
        let nodes = [(11, 1), (12, 2), (13, 3), (14, 4), (19, 9)];
        assert_eq!(judged(&[&[11, 12, 13]], &nodes), None);
        assert_eq!(judged(&[&[11, 12, 13], &[14, 12, 13]], &nodes), None);
        for bad in [&[11, 12][..], &[11, 14, 12], &[11, 12, 19], &[11, 12, 18]] {
            assert!(judged(&[bad], &nodes).is_some(), "{bad:?}");
            assert!(judged(&[&[11, 12, 13], bad], &nodes).is_some(), "{bad:?}");
        }
    }

    fn verdict(sets: &[&[u64]]) -> Option<String> {
        let voter = |node: &u64| (ReplicaId(*node + 10), NodeId(*node));
        let voters = sets.iter().map(|set| set.iter().map(voter).collect()).collect();
        let members = Members { at: LogIndex(1), committed: true, voters, learners: vec![] };
        judge(PartitionId(2), &members, |node| (node.0 <= 6).then(|| ["a", "b", "c"][node.0 as usize % 3].to_owned()))
    }

    #[test]
    fn sets_that_lack_a_zone_have_one_twice_or_are_too_large_are_seen_in_either_half() {
        assert_eq!(verdict(&[]), None, "a group that has not been formed");
        assert_eq!(verdict(&[&[1, 2, 3]]), None);
        assert_eq!(verdict(&[&[1, 2, 3], &[4, 2, 3]]), None);
        for bad in [&[1, 2][..], &[1, 4, 2], &[1, 2, 3, 4], &[1, 2, 9], &[]] {
            assert!(verdict(&[bad]).is_some(), "{bad:?}");
            assert!(verdict(&[&[1, 2, 3], bad]).is_some(), "{bad:?}");
            assert!(verdict(&[bad, &[1, 2, 3]]).is_some(), "{bad:?}");
        }
    }
}
