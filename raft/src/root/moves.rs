//! Replicas that give their place to others: the plan of each move is part of the root state, so that it outlives whoever
//! drives it. What the group of a partition does is decided by its members alone; here stands what they should do, and
//! what they have said that they have done.
//!
//! A move of one replica, in steps that each can be found half done and done again:
//! 1. [`RootState::replace_replica`] issues the number of the new replica. The node of it starts it, empty; the leader of
//!    the partition makes it a learner. Up to here the move can be given up: a learner that no move knows is removed.
//! 2. It has caught up: the leader reports that, and the stage is [`MoveStage::Switching`]. There is no way back from
//!    here, so that a leader that works from an older copy of this state cannot do what was called off.
//! 3. The leader changes the voters: a joint configuration of the old three and the new three, then the new three. Both
//!    have one voter in each of three zones, since the new replica lies in the old one's zone.
//! 4. The leader has seen the new configuration committed and reports that: the map has the new replica in the old one's
//!    place. The node of the old one stops it and erases its data.
//!
//! A replica is **retired** when its data is gone, or to be given up, before the move is done: it stays a voter of its group
//! until step 3. One whose data is gone is never started again. A replica that is built anew on its own node is retired when
//! the move begins, and goes on until its group can spare it.
//!
//! Replica numbers are issued here and rise: a node that finds files of a lower number than it should have knows that
//! they are of an earlier life, one that finds a higher one knows that its copy of this state is old.

use std::collections::BTreeSet;

use stoa_env::planted;
use stoa_protocol::codec::Wire;
use stoa_protocol::map::{PartitionInfo, ReplicaInfo};
use stoa_protocol::message::{
    AbortMove, MoveInfo, MoveReport, MoveStage, MoveStep, PlacementAnswer, ReplaceNode, ReplaceReplica,
};
use stoa_protocol::{ErrorBody, ErrorCode, MapVersion, NodeId, PartitionId, ROOT_PARTITION, ReplicaId};

use super::refuse;
use super::state::RootState;

/// The incarnation of a node whose data was given up: the next data directory that joins with its number is taken.
pub const NO_INCARNATION: u64 = 0;

/// Moves whose new replicas lie on one node that are driven at a time: each may bring a snapshot's worth of bytes.
pub const MOVES_AT_ONCE: usize = 4;

impl RootState {
    /// The move of a partition, if one is under way.
    pub fn move_of(&self, partition: PartitionId) -> Option<&MoveInfo> {
        self.moves.iter().find(|moved| moved.partition == partition)
    }

    /// The moves that are driven now: the first of each target node.
    pub fn active_moves(&self) -> Vec<MoveInfo> {
        let mut busy: Vec<NodeId> = Vec::new();
        let mut active = Vec::new();
        for moved in &self.moves {
            // One that has begun to change voters is never held up.
            let full = busy.iter().filter(|node| **node == moved.to.node).count() >= MOVES_AT_ONCE;
            if moved.stage == MoveStage::Switching || !full {
                busy.push(moved.to.node);
                active.push(*moved);
            }
        }
        active
    }

    /// Whether a replica must never be started again, though its group may still count it among its voters.
    pub fn is_retired(&self, partition: PartitionId, replica: ReplicaId) -> bool {
        self.retired.contains(&(partition, replica))
    }

    /// The replica of a partition that a node should run, if it should run one.
    pub fn replica_on(&self, partition: &PartitionInfo, node: NodeId) -> Option<ReplicaId> {
        let coming = self.move_of(partition.id).map(|moved| moved.to);
        let placed = coming.into_iter().chain(partition.replicas.iter().copied());
        let mut here = placed.filter(|replica| replica.node == node);
        here.find(|replica| !self.is_retired(partition.id, replica.id)).map(|replica| replica.id)
    }

    /// Whether this state knows that a replica was issued; one that it does not know is of a newer state.
    pub fn knows_replica(&self, replica: ReplicaId) -> bool {
        replica.0 < self.next_id
    }

