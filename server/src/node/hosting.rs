//! The node's replicas: started as the root state says, their groups formed; stopped and erased when they have been
//! replaced.
//!
//! A replica may vote, and has voted: it is started by the data directory that it was placed on, and by no other, and
//! never on files that are not its own. What the files are of stands beside them ([`Life`]). With R the replica that the
//! root state places here, and M the one that the files are of:
//!
//! | found | done |
//! |---|---|
//! | nothing | R starts, empty: nobody has spoken here |
//! | M = R | R goes on |
//! | M < R, or R is begun | what M left is erased, once it is spared, and R starts, empty |
//! | M > R, or R is gone | nothing: this copy of the root state is old |
//! | no R, M known to the root state | M was replaced: it is stopped and erased, once it is spared |
//!
//! A replica that gives its place to one on its own node, or whose move has been redirected, is still a voter of its group,
//! and what was acknowledged may lie on its disk and one other. So before it is stopped, and again when it is, the leader
//! is asked whether the group can spare it ([`Replica::can_spare`]): all other voters have everything. The answer holds
//! from the stop on, since nothing is acknowledged with its help any more. A node that starts anew meanwhile asks anew, and
//! starts the voter once more if it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Disk, JoinSet, Transport, planted};
use stoa_protocol::map::{NodeInfo, PartitionInfo, PartitionSet};
use stoa_protocol::message::{Caller, Kind, SpareRequest, encode_request};
use stoa_protocol::{FeatureGroupId, MapVersion, NodeId, PartitionId, ROOT_PARTITION, ReplicaId};
use stoa_raft::root::RootState;
use stoa_raft::root::command::FIRST_REPLICAS;
use stoa_raft::root::moves::NO_INCARNATION;
use stoa_raft::{Life, PartitionMachine, Replica};
use stoa_store::{LaneOrders, StoreOptions};

use super::failures::Failure;
use super::{HELD_CALLS, Hosted, LOOP_PAUSE, Node};

/// How long a voter that is not the preferred leader waits before it forms a group that nobody has formed.
const FORM_PATIENCE: Duration = Duration::from_secs(3);

/// How long a replica that is to be stopped waits for another one to lead, to which it may hand leadership over.
const HANDOVER_LIMIT: Duration = Duration::from_secs(1);

/// How long a leader may take to say whether its group can spare a voter, and the pause before it is asked again.
const SPARE_LIMIT: Duration = Duration::from_millis(300);
const SPARE_PAUSE: Duration = Duration::from_millis(500);

/// What the loop remembers between two looks.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Replicas whose group may not have been formed, and since when they run.
    unformed: BTreeMap<PartitionId, BootTime>,
    /// Replicas that are to be stopped, and since when they wait for another one to lead.
    leaving: BTreeMap<PartitionId, BootTime>,
    /// Voters that are to go, and when their groups were last asked to spare them.
    asked: BTreeMap<PartitionId, BootTime>,
    /// Voters that this process has stopped: it knows no more what their log has, and does not start them again.
    stopped: BTreeSet<PartitionId>,
    /// Whether a group has been asked in this look.
    asking: bool,
    /// What [`Looks::lane_orders`] said last, and of which root state.
    lane_orders: Option<(MapVersion, Arc<LaneOrders>)>,
}

impl Looks {
    /// In which order replicas that start now pack their columns into lanes: by the views of the catalog as this node knows it. A
    /// replica keeps to that for as long as it runs, whatever views come, and another one of its partition may know others: it
    /// costs lines of the cache and nothing else.
    fn lane_orders(&mut self, state: &RootState) -> Arc<LaneOrders> {
        let version = state.map.version;
        let known = self.lane_orders.take().filter(|(of, _)| *of == version);
        let (_, orders) = self.lane_orders.insert(known.unwrap_or_else(|| (version, Arc::new(orders_of(state)))));
        orders.clone()
    }
}

fn orders_of(state: &RootState) -> LaneOrders {
    LaneOrders::by_views(state.views.iter().flat_map(|(_, view)| {
        let mut groups: BTreeMap<FeatureGroupId, Vec<u16>> = BTreeMap::new();
        view.features.iter().for_each(|feature| groups.entry(feature.group).or_default().push(feature.feature));
        groups
    }))
}

