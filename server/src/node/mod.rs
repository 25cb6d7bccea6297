//! A node: its replicas, its copy of the root group's state, and the answers to every request. Generic over the outside
//! world, so that the simulator runs the same assembly as the real process.
//!
//! - [`preflight`]: whether the neighbours are of the same cluster, before any file is touched.
//! - [`strangers`]: the same, for as long as it is open after the start.
//! - [`identity`]: who this data directory is.
//! - [`bootstrap`]: the cluster is formed, the node joins.
//! - [`follow`]: the node's copy of the root state, in memory and on disk.
//! - [`damage`]: which replicas must not start, because the log may have lost what they promised.
//! - [`hosting`]: replicas are started, and their groups formed; replaced ones are stopped and erased.
//! - [`failures`]: replicas that do not start, and why.
//! - [`moves`]: replicas give their place to others.
//! - [`witness`]: nodes remember how far each other's logs reached, so that none comes back as an old image of itself.
//! - [`versions`]: the cluster comes to the version that all nodes speak.
//! - [`upkeep`]: replicas are taught their schema, brought up to date, their logs cut, their memory given back.
//! - [`memory`]: what it is used for, by group.
//! - [`requests`]: frames in, frames out; [`reads`] and [`writes`] do the work.
//! - [`clocks`]: the stamps of leaders, bounded by other nodes' calendars; [`sweeps`]: what expires, and what is removed.
//! - [`rounds`]: leaders are asked what is committed; [`freshness`]: how old what a replica serves may be.

pub mod bootstrap;
mod clocks;
mod cuts;
mod damage;
mod failures;
mod follow;
mod freshness;
pub mod hosting;
pub mod identity;
mod memory;
mod moves;
mod preflight;
pub mod reads;
pub mod requests;
mod rounds;
mod strangers;
mod sweeps;
mod upkeep;
mod versions;
mod witness;
pub mod writes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Bounded, Bounds, Channel, Clock, Disk, Entropy, Gauge, TaskGroup, Transport};
use stoa_protocol::limits::{NODES_MAX, SET_PARTITIONS_MAX, WRITER_SESSIONS_MAX};
use stoa_protocol::map::NodeInfo;
use stoa_protocol::message::LogHeight;
use stoa_protocol::{ClusterId, LogIndex, MapVersion, NodeId, PartitionId, ROOT_PARTITION};
use stoa_raft::root::{RootMachine, RootState};
use stoa_raft::wal::{RecoveredGroup, Wal, WalIdentity, WalOptions};
use stoa_raft::{
    NodeBudget, NodeContext, PartitionMachine, PartitionView, Peers, RaftTiming, Replica, ReplicaEnvironment, Vouched,
};
use tokio::sync::{Semaphore, watch};

use clocks::Clocks;
use damage::Damage;
use failures::Failure;
use freshness::Freshness;
use identity::{Identity, IdentityError};
use requests::ClientRequests;
use rounds::Rounds;
use strangers::Neighbours;
use witness::Witness;

/// The highest cluster version that this program speaks.
pub const CLUSTER_VERSION: u32 = stoa_raft::root::state::SPOKEN_VERSIONS.1;

/// What a node is told at its start.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node's number.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// The first members of the root group: three nodes in three zones.
    pub root: Vec<RootMember>,
    /// Partitions of the default set.
    pub partitions: u32,
    /// Nodes that must have joined before the default set is placed.
    pub nodes_expected: u32,
    /// The lowest and the highest cluster version that this node says it speaks: those of its program
    /// ([`stoa_raft::root::state::SPOKEN_VERSIONS`]), or fewer, to hold an upgrade back.
    pub versions: (u32, u32),
    /// Timing of replication.
    pub timing: RaftTiming,
    /// The log.
    pub wal: WalOptions,
    /// Bytes of one group's log after which a snapshot is taken.
    pub snapshot_log_bytes: u64,
    /// Bytes of all groups' logs together, that a start would have to apply, after which snapshots are taken.
    pub replay_log_bytes: u64,
    /// Bytes of rows, as the rows count them, that one partition takes; writes beyond are refused, reads go on.
    pub partition_bytes_max: u64,
}

/// A first member of the root group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootMember {
    /// Its number.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// The outside world of a node.
pub struct World<D, T> {
    /// Its data directory.
    pub disk: D,
    /// The way to other processes.
    pub transport: T,
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    /// Its chance.
    pub entropy: Arc<dyn Entropy>,
    /// Where all that it bounds is counted, that of disk and transport among it.
    pub bounds: Bounds,
}

