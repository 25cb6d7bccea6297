//! Clusters of programs of several versions.

use std::time::Duration;

use stoa_protocol::key::KeyBlock;
use stoa_protocol::map::NodeInfo;
use stoa_protocol::message::{
    BarrierRequest, Caller, JoinRequest, Kind, PlacementRequest, ReplaceNode, ReplaceReplica, encode_request,
};
use stoa_protocol::read::{ConfirmBy, Projection, ReadLevel, ReadRequest, ReadSection};
use stoa_protocol::row_block::parse_answer;
use stoa_protocol::{ErrorCode, FeatureGroupId, LogIndex, NodeId, ReplicaId};
use stoa_raft::CallError;
use stoa_raft::root::state::{FIRST_VERSION, HEARTBEAT_VERSION, MOVES_VERSION, SPOKEN_VERSIONS};

use super::cluster::{CLUSTER, Cluster, TestNode, end_of, until};
use super::hosting::refusal;
use crate::node::{HELD_CALLS, NODE_CALL_LIMIT, NodeError, NodeOptions};

/// A node as a program starts it that speaks up to this version.
async fn start(cluster: &mut Cluster, node: u64, speaks: u32) -> Result<std::sync::Arc<TestNode>, NodeError> {
    let options = NodeOptions { versions: (SPOKEN_VERSIONS.0, speaks), ..cluster.options(node) };
    cluster.start_with(options).await
}

