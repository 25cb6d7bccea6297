use proptest::prelude::*;
use stoa_protocol::ClusterId;
use stoa_protocol::map::NodeInfo;

use super::*;
use crate::root::RootCommand;
use crate::root::command::{CreateSet, FIRST_REPLICAS, Form, Join};
use crate::root::state::MOVES_VERSION;

/// Nodes 1, 4 in zone a, 2, 5 in b, 3, 6 in c; the root group on 1, 2, 3; two partitions, on all of them in turn.
fn formed() -> RootState {
    let mut state = RootState::new(ClusterId(1));
    for id in 1..=6 {
        apply(&mut state, join(id, id)).unwrap();
    }
    let replicas = (1..=3).map(|id| ReplicaInfo { id: ReplicaId(id), node: NodeId(id) }).collect();
    apply(&mut state, RootCommand::Form(Form { replicas, nodes: vec![] })).unwrap();
    apply(&mut state, RootCommand::RaiseVersion(MOVES_VERSION)).unwrap();
    apply(&mut state, RootCommand::CreateSet(CreateSet { name: "shared".into(), partitions: 2, seed: 7 })).unwrap();
    state
}

fn join(id: u64, incarnation: u64) -> RootCommand {
    speaking(id, incarnation, ["a", "b", "c"][(id as usize - 1) % 3], MOVES_VERSION)
}

fn speaking(id: u64, incarnation: u64, zone: &str, version_max: u32) -> RootCommand {
    let (zone, addr) = (zone.to_owned(), ([127, 0, 0, 1], 7_000 + id as u16).into());
    RootCommand::Join(Join { node: NodeInfo { id: NodeId(id), zone, addr, incarnation }, version_min: 1, version_max })
}

/// As the machine applies: whole or not at all.
fn apply(state: &mut RootState, command: RootCommand) -> Result<Vec<u8>, ErrorBody> {
    let mut next = state.clone();
    let answer = next.apply(&command)?;
    next.check();
    *state = next;
    Ok(answer)
}

fn first(state: &RootState) -> PartitionInfo {
    state.map.sets[0].partitions[0].clone()
}

fn on(state: &RootState, node: u64) -> ReplicaInfo {
    *first(state).replicas.iter().find(|replica| replica.node.0 == node).unwrap()
}

fn replace(state: &mut RootState, replica: ReplicaInfo, to: u64) -> Result<MoveInfo, ErrorBody> {
    let asked = ReplaceReplica { partition: first(state).id, replica: replica.id, to: NodeId(to) };
    let answer = apply(state, RootCommand::ReplaceReplica(asked))?;
    Ok(PlacementAnswer::from_bytes(&answer).unwrap().moves[0])
}

fn report(state: &mut RootState, moved: &MoveInfo, step: MoveStep) -> Result<(), ErrorBody> {
    let report = MoveReport { partition: moved.partition, replica: moved.to.id, step };
    apply(state, RootCommand::ReportMove(report)).map(drop)
}

fn abort(state: &mut RootState, moved: &MoveInfo) -> Result<Vec<u8>, ErrorBody> {
    apply(state, RootCommand::AbortMove(AbortMove { partition: moved.partition, replica: moved.to.id }))
}

fn lose(state: &mut RootState, node: u64, incarnation: u64) -> Result<Vec<u8>, ErrorBody> {
    apply(state, RootCommand::ReplaceNode(ReplaceNode { node: NodeId(node), incarnation }))
}

fn code<T: std::fmt::Debug>(result: Result<T, ErrorBody>) -> ErrorCode {
    result.unwrap_err().code
}

