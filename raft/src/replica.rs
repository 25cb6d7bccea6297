//! One replica of one group: openraft around our log, machine and network, with the traps of openraft closed.
//!
//! - For [`RaftTiming::silence_after_start`] after a start it neither votes nor campaigns: it may have granted a lease
//!   before, and openraft forgets that. A replica that never wrote anything has granted nothing and need not wait.
//! - Messages for another replica id are refused: ids are never reused, so these are of another life.
//! - Proposals, and appends of other replicas that carry commands, are refused for lack of log space before openraft sees
//!   them; afterwards it could only halt. Heartbeats, votes and memberships always go through.
//! - A storage error or a panic in apply halts this group on this node: [`Replica::trouble`] says so, and nothing else
//!   stops.
//! - It does not serve until it has applied what was committed when it started ([`Replica::catch_up`]).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use openraft::raft::VoteResponse;
use openraft::{EntryPayload, LinearizerOption};
use stoa_env::{BootTime, Disk, TaskGroup, Transport, planted};
use stoa_protocol::message::ReplicaStatus;
use stoa_protocol::read::ConfirmBy;
use stoa_protocol::{ErrorBody, ErrorCode, LogIndex, NodeId, PartitionId, ReplicaId};

use tokio::sync::{Notify, Semaphore};

use crate::budget::{GroupBudget, NodeBudget};
use crate::envelope::{RaftAnswer, RaftCall};
use crate::log::{GroupLog, LogSize};
use crate::machine::Machine;
use crate::network::GroupNetwork;
use crate::options::RaftTiming;
use crate::peers::Peers;
use crate::runtime::{NodeContext, NodeInstant};
use crate::seam::check_seam;
use crate::snapshots::SnapshotStore;
use crate::state_machine::{Builds, StateMachine};
use crate::transfer::{Announcement, Incoming};
use crate::types::{Command, Entry, Member, Reply, StoaTypes, decode_snapshot_meta};
use crate::vouched::Vouched;
use crate::wal::{RecoveredGroup, Wal, WalError, WalErrorClass};

/// What an entry adds to its command, and the log to each entry of a batch.
const ENTRY_OVERHEAD_BYTES: usize = 96;
/// Rows that a machine takes in at once: about a millisecond.
const THAWED_ROWS: usize = 500;
/// What lies between two pieces: so that thawing takes half of a core at the most.
const THAWING_PAUSE: Duration = Duration::from_millis(1);

/// Everything a replica needs from its node.
pub struct ReplicaEnvironment<D, T> {
    /// Files.
    pub disk: D,
    /// The directory of all snapshots.
    pub snapshot_dir: std::path::PathBuf,
    /// The node's log.
    pub wal: Wal,
    /// The way to other nodes.
    pub peers: Peers<T>,
    /// Which of them vouch for this data directory: Raft speaks to no other.
    pub vouched: Vouched,
    /// Clock and chance.
    pub context: NodeContext,
    /// Timing.
    pub timing: RaftTiming,
    /// What proposals may hold, over all groups.
    pub budget: NodeBudget,
    /// Whose turn it is to take in what its machine was restored from: one place.
    pub thawing: Arc<Semaphore>,
}

/// One replica of one group.
pub struct Replica<D: Disk, M: Machine> {
    partition: PartitionId,
    id: ReplicaId,
    pub(crate) raft: openraft::Raft<StoaTypes, StateMachine<D, M>>,
    pub(crate) log: GroupLog,
    wal: Wal,
    pub(crate) context: NodeContext,
    timing: RaftTiming,
    pub(crate) incoming: Incoming<D>,
    silent_until: BootTime,
    caught_up: AtomicBool,
    /// The last term in which this replica began to hand its leadership over; 0 for none.
    handed_over: AtomicU64,
    pub(crate) builds: Arc<Builds>,
    budget: GroupBudget,
    trouble: Mutex<Option<String>>,
    tasks: TaskGroup,
}

