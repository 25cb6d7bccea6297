//! `raft::root`: bytes of the root state, and commands of the root group as clients and nodes bring them about.

use std::path::PathBuf;

use bytes::Bytes;
use stoa_protocol::catalog::{Definition, ProjectDefinition};
use stoa_protocol::codec::check_name;
use stoa_protocol::limits::DESCRIPTION_BYTES_MAX;
use stoa_protocol::map::{NodeInfo, ReplicaInfo};
use stoa_protocol::message::{AbortMove, MoveReport, MoveStep, ReplaceNode, ReplaceReplica};
use stoa_protocol::{ClusterId, LogIndex, NodeId, PartitionId, ReplicaId, Wire};
use stoa_raft::root::command::{CreateSet, Definitions, Form, Join};
use stoa_raft::root::{RootCommand, RootMachine, RootState};
use stoa_raft::{Machine, SnapshotChunk};

use super::{Seed, schemas};
use crate::input::put_piece;
use crate::{Input, round_trip};

const CLUSTER: ClusterId = ClusterId(1);
/// The cluster version that a machine speaks.
const SPOKEN: u32 = 2;
/// Commands of one input.
const COMMANDS_MAX: usize = 60;

/// A byte: 0 bytes of a state; else a list of commands.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(2) {
        0 => state(input.rest()),
        _ => commands(input),
    }
}

/// What a node keeps of the root state, or gets from another: it is written as it was read.
fn state(bytes: &[u8]) {
    let state = round_trip::stable::<RootState>(bytes);
    let (mut machine, watch) = RootMachine::new(CLUSTER, SPOKEN);
    let restored = machine.restore(bytes.chunks(64).map(|bytes| chunk(Bytes::copy_from_slice(bytes))).collect());
    let fits = state.filter(|state| state.map.cluster == CLUSTER && state.cluster_version <= SPOKEN);
    assert_eq!(restored.is_ok(), fits.is_some());
    assert_eq!(machine.state(), &fits.unwrap_or_else(|| RootState::new(CLUSTER)));
    assert_eq!(machine.state(), &**watch.borrow());
}

/// Commands in the order of a log. Those that are refused change nothing; the state is sound after each.
fn commands(mut input: Input<'_>) {
    let (mut machine, _watch) = RootMachine::new(CLUSTER, SPOKEN);
    for index in 1..=COMMANDS_MAX as u64 {
        if input.is_empty() {
            break;
        }
        let Some(command) = command(&mut input, machine.state()) else { continue };
        let bytes = command.to_bytes();
        assert_eq!(round_trip::stable::<RootCommand>(&bytes).as_ref(), Some(&command));
        let before = machine.state().clone();
        let applied = machine.apply(LogIndex(index), &bytes.into());
        let state = machine.state();
        match applied {
            Ok(_) => assert_eq!(state.map.version > before.map.version, *state != before),
            Err(error) => assert!(*state == before && !error.to_string().is_empty()),
        }
        state.check();
        check_limits(state);
    }
    let state = machine.state().clone();
    assert_eq!(round_trip::stable(&state.to_bytes()).as_ref(), Some(&state));
    let (mut other, _watch) = RootMachine::new(CLUSTER, SPOKEN);
    let parts: Result<Vec<_>, _> = machine.snapshot(None).collect();
    let chunks = parts.expect("it cannot fail").into_iter().filter_map(|part| part.into_chunk());
    other.restore(chunks.map(chunk).collect()).expect("what was just written");
    assert_eq!(other.state(), &state);
}

fn chunk(bytes: Bytes) -> SnapshotChunk {
    SnapshotChunk { bytes, file: PathBuf::from("chunk") }
}

/// What the catalog holds is within the limits of the protocol.
fn check_limits(state: &RootState) {
    let entities = state.entities.iter().map(|entity| entity.check());
    let groups = state.groups.iter().map(|(_, group)| group.check());
    assert_eq!(entities.chain(groups).chain(state.views.iter().map(|(_, view)| view.check())).find(Result::is_err), None);
    for project in &state.projects {
        assert_eq!(check_name("a project", &project.name), Ok(()));
        assert!(project.description.len() <= DESCRIPTION_BYTES_MAX, "{} bytes of text", project.description.len());
    }
}

