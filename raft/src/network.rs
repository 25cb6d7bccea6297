//! openraft's calls to other replicas. Each ends by its limit; an append is cut to what one frame holds and answered as a
//! partial success; a lost call is a network error, not an unreachable peer, since that would begin a back-off of 200 ms.

use std::future::Future;
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, Snapshot};
use stoa_env::{Channel, Disk, Transport};
use stoa_protocol::message::Kind;
use stoa_protocol::{NodeId, PartitionId, ReplicaId};

use crate::envelope::{Envelope, RaftAnswer, RaftCall, open_envelope, open_message, seal};
use crate::log::REPLICATION_BYTES_MAX;
use crate::peers::Peers;
use crate::snapshots::SnapshotHandle;
use crate::types::{Command, Entry, Member, StoaTypes, Vote, encode_snapshot_meta};

/// How long one chunk of a snapshot may take, the install at its end included: a peer that is slower than 4 MiB in this
/// time cannot keep up with the log either.
pub const SNAPSHOT_CHUNK_LIMIT: Duration = Duration::from_secs(10);

/// Makes the ways to the other replicas of one group.
pub struct GroupNetwork<T, D> {
    pub(crate) peers: Peers<T>,
    pub(crate) partition: PartitionId,
    pub(crate) from: ReplicaId,
    pub(crate) disk: std::marker::PhantomData<D>,
}

/// The way to one replica.
pub struct ReplicaLink<T, D> {
    peers: Peers<T>,
    envelope: Envelope,
    node: NodeId,
    transfers: u64,
    disk: std::marker::PhantomData<D>,
}

impl<T: Transport, D: Disk> RaftNetworkFactory<StoaTypes> for GroupNetwork<T, D> {
    type Network = ReplicaLink<T, D>;

    async fn new_client(&mut self, target: u64, member: &Member) -> Self::Network {
        ReplicaLink {
            peers: self.peers.clone(),
            envelope: Envelope { partition: self.partition, to: ReplicaId(target), from: self.from },
            node: member.node(),
            transfers: 0,
            disk: self.disk,
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
        self.transfers += 1;
        // Unique among the transfers of this leader to this replica; a new `begin` drops the one before.
        let transfer = vote.leader_id.term << 20 | (self.transfers & 0xfffff);
        let begin = RaftCall::SnapshotBegin {
            transfer,
            meta: encode_snapshot_meta(&handle.meta),
            chunks: handle.chunks.to_vec(),
        };
        self.call(Channel::Snapshot, &begin, SNAPSHOT_CHUNK_LIMIT).await?;
        for number in 0..handle.chunks.len() {
            let chunk = handle.read_chunk(number).await.map_err(lost)?;
            let call = RaftCall::SnapshotChunk { transfer, number: number as u32, chunk: Command(chunk) };
            self.call(Channel::Snapshot, &call, SNAPSHOT_CHUNK_LIMIT).await?;
        }
        match self.call(Channel::Snapshot, &RaftCall::SnapshotEnd { transfer, vote }, SNAPSHOT_CHUNK_LIMIT).await? {
            RaftAnswer::SnapshotInstalled(answer) => Ok(answer),
            other => Err(lost(format!("an answer that does not fit: {other:?}"))),
        }
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    32 + match &entry.payload {
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Blank => 0,
        EntryPayload::Membership(membership) => membership.nodes().count() * 64,
    }
}

/// How many of the entries fit a frame: at least one, since every entry does by itself.
fn entries_that_fit(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        bytes += entry_bytes(entry);
        bytes <= REPLICATION_BYTES_MAX
    });
    fitting.count().max(1).min(entries.len())
}

impl<T: Transport, D: Disk> RaftNetworkV2<StoaTypes> for ReplicaLink<T, D> {
    type SnapshotData = SnapshotHandle<D>;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<StoaTypes>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<StoaTypes>, RPCError<StoaTypes>> {
        let fitting = entries_that_fit(&rpc.entries);
        let cut = fitting < rpc.entries.len();
        rpc.entries.truncate(fitting);
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let channel = if rpc.entries.is_empty() { Channel::Liveness } else { Channel::Append };
        match self.call(channel, &RaftCall::Append(rpc), option.hard_ttl()).await? {
            RaftAnswer::Append(AppendEntriesResponse::Success) if cut => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            RaftAnswer::Append(answer) => Ok(answer),
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