impl<D: Disk, M: Machine> Replica<D, M> {
    /// Starts the replica: newest snapshot, then the log after it, then Raft. `machine` is empty.
    pub async fn start<T: Transport>(
        env: &ReplicaEnvironment<D, T>,
        partition: PartitionId,
        id: ReplicaId,
        machine: M,
        recovered: &mut RecoveredGroup,
    ) -> std::io::Result<Arc<Self>> {
        let log = GroupLog::new(partition, env.wal.clone(), recovered.clone())?;
        let started = Self::start_on(env, partition, id, machine, log.clone()).await;
        if started.is_err() {
            *recovered = log.recovered();
        }
        started
    }

    async fn start_on<T: Transport>(
        env: &ReplicaEnvironment<D, T>,
        partition: PartitionId,
        id: ReplicaId,
        machine: M,
        mut log: GroupLog,
    ) -> std::io::Result<Arc<Self>> {
        let (snapshots, newest) =
            SnapshotStore::open(env.disk.clone(), Path::new(&env.snapshot_dir), partition, &env.context.bounds).await?;
        let covered = newest.as_ref().map(|handle| &handle.meta);
        check_seam(&env.disk, snapshots.dir(), partition, id, &mut log, covered).await?;
        let untouched = log.is_untouched(id) && newest.is_none();
        let machine = StateMachine::open(machine, snapshots.clone(), newest).await?;
        let (restored, builds) = (machine.restored(), machine.builds());
        let network =
            GroupNetwork::<T, D>::new(env.peers.clone(), env.vouched.clone(), partition, id, &env.context.bounds);
        let config = env.timing.openraft_config(partition).validate().map_err(std::io::Error::other)?;
        let now = env.context.clock.boot();
        let silence =
            if untouched || planted!(VoteAfterRestart) { Duration::ZERO } else { env.timing.silence_after_start() };
        let raft = env
            .context
            .run(openraft::Raft::new(id.0, Arc::new(config), network, log.clone(), machine))
            .await
            .map_err(|error| std::io::Error::other(format!("starting partition {partition}: {error}")))?;
        let replica = Arc::new(Self {
            partition,
            id,
            raft,
            log,
            wal: env.wal.clone(),
            context: env.context.clone(),
            timing: env.timing,
            incoming: Incoming::new(snapshots, &env.context.bounds),
            silent_until: now.plus(silence),
            caught_up: AtomicBool::new(false),
            handed_over: AtomicU64::new(0),
            builds,
            budget: GroupBudget::new(partition, env.budget.clone(), &env.context.bounds),
            trouble: Mutex::new(None),
            tasks: TaskGroup::new(),
        });
        replica.tasks.spawn(
            "campaign after silence",
            campaign_after_silence(replica.raft.clone(), env.context.clone(), silence),
        );
        replica.tasks.spawn("watch for a halt", watch_for_halt(Arc::downgrade(&replica)));
        replica.tasks.spawn("thaw the machine", thaw(Arc::downgrade(&replica), restored, env.thawing.clone()));
        Ok(replica)
    }

    /// The partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// This replica's number.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Forms the group of these voters if it has not been formed. Safe to call on several of them, with equal members.
    pub async fn form(&self, members: &[(ReplicaId, NodeId)]) -> Result<(), ErrorBody> {
        if self.is_formed().await {
            return Ok(());
        }
        let members: std::collections::BTreeMap<u64, Member> =
            members.iter().map(|(replica, node)| (replica.0, Member { node: node.0 })).collect();
        match self.context.run(self.raft.initialize(members)).await {
            Ok(()) | Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(ErrorBody::new(ErrorCode::Halted, error.to_string())),
        }
    }

    /// Whether the group has been formed, as far as this replica knows.
    pub async fn is_formed(&self) -> bool {
        self.context.run(self.raft.is_initialized()).await.unwrap_or(false)
    }