/// Why a node does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory is of another node or cluster, or its identity is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be opened.
    #[error("the log cannot be opened: {0}")]
    Wal(#[from] stoa_raft::wal::WalError),
    /// Timing that contradicts itself.
    #[error("the timing of replication does not hold together: {0}")]
    Timing(#[from] stoa_raft::TimingError),
    /// A file of the data directory cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The log is gone, and the identity is not.
    #[error(
        "this data directory is that of node {node}, and its log is gone: what it promised is forgotten, so it must not \
         come back as itself; bring the log back, or empty the directory and give the node a new number"
    )]
    LogGone {
        /// The node.
        node: NodeId,
    },
    /// The identity is gone, and the log is not.
    #[error(
        "the identity is gone: this data directory has a log with what a node promised, and no file that says which node \
         that was; bring the file `identity` back, or empty the directory and give the node a new number"
    )]
    IdentityGone,
    /// At an earlier start the data directory was found to be an old image of itself.
    #[error("{why} (this was found at an earlier start; the file old-image says so, and goes with what it is about)")]
    FoundOld {
        /// What was found.
        why: String,
    },
    /// The data directory is an old image of itself.
    #[error(
        "this data directory of node {node} is an old copy of itself: its log reached {found} when it was opened, and node \
         {by} has seen it reach {seen}; what it has promised since is forgotten, so it must not come back as itself; bring \
         the newest copy back, or empty the directory and have the node built anew in it: stoa replica replace --node {node}"
    )]
    OldDisk {
        /// The node.
        node: NodeId,
        /// Who has seen more of it.
        by: NodeId,
        /// How far its log has reached.
        seen: LogHeight,
        /// How far it reaches.
        found: LogHeight,
    },
    /// The cluster is at a version that this node does not speak.
    #[error("{why}")]
    Version {
        /// Which, and what to do.
        why: String,
    },
    /// No other root node is of the same cluster as this one, as far as they answer.
    #[error(
        "no other root node that answers is of the same cluster as this one: {each}; all nodes must have certificates of one authority \
         (tls) and one cluster id (cluster.id)"
    )]
    Strangers {
        /// What each of them said.
        each: String,
    },
}

/// What a replica has to reach before it serves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Barrier {
    /// An index that the leader has confirmed, once known.
    pub index: Option<LogIndex>,
    /// When such an index was reached for the first time, and the time of the partition was not known.
    pub timeless: Option<BootTime>,
}

/// One partition's replica on this node.
pub struct Hosted<D: Disk> {
    /// The replica.
    pub replica: Arc<Replica<D, PartitionMachine>>,
    /// The rows.
    pub view: PartitionView,
    /// What it has to reach before it serves.
    pub(crate) barrier: Mutex<Barrier>,
    /// When it last followed a leader, in boot time; when it started, if it has not.
    pub(crate) followed: AtomicU64,
    /// How old what it serves may be.
    pub(crate) freshness: Freshness,
}

impl<D: Disk> Hosted<D> {
    pub(crate) fn new(
        replica: Arc<Replica<D, PartitionMachine>>,
        view: PartitionView,
        now: BootTime,
        gauges: &NodeGauges,
    ) -> Self {
        Self {
            replica,
            view,
            barrier: Mutex::default(),
            followed: AtomicU64::new(now.0),
            freshness: Freshness::new(gauges.awaited.clone()),
        }
    }

    /// Whether it has applied what its leader has confirmed since it started.
    #[cfg(test)]
    pub(crate) fn has_reached_barrier(&self) -> bool {
        self.replica.is_caught_up() || self.barrier.lock().unwrap_or_else(|e| e.into_inner()).timeless.is_some()
    }

    /// For how long it has followed no leader; zero if it leads.
    pub(crate) fn alone_for(&self, now: BootTime) -> Duration {
        if self.replica.leads() { Duration::ZERO } else { now.since(BootTime(self.followed.load(Ordering::Relaxed))) }
    }
}

/// Counts what a node bounds in many places.
#[derive(Debug)]
pub(crate) struct NodeGauges {
    /// Indices that a replica has yet to apply to know its age.
    pub awaited: Gauge,
    /// Writer sessions that a partition remembers.
    pub sessions: Gauge,
    /// Watches of the root state that this node has at others.
    pub watches: Gauge,
    /// Replicas of partitions.
    replicas: Gauge,
    /// Nodes whose addresses are known.
    addresses: Gauge,
    /// Nodes that vouch for this one.
    vouched: Gauge,
}

