//! openraft's calls to other replicas. Each ends by its limit; a lost call is a network error, not an unreachable peer,
//! since that would begin a back-off of 200 ms.
//!
//! **How long an append may take.** openraft gives every append one heartbeat interval (100 ms), which 4 MiB of entries do
//! not meet on a slow link or a busy device; sent again whole they would miss it again, for ever. So appends that carry
//! entries have a limit of their own, and a size that follows what goes through:
//! - Heartbeats keep openraft's limit. They go by a connection and by tasks of their own, and they alone keep the lease:
//!   a slow append delays no election and no lease.
//! - An append has the heartbeat interval and the time that its bytes take at [`APPEND_RATE_MIN`]. A lost call of few
//!   bytes is still noticed within about a heartbeat; nothing waits on it but this follower's own replication, which
//!   openraft cancels if leadership ends.
//! - Its bytes are at most a window, which begins small, doubles with each success and halves with each failure, down to
//!   one entry. So a link that is slower than the rate moves one entry at a time, as long as that fits its limit: an
//!   entry of 2 MiB needs 1 MiB/s.
//!
//! What does not fit the window is answered as a partial success, after which openraft sends the rest.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, Snapshot};
use stoa_env::{Bounds, Channel, Disk, Gauge, Transport, planted};
use stoa_protocol::message::Kind;
use stoa_protocol::{NodeId, PartitionId, ReplicaId};

use crate::envelope::{Envelope, RaftAnswer, RaftCall, open_envelope, open_message, seal};
use crate::log::REPLICATION_BYTES_MAX;
use crate::peers::Peers;
use crate::snapshots::SnapshotHandle;
use crate::types::{Command, Entry, LogId, Member, StoaTypes, Vote, encode_snapshot_meta};
use crate::vouched::Vouched;

/// What openraft is told that a snapshot's parts take; the limits are ours ([`transfer_limit`]).
pub const SNAPSHOT_CHUNK_LIMIT: Duration = Duration::from_secs(10);

/// How long the sender waits for the install at the end before it asks anew: its answer may be lost. The receiver goes on with
/// the install meanwhile, and answers the new question when that is done.
const SNAPSHOT_INSTALL_LIMIT: Duration = Duration::from_secs(3);

/// How often one chunk is sent before the transfer is given up, and with it, if the leader has a newer snapshot by then,
/// all that has been sent.
const CHUNK_ATTEMPTS: u32 = 8;

/// The pause before a chunk is sent again; it doubles with each attempt, to [`CHUNK_PAUSE_MAX`].
const CHUNK_PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause. Most that is sent again was lost to a restart, and a node that is back waits for this.
const CHUNK_PAUSE_MAX: Duration = Duration::from_millis(500);

/// What a call of a transfer may take beside its bytes: a write and a sync at the receiver, on a busy device. One that
/// went to a node that has died since holds the transfer up for as long.
const TRANSFER_CALL_LIMIT: Duration = Duration::from_secs(1);

/// The pause before entries are sent again to a node whose log has no room.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(20);

/// The pause before a node is spoken to again that has not vouched for this one.
const VOUCHED_PAUSE: Duration = Duration::from_millis(20);

/// The slowest link that replication is made for, in bytes a second: it moves the largest row batch in 2 s.
pub const APPEND_RATE_MIN: usize = 1 << 20;

/// The window of a new link: at the slowest rate it is sent in a quarter of a second.
const WINDOW_BYTES_FIRST: usize = 256 << 10;

/// The smallest window.
const WINDOW_BYTES_MIN: usize = 16 << 10;

const _: () = assert!(WINDOW_BYTES_MIN <= WINDOW_BYTES_FIRST && WINDOW_BYTES_FIRST <= REPLICATION_BYTES_MAX);

/// Makes the ways to the other replicas of one group.
pub struct GroupNetwork<T, D> {
    peers: Peers<T>,
    vouched: Vouched,
    partition: PartitionId,
    from: ReplicaId,
    transfers: Arc<AtomicU64>,
    acknowledged: Arc<Acknowledged>,
    appended: Gauge,
    disk: PhantomData<D>,
}

impl<T: Transport, D: Disk> GroupNetwork<T, D> {
    /// The ways from the replica `from`.
    pub fn new(peers: Peers<T>, vouched: Vouched, partition: PartitionId, from: ReplicaId, bounds: &Bounds) -> Self {
        let (transfers, acknowledged) = Default::default();
        let appended = bounds.gauge("bytes of entries of an append", REPLICATION_BYTES_MAX as u64);
        Self { peers, vouched, partition, from, transfers, acknowledged, appended, disk: PhantomData }
    }
}