    /// Whether this replica leads, as far as it knows. For a hint, never for a verdict.
    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().current_leader == Some(self.id.0)
    }

    /// The node that leads, as far as this replica knows.
    pub fn leader(&self) -> Option<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        metrics.membership_config.membership().get_node(&leader).map(|member| member.node())
    }

    /// The voters, as far as this replica knows.
    pub fn voters(&self) -> Vec<(ReplicaId, NodeId)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership
            .voter_ids()
            .filter_map(|id| membership.get_node(&id).map(|member| (ReplicaId(id), member.node())))
            .collect()
    }

    /// Proposes a command and waits until this replica, as leader, has applied it. An error of class retry with code
    /// `OutcomeUnknown` says that it may or may not have happened; every other error says that it has not.
    pub async fn propose(&self, command: Bytes, limit: Duration) -> Result<Reply, ErrorBody> {
        self.check_trouble()?;
        let _place = self.budget.take(command.len())?;
        let room = self
            .wal
            .admit(command.len() + ENTRY_OVERHEAD_BYTES)
            .map_err(|error| log_refusal(self.partition, &error))?;
        let mut command = Command::new(command);
        command.give_room(Arc::new(room));
        let written = self.context.run(self.raft.client_write(command));
        match stoa_env::timeout(limit, written).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))))
                if forward.reason == ForwardReason::LeaseExpired =>
            {
                let message = format!(
                    "partition {}: this node led it, and has heard from no majority for {:?}",
                    self.partition,
                    self.timing.lease()
                );
                Err(ErrorBody::new(ErrorCode::NoQuorum, message))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                let message = format!("this node does not lead partition {}", self.partition);
                Err(ErrorBody {
                    leader: forward.leader_node.map(|member| member.node()),
                    ..ErrorBody::new(ErrorCode::NotLeader, message)
                })
            }
            Ok(Err(RaftError::APIError(other))) => {
                Err(ErrorBody::new(ErrorCode::OutcomeUnknown, format!("partition {}: {other}", self.partition)))
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.halted(fatal.to_string())),
            Err(_elapsed) => Err(ErrorBody::new(
                ErrorCode::OutcomeUnknown,
                format!("partition {}: the write was not committed within {limit:?}", self.partition),
            )),
        }
    }

    /// A commit index that a quorum has confirmed after this call began (read index). Only the leader can give one.
    pub async fn barrier(&self, limit: Duration) -> Result<LogIndex, ErrorBody> {
        self.confirm(ConfirmBy::ReadIndex, limit).await
    }

    /// A commit index that covers everything that was acknowledged before this call. Only the leader can give one, after it
    /// has made sure, for this call and no other, that nobody else has been elected. A new leader gives no lower one than
    /// that of its first own entry: before that is committed, it does not know what its predecessor has acknowledged.
    pub async fn confirm(&self, by: ConfirmBy, limit: Duration) -> Result<LogIndex, ErrorBody> {
        self.check_trouble()?;
        if planted!(StrongReadWithoutQuorum) && self.leads() {
            return Ok(self.status().committed);
        }
        // Once it was in its lease, for as long as it believes that it leads.
        if planted!(CachedLeaseVerdict) && by == ConfirmBy::Lease && self.leads() {
            return Ok(self.status().committed);
        }
        // As if the lease counted from when the answer came, which is up to a heartbeat after it was asked for.
        if planted!(LeaseFromReceiveTime)
            && by == ConfirmBy::Lease
            && let Some(asked) = self.quorum_acked().filter(|_| self.leads())
            && self.context.clock.boot().since(asked) < self.timing.lease_read_age_max() + self.timing.heartbeat
        {
            return Ok(self.status().committed);
        }
        let age_max = match by {
            ConfirmBy::ReadIndex | ConfirmBy::Heartbeat => Duration::ZERO,
            ConfirmBy::Lease => self.timing.lease_read_age_max(),
        };
        // An acknowledgement that is too old is no refusal: a new one is asked for, or comes by itself. Raft waits no longer
        // than the caller.
        let asks = by != ConfirmBy::Heartbeat;
        let option = LinearizerOption::new(Some(age_max), asks).with_wait_timeout(limit);
        let asked = self.context.run(self.raft.get_read_linearizer(option));
        match stoa_env::timeout(limit, asked).await {
            // Whoever takes over need not wait for the lease. It is looked at after the verdict: had the handover begun
            // before, this would see it; what begins now cannot have made another leader before the verdict.
            Ok(Ok(_))
                if by == ConfirmBy::Lease && self.hands_over(self.raft.metrics().borrow_watched().current_term) =>
            {
                let message = format!("partition {}: its leader hands leadership over", self.partition);
                Err(ErrorBody::new(ErrorCode::NoQuorum, message))
            }
            Ok(Ok(linearizer)) => Ok(LogIndex(linearizer.read_log_id().index())),
            Ok(Err(RaftError::APIError(openraft::errors::LinearizableReadError::ForwardToLeader(forward)))) => {
                let message = format!("this node does not lead partition {}", self.partition);
                Err(ErrorBody {
                    leader: forward.leader_node.map(|member| member.node()),
                    ..ErrorBody::new(ErrorCode::NotLeader, message)
                })
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.halted(fatal.to_string())),
            Ok(Err(error)) => Err(ErrorBody::new(ErrorCode::NoQuorum, error.to_string())),
            Err(_elapsed) => {
                let message = format!("partition {}: no quorum confirmed the leader within {limit:?}", self.partition);
                Err(ErrorBody::new(ErrorCode::NoQuorum, message))
            }
        }
    }

    /// If this replica leads, when it sent what a quorum answered last; `None` if it does not, or nothing was answered yet.
    pub fn quorum_acked(&self) -> Option<BootTime> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_quorum_acked.as_deref().copied().map(NodeInstant::boot)
    }

    /// Waits until this replica has applied `index`.
    pub async fn wait_applied(&self, index: LogIndex, limit: Duration) -> Result<(), ErrorBody> {
        let wait = self.raft.wait(Some(limit));
        let waited = wait.applied_index_at_least(Some(index.0), "catching up");
        self.context.run(waited).await.map(drop).map_err(|_| {
            let message = format!("partition {}: index {index} was not applied within {limit:?}", self.partition);
            ErrorBody::new(ErrorCode::NotCaughtUp, message)
        })
    }

    /// Asks the machine something between two commands.
    pub async fn ask_machine<V: Send + 'static>(
        &self,
        question: impl FnOnce(&M) -> V + Send + 'static,
    ) -> Result<V, ErrorBody> {
        let asked = self.raft.with_state_machine(move |machine| {
            let answer = question(machine.machine());
            Box::pin(async move { answer })
        });
        self.context.run(asked).await.map_err(|fatal| self.halted(fatal.to_string()))
    }

    /// Lets the machine do some of what commands leave for quiet times, between two of them; says whether there is more. A
    /// replica that has halted has nothing to do.
    pub async fn tidy(&self) -> bool {
        let asked = self.raft.with_state_machine(|machine| {
            let more = machine.tidy();
            Box::pin(async move { more })
        });
        self.context.run(asked).await.unwrap_or(false)
    }

    /// Notes that what was committed when this replica started has been applied: from now on it serves.
    pub fn set_caught_up(&self) {
        self.caught_up.store(true, Ordering::Release);
    }

    /// Whether this replica may serve reads.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// How much the log holds.
    pub fn log_size(&self) -> LogSize {
        self.log.size()
    }

    /// Asks Raft to hand leadership to another voter, and says whether it was asked: only a leader can, and only to a voter
    /// that has all of the log. Raft takes no proposals from then on, and would wait for one that lags for ever; one that
    /// dies on the way costs an election.
    pub async fn transfer_leader(&self, to: ReplicaId) -> bool {
        let ready = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&to.0)).and_then(|id| *id);
            let voter = metrics.membership_config.membership().voter_ids().any(|id| id == to.0);
            let ready = voter && to != self.id && matched.is_some_and(|id| Some(id.index) >= metrics.last_log_index);
            if ready {
                self.handed_over.store(metrics.current_term, Ordering::Relaxed);
            }
            ready
        };
        if ready && let Err(fatal) = self.context.run(self.raft.trigger().transfer_leader(to.0)).await {
            self.halted(fatal.to_string());
            return false;
        }
        ready
    }

    /// Whether it has begun to hand its leadership of this term over. It may go on leading if nobody takes it.
    pub(crate) fn hands_over(&self, term: u64) -> bool {
        self.handed_over.load(Ordering::Relaxed) == term
    }

    /// Where the replica stands; rows and bytes are the machine's to fill in.
    pub fn status(&self) -> ReplicaStatus {
        let leader = self.leader();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::types::LogId>| LogIndex(id.as_ref().map_or(0, |id| id.index));
        ReplicaStatus {
            partition: self.partition,
            leader,
            term: metrics.current_term,
            last: LogIndex(metrics.last_log_index.unwrap_or(0)),
            committed: index(&metrics.local_committed),
            applied: index(&metrics.last_applied),
            rows: 0,
            bytes: 0,
            trouble: self.trouble().unwrap_or_else(|| match self.is_caught_up() {
                true => String::new(),
                false => "catching up".into(),
            }),
        }
    }

    /// Why the replica has halted, if it has.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(crate) fn check_trouble(&self) -> Result<(), ErrorBody> {
        match self.trouble() {
            // Asked before anything is done.
            Some(why) => Err(ErrorBody::new(ErrorCode::ReplicaOut, format!("partition {}: {why}", self.partition))),
            None => Ok(()),
        }
    }

    pub(crate) fn halted(&self, why: String) -> ErrorBody {
        let mut trouble = self.trouble.lock().unwrap_or_else(|e| e.into_inner());
        if trouble.is_none() {
            tracing::error!(partition = self.partition.0, why, "the replica has halted");
            *trouble = Some(why.clone());
        }
        ErrorBody::new(ErrorCode::Halted, format!("partition {}: {why}", self.partition))
    }

    /// Answers a call of another replica.
    pub async fn handle(&self, call: RaftCall) -> RaftAnswer {
        match self.context.run(self.handle_inner(call)).await {
            Ok(answer) => answer,
            Err(why) => RaftAnswer::Refused(why),
        }
    }

    async fn handle_inner(&self, call: RaftCall) -> Result<RaftAnswer, String> {
        let silent = self.context.clock.boot() < self.silent_until;
        Ok(match call {
            RaftCall::Append(mut request) => {
                if let Err(error) = self.give_room(&mut request.entries) {
                    return Ok(RaftAnswer::NoRoom(error.to_string()));
                }
                RaftAnswer::Append(self.raft.append_entries(request).await.map_err(|e| e.to_string())?)
            }
            RaftCall::Vote(_) | RaftCall::PreVote(_) if silent => {
                return Err(format!(
                    "replica {} started less than {:?} ago and does not vote yet",
                    self.id,
                    self.timing.silence_after_start()
                ));
            }
            RaftCall::Vote(request) => RaftAnswer::Vote(self.raft.vote(request).await.map_err(|e| e.to_string())?),
            RaftCall::PreVote(request) => {
                let answer: VoteResponse<StoaTypes> = self.raft.pre_vote(request).await.map_err(|e| e.to_string())?;
                RaftAnswer::Vote(answer)
            }
            RaftCall::Transfer(_) if silent => {
                return Err(format!("replica {} has just started and takes no leadership yet", self.id));
            }
            RaftCall::Transfer(_) if self.wal.stats().full => {
                return Err(format!("the device of replica {} is full; it takes no leadership", self.id));
            }
            RaftCall::Transfer(request) => {
                RaftAnswer::Transfer(self.raft.handle_transfer_leader(request).await.map_err(|e| e.to_string())?)
            }
            RaftCall::SnapshotBegin { transfer, vote, meta, chunks } => {
                let meta = decode_snapshot_meta(&meta).map_err(|e| e.to_string())?;
                let asked = Announcement { transfer, vote, meta, chunks };
                self.incoming.begin(&self.raft, self.context.clock.boot(), asked).await?
            }
            RaftCall::SnapshotChunk { transfer, number, chunk } => {
                self.incoming.chunk(self.context.clock.boot(), transfer, number, chunk.bytes).await?
            }
            RaftCall::SnapshotEnd { transfer, vote } => {
                self.incoming.install(&self.raft, &self.context, transfer, vote).await?
            }
        })
    }

    /// Takes room for the entries of an append, before openraft has them: afterwards it could only halt. An append without
    /// commands, a heartbeat above all, needs none.
    fn give_room(&self, entries: &mut [Entry]) -> Result<(), WalError> {
        let commands = || {
            entries.iter().filter_map(|entry| match &entry.payload {
                EntryPayload::Normal(command) => Some(command.bytes.len() + ENTRY_OVERHEAD_BYTES),
                _ => None,
            })
        };
        if commands().next().is_none() {
            return Ok(());
        }
        let room = Arc::new(self.wal.admit(commands().sum())?);
        for entry in entries {
            if let EntryPayload::Normal(command) = &mut entry.payload {
                command.give_room(room.clone());
            }
        }
        Ok(())
    }

    /// Ends the replica: its tasks stop, and no callback touches the log or the snapshots afterwards.
    pub async fn shutdown(&self) {
        self.tasks.abort_all();
        self.incoming.close().await;
        self.trouble.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert_with(|| "it has ended".into());
        if let Err(error) = self.context.run(self.raft.shutdown()).await {
            tracing::warn!(partition = self.partition.0, %error, "a replica ended with an error");
        }
    }
}

