//! A promise is on disk before it is given: at the moment at which a replica answers that it votes for a candidate, or that
//! it has taken entries, a loss of power would leave it the vote and the entries.

use stoa_raft::Promise;

use crate::observe::disk_log::GroupLog;
use crate::observe::frames::Vote;

/// What node `node` has durable of `group` while it gives `promise`.
pub fn judge(node: u64, group: u64, promise: Promise, durable: &GroupLog) -> Option<String> {
    if durable.suspect {
        return None;
    }
    match promise {
        Promise::Vote { term, candidate } => {
            let given = Vote { term, candidate: candidate.0, committed: false };
            let kept = durable.vote.is_some_and(|vote| vote.covers(&given));
            (!kept).then(|| {
                format!("node {node}, group {group}: it answers with {given:?}, and {:?} is on its disk", durable.vote)
            })
        }
        Promise::Entries(place) => {
            // A later leader may have replaced or cut them meanwhile; then that one's vote is there.
            let kept = durable.term_at(place.index) == Some(place.term)
                || durable.is_covered(place.index)
                || durable.vote.is_some_and(|vote| vote.term > place.term && durable.term_at(place.index).is_some());
            (!kept).then(|| {
                let last = durable.entries.last_key_value();
                format!("node {node}, group {group}: it answers for entries up to {place:?}, and on its disk they end at {last:?}")
            })
        }
    }
}
