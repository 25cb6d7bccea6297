//! What replicas need while they live: the schema of their groups, a barrier before they serve, snapshots that let the log
//! be cut, memory that goes back where no command comes. A task for each, since none of them may wait for what holds another
//! one up; and within each, no partition waits for another: one whose quorum is gone must not keep the others from serving.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use stoa_env::{BootTime, Disk, JoinSet, Transport};
use stoa_protocol::codec::Wire;
use stoa_protocol::message::{BarrierAnswer, BarrierRequest, Caller, Kind, encode_request};
use stoa_protocol::read::ConfirmBy;
use stoa_protocol::{ErrorClass, FeatureGroup, LogIndex, NodeId, PartitionId, PartitionSetId, ReplicaId};
use stoa_raft::{Machine, PartitionMachine, Replica};
use stoa_store::Command;

use super::{HELD_CALLS, Hosted, LOOP_PAUSE, NODE_CALL_LIMIT, Node};

/// How long one replica may take to reach its barrier before the barrier is asked again.
const CATCH_UP_STEP: Duration = Duration::from_millis(500);

/// How long a replica that has reached its barrier waits to know the time of its partition. Where calendars contradict each other,
/// or no leader can stamp the log, it serves by the time that the log has.
const TIME_PATIENCE: Duration = Duration::from_secs(3);

/// Partitions that this node leads learn the groups of the catalog that they do not know yet.
pub(super) async fn teach_schemas<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let mut lessons = JoinSet::new();
        for hosted in strong.all_hosted().into_iter().filter(|hosted| hosted.replica.leads()) {
            let unknown = strong.unknown_groups(&hosted);
            if !unknown.is_empty() {
                lessons.spawn(teach(hosted, unknown));
            }
        }
        drop(strong);
        each(lessons, |()| {}).await;
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}

async fn teach<D: Disk>(hosted: Arc<Hosted<D>>, groups: Vec<FeatureGroup>) {
    for group in groups {
        let command = Command::Define(group.clone()).encode();
        // A committed command that cannot be read halts every replica.
        if let Err(error) = Command::decode(&command) {
            tracing::error!(group = group.full_name(), %error, "a schema is not proposed");
            continue;
        }
        match hosted.replica.propose(command, NODE_CALL_LIMIT).await.map(|reply| reply.outcome) {
            Ok(Some(Err(error))) => tracing::error!(group = group.full_name(), %error, "a schema was refused"),
            Ok(_) => {}
            Err(error) => {
                let partition = hosted.replica.partition().0;
                match error.code.class() {
                    ErrorClass::Stop => tracing::error!(partition, %error, "teaching a schema"),
                    _ => tracing::debug!(partition, %error, "teaching a schema"),
                }
                return;
            }
        }
    }
}

/// Waits for all tasks of a set; a panic in one is one here.
pub(super) async fn each<V: Send + 'static>(mut tasks: JoinSet<V>, mut done: impl FnMut(V)) {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(value) => done(value),
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// How long what can wait leaves the processor to replicas of a node that has started and are not caught up.
pub(super) const THAW_WAITS_MAX: Duration = Duration::from_secs(30);

/// The time after a start in which replicas catch up: whoever waits for their rows has more use for the processor and the device
/// than what makes the next start short, or the rows nearer.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstCatchUp {
    until: Option<BootTime>,
}

impl FirstCatchUp {
    /// Of a node that has just started.
    pub(super) fn of<D: Disk, T: Transport>(node: &Weak<Node<D, T>>) -> Self {
        Self { until: node.upgrade().map(|node| node.now().plus(THAW_WAITS_MAX)) }
    }

    /// Whether all replicas that may have caught up for once, or had their time for it.
    pub(super) fn is_over<D: Disk, T: Transport>(&mut self, node: &Node<D, T>) -> bool {
        self.until = self.until.filter(|until| node.is_catching_up() && node.now() < *until);
        self.until.is_none()
    }
}

