//! What all handles of one client share: the transport, the map, what is known of the nodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{BootTime, Bounds, Clock, Entropy, Gauge, Peer, Transport, TransportError};
use stoa_protocol::ids::ROOT_PARTITION;
use stoa_protocol::limits::{NODES_MAX, SET_PARTITIONS_MAX};
use stoa_protocol::message::{Caller, Kind};
use stoa_protocol::{ClusterId, ClusterMap, MapVersion, NodeId, PartitionId, Wire};
use tokio::sync::{Notify, watch};

use crate::budget::{HEDGE_BURST, HedgeBudget};
use crate::error::CallError;
use crate::exchange::{Ask, exchange};
use crate::multi_get::{SECTION_ATTEMPTS_MAX, World};
use crate::peers::{PeerFailure, Peers};
use crate::retry::CALL_ATTEMPTS_MAX;
use crate::routes::Routes;

/// Reads of one client that are under way. A connection carries 256 at a time, and others wait for it: at a millisecond
/// each, 12,800 have their turn within the default deadline of 50 ms, and what is beyond would only be late. More are
/// refused with [`ReadError::Overloaded`](crate::ReadError::Overloaded).
pub const READS_MAX: u64 = 16_384;

/// Batches of one client that are under way: twice the partitions of the largest set, so that one that writes to all of
/// them, one batch after the other in each, has room. More are refused with
/// [`WriteError::Overloaded`](crate::WriteError::Overloaded).
pub const WRITES_MAX: u64 = 2 * SET_PARTITIONS_MAX as u64;

pub(crate) struct Shared<T> {
    pub(crate) transport: T,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) caller: Caller,
    cluster: ClusterId,
    zone: String,
    salt: u64,
    routes: watch::Sender<Arc<Routes>>,
    nodes: Mutex<NodesState>,
    leaders: Mutex<BTreeMap<PartitionId, NodeId>>,
    pub(crate) bounds: Bounds,
    pub(crate) gauges: Gauges,
    next_request: AtomicU64,
    map_wanted: AtomicU64,
    map_heard: AtomicU64,
    pub(crate) map_wanted_signal: Notify,
}

/// Counts what a client bounds.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(crate) reads: Gauge,
    pub(crate) writes: Gauge,
    /// Attempts of a call that looks for a leader.
    pub(crate) attempts: Gauge,
    /// Attempts at a section of a read.
    pub(crate) section_attempts: Gauge,
    hedges: Gauge,
    nodes: Gauge,
    unready: Gauge,
    leaders: Gauge,
}

impl Gauges {
    fn new(bounds: &Bounds) -> Self {
        // Those of a set, and the root group; voters of three zones, and one that is to replace another.
        let partitions = SET_PARTITIONS_MAX as u64 + 1;
        Self {
            reads: bounds.node_gauge("client: reads under way", READS_MAX),
            writes: bounds.node_gauge("client: writes under way", WRITES_MAX),
            attempts: bounds.gauge("client: attempts of a call", CALL_ATTEMPTS_MAX.into()),
            section_attempts: bounds.gauge("client: attempts at a section of a read", SECTION_ATTEMPTS_MAX.into()),
            hedges: bounds.node_gauge("client: hedges ahead of their share", HEDGE_BURST),
            nodes: bounds.node_gauge("client: nodes that are known", NODES_MAX as u64),
            unready: bounds.node_gauge("client: replicas that are asked last", 4 * partitions),
            leaders: bounds.node_gauge("client: leaders that are known", partitions),
        }
    }

    fn note_peers(&self, peers: &Peers) {
        self.nodes.note_len(peers.known());
        self.unready.note_len(peers.unready());
    }
}

#[derive(Default)]
pub(crate) struct NodesState {
    pub(crate) peers: Peers,
    pub(crate) budget: HedgeBudget,
}

impl<T: Transport> Shared<T> {
    pub(crate) fn new(
        transport: T,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        caller: Caller,
        zone: &str,
        map: ClusterMap,
        bounds: Bounds,
    ) -> Self {
        let salt = entropy.next_u64();
        Self {
            cluster: map.cluster,
            routes: watch::Sender::new(Arc::new(Routes::new(map, zone, salt))),
            next_request: AtomicU64::new(entropy.next_u64()),
            zone: zone.to_owned(),
            nodes: Mutex::default(),
            leaders: Mutex::default(),
            gauges: Gauges::new(&bounds),
            bounds,
            map_wanted: AtomicU64::new(0),
            map_heard: AtomicU64::new(0),
            map_wanted_signal: Notify::new(),
            transport,
            clock,
            entropy,
            caller,
            salt,
        }
    }

    pub(crate) fn now(&self) -> BootTime {
        self.clock.boot()
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.borrow().clone()
    }

