//! Replicas of one group on simulated disks, in one thread and in tokio's paused time, with a network that can be cut,
//! be slow and lose messages.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{BootTime, Bounds, Channel, Clock, Entropy, Peer, Transport, TransportError, WallTime};
use stoa_protocol::codec::DecodeError;
use stoa_protocol::frame::{FrameHeader, decode_frame, encode_frame};
use stoa_protocol::message::ANSWER;
use stoa_protocol::{ClusterId, LogIndex, MapVersion, NodeId, PartitionId, ReplicaId};
use stoa_raft::wal::{Wal, WalIdentity, WalOptions};
use stoa_raft::{
    ApplyError, CutBounds, Envelope, Machine, NodeBudget, NodeContext, Peers, RaftCall, RaftTiming, Replica,
    ReplicaEnvironment, Reply, SnapshotChunk, SnapshotEnds, SnapshotPart, Vouched, open_envelope, open_message, seal,
};
use stoa_sim::disk::SimDisk;

pub const CLUSTER: ClusterId = ClusterId(0xc1);
pub const GROUP: PartitionId = PartitionId(7);
pub const LIMIT: Duration = Duration::from_secs(10);

/// Runs a life of all processes: when the future is done, their tasks die without notice.
pub fn life<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// tokio's paused time as a node's clock.
pub struct PausedClock;

impl Clock for PausedClock {
    #[allow(clippy::disallowed_methods)] // the simulation's time is tokio's
    fn boot(&self) -> BootTime {
        static BASE: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
        let now = tokio::time::Instant::now();
        BootTime(1 << 50).plus(now.saturating_duration_since(*BASE.get_or_init(|| now)))
    }
    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

/// Numbers from a counter.
pub struct Counted(Mutex<u64>);

impl Entropy for Counted {
    fn next_u64(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

pub fn context(seed: u64) -> NodeContext {
    NodeContext {
        clock: Arc::new(PausedClock),
        entropy: Arc::new(Counted(Mutex::new(seed))),
        bounds: Bounds::default(),
    }
}

/// Counts commands and sums them up in their order. A command that begins with `B` also makes its second byte the
/// number of MiB that the machine's snapshot has beside that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tape {
    pub count: u64,
    pub sum: u64,
    pub mib: u8,
}

impl Tape {
    fn blob(&self) -> Bytes {
        Bytes::from(vec![self.count as u8; usize::from(self.mib) << 20])
    }
}

impl Machine for Tape {
    fn apply(&mut self, _index: LogIndex, command: &Bytes) -> Result<Bytes, ApplyError> {
        if command[..] == b"UNREADABLE"[..] {
            return Err(ApplyError::Unreadable(DecodeError::invalid("a command", "UNREADABLE", "any other")));
        }
        self.count += 1;
        self.sum = command.iter().fold(self.sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        assert!(command[..] != b"PANIC"[..], "a command that panics");
        if let [b'B', mib, ..] = command[..] {
            self.mib = mib;
        }
        Ok(Bytes::new())
    }
    fn skip(&mut self, _index: LogIndex) {}
    fn snapshot(&self, _base: Option<&SnapshotEnds>) -> Box<dyn Iterator<Item = std::io::Result<SnapshotPart>> + Send> {
        let mut head = self.count.to_le_bytes().to_vec();
        head.extend_from_slice(&self.sum.to_le_bytes());
        head.push(self.mib);
        let blob = (self.mib > 0).then(|| self.blob());
        Box::new([Some(Bytes::from(head)), blob].into_iter().flatten().map(|chunk| Ok(SnapshotPart::Chunk(chunk))))
    }
    fn restore(&mut self, chunks: Vec<SnapshotChunk>) -> std::io::Result<()> {
        let chunks: Vec<Bytes> = chunks.into_iter().map(|chunk| chunk.bytes).collect();
        let number = |at: usize| u64::from_le_bytes(chunks[0][at..at + 8].try_into().unwrap());
        let tape = Self { count: number(0), sum: number(8), mib: chunks[0][16] };
        let blob: Vec<Bytes> = (tape.mib > 0).then(|| tape.blob()).into_iter().collect();
        assert_eq!(blob, chunks[1..], "the machine's chunks come back as it made them");
        *self = tape;
        Ok(())
    }
}

pub type Member = Arc<Replica<SimDisk, Tape>>;

#[derive(Default)]
struct State {
    replicas: BTreeMap<u64, Member>,
    cut: BTreeSet<u64>,
    bytes_a_second: Option<u64>,
    lose: BTreeMap<&'static str, (u32, u32)>,
    calls: BTreeMap<&'static str, u32>,
}

/// The network; clones are the same. A node's number is its replica's, and its port.
#[derive(Clone, Default)]
pub struct Net {
    state: Arc<Mutex<State>>,
}

fn name(call: &RaftCall) -> &'static str {
    match call {
        RaftCall::Append(request) if request.entries.is_empty() => "heartbeat",
        RaftCall::Append(_) => "append",
        RaftCall::Vote(_) => "vote",
        RaftCall::PreVote(_) => "pre-vote",
        RaftCall::Transfer(_) => "transfer",
        RaftCall::SnapshotBegin { .. } => "begin",
        RaftCall::SnapshotChunk { .. } => "chunk",
        RaftCall::SnapshotEnd { .. } => "end",
    }
}

impl Net {
    /// Takes a node off the network, or back.
    pub fn cut(&self, node: u64, cut: bool) {
        let mut state = self.state.lock().unwrap();
        if cut {
            state.cut.insert(node)
        } else {
            state.cut.remove(&node)
        };
    }