#[test]
fn a_replica_moves_to_another_node_of_its_zone_and_keeps_its_place() {
    let mut state = formed();
    let before = first(&state);
    let from = on(&state, 1);
    let moved = replace(&mut state, from, 4).unwrap();
    assert!(moved.to.id.0 > FIRST_REPLICAS && moved.to.node == NodeId(4));
    assert_eq!(replace(&mut state, from, 4).unwrap(), moved, "the same request again");
    assert_eq!(first(&state), before, "the map is as it was");
    assert_eq!(state.replica_on(&before, NodeId(1)), Some(from.id), "the old one goes on");
    assert_eq!(state.replica_on(&before, NodeId(4)), Some(moved.to.id));
    assert_eq!(code(report(&mut state, &moved, MoveStep::Switched)), ErrorCode::Conflict, "not yet");
    report(&mut state, &moved, MoveStep::CaughtUp).unwrap();
    report(&mut state, &moved, MoveStep::CaughtUp).unwrap();
    assert_eq!(code(abort(&mut state, &moved)), ErrorCode::Conflict, "no way back");
    report(&mut state, &moved, MoveStep::Switched).unwrap();
    report(&mut state, &moved, MoveStep::Switched).unwrap();
    let after = first(&state);
    let place = before.replicas.iter().position(|replica| *replica == from).unwrap();
    assert_eq!(after.replicas[place], moved.to);
    assert_eq!((state.moves.len(), state.retired.len()), (0, 0));
    assert_eq!(state.replica_on(&after, NodeId(1)), None);
    assert_eq!(code(replace(&mut state, from, 4)), ErrorCode::NotFound, "sent again, long after");
    assert_eq!(RootState::from_bytes(&state.to_bytes()).unwrap(), state);
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let mut state = formed();
    let from = on(&state, 1);
    assert_eq!(code(replace(&mut state, from, 2)), ErrorCode::WrongZone);
    assert_eq!(code(replace(&mut state, from, 9)), ErrorCode::NotFound);
    let nobody = ReplicaInfo { id: ReplicaId(99), node: NodeId(1) };
    assert_eq!(code(replace(&mut state, nobody, 4)), ErrorCode::NotFound);
    let root = ReplaceReplica { partition: ROOT_PARTITION, replica: ReplicaId(1), to: NodeId(1) };
    assert_eq!(code(apply(&mut state, RootCommand::ReplaceReplica(root))), ErrorCode::BadRequest);
    let unknown = ReplaceReplica { partition: PartitionId(99), replica: ReplicaId(1), to: NodeId(1) };
    assert_eq!(code(apply(&mut state, RootCommand::ReplaceReplica(unknown))), ErrorCode::NotFound);
    assert_eq!(code(lose(&mut state, 9, 9)), ErrorCode::NotFound);
    assert_eq!(code(lose(&mut state, 1, 77)), ErrorCode::Conflict, "it has another data directory");
    let moved = replace(&mut state, from, 4).unwrap();
    assert_eq!(code(replace(&mut state, from, 1)), ErrorCode::MoveUnderWay);
    let other = on(&state, 2);
    assert_eq!(code(replace(&mut state, other, 5)), ErrorCode::MoveUnderWay);
    abort(&mut state, &moved).unwrap();
    assert_eq!(code(abort(&mut state, &moved)), ErrorCode::NotFound);
    assert_eq!(code(report(&mut state, &moved, MoveStep::CaughtUp)), ErrorCode::NotFound);
    let again = replace(&mut state, from, 4).unwrap();
    assert!(again.to.id > moved.to.id, "no number comes back");
}

#[test]
fn a_replica_built_anew_in_its_place_is_never_started_again() {
    let mut state = formed();
    let from = on(&state, 1);
    let moved = replace(&mut state, from, 1).unwrap();
    assert_eq!(state.replica_on(&first(&state), NodeId(1)), Some(moved.to.id));
    assert_eq!(code(abort(&mut state, &moved)), ErrorCode::Conflict, "its data is gone");
    // It may be built elsewhere instead.
    let elsewhere = replace(&mut state, from, 4).unwrap();
    assert!(elsewhere.to.id > moved.to.id);
    assert_eq!(state.replica_on(&first(&state), NodeId(1)), None);
    assert_eq!(state.replica_on(&first(&state), NodeId(4)), Some(elsewhere.to.id));
    assert_eq!(code(report(&mut state, &moved, MoveStep::CaughtUp)), ErrorCode::NotFound);
}

#[test]
fn a_node_that_lost_its_data_comes_back_and_gets_new_replicas() {
    let mut state = formed();
    assert_eq!(code(apply(&mut state, join(1, 101))), ErrorCode::WrongIdentity);
    lose(&mut state, 1, 1).unwrap();
    lose(&mut state, 1, 1).unwrap();
    let info = first(&state);
    let new = state.replica_on(&info, NodeId(1)).unwrap();
    assert!(new.0 > FIRST_REPLICAS);
    assert_eq!(state.move_of(ROOT_PARTITION), None, "the root group's new replica has no number yet");
    assert_eq!(code(lose(&mut state, 2, 2)), ErrorCode::MoveUnderWay, "one after the other");
    apply(&mut state, join(1, 101)).unwrap();
    let root = *state.move_of(ROOT_PARTITION).unwrap();
    assert_eq!((root.from.id, root.to.id), (ReplicaId(1), ReplicaId(101)));
    assert_eq!(code(apply(&mut state, join(1, 1))), ErrorCode::WrongIdentity, "it has other data now");
    // Lost again before it was built: the numbers of its first attempt are given up.
    lose(&mut state, 1, 101).unwrap();
    assert_eq!(state.move_of(ROOT_PARTITION), None);
    assert!(state.replica_on(&first(&state), NodeId(1)).unwrap() > new);
    apply(&mut state, join(1, 102)).unwrap();
    for moved in state.moves.clone() {
        report(&mut state, &moved, MoveStep::CaughtUp).unwrap();
        report(&mut state, &moved, MoveStep::Switched).unwrap();
    }
    assert_eq!((state.moves.len(), state.retired.len()), (0, 0));
    assert_eq!(state.map.root[0].id, ReplicaId(102));
    lose(&mut state, 2, 2).unwrap();
    apply(&mut state, join(2, 2)).unwrap();
    for moved in state.moves.clone() {
        report(&mut state, &moved, MoveStep::CaughtUp).unwrap();
        report(&mut state, &moved, MoveStep::Switched).unwrap();
    }
    lose(&mut state, 1, 102).unwrap();
    assert_eq!(code(apply(&mut state, join(1, 1))), ErrorCode::WrongIdentity, "the root group has replaced it");
}

