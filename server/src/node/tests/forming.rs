//! Who may be part of the cluster, and how one learns that one may not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use stoa_protocol::map::NodeInfo;
use stoa_protocol::message::{JoinRequest, Kind};
use stoa_protocol::{ClusterId, ErrorCode, NodeId};
use stoa_raft::root::state::SPOKEN_VERSIONS;

use super::cluster::{CLUSTER, Cluster, addr, end_of, until};
use super::hosting::refusal;
use crate::node::NODE_CALL_LIMIT;

#[tokio::test]
async fn a_first_member_without_its_data_learns_from_any_other_that_it_must_form_nothing() {
    for (wiped, silent) in [(3, None), (1, Some(2))] {
        let mut cluster = Cluster::formed(1, 3).await;
        cluster.wipe(wiped).await;
        if let Some(silent) = silent {
            cluster.stop(silent).await;
        }
        let node = cluster.start(wiped).await;
        until("it says why", || refusal(&node).contains(&format!("stoa replica replace --node {wiped}"))).await;
        assert!(!node.root_replica().unwrap().is_formed().await);
    }
}

#[tokio::test]
async fn a_node_that_was_not_among_the_first_members_is_told_so() {
    let mut cluster = Cluster::formed(1, 3).await;
    cluster.stop(3).await;
    let mut options = cluster.options(6);
    options.root[2] = crate::node::RootMember { node: NodeId(6), zone: "c".into(), addr: addr(6) };
    let node = cluster.start_with(options).await.unwrap();
    let why = end_of(&node).await;
    assert!(why.contains("node 6 is not among") && why.contains("nodes 1, 2, 3"), "{why}");
}

#[tokio::test]
async fn a_join_that_is_refused_changes_no_address() {
    let cluster = Cluster::formed(1, 3).await;
    let leader = cluster.root_leader().await;
    let other = (1..=3).map(NodeId).find(|id| *id != leader.info().id).unwrap();
    let elsewhere: SocketAddr = ([127, 0, 0, 1], 9_999).into();
    let known = leader.state().map.node(other).cloned().unwrap();
    let node = NodeInfo { incarnation: known.incarnation ^ 1, addr: elsewhere, ..known };
    let request = JoinRequest { cluster: CLUSTER, node, versions: SPOKEN_VERSIONS };
    let error = leader.take_join(&request, NODE_CALL_LIMIT).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongIdentity);
    assert_eq!(leader.env.peers.addr(other), Some(addr(other.0)));
}

#[tokio::test]
async fn a_node_whose_authority_nobody_else_has_ends_and_says_so() {
    let mut cluster = Cluster::new(1, 3);
    cluster.net.estrange(3);
    // It is there first, and finds out when the others come.
    let stranger = cluster.start(3).await;
    for node in 1..=2 {
        cluster.start(node).await;
    }
    let why = end_of(&stranger).await;
    assert!(why.contains("another authority's") && why.contains(&addr(1).to_string()), "{why}");
    assert!(cluster.node(1).fatal.borrow().is_none(), "one stranger is no reason for the others to end");
}

#[tokio::test]
async fn a_stranger_ends_even_if_one_of_its_neighbours_is_silent() {
    // Before it was ever in the cluster, and when it has been in it: both have an answer of one neighbour alone.
    let mut new = Cluster::new(1, 3);
    let mut old = Cluster::formed(1, 3).await;
    for node in 2..=3 {
        old.stop(node).await;
    }
    for cluster in [&mut new, &mut old] {
        cluster.net.estrange(3);
        let stranger = cluster.start(3).await;
        if !cluster.runs(1) {
            cluster.start(1).await;
        }
        until("its status says so", || {
            let replicas = stranger.status().replicas;
            replicas.iter().any(|replica| replica.trouble.contains("another authority's"))
        })
        .await;
        let why = end_of(&stranger).await;
        assert!(why.contains("another authority's") && why.contains(&addr(1).to_string()), "{why}");
    }
}

#[tokio::test]
async fn one_stranger_does_not_keep_the_others_apart() {
    let mut cluster = Cluster::new(1, 3);
    cluster.net.estrange(3);
    cluster.start(3).await;
    let good = cluster.start(1).await;
    until("it has met the stranger", || good.neighbours.trouble().is_some()).await;
    cluster.start(2).await;
    until("it has met the other one", || good.neighbours.trouble().is_none()).await;
    assert!(good.fatal.borrow().is_none());
}

#[tokio::test]
async fn a_node_whose_neighbours_are_strangers_touches_no_file() {
    let mut cluster = Cluster::formed(1, 3).await;
    cluster.stop(3).await;
    cluster.net.estrange(3);
    let before = files(&cluster.dir(3));
    let Err(error) = cluster.try_start(3).await else { panic!("it started") };
    assert!(error.to_string().contains("one authority (tls)"), "{error}");
    assert_eq!(files(&cluster.dir(3)), before);
    // Another cluster's id is as strange.
    let options = crate::node::NodeOptions { cluster: ClusterId(0x99), ..cluster.options(4) };
    let Err(error) = cluster.start_with(options).await else { panic!("it started") };
    let error = error.to_string();
    assert!(
        error.contains("is of cluster 00000000000000000000000000000017, not 0000") && error.contains("cluster.id"),
        "{error}"
    );
    assert_eq!(files(&cluster.dir(4)), []);
}

/// All files below a directory, with their bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => all.push((path.clone(), std::fs::read(path).unwrap())),
            }
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn nothing_that_is_held_goes_over_the_channel_of_votes() {
    let cluster = Cluster::formed(4, 4).await;
    let held = [Kind::Watch, Kind::Barrier, Kind::Join];
    until("all kinds were sent", || held.iter().all(|kind| !cluster.net.channels_of(*kind).is_empty())).await;
    for kind in held {
        assert!(!cluster.net.channels_of(kind).contains(&stoa_env::Channel::Liveness), "{kind:?}");
    }
}