/// Replicas that do not serve yet ask their leaders for a confirmed commit index, one message per node, and serve once
/// they have applied it. When all do, rows are taken into memory.
pub(super) async fn catch_up<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let (mut first, mut thaws) = (FirstCatchUp::of(&node), false);
    loop {
        let Some(strong) = node.upgrade() else { return };
        if !thaws && first.is_over(&strong) {
            strong.env.thawing.add_permits(1);
            thaws = true;
        }
        let mut asked = JoinSet::new();
        for (leader, waiting) in strong.without_barrier() {
            asked.spawn(strong.clone().ask_barriers(leader, waiting));
        }
        drop(strong);
        each(asked, |()| {}).await;
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// The partition set of a partition.
    fn set_of(&self, partition: PartitionId) -> Option<PartitionSetId> {
        let state = self.state();
        state.map.sets.iter().find(|set| set.partitions.iter().any(|p| p.id == partition)).map(|set| set.id)
    }

    /// Whether a replica that the map gives to this node does not serve yet, and may come to.
    fn is_catching_up(&self) -> bool {
        let state = self.state();
        let partitions = state.map.sets.iter().flat_map(|set| &set.partitions);
        let mut ours = partitions.filter(|partition| partition.replicas.iter().any(|r| r.node == self.info.id));
        ours.any(|partition| {
            let hosted = self.hosted(partition.id);
            // One that could not be started is nobody's reason to wait.
            let may_come = self.failure(partition.id).is_none();
            may_come && hosted.is_none_or(|hosted| !hosted.replica.is_caught_up() && hosted.replica.trouble().is_none())
        })
    }

    /// The groups of the catalog that a partition should know, and does not.
    fn unknown_groups(&self, hosted: &Hosted<D>) -> Vec<FeatureGroup> {
        let set = self.set_of(hosted.replica.partition());
        let known = hosted.view.definitions();
        let is_known =
            |group: &FeatureGroup| known.iter().any(|k| k.id == group.id && k.schema_version >= group.schema_version);
        let state = self.state();
        let groups = state.groups.iter().map(|(_, group)| group);
        groups.filter(|group| Some(group.set) == set && !is_known(group)).cloned().collect()
    }

    /// Lets replicas serve that have reached their barriers, and gives those that have none, by their leaders.
    fn without_barrier(&self) -> BTreeMap<NodeId, Vec<Arc<Hosted<D>>>> {
        let mut waiting: BTreeMap<NodeId, Vec<Arc<Hosted<D>>>> = BTreeMap::new();
        for hosted in self.all_hosted() {
            let replica: &Replica<D, PartitionMachine> = &hosted.replica;
            if replica.is_caught_up() || replica.trouble().is_some() {
                continue;
            }
            let barrier = hosted.barrier.lock().unwrap_or_else(|e| e.into_inner()).index;
            if barrier.is_some_and(|index| hosted.view.reader().applied() >= index) {
                if self.knows_time(&hosted) || !self.is_patient(&hosted) {
                    replica.set_caught_up();
                    continue;
                }
                // Another question has the leader stamp the log.
                hosted.barrier.lock().unwrap_or_else(|e| e.into_inner()).index = None;
            } else if barrier.is_some() {
                continue;
            }
            if let Some(leader) = replica.leader() {
                waiting.entry(leader).or_default().push(hosted);
            }
        }
        waiting
    }

    /// Whether a replica that has reached its barrier waits for the time still.
    fn is_patient(&self, hosted: &Hosted<D>) -> bool {
        let mut barrier = hosted.barrier.lock().unwrap_or_else(|e| e.into_inner());
        let now = self.now();
        now.since(*barrier.timeless.get_or_insert(now)) < TIME_PATIENCE
    }

    async fn ask_barriers(self: Arc<Self>, leader: NodeId, waiting: Vec<Arc<Hosted<D>>>) {
        let partitions: Vec<PartitionId> = waiting.iter().map(|hosted| hosted.replica.partition()).collect();
        let request = BarrierRequest { by: ConfirmBy::ReadIndex, partitions };
        let answer = match leader == self.info.id {
            true => Some(self.barriers(&request, CATCH_UP_STEP).await),
            false => {
                let body = encode_request(&Caller::default(), &request);
                let sent = self.env.peers.call(leader, HELD_CALLS, Kind::Barrier, &body, CATCH_UP_STEP).await;
                sent.ok().and_then(|bytes| BarrierAnswer::from_bytes(&bytes).ok())
            }
        };
        for (hosted, index) in waiting.iter().zip(answer.map(|a| a.committed).unwrap_or_default()) {
            hosted.barrier.lock().unwrap_or_else(|e| e.into_inner()).index = index;
        }
    }

    /// Confirmed commit indices of partitions that this node leads. All are asked at once; those that are not confirmed
    /// within three quarters of the caller's time, stamps and all, are left out, so that the others reach it within its time.
    pub(crate) async fn barriers(&self, request: &BarrierRequest, limit: Duration) -> BarrierAnswer {
        let limit = limit / 4 * 3;
        let end = self.now().plus(limit);
        // Each once, and none that is not here: the request is foreign.
        let wanted: BTreeMap<PartitionId, Arc<Hosted<D>>> =
            request.partitions.iter().filter_map(|partition| Some((*partition, self.hosted(*partition)?))).collect();
        let by = request.by;
        let asked = wanted.into_iter().map(|(partition, hosted)| async move {
            // First, so that whoever has applied the index knows the time.
            self.stamp_if_due(&hosted, limit / 2).await;
            Some((partition, hosted.replica.confirm(by, end.since(self.now())).await.ok()?))
        });
        let asked: FuturesUnordered<_> = asked.collect();
        let confirmed: BTreeMap<PartitionId, LogIndex> = asked.filter_map(std::future::ready).collect().await;
        let index = |partition| confirmed.get(partition).copied();
        BarrierAnswer { committed: request.partitions.iter().map(index).collect() }
    }
}

