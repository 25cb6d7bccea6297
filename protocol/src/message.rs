//! Requests and answers by kind. A request's body begins with its [`Caller`]; an answer has the kind of its request with
//! [`ANSWER`] set, or [`KIND_ERROR`] with an [`ErrorBody`](crate::error::ErrorBody).

use crate::catalog::{Definition, FeatureGroup, FeatureView};
use crate::codec::{DecodeError, Reader, Wire};
use crate::ids::{ClusterId, FeatureGroupId, LogIndex, MapVersion, NodeId, PartitionId, ReplicaId};
use crate::map::{NodeInfo, ReplicaInfo};
use crate::read::ConfirmBy;

/// Set in the kind of an answer.
pub const ANSWER: u16 = 0x8000;
/// The kind of an answer that is an error.
pub const KIND_ERROR: u16 = 0xffff;

/// The kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// Asks for a sign of life; empty body both ways.
    Ping = 1,
    /// Asks for the cluster map. Empty body, [`ClusterMap`](crate::map::ClusterMap) back.
    Map = 2,
    /// Asks for a view and the groups it reads: [`ViewRequest`], [`ViewAnswer`].
    View = 3,
    /// Asks for a group: [`GroupRequest`], [`FeatureGroup`] back.
    Group = 4,
    /// A row batch: [`WriteRequest`], [`WriteAnswer`].
    Write = 6,
    /// What a writer session has had acknowledged: [`SessionRequest`], [`SessionAnswer`].
    Session = 7,
    /// Definitions for the catalog: [`ApplyRequest`], [`ApplyAnswer`].
    Apply = 8,
    /// What a node knows of itself. Empty body, [`NodeStatus`] back.
    Status = 9,
    /// The logical digests of a replica: [`DigestRequest`], [`DigestAnswer`].
    Digest = 10,
    /// A change of where replicas lie: [`PlacementRequest`], [`PlacementAnswer`].
    Placement = 11,
    /// A multi-get: [`ReadRequest`](crate::read::ReadRequest), answered by the bytes of [`crate::row_block`]. (5 was one
    /// whose answer had columns for each section.)
    Read = 12,
    /// Node to node: a Raft message; its body is the raft crate's.
    Raft = 32,
    /// Node to node: joins the cluster: [`JoinRequest`], [`ClusterMap`](crate::map::ClusterMap) back.
    Join = 33,
    /// Node to node: the root group's state if it is newer than the version given; its body is the raft crate's.
    Watch = 34,
    /// Node to node: the commit index of a partition, confirmed by a quorum: [`BarrierRequest`], [`BarrierAnswer`].
    Barrier = 35,
    /// Node to node: who are you, and do you know of a formed cluster: [`HelloRequest`], [`HelloAnswer`].
    Hello = 36,
    /// Node to node: how far a move has come, for the root group: [`MoveReport`], empty body back.
    Move = 37,
    /// Node to node: how far the asker's log reaches, and how far it was seen to reach: [`WitnessRequest`],
    /// [`WitnessAnswer`].
    Witness = 38,
    /// Node to node: whether a group can do without the data of one of its voters: [`SpareRequest`], empty body back.
    Spare = 39,
    /// Node to node: what the calendar says. Empty body, [`ClockAnswer`] back.
    Clock = 40,
}

impl Kind {
    /// The kind of a number on the wire.
    pub fn from_number(number: u16) -> Option<Self> {
        use Kind::*;
        [
            Ping, Map, View, Group, Write, Session, Apply, Status, Digest, Placement, Read, Raft, Join, Watch, Barrier,
            Hello, Move, Witness, Spare, Clock,
        ]
        .into_iter()
        .find(|kind| *kind as u16 == number)
    }
}

/// Who asks. The principal is what the certificate says; it is repeated here so that a gateway can act for somebody, and
/// refused if the certificate does not allow that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// The project on whose behalf the request is made; empty if none.
    pub project: String,
    /// The principal; empty for that of the certificate.
    pub principal: String,
}
crate::wire_struct!(Caller { project, principal });

