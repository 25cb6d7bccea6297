//! Leader completeness: who is elected has every entry that was committed in an earlier term, in its log or in its
//! snapshot.

use super::committed::Committed;
use crate::observe::disk_log::GroupLog;

/// Node `node` has been elected in `term`, and this is what its disk has of the group.
pub fn judge(node: u64, group: u64, term: u64, durable: &GroupLog, committed: &Committed) -> Option<String> {
    if durable.suspect {
        return None;
    }
    let covered = durable.snapshot.max(durable.purged.map(|purged| purged.index));
    let from = covered.map_or(0, |index| index + 1);
    let older = committed.of(group)?.range(from..).filter(|(_, (of, _))| *of < term);
    let lacking = older
        .into_iter()
        .find(|(index, entry)| durable.entries.get(index).map(|held| (held.term, held.hash)) != Some(**entry));
    lacking.map(|(index, (of, _))| {
        let has = durable.entries.get(index).map(|held| held.term);
        format!("node {node} leads group {group} in term {term} without entry {index} of term {of}, which was committed; it has {has:?} there, and of its log {}", durable.extent())
    })
}