    /// How fast every link is.
    pub fn set_speed(&self, bytes_a_second: Option<u64>) {
        self.state.lock().unwrap().bytes_a_second = bytes_a_second;
    }

    /// Loses the answers to `count` calls of a name, after `skip` more have passed.
    pub fn lose(&self, call: &'static str, skip: u32, count: u32) {
        self.state.lock().unwrap().lose.insert(call, (skip, count));
    }

    /// Calls of a name so far.
    pub fn calls(&self, call: &'static str) -> u32 {
        self.state.lock().unwrap().calls.get(call).copied().unwrap_or(0)
    }

    async fn carry(&self, to: u64, request: &Bytes) -> Option<Bytes> {
        let (header, body) = decode_frame(request).unwrap();
        let (envelope, message) = open_envelope(&body).unwrap();
        let call: RaftCall = open_message(&message).unwrap();
        let name = name(&call);
        let (replica, speed) = {
            let mut state = self.state.lock().unwrap();
            *state.calls.entry(name).or_default() += 1;
            if [to, envelope.from.0].iter().any(|node| state.cut.contains(node)) {
                return None;
            }
            (state.replicas.get(&to).cloned()?, state.bytes_a_second)
        };
        if let Some(speed) = speed {
            tokio::time::sleep(Duration::from_micros(request.len() as u64 * 1_000_000 / speed)).await;
        }
        let answer = replica.handle(call).await;
        {
            let mut state = self.state.lock().unwrap();
            match state.lose.get_mut(name) {
                Some((skip, _)) if *skip > 0 => *skip -= 1,
                Some((_, left)) if *left > 0 => {
                    *left -= 1;
                    return None;
                }
                _ => {}
            }
        }
        let back = Envelope { partition: envelope.partition, to: envelope.from, from: envelope.to };
        let header = FrameHeader {
            kind: header.kind | ANSWER,
            request_id: header.request_id,
            cluster: CLUSTER,
            map_version: MapVersion(0),
            remaining_us: 0,
        };
        Some(encode_frame(&header, &seal(&back, &answer)))
    }
}

impl Transport for Net {
    async fn call(&self, to: Peer, _: Channel, request: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        let late = TransportError::TimedOut { addr: to.addr, limit };
        let carried = async {
            match self.carry(u64::from(to.addr.port()), &request).await {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        };
        tokio::time::timeout(limit, carried).await.map_err(|_| late)
    }
}

pub fn wal_options() -> WalOptions {
    WalOptions {
        segment_bytes: 64 << 10,
        queue_bytes: 1 << 20,
        round_bytes: 256 << 10,
        max_live_bytes: 64 << 20,
        reserve_bytes: 0,
    }
}

/// So much after a snapshot and so much behind it, and no follower that is waited for.
pub fn bounds(after_max: u64, kept_max: u64) -> CutBounds {
    CutBounds { after_max, kept_max, lagging_max: 0 }
}

/// One process of the group.
pub struct Process {
    pub disk: SimDisk,
    pub wal: Wal,
    pub env: ReplicaEnvironment<SimDisk, Net>,
}

impl Process {
    pub async fn open(
        disk: &SimDisk,
        net: &Net,
        node: u64,
        options: WalOptions,
    ) -> std::io::Result<(Self, stoa_raft::wal::Recovered)> {
        let identity = WalIdentity { cluster: CLUSTER.0, node };
        let clock = Arc::new(PausedClock);
        let (wal, recovered) = Wal::open(disk.clone(), PathBuf::from("wal"), identity, options, clock)
            .await
            .map_err(std::io::Error::other)?;
        let peers = Peers::new(net.clone(), CLUSTER);
        let vouched = Vouched::default();
        for other in 1..=3u64 {
            peers.learn(NodeId(other), SocketAddr::from(([127, 0, 0, 1], other as u16)));
            vouched.add(NodeId(other));
        }
        let env = ReplicaEnvironment {
            disk: disk.clone(),
            snapshot_dir: PathBuf::from("snapshots"),
            wal: wal.clone(),
            peers,
            vouched,
            context: context(node),
            timing: RaftTiming::default(),
            budget: NodeBudget::default(),
            thawing: std::sync::Arc::new(tokio::sync::Semaphore::new(1)),
        };
        Ok((Self { disk: disk.clone(), wal, env }, recovered))
    }

