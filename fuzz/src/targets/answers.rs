//! `protocol::message`: the body of an answer of each kind, and of an error.

use stoa_protocol::catalog::{FeatureView, ViewFeature};
use stoa_protocol::limits::ERROR_MESSAGE_BYTES_MAX;
use stoa_protocol::map::{PartitionInfo, PartitionSet, ReplicaInfo};
use stoa_protocol::message::*;
use stoa_protocol::{
    ClusterId, ClusterMap, ErrorBody, ErrorCode, FeatureGroup, FeatureGroupId, KeyColumn, KeyType, LogIndex, MapVersion,
    NodeId, PartitionId, PartitionSetId, ReplicaId, ViewId, Wire,
};
use stoa_raft::root::RootState;

use super::requests::node;
use super::{Seed, read_answers};
use crate::round_trip::{canonical, stable};
use crate::{Input, sample};

/// The byte of an error.
const ERROR: u8 = 0xff;

/// A byte of kind, then the body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let number = input.byte();
    let body = input.rest();
    if number == ERROR {
        return error(body);
    }
    let Some(kind) = Kind::from_number(u16::from(number)) else { return };
    match kind {
        Kind::Ping | Kind::Move | Kind::Spare => drop(canonical::<Empty>(body)),
        Kind::Map | Kind::Join => map(body),
        Kind::View => drop(canonical::<ViewAnswer>(body)),
        Kind::Group => drop(canonical::<FeatureGroup>(body)),
        Kind::Write => drop(canonical::<WriteAnswer>(body)),
        Kind::Session => drop(canonical::<SessionAnswer>(body)),
        Kind::Apply => drop(canonical::<ApplyAnswer>(body)),
        Kind::Status => drop(stable::<NodeStatus>(body)),
        Kind::Digest => drop(canonical::<DigestAnswer>(body)),
        Kind::Placement => drop(canonical::<PlacementAnswer>(body)),
        Kind::Read => read_answers::run(body),
        Kind::Watch => drop(stable::<RootState>(body)),
        Kind::Barrier => drop(canonical::<BarrierAnswer>(body)),
        Kind::Hello => drop(stable::<HelloAnswer>(body)),
        Kind::Clock => drop(canonical::<ClockAnswer>(body)),
        Kind::Witness => drop(canonical::<WitnessAnswer>(body)),
        Kind::Raft => {}
    }
}

fn error(body: &[u8]) {
    if let Some(error) = canonical::<ErrorBody>(body) {
        assert_eq!(ErrorCode::from_number(error.code.number()), error.code);
        assert!(error.message.len() <= ERROR_MESSAGE_BYTES_MAX, "a message of {} bytes", error.message.len());
        let _ = (error.code.class(), error.to_string());
    }
}

/// Whatever a map says, it can be asked.
fn map(body: &[u8]) {
    let Some(map) = stable::<ClusterMap>(body) else { return };
    assert!(map.root_nodes().count() <= map.root.len());
    for set in &map.sets {
        let found = map.set(set.id).expect("it is one of them");
        for hash in [0, 1 << 63, u64::MAX] {
            assert!(found.partition_of(hash).is_none_or(|partition| found.partitions.contains(partition)));
        }
        assert!(set.partitions.iter().all(|partition| map.partition(partition.id).is_some()));
    }
    for node in &map.nodes {
        assert!(map.node(node.id).is_none_or(|found| found.id == node.id));
    }
}

/// One of each kind.
pub fn seeds() -> Vec<Seed> {
    let seed = |kind: Kind, bytes: Vec<u8>| [&[kind as u8][..], &bytes].concat();
    let replica = ReplicaInfo { id: ReplicaId(3), node: NodeId(1) };
    let (partition, version) = (PartitionId(2), MapVersion(8));
    let ranges = PartitionSet::even_ranges(2).zip(2..);
    let partitions = ranges.map(|(first_hash, id)| PartitionInfo { id: PartitionId(id), first_hash, replicas: vec![replica] });
    let (id, name) = (PartitionSetId(1), "shared".to_owned());
    let set = PartitionSet { id, name, incarnation: 0, partitions: partitions.collect() };
    let nodes = vec![node(1), node(2)];
    let map = ClusterMap { cluster: ClusterId(1), version, nodes, root: vec![replica], sets: vec![set] };
    let moved = MoveInfo { partition, from: replica, to: replica, stage: MoveStage::Adding };
    let status = ReplicaStatus {
        partition,
        leader: Some(NodeId(1)),
        term: 2,
        last: LogIndex(9),
        committed: LogIndex(8),
        applied: LogIndex(7),
        rows: 3,
        bytes: 400,
        trouble: "none".into(),
    };
    let status = NodeStatus {
        node: node(1),
        build: "0.1.0".into(),
        map_version: version,
        cluster_version: 2,
        replicas: vec![status],
        moves: vec![moved],
    };
    let view = FeatureView {
        id: ViewId(4),
        project: "shop".into(),
        name: "rank".into(),
        version: 1,
        keys: vec![KeyColumn { name: "id".into(), ty: KeyType::Int64 }],
        features: vec![ViewFeature { name: "units".into(), group: FeatureGroupId(7), feature: 0 }],
        description: String::new(),
    };
    let wrote = WriteAnswer { index: LogIndex(5), incarnation: 1, applied: 2, older: vec![0, 3], repeated: false };
    let digest = DigestAnswer { applied: LogIndex(5), groups: vec![(FeatureGroupId(7), 1 << 100)], rows: 6 };
    let hello = HelloAnswer { node: node(2), formed: vec![replica] };
    let error = ErrorBody { leader: Some(NodeId(2)), ..ErrorBody::new(ErrorCode::NotLeader, "ask node 2") };
    let longest = ErrorBody::new(ErrorCode::BadKey, "é".repeat(ERROR_MESSAGE_BYTES_MAX));
    vec![
        ("map", seed(Kind::Map, map.to_bytes())),
        ("view", seed(Kind::View, ViewAnswer { view, groups: vec![sample::product()] }.to_bytes())),
        ("group", seed(Kind::Group, sample::product().to_bytes())),
        ("write", seed(Kind::Write, wrote.to_bytes())),
        ("session", seed(Kind::Session, SessionAnswer { last: 1, index: LogIndex(2) }.to_bytes())),
        ("apply", seed(Kind::Apply, ApplyAnswer { version, created: 1, unchanged: 2 }.to_bytes())),
        ("status", seed(Kind::Status, status.to_bytes())),
        ("digest", seed(Kind::Digest, digest.to_bytes())),
        ("placement", seed(Kind::Placement, PlacementAnswer { version, moves: vec![moved] }.to_bytes())),
        ("barrier", seed(Kind::Barrier, BarrierAnswer { committed: vec![Some(LogIndex(3)), None] }.to_bytes())),
        ("hello", seed(Kind::Hello, hello.to_bytes())),
        ("witness", seed(Kind::Witness, WitnessAnswer { seen: LogHeight { segment: 1, offset: 2 } }.to_bytes())),
        ("error", [&[ERROR][..], &error.to_bytes()].concat()),
        ("longest", [&[ERROR][..], &longest.to_bytes()].concat()),
    ]
}