/// What each follower has acknowledged to this leader: by replica, the term and the last index.
///
/// A follower whose files were cut or rolled back may lack what it has acknowledged. openraft holds that to be impossible
/// and halts the leader, which is the one that is well. So such an answer counts as none: the follower takes part in no
/// quorum, and falls behind for all to see.
#[derive(Default)]
struct Acknowledged {
    upto: Mutex<BTreeMap<ReplicaId, (u64, u64)>>,
    /// The term in which a follower was last said to lack what it has acknowledged.
    said: Mutex<BTreeMap<ReplicaId, u64>>,
}

impl Acknowledged {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, (u64, u64)>> {
        self.upto.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// In a term, `replica` has all up to an index.
    fn note(&self, replica: ReplicaId, term: u64, index: u64) {
        let mut all = self.lock();
        let known = all.entry(replica).or_default();
        *known = (term, index).max(*known);
    }

    /// Whether nothing was said of `replica` in this term yet; from now on it was.
    fn is_news(&self, replica: ReplicaId, term: u64) -> bool {
        let mut said = self.said.lock().unwrap_or_else(|e| e.into_inner());
        said.insert(replica, term) != Some(term)
    }

    /// Whether it has acknowledged the entry in the same term.
    fn has(&self, replica: ReplicaId, term: u64, index: u64) -> bool {
        self.lock().get(&replica).is_some_and(|(of, upto)| *of == term && index <= *upto)
    }
}

/// The way to one replica.
pub struct ReplicaLink<T, D> {
    peers: Peers<T>,
    vouched: Vouched,
    envelope: Envelope,
    node: NodeId,
    /// Numbers the transfers of this replica.
    transfers: Arc<AtomicU64>,
    window: Window,
    acknowledged: Arc<Acknowledged>,
    /// Counts the bytes of entries of each append.
    appended: Gauge,
    disk: PhantomData<D>,
}

/// How many bytes of entries are sent at once.
#[derive(Debug, Clone, Copy)]
struct Window(usize);

impl Window {
    fn grow(&mut self) {
        self.0 = (self.0 * 2).min(REPLICATION_BYTES_MAX);
    }

    fn shrink(&mut self) {
        self.0 = (self.0 / 2).max(WINDOW_BYTES_MIN);
    }

    /// How many of the entries it lets through: at least one, since every entry fits a frame by itself.
    fn fitting(self, entries: &[Entry]) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for entry in entries {
            let more = entry_bytes(entry);
            if count > 0 && bytes + more > self.0 {
                break;
            }
            (count, bytes) = (count + 1, bytes + more);
        }
        (count, bytes)
    }
}

/// How long an append of so many bytes of entries may take.
fn append_limit(heartbeat: Duration, bytes: usize) -> Duration {
    heartbeat + Duration::from_secs(1) * bytes as u32 / APPEND_RATE_MIN as u32
}

impl<T: Transport, D: Disk> RaftNetworkFactory<StoaTypes> for GroupNetwork<T, D> {
    type Network = ReplicaLink<T, D>;

    async fn new_client(&mut self, target: u64, member: &Member) -> Self::Network {
        ReplicaLink {
            peers: self.peers.clone(),
            vouched: self.vouched.clone(),
            envelope: Envelope { partition: self.partition, to: ReplicaId(target), from: self.from },
            node: member.node(),
            transfers: self.transfers.clone(),
            window: Window(WINDOW_BYTES_FIRST),
            acknowledged: self.acknowledged.clone(),
            appended: self.appended.clone(),
            disk: PhantomData,
        }
    }
}

fn lost(why: impl ToString) -> NetworkError<StoaTypes> {
    NetworkError::new(&std::io::Error::other(why.to_string()))
}

