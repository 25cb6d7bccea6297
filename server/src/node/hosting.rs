//! The node's replicas: started as the root state says, taught the schema of their groups, brought up to date before they
//! serve, their logs cut by snapshots.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Channel, Disk, Transport};
use stoa_protocol::codec::Wire;
use stoa_protocol::map::{PartitionInfo, PartitionSet};
use stoa_protocol::message::{BarrierAnswer, BarrierRequest, Caller, Kind, encode_request};
use stoa_protocol::{ErrorClass, LogIndex, NodeId, PartitionId, PartitionSetId};
use stoa_raft::{PartitionMachine, Replica};
use stoa_store::{Command, StoreOptions};

use super::{Hosted, LOOP_PAUSE, NODE_CALL_LIMIT, Node};

/// How long a voter that is not the preferred leader waits before it forms a group that nobody has formed.
const FORM_PATIENCE: Duration = Duration::from_secs(3);

/// How long one replica may take to reach its barrier before the barrier is asked again.
const CATCH_UP_STEP: Duration = Duration::from_millis(500);

/// Starts the replicas that the root state places here, and forms their groups.
pub(crate) async fn host_partitions<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut unformed: BTreeMap<PartitionId, BootTime> = BTreeMap::new();
    loop {
        let Some(strong) = node.upgrade() else { return };
        let state = strong.state();
        for set in &state.map.sets {
            for partition in &set.partitions {
                if partition.replicas.iter().any(|replica| replica.node == strong.info.id) {
                    host_one(&strong, set, partition, &mut unformed).await;
                }
            }
        }
        drop((strong, state));
        tokio::time::sleep(LOOP_PAUSE).await;
    }
}

async fn host_one<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    set: &PartitionSet,
    partition: &PartitionInfo,
    unformed: &mut BTreeMap<PartitionId, BootTime>,
) {
    let now = node.env.context.clock.boot();
    if node.hosted(partition.id).is_none() {
        if node.failure(partition.id).is_some() {
            return;
        }
        match start_one(node, set, partition).await {
            Ok(hosted) => {
                let mut partitions = node.partitions.write().unwrap_or_else(|e| e.into_inner());
                partitions.insert(partition.id, Arc::new(hosted));
                unformed.insert(partition.id, now);
            }
            Err(error) => return node.set_failure(partition.id, error.to_string()),
        }
    }
    let Some(since) = unformed.get(&partition.id) else { return };
    let Some(hosted) = node.hosted(partition.id) else { return };
    if hosted.replica.is_formed().await {
        unformed.remove(&partition.id);
        return;
    }
    let preferred = partition.replicas.first().map(|replica| replica.node) == Some(node.info.id);
    if preferred || now.since(*since) > FORM_PATIENCE {
        let members: Vec<_> = partition.replicas.iter().map(|replica| (replica.id, replica.node)).collect();
        if let Err(error) = hosted.replica.form(&members).await {
            tracing::warn!(partition = partition.id.0, %error, "forming a group");
        }
    }
}

async fn start_one<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    set: &PartitionSet,
    partition: &PartitionInfo,
) -> std::io::Result<Hosted<D>> {
    let mine = partition.replicas.iter().find(|replica| replica.node == node.info.id);
    let id = mine.map(|replica| replica.id).ok_or_else(|| std::io::Error::other("no replica of it is placed here"))?;
    let options = StoreOptions {
        index_seed: node.state().index_seed(partition.id).ok_or_else(|| std::io::Error::other("its set has no seed"))?,
        incarnation: set.incarnation,
        logical_bytes_max: Some(node.options.partition_bytes_max),
    };
    let (machine, view) = PartitionMachine::new(options);
    let recovered = node.take_recovered(partition.id);
    let replica = Replica::start(&node.env, partition.id, id, machine, recovered).await?;
    Ok(Hosted { replica, view, barrier: Mutex::new(None) })
}

