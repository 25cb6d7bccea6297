//! Committed entries are immutable: what one replica knows to be committed stands at that place in every log that knows
//! as much, for ever, and no replica cuts it off its log unless it has it in a snapshot.

use std::collections::BTreeMap;

use crate::observe::disk_log::{GroupLog, Held};
use crate::observe::frames::LogId;

/// What is committed at an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    /// The entry's term.
    pub term: u64,
    /// Of its bytes.
    pub hash: u64,
    /// The earliest term in which somebody is known to have taken it as committed: a later one than its own if its own
    /// leader did not come to that.
    pub by: u64,
}

/// What is committed, by group and index.
#[derive(Debug, Default)]
pub struct Committed {
    entries: BTreeMap<u64, BTreeMap<u64, Stands>>,
    /// Up to where the log of a node was compared.
    walked: BTreeMap<(u64, u64), u64>,
}

impl Committed {
    /// The log of node `node` is `durable`, and it knows from the leader that it follows that this is committed.
    pub fn judge(&mut self, node: u64, group: u64, upto: LogId, durable: &GroupLog) -> Option<String> {
        self.judge_by(node, group, upto, durable.committed_by(upto.term), durable)
    }

    /// The same for what a leader of term `by` has said.
    pub fn judge_by(&mut self, node: u64, group: u64, upto: LogId, by: u64, durable: &GroupLog) -> Option<String> {
        if durable.suspect {
            return None;
        }
        if let Some(term) = durable.term_at(upto.index).filter(|term| *term != upto.term) {
            return Some(format!(
                "node {node}, group {group}: {upto:?} is committed, and its entry there is of term {term}"
            ));
        }
        let walked = self.walked.entry((node, group)).or_default();
        let entries = self.entries.entry(group).or_default();
        // Entry 0 is the group's first membership, equal on all who formed it.
        for (&index, held) in durable.entries.range(*walked + 1..=upto.index.max(*walked + 1)) {
            if index > upto.index {
                break;
            }
            let stands = entries.entry(index).or_insert(Stands { term: held.term, hash: held.hash, by });
            if (stands.term, stands.hash) != (held.term, held.hash) {
                return Some(format!(
                    "group {group}: entry {index} of term {} was committed, and node {node} knows one of term {} as \
                     committed",
                    stands.term, held.term
                ));
            }
            stands.by = stands.by.min(by);
        }
        *walked = upto.index.max(*walked);
        None
    }

    /// Node `node` drops the entries from `from` on.
    pub fn judge_cut(&self, node: u64, group: u64, from: u64, durable: &GroupLog) -> Option<String> {
        let entries = self.entries.get(&group)?;
        let lost = |(index, held): (&u64, &Held)| {
            let committed = entries.get(index)?;
            ((committed.term, committed.hash) == (held.term, held.hash) && !durable.is_covered(*index))
                .then_some((*index, held.term))
        };
        let (index, term) = durable.entries.range(from..).find_map(lost)?;
        Some(format!("node {node}, group {group}: entry {index} of term {term} was committed, and is cut off its log"))
    }

    /// The node's log begins anew.
    pub fn forget(&mut self, node: u64, group: u64) {
        self.walked.remove(&(node, group));
    }

    /// The node's logs of all groups begin anew.
    pub fn forget_all(&mut self, node: u64) {
        self.walked.retain(|(other, _), _| *other != node);
    }

    /// What is committed of a group, by index.
    pub fn of(&self, group: u64) -> Option<&BTreeMap<u64, Stands>> {
        self.entries.get(&group)
    }
}