/// What a proposer is told that the log does not take.
fn log_refusal(partition: PartitionId, error: &WalError) -> ErrorBody {
    let (code, retry_after_ms) = match error {
        // Space comes back when somebody makes room, or when snapshots have let old segments go: not in an instant.
        WalError::Full { .. } | WalError::Overgrown { .. } => (ErrorCode::DiskFull, 500),
        _ if error.class() == WalErrorClass::Retry => (ErrorCode::Overloaded, 5),
        _ => (ErrorCode::LogFailed, 0),
    };
    ErrorBody { retry_after_ms, ..ErrorBody::new(code, format!("partition {partition}: {error}")) }
}

async fn campaign_after_silence<D: Disk, M: Machine>(
    raft: openraft::Raft<StoaTypes, StateMachine<D, M>>,
    context: NodeContext,
    silence: Duration,
) {
    let until = context.clock.boot().plus(silence);
    // A sleep ends early by a boot clock that is slower than the monotonic one.
    while context.clock.boot() < until {
        stoa_env::sleep(until.since(context.clock.boot())).await;
    }
    raft.runtime_config().elect(true);
}

/// Has the machine take in what it was restored from: small pieces with pauses between them, and one replica of the node after the
/// other, so that reads and commands go on.
async fn thaw<D: Disk, M: Machine>(
    replica: std::sync::Weak<Replica<D, M>>,
    restored: Arc<Notify>,
    turns: Arc<Semaphore>,
) {
    loop {
        restored.notified().await;
        let Ok(_turn) = turns.acquire().await else { return };
        loop {
            let Some(strong) = replica.upgrade().filter(|strong| strong.trouble().is_none()) else { return };
            let thawed = strong.raft.with_state_machine(|machine| {
                let more = machine.thaw(THAWED_ROWS);
                Box::pin(async move { more })
            });
            match strong.context.run(thawed).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    strong.halted(error.to_string());
                    // As after damage that a command meets: it neither leads nor votes nor acknowledges with what it has.
                    let _ended = strong.context.run(strong.raft.shutdown()).await;
                    return;
                }
                Err(fatal) => return drop(strong.halted(fatal.to_string())),
            }
            drop(strong);
            stoa_env::sleep(THAWING_PAUSE).await;
        }
    }
}

