//! The node's replicas: started as the root state says, and their groups formed.
//!
//! A replica may vote, and has voted: it is started by the data directory that it was placed on, and by no other. A node
//! that has lost its data and comes back with its old number gets the map like anybody else, with its old replicas in it;
//! were it to start them empty, it could help to elect a leader that lacks what it had acknowledged itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Disk, Transport};
use stoa_protocol::PartitionId;
use stoa_protocol::map::{PartitionInfo, PartitionSet};
use stoa_raft::{PartitionMachine, Replica};
use stoa_store::StoreOptions;

use super::{Hosted, LOOP_PAUSE, Node};

/// How long a voter that is not the preferred leader waits before it forms a group that nobody has formed.
const FORM_PATIENCE: Duration = Duration::from_secs(3);

/// Starts the replicas that the root state places here, and forms their groups.
pub(crate) async fn host_partitions<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut unformed: BTreeMap<PartitionId, BootTime> = BTreeMap::new();
    loop {
        let Some(strong) = node.upgrade() else { return };
        host_placed(&strong, &mut unformed).await;
        drop(strong);
        tokio::time::sleep(LOOP_PAUSE).await;
    }
}

/// One look at the map: starts what is placed here and has not been started, and forms what nobody has formed.
pub(super) async fn host_placed<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    unformed: &mut BTreeMap<PartitionId, BootTime>,
) {
    let state = node.state();
    let Some(known) = state.map.node(node.info.id) else { return };
    if known.incarnation != node.info.incarnation {
        return node.fail(format!(
            "the cluster knows node {} with the data directory {:016x}, and this one is {:016x}: its data is gone, so it \
             must not come back as itself; give it a new number, or bring its data directory back",
            known.id, known.incarnation, node.info.incarnation
        ));
    }
    for set in &state.map.sets {
        for partition in &set.partitions {
            if partition.replicas.iter().any(|replica| replica.node == node.info.id) {
                host_one(node, set, partition, unformed).await;
            }
        }
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
        if let Some(why) = node.lost_to_damage(partition.id) {
            return node.set_failure(partition.id, why);
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
        index_seed: node
            .state()
            .index_seed(partition.id)
            .ok_or_else(|| std::io::Error::other("its set has no seed"))?,
        incarnation: set.incarnation,
        logical_bytes_max: Some(node.options.partition_bytes_max),
    };
    let (machine, view) = PartitionMachine::new(options);
    let recovered = node.take_recovered(partition.id);
    let replica = Replica::start(&node.env, partition.id, id, machine, recovered).await?;
    Ok(Hosted::new(replica, view, node.env.context.clock.boot()))
}