    pub(super) fn replace_replica(&mut self, asked: &ReplaceReplica) -> Result<Vec<u8>, ErrorBody> {
        let ReplaceReplica { partition, replica, to } = *asked;
        if partition == ROOT_PARTITION {
            let message = "the root group's replicas lie on the nodes that the configuration names; one whose data is lost is \
                           built anew with its whole node (replace the node)";
            return refuse(ErrorCode::BadRequest, message);
        }
        let Some(info) = self.map.partition(partition) else {
            return refuse(ErrorCode::NotFound, format!("there is no partition {partition}"));
        };
        let Some(from) = info.replicas.iter().find(|other| other.id == replica).copied() else {
            let message = format!("partition {partition} has no replica {replica}: it may have been replaced already");
            return refuse(ErrorCode::NotFound, message);
        };
        let zone = |node: NodeId| self.map.node(node).map(|node| node.zone.clone());
        let (Some(here), Some(there)) = (zone(from.node), zone(to)) else {
            return refuse(ErrorCode::NotFound, format!("there is no node {to}"));
        };
        if here != there {
            let message = format!(
                "replica {replica} of partition {partition} lies in zone {here}, and node {to} in zone {there}: a partition \
                 has one voter in each of three zones"
            );
            return refuse(ErrorCode::WrongZone, message);
        }
        if let Some(at) = self.moves.iter().position(|moved| moved.partition == partition) {
            return self.replace_again(at, from, to);
        }
        if to == from.node {
            self.retire(partition, from.id);
        }
        let moved = self.begin(partition, from, to);
        Ok(self.answer(vec![moved], true))
    }

    /// A replacement where a move is under way: the same one again changes nothing; one whose old data is lost anyway may
    /// be built elsewhere.
    fn replace_again(&mut self, at: usize, from: ReplicaInfo, to: NodeId) -> Result<Vec<u8>, ErrorBody> {
        let moved = self.moves[at];
        if moved.from == from && moved.to.node == to {
            return Ok(self.answer(vec![moved], false));
        }
        let waits = moved.stage == MoveStage::Adding && self.is_retired(moved.partition, from.id);
        if moved.from != from || !waits {
            let message = format!(
                "replica {} of partition {} on node {} is being replaced by one on node {}; one at a time",
                moved.from.id, moved.partition, moved.from.node, moved.to.node
            );
            return refuse(ErrorCode::MoveUnderWay, message);
        }
        let id = ReplicaId(self.issue_id());
        self.moves[at].to = ReplicaInfo { id, node: to };
        let moved = self.moves[at];
        Ok(self.answer(vec![moved], true))
    }

    pub(super) fn replace_node(&mut self, asked: &ReplaceNode) -> Result<Vec<u8>, ErrorBody> {
        let node = asked.node;
        let Some(known) = self.map.node(node) else {
            return refuse(ErrorCode::NotFound, format!("there is no node {node}"));
        };
        if known.incarnation == NO_INCARNATION {
            return Ok(self.answer(self.moves_to(node), false));
        }
        if known.incarnation != asked.incarnation {
            let message = format!(
                "node {node} has the data directory {:016x} by now, not {:016x}",
                known.incarnation, asked.incarnation
            );
            return refuse(ErrorCode::Conflict, message);
        }
        self.check_others_whole(node)?;
        let at = self.map.nodes.binary_search_by_key(&node, |n| n.id).expect("just found");
        self.map.nodes[at].incarnation = NO_INCARNATION;
        self.moves.retain(|m| m.partition != ROOT_PARTITION || m.to.node != node || m.stage == MoveStage::Switching);
        for at in 0..self.moves.len() {
            let moved = self.moves[at];
            if moved.to.node != node || moved.partition == ROOT_PARTITION {
                continue;
            }
            match moved.stage {
                MoveStage::Adding => self.moves[at].to.id = ReplicaId(self.issue_id()),
                // It may be a voter by now, without its data. The move is completed, and then it is replaced.
                MoveStage::Switching => self.retire(moved.partition, moved.to.id),
            }
        }
        let here = |partition: &PartitionInfo| {
            let replica = partition.replicas.iter().find(|replica| replica.node == node)?;
            Some((partition.id, *replica))
        };
        let lost: Vec<_> = self.map.sets.iter().flat_map(|set| &set.partitions).filter_map(here).collect();
        for (partition, replica) in lost {
            self.retire(partition, replica.id);
            if self.move_of(partition).is_none() {
                self.begin(partition, replica, node);
            }
        }
        Ok(self.answer(self.moves_to(node), true))
    }