    /// A receiver that sees every map from now on.
    pub(crate) fn watch_routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.subscribe()
    }

    pub(crate) fn nodes(&self) -> MutexGuard<'_, NodesState> {
        self.nodes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Runs a step of a state machine on what is known of the nodes.
    pub(crate) fn step<R>(&self, routes: &Routes, step: impl FnOnce(&mut World<'_>) -> R) -> R {
        let random = self.entropy.next_u64();
        let mut nodes = self.nodes();
        let NodesState { peers, budget } = &mut *nodes;
        let stepped = step(&mut World { routes, peers, budget, random });
        self.gauges.hedges.note(nodes.budget.spent());
        self.gauges.note_peers(&nodes.peers);
        stepped
    }

    /// The bytes of a request: who asks, then what.
    pub(crate) fn body<R: Wire>(&self, request: &R) -> Vec<u8> {
        stoa_protocol::message::encode_request(&self.caller, request)
    }

    /// One request to one node, without a second try. Notes what the answer tells of the map; what it tells of the node
    /// is the caller's to note.
    pub(crate) async fn call(
        &self,
        to: Peer,
        kind: Kind,
        body: &[u8],
        limit: Duration,
    ) -> Result<(MapVersion, Bytes), CallError> {
        self.call_for(to, kind, body, limit, None).await
    }

    /// As [`Shared::call`]; the node may work on it for `remaining`, if that is less.
    pub(crate) async fn call_for(
        &self,
        to: Peer,
        kind: Kind,
        body: &[u8],
        limit: Duration,
        remaining: Option<Duration>,
    ) -> Result<(MapVersion, Bytes), CallError> {
        let map_version = self.routes.borrow().map().version;
        let request_id = self.next_request.fetch_add(1, Ordering::Relaxed);
        // The newest version this client has heard of: a node that is behind it waits, rather than deny what was defined.
        let heard = MapVersion(map_version.0.max(self.map_heard.load(Ordering::Relaxed)));
        let ask = Ask { kind, request_id, cluster: self.cluster, map_version: heard, remaining };
        let result = exchange(&self.transport, to, ask, body, limit).await;
        let seen = match &result {
            Ok((header, _)) => header.map_version,
            Err(CallError::Refused { error, .. }) => error.map_version,
            Err(_) => MapVersion(0),
        };
        if seen > map_version {
            self.hear_of_map(seen);
        }
        result.map(|(header, body)| (header.map_version, body))
    }

    /// As [`Shared::call`], and what came of it is noted for the node.
    pub(crate) async fn call_node(
        &self,
        node: NodeId,
        to: Peer,
        kind: Kind,
        body: &[u8],
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let sent = self.now();
        let result = self.call(to, kind, body, limit).await;
        let now = self.now();
        let mut nodes = self.nodes();
        match &result {
            Ok(_)
            | Err(
                CallError::Refused { .. }
                | CallError::Transport(TransportError::NoRoom { .. } | TransportError::AnswerDropped { .. }),
            ) => nodes.peers.on_heard(node, now),
            Err(error) => {
                if let Some(failure) = peer_failure(error) {
                    nodes.peers.on_failure(node, sent, failure, now);
                }
            }
        }
        result.map(|(_, body)| body)
    }

    /// Notes a version that exists: nodes that are behind it must wait, and the housekeeper fetches it.
    pub(crate) fn hear_of_map(&self, version: MapVersion) {
        self.map_heard.fetch_max(version.0, Ordering::Relaxed);
        self.want_map(version);
    }

    /// Asks for a map of at least this version, which may not exist yet.
    pub(crate) fn want_map(&self, at_least: MapVersion) {
        if self.map_wanted.fetch_max(at_least.0, Ordering::Relaxed) < at_least.0
            || self.routes.borrow().map().version < at_least
        {
            self.map_wanted_signal.notify_one();
        }
    }

    /// Whether somebody has seen, or needs, a newer map than there is.
    pub(crate) fn map_is_wanted(&self) -> bool {
        self.routes.borrow().map().version.0 < self.map_wanted.load(Ordering::Relaxed)
    }

    /// Takes a map, unless it is older than the present one or of another cluster.
    pub(crate) fn take_map(&self, map: ClusterMap) {
        if map.cluster != self.cluster {
            return;
        }
        let new = Arc::new(Routes::new(map, &self.zone, self.salt));
        // Compared under the lock: two fetches may end in either order.
        let taken = self.routes.send_if_modified(|present| {
            let newer = new.map().version > present.map().version;
            if newer {
                *present = new.clone();
            }
            newer
        });
        if taken {
            let map = new.map();
            self.nodes().peers.retain(|node| map.node(node).is_some());
            self.leaders().retain(|partition, node| {
                (*partition == ROOT_PARTITION || !new.of(*partition).is_empty()) && map.node(*node).is_some()
            });
        }
    }

    /// The last known leader of each partition. Bounded by the partitions of the map.
    pub(crate) fn leaders(&self) -> MutexGuard<'_, BTreeMap<PartitionId, NodeId>> {
        self.leaders.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes who leads a partition.
    pub(crate) fn set_leader(&self, partition: PartitionId, leader: NodeId) {
        let mut leaders = self.leaders();
        leaders.insert(partition, leader);
        self.gauges.leaders.note_len(leaders.len());
    }
}

/// What a failed call says of the node; `None` if nothing.
pub(crate) fn peer_failure(error: &CallError) -> Option<PeerFailure> {
    match error {
        CallError::Transport(TransportError::TimedOut { .. }) => Some(PeerFailure::Silent),
        CallError::Transport(
            TransportError::TooLarge { .. } | TransportError::NoRoom { .. } | TransportError::AnswerDropped { .. },
        )
        | CallError::TooLarge { .. } => None,
        CallError::Transport(_) => Some(PeerFailure::Connection),
        CallError::Frame { .. } | CallError::Unfit { .. } => Some(PeerFailure::Garbled),
        CallError::Refused { .. } | CallError::WrongCluster { .. } => None,
    }
}
