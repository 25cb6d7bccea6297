//! A cluster of three nodes in three zones, answering from a `BTreeMap`, behind a transport in memory. Time is tokio's
//! paused clock, so that a test decides what passes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use stoa_client::Client;
use stoa_env::{BootTime, Channel, Clock, Entropy, Peer, Transport, TransportError, WallTime};
use stoa_protocol::catalog::ViewFeature;
use stoa_protocol::frame::{FrameHeader, decode_frame, encode_frame};
use stoa_protocol::key::{encode_key, partition_hash};
use stoa_protocol::map::{ClusterMap, NodeInfo, PartitionInfo, PartitionSet, ReplicaInfo};
use stoa_protocol::message::*;
use stoa_protocol::read::{ReadRequest, ReadSection, RowStatus, SectionHead, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, BlockLayout};
use stoa_protocol::*;

pub const CLUSTER: ClusterId = ClusterId(0xc1);
pub const PARTITIONS: u64 = 8;

/// How a node behaves.
#[derive(Debug, Clone, Default)]
pub enum Mood {
    #[default]
    Well,
    /// Requests vanish.
    Silent,
    /// Carries requests out, and their answers vanish.
    Deaf,
    /// Requests are delayed on their way, until [`Cluster::deliver_late`].
    Late,
    /// Nobody listens.
    Down,
    /// Answers after this time, except pings, which need no work.
    Slow(Duration),
    /// Refuses reads and writes so.
    Refusing(ErrorCode),
    /// Answers with bytes that are no frame.
    Garbled,
    /// Belongs to another cluster.
    Foreign,
}

#[derive(Default)]
pub struct State {
    pub moods: BTreeMap<u64, Mood>,
    pub rows: BTreeMap<(FeatureGroupId, Vec<u8>), i32>,
    pub leader: u64,
    pub index: u64,
    /// Kind and node of every request that was sent.
    pub log: Vec<(Kind, u64)>,
    pub keys_read: usize,
    pub batches: usize,
    /// The last number of each session, and the bytes of its batch.
    pub sessions: BTreeMap<(PartitionId, u128), (u64, Vec<u8>)>,
    pub map_version: u64,
    pub hide_from: Option<u64>,
    /// Nodes that never apply any position: they wait for it as long as they may.
    pub behind: Option<u64>,
    /// The schema version that the partitions have learnt; the client opens its views at 1.
    pub schema_version: u32,
    /// Partitions that are at schema 2, in which every Int32 is an Int64.
    pub widened: BTreeSet<PartitionId>,
    /// The schema that they say they are at.
    pub widened_as: u32,
    /// Batches that are carried out before all others are refused.
    pub refuse_after: Option<usize>,
    /// Requests that are still on their way, and to whom.
    pub late: Vec<(u64, Bytes)>,
}

#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
}

/// Follows tokio's paused time.
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    #[allow(clippy::disallowed_methods)] // this is the clock: under tokio's paused time it is the test's own
    fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn boot(&self) -> BootTime {
        BootTime(1_000_000_000 + self.0.elapsed().as_nanos() as u64)
    }
    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

/// Counts.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Entropy for Counter {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

pub fn addr(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 7400))
}

pub fn household() -> FeatureGroup {
    FeatureGroup::simple(10, "household", &[("household_id", KeyType::Int64)], &[("h_units", FeatureType::Int32)])
}

pub fn product() -> FeatureGroup {
    let features = [("p_units", FeatureType::Int32), ("p_name", FeatureType::String)];
    FeatureGroup::simple(11, "product", &[("product_id", KeyType::Int64)], &features)
}

pub fn key(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut out).unwrap();
    out
}

fn view() -> FeatureView {
    let feature = |name: &str, group, feature| ViewFeature { name: name.into(), group: FeatureGroupId(group), feature };
    FeatureView {
        id: ViewId(1),
        project: "test".into(),
        name: "rank".into(),
        version: 1,
        keys: ["household_id", "product_id"].map(|name| KeyColumn { name: name.into(), ty: KeyType::Int64 }).to_vec(),
        features: vec![feature("p_name", 11, 1), feature("h_units", 10, 0), feature("p_units", 11, 0)],
        description: String::new(),
    }
}

