//! Moves of replicas, as the root state plans them ([`stoa_raft::root::moves`]): the leader of each group drives its own,
//! and tells the root group what is done. Any leader goes on where the last one stopped, so nobody needs to remember.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Disk, JoinSet, Transport};
use stoa_protocol::message::{Caller, Kind, MoveInfo, MoveReport, PlacementRequest, encode_request};
use stoa_protocol::{ErrorBody, ErrorCode, ROOT_PARTITION, ReplicaId};
use stoa_raft::root::{RootCommand, RootState};
use stoa_raft::{CallError, Machine, Replica};

use super::upkeep::each;
use super::{HELD_CALLS, LOOP_PAUSE, NODE_CALL_LIMIT, Node};

/// Nodes that a report is sent to before it waits for the next look: each may point at one more.
const REPORT_ATTEMPTS: usize = 8;

/// Drives the moves of all groups that this node leads.
pub(super) async fn drive_moves<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let state = strong.state();
        let mut driven = JoinSet::new();
        for moved in state.active_moves() {
            driven.spawn(strong.clone().drive(moved));
        }
        for hosted in strong.all_hosted().into_iter().filter(|hosted| hosted.replica.leads()) {
            for learner in unknown_learners(&hosted.replica, &state) {
                let hosted = hosted.clone();
                driven.spawn(async move { remove_learner(&hosted.replica, learner).await });
            }
        }
        if let Some(root) = strong.root_replica().filter(|root| root.leads()) {
            driven.spawn(async move { tidy_root(&root).await });
        }
        drop(strong);
        each(driven, |()| {}).await;
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}

/// Learners that were issued and that no move brings: their move was given up, and they get no place any more.
fn unknown_learners<D: Disk, M: Machine>(replica: &Replica<D, M>, state: &RootState) -> Vec<ReplicaId> {
    let coming = state.move_of(replica.partition()).map(|moved| moved.to.id);
    let learners = replica.members().learners.into_iter().map(|(id, _)| id);
    learners.filter(|id| Some(*id) != coming && state.knows_replica(*id)).collect()
}

async fn remove_learner<D: Disk, M: Machine>(replica: &Replica<D, M>, learner: ReplicaId) {
    if let Err(error) = replica.remove_learner(learner, NODE_CALL_LIMIT).await {
        tracing::debug!(partition = replica.partition().0, learner = learner.0, %error, "removing a learner");
    }
}

/// The same for the root group. Its replicas' numbers are not issued in order, so what counts is the state that its
/// leader has after a quorum has confirmed it.
async fn tidy_root<D: Disk>(root: &Replica<D, stoa_raft::root::RootMachine>) {
    if root.members().learners.is_empty() {
        return;
    }
    let tidied: Result<(), ErrorBody> = async {
        let index = root.barrier(NODE_CALL_LIMIT).await?;
        root.wait_applied(index, NODE_CALL_LIMIT).await?;
        let coming = root.ask_machine(|machine| machine.state().move_of(ROOT_PARTITION).map(|m| m.to.id)).await?;
        for (learner, _) in root.members().learners.into_iter().filter(|(id, _)| Some(*id) != coming) {
            root.remove_learner(learner, NODE_CALL_LIMIT).await?;
        }
        Ok(())
    }
    .await;
    if let Err(error) = tidied {
        tracing::debug!(%error, "removing learners of the root group");
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Does the next step of a move, if this node leads its group.
    async fn drive(self: Arc<Self>, moved: MoveInfo) {
        let partition = moved.partition;
        let step = match partition {
            ROOT_PARTITION => match self.root_replica() {
                Some(root) => root.drive_move(&moved, NODE_CALL_LIMIT).await,
                None => return,
            },
            _ => match self.hosted(partition) {
                Some(hosted) => hosted.replica.drive_move(&moved, NODE_CALL_LIMIT).await,
                None => return,
            },
        };
        let told = match step {
            Ok(Some(step)) => self.report_move(&MoveReport { partition, replica: moved.to.id, step }).await,
            other => other.map(drop),
        };
        if let Err(error) = told {
            tracing::debug!(partition = partition.0, %error, "driving a move");
        }
    }

    /// Tells the root group what is done, here if this node leads it, else by way of its nodes.
    async fn report_move(&self, report: &MoveReport) -> Result<(), ErrorBody> {
        let body = encode_request(&Caller::default(), report);
        let mut ask = self.root_nodes();
        let mut last = ErrorBody::new(ErrorCode::NoQuorum, "no node of the root group is known");
        let mut at = 0;
        while at < ask.len() && at < REPORT_ATTEMPTS {
            let to = ask[at];
            at += 1;
            let answer = match to == self.info.id {
                true => self.take_report(report).await.map(drop),
                false => match self.env.peers.call(to, HELD_CALLS, Kind::Move, &body, NODE_CALL_LIMIT).await {
                    Ok(_) => Ok(()),
                    Err(CallError::Refused(error)) => Err(error),
                    Err(error) => Err(ErrorBody::new(ErrorCode::NoQuorum, error.to_string())),
                },
            };
            last = match answer {
                Ok(()) => return Ok(()),
                Err(error) if error.code == ErrorCode::NotLeader => {
                    ask.extend(error.leader);
                    error
                }
                Err(error) if error.code == ErrorCode::NoQuorum => error,
                Err(error) => return Err(error),
            };
        }
        Err(last)
    }

    /// Takes a report, if this node leads the root group.
    pub(crate) async fn take_report(&self, report: &MoveReport) -> Result<Bytes, ErrorBody> {
        self.propose_to_root(RootCommand::ReportMove(*report), NODE_CALL_LIMIT).await
    }

    /// Changes where replicas lie, if this node leads the root group.
    pub(crate) async fn place(&self, request: PlacementRequest, limit: Duration) -> Result<Bytes, ErrorBody> {
        let command = match request {
            PlacementRequest::Replica(asked) => RootCommand::ReplaceReplica(asked),
            PlacementRequest::Node(asked) => RootCommand::ReplaceNode(asked),
            PlacementRequest::Abort(asked) => RootCommand::AbortMove(asked),
        };
        self.propose_to_root(command, limit).await.map_err(|error| self.hint_root(error))
    }

    /// A node without a root replica knows at least who has one.
    pub(crate) fn hint_root(&self, error: ErrorBody) -> ErrorBody {
        match error.leader {
            None if error.code == ErrorCode::NotLeader => {
                ErrorBody { leader: self.root_nodes().first().copied().filter(|id| *id != self.info.id), ..error }
            }
            _ => error,
        }
    }
}
