//! A partition has one move at a time, of a replica that it has to one that it has not; read from the root state that a node
//! has, with no help of its own checks.

use stoa_protocol::ROOT_PARTITION;
use stoa_raft::root::RootState;

/// What a state tells of moves that may not stand side by side.
pub fn judge(node: u64, state: &RootState) -> Option<String> {
    let moves = &state.moves;
    let twice = moves.iter().enumerate().find(|(at, one)| moves[..*at].iter().any(|m| m.partition == one.partition));
    if let Some((_, one)) = twice {
        return Some(format!("node {node} knows of two moves of partition {}: {moves:?}", one.partition));
    }
    let astray = moves.iter().find(|one| {
        let replicas = match one.partition {
            ROOT_PARTITION => Some(&state.map.root),
            partition => state.map.partition(partition).map(|info| &info.replicas),
        };
        !replicas.is_some_and(|all| all.contains(&one.from) && all.iter().all(|replica| replica.id != one.to.id))
    });
    astray.map(|one| format!("node {node} knows of a move that does not fit its map: {one:?}"))
}

#[cfg(test)]
mod tests {
    use stoa_protocol::map::ReplicaInfo;
    use stoa_protocol::message::{MoveInfo, MoveStage};
    use stoa_protocol::{ClusterId, NodeId, ReplicaId};

    use super::*;

    #[test]
    fn two_moves_of_a_group_and_one_of_a_replica_that_it_has_not_are_seen() {
        let replica = |id, node| ReplicaInfo { id: ReplicaId(id), node: NodeId(node) };
        let of = |from, to| MoveInfo { partition: ROOT_PARTITION, from, to, stage: MoveStage::Adding };
        let mut state = RootState::new(ClusterId(1));
        state.map.root = vec![replica(1, 1), replica(2, 2), replica(3, 3)];
        state.moves.push(of(replica(1, 1), replica(4, 1)));
        assert_eq!(judge(1, &state), None);
        state.moves.push(of(replica(2, 2), replica(5, 2)));
        assert!(judge(1, &state).is_some_and(|what| what.contains("two moves")));
        state.moves = vec![of(replica(9, 1), replica(4, 1))];
        assert!(judge(1, &state).is_some_and(|what| what.contains("does not fit")));
        state.moves = vec![of(replica(1, 1), replica(3, 1))];
        assert!(judge(1, &state).is_some_and(|what| what.contains("does not fit")));
    }
}