impl Cluster {
    pub fn new() -> Self {
        let mut state =
            State { leader: 1, index: 100, map_version: 1, schema_version: 1, widened_as: 2, ..State::default() };
        for id in 0..100 {
            state.rows.insert((FeatureGroupId(10), key(id)), id as i32 + 1_000);
            state.rows.insert((FeatureGroupId(11), key(id)), id as i32);
        }
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub async fn client(&self) -> Client<Cluster> {
        let caller = Caller { project: "test".into(), principal: String::new() };
        let (clock, entropy) = (Arc::new(TokioClock::new()), Arc::new(Counter::default()));
        Client::with(self.clone(), vec![addr(1), addr(2), addr(3)], "a", caller, clock, entropy).await.unwrap()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set(&self, node: u64, mood: Mood) {
        self.state().moods.insert(node, mood);
    }

    /// The nodes that got requests of a kind since the last call.
    pub fn asked(&self, wanted: Kind) -> Vec<u64> {
        let mut state = self.state();
        let nodes = state.log.iter().filter(|(kind, _)| *kind == wanted).map(|(_, node)| *node).collect();
        state.log.clear();
        nodes
    }

    /// What was delayed arrives.
    pub fn deliver_late(&self) {
        let late = std::mem::take(&mut self.state().late);
        assert!(!late.is_empty(), "nothing is on its way");
        late.iter().for_each(|(node, request)| drop(self.answer(*node, request, &Mood::Well)));
    }

    pub fn map(&self) -> ClusterMap {
        map(self.state().map_version)
    }
}

fn map(version: u64) -> ClusterMap {
    let nodes = (1..=3u64).map(|id| NodeInfo {
        id: NodeId(id),
        zone: ["a", "b", "c"][id as usize - 1].into(),
        addr: addr(id),
        incarnation: id,
    });
    let replicas: Vec<_> = (1..=3).map(|n| ReplicaInfo { id: ReplicaId(n), node: NodeId(n) }).collect();
    let partitions = PartitionSet::even_ranges(PARTITIONS as usize).enumerate().map(|(at, first_hash)| PartitionInfo {
        id: PartitionId(at as u64 + 2),
        first_hash,
        replicas: replicas.clone(),
    });
    let set =
        PartitionSet { id: PartitionSetId(1), name: "shared".into(), incarnation: 0, partitions: partitions.collect() };
    ClusterMap {
        cluster: CLUSTER,
        version: MapVersion(version),
        nodes: nodes.collect(),
        root: replicas.clone(),
        sets: vec![set],
    }
}

fn asks_for_a_position(request: &Bytes) -> bool {
    let (_, body) = decode_frame(request).unwrap();
    let (_, request) = decode_request::<ReadRequest>(&body).unwrap();
    request.sections.iter().any(|section| section.at_least.0 > 0)
}

impl Transport for Cluster {
    async fn call(
        &self,
        to: Peer,
        _channel: Channel,
        request: Bytes,
        limit: Duration,
    ) -> Result<Bytes, TransportError> {
        let SocketAddr::V4(v4) = to.addr else { unreachable!("the fake cluster speaks IPv4") };
        let node = u64::from(v4.ip().octets()[3]);
        let mood = self.state().moods.get(&node).cloned().unwrap_or_default();
        let (header, _) = decode_frame(&request).unwrap();
        self.state().log.push((Kind::from_number(header.kind).unwrap(), node));
        let is_read = header.kind == Kind::Read as u16;
        let is_behind = is_read && self.state().behind == Some(node) && asks_for_a_position(&request);
        let wait = match &mood {
            _ if is_behind => Duration::from_micros(header.remaining_us),
            Mood::Down => return Err(TransportError::NotSent { addr: to.addr, reason: "refused".into() }),
            Mood::Slow(wait) if header.kind != Kind::Ping as u16 => *wait,
            _ => Duration::from_micros(500),
        };
        let answer = match mood {
            Mood::Silent => None,
            Mood::Deaf => {
                self.answer(node, &request, &mood);
                None
            }
            Mood::Late => {
                self.state().late.push((node, request.clone()));
                None
            }
            Mood::Garbled => Some(Bytes::from_static(b"HTTP/1.1 200 OK")),
            _ => Some(self.answer(node, &request, &mood)),
        };
        match answer {
            Some(answer) if wait < limit => {
                tokio::time::sleep(wait).await;
                Ok(answer)
            }
            _ => {
                tokio::time::sleep(limit).await;
                Err(TransportError::TimedOut { addr: to.addr, limit })
            }
        }
    }
}

impl Cluster {
    fn answer(&self, node: u64, request: &Bytes, mood: &Mood) -> Bytes {
        let (header, body) = decode_frame(request).unwrap();
        let kind = Kind::from_number(header.kind).unwrap();
        assert!(header.cluster == CLUSTER || (kind == Kind::Map && header.cluster == ClusterId(0)));
        assert!(header.remaining_us > 0, "every request says how long it is waited for");
        let mut state = self.state();
        let result = match mood {
            Mood::Refusing(code) if matches!(kind, Kind::Read | Kind::Write) => {
                Err(ErrorBody::new(*code, "as the test says"))
            }
            _ => state.carry_out(node, kind, &body),
        };
        let (kind, body) = match result {
            Ok(body) => (header.kind | ANSWER, body),
            Err(error) => (KIND_ERROR, error.to_bytes()),
        };
        let cluster = if matches!(mood, Mood::Foreign) { ClusterId(99) } else { CLUSTER };
        let map_version = MapVersion(state.map_version);
        encode_frame(&FrameHeader { kind, request_id: header.request_id, cluster, map_version, remaining_us: 0 }, &body)
    }
}

impl State {
    fn carry_out(&mut self, node: u64, kind: Kind, body: &[u8]) -> Result<Vec<u8>, ErrorBody> {
        let known = |name: &str| name == "rank" || name == "product";
        let missing = || ErrorBody::new(ErrorCode::NotFound, "there is no such thing");
        match kind {
            Kind::Ping => Ok(Vec::new()),
            Kind::Map => Ok(map(self.map_version).to_bytes()),
            Kind::View => {
                let (_, request) = decode_request::<ViewRequest>(body)?;
                let answer = ViewAnswer { view: view(), groups: vec![household(), product()] };
                if known(&request.name) { Ok(answer.to_bytes()) } else { Err(missing()) }
            }
            Kind::Group => {
                let (_, request) = decode_request::<GroupRequest>(body)?;
                if known(&request.name) { Ok(product().to_bytes()) } else { Err(missing()) }
            }
            Kind::Read => {
                let (_, request) = decode_request::<ReadRequest>(body)?;
                let mut answer = AnswerWriter::default();
                let results: Vec<_> =
                    request.sections.iter().map(|section| self.read(node, &request, section, &mut answer)).collect();
                Ok(answer.finish(&results).into_body())
            }
            Kind::Write => {
                let (_, request) = decode_request::<WriteRequest>(body)?;
                self.write(node, request)
            }
            Kind::Session => {
                let (_, request) = decode_request::<SessionRequest>(body)?;
                let last = self.sessions.get(&(request.partition, request.session)).map_or(0, |(last, _)| *last);
                Ok(SessionAnswer { last, index: LogIndex(self.index) }.to_bytes())
            }
            Kind::Apply => {
                self.lead(node)?;
                self.map_version += 1;
                let answer = ApplyAnswer { version: MapVersion(self.map_version), created: 1, unchanged: 0 };
                Ok(answer.to_bytes())
            }
            other => Err(ErrorBody::new(ErrorCode::BadRequest, format!("{other:?} is not played here"))),
        }
    }

    fn lead(&self, node: u64) -> Result<(), ErrorBody> {
        if node == self.leader {
            return Ok(());
        }
        let mut error = ErrorBody::new(ErrorCode::NotLeader, "another leads");
        error.leader = (self.leader != 0).then_some(NodeId(self.leader));
        Err(error)
    }

    fn read(
        &mut self,
        node: u64,
        request: &ReadRequest,
        section: &ReadSection,
        answer: &mut AnswerWriter,
    ) -> SectionResult {
        if self.behind == Some(node) && section.at_least.0 > 0 {
            return SectionResult::Failed(ErrorBody::new(ErrorCode::NotCaughtUp, "as the test says"));
        }
        if self.hide_from == Some(node) {
            return SectionResult::Failed(ErrorBody::new(ErrorCode::NotHere, "it has moved"));
        }
        let keys = request.keys.range(section.first_key as usize, section.keys as usize);
        self.keys_read += keys.len();
        let projection = &request.projections[usize::from(section.projection)];
        let group = if projection.group.0 == 10 { household() } else { product() };
        let widened = self.widened.contains(&section.partition);
        let types = projection.features.iter().map(|&at| match group.features[usize::from(at)].ty {
            FeatureType::Int32 if widened => FeatureType::Int64,
            ty => ty,
        });
        let layout = BlockLayout::packed(types);
        let (block, mut rows) = answer.block(&layout, keys.len());
        for (at, key) in keys.iter().enumerate() {
            let Some(row) = self.rows.get(&(projection.group, key.to_vec())).copied() else { continue };
            rows.set_status(at, RowStatus::Found, i64::from(row) * 10);
            for (column, place) in layout.columns().iter().enumerate() {
                if place.ty == FeatureType::Int32 {
                    rows.set_value(at, column, &row.to_le_bytes());
                } else if place.ty == FeatureType::Int64 {
                    rows.set_value(at, column, &(i64::from(row) << 40).to_le_bytes());
                } else if row % 2 == 0 {
                    // Odd products have no name.
                    rows.set_value(at, column, format!("product {row}").as_bytes());
                }
            }
        }
        rows.finish();
        SectionResult::Rows(SectionHead {
            schema_version: if widened { self.widened_as } else { self.schema_version },
            applied: LogIndex(self.index),
            incarnation: 0,
            age: None,
            stale: false,
            block,
            first_row: 0,
            rows: keys.len() as u32,
        })
    }

    fn write(&mut self, node: u64, request: WriteRequest) -> Result<Vec<u8>, ErrorBody> {
        self.lead(node)?;
        if self.refuse_after.is_some_and(|batches| self.batches >= batches) {
            return Err(ErrorBody::new(ErrorCode::Forbidden, "enough"));
        }
        let batch = RowBatch::parse(request.batch.into())?;
        batch.check(&product(), i64::MAX)?;
        let mut repeated = false;
        if let Some(step) = request.step {
            let (last, content) = self.sessions.entry((request.partition, step.session)).or_default();
            repeated = step.sequence <= *last;
            if step.sequence < *last || (step.sequence == *last && content[..] != batch.bytes()[..]) {
                return Err(ErrorBody::new(ErrorCode::SessionConflict, "another batch has this number"));
            }
            if step.sequence > *last + 1 {
                return Err(ErrorBody::new(ErrorCode::SessionGap, format!("{} after {last}", step.sequence)));
            }
            if !repeated {
                (*last, *content) = (step.sequence, batch.bytes().to_vec());
            }
        }
        if !repeated {
            self.index += 1;
            self.batches += 1;
            let set = map(1).sets.remove(0);
            for row in 0..batch.rows() {
                let key = batch.key(row).to_vec();
                assert_eq!(set.partition_of(partition_hash(&key)).unwrap().id, request.partition);
                let value = batch.value(0, row).map_or(-1, |bytes| i32::from_le_bytes(bytes.try_into().unwrap()));
                self.rows.insert((batch.group(), key), value);
            }
        }
        let answer = WriteAnswer {
            index: LogIndex(self.index),
            incarnation: 0,
            applied: batch.rows() as u32,
            older: Vec::new(),
            repeated,
        };
        Ok(answer.to_bytes())
    }
}