impl NodeGauges {
    fn new(bounds: &Bounds) -> Self {
        Self {
            awaited: bounds.gauge("answers of a leader that a replica has yet to apply", freshness::AWAITED_MAX as u64),
            sessions: bounds.gauge("writer sessions of a partition", WRITER_SESSIONS_MAX as u64),
            watches: bounds.node_gauge("watches of the root state at other nodes", NODES_MAX as u64),
            replicas: bounds.node_gauge("replicas of partitions", SET_PARTITIONS_MAX as u64),
            addresses: bounds.node_gauge("addresses of other nodes", NODES_MAX as u64),
            vouched: bounds.node_gauge("nodes that vouch for this one", NODES_MAX as u64),
        }
    }
}

/// A node.
pub struct Node<D: Disk, T: Transport> {
    pub(crate) options: NodeOptions,
    pub(crate) info: NodeInfo,
    pub(crate) env: ReplicaEnvironment<D, T>,
    pub(crate) root: RwLock<Option<Arc<Replica<D, RootMachine>>>>,
    pub(crate) state: watch::Sender<Arc<RootState>>,
    pub(crate) partitions: RwLock<BTreeMap<PartitionId, Arc<Hosted<D>>>>,
    pub(crate) rounds: Rounds,
    pub(crate) requests: ClientRequests,
    pub(crate) gauges: NodeGauges,
    pub(crate) recovered: Mutex<BTreeMap<u64, RecoveredGroup>>,
    pub(crate) failures: Mutex<BTreeMap<PartitionId, Failure>>,
    /// Why the cluster does not take this node with this data directory, if so.
    pub(crate) refused: Mutex<Option<String>>,
    /// Why no group may start that the log does not know, if so.
    lost: Option<String>,
    pub(crate) neighbours: Neighbours,
    pub(crate) witness: Witness,
    pub(crate) clocks: Clocks,
    pub(crate) fatal: watch::Sender<Option<String>>,
    tasks: TaskGroup,
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Opens the data directory, starts what it holds, and begins to find the others. The caller hands requests to
    /// [`Node::handle_frame`](requests) and watches [`Node::wait_fatal`].
    pub async fn start(options: NodeOptions, world: World<D, T>) -> Result<Arc<Self>, NodeError> {
        options.timing.check()?;
        let World { disk, transport, clock, entropy, bounds } = world;
        let mine =
            Identity { cluster: options.cluster, node: options.node, zone: options.zone.clone(), incarnation: 0 };
        // Read before the neighbours are asked: what can be seen here is named as what it is. Nothing is written yet.
        let (identity, existed) = Identity::load_or_create(&disk, mine, &*entropy).await?;
        let peers = Peers::new(transport, options.cluster);
        options.root.iter().for_each(|member| peers.learn(member.node, member.addr));
        preflight::check(&peers, &options.root, options.node).await?;
        let wal_identity = WalIdentity { cluster: options.cluster.0, node: options.node.0 };
        let wal_dir = PathBuf::from("wal");
        if existed && !has_segments(&disk, &wal_dir).await? {
            return Err(NodeError::LogGone { node: options.node });
        }
        // Before the log is: each start raises it.
        Witness::check(&disk).await?;
        let (wal, recovered) =
            Wal::open(disk.clone(), wal_dir, wal_identity, options.wal.clone(), clock.clone()).await?;
        // The identity is written after the log exists: a crash in between leaves a log that the next start adopts.
        if !existed {
            if !recovered.groups.is_empty() || !recovered.suspect.is_empty() || recovered.unattributed.is_some() {
                return Err(NodeError::IdentityGone);
            }
            identity.write(&disk).await?;
        }
        let damage = Damage::find(&disk, &recovered).await?;
        let witness = Witness::load(&disk, &bounds).await?;
        let cached = follow::load_state(&disk, options.cluster).await?;
        cached.map.nodes.iter().for_each(|node| peers.learn(node.id, node.addr));
        let env = ReplicaEnvironment {
            disk,
            snapshot_dir: PathBuf::from("snapshots"),
            wal,
            peers,
            vouched: Vouched::default(),
            context: NodeContext { clock, entropy, bounds: bounds.clone() },
            timing: options.timing,
            budget: NodeBudget::default(),
            // There is a turn when replicas have caught up.
            thawing: Arc::new(Semaphore::new(0)),
        };
        let info = NodeInfo {
            id: options.node,
            zone: options.zone.clone(),
            addr: options.advertise,
            incarnation: identity.incarnation,
        };
        let node = Arc::new(Self {
            failures: Mutex::new({ damage.groups }.into_iter().map(|(id, why)| (id, Failure::of_log(why))).collect()),
            refused: Mutex::default(),
            lost: damage.unknown,
            recovered: Mutex::new(recovered.groups),
            options,
            info,
            env,
            root: RwLock::new(None),
            state: watch::Sender::new(Arc::new(cached)),
            partitions: RwLock::default(),
            rounds: Rounds::new(&bounds),
            requests: ClientRequests::new(&bounds),
            gauges: NodeGauges::new(&bounds),
            neighbours: Neighbours::default(),
            witness,
            clocks: Clocks::new(&bounds),
            fatal: watch::Sender::new(None),
            tasks: TaskGroup::new(),
        });
        if let Some(why) = node.cannot_speak(&node.state()) {
            return Err(NodeError::Version { why });
        }
        node.spawn_vital("tell witnesses", witness::tell(Arc::downgrade(&node)));
        node.spawn_vital("write down sightings", witness::write_down(Arc::downgrade(&node)));
        node.spawn_vital("watch the log", watch_log(Arc::downgrade(&node), node.env.wal.clone()));
        if node.options.root.iter().any(|member| member.node == node.info.id) {
            node.start_root().await;
        }
        node.spawn_vital("host partitions", hosting::host_partitions(Arc::downgrade(&node)));
        node.spawn_vital("teach schemas", upkeep::teach_schemas(Arc::downgrade(&node)));
        node.spawn_vital("catch up", upkeep::catch_up(Arc::downgrade(&node)));
        node.spawn_vital("keep fresh", freshness::keep_fresh(Arc::downgrade(&node)));
        node.spawn_vital("hand over", upkeep::hand_over(Arc::downgrade(&node)));
        node.spawn_vital("ask for clocks", clocks::ask(Arc::downgrade(&node)));
        node.spawn_vital("sweep", sweeps::sweep(Arc::downgrade(&node)));
        node.spawn_vital("cut logs", cuts::cut_logs(Arc::downgrade(&node)));
        node.spawn_vital("tidy up", upkeep::tidy_up(Arc::downgrade(&node)));
        node.spawn_vital("look around", strangers::look_around(Arc::downgrade(&node)));
        node.spawn_vital("drive moves", moves::drive_moves(Arc::downgrade(&node)));
        node.spawn_vital("raise the version", versions::raise(Arc::downgrade(&node)));
        node.spawn_vital("join", bootstrap::join(Arc::downgrade(&node)));
        node.spawn_vital("follow the root state", follow::follow(Arc::downgrade(&node)));
        Ok(node)
    }