    /// Refuses to give up the data of a second node before what was lost with a first one is whole again: what was
    /// acknowledged may lie on these two alone.
    fn check_others_whole(&self, node: NodeId) -> Result<(), ErrorBody> {
        for (partition, lost) in &self.retired {
            let replicas = self.replicas_of(*partition).unwrap_or_default();
            let moved = self.move_of(*partition);
            let placed = replicas.iter().copied().chain(moved.map(|moved| moved.to));
            let home = placed.clone().find(|replica| replica.id == *lost).map(|replica| replica.node);
            // Where the voters change already, the new one's data counts like that of the others.
            let learns = |replica: &ReplicaInfo| {
                moved.is_some_and(|moved| moved.to.id == replica.id && moved.stage == MoveStage::Adding)
            };
            let mut votes = placed.filter(|replica| !learns(replica));
            if let Some(home) = home.filter(|home| *home != node)
                && votes.any(|replica| replica.node == node)
            {
                let message = format!(
                    "partition {partition} has lost its replica on node {home} and is not whole again: giving up node {node} \
                     too could lose what was acknowledged"
                );
                return refuse(ErrorCode::MoveUnderWay, message);
            }
        }
        let incarnation = |replica: &ReplicaInfo| self.map.node(replica.node).map_or(0, |node| node.incarnation);
        let root = || self.map.root.iter();
        if root().any(|r| r.node == node)
            && let Some(other) = root().find(|r| r.node != node && incarnation(r) != r.id.0)
        {
            let message = format!(
                "the root group has lost its replica on node {} and is not whole again: giving up node {node} too could \
                 lose what the cluster knows of itself",
                other.node
            );
            return refuse(ErrorCode::MoveUnderWay, message);
        }
        Ok(())
    }

    pub(super) fn abort_move(&mut self, asked: &AbortMove) -> Result<Vec<u8>, ErrorBody> {
        let AbortMove { partition, replica } = *asked;
        let Some(at) = self.moves.iter().position(|m| m.partition == partition && m.to.id == replica) else {
            let message = format!("no move to replica {replica} of partition {partition} is under way");
            return refuse(ErrorCode::NotFound, message);
        };
        let moved = self.moves[at];
        if moved.stage != MoveStage::Adding || partition == ROOT_PARTITION {
            let message = format!("the voters of partition {partition} change already; the move goes on by itself");
            return refuse(ErrorCode::Conflict, message);
        }
        if self.is_retired(partition, moved.from.id) {
            let message = format!(
                "the data of replica {} on node {} is given up already; have it built on another node of its zone instead",
                moved.from.id, moved.from.node
            );
            return refuse(ErrorCode::Conflict, message);
        }
        self.moves.remove(at);
        self.settle(partition);
        Ok(self.answer(vec![moved], true))
    }

    pub(super) fn report_move(&mut self, report: &MoveReport) -> Result<(), ErrorBody> {
        let MoveReport { partition, replica, step } = *report;
        let Some(at) = self.moves.iter().position(|m| m.partition == partition && m.to.id == replica) else {
            if self.replicas_of(partition).is_some_and(|all| all.iter().any(|other| other.id == replica)) {
                return Ok(());
            }
            let message = format!("no move to replica {replica} of partition {partition} is under way");
            return refuse(ErrorCode::NotFound, message);
        };
        match (self.moves[at].stage, step) {
            (MoveStage::Adding, MoveStep::CaughtUp) => self.moves[at].stage = MoveStage::Switching,
            (MoveStage::Switching, MoveStep::CaughtUp) => {}
            (MoveStage::Switching, MoveStep::Switched) => self.finish(at),
            (MoveStage::Adding, MoveStep::Switched) => {
                let message =
                    format!("the voters of partition {partition} were to stay as they are until it is known here");
                return refuse(ErrorCode::Conflict, message);
            }
        }
        Ok(())
    }

    /// A node whose data was lost has come back: the root group's replica on it is another one now.
    pub(super) fn settle_root(&mut self) {
        if self.move_of(ROOT_PARTITION).is_some() {
            return;
        }
        let changed = self.map.root.iter().find_map(|replica| {
            let incarnation = self.map.node(replica.node)?.incarnation;
            (incarnation != NO_INCARNATION && incarnation != replica.id.0).then_some((*replica, incarnation))
        });
        if let Some((from, incarnation)) = changed {
            let to = ReplicaInfo { id: ReplicaId(incarnation), node: from.node };
            self.moves.push(MoveInfo { partition: ROOT_PARTITION, from, to, stage: MoveStage::Adding });
        }
    }