/// The house-keeping of all replicas: schema, catching up, snapshots.
pub(crate) async fn keep_house<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        strong.teach_schemas().await;
        strong.catch_up().await;
        strong.cut_logs().await;
        drop(strong);
        tokio::time::sleep(LOOP_PAUSE).await;
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// The partition set of a partition.
    fn set_of(&self, partition: PartitionId) -> Option<PartitionSetId> {
        let state = self.state();
        state.map.sets.iter().find(|set| set.partitions.iter().any(|p| p.id == partition)).map(|set| set.id)
    }

    /// Partitions that this node leads learn the groups of the catalog that they do not know yet.
    async fn teach_schemas(&self) {
        let state = self.state();
        for hosted in self.all_hosted() {
            if !hosted.replica.leads() {
                continue;
            }
            let set = self.set_of(hosted.replica.partition());
            let known = hosted.view.definitions();
            for (_, group) in state.groups.iter().filter(|(_, group)| Some(group.set) == set) {
                if known.iter().any(|k| k.id == group.id && k.schema_version >= group.schema_version) {
                    continue;
                }
                let command = Command::Define(group.clone()).encode();
                match hosted.replica.propose(command, NODE_CALL_LIMIT).await.map(|reply| reply.outcome) {
                    Ok(Some(Err(error))) => tracing::error!(group = group.full_name(), %error, "a schema was refused"),
                    Ok(_) => {}
                    Err(error) if error.code.class() == ErrorClass::Stop => break,
                    Err(error) => {
                        tracing::debug!(partition = hosted.replica.partition().0, %error, "teaching a schema");
                        break;
                    }
                }
            }
        }
    }

    /// Replicas that do not serve yet ask their leaders for a confirmed commit index, one message per node, and serve
    /// once they have applied it.
    async fn catch_up(&self) {
        let mut ask: BTreeMap<NodeId, Vec<Arc<Hosted<D>>>> = BTreeMap::new();
        for hosted in self.all_hosted() {
            if hosted.replica.is_caught_up() || hosted.replica.trouble().is_some() {
                continue;
            }
            let barrier = *hosted.barrier.lock().unwrap_or_else(|e| e.into_inner());
            match barrier {
                Some(index) if hosted.view.reader().applied() >= index => hosted.replica.set_caught_up(),
                Some(_) => {}
                None => ask.extend_leader(hosted),
            }
        }
        for (leader, group) in ask {
            let partitions: Vec<PartitionId> = group.iter().map(|hosted| hosted.replica.partition()).collect();
            let request = BarrierRequest { partitions };
            let answer = match leader == self.info.id {
                true => Some(self.barriers(&request, CATCH_UP_STEP).await),
                false => {
                    let body = encode_request(&Caller::default(), &request);
                    let sent =
                        self.env.peers.call(leader, Channel::Liveness, Kind::Barrier, &body, CATCH_UP_STEP).await;
                    sent.ok().and_then(|bytes| BarrierAnswer::from_bytes(&bytes).ok())
                }
            };
            for (hosted, index) in group.iter().zip(answer.map(|a| a.committed).unwrap_or_default()) {
                *hosted.barrier.lock().unwrap_or_else(|e| e.into_inner()) = index;
            }
        }
    }

    /// Confirmed commit indices of partitions that this node leads.
    pub(crate) async fn barriers(&self, request: &BarrierRequest, limit: Duration) -> BarrierAnswer {
        let mut committed: Vec<Option<LogIndex>> = Vec::with_capacity(request.partitions.len());
        for partition in &request.partitions {
            let index = match self.hosted(*partition) {
                Some(hosted) => hosted.replica.barrier(limit).await.ok(),
                None => None,
            };
            committed.push(index);
        }
        BarrierAnswer { committed }
    }

    /// Takes snapshots of groups whose log has grown, and of those that keep old segments of the log from going.
    async fn cut_logs(&self) {
        let stats = self.env.wal.stats();
        let pressed = stats.live_bytes > self.options.wal.max_live_bytes / 2;
        for hosted in self.all_hosted() {
            let size = hosted.replica.log_size();
            let pins = pressed && stats.pinning.contains(&hosted.replica.partition().0) && size.entries > 0;
            if size.bytes > self.options.snapshot_log_bytes || pins {
                hosted.replica.trigger_snapshot().await;
            }
        }
        if let Some(root) = self.root_replica() {
            let size = root.log_size();
            let pins = pressed && stats.pinning.contains(&root.partition().0) && size.entries > 0;
            if size.bytes > self.options.snapshot_log_bytes || pins {
                root.trigger_snapshot().await;
            }
        }
    }
}

trait AskLeaders<D: Disk> {
    fn extend_leader(&mut self, hosted: Arc<Hosted<D>>);
}

impl<D: Disk> AskLeaders<D> for BTreeMap<NodeId, Vec<Arc<Hosted<D>>>> {
    fn extend_leader(&mut self, hosted: Arc<Hosted<D>>) {
        let replica: &Replica<D, PartitionMachine> = &hosted.replica;
        if let Some(leader) = replica.leader() {
            self.entry(leader).or_default().push(hosted);
        }
    }
}
