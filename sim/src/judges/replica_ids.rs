//! A replica id is one replica for ever: it lives on one node and in one data directory, and never comes back after that
//! was emptied; and no node has two replicas among the voters of a group.

use std::collections::BTreeMap;

use crate::observe::frames::Members;

/// The replicas seen so far: by group and replica id, the node and the incarnation of its data directory.
#[derive(Debug, Default)]
pub struct ReplicaIds {
    homes: BTreeMap<(u64, u64), (u64, u64)>,
}

impl ReplicaIds {
    /// Replica `replica` of `group` runs on `node`, in the data directory `incarnation`.
    pub fn judge(&mut self, group: u64, replica: u64, node: u64, incarnation: u64) -> Option<String> {
        let home = *self.homes.entry((group, replica)).or_insert((node, incarnation));
        (home != (node, incarnation)).then(|| {
            format!(
                "group {group}: replica {replica} runs on node {node} in data directory {incarnation:016x}, and was on node \
                 {} in {:016x}",
                home.0, home.1
            )
        })
    }

    /// A group has these members.
    pub fn judge_members(&self, group: u64, members: &Members) -> Option<String> {
        let node_of = |replica: &u64| members.nodes.iter().find(|(id, _)| id == replica).map(|(_, node)| *node);
        for config in &members.configs {
            let mut nodes: Vec<u64> = config.iter().filter_map(node_of).collect();
            nodes.sort_unstable();
            if let Some(pair) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
                return Some(format!("group {group}: node {} votes twice, in {members:?}", pair[0]));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_id_that_moves_or_comes_back_from_an_empty_disk_is_seen() {
        let mut ids = ReplicaIds::default();
        assert_eq!(ids.judge(2, 1, 1, 0xa), None);
        assert_eq!(ids.judge(2, 1, 1, 0xa), None);
        assert_eq!(ids.judge(3, 1, 2, 0xb), None, "another group has ids of its own");
        assert!(ids.judge(2, 1, 2, 0xb).is_some());
        assert!(ids.judge(2, 1, 1, 0xc).is_some());
    }

    #[test]
    fn a_node_that_votes_twice_is_seen() {
        let two = Members { configs: vec![vec![1, 2, 3]], nodes: vec![(1, 1), (2, 2), (3, 2)] };
        assert!(ReplicaIds::default().judge_members(2, &two).is_some());
        let during_a_change = Members { configs: vec![vec![1, 2], vec![1, 3]], nodes: vec![(1, 1), (2, 2), (3, 2)] };
        assert_eq!(ReplicaIds::default().judge_members(2, &during_a_change), None);
    }
}