    pub async fn start(&self, node: u64, recovered: stoa_raft::wal::Recovered) -> std::io::Result<Member> {
        let mut groups = recovered.groups;
        let mut group = groups.remove(&GROUP.0).unwrap_or_default();
        self.start_on(node, &mut group).await
    }

    /// Starts the replica; a start that fails leaves in `group` what the next one in this process begins with.
    pub async fn start_on(&self, node: u64, group: &mut stoa_raft::wal::RecoveredGroup) -> std::io::Result<Member> {
        Replica::start(&self.env, GROUP, ReplicaId(node), Tape::default(), group).await
    }
}

/// Opens the log and starts the replica on a disk.
pub async fn start(disk: &SimDisk, net: &Net, node: u64, options: WalOptions) -> std::io::Result<(Process, Member)> {
    let (process, recovered) = Process::open(disk, net, node, options).await?;
    let member = process.start(node, recovered).await?;
    net.state.lock().unwrap().replicas.insert(node, member.clone());
    Ok((process, member))
}

/// Starts and forms a group of as many replicas as there are disks, and waits for its leader.
pub async fn group(disks: &[SimDisk], net: &Net, options: &WalOptions) -> Vec<(Process, Member)> {
    let mut all = Vec::new();
    for (disk, node) in disks.iter().zip(1..) {
        all.push(start(disk, net, node, options.clone()).await.unwrap());
    }
    let members: Vec<_> = (1..=disks.len() as u64).map(|n| (ReplicaId(n), NodeId(n))).collect();
    all[0].1.form(&members).await.unwrap();
    until("a leader", || all.iter().any(|(_, member)| member.leads())).await;
    // It takes proposals once a quorum has acknowledged it.
    while leader(&all).barrier(LIMIT).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    all
}

/// Polls until it is so, a minute of the simulation's time at the most.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never came: {what}");
}

pub fn leader(all: &[(Process, Member)]) -> Member {
    all.iter().map(|(_, member)| member).find(|member| member.leads()).expect("there is a leader").clone()
}

/// Proposes until it is taken, a minute at the most.
pub async fn write(member: &Member, command: impl Into<Bytes>) -> Reply {
    let command = command.into();
    for _ in 0..6_000 {
        match member.propose(command.clone(), LIMIT).await {
            Ok(reply) => return reply,
            Err(error) if error.code.class() == stoa_protocol::ErrorClass::Retry => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a write was never taken");
}

pub async fn tape(member: &Member) -> Tape {
    member.ask_machine(|tape| tape.clone()).await.unwrap()
}

/// Waits until a replica has applied as many commands as that.
pub async fn applied(member: &Member, count: u64) {
    for _ in 0..60_000 {
        if tape(member).await.count >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never applied {count} commands: {:?}, {:?}", tape(member).await, member.status());
}

pub fn seeded(seed: u64) -> impl FnMut(u64) -> u64 {
    let entropy = Counted(Mutex::new(seed));
    move |n| entropy.next_u64() % n
}