/// Keeps the replicas on this node as the root state says.
pub(crate) async fn host_partitions<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut looks = Looks::default();
    loop {
        let Some(strong) = node.upgrade() else { return };
        host_placed(&strong, &mut looks).await;
        drop(strong);
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}

/// One look at the map: starts what is placed here and has not been started, forms what nobody has formed, stops and
/// erases what has been replaced.
pub(super) async fn host_placed<D: Disk, T: Transport>(node: &Arc<Node<D, T>>, looks: &mut Looks) {
    let state = node.state();
    let Some(known) = state.map.node(node.info.id) else { return };
    if known.incarnation != node.info.incarnation && !planted!(ReuseNodeId) {
        // Its data was given up: it joins anew, and then its replicas are built anew.
        if known.incarnation == NO_INCARNATION {
            return;
        }
        let why = format!(
            "the cluster knows node {} with the data directory {:016x}, and this one is {:016x}",
            known.id, known.incarnation, node.info.incarnation
        );
        return match node.all_hosted().is_empty() {
            true => node.refuse_data(why),
            false => node.fail(format!("{why}: another process has taken this number")),
        };
    }
    node.accept_data();
    looks.asking = false;
    for set in &state.map.sets {
        for partition in &set.partitions {
            host_one(node, &state, set, partition, looks).await;
        }
    }
}

async fn host_one<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    state: &RootState,
    set: &PartitionSet,
    partition: &PartitionInfo,
    looks: &mut Looks,
) {
    let placed = state.replica_on(partition, node.info.id);
    if let Some(hosted) = node.hosted(partition.id) {
        if placed == Some(hosted.replica.id()) {
            return form_if_nobody_has(node, partition, &hosted, looks).await;
        }
        if !is_spared(node, state, partition, hosted.replica.id(), looks).await {
            return;
        }
        if !stop_replaced(node, &hosted, looks).await {
            // The next look asks at once whether it can be spared still: an election takes less than the pause.
            looks.asked.remove(&partition.id);
            return;
        }
        looks.asked.remove(&partition.id);
    }
    let done = match placed {
        Some(replica) => start_placed(node, state, set, partition, replica, looks).await,
        None => erase_replaced(node, state, partition, looks).await,
    };
    if let Err(error) = done {
        let replica = placed.unwrap_or_default();
        node.fail_replica(partition.id, Failure::of_start(replica, &error, node.env.context.clock.boot()));
    }
}

/// Stops a replica that the root state does not place here any more; false if it should wait for another one to lead: the
/// vote that it gives may be the one that counts.
async fn stop_replaced<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    hosted: &Arc<Hosted<D>>,
    looks: &mut Looks,
) -> bool {
    let partition = hosted.replica.partition();
    let now = node.env.context.clock.boot();
    let since = *looks.leaving.entry(partition).or_insert(now);
    let leads = hosted.replica.leads();
    let follows = hosted.replica.leader().is_some_and(|leader| leader != node.info.id);
    // One that is no member has no vote to give.
    let waits = leads || !follows && hosted.replica.is_member();
    if waits && now.since(since) < HANDOVER_LIMIT {
        // Asked again each time: a voter that lags now may have caught up at the next look.
        let voters = if leads { hosted.replica.voters() } else { Vec::new() };
        for (voter, _) in voters {
            if hosted.replica.transfer_leader(voter).await {
                break;
            }
        }
        return false;
    }
    tracing::info!(partition = partition.0, replica = hosted.replica.id().0, "a replica that was replaced is stopped");
    looks.leaving.remove(&partition);
    looks.unformed.remove(&partition);
    looks.stopped.insert(partition);
    node.partitions.write().unwrap_or_else(|e| e.into_inner()).remove(&partition);
    // What it has written is to be erased, now or at the next attempt.
    node.recovered.lock().unwrap_or_else(|e| e.into_inner()).entry(partition.0).or_default();
    hosted.replica.shutdown().await;
    true
}