impl<T: Transport, D: Disk> ReplicaLink<T, D> {
    async fn call(
        &self,
        channel: Channel,
        call: &RaftCall,
        limit: Duration,
    ) -> Result<RaftAnswer, NetworkError<StoaTypes>> {
        if !self.vouched.by(self.node) {
            // Raft would ask again at once.
            stoa_env::sleep(VOUCHED_PAUSE.min(limit)).await;
            return Err(lost(format!("node {} has not vouched for this data directory yet", self.node)));
        }
        let body = seal(&self.envelope, call);
        let answer = self.peers.call(self.node, channel, Kind::Raft, &body, limit).await.map_err(lost)?;
        let (envelope, message) = open_envelope(&answer).map_err(lost)?;
        // An answer of another incarnation, or for another one of us, must never count toward a quorum.
        if (envelope.partition, envelope.from, envelope.to)
            != (self.envelope.partition, self.envelope.to, self.envelope.from)
        {
            return Err(lost(format!("the answer is from {envelope:?}")));
        }
        match open_message(&message).map_err(lost)? {
            RaftAnswer::Refused(why) => Err(lost(why)),
            answer => Ok(answer),
        }
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        handle: SnapshotHandle<D>,
    ) -> Result<SnapshotResponse<StoaTypes>, NetworkError<StoaTypes>> {
        // Unique among the transfers of this leader, whose term is its alone.
        let transfer = vote.leader_id.term << 20 | (self.transfers.fetch_add(1, Ordering::Relaxed) & 0xfffff);
        let meta = encode_snapshot_meta(&handle.meta);
        let begin = RaftCall::SnapshotBegin { transfer, vote, meta, chunks: handle.chunks.to_vec() };
        let mut next = match self.call_again(&begin).await? {
            RaftAnswer::SnapshotGoOn { next } => next as usize,
            RaftAnswer::SnapshotInstalled(answer) => return Ok(answer),
            other => return Err(lost(format!("an answer that does not fit: {other:?}"))),
        };
        while next < handle.chunks.len() {
            let chunk = Command::new(handle.read_chunk(next).await.map_err(lost)?);
            let call = RaftCall::SnapshotChunk { transfer, number: next as u32, chunk };
            self.call_again(&call).await?;
            next += 1;
        }
        match self.call(Channel::Snapshot, &RaftCall::SnapshotEnd { transfer, vote }, SNAPSHOT_INSTALL_LIMIT).await? {
            RaftAnswer::SnapshotInstalled(answer) => Ok(answer),
            other => Err(lost(format!("an answer that does not fit: {other:?}"))),
        }
    }

    /// A call of a transfer, sent again if it or its answer is lost: the receiver takes none twice.
    async fn call_again(&self, call: &RaftCall) -> Result<RaftAnswer, NetworkError<StoaTypes>> {
        let mut pause = CHUNK_PAUSE;
        for _ in 1..CHUNK_ATTEMPTS {
            match self.call(Channel::Snapshot, call, transfer_limit(call)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(node = self.node.0, %error, "a part of a snapshot is sent again"),
            }
            stoa_env::sleep(pause).await;
            pause = (pause * 2).min(CHUNK_PAUSE_MAX);
        }
        self.call(Channel::Snapshot, call, transfer_limit(call)).await
    }

    /// Notes what the follower has acknowledged, and refuses an answer that takes it back.
    fn believe(
        &self,
        answer: AppendEntriesResponse<StoaTypes>,
        term: u64,
        before: Option<LogId>,
        last: Option<LogId>,
    ) -> Result<AppendEntriesResponse<StoaTypes>, NetworkError<StoaTypes>> {
        let to = self.envelope.to;
        let acknowledged = match &answer {
            AppendEntriesResponse::Success => last.or(before),
            AppendEntriesResponse::PartialSuccess(upto) => *upto,
            AppendEntriesResponse::Conflict => {
                let lacking = before.filter(|id| self.acknowledged.has(to, term, id.index));
                return match lacking {
                    None => Ok(answer),
                    Some(id) => {
                        let why = format!(
                            "replica {to} on node {} lacks entry {} of partition {}, which it has acknowledged: its files \
                             were cut or rolled back; replace this replica",
                            self.node, id.index, self.envelope.partition
                        );
                        if self.acknowledged.is_news(to, term) {
                            tracing::error!("{why}");
                        }
                        Err(lost(why))
                    }
                };
            }
            _ => None,
        };
        if let Some(id) = acknowledged {
            self.acknowledged.note(to, term, id.index);
        }
        Ok(answer)
    }

    /// Sends entries, as many as the window lets through.
    async fn append_some(
        &mut self,
        mut rpc: AppendEntriesRequest<StoaTypes>,
        heartbeat: Duration,
    ) -> Result<AppendEntriesResponse<StoaTypes>, NetworkError<StoaTypes>> {
        let (fitting, bytes) = self.window.fitting(&rpc.entries);
        let cut = fitting < rpc.entries.len();
        rpc.entries.truncate(fitting);
        self.appended.note_len(bytes);
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let (term, before) = (rpc.vote.leader_id.term, rpc.prev_log_id);
        let sent = self.call(Channel::Append, &RaftCall::Append(rpc), append_limit(heartbeat, bytes)).await;
        match sent {
            Ok(RaftAnswer::Append(answer)) => {
                self.window.grow();
                match self.believe(answer, term, before, last)? {
                    AppendEntriesResponse::Success if cut => Ok(AppendEntriesResponse::PartialSuccess(last)),
                    answer => Ok(answer),
                }
            }
            Ok(RaftAnswer::NoRoom(why)) => {
                // The node is well and its log has no room: less at a time, and not at once again.
                self.window.shrink();
                stoa_env::sleep(NO_ROOM_PAUSE).await;
                Err(lost(why))
            }
            Ok(other) => Err(lost(format!("an answer that does not fit: {other:?}"))),
            // What was lost counts as taken: a follower that has it not is one of the quorum.
            Err(_) if planted!(AckOnOneReplica) => Ok(AppendEntriesResponse::Success),
            Err(error) => {
                self.window.shrink();
                Err(error)
            }
        }
    }
}

