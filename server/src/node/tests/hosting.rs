//! Which replicas start, and which must not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stoa_protocol::codec::Wire;
use stoa_protocol::map::NodeInfo;
use stoa_protocol::message::{
    BarrierAnswer, BarrierRequest, Caller, Kind, PlacementRequest, ReplaceNode, ReplaceReplica, encode_request,
};
use stoa_protocol::read::ConfirmBy;
use stoa_protocol::{ErrorCode, NodeId, PartitionId, ROOT_PARTITION, ReplicaId};
use stoa_raft::Life;
use stoa_raft::root::RootState;
use stoa_raft::root::command::{CreateSet, Form, Join, RootCommand};

use super::cluster::{CLUSTER, Cluster, TestNode, addr, end_of, until};
use crate::node::hosting::{Looks, host_placed};
use crate::node::{HELD_CALLS, NODE_CALL_LIMIT};

/// A root state with a set of `partitions` on nodes 4, 5 and 6, the first of which is `first`.
fn placed(first: &NodeInfo, partitions: u32) -> RootState {
    let mut state = RootState::new(CLUSTER);
    let others = [(5, "b"), (6, "c")].map(|(id, zone)| NodeInfo {
        id: NodeId(id),
        zone: zone.into(),
        addr: addr(id),
        incarnation: id,
    });
    for node in [first.clone()].into_iter().chain(others) {
        state.apply(&RootCommand::Join(Join { node, version_min: 1, version_max: 1 })).unwrap();
    }
    let seed = 7;
    state.apply(&RootCommand::CreateSet(CreateSet { name: "shared".into(), partitions, seed })).unwrap();
    state.apply(&RootCommand::Form(Form { replicas: vec![], nodes: vec![] })).unwrap();
    state.map.version.0 = u64::from(partitions);
    state
}

fn ids(node: &TestNode) -> Vec<u64> {
    node.all_hosted().iter().map(|hosted| hosted.replica.partition().0).collect()
}

#[tokio::test]
async fn a_node_without_its_data_starts_none_of_the_replicas_that_it_had() {
    let mut cluster = Cluster::formed(4, 4).await;
    assert!(!ids(&cluster.node(4)).is_empty(), "node 4 has replicas to lose");
    cluster.wipe(4).await;
    // The map may be here long before the join is answered.
    cluster.net.lose(4, Kind::Join);
    let node = cluster.start(4).await;
    until("it says why", || refusal(&node).contains("stoa replica replace --node 4")).await;
    assert_eq!(ids(&node), Vec::<u64>::new());
}

/// Why the cluster does not take the node, if so.
pub(super) fn refusal(node: &TestNode) -> String {
    let troubles = node.status().replicas.into_iter().map(|replica| replica.trouble);
    troubles.filter(|trouble| trouble.contains("its data is gone")).collect()
}

#[tokio::test]
async fn a_node_without_its_data_is_built_anew_by_one_command_the_root_groups_replica_too() {
    let mut cluster = Cluster::formed(3, 3).await;
    let before = cluster.node(2).info().incarnation;
    let replicas = |node: &TestNode| -> Vec<u64> { node.all_hosted().iter().map(|h| h.replica.id().0).collect() };
    let old = replicas(&cluster.node(2));
    cluster.wipe(2).await;
    let node = cluster.start(2).await;
    until("it is refused", || !refusal(&node).is_empty()).await;
    let leader = cluster.root_leader().await;
    let asked = ReplaceNode { node: NodeId(2), incarnation: before };
    leader.place(PlacementRequest::Node(asked), NODE_CALL_LIMIT).await.unwrap();
    until("all has come to its end", || {
        let state = node.state();
        state.moves.is_empty() && state.retired.is_empty() && replicas(&node).len() == 3 && refusal(&node).is_empty()
    })
    .await;
    cluster.settle().await;
    assert!(replicas(&node).iter().zip(&old).all(|(new, old)| new != old), "no number comes back");
    let root = node.root_replica().unwrap();
    assert_eq!(root.members().voters.len(), 1);
    assert!(root.voters().contains(&(ReplicaId(node.info().incarnation), NodeId(2))));
    assert!(!root.voters().contains(&(ReplicaId(before), NodeId(2))));
    // And once more at the next start, on what it has now.
    drop((node, root, leader));
    cluster.stop(2).await;
    let node = cluster.start(2).await;
    cluster.settle().await;
    assert_eq!(refusal(&node), "");
}

