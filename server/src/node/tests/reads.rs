//! Multi-gets on one node.

use std::sync::Arc;
use std::time::Duration;

use stoa_protocol::key::KeyBlock;
use stoa_protocol::read::{ConfirmBy, OnStale, Projection, ReadLevel, ReadRequest, ReadSection, SectionHead};
use stoa_protocol::row_block::parse_answer;
use stoa_protocol::{ErrorBody, ErrorCode, FeatureGroupId, LogIndex, PartitionId};

use stoa_raft::root::RootCommand;
use stoa_raft::root::command::Definitions;

use super::cluster::{Cluster, TestNode, until};

#[tokio::test]
async fn a_section_that_is_late_takes_no_other_one_with_it() {
    let cluster = Cluster::formed(2, 3).await;
    let node = cluster.node(1);
    until("both replicas serve", || node.all_hosted().iter().filter(|h| h.replica.is_caught_up()).count() == 2).await;
    let partitions: Vec<PartitionId> = node.all_hosted().iter().map(|hosted| hosted.replica.partition()).collect();
    let section = |at: usize, at_least: u64| ReadSection {
        partition: partitions[at],
        at_least: LogIndex(at_least),
        projection: 0,
        first_key: 0,
        keys: 0,
    };
    // No group is defined, so what is answered at all is answered with that.
    let request = ReadRequest {
        level: ReadLevel::default(),
        projections: vec![Projection { group: FeatureGroupId(1), schema_version: 1, features: Vec::new() }],
        keys: KeyBlock::new(),
        sections: vec![section(0, u64::MAX), section(1, 0), section(1, u64::MAX)],
    };
    let answer = node.read(&request, Duration::from_millis(200)).await;
    let answer = parse_answer(answer.into_body().into()).unwrap();
    let codes: Vec<_> = answer.into_iter().map(|result| result.expect_err("there are no rows").code).collect();
    assert_eq!(codes, [ErrorCode::NotCaughtUp, ErrorCode::SchemaNotReady, ErrorCode::NotCaughtUp]);
}

const CATALOG: &str = "
kind: project
name: shop
---
kind: entity
name: item
keys: [{name: id, type: Int64}]
---
kind: feature_group
project: shop
name: row
version: 1
entity: item
event_time: event_time
features: [{name: number, type: Int64}]
";

/// Three nodes, one partition, and a group that all three replicas have learnt.
async fn cluster_with_group() -> (Cluster, ReadRequest) {
    let cluster = Cluster::formed(1, 3).await;
    let definitions = crate::definitions::parse_definitions("catalog", CATALOG).unwrap();
    let root = cluster.root_leader().await;
    let command = RootCommand::Define(Definitions { definitions });
    root.propose_to_root(command, Duration::from_secs(10)).await.unwrap();
    let known = |node| cluster.node(node).all_hosted().iter().all(|hosted| !hosted.view.definitions().is_empty());
    until("all replicas know the group", || (1..=3).all(known)).await;
    let hosted = cluster.node(1).all_hosted().remove(0);
    let group = hosted.view.definitions()[0].id;
    let partition = hosted.replica.partition();
    let request = ReadRequest {
        level: ReadLevel::default(),
        projections: vec![Projection { group, schema_version: 1, features: Vec::new() }],
        keys: KeyBlock::new(),
        sections: vec![ReadSection { partition, at_least: LogIndex(0), projection: 0, first_key: 0, keys: 0 }],
    };
    (cluster, request)
}

async fn read(
    node: &Arc<TestNode>,
    request: &ReadRequest,
    level: ReadLevel,
    limit_ms: u64,
) -> Result<SectionHead, ErrorBody> {
    let request = ReadRequest { level, ..request.clone() };
    let answer = node.read(&request, Duration::from_millis(limit_ms)).await;
    parse_answer(answer.into_body().into()).unwrap().remove(0).map(|rows| rows.head)
}

fn local(max_ms: u64, on_stale: OnStale) -> ReadLevel {
    ReadLevel::Local { max_staleness: Some(Duration::from_millis(max_ms)), on_stale }
}

const STRONG: [ReadLevel; 3] = [
    ReadLevel::Linearizable { by: ConfirmBy::ReadIndex },
    ReadLevel::Linearizable { by: ConfirmBy::Lease },
    ReadLevel::Linearizable { by: ConfirmBy::Heartbeat },
];