/// How long a call of a transfer may take: its bytes at the slowest rate, and [`TRANSFER_CALL_LIMIT`].
fn transfer_limit(call: &RaftCall) -> Duration {
    let bytes = match call {
        RaftCall::SnapshotChunk { chunk, .. } => chunk.bytes.len(),
        RaftCall::SnapshotBegin { meta, chunks, .. } => meta.len() + std::mem::size_of_val(&chunks[..]),
        _ => 0,
    };
    TRANSFER_CALL_LIMIT + Duration::from_secs_f64(bytes as f64 / APPEND_RATE_MIN as f64)
}

fn entry_bytes(entry: &Entry) -> usize {
    32 + match &entry.payload {
        EntryPayload::Normal(command) => command.bytes.len(),
        EntryPayload::Blank => 0,
        EntryPayload::Membership(membership) => membership.nodes().count() * 64,
    }
}

impl<T: Transport, D: Disk> RaftNetworkV2<StoaTypes> for ReplicaLink<T, D> {
    type SnapshotData = SnapshotHandle<D>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<StoaTypes>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<StoaTypes>, RPCError<StoaTypes>> {
        if !rpc.entries.is_empty() {
            return Ok(self.append_some(rpc, option.hard_ttl()).await?);
        }
        let (term, before) = (rpc.vote.leader_id.term, rpc.prev_log_id);
        match self.call(Channel::Liveness, &RaftCall::Append(rpc), option.hard_ttl()).await? {
            RaftAnswer::Append(answer) => Ok(self.believe(answer, term, before, before)?),
            other => Err(lost(format!("an answer that does not fit: {other:?}")).into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<StoaTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<StoaTypes>, RPCError<StoaTypes>> {
        match self.call(Channel::Liveness, &RaftCall::Vote(rpc), option.hard_ttl()).await? {
            RaftAnswer::Vote(answer) => Ok(answer),
            other => Err(lost(format!("an answer that does not fit: {other:?}")).into()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<StoaTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<StoaTypes>, RPCError<StoaTypes>> {
        match self.call(Channel::Liveness, &RaftCall::PreVote(rpc), option.hard_ttl()).await? {
            RaftAnswer::Vote(answer) => Ok(answer),
            other => Err(lost(format!("an answer that does not fit: {other:?}")).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<StoaTypes>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<StoaTypes>, RPCError<StoaTypes>> {
        match self.call(Channel::Liveness, &RaftCall::Transfer(rpc), option.hard_ttl()).await? {
            RaftAnswer::Transfer(answer) => Ok(answer),
            other => Err(lost(format!("an answer that does not fit: {other:?}")).into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<
            openraft::type_config::alias::CommittedLeaderIdOf<StoaTypes>,
            u64,
            Member,
            SnapshotHandle<D>,
        >,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<StoaTypes>, StreamingError<StoaTypes>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot.snapshot) => Ok(sent?),
        }
    }
}

#[cfg(test)]
mod tests {
    use stoa_protocol::limits::DEADLINE_US_MAX;

    use super::*;
    use crate::log::COMMAND_BYTES_MAX;
    use crate::types::log_id;

    fn entries(count: u64, bytes: usize) -> Vec<Entry> {
        let payload = || EntryPayload::Normal(Command::new(vec![0; bytes].into()));
        (1..=count).map(|index| Entry { log_id: log_id(1, index), payload: payload() }).collect()
    }

    #[test]
    fn the_window_follows_what_goes_through_and_always_lets_one_entry_pass() {
        let mut window = Window(WINDOW_BYTES_FIRST);
        assert_eq!(window.fitting(&entries(3, 100 << 10)).0, 2);
        (0..10).for_each(|_| window.grow());
        assert_eq!(window.fitting(&entries(3, COMMAND_BYTES_MAX)).0, 1, "a frame holds no more");
        assert_eq!(window.fitting(&entries(41, 100 << 10)).0, 40);
        (0..20).for_each(|_| window.shrink());
        assert_eq!(window.fitting(&entries(3, 2 << 20)).0, 1);
        assert_eq!(window.fitting(&entries(300, 32)).0, WINDOW_BYTES_MIN / 64);
    }

    #[test]
    fn a_small_append_has_about_a_heartbeat_and_a_large_one_the_time_of_its_bytes() {
        let heartbeat = Duration::from_millis(100);
        assert!(append_limit(heartbeat, 1_000) < Duration::from_millis(102));
        assert_eq!(append_limit(heartbeat, 2 << 20), Duration::from_millis(2_100));
        assert!(append_limit(heartbeat, REPLICATION_BYTES_MAX).as_micros() < u128::from(DEADLINE_US_MAX));
    }
}
