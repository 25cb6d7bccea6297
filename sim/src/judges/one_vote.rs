//! One vote a term: a replica grants its vote in a term to one candidate, whatever happens to it in between.

use std::collections::BTreeMap;

use crate::observe::frames::Vote;

/// The votes seen so far: by node and group, for whom in which term.
#[derive(Debug, Default)]
pub struct OneVote {
    granted: BTreeMap<(u64, u64), BTreeMap<u64, u64>>,
}

impl OneVote {
    /// Node `node` has granted a vote in `group`, or written one down.
    pub fn judge(&mut self, node: u64, group: u64, vote: Vote) -> Option<String> {
        if vote.committed {
            // That of a leader which others have elected.
            return None;
        }
        let granted = self.granted.entry((node, group)).or_default();
        // The first thing that a replica writes down is itself, in term 0: another one has begun.
        if vote.term == 0 && granted.get(&0).is_some_and(|first| *first != vote.candidate) {
            granted.clear();
        }
        let first = *granted.entry(vote.term).or_insert(vote.candidate);
        (first != vote.candidate).then(|| {
            format!(
                "node {node}, group {group}, term {}: it voted for replica {first}, and then for {}",
                vote.term, vote.candidate
            )
        })
    }

    /// Which replica the node has in this group, by what it wrote down first.
    pub fn replica(&self, node: u64, group: u64) -> Option<u64> {
        self.granted.get(&(node, group))?.get(&0).copied()
    }

    /// The node begins in this group as another replica.
    pub fn forget(&mut self, node: u64, group: u64) {
        self.granted.remove(&(node, group));
    }

    /// The node begins in every group as another replica.
    pub fn forget_all(&mut self, node: u64) {
        self.granted.retain(|(other, _), _| *other != node);
    }
}