/// A command about few things, so that commands meet; 0 and 1: bytes of one.
fn command(input: &mut Input<'_>, state: &RootState) -> Option<RootCommand> {
    let partition = |input: &mut Input<'_>| PartitionId(input.below(8) as u64);
    let replica = |input: &mut Input<'_>| ReplicaId(input.below(40) as u64);
    let node = |input: &mut Input<'_>| NodeId(input.below(7) as u64);
    Some(match input.below(12) {
        0 | 1 => foreign(input.piece())?,
        2 => RootCommand::Form(form()),
        3 | 4 => {
            let (node, version_min) = (joining(input), input.below(3) as u32);
            RootCommand::Join(Join { node, version_min, version_max: input.below(4) as u32 })
        }
        5 => {
            let (name, partitions) = (["shared", "other"][input.below(2)].into(), input.below(6) as u32);
            RootCommand::CreateSet(CreateSet { name, partitions, seed: input.u64() })
        }
        6 => {
            // Once every node speaks it, as nobody proposes it before.
            let version = input.below(4) as u32;
            if state.versions.is_empty() {
                return None;
            }
            RootCommand::RaiseVersion(version)
        }
        7 | 8 => RootCommand::ReplaceReplica(ReplaceReplica {
            partition: partition(input),
            replica: replica(input),
            to: node(input),
        }),
        9 => RootCommand::ReplaceNode(ReplaceNode { node: node(input), incarnation: input.below(7) as u64 }),
        10 => RootCommand::AbortMove(AbortMove { partition: partition(input), replica: replica(input) }),
        _ => {
            let step = if input.flag() { MoveStep::CaughtUp } else { MoveStep::Switched };
            RootCommand::ReportMove(MoveReport { partition: partition(input), replica: replica(input), step })
        }
    })
}

/// A command from its bytes, unless it is one that no node makes of what others say.
fn foreign(bytes: &[u8]) -> Option<RootCommand> {
    let command = round_trip::stable::<RootCommand>(bytes)?;
    let own = match &command {
        RootCommand::Form(_) | RootCommand::RaiseVersion(_) => true,
        RootCommand::CreateSet(create) => create.partitions > 64,
        _ => false,
    };
    (!own).then_some(command)
}

/// The members that form the cluster, which are nodes 1 to 3.
fn form() -> Form {
    let nodes: Vec<_> = (1..=3).map(|id| known(id, id as usize - 1, id)).collect();
    let replicas = nodes.iter().map(|node| ReplicaInfo { id: ReplicaId(node.incarnation), node: node.id });
    Form { replicas: replicas.collect(), nodes }
}

fn joining(input: &mut Input<'_>) -> NodeInfo {
    let id = input.below(7) as u64;
    known(id, input.below(4), input.below(7) as u64)
}

fn known(id: u64, zone: usize, incarnation: u64) -> NodeInfo {
    let addr = ([127, 0, 0, 1], 7_000 + id as u16).into();
    NodeInfo { id: NodeId(id), zone: ["a", "b", "c", "d"][zone].into(), addr, incarnation }
}

/// A state with all there is, and the commands that lead to it.
pub fn seeds() -> Vec<Seed> {
    let mut commands = vec![RootCommand::Form(form())];
    for id in 1..=6u64 {
        let node = known(id, (id as usize - 1) % 3, id);
        commands.push(RootCommand::Join(Join { node, version_min: 1, version_max: 2 }));
    }
    commands.extend([
        RootCommand::RaiseVersion(2),
        RootCommand::CreateSet(CreateSet { name: "shared".into(), partitions: 4, seed: 9 }),
        RootCommand::Define(Definitions { definitions: schemas::definitions() }),
    ]);
    let mut state = RootState::new(CLUSTER);
    let mut apply = |command: &RootCommand| {
        state.apply(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        state.to_bytes()
    };
    let mut seeds = Vec::new();
    let whole = commands.iter().fold(Vec::new(), |_, command| apply(command));
    let from = ReplaceReplica { partition: PartitionId(3), replica: ReplicaId(1), to: NodeId(4) };
    let moved = apply(&RootCommand::ReplaceReplica(from));
    for (name, state) in [("whole", whole), ("moved", moved)] {
        seeds.push((name, [&[0][..], &state].concat()));
    }
    let mut log = vec![1];
    // Those that are made of few bytes first: the cluster, its nodes, its version, its set.
    log.push(2);
    (1..=6u8).for_each(|id| log.extend([3, id, (id - 1) % 3, id, 1, 2]));
    log.extend([6, 2, 5, 0, 4, 9, 0, 0, 0, 0, 0, 0, 0]);
    let made = log.clone();
    let define = commands.last().expect("there are some").to_bytes();
    log.push(0);
    put_piece(&define, &mut log);
    log.extend([7, 3, 1, 4, 11, 1, 3, 20, 9, 1, 1, 10, 3, 20]);
    let project = ProjectDefinition { name: "ads".into(), description: "d".repeat(DESCRIPTION_BYTES_MAX) };
    let project = RootCommand::Define(Definitions { definitions: vec![Definition::Project(project)] });
    let mut longest = vec![1, 0];
    put_piece(&project.to_bytes(), &mut longest);
    seeds.extend([("made", made), ("log", log), ("longest", longest)]);
    seeds
}