/// Asks for a view by its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewRequest {
    /// The project that owns it.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
}
crate::wire_struct!(ViewRequest { project, name, version });

/// A view and all groups it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewAnswer {
    /// The view.
    pub view: FeatureView,
    /// Its groups, each once.
    pub groups: Vec<FeatureGroup>,
}
crate::wire_struct!(ViewAnswer { view, groups: list });

/// Asks for a group by its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRequest {
    /// The project that owns it.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
}
crate::wire_struct!(GroupRequest { project, name, version });

/// A place in a writer session: batches of a session carry 1, 2, 3, … in each partition, and each is applied once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionStep {
    /// The session, chosen by the writer: a random number, or the hash of a load's name.
    pub session: u128,
    /// The batch's number in this partition, from 1, without gaps.
    pub sequence: u64,
}
crate::wire_struct!(SessionStep { session, sequence });

/// A row batch for one partition. It is applied whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteRequest {
    /// The partition; every key of the batch must lie in its range.
    pub partition: PartitionId,
    /// Its place in a writer session; without one the batch may be applied twice if the writer sends it again.
    pub step: Option<SessionStep>,
    /// The bytes of a [`RowBatch`](crate::batch::RowBatch).
    pub batch: Vec<u8>,
}
crate::wire_struct!(WriteRequest { partition, step, batch });

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowOutcome {
    /// It was written, or deleted.
    Applied,
    /// The row that was there has a newer event, or the key was deleted by a newer event.
    Older,
}
crate::wire_enum!(RowOutcome { 0 => Applied, 1 => Older });

/// The batch is durable on a quorum and applied on the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteAnswer {
    /// Its place in the partition's log.
    pub index: LogIndex,
    /// The incarnation of the partition set that `index` belongs to.
    pub incarnation: u32,
    /// Rows written or deleted.
    pub applied: u32,
    /// Places of the rows that were older than what was there.
    pub older: Vec<u32>,
    /// Whether the session had this batch already, so that nothing was done now.
    pub repeated: bool,
}
crate::wire_struct!(WriteAnswer { index, incarnation, applied, older: list, repeated });

/// Asks the partition's leader how far a writer session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRequest {
    /// The partition.
    pub partition: PartitionId,
    /// The session.
    pub session: u128,
}
crate::wire_struct!(SessionRequest { partition, session });

/// How far a writer session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionAnswer {
    /// The last sequence applied; 0 if none, or if the session has been forgotten.
    pub last: u64,
    /// The place in the log of that batch.
    pub index: LogIndex,
}
crate::wire_struct!(SessionAnswer { last, index });

/// Definitions, taken all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyRequest {
    /// In the order in which they may refer to each other.
    pub definitions: Vec<Definition>,
}
crate::wire_struct!(ApplyRequest { definitions: list });

/// The catalog holds the definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyAnswer {
    /// The version of map and catalog after the change.
    pub version: MapVersion,
    /// How many definitions were new.
    pub created: u32,
    /// How many stood there already, the same.
    pub unchanged: u32,
}
crate::wire_struct!(ApplyAnswer { version, created, unchanged });

/// What a node knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Who it is.
    pub node: NodeInfo,
    /// The version of the program.
    pub build: String,
    /// The version of the map it has.
    pub map_version: MapVersion,
    /// The features of protocol and log that the whole cluster speaks.
    pub cluster_version: u32,
    /// Its replicas, the root group's first.
    pub replicas: Vec<ReplicaStatus>,
    /// Moves that are under way, as this node knows them.
    pub moves: Vec<MoveInfo>,
}
crate::wire_struct!(NodeStatus { node, build, map_version, cluster_version, replicas: list, moves: list });

/// What a node knows of one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Who leads, as far as this replica knows.
    pub leader: Option<NodeId>,
    /// The term of the leader that it follows.
    pub term: u64,
    /// The last index in its log.
    pub last: LogIndex,
    /// The last index that it knows to be committed.
    pub committed: LogIndex,
    /// The last index applied.
    pub applied: LogIndex,
    /// Rows in memory.
    pub rows: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// What is wrong with it, in words: why it does not serve, or what is wrong with what it serves; empty if nothing is.
    pub trouble: String,
}
crate::wire_struct!(ReplicaStatus { partition, leader, term, last, committed, applied, rows, bytes, trouble });

