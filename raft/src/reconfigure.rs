//! The members of a group, and how its leader changes them: one step at a time, each derived from what the group has
//! committed, so that whoever leads next goes on where the last one stopped.
//!
//! What may be done follows from the plan of the move in the root state ([`crate::root::moves`]) and from the membership:
//!
//! | membership (committed) | stage | step |
//! |---|---|---|
//! | joint | any | the new half alone: no joint configuration stays |
//! | the old one votes, the new one is unknown | any | the new one becomes a learner |
//! | the old one votes, the new one learns and lags | Adding | wait |
//! | the old one votes, the new one learns and has caught up | Adding | report it |
//! | the old one votes, the new one learns | Switching | joint configuration: the old one out, the new one in |
//! | the new one votes, the old one does not | any | report it |
//! | neither votes | any | nothing: the plan is older than the membership |
//!
//! A leader that has been voted out leads on until its node hands over and stops it. It reports, and changes no members: the
//! next leader does. A leader that was deposed can commit none of this, and each change names the membership that it was derived from. A
//! plan that is older than the truth does no harm: numbers are never used again, so its old replica votes no more, or its
//! new one becomes a learner once more, and learners that no move knows are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use stoa_env::Disk;
use stoa_protocol::message::{MoveInfo, MoveStage, MoveStep};
use stoa_protocol::{ErrorBody, ErrorCode, LogIndex, NodeId, ReplicaId};

use crate::machine::Machine;
use crate::replica::Replica;
use crate::types::{LogId, Member, Membership};

/// How many entries a learner may lag and still count as caught up: one append's worth. What it lacks comes while the
/// voters change.
const LAG_MAX: u64 = 256;

/// Between two looks at how far the other voters are.
const SPARE_LOOK: Duration = Duration::from_millis(10);

/// The members of a group, as one replica knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// The place in the log of the membership that counts.
    pub at: LogIndex,
    /// Whether this replica knows it to be committed.
    pub committed: bool,
    /// Each voter set: one, or two while the configuration is joint.
    pub voters: Vec<Vec<(ReplicaId, NodeId)>>,
    /// Replicas that get the log and do not vote.
    pub learners: Vec<(ReplicaId, NodeId)>,
}

/// What a leader does next for a move.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Wait,
    AddLearner,
    /// A joint configuration with these voters, then these alone; at once the latter if it is joint already.
    SetVoters(BTreeSet<u64>),
    Report(MoveStep),
}

impl Step {
    /// What a leader does of it, which is one of the voters or not any more.
    fn of_leader(self, votes: bool) -> Self {
        match self {
            Self::AddLearner | Self::SetVoters(_) if !votes => Self::Wait,
            step => step,
        }
    }
}

/// The table above. `matched` is how far the new replica's log is known to be equal, `last` the end of the leader's.
fn next_step(membership: &Membership, at: u64, matched: Option<u64>, last: u64, moved: &MoveInfo) -> Step {
    let (from, to) = (moved.from.id.0, moved.to.id.0);
    let configs = membership.get_joint_config();
    let Some(voters) = configs.last() else { return Step::Wait };
    if configs.len() > 1 {
        return Step::SetVoters(voters.clone());
    }
    match (voters.contains(&from), voters.contains(&to)) {
        (false, true) => return Step::Report(MoveStep::Switched),
        (true, false) => {}
        _ => return Step::Wait,
    }
    if membership.get_node(&to).is_none() {
        return Step::AddLearner;
    }
    match moved.stage {
        MoveStage::Adding => match matched.is_some_and(|matched| matched >= at && matched + LAG_MAX >= last) {
            true => Step::Report(MoveStep::CaughtUp),
            false => Step::Wait,
        },
        MoveStage::Switching => Step::SetVoters(voters.iter().copied().filter(|id| *id != from).chain([to]).collect()),
    }
}

/// A voter other than `spared` whose log is not known to be equal to the leader's up to `end`, and how far it is.
fn lacking(
    membership: &Membership,
    matched: &BTreeMap<u64, Option<LogId>>,
    end: Option<u64>,
    spared: u64,
) -> Option<(u64, Option<u64>)> {
    let mut others = membership.voter_ids().filter(|id| *id != spared);
    let has = |id: u64| matched.get(&id).and_then(|at| at.as_ref()).map(|at| at.index);
    others.find(|id| has(*id) < end).map(|id| (id, has(id)))
}