#[test]
fn a_copy_of_another_members_data_is_not_taken_for_a_members_own() {
    let mut state = formed();
    lose(&mut state, 1, 1).unwrap();
    let error = apply(&mut state, join(1, 2)).unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongIdentity);
    assert!(error.message.contains("of node 1 is a copy of that of node 2"), "{error}");
    apply(&mut state, join(1, 101)).unwrap();
    // Node 1's replica is on its way: its number is taken, too.
    assert_eq!(state.move_of(ROOT_PARTITION).unwrap().to.id, ReplicaId(101));
    lose(&mut state, 5, 5).unwrap();
    for moved in state.moves.clone().iter().filter(|moved| moved.partition != ROOT_PARTITION) {
        report(&mut state, moved, MoveStep::CaughtUp).unwrap();
        report(&mut state, moved, MoveStep::Switched).unwrap();
    }
    let mut other = state.clone();
    other.map.nodes[2].incarnation = NO_INCARNATION;
    assert_eq!(code(apply(&mut other, join(3, 101))), ErrorCode::WrongIdentity);
    apply(&mut state, join(5, 105)).unwrap();
}

#[test]
fn data_that_is_lost_while_the_voters_change_is_built_anew_afterwards() {
    let mut state = formed();
    let moved = {
        let from = on(&state, 1);
        replace(&mut state, from, 4).unwrap()
    };
    report(&mut state, &moved, MoveStep::CaughtUp).unwrap();
    lose(&mut state, 4, 4).unwrap();
    assert_eq!(state.replica_on(&first(&state), NodeId(4)), None, "it may be a voter, and has forgotten");
    report(&mut state, &moved, MoveStep::Switched).unwrap();
    assert_eq!(code(lose(&mut state, 2, 2)), ErrorCode::MoveUnderWay, "node 4 has lost its vote's data already");
    let next = *state.move_of(first(&state).id).unwrap();
    assert_eq!((next.from, next.to.node), (moved.to, NodeId(4)));
    assert_eq!(state.replica_on(&first(&state), NodeId(4)), Some(next.to.id));
}

#[test]
fn few_moves_to_a_node_are_driven_at_a_time() {
    let mut state = RootState::new(ClusterId(1));
    (1..=3).for_each(|id| drop(apply(&mut state, join(id, id)).unwrap()));
    apply(&mut state, RootCommand::RaiseVersion(MOVES_VERSION)).unwrap();
    apply(&mut state, RootCommand::CreateSet(CreateSet { name: "shared".into(), partitions: 16, seed: 7 })).unwrap();
    lose(&mut state, 1, 1).unwrap();
    assert_eq!((state.moves.len(), state.active_moves().len()), (16, MOVES_AT_ONCE));
    let begun = state.active_moves();
    for moved in &begun {
        report(&mut state, moved, MoveStep::CaughtUp).unwrap();
    }
    assert_eq!(state.active_moves().len(), MOVES_AT_ONCE, "those that change voters go on, and count");
}

#[test]
fn bytes_from_before_there_were_moves_are_read() {
    let state = formed();
    let mut bytes = state.to_bytes();
    bytes.truncate(bytes.len() - 12);
    bytes[0] = 1;
    assert_eq!(RootState::from_bytes(&bytes).unwrap(), state);
}

/// A command of any kind with numbers that may or may not fit.
fn any_command() -> impl Strategy<Value = RootCommand> {
    let (node, replica, partition) = (1..=6u64, 1..=30u64, 1..=5u64);
    let incarnation = prop_oneof![1..=6u64, 100..=110u64];
    let step = prop_oneof![Just(MoveStep::CaughtUp), Just(MoveStep::Switched)];
    prop_oneof![
        4 => (partition.clone(), replica.clone(), node.clone()).prop_map(|(partition, replica, to)| {
            let partition = PartitionId(partition);
            RootCommand::ReplaceReplica(ReplaceReplica { partition, replica: ReplicaId(replica), to: NodeId(to) })
        }),
        1 => (node.clone(), incarnation.clone()).prop_map(|(node, incarnation)| {
            RootCommand::ReplaceNode(ReplaceNode { node: NodeId(node), incarnation })
        }),
        1 => (partition.clone(), replica.clone()).prop_map(|(partition, replica)| {
            RootCommand::AbortMove(AbortMove { partition: PartitionId(partition), replica: ReplicaId(replica) })
        }),
        6 => (partition, replica, step).prop_map(|(partition, replica, step)| {
            RootCommand::ReportMove(MoveReport { partition: PartitionId(partition), replica: ReplicaId(replica), step })
        }),
        // The first data directories, and others, none of which two nodes draw.
        1 => (node, 0..5u64).prop_map(|(node, drawn)| join(node, node + 100 * drawn)),
    ]
}