#[tokio::test]
async fn every_replica_answers_at_every_level_and_says_how_old_it_is() {
    let (cluster, request) = cluster_with_group().await;
    for node in (1..=3).map(|node| cluster.node(node)) {
        for level in STRONG {
            let answer = read(&node, &request, level, 10_000).await.unwrap();
            assert_eq!((answer.age, answer.stale), (Some(Duration::ZERO), false));
        }
        for (max_ms, on_stale) in [(5_000, OnStale::Refuse), (5_000, OnStale::Serve), (0, OnStale::Refuse)] {
            // What was asked before the read came is not young enough for a bound of nothing: the leader is asked then.
            let answer = read(&node, &request, local(max_ms, on_stale), 10_000).await.unwrap();
            assert!(!answer.stale && answer.age.is_some(), "{answer:?}");
        }
        let age = read(&node, &request, ReadLevel::default(), 1_000).await.unwrap().age;
        assert!(age.is_some_and(|age| age > Duration::ZERO && age < Duration::from_secs(10)), "{age:?}");
    }
}

#[tokio::test]
async fn a_replica_without_its_leader_grows_old_says_so_and_refuses_what_it_cannot_promise() {
    let (cluster, request) = cluster_with_group().await;
    let led = |node: &u64| cluster.node(*node).all_hosted()[0].replica.leads();
    until("the partition has a leader", || (1..=3).any(|node| led(&node))).await;
    let alone = (1..=3).find(|node| !led(node)).unwrap();
    let node = cluster.node(alone);
    read(&node, &request, STRONG[0], 10_000).await.unwrap();
    (1..=3).filter(|other| *other != alone).for_each(|other| cluster.net.cut(alone, other));
    let age = async || read(&node, &request, ReadLevel::default(), 1_000).await.unwrap().age.unwrap();
    let mut last = age().await;
    while last < Duration::from_millis(700) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        last = age().await;
    }
    let answer = read(&node, &request, local(100, OnStale::Serve), 200).await.unwrap();
    assert!(answer.stale && answer.age > Some(Duration::from_millis(100)), "{answer:?}");
    let answer = read(&node, &request, local(3_600_000, OnStale::Refuse), 200).await.unwrap();
    assert!(!answer.stale, "an hour is allowed");
    let error = read(&node, &request, local(100, OnStale::Refuse), 200).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Stale, "{error}");
    for level in STRONG {
        assert_eq!(read(&node, &request, level, 200).await.unwrap_err().code, ErrorCode::NoQuorum);
    }
}

#[tokio::test]
async fn a_leader_that_no_quorum_answers_says_so_and_gives_no_strong_read() {
    let (cluster, request) = cluster_with_group().await;
    let led = |node: &u64| cluster.node(*node).all_hosted()[0].replica.leads();
    until("the partition has a leader", || (1..=3).any(|node| led(&node))).await;
    let leader = (1..=3).find(led).unwrap();
    (1..=3).filter(|other| *other != leader).for_each(|other| cluster.net.cut(leader, other));
    let node = cluster.node(leader);
    let trouble = || {
        node.status().replicas.iter().find(|r| r.partition == request.sections[0].partition).unwrap().trouble.clone()
    };
    until("it says that it is alone", || trouble().contains("quorum") || trouble().contains("no leader")).await;
    for level in STRONG {
        assert_eq!(read(&node, &request, level, 200).await.unwrap_err().code, ErrorCode::NoQuorum);
    }
}

#[tokio::test]
async fn a_node_says_what_its_memory_is_used_for_by_group_and_by_partition() {
    let (cluster, request) = cluster_with_group().await;
    let memory = cluster.node(2).memory();
    let [group] = &memory.groups[..] else { panic!("{memory:?}") };
    assert_eq!((group.group, group.name.as_str()), (request.projections[0].group, "shop/row@1"));
    let [partition] = memory.partitions[..] else { panic!("{memory:?}") };
    assert_eq!(partition.partition, request.sections[0].partition);
    assert_eq!(partition.logical_bytes_max, Some(cluster.options(2).partition_bytes_max));
    assert_eq!(partition.total, group.used.total + memory.shared.total, "nothing is left out, nothing is there twice");
    assert!(group.used.index > 0 && memory.shared.overhead > 0 && memory.shared.index == 0, "{memory:?}");
}
