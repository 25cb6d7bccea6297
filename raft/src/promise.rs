//! What an answer binds a replica to. Whoever counts on it must find it after any crash, so it is on the replica's disk
//! before the answer leaves it.

use openraft::raft::AppendEntriesResponse;
use stoa_protocol::ReplicaId;

use crate::envelope::{RaftAnswer, RaftCall};
use crate::standing::LogPlace;

/// What a replica has promised to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// To vote for nobody else in this term.
    Vote {
        /// The term.
        term: u64,
        /// The candidate.
        candidate: ReplicaId,
    },
    /// To have the log up to here.
    Entries(LogPlace),
}

impl Promise {
    /// What `answer` to `call` promises, if anything.
    pub fn of(call: &RaftCall, answer: &RaftAnswer) -> Option<Self> {
        let place = |id: &crate::types::LogId| LogPlace { index: id.index, term: id.leader_id.term };
        match (call, answer) {
            (RaftCall::Vote(asked), RaftAnswer::Vote(answer)) if answer.vote_granted => {
                let candidate = ReplicaId(asked.vote.leader_id.voted_for);
                Some(Self::Vote { term: asked.vote.leader_id.term, candidate })
            }
            (RaftCall::Append(append), RaftAnswer::Append(AppendEntriesResponse::Success)) => {
                append.entries.last().map(|entry| Self::Entries(place(&entry.log_id)))
            }
            (RaftCall::Append(_), RaftAnswer::Append(AppendEntriesResponse::PartialSuccess(Some(id)))) => {
                Some(Self::Entries(place(id)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{StoaTypes, Vote, log_id};
    use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};

    #[test]
    fn granted_votes_and_taken_entries_bind_and_nothing_else_does() {
        let vote = Vote::new(3, 2);
        let asked = VoteRequest::<StoaTypes>::new(vote, None);
        let granted = |granted| RaftAnswer::Vote(VoteResponse::new(vote, None, granted));
        let bound = Promise::Vote { term: 3, candidate: ReplicaId(2) };
        assert_eq!(Promise::of(&RaftCall::Vote(asked.clone()), &granted(true)), Some(bound));
        assert_eq!(Promise::of(&RaftCall::Vote(asked.clone()), &granted(false)), None);
        assert_eq!(Promise::of(&RaftCall::PreVote(asked), &granted(true)), None, "a pre-vote binds nobody");
        let append = |entries: &[u64]| {
            let entries = entries
                .iter()
                .map(|index| crate::types::Entry { log_id: log_id(3, *index), payload: openraft::EntryPayload::Blank });
            RaftCall::Append(AppendEntriesRequest {
                vote: Vote::new_committed(3, 2),
                prev_log_id: None,
                entries: entries.collect(),
                leader_commit: None,
            })
        };
        let taken = Promise::Entries(LogPlace { index: 6, term: 3 });
        let success = RaftAnswer::Append(AppendEntriesResponse::Success);
        assert_eq!(Promise::of(&append(&[5, 6]), &success), Some(taken));
        assert_eq!(Promise::of(&append(&[]), &success), None, "a heartbeat");
        let partial = RaftAnswer::Append(AppendEntriesResponse::PartialSuccess(Some(log_id(3, 6))));
        assert_eq!(Promise::of(&append(&[6, 7]), &partial), Some(taken));
        let refused = RaftAnswer::Append(AppendEntriesResponse::Conflict);
        assert_eq!(Promise::of(&append(&[5]), &refused), None);
    }
}