proptest! {
    /// Whatever comes in whatever order, the invariants hold (`apply` checks them), no number is placed twice, and what was
    /// replaced or retired is never started again.
    #[test]
    fn no_order_of_commands_breaks_the_plan(commands in prop::collection::vec(any_command(), 1..120)) {
        let mut state = formed();
        let mut gone: BTreeSet<(PartitionId, ReplicaId)> = BTreeSet::new();
        let running = |state: &RootState| -> BTreeSet<(PartitionId, ReplicaId)> {
            let partitions = state.map.sets.iter().flat_map(|set| &set.partitions);
            partitions.flat_map(|info| {
                let on = |node| state.replica_on(info, NodeId(node)).map(|id| (info.id, id));
                (1..=6).filter_map(on).collect::<Vec<_>>()
            }).collect()
        };
        let mut before = running(&state);
        for command in commands {
            // Most replicas are named by numbers that exist, so that something happens.
            let command = aim(&state, command);
            let _refused = apply(&mut state, command);
            let after = running(&state);
            gone.extend(before.difference(&after).copied());
            prop_assert!(gone.is_disjoint(&after), "{gone:?} and {after:?}");
            before = after;
        }
    }
}

/// The command with a replica number that the partition has, if it names a low one.
fn aim(state: &RootState, command: RootCommand) -> RootCommand {
    let placed = |partition: PartitionId, replica: ReplicaId| {
        let replicas = state.replicas_of(partition).unwrap_or_default();
        let at = (replica.0 as usize) % 4;
        replicas.get(at).map_or(replica, |replica| replica.id)
    };
    let coming = |partition: PartitionId, replica: ReplicaId| match replica.0 % 4 {
        0 => replica,
        _ => state.move_of(partition).map_or(replica, |moved| moved.to.id),
    };
    match command {
        RootCommand::ReplaceReplica(asked) => {
            RootCommand::ReplaceReplica(ReplaceReplica { replica: placed(asked.partition, asked.replica), ..asked })
        }
        RootCommand::ReportMove(report) => {
            RootCommand::ReportMove(MoveReport { replica: coming(report.partition, report.replica), ..report })
        }
        RootCommand::AbortMove(asked) => {
            RootCommand::AbortMove(AbortMove { replica: coming(asked.partition, asked.replica), ..asked })
        }
        RootCommand::ReplaceNode(asked) => {
            let incarnation = state.map.node(asked.node).map_or(0, |node| node.incarnation);
            RootCommand::ReplaceNode(ReplaceNode { incarnation, ..asked })
        }
        other => other,
    }
}

#[test]
fn a_node_without_its_data_is_heard_once_for_what_it_speaks_and_for_nothing_else() {
    let mut state = RootState::new(ClusterId(1));
    for (id, zone) in [(1, "a"), (2, "b"), (3, "c")] {
        apply(&mut state, speaking(id, id, zone, if id == 2 { 1 } else { MOVES_VERSION })).unwrap();
    }
    let map = state.map.clone();
    let code = |state: &mut RootState, command| apply(state, command).unwrap_err().code;
    assert_eq!(code(&mut state, speaking(2, 77, "b", 1)), ErrorCode::WrongIdentity, "it speaks what is known");
    assert_eq!(code(&mut state, speaking(2, 77, "a", MOVES_VERSION)), ErrorCode::WrongIdentity, "in another zone");
    assert_eq!(state.version_ahead(), None);
    apply(&mut state, speaking(2, 77, "b", MOVES_VERSION)).unwrap();
    assert_eq!((state.version_ahead(), &state.map), (Some(MOVES_VERSION), &map), "nothing else has changed");
    assert_eq!(code(&mut state, speaking(2, 77, "b", MOVES_VERSION)), ErrorCode::WrongIdentity);
    apply(&mut state, speaking(2, 2, "b", 1)).unwrap();
    assert_eq!(state.version_ahead(), None, "whose data it is says what it speaks");
    state.root_gone.push(ReplicaId(77));
    assert_eq!(code(&mut state, speaking(2, 77, "b", MOVES_VERSION)), ErrorCode::WrongIdentity, "it was replaced");
}