/// Asks a replica for its digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestRequest {
    /// The partition.
    pub partition: PartitionId,
}
crate::wire_struct!(DigestRequest { partition });

/// The digests of one replica at one place of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestAnswer {
    /// The place of the log that they are of.
    pub applied: LogIndex,
    /// The logical digest of each group, sorted.
    pub groups: Vec<(FeatureGroupId, u128)>,
    /// Rows of all groups.
    pub rows: u64,
}
crate::wire_struct!(DigestAnswer { applied, groups: list, rows });

/// A node asks to be one of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The cluster that it means.
    pub cluster: ClusterId,
    /// Who it is.
    pub node: NodeInfo,
    /// The lowest and highest cluster version that it speaks.
    pub versions: (u32, u32),
}
crate::wire_struct!(JoinRequest { cluster, node, versions });

/// Asks the leader of partitions for commit indices that cover everything that was acknowledged before the request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarrierRequest {
    /// How the leader is to make sure that it leads.
    pub by: ConfirmBy,
    /// The partitions.
    pub partitions: Vec<PartitionId>,
}
crate::wire_struct!(BarrierRequest { by, partitions: list });

/// Confirmed commit indices, in the order asked; `None` where this node does not lead or could not confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarrierAnswer {
    /// One for each partition.
    pub committed: Vec<Option<LogIndex>>,
}
crate::wire_struct!(BarrierAnswer { committed: list });

/// How far a move has come. Nothing goes back: up to [`MoveStage::Adding`] a move can be given up, then no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveStage {
    /// The new replica is a learner, or becomes one, and catches up.
    Adding,
    /// The new replica takes the old one's place among the voters.
    Switching,
}
crate::wire_enum!(MoveStage { 1 => Adding, 2 => Switching });

/// A replica of a partition gives its place to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveInfo {
    /// The partition.
    pub partition: PartitionId,
    /// The replica that goes.
    pub from: ReplicaInfo,
    /// The replica that comes, in the same zone; on the same node if that one's data was lost or is given up.
    pub to: ReplicaInfo,
    /// How far it has come.
    pub stage: MoveStage,
}
crate::wire_struct!(MoveInfo { partition, from, to, stage });

/// Replaces one replica of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplaceReplica {
    /// The partition.
    pub partition: PartitionId,
    /// The replica that goes: by its number, so that a request that is sent twice replaces nothing twice.
    pub replica: ReplicaId,
    /// The node of the new one, in the same zone; that of the old one to build it anew in its place.
    pub to: NodeId,
}
crate::wire_struct!(ReplaceReplica { partition, replica, to });

/// Gives a node's data up: whatever data directory comes next with its number is taken, and all its replicas are built
/// anew there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplaceNode {
    /// The node.
    pub node: NodeId,
    /// The data directory that is given up, as the map has it: a request that is sent twice gives up one.
    pub incarnation: u64,
}
crate::wire_struct!(ReplaceNode { node, incarnation });

/// Gives a move up that has not come past [`MoveStage::Adding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortMove {
    /// The partition.
    pub partition: PartitionId,
    /// The replica that was to come.
    pub replica: ReplicaId,
}
crate::wire_struct!(AbortMove { partition, replica });

/// A change of where replicas lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacementRequest {
    /// Replaces one replica.
    Replica(ReplaceReplica),
    /// Replaces all replicas of a node whose data is gone.
    Node(ReplaceNode),
    /// Gives a move up.
    Abort(AbortMove),
}
crate::wire_enum!(PlacementRequest { 1 => Replica(x), 2 => Node(x), 3 => Abort(x) });

/// The root group has taken the change; moves go on by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementAnswer {
    /// The version of the map with the change.
    pub version: MapVersion,
    /// The moves that were begun or given up, or that go on.
    pub moves: Vec<MoveInfo>,
}
crate::wire_struct!(PlacementAnswer { version, moves: list });

