//! Election safety: a term of a group has one leader at the most. Known by what replicas say of themselves, and by the
//! votes on their disks, which name the leader that a quorum has granted.

use std::collections::BTreeMap;

/// The leaders seen so far.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(u64, u64), (u64, u64)>,
}

impl ElectionSafety {
    /// By node `node`, replica `replica` leads `group` in `term`.
    pub fn judge(&mut self, node: u64, group: u64, term: u64, replica: u64) -> Option<String> {
        let (other, told) = *self.leaders.entry((group, term)).or_insert((replica, node));
        (other != replica).then(|| {
            format!("group {group}, term {term}: replica {other} leads, by node {told}, and {replica}, by node {node}")
        })
    }

    /// Terms with a leader.
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }
}