/// Whether a replica's data may go: it is no voter of its group any more, or the group can do without it.
async fn is_spared<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    state: &RootState,
    partition: &PartitionInfo,
    replica: ReplicaId,
    looks: &mut Looks,
) -> bool {
    let Some(moved) = state.move_of(partition.id).filter(|moved| moved.from.id == replica) else { return true };
    let now = node.now();
    // One group a look: the other partitions must not wait for nodes that do not answer.
    if looks.asking || looks.asked.get(&partition.id).is_some_and(|asked| now.since(*asked) < SPARE_PAUSE) {
        return false;
    }
    looks.asking = true;
    looks.asked.insert(partition.id, now);
    if let Some(hosted) = node.hosted(partition.id).filter(|hosted| hosted.replica.leads()) {
        return hosted.replica.can_spare(replica, SPARE_LIMIT).await.is_ok();
    }
    let request = SpareRequest { partition: partition.id, replica };
    let body: Arc<[u8]> = encode_request(&Caller::default(), &request).into();
    let mut nodes: Vec<NodeId> = partition.replicas.iter().map(|replica| replica.node).collect();
    nodes.extend((!nodes.contains(&moved.to.node)).then_some(moved.to.node));
    let mut asks = JoinSet::new();
    for to in nodes.into_iter().filter(|to| *to != node.info.id) {
        let (node, body) = (node.clone(), body.clone());
        asks.spawn(async move { node.env.peers.call(to, HELD_CALLS, Kind::Spare, &body, SPARE_LIMIT).await });
    }
    // The leader alone answers with yes.
    while let Some(answered) = asks.join_next().await {
        match answered {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => {
                tracing::debug!(partition = partition.id.0, %error, "asking whether a replica can be spared");
            }
            Err(error) => tracing::error!(%error, "asking whether a replica can be spared"),
        }
    }
    false
}

/// Erases what a replica left that the root state does not place here any more, if it left anything.
async fn erase_replaced<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    state: &RootState,
    info: &PartitionInfo,
    looks: &mut Looks,
) -> std::io::Result<()> {
    let partition = info.id;
    let found = node.recovered.lock().unwrap_or_else(|e| e.into_inner()).contains_key(&partition.0);
    let failed = node.failure(partition);
    if (!found && failed.is_none())
        || failed.as_ref().is_some_and(|failure| !failure.may_pass(ReplicaId(0), node.now()))
    {
        return Ok(());
    }
    match node.env.life_of(partition).await? {
        // A replica that this copy of the root state has not heard of yet may be placed here.
        Some(life) if !state.knows_replica(life.id()) => return Ok(()),
        Some(Life::Lives(id)) if !is_spared(node, state, info, id, looks).await => return Ok(()),
        Some(life) => {
            node.env.end_life(partition, life.id()).await?;
            node.forget_recovered(partition);
        }
        // Nobody has spoken here; what the log has may stay until somebody does.
        None => {
            node.recovered.lock().unwrap_or_else(|e| e.into_inner()).remove(&partition.0);
            if let Some(failure) = failed {
                node.fail_replica(partition, Failure::of_replica(ReplicaId(0), failure.why));
            }
        }
    }
    Ok(())
}