/// Between two attempts to hand over leadership: an election may come of one, and needs its time.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(3);

/// Hands over what this node leads while its device is full: it refuses every write, and the other voters may have room.
pub(super) async fn hand_over<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut round = 0;
    loop {
        let Some(strong) = node.upgrade() else { return };
        let full = strong.env.wal.stats().full;
        if full {
            strong.hand_over_once(round).await;
            round += 1;
        }
        drop(strong);
        stoa_env::sleep(if full { HAND_OVER_PAUSE } else { LOOP_PAUSE }).await;
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Another voter each round: the device of one of them may be full as well.
    async fn hand_over_once(&self, round: usize) {
        for hosted in self.all_hosted() {
            hand_over_to_any(&hosted.replica, round).await;
        }
        if let Some(root) = self.root_replica() {
            hand_over_to_any(&root, round).await;
        }
    }
}

async fn hand_over_to_any<D: Disk, M: Machine>(replica: &Replica<D, M>, round: usize) {
    if !replica.leads() {
        return;
    }
    let mut others: Vec<ReplicaId> = replica.voters().into_iter().map(|(id, _)| id).collect();
    others.retain(|id| *id != replica.id());
    if others.is_empty() {
        return;
    }
    let first = round % others.len();
    others.rotate_left(first);
    for to in others {
        if replica.transfer_leader(to).await {
            tracing::warn!(
                partition = replica.partition().0,
                to = to.0,
                "the device is full: leadership is handed over"
            );
            return;
        }
    }
}

/// How long one replica may take for a part of its tidying before the others go on without it.
const TIDY_LIMIT: Duration = Duration::from_secs(1);

/// Partitions to which no command comes give memory back that has come out of use; where commands come, they do that.
pub(super) async fn tidy_up<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut seen: BTreeMap<PartitionId, LogIndex> = BTreeMap::new();
    loop {
        let Some(strong) = node.upgrade() else { return };
        let mut tidied = JoinSet::new();
        let mut now = BTreeMap::new();
        for hosted in strong.all_hosted() {
            let reader = hosted.view.reader();
            let (partition, applied) = (hosted.replica.partition(), reader.applied());
            if reader.is_untidy() && seen.get(&partition) == Some(&applied) {
                tidied.spawn(async move { stoa_env::timeout(TIDY_LIMIT, hosted.replica.tidy()).await.is_ok() });
            }
            now.insert(partition, applied);
        }
        seen = now;
        drop(strong);
        each(tidied, drop).await;
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}
