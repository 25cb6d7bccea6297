//! `protocol::message` and `protocol::read`: the body of a request of each kind.

use std::fmt::Debug;

use stoa_protocol::key::{KeyBlock, KeyType, encode_key};
use stoa_protocol::limits::{GROUP_FEATURES_MAX, KEY_BYTES_MAX, READ_ROWS_MAX, READ_SECTIONS_MAX};
use stoa_protocol::map::NodeInfo;
use stoa_protocol::message::*;
use stoa_protocol::read::{ConfirmBy, OnStale, Projection, ReadLevel, ReadRequest, ReadSection};
use stoa_protocol::{
    ClusterId, FeatureGroupId, KeyValue, LogIndex, MapVersion, NodeId, PartitionId, ReplicaId, RowBatch, Wire,
};

use super::{Seed, raft_messages, schemas};
use crate::{Input, round_trip, sample};

/// A byte of kind, then the body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(kind) = Kind::from_number(u16::from(input.byte())) else { return };
    let body = input.rest();
    match kind {
        Kind::Ping | Kind::Map | Kind::Status | Kind::Clock => drop(canonical::<Empty>(body)),
        Kind::View => drop(canonical::<ViewRequest>(body)),
        Kind::Group => drop(canonical::<GroupRequest>(body)),
        Kind::Write => write(body),
        Kind::Session => drop(canonical::<SessionRequest>(body)),
        Kind::Apply => drop(canonical::<ApplyRequest>(body)),
        Kind::Digest => drop(canonical::<DigestRequest>(body)),
        Kind::Placement => drop(canonical::<PlacementRequest>(body)),
        Kind::Read => read(body),
        Kind::Raft => raft_messages::run(body),
        Kind::Join => stable::<JoinRequest>(body),
        Kind::Watch => drop(canonical::<WatchRequest>(body)),
        Kind::Barrier => drop(canonical::<BarrierRequest>(body)),
        Kind::Hello => stable::<HelloRequest>(body),
        Kind::Move => drop(canonical::<MoveReport>(body)),
        Kind::Witness => drop(canonical::<WitnessRequest>(body)),
        Kind::Spare => drop(canonical::<SpareRequest>(body)),
    }
}

/// A request of one form, if it is one.
fn canonical<T: Wire + Debug>(body: &[u8]) -> Option<T> {
    let (caller, request) = round_trip::taken(decode_request::<T>(body))?;
    assert_eq!(encode_request(&caller, &request), body, "{request:?} has two forms");
    Some(request)
}

/// An address has more forms than one.
fn stable<T: Wire + Debug + PartialEq>(body: &[u8]) {
    if let Some((caller, request)) = round_trip::taken(decode_request::<T>(body)) {
        let written = encode_request(&caller, &request);
        assert_eq!(decode_request(&written), Ok((caller, request)));
    }
}

fn write(body: &[u8]) {
    if let Some(request) = canonical::<WriteRequest>(body) {
        round_trip::taken(RowBatch::parse(request.batch.into()));
    }
}

fn read(body: &[u8]) {
    let Some(request) = canonical::<ReadRequest>(body) else { return };
    assert!(request.projections.len() <= READ_SECTIONS_MAX && request.sections.len() <= READ_SECTIONS_MAX);
    assert!(request.projections.iter().all(|projection| projection.features.len() <= GROUP_FEATURES_MAX));
    assert!(request.keys.iter().all(|key| key.len() <= KEY_BYTES_MAX));
    for section in &request.sections {
        let (first, keys) = (section.first_key as usize, section.keys as usize);
        assert!(keys <= READ_ROWS_MAX && usize::from(section.projection) < request.projections.len());
        let range = request.keys.range(first, keys);
        assert!((first..first + keys).map(|at| request.keys.get(at)).eq(range.iter()));
    }
}

/// A read of two sections by one projection.
pub(super) fn read_request(level: ReadLevel) -> ReadRequest {
    let mut keys = KeyBlock::new();
    for id in [2, 5, 99] {
        let mut key = Vec::new();
        encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut key).expect("an integer is a key");
        keys.push(&key);
    }
    let projection = Projection { group: FeatureGroupId(7), schema_version: 1, features: vec![2, 0, 1, 0] };
    let section = |first_key, keys| ReadSection {
        partition: PartitionId(2),
        at_least: LogIndex(4),
        projection: 0,
        first_key,
        keys,
    };
    ReadRequest { level, projections: vec![projection], keys, sections: vec![section(0, 2), section(1, 2)] }
}

/// One of each kind.
pub fn seeds() -> Vec<Seed> {
    fn seed<T: Wire>(kind: Kind, request: &T) -> Vec<u8> {
        let caller = Caller { project: "shop".into(), principal: "ranker".into() };
        [&[kind as u8][..], &encode_request(&caller, request)].concat()
    }
    let batch = sample::batch(&sample::product(), &[0], &[sample::Row { key: 1, time: 2, sequence: 3, values: Some(4) }]);
    let batch = batch.expect("it has a row").bytes().to_vec();
    let step = Some(SessionStep { session: 7, sequence: 1 });
    let (partition, replica, node) = (PartitionId(2), ReplicaId(3), node(4));
    let local = ReadLevel::Local { max_staleness: Some(std::time::Duration::from_millis(5)), on_stale: OnStale::Refuse };
    let name = || ("shop".to_owned(), "rank".to_owned());
    vec![
        ("ping", seed(Kind::Ping, &Empty)),
        ("view", seed(Kind::View, &ViewRequest { project: name().0, name: name().1, version: 1 })),
        ("group", seed(Kind::Group, &GroupRequest { project: name().0, name: name().1, version: 1 })),
        ("write", seed(Kind::Write, &WriteRequest { partition, step, batch })),
        ("session", seed(Kind::Session, &SessionRequest { partition, session: 9 })),
        ("apply", seed(Kind::Apply, &ApplyRequest { definitions: schemas::definitions() })),
        ("digest", seed(Kind::Digest, &DigestRequest { partition })),
        ("replace", seed(Kind::Placement, &PlacementRequest::Replica(ReplaceReplica { partition, replica, to: NodeId(4) }))),
        ("replace_node", seed(Kind::Placement, &PlacementRequest::Node(ReplaceNode { node: NodeId(4), incarnation: 5 }))),
        ("abort", seed(Kind::Placement, &PlacementRequest::Abort(AbortMove { partition, replica }))),
        ("read", seed(Kind::Read, &read_request(local))),
        ("read_strong", seed(Kind::Read, &read_request(ReadLevel::Linearizable { by: ConfirmBy::Lease }))),
        ("join", seed(Kind::Join, &JoinRequest { cluster: ClusterId(1), node: node.clone(), versions: (1, 2) })),
        ("watch", seed(Kind::Watch, &WatchRequest { known: MapVersion(8) })),
        ("barrier", seed(Kind::Barrier, &BarrierRequest { by: ConfirmBy::ReadIndex, partitions: vec![partition] })),
        ("hello", seed(Kind::Hello, &HelloRequest { node })),
        ("move", seed(Kind::Move, &MoveReport { partition, replica, step: MoveStep::CaughtUp })),
        ("witness", seed(Kind::Witness, &WitnessRequest { incarnation: 1, height: LogHeight { segment: 2, offset: 3 } })),
        ("spare", seed(Kind::Spare, &SpareRequest { partition, replica })),
    ]
}

/// A node.
pub(super) fn node(id: u64) -> NodeInfo {
    NodeInfo { id: NodeId(id), zone: "a".into(), addr: ([127, 0, 0, 1], 7_000).into(), incarnation: id }
}