/// Starts the replica that the root state places here; the table above.
async fn start_placed<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    state: &RootState,
    set: &PartitionSet,
    partition: &PartitionInfo,
    replica: ReplicaId,
    looks: &mut Looks,
) -> std::io::Result<()> {
    let failed = node.failure(partition.id);
    if failed.as_ref().is_some_and(|failure| !failure.may_pass(replica, node.now())) {
        return Ok(());
    }
    let life = node.env.life_of(partition.id).await?;
    match life {
        Some(Life::Lives(found)) if found == replica => {}
        Some(Life::Gone(found)) if found == replica => return Ok(()),
        Some(life) if life.id() > replica => return Ok(()),
        Some(Life::Lives(id)) if !is_spared(node, state, partition, id, looks).await => {
            // It is a voter by its own files, and needed. One that has doubts about them waits until it is not.
            let stopped = looks.stopped.contains(&partition.id);
            let failed = failed.is_some_and(|failure| !failure.may_pass(id, node.now()));
            if stopped || failed || node.damaged(partition.id, false).is_some() {
                return Ok(());
            }
            let hosted = match start_one(node, state, set, (partition.id, id), looks.lane_orders(state)).await {
                Ok(hosted) => hosted,
                // It is this one that failed, and not the one that is to take its place.
                Err(error) => {
                    node.fail_replica(partition.id, Failure::of_start(id, &error, node.now()));
                    return Ok(());
                }
            };
            node.forget_recovered(partition.id);
            node.partitions.write().unwrap_or_else(|e| e.into_inner()).insert(partition.id, Arc::new(hosted));
            return Ok(());
        }
        Some(_) => {
            node.env.begin_life(partition.id, replica).await?;
            node.forget_recovered(partition.id);
        }
        None => {}
    }
    // What was erased has no damage any more; all else that recovery has doubts about does not start.
    if let Some(damage) = node.damaged(partition.id, life.is_some_and(|life| life != Life::Lives(replica))) {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, damage));
    }
    let hosted = start_one(node, state, set, (partition.id, replica), looks.lane_orders(state)).await?;
    looks.stopped.remove(&partition.id);
    node.forget_recovered(partition.id);
    node.partitions.write().unwrap_or_else(|e| e.into_inner()).insert(partition.id, Arc::new(hosted));
    // Only the first replicas form a group. Where one of them has been replaced, the group has been formed, by them: to
    // form it again, with others, would give the same place in the log another meaning.
    if partition.replicas.iter().all(|other| other.id.0 <= FIRST_REPLICAS) && replica.0 <= FIRST_REPLICAS {
        looks.unformed.insert(partition.id, node.now());
    }
    Ok(())
}

async fn form_if_nobody_has<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    partition: &PartitionInfo,
    hosted: &Hosted<D>,
    looks: &mut Looks,
) {
    let Some(since) = looks.unformed.get(&partition.id).copied() else { return };
    if hosted.replica.is_formed().await || partition.replicas.iter().any(|other| other.id.0 > FIRST_REPLICAS) {
        looks.unformed.remove(&partition.id);
        return;
    }
    let preferred = partition.replicas.first().map(|replica| replica.node) == Some(node.info.id);
    if preferred || node.now().since(since) > FORM_PATIENCE {
        let mut members: Vec<_> = partition.replicas.iter().map(|replica| (replica.id, replica.node)).collect();
        let mate = |other: &&NodeInfo| other.zone == node.info.zone && other.id != node.info.id;
        if planted!(TwoReplicasInOneZone)
            && let Some(mate) = node.state().map.nodes.iter().find(mate)
        {
            members[2].1 = mate.id;
        }
        if let Err(error) = hosted.replica.form(&members).await {
            tracing::warn!(partition = partition.id.0, %error, "forming a group");
        }
    }
}

/// Starts a replica by what recovery found of it. That stays until the start has succeeded: a start that fails for a
/// reason that passes must not make the next one begin empty.
async fn start_one<D: Disk, T: Transport>(
    node: &Arc<Node<D, T>>,
    state: &RootState,
    set: &PartitionSet,
    (partition, replica): (PartitionId, ReplicaId),
    lane_orders: Arc<LaneOrders>,
) -> std::io::Result<Hosted<D>> {
    assert_ne!(partition, ROOT_PARTITION, "the root group is no partition of a set");
    let seed = state.index_seed(partition);
    let options = StoreOptions {
        index_seed: seed.ok_or_else(|| std::io::Error::other("its set has no seed"))?,
        incarnation: set.incarnation,
        logical_bytes_max: Some(node.options.partition_bytes_max),
        lane_orders,
        ..StoreOptions::default()
    };
    let clock = node.env.context.clock.clone();
    let (machine, view) = PartitionMachine::new(options, node.options.versions.1, clock);
    let mut recovered = node.recovered_of(partition);
    let started = Replica::start(&node.env, partition, replica, machine, &mut recovered).await;
    let replica = started.inspect_err(|_| node.keep_recovered(partition, recovered))?;
    Ok(Hosted::new(replica, view, node.now(), &node.gauges))
}