async fn restart(cluster: &mut Cluster, node: u64, speaks: u32) {
    cluster.stop(node).await;
    start(cluster, node, speaks).await.unwrap();
    until("what it speaks is known", || {
        cluster.node(node).state().spoken_by(NodeId(node)) == Some((SPOKEN_VERSIONS.0, speaks))
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_raised_once_every_node_speaks_the_next_version_and_not_lowered_again() {
    let mut cluster = Cluster::new(1, 3);
    for node in 1..=3 {
        start(&mut cluster, node, FIRST_VERSION).await.unwrap();
    }
    cluster.settle().await;
    let replace = |cluster: &Cluster| {
        let state = cluster.node(1).state();
        let partition = state.map.sets[0].partitions[0].id;
        let asked = PlacementRequest::Replica(ReplaceReplica { partition, replica: ReplicaId(77), to: NodeId(1) });
        let nodes: Vec<_> = (1..=3).map(|node| cluster.node(node)).collect();
        async move {
            let leader = nodes.iter().find(|node| node.root_replica().is_some_and(|root| root.leads()));
            leader.expect("somebody leads").place(asked, NODE_CALL_LIMIT).await.unwrap_err()
        }
    };
    let refused = replace(&cluster).await;
    assert_eq!(refused.code, ErrorCode::WrongVersion);
    assert!(refused.message.contains("1 (up to 1), 2 (up to 1), 3 (up to 1)"), "{}", refused.message);

    for (node, speaks) in [(1, MOVES_VERSION), (2, MOVES_VERSION), (1, FIRST_VERSION), (3, MOVES_VERSION)] {
        restart(&mut cluster, node, speaks).await;
    }
    assert_eq!(cluster.node(1).state().cluster_version, FIRST_VERSION, "node 1 has gone back");
    restart(&mut cluster, 1, MOVES_VERSION).await;
    until("the cluster is raised", || (1..=3).all(|n| cluster.node(n).state().cluster_version == MOVES_VERSION)).await;
    until("somebody leads", || (1..=3).any(|n| cluster.node(n).root_replica().is_some_and(|root| root.leads()))).await;
    assert_eq!(replace(&cluster).await.code, ErrorCode::NotFound, "it is taken, and there is no such replica");

    cluster.stop(2).await;
    let Err(error) = start(&mut cluster, 2, FIRST_VERSION).await else { panic!("a program of long ago starts") };
    let error = error.to_string();
    assert!(error.contains("the cluster is at version 2, and this node speaks 1 to 1"), "{error}");
    // One that has no copy of the state hears it from the others.
    let other = start(&mut cluster, 4, FIRST_VERSION).await.unwrap();
    let why = end_of(&other).await;
    assert!(why.contains("version 2") && why.contains("speaks"), "{why}");
}

#[tokio::test]
async fn a_leader_is_asked_for_what_its_program_knows_as_long_as_the_cluster_has_not_been_raised() {
    let mut cluster = Cluster::new(1, 3);
    for (node, speaks) in [(1, HEARTBEAT_VERSION - 1), (2, HEARTBEAT_VERSION - 1), (3, HEARTBEAT_VERSION)] {
        start(&mut cluster, node, speaks).await.unwrap();
    }
    cluster.settle().await;
    let node = cluster.node(3);
    let hosted = node.all_hosted().remove(0);
    let (partition, mut heirs) = (hosted.replica.partition(), hosted.replica.voters().into_iter().cycle());
    while hosted.replica.leader().is_none_or(|leader| leader == node.info().id) {
        hosted.replica.transfer_leader(heirs.next().expect("three voters, for ever").0).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = |level| ReadRequest {
        level,
        projections: vec![Projection { group: FeatureGroupId(1), schema_version: 1, features: Vec::new() }],
        keys: KeyBlock::new(),
        sections: vec![ReadSection { partition, at_least: LogIndex(0), projection: 0, first_key: 0, keys: 0 }],
    };
    let by_heartbeat = || request(ReadLevel::Linearizable { by: ConfirmBy::Heartbeat });
    until("it knows its age", || {
        hosted.freshness.note_read(node.now());
        hosted.freshness.reached(hosted.view.reader().applied()).is_some()
    })
    .await;
    // No group is defined, so what is confirmed is answered with that.
    let answer = node.read(&by_heartbeat(), NODE_CALL_LIMIT).await;
    let error = parse_answer(answer.into_body().into()).unwrap().remove(0).expect_err("there are no rows");
    assert_eq!(error.code, ErrorCode::SchemaNotReady, "{error}");

    let asked = BarrierRequest { by: ConfirmBy::Heartbeat, partitions: vec![partition] };
    let asked = [
        (Kind::Barrier, encode_request(&Caller::default(), &asked)),
        (Kind::Read, encode_request(&Caller::default(), &by_heartbeat())),
    ];
    let mut codes = Vec::new();
    for (kind, body) in asked {
        let call = async |to| node.env.peers.call(NodeId(to), HELD_CALLS, kind, &body, NODE_CALL_LIMIT).await;
        codes.push(match call(1).await {
            Err(CallError::Refused(error)) => Some(error.code),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        });
        let known = call(3).await;
        assert!(known.is_ok(), "{known:?}");
    }
    assert_eq!(codes, [Some(ErrorCode::BadRequest); 2], "of nodes and of clients");
}

#[tokio::test]
async fn a_node_whose_data_is_gone_speaks_for_itself_so_that_it_can_be_replaced() {
    let mut cluster = Cluster::new(1, 3);
    for node in 1..=3 {
        start(&mut cluster, node, FIRST_VERSION).await.unwrap();
    }
    cluster.settle().await;
    let lost = cluster.node(2).info().incarnation;
    // Another process under its number, while it lives.
    let stray = NodeInfo { incarnation: lost + 1, ..cluster.node(2).info().clone() };
    let stray = JoinRequest { cluster: CLUSTER, node: stray, versions: SPOKEN_VERSIONS };
    let leader = cluster.root_leader().await;
    let refused = leader.take_join(&stray, NODE_CALL_LIMIT).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::WrongIdentity);
    assert!(refused.message.contains("node 2 runs at"), "{}", refused.message);
    assert_eq!(leader.state().spoken_by(NodeId(2)), Some((FIRST_VERSION, FIRST_VERSION)));
    drop(leader);
    cluster.wipe(2).await;
    for node in [1, 3] {
        restart(&mut cluster, node, MOVES_VERSION).await;
    }
    let node = start(&mut cluster, 2, FIRST_VERSION).await.unwrap();
    until("it is refused", || !refusal(&node).is_empty()).await;
    let asked = || PlacementRequest::Node(ReplaceNode { node: NodeId(2), incarnation: lost });
    let refused = cluster.root_leader().await.place(asked(), NODE_CALL_LIMIT).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::WrongVersion);
    assert!(refused.message.contains("2 (up to 1)"), "{}", refused.message);

    drop(node);
    cluster.stop(2).await;
    let node = start(&mut cluster, 2, MOVES_VERSION).await.unwrap();
    until("the cluster is raised", || cluster.node(1).state().cluster_version == MOVES_VERSION).await;
    until("it is refused", || !refusal(&node).is_empty()).await;
    cluster.root_leader().await.place(asked(), NODE_CALL_LIMIT).await.unwrap();
    until("it is built anew", || {
        let state = node.state();
        state.map.node(NodeId(2)) == Some(node.info()) && state.moves.is_empty() && refusal(&node).is_empty()
    })
    .await;
    cluster.settle().await;
}
