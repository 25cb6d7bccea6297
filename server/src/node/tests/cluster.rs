//! Whole nodes over a network in memory that can be cut, and that remembers what went over which channel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{
    BootTime, Bounds, Channel, Clock, Handler, OsEntropy, Peer, PeerIdentity, RealClock, RealDisk, Transport,
    TransportError, WallTime,
};
use stoa_protocol::frame::decode_frame;
use stoa_protocol::message::Kind;
use stoa_protocol::{ClusterId, NodeId, PartitionId};
use stoa_raft::RaftTiming;
use stoa_raft::root::state::SPOKEN_VERSIONS;
use stoa_raft::wal::WalOptions;

use crate::node::{Node, NodeError, NodeOptions, RootMember, World};

pub(super) type TestNode = Node<RealDisk, MemoryTransport>;

pub(super) const CLUSTER: ClusterId = ClusterId(0x17);

/// Far above what anything here takes: a machine that is busy must not fail a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a node listens, in the network of these tests.
pub(super) fn addr(node: u64) -> SocketAddr {
    ([127, 0, 0, 1], 7_000 + node as u16).into()
}

/// Waits until `holds`.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}

/// Waits until the node cannot go on, and says why.
pub(super) async fn end_of(node: &TestNode) -> String {
    tokio::time::timeout(PATIENCE, node.wait_fatal()).await.expect("the node goes on as if nothing were wrong")
}

#[derive(Default)]
struct NetState {
    nodes: BTreeMap<SocketAddr, Weak<TestNode>>,
    cut: BTreeSet<(u64, u64)>,
    dropped: BTreeSet<(u64, u16)>,
    strangers: BTreeSet<u64>,
    silenced: BTreeSet<PartitionId>,
    seen: BTreeSet<(Channel, u16)>,
}

/// The network.
#[derive(Default)]
pub(super) struct Net(Mutex<NetState>);

impl Net {
    fn lock(&self) -> MutexGuard<'_, NetState> {
        self.0.lock().unwrap()
    }

    /// Cuts all ways between two nodes: what is sent is lost without a sign.
    pub(super) fn cut(&self, one: u64, other: u64) {
        self.lock().cut.extend([(one, other), (other, one)]);
    }

    /// Loses all requests of a kind that a node sends.
    pub(super) fn lose(&self, from: u64, kind: Kind) {
        self.lock().dropped.insert((from, kind as u16));
    }

    /// Loses nothing more of what [`lose`](Self::lose) was asked for.
    pub(super) fn lose_nothing_more(&self) {
        self.lock().dropped.clear();
    }

    /// A node whose certificate the others do not accept, nor it theirs.
    pub(super) fn estrange(&self, node: u64) {
        self.lock().strangers.insert(node);
    }

    /// Loses all that replicas of a partition say to each other.
    pub(super) fn silence(&self, partition: PartitionId) {
        self.lock().silenced.insert(partition);
    }

    /// The channels over which requests of a kind went.
    pub(super) fn channels_of(&self, kind: Kind) -> BTreeSet<Channel> {
        self.lock().seen.iter().filter(|(_, seen)| *seen == kind as u16).map(|(channel, _)| *channel).collect()
    }
}

/// One node's way into the network.
#[derive(Clone)]
pub(super) struct MemoryTransport {
    net: Arc<Net>,
    me: u64,
}

enum Route {
    Lost,
    Nobody,
    Stranger,
    Node(Arc<TestNode>),
}

impl MemoryTransport {
    fn route(&self, to: Peer, channel: Channel, request: &Bytes) -> Route {
        let mut net = self.net.lock();
        let (kind, body) = decode_frame(request).map(|(header, body)| (header.kind, body)).unwrap_or_default();
        net.seen.insert((channel, kind));
        let Some(node) = net.nodes.get(&to.addr).and_then(Weak::upgrade) else { return Route::Nobody };
        let id = node.info().id.0;
        if net.cut.contains(&(self.me, id)) || net.dropped.contains(&(self.me, kind)) {
            return Route::Lost;
        }
        let partition = (kind == Kind::Raft as u16).then(|| stoa_raft::open_envelope(&body).unwrap().0.partition);
        if partition.is_some_and(|partition| net.silenced.contains(&partition)) {
            return Route::Lost;
        }
        let strange = net.strangers.contains(&id) != net.strangers.contains(&self.me);
        if strange || to.node.is_some_and(|wanted| wanted != id) {
            return Route::Stranger;
        }
        Route::Node(node)
    }
}

impl Transport for MemoryTransport {
    async fn call(&self, to: Peer, channel: Channel, request: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        let addr = to.addr;
        let node = match self.route(to, channel, &request) {
            Route::Node(node) => node,
            Route::Nobody => return Err(TransportError::NotSent { addr, reason: "nobody listens".into() }),
            Route::Stranger => return Err(TransportError::Untrusted { addr, reason: "another authority's".into() }),
            Route::Lost => {
                tokio::time::sleep(limit).await;
                return Err(TransportError::TimedOut { addr, limit });
            }
        };
        // A task of its own, as in the real transport: a caller that gives up does not end what it asked for.
        let from = Arc::new(PeerIdentity::Node(self.me));
        let answering = stoa_env::spawn("handler", node.handle(from, channel, request));
        match tokio::time::timeout(limit, answering).await {
            Ok(Ok(Some(answer))) if !answer.is_empty() => Ok(answer),
            Ok(_) => Err(TransportError::Broken { addr, reason: "no answer".into() }),
            Err(_) => Err(TransportError::TimedOut { addr, limit }),
        }
    }
}