impl<D: Disk, M: Machine> Replica<D, M> {
    /// The members of the group, as far as this replica knows.
    pub fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let membership = stored.membership();
        let of = |id: u64| Some((ReplicaId(id), membership.get_node(&id)?.node()));
        Members {
            at: LogIndex(stored.log_id().as_ref().map_or(0, |id| id.index)),
            committed: stored.log_id() == metrics.committed_membership_config.log_id(),
            voters: membership.get_joint_config().iter().map(|c| c.iter().filter_map(|id| of(*id)).collect()).collect(),
            learners: membership.learner_ids().filter_map(of).collect(),
        }
    }

    /// Whether this replica is one of the group's members, as far as it knows itself.
    pub fn is_member(&self) -> bool {
        let members = self.members();
        members.voters.iter().flatten().chain(&members.learners).any(|(id, _)| *id == self.id())
    }

    /// Does the next step of a move, if this replica leads and a step can be done now. What it answers is to be told to
    /// the root group.
    pub async fn drive_move(&self, moved: &MoveInfo, limit: Duration) -> Result<Option<MoveStep>, ErrorBody> {
        let Some((at, step)) = self.derive_step(moved) else { return Ok(None) };
        match step {
            Step::Wait => Ok(None),
            Step::Report(step) => Ok(Some(step)),
            Step::AddLearner => {
                let member = Member { node: moved.to.node.0 };
                let add = ChangeMembers::AddNodes(BTreeMap::from([(moved.to.id.0, member)]));
                self.change_members(add, at, limit).await.map(|()| None)
            }
            Step::SetVoters(voters) => {
                self.change_members(ChangeMembers::ReplaceAllVoters(voters), at, limit).await.map(|()| None)
            }
        }
    }

    /// Removes a learner; nothing happens if it is none.
    pub async fn remove_learner(&self, learner: ReplicaId, limit: Duration) -> Result<(), ErrorBody> {
        let at = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let stored = &metrics.membership_config;
            let is_learner = stored.membership().learner_ids().any(|id| id == learner.0);
            let votes = stored.membership().voter_ids().any(|id| id == self.id().0);
            if !is_learner || !votes || stored.log_id() != metrics.committed_membership_config.log_id() {
                return Ok(());
            }
            *stored.log_id()
        };
        self.change_members(ChangeMembers::RemoveNodes(BTreeSet::from([learner.0])), at, limit).await
    }

    /// Makes sure that every voter but `replica`, which has stopped, has all that this leader has: then whatever was
    /// acknowledged with the help of `replica` lies on a majority without it, and nothing is acknowledged with it any more.
    ///
    /// # Errors
    /// If this replica does not lead, no quorum confirms that it does, or a voter lacks something: then it is asked again.
    pub async fn can_spare(&self, replica: ReplicaId, limit: Duration) -> Result<(), ErrorBody> {
        // What an earlier leader acknowledged is in this one's log, and counts from here on.
        let committed = self.barrier(limit).await?;
        // Entries after this one cannot be acknowledged with the help of a replica that has stopped before.
        let end = self.raft.metrics().borrow_watched().last_log_index.max(Some(committed.0));
        let until = self.context.clock.boot().plus(limit);
        loop {
            let lacks = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                let leads = metrics.current_leader == Some(self.id().0);
                let Some(matched) = metrics.replication.as_ref().filter(|_| leads) else {
                    let message = format!("this node does not lead partition {}", self.partition());
                    return Err(ErrorBody::new(ErrorCode::NotLeader, message));
                };
                lacking(metrics.membership_config.membership(), matched, end, replica.0)
            };
            let Some((id, has)) = lacks else { return Ok(()) };
            if self.context.clock.boot() >= until {
                let message = format!(
                    "partition {}: replica {id} has the log up to {has:?} of {end:?}, so replica {replica} is needed",
                    self.partition()
                );
                return Err(ErrorBody::new(ErrorCode::Conflict, message));
            }
            stoa_env::sleep(SPARE_LOOK).await;
        }
    }

    fn derive_step(&self, moved: &MoveInfo) -> Option<(Option<LogId>, Step)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        if metrics.current_leader != Some(self.id().0)
            || stored.log_id() != metrics.committed_membership_config.log_id()
        {
            return None;
        }
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&moved.to.id.0)).and_then(|id| *id);
        let (at, last) = (stored.log_id().as_ref()?.index, metrics.last_log_index?);
        let votes = stored.membership().voter_ids().any(|id| id == self.id().0);
        let step = next_step(stored.membership(), at, matched.map(|id| id.index), last, moved).of_leader(votes);
        Some((*stored.log_id(), step))
    }

    async fn change_members(
        &self,
        change: ChangeMembers<u64, Member>,
        at: Option<LogId>,
        limit: Duration,
    ) -> Result<(), ErrorBody> {
        self.check_trouble()?;
        let derived_from = Precondition::LastMembershipLogId { last_membership_log_id: at };
        tracing::info!(partition = self.partition().0, %change, "the members of a group change");
        let changed = self.context.run(self.raft.change_membership_if(change, false, [derived_from]));
        let partition = self.partition();
        match stoa_env::timeout(limit, changed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(ErrorBody::new(ErrorCode::NotLeader, format!("this node does not lead partition {partition}")))
            }
            Ok(Err(RaftError::APIError(other))) => {
                Err(ErrorBody::new(ErrorCode::OutcomeUnknown, format!("partition {partition}: {other}")))
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.halted(fatal.to_string())),
            Err(_elapsed) => {
                let message = format!("partition {partition}: its members did not change within {limit:?}");
                Err(ErrorBody::new(ErrorCode::NoQuorum, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::PartitionId;
    use stoa_protocol::map::ReplicaInfo;

    fn moved(stage: MoveStage) -> MoveInfo {
        let replica = |id, node| ReplicaInfo { id: ReplicaId(id), node: NodeId(node) };
        MoveInfo { partition: PartitionId(3), from: replica(3, 3), to: replica(9, 6), stage }
    }

    fn membership(configs: &[&[u64]], learners: &[u64]) -> Membership {
        let configs: Vec<BTreeSet<u64>> = configs.iter().map(|config| config.iter().copied().collect()).collect();
        let all = configs.iter().flatten().chain(learners).copied();
        let members: BTreeMap<u64, Member> = all.map(|id| (id, Member { node: id })).collect();
        Membership::new(configs, members).unwrap()
    }

    #[test]
    fn a_voter_is_spared_once_all_others_of_both_halves_have_the_whole_log() {
        let lacks = |configs: &[&[u64]], has: &[(u64, u64)]| {
            let at = |index| crate::types::log_id(1, index);
            let matched = has.iter().map(|(voter, index)| (*voter, Some(at(*index)))).collect();
            lacking(&membership(configs, &[]), &matched, Some(9), 3)
        };
        assert_eq!(lacks(&[&[1, 2, 3]], &[(1, 9), (2, 9), (3, 4)]), None);
        assert_eq!(lacks(&[&[1, 2, 3]], &[(1, 9), (2, 8), (3, 9)]), Some((2, Some(8))));
        assert_eq!(lacks(&[&[1, 2, 3]], &[(2, 9)]), Some((1, None)), "also the leader's own has to be durable");
        assert_eq!(lacks(&[&[1, 2, 3], &[1, 2, 7]], &[(1, 9), (2, 9)]), Some((7, None)));
    }

    #[test]
    fn a_leader_that_is_voted_out_reports_and_changes_nothing() {
        let set = Step::SetVoters(BTreeSet::from([1]));
        for step in [Step::AddLearner, set.clone()] {
            assert_eq!((step.clone().of_leader(false), step.clone().of_leader(true)), (Step::Wait, step));
        }
        let report = Step::Report(MoveStep::Switched);
        assert_eq!(report.clone().of_leader(false), report);
    }

    #[test]
    fn each_membership_has_one_next_step() {
        use MoveStage::{Adding, Switching};
        let three: &[u64] = &[1, 2, 3];
        let new: &[u64] = &[1, 2, 9];
        let set = |ids: &[u64]| Step::SetVoters(ids.iter().copied().collect());
        let cases = [
            (membership(&[three], &[]), None, Adding, Step::AddLearner),
            (membership(&[three], &[]), None, Switching, Step::AddLearner),
            (membership(&[three], &[9]), None, Adding, Step::Wait),
            (membership(&[three], &[9]), Some(49), Adding, Step::Wait),
            (membership(&[three], &[9]), Some(1_000 - LAG_MAX - 1), Adding, Step::Wait),
            (membership(&[three], &[9]), Some(1_000 - LAG_MAX), Adding, Step::Report(MoveStep::CaughtUp)),
            (membership(&[three], &[9]), Some(1_000), Switching, set(new)),
            // Past the point of no return nobody waits for a node that may have died since.
            (membership(&[three], &[9]), None, Switching, set(new)),
            (membership(&[three, new], &[]), None, Switching, set(new)),
            (membership(&[three, new], &[]), None, Adding, set(new)),
            (membership(&[new], &[]), None, Switching, Step::Report(MoveStep::Switched)),
            // A plan of long ago: both have gone, or the new one has been replaced in its turn.
            (membership(&[&[1, 2, 11]], &[]), Some(1_000), Switching, Step::Wait),
            (membership(&[&[1, 2, 11]], &[9]), Some(1_000), Switching, Step::Wait),
        ];
        for (membership, matched, stage, wanted) in cases {
            let found = next_step(&membership, 50, matched, 1_000, &moved(stage));
            assert_eq!(found, wanted, "{membership} {matched:?} {stage:?}");
        }
    }
}