#[tokio::test]
async fn a_replica_moves_within_its_zone_and_the_old_one_is_erased_for_good() {
    let mut cluster = Cluster::formed(2, 4).await;
    let leader = cluster.root_leader().await;
    let state = leader.state();
    let partition = state.map.sets[0].partitions.iter().find(|p| p.replicas.iter().any(|r| r.node.0 == 1)).unwrap();
    let from = *partition.replicas.iter().find(|r| r.node.0 == 1).unwrap();
    let id = partition.id;
    let old = cluster.node(1).hosted(id).unwrap();
    let asked = ReplaceReplica { partition: id, replica: from.id, to: NodeId(4) };
    leader.place(PlacementRequest::Replica(asked), NODE_CALL_LIMIT).await.unwrap();
    until("it has moved", || {
        let here = |node: u64| cluster.node(node).hosted(id).is_some();
        cluster.node(1).state().moves.is_empty() && here(4) && !here(1)
    })
    .await;
    cluster.settle().await;
    // Whoever holds the old one gets nothing from it.
    until("it has ended", || old.replica.trouble().is_some()).await;
    assert_eq!(old.replica.propose(Default::default(), NODE_CALL_LIMIT).await.unwrap_err().code, ErrorCode::ReplicaOut);
    let node = cluster.node(1);
    until("what it left is erased", || {
        let recovered = node.recovered.lock().unwrap();
        !recovered.contains_key(&id.0)
    })
    .await;
    assert_eq!(node.env.life_of(id).await.unwrap(), Some(Life::Gone(from.id)));
    // A copy of the root state from before does not bring it back.
    drop((node, old, leader));
    cluster.stop(1).await;
    let mut bytes = b"STOARS01".to_vec();
    state.put(&mut bytes);
    crc32fast::hash(&bytes).put(&mut bytes);
    std::fs::write(cluster.dir(1).join("root-state"), bytes).unwrap();
    [2, 3, 4].iter().for_each(|other| cluster.net.cut(1, *other));
    let node = cluster.start(1).await;
    assert_eq!(node.state().map.version, state.map.version);
    host_placed(&node, &mut Looks::default()).await;
    host_placed(&node, &mut Looks::default()).await;
    assert!(node.hosted(id).is_none(), "an old copy says that it is placed here, its files say that it is gone");
}

#[tokio::test]
async fn a_start_that_fails_for_a_reason_that_passes_is_tried_again_with_what_it_had() {
    let mut cluster = Cluster::new(1, 3);
    let node = cluster.start(4).await;
    let state = placed(node.info(), 1);
    let id = state.map.sets[0].partitions[0].id;
    node.take_state(Arc::new(state)).await;
    until("the replica has written", || node.hosted(id).is_some_and(|h| h.replica.log_size().entries > 0)).await;
    let entries = node.hosted(id).unwrap().replica.log_size();
    drop(node);
    cluster.stop(4).await;
    // A directory in the way of a snapshot's manifest: reading it gives no answer, which may pass.
    let way = cluster.dir(4).join(format!("snapshots/{id}/9-1-1/manifest"));
    std::fs::create_dir_all(&way).unwrap();
    let node = cluster.start(4).await;
    until("the start fails", || node.failure(id).is_some()).await;
    assert!(node.hosted(id).is_none());
    std::fs::remove_dir_all(way.parent().unwrap()).unwrap();
    until("it starts", || node.hosted(id).is_some()).await;
    assert_eq!(node.hosted(id).unwrap().replica.log_size(), entries, "nothing is forgotten by a start that failed");
    assert!(node.failure(id).is_none());
}

#[tokio::test]
async fn a_node_that_is_not_in_the_map_starts_nothing_that_is_placed_on_it() {
    let mut cluster = Cluster::new(1, 3);
    let node = cluster.start(4).await;
    let mut state = placed(node.info(), 2);
    state.map.nodes.retain(|known| known.id != node.info().id);
    node.take_state(Arc::new(state)).await;
    host_placed(&node, &mut Looks::default()).await;
    assert_eq!(ids(&node), Vec::<u64>::new());
    // Once it is there, they start.
    let mut state = placed(node.info(), 2);
    state.map.version.0 = 9;
    node.take_state(Arc::new(state)).await;
    until("the replicas start", || ids(&node).len() == 2).await;
}