    /// Who this node is.
    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// The node's copy of the root group's state.
    pub fn state(&self) -> Arc<RootState> {
        self.state.borrow().clone()
    }

    /// What this node bounds, and the most of each that it has held since it started; of replicas, of what they remember, and
    /// of nodes that it knows, the most that was there when this was asked.
    pub fn bounds(&self) -> Vec<Bounded> {
        let all_hosted = self.all_hosted();
        self.gauges.replicas.note_len(all_hosted.len());
        for hosted in all_hosted {
            self.gauges.sessions.note_len(hosted.view.reader().sessions());
        }
        self.gauges.addresses.note_len(self.env.peers.known());
        self.gauges.vouched.note_len(self.env.vouched.count());
        let mut table = self.env.context.bounds.table();
        table.extend(self.env.wal.bounded());
        table
    }

    /// The version of the map that this node has.
    pub fn map_version(&self) -> MapVersion {
        self.state.borrow().map.version
    }

    /// The root group's replica on this node, if it hosts one.
    pub fn root_replica(&self) -> Option<Arc<Replica<D, RootMachine>>> {
        self.root.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Whether this node gets the root state by its own replica of the root group: one that works, is a member, and knows a
    /// leader. One that was replaced while it was down has none.
    pub(crate) fn has_root(&self) -> bool {
        let works = |root: &Replica<D, RootMachine>| root.trouble().is_none() && root.is_member();
        self.root_replica().is_some_and(|root| works(&root) && root.leader().is_some())
    }

    /// This node's replica of a partition.
    pub fn hosted(&self, partition: PartitionId) -> Option<Arc<Hosted<D>>> {
        self.partitions.read().unwrap_or_else(|e| e.into_inner()).get(&partition).cloned()
    }

    /// All replicas of partitions on this node.
    pub fn all_hosted(&self) -> Vec<Arc<Hosted<D>>> {
        self.partitions.read().unwrap_or_else(|e| e.into_inner()).values().cloned().collect()
    }

    /// Waits until the node cannot go on, and says why.
    pub async fn wait_fatal(&self) -> String {
        let mut watch = self.fatal.subscribe();
        loop {
            if let Some(why) = watch.borrow_and_update().clone() {
                return why;
            }
            if watch.changed().await.is_err() {
                return "the node has ended".into();
            }
        }
    }

    /// Ends the node: replicas first, then the log.
    pub async fn shutdown(&self) {
        self.tasks.abort_all();
        for hosted in self.all_hosted() {
            hosted.replica.shutdown().await;
        }
        if let Some(root) = self.root_replica() {
            root.shutdown().await;
        }
        if let Err(error) = self.env.wal.close().await {
            tracing::warn!(%error, "the log did not end cleanly");
        }
    }

    /// Spawns a task that the node cannot do without: if it panics, the node ends, and says so.
    pub(crate) fn spawn_vital<F>(self: &Arc<Self>, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let node = Arc::downgrade(self);
        self.tasks.spawn_vital(name, future, move |why| {
            if let Some(node) = node.upgrade() {
                node.fail(why);
            }
        });
    }

    /// Ends the node; the first reason counts.
    pub(crate) fn fail(&self, why: String) {
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                tracing::error!(why, "the node cannot go on");
                *fatal = Some(why);
            }
            first
        });
    }
}