/// The kernel's clocks, with a calendar that is by so many microseconds ahead.
struct AheadClock(i64);

impl Clock for AheadClock {
    fn boot(&self) -> BootTime {
        RealClock.boot()
    }
    fn wall(&self) -> WallTime {
        WallTime(RealClock.wall().0 + self.0)
    }
}

/// Nodes 1, 2 and 3 in zones a, b and c, the first members; a node 4 in zone a, 5 in b, and so on.
pub(super) struct Cluster {
    pub net: Arc<Net>,
    pub partitions: u32,
    pub nodes_expected: u32,
    /// By how many microseconds calendars of nodes are ahead.
    pub calendars: BTreeMap<u64, i64>,
    dirs: BTreeMap<u64, tempfile::TempDir>,
    nodes: BTreeMap<u64, Arc<TestNode>>,
}

impl Cluster {
    /// No node runs yet.
    pub(super) fn new(partitions: u32, nodes_expected: u32) -> Self {
        let (calendars, dirs, nodes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { net: Arc::default(), partitions, nodes_expected, calendars, dirs, nodes }
    }

    /// Nodes 1 to `nodes`, formed, and every partition served by all its replicas.
    pub(super) async fn formed(partitions: u32, nodes: u32) -> Self {
        let mut cluster = Self::new(partitions, nodes);
        for node in 1..=u64::from(nodes) {
            cluster.start(node).await;
        }
        cluster.settle().await;
        cluster
    }

    /// A way into the network, with the rights of a node.
    pub(super) fn transport(&self, me: u64) -> MemoryTransport {
        MemoryTransport { net: self.net.clone(), me }
    }

    /// Waits until every replica that is placed on a running node serves, and the cluster is at the version that all speak.
    pub(super) async fn settle(&self) {
        until("every replica serves", || {
            self.nodes.values().all(|node| {
                let state = node.state();
                let placed = state
                    .map
                    .sets
                    .iter()
                    .flat_map(|set| &set.partitions)
                    .filter(|p| p.replicas.iter().any(|replica| replica.node == node.info().id));
                let told = state.spoken_by(node.info().id) == Some(node.options.versions);
                told && state.version_ahead().is_none() && !state.map.sets.is_empty() && { placed }
                    .all(|p| node.hosted(p.id).is_some_and(|hosted| hosted.replica.is_caught_up()))
            })
        })
        .await;
    }

    /// A node's options.
    pub(super) fn options(&self, node: u64) -> NodeOptions {
        let zone = |node: u64| ["a", "b", "c"][(node as usize - 1) % 3].to_owned();
        NodeOptions {
            cluster: CLUSTER,
            node: NodeId(node),
            zone: zone(node),
            advertise: addr(node),
            root: (1..=3).map(|n| RootMember { node: NodeId(n), zone: zone(n), addr: addr(n) }).collect(),
            partitions: self.partitions,
            nodes_expected: self.nodes_expected,
            versions: SPOKEN_VERSIONS,
            timing: RaftTiming::default(),
            wal: WalOptions { segment_bytes: 64 << 10, reserve_bytes: 0, ..WalOptions::default() },
            snapshot_log_bytes: 1 << 20,
            replay_log_bytes: 4 << 20,
            partition_bytes_max: 1 << 30,
        }
    }

    /// A node's data directory.
    pub(super) fn dir(&mut self, node: u64) -> PathBuf {
        self.dirs.entry(node).or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned()
    }

    /// Starts a node, on what its directory holds.
    pub(super) async fn try_start(&mut self, node: u64) -> Result<Arc<TestNode>, NodeError> {
        self.start_with(self.options(node)).await
    }

    /// Starts a node with options of its own.
    pub(super) async fn start_with(&mut self, options: NodeOptions) -> Result<Arc<TestNode>, NodeError> {
        let node = options.node.0;
        let world = World {
            disk: RealDisk::new(&self.dir(node)).unwrap(),
            transport: MemoryTransport { net: self.net.clone(), me: node },
            clock: Arc::new(AheadClock(self.calendars.get(&node).copied().unwrap_or(0))),
            entropy: Arc::new(OsEntropy),
            bounds: Bounds::default(),
        };
        let started = Node::start(options, world).await?;
        self.net.lock().nodes.insert(addr(node), Arc::downgrade(&started));
        self.nodes.insert(node, started.clone());
        Ok(started)
    }

    /// As [`Cluster::try_start`], of a node that can start.
    pub(super) async fn start(&mut self, node: u64) -> Arc<TestNode> {
        self.try_start(node).await.unwrap()
    }

    /// Ends a node; its files stay.
    pub(super) async fn stop(&mut self, node: u64) {
        self.net.lock().nodes.remove(&addr(node));
        if let Some(node) = self.nodes.remove(&node) {
            node.shutdown().await;
        }
    }

    /// Ends a node and removes its files.
    pub(super) async fn wipe(&mut self, node: u64) {
        self.stop(node).await;
        self.dirs.remove(&node);
    }

    /// Whether a node runs.
    pub(super) fn runs(&self, node: u64) -> bool {
        self.nodes.contains_key(&node)
    }

    /// A running node.
    pub(super) fn node(&self, node: u64) -> Arc<TestNode> {
        self.nodes[&node].clone()
    }

    /// The running node that leads the root group.
    pub(super) async fn root_leader(&self) -> Arc<TestNode> {
        let leader = || self.nodes.values().find(|node| node.root_replica().is_some_and(|root| root.leads())).cloned();
        until("the root group has a leader", || leader().is_some()).await;
        leader().expect("it was there a line ago")
    }
}