/// The node's segments, oldest first.
fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let names = std::fs::read_dir(dir.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = names.filter(|path| path.extension().is_some_and(|end| end == "wal")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn damage_that_no_group_owns_keeps_every_group_out_that_the_log_does_not_know() {
    let mut cluster = Cluster::new(1, 3);
    let node = cluster.start(4).await;
    let info = node.info().clone();
    node.take_state(Arc::new(placed(&info, 1))).await;
    until("the replica has written", || node.all_hosted().iter().any(|h| h.replica.log_size().entries > 0)).await;
    let first = ids(&node);
    // By the copy of the root state a second partition was here as well; where the log had it is damaged now.
    node.take_state(Arc::new(placed(&info, 2))).await;
    drop(node);
    cluster.stop(4).await;
    let dir = cluster.dir(4);
    let damaged = segments(&dir);
    for path in &damaged {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[40] ^= 0xff;
        std::fs::write(path, bytes).unwrap();
    }
    let expected: Vec<PartitionId> = placed(&info, 2).map.sets[0].partitions.iter().map(|p| p.id).collect();
    for start in 0..2 {
        let node = cluster.start(4).await;
        host_placed(&node, &mut Looks::default()).await;
        assert_eq!(ids(&node), Vec::<u64>::new(), "start {start}, {first:?} was there before");
        let status = node.status();
        for partition in &expected {
            let replica = status.replicas.iter().find(|replica| replica.partition == *partition);
            let trouble = replica.map(|replica| replica.trouble.clone()).unwrap_or_default();
            assert!(trouble.contains("damage"), "start {start}, partition {partition}: {trouble:?}");
        }
        drop(node);
        cluster.stop(4).await;
        // The damaged files go, as old segments do in time: what they may have held is as lost as before.
        damaged.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

#[tokio::test]
async fn a_log_without_segments_is_gone_whatever_else_lies_beside_it() {
    let mut cluster = Cluster::new(1, 3);
    cluster.start(4).await;
    cluster.stop(4).await;
    let dir = cluster.dir(4);
    segments(&dir).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    std::fs::write(dir.join("wal/reserve"), [0; 16]).unwrap();
    let Err(error) = cluster.try_start(4).await else { panic!("it started") };
    assert!(error.to_string().contains("its log is gone"), "{error}");
}

#[tokio::test]
async fn a_log_without_its_identity_is_nobodys() {
    let mut cluster = Cluster::new(1, 3);
    let node = cluster.start(4).await;
    node.take_state(Arc::new(placed(node.info(), 1))).await;
    until("the replica has written", || node.all_hosted().iter().any(|h| h.replica.log_size().entries > 0)).await;
    drop(node);
    cluster.stop(4).await;
    std::fs::remove_file(cluster.dir(4).join("identity")).unwrap();
    let Err(error) = cluster.try_start(4).await else { panic!("it started") };
    assert!(error.to_string().contains("identity is gone"), "{error}");
    assert!(!cluster.dir(4).join("identity").exists());
}

#[tokio::test]
async fn a_barrier_of_one_partition_waits_for_no_dead_one() {
    let cluster = Cluster::formed(12, 3).await;
    let led = |node: &TestNode| -> Vec<PartitionId> {
        node.all_hosted().iter().filter(|h| h.replica.leads()).map(|h| h.replica.partition()).collect()
    };
    let leader = || (1..=3).map(|id| cluster.node(id)).find(|node| led(node).len() >= 4);
    until("a node leads four partitions", || leader().is_some()).await;
    let leader = leader().unwrap();
    let partitions = led(&leader);
    let (alive, dead) = partitions.split_last().unwrap();
    let others: Vec<_> = (1..=3).map(|id| cluster.node(id)).filter(|n| n.info().id != leader.info().id).collect();
    dead.iter().for_each(|partition| cluster.net.silence(*partition));
    let request = BarrierRequest { by: ConfirmBy::ReadIndex, partitions: partitions.clone() };
    let body = encode_request(&Caller::default(), &request);
    // Less than three dead partitions take one after the other; a busy machine may need more than one attempt.
    let limit = Duration::from_millis(800);
    let to = leader.info().id;
    for _ in 0..20 {
        let answer = others[0].env.peers.call(to, HELD_CALLS, Kind::Barrier, &body, limit).await;
        let answer = answer.ok().map(|bytes| BarrierAnswer::from_bytes(&bytes).unwrap());
        let committed = answer.map(|answer| answer.committed).unwrap_or_default();
        assert!(committed.iter().take(dead.len()).all(Option::is_none), "{committed:?}");
        if committed.last().is_some_and(Option::is_some) {
            return;
        }
    }
    panic!("partition {alive} has a quorum and no barrier");
}

#[tokio::test]
async fn a_panic_in_a_task_of_the_node_ends_the_node() {
    let mut cluster = Cluster::new(1, 3);
    let node = cluster.start(4).await;
    node.spawn_vital("count sheep", async { panic!("the wolf") });
    let why = end_of(&node).await;
    assert!(why.contains("count sheep") && why.contains("the wolf"), "{why}");
}

#[tokio::test]
async fn a_follower_without_a_leader_says_so_and_serves_on() {
    let cluster = Cluster::formed(1, 3).await;
    let trouble = |node: u64| -> Vec<String> {
        let replicas = cluster.node(node).status().replicas;
        replicas.into_iter().filter(|r| r.partition != ROOT_PARTITION).map(|r| r.trouble).collect()
    };
    let leads = |id: u64| cluster.node(id).all_hosted().iter().any(|hosted| hosted.replica.leads());
    until("the partition has a leader", || (1..=3).any(leads)).await;
    let follower = (1..=3).find(|id| !leads(*id)).unwrap();
    let followed = || cluster.node(follower).all_hosted()[0].followed.load(Ordering::Relaxed);
    let before = followed();
    until("it hears from its leader", || followed() > before).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != follower).collect();
    others.iter().for_each(|other| cluster.net.cut(follower, *other));
    until("it says so", || trouble(follower)[0].contains("heard from no leader")).await;
    until("the others are as they were", || others.iter().all(|other| trouble(*other)[0].is_empty())).await;
    assert!(cluster.node(follower).all_hosted()[0].replica.is_caught_up(), "it serves on");
}