/// Ends the node when its log has ended: after that it could still lead, and would refuse every write for ever.
async fn watch_log<D: Disk, T: Transport>(node: Weak<Node<D, T>>, wal: Wal) {
    let error = wal.ended().await;
    if let Some(node) = node.upgrade() {
        node.fail(error.to_string());
    }
}

/// Whether the log's directory holds any part of a log; what else lies there promises nothing. A directory that cannot be
/// looked into is not one without a log.
async fn has_segments<D: Disk>(disk: &D, wal_dir: &Path) -> Result<bool, NodeError> {
    let names = match disk.list(wal_dir).await {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(NodeError::Io { doing: format!("listing {}", wal_dir.display()), source }),
    };
    Ok(names.iter().any(|name| name.extension().is_some_and(|end| end == "wal")))
}

/// How long anything between nodes may take unless a caller's deadline is shorter.
pub(crate) const NODE_CALL_LIMIT: Duration = Duration::from_secs(2);

/// What another node may hold before it answers (watches, barriers, joins) goes by a channel on which no vote waits.
pub(crate) const HELD_CALLS: Channel = Channel::Client;

/// How often loops look again when nothing told them to.
pub(crate) const LOOP_PAUSE: Duration = Duration::from_millis(50);

impl<D: Disk, T: Transport> Node<D, T> {
    /// Starts this node's replica of the root group. If it cannot, the node goes on: it serves its partitions by its copy
    /// of the root state, and follows the root group as a node does that has no replica of it. For a reason that may pass it is
    /// tried again.
    async fn start_root(self: &Arc<Self>) {
        let Err(failure) = self.try_root().await else { return };
        tracing::error!("this node's replica of the root group is out; the node serves its partitions without it");
        if failure.may_pass_later() {
            self.spawn_vital("start the root replica again", failures::start_root_again(Arc::downgrade(self)));
        }
        self.fail_replica(ROOT_PARTITION, failure);
    }

    pub(crate) async fn try_root(self: &Arc<Self>) -> Result<(), Failure> {
        let (machine, watch) = RootMachine::new(self.options.cluster, self.options.versions.1);
        // A root replica's number is its node's incarnation, drawn at random with its data directory: a node whose data
        // is gone can never speak as the replica it was.
        let id = stoa_protocol::ReplicaId(self.info.incarnation);
        if let Some(why) = self.damaged(ROOT_PARTITION, false) {
            return Err(Failure::of_replica(id, why));
        }
        let mut recovered = self.recovered_of(ROOT_PARTITION);
        let replica = match Replica::start(&self.env, ROOT_PARTITION, id, machine, &mut recovered).await {
            Ok(replica) => replica,
            Err(error) => {
                self.keep_recovered(ROOT_PARTITION, recovered);
                return Err(Failure::of_start(id, &error, self.now()));
            }
        };
        self.forget_recovered(ROOT_PARTITION);
        *self.root.write().unwrap_or_else(|e| e.into_inner()) = Some(replica);
        self.spawn_vital("copy the root state", follow::copy(Arc::downgrade(self), watch));
        self.spawn_vital("form the cluster", bootstrap::form(Arc::downgrade(self)));
        Ok(())
    }
}