/// A step of a move that its group's leader has seen done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStep {
    /// The new replica is a learner and has caught up.
    CaughtUp,
    /// The new replica is a voter, and the old one is not: committed.
    Switched,
}
crate::wire_enum!(MoveStep { 1 => CaughtUp, 2 => Switched });

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveReport {
    /// The partition.
    pub partition: PartitionId,
    /// The new replica.
    pub replica: ReplicaId,
    /// What was done.
    pub step: MoveStep,
}
crate::wire_struct!(MoveReport { partition, replica, step });

/// Asks the leader of a partition whether all that the partition has lies whole on its other voters, so that the data of
/// this one may go, which has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpareRequest {
    /// The partition.
    pub partition: PartitionId,
    /// The voter.
    pub replica: ReplicaId,
}
crate::wire_struct!(SpareRequest { partition, replica });

/// What the answering node's calendar says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockAnswer {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub wall_us: i64,
}
crate::wire_struct!(ClockAnswer { wall_us });

/// A node tells another who it is, before the cluster is formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloRequest {
    /// Who asks.
    pub node: NodeInfo,
}
crate::wire_struct!(HelloRequest { node });

/// Who answers, and the replicas of the root group as it knows them; none if no cluster has been formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloAnswer {
    /// Who answers.
    pub node: NodeInfo,
    /// The root group's replicas.
    pub formed: Vec<ReplicaInfo>,
}
crate::wire_struct!(HelloAnswer { node, formed: list });

/// How far the log of a data directory reaches on its disk. It only rises, and with each promise that the node gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogHeight {
    /// The number of the newest segment.
    pub segment: u64,
    /// Bytes of it.
    pub offset: u64,
}
crate::wire_struct!(LogHeight { segment, offset });

impl std::fmt::Display for LogHeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// A node tells another how far its log reaches on its disk, and asks how far the other has seen it reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WitnessRequest {
    /// The data directory of the node that asks.
    pub incarnation: u64,
    /// How far its log reaches, durably.
    pub height: LogHeight,
}
crate::wire_struct!(WitnessRequest { incarnation, height });

/// The greatest height that the answering node has heard of for this data directory, this one among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WitnessAnswer {
    /// The height.
    pub seen: LogHeight,
}
crate::wire_struct!(WitnessAnswer { seen });

/// Asks for the root group's state if it is newer than the version known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchRequest {
    /// The version that the asking node has.
    pub known: MapVersion,
}
crate::wire_struct!(WatchRequest { known });

/// A request's body: who asks, then what.
pub fn encode_request<T: Wire>(caller: &Caller, request: &T) -> Vec<u8> {
    let mut out = Vec::new();
    caller.put(&mut out);
    request.put(&mut out);
    out
}

/// Takes a request's body apart.
pub fn decode_request<T: Wire>(body: &[u8]) -> Result<(Caller, T), DecodeError> {
    let mut input = Reader::new(body);
    let caller = Caller::get(&mut input)?;
    let request = T::get(&mut input)?;
    input.finish()?;
    Ok((caller, request))
}

/// An empty body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Empty;

impl Wire for Empty {
    fn put(&self, _out: &mut Vec<u8>) {}
    fn get(_input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_with_their_caller() {
        let caller = Caller { project: "shop".into(), principal: "ranker".into() };
        let request = WriteRequest {
            partition: PartitionId(2),
            step: Some(SessionStep { session: 7, sequence: 1 }),
            batch: vec![1, 2, 3],
        };
        let bytes = encode_request(&caller, &request);
        assert_eq!(decode_request::<WriteRequest>(&bytes).unwrap(), (caller, request));
        for cut in 0..bytes.len() {
            assert!(decode_request::<WriteRequest>(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn kinds_come_back_from_their_numbers() {
        for number in 0..=u16::MAX {
            assert!(Kind::from_number(number).is_none_or(|kind| kind as u16 == number && number < ANSWER));
        }
    }
}