async fn watch_for_halt<D: Disk, M: Machine>(replica: std::sync::Weak<Replica<D, M>>) {
    let Some(mut metrics) = replica.upgrade().map(|replica| replica.raft.server_metrics()) else { return };
    loop {
        let Some(strong) = replica.upgrade() else { return };
        let state = strong.raft.metrics().borrow_watched().running_state.clone();
        if let Err(fatal) = state {
            strong.halted(fatal.to_string());
            return;
        }
        drop(strong);
        if metrics.changed().await.is_err() {
            // The core has gone: say why, if it did not go because we shut it down.
            if let Some(strong) = replica.upgrade() {
                let state = strong.raft.metrics().borrow_watched().running_state.clone();
                strong.halted(state.err().map_or_else(|| "its Raft core has ended".into(), |fatal| fatal.to_string()));
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_device_a_full_log_and_a_full_queue_are_told_apart() {
        let cases = [
            (WalError::Full { wanted: 1 }, ErrorCode::DiskFull),
            (WalError::Overgrown { live: 2, limit: 1 }, ErrorCode::DiskFull),
            (WalError::Busy { queued: 2, limit: 1 }, ErrorCode::Overloaded),
            (WalError::Closed, ErrorCode::LogFailed),
        ];
        for (error, code) in cases {
            let refusal = log_refusal(PartitionId(2), &error);
            assert_eq!(refusal.code, code);
            assert_eq!(refusal.retry_after_ms > 0, code != ErrorCode::LogFailed, "{refusal}");
        }
    }
}
