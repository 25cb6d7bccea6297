//! Leader completeness: who is elected has every entry that was committed in an earlier term, in its log or in its
//! snapshot. The term in which it was committed counts, not its own: one that no leader of its own term has committed may be
//! missing in the log of the next.

use super::committed::Committed;
use crate::observe::disk_log::GroupLog;

/// Node `node` has been elected in `term`, and this is what its disk has of the group.
pub fn judge(node: u64, group: u64, term: u64, durable: &GroupLog, committed: &Committed) -> Option<String> {
    if durable.suspect {
        return None;
    }
    let covered = durable.snapshot.max(durable.purged.map(|purged| purged.index));
    let from = covered.map_or(0, |index| index + 1);
    let mut older = committed.of(group)?.range(from..).filter(|(_, stands)| stands.by < term);
    let lacking = older.find(|(index, stands)| {
        durable.entries.get(index).map(|held| (held.term, held.hash)) != Some((stands.term, stands.hash))
    });
    lacking.map(|(index, stands)| {
        let has = durable.entries.get(index).map(|held| held.term);
        format!(
            "node {node} leads group {group} in term {term} without entry {index} of term {}, which was committed in term \
             {}; it has {has:?} there, and of its log {}",
            stands.term,
            stands.by,
            durable.extent()
        )
    })
}