    /// Begins the next move of a partition if one of its replicas has no data and none is under way.
    fn settle(&mut self, partition: PartitionId) {
        let lost = self.replicas_of(partition).and_then(|all| all.iter().find(|r| self.is_retired(partition, r.id)));
        if let Some(lost) = lost.copied()
            && self.move_of(partition).is_none()
        {
            self.begin(partition, lost, lost.node);
        }
    }

    fn finish(&mut self, at: usize) {
        let MoveInfo { partition, from, to, .. } = self.moves.remove(at);
        let sets = self.map.sets.iter_mut().flat_map(|set| &mut set.partitions);
        let replicas = match partition {
            ROOT_PARTITION => Some(&mut self.map.root),
            _ => sets.filter(|info| info.id == partition).map(|info| &mut info.replicas).next(),
        };
        let place = replicas.and_then(|all| all.iter_mut().find(|replica| replica.id == from.id));
        // In the old one's place: the first replica is where leadership should lie.
        *place.expect("the replica that goes is in the map until it has gone") = to;
        self.retired.retain(|gone| *gone != (partition, from.id));
        match partition {
            ROOT_PARTITION => {
                self.root_gone.push(from.id);
                self.settle_root();
            }
            _ => self.settle(partition),
        }
    }

    fn begin(&mut self, partition: PartitionId, from: ReplicaInfo, node: NodeId) -> MoveInfo {
        let new = self.issue_id();
        let placed = |id: &u64| self.replicas_of(partition).is_some_and(|all| all.iter().any(|r| r.id.0 == *id));
        let id = if planted!(ReuseReplicaId) { (1..new).find(|id| !placed(id)).unwrap_or(new) } else { new };
        let to = ReplicaInfo { id: ReplicaId(id), node };
        let moved = MoveInfo { partition, from, to, stage: MoveStage::Adding };
        self.moves.push(moved);
        moved
    }

    fn retire(&mut self, partition: PartitionId, replica: ReplicaId) {
        if !self.is_retired(partition, replica) {
            self.retired.push((partition, replica));
        }
    }

    fn replicas_of(&self, partition: PartitionId) -> Option<&[ReplicaInfo]> {
        match partition {
            ROOT_PARTITION => Some(&self.map.root),
            _ => self.map.partition(partition).map(|info| &info.replicas[..]),
        }
    }

    fn moves_to(&self, node: NodeId) -> Vec<MoveInfo> {
        self.moves.iter().filter(|moved| moved.to.node == node).copied().collect()
    }

    fn answer(&self, moves: Vec<MoveInfo>, changed: bool) -> Vec<u8> {
        let version = MapVersion(self.map.version.0 + u64::from(changed));
        PlacementAnswer { version, moves }.to_bytes()
    }

    /// The invariants of moves.
    pub(super) fn check_moves(&self) {
        let mut moving = BTreeSet::new();
        for moved in &self.moves {
            let MoveInfo { partition, from, to, .. } = moved;
            assert!(moving.insert(*partition), "one move of partition {partition} at a time");
            let replicas = self.replicas_of(*partition).expect("moves are of partitions that exist");
            assert!(replicas.contains(from), "what goes is in the map: {moved:?}");
            assert!(replicas.iter().all(|replica| replica.id != to.id), "what comes is not: {moved:?}");
            let zone = |node| self.map.node(node).map(|node| &node.zone);
            assert!(zone(to.node).is_some() && zone(from.node) == zone(to.node), "in one zone: {moved:?}");
            let in_place = from.node == to.node && *partition != ROOT_PARTITION;
            assert!(!in_place || self.is_retired(*partition, from.id), "two replicas on one node: {moved:?}");
        }
        for (at, (partition, replica)) in self.retired.iter().enumerate() {
            assert!(!self.retired[..at].contains(&(*partition, *replica)), "retired twice");
            let placed = self.replicas_of(*partition).is_some_and(|all| all.iter().any(|r| r.id == *replica));
            let coming = self.move_of(*partition).is_some_and(|moved| moved.to.id == *replica);
            assert!(placed || coming, "replica {replica} of partition {partition} is nowhere");
            assert!(moving.contains(partition), "replica {replica} of partition {partition} is lost for good");
        }
    }
}

#[cfg(test)]
mod tests;
