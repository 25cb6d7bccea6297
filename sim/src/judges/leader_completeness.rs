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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::disk_log::Held;
    use crate::observe::frames::LogId;

    #[test]
    fn an_entry_counts_from_the_term_in_which_it_was_committed() {
        let entries = |upto: u64| (1..=upto).map(|index| (index, Held::new(5, index))).collect();
        let follower = |led| GroupLog { entries: entries(3), led, ..GroupLog::default() };
        let elected = |led, term| {
            let mut committed = Committed::default();
            assert_eq!(committed.judge(1, 7, LogId { term: 5, index: 3 }, &follower(led)), None);
            judge(2, 7, term, &GroupLog { entries: entries(2), ..GroupLog::default() }, &committed)
        };
        assert_eq!(elected(Some(7), 6), None, "a leader of term 7 committed what one of term 5 had left");
        assert!(elected(Some(7), 8).is_some());
        assert!(elected(Some(5), 6).is_some(), "it was heard of in term 5");
    }
}
