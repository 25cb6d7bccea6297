//! Rows that expire, and the time that they expire by, on whole nodes.

use std::sync::Arc;
use std::time::Duration;

use stoa_env::{Clock, RealClock};
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::message::{Kind, WriteRequest};
use stoa_protocol::read::{ConfirmBy, Projection, ReadLevel, ReadRequest, ReadSection, RowStatus};
use stoa_protocol::row_block::parse_answer;
use stoa_protocol::{ErrorCode, FeatureGroup, KeyType, LogIndex, PartitionId, RowBatchBuilder, Value};
use stoa_raft::root::RootCommand;
use stoa_raft::root::command::Definitions;

use super::cluster::{Cluster, TestNode, until};

const LIMIT: Duration = Duration::from_secs(10);
const SECOND: i64 = 1_000_000;
const YEAR: i64 = 365 * 86_400 * SECOND;

fn now_us() -> i64 {
    RealClock.wall().0
}

/// A group with these lines in its definition, which all replicas of the one partition have learnt.
async fn define(cluster: &Cluster, lines: &str) -> (FeatureGroup, PartitionId) {
    let text = format!(
        "kind: project\nname: shop\n---\nkind: entity\nname: item\nkeys: [{{name: id, type: Int64}}]\n---\nkind: \
         feature_group\nproject: shop\nname: row\nversion: 1\nentity: item\nevent_time: event_time\nfeatures: [{{name: \
         number, type: Int64}}]\n{lines}"
    );
    let definitions = crate::definitions::parse_definitions("catalog", &text).unwrap();
    let command = RootCommand::Define(Definitions { definitions });
    cluster.root_leader().await.propose_to_root(command, LIMIT).await.unwrap();
    let known = |node| cluster.node(node).all_hosted().iter().all(|hosted| !hosted.view.definitions().is_empty());
    until("all replicas know the group", || (1..=3).all(known)).await;
    let hosted = cluster.node(1).all_hosted().remove(0);
    (hosted.view.definitions()[0].clone(), hosted.replica.partition())
}

fn key(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(&[KeyType::Int64], &[id.into()], &mut out).unwrap();
    out
}

async fn leader(cluster: &Cluster) -> Arc<TestNode> {
    let led = |node: &u64| cluster.node(*node).all_hosted().first().is_some_and(|hosted| hosted.replica.leads());
    until("the partition has a leader", || (1..=3).any(|node| led(&node))).await;
    cluster.node((1..=3).find(led).unwrap())
}

/// Has a node lead the partition.
async fn let_lead(cluster: &Cluster, partition: PartitionId, node: &Arc<TestNode>) {
    let heir = node.hosted(partition).unwrap().replica.id();
    loop {
        let leader = leader(cluster).await;
        if leader.info().id == node.info().id {
            return;
        }
        leader.hosted(partition).unwrap().replica.transfer_leader(heir).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Writes a row at whoever leads.
async fn write(cluster: &Cluster, group: &FeatureGroup, partition: PartitionId, id: i64, event_time: i64) {
    let mut batch = RowBatchBuilder::new(group, &[0]);
    batch.upsert(&key(id), event_time, 0, &[Value::Int(id)]).unwrap();
    let batch = batch.finish().unwrap().bytes().to_vec();
    loop {
        let request = WriteRequest { partition, step: None, batch: batch.clone() };
        if leader(cluster).await.write(request, LIMIT).await.is_ok() {
            return;
        }
    }
}

/// The status of a key at a replica, and whether a value came with it; `None` if it does not serve.
async fn read(
    node: &Arc<TestNode>,
    group: &FeatureGroup,
    partition: PartitionId,
    id: i64,
    level: ReadLevel,
) -> Option<(RowStatus, bool)> {
    let mut keys = KeyBlock::new();
    keys.push(&key(id));
    let request = ReadRequest {
        level,
        projections: vec![Projection { group: group.id, schema_version: 1, features: vec![0] }],
        keys,
        sections: vec![ReadSection { partition, at_least: LogIndex(0), projection: 0, first_key: 0, keys: 1 }],
    };
    let answer = node.read(&request, LIMIT).await;
    let rows = parse_answer(answer.into_body().into()).unwrap().remove(0).ok()?;
    Some((rows.status(0), rows.value(0, 0).is_some()))
}

const STRONG: ReadLevel = ReadLevel::Linearizable { by: ConfirmBy::ReadIndex };

#[tokio::test]
async fn a_leader_whose_calendar_is_a_year_ahead_expires_nothing_and_takes_no_event_of_next_year() {
    let mut cluster = Cluster::new(1, 3);
    cluster.calendars.insert(1, YEAR);
    for node in 1..=3 {
        cluster.start(node).await;
    }
    cluster.settle().await;
    let (group, partition) = define(&cluster, "ttl: 1h\n").await;
    let wrong = cluster.node(1);
    let_lead(&cluster, partition, &wrong).await;
    write(&cluster, &group, partition, 1, now_us()).await;
    for node in (1..=3).map(|node| cluster.node(node)) {
        assert_eq!(read(&node, &group, partition, 1, STRONG).await, Some((RowStatus::Found, true)));
        let time = node.hosted(partition).unwrap().view.time_us(node.now());
        assert!(time < now_us() + 3 * SECOND, "{time}");
    }
    let mut batch = RowBatchBuilder::new(&group, &[0]);
    batch.upsert(&key(2), now_us() + YEAR, 0, &[Value::Int(2)]).unwrap();
    let request = WriteRequest { partition, step: None, batch: batch.finish().unwrap().bytes().to_vec() };
    if wrong.hosted(partition).unwrap().replica.leads() {
        let refused = wrong.write(request, LIMIT).await.unwrap_err();
        // It may have lost its lead since it was asked.
        assert!(
            [ErrorCode::EventInFuture, ErrorCode::NotLeader, ErrorCode::NoQuorum].contains(&refused.code),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_replica_that_starts_again_comes_to_know_the_time_of_a_leader_whose_calendar_is_a_year_ahead() {
    let mut cluster = Cluster::new(1, 3);
    cluster.calendars.insert(1, YEAR);
    for node in 1..=3 {
        cluster.start(node).await;
    }
    cluster.settle().await;
    let (group, partition) = define(&cluster, "ttl: 1h\n").await;
    let wrong = cluster.node(1);
    let_lead(&cluster, partition, &wrong).await;
    write(&cluster, &group, partition, 1, now_us()).await;
    cluster.stop(2).await;
    let node = cluster.start(2).await;
    until("the replica starts", || node.hosted(partition).is_some()).await;
    let hosted = node.hosted(partition).unwrap();
    for _ in 0..1_000 {
        let_lead(&cluster, partition, &wrong).await;
        let leader = hosted.replica.leader().filter(|leader| *leader == wrong.info().id);
        let is_told = leader.is_some_and(|leader| node.clocks.of_leader(leader, now_us(), node.now()).is_some());
        if is_told && hosted.view.expires() && node.knows_time(&hosted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it waits for a time that its leader never stamps");
}

/// A row that lives for an hour, and all nodes down for two after it was written: the log says nothing of them.
async fn two_hours_down() -> (Cluster, FeatureGroup, PartitionId) {
    let mut cluster = Cluster::formed(1, 3).await;
    let (group, partition) = define(&cluster, "ttl: 1h\non_expired: serve_last\nlate_horizon: 1d\n").await;
    write(&cluster, &group, partition, 1, now_us()).await;
    for node in (1..=3).map(|node| cluster.node(node)) {
        assert_eq!(read(&node, &group, partition, 1, STRONG).await, Some((RowStatus::Found, true)));
    }
    for node in 1..=3 {
        cluster.stop(node).await;
        cluster.calendars.insert(node, 2 * 3_600 * SECOND);
    }
    (cluster, group, partition)
}

/// The first thing that each replica says of the row.
async fn expect_expired(cluster: &Cluster, group: &FeatureGroup, partition: PartitionId) {
    for node in (1..=3).map(|node| cluster.node(node)) {
        until("a replica serves", || node.hosted(partition).is_some_and(|h| h.replica.is_caught_up())).await;
        let seen = read(&node, group, partition, 1, ReadLevel::default()).await;
        assert_eq!(seen, Some((RowStatus::Expired, true)), "node {}", node.info().id);
    }
}

#[tokio::test]
async fn replicas_that_start_again_after_a_long_silence_know_the_time_before_they_serve() {
    let (mut cluster, group, partition) = two_hours_down().await;
    for node in 1..=3 {
        cluster.start(node).await;
    }
    expect_expired(&cluster, &group, partition).await;
}

#[tokio::test]
async fn replicas_that_start_again_wait_for_the_time_if_their_leader_cannot_tell_it_at_once() {
    let (mut cluster, group, partition) = two_hours_down().await;
    for node in 1..=3 {
        cluster.net.lose(node, Kind::Clock);
        cluster.start(node).await;
    }
    // It has heard no calendar but its own, and stamps nothing.
    let leader = leader(&cluster).await;
    until("an index was confirmed", || leader.hosted(partition).is_some_and(|hosted| hosted.has_reached_barrier()))
        .await;
    cluster.net.lose_nothing_more();
    expect_expired(&cluster, &group, partition).await;
}

#[tokio::test]
async fn rows_that_have_had_their_time_are_removed_by_themselves() {
    let cluster = Cluster::formed(1, 3).await;
    let (group, partition) = define(&cluster, "ttl: 1h\nlate_horizon: 1h\n").await;
    for id in 0..20 {
        let age = if id % 2 == 0 { 2 * 3_600 * SECOND } else { 0 };
        write(&cluster, &group, partition, id, now_us() - age).await;
    }
    let rows = |node| cluster.node(node).hosted(partition).unwrap().view.reader().rows();
    assert_eq!(leader(&cluster).await.hosted(partition).unwrap().view.reader().rows(), 20);
    until("half of the rows are gone on every replica", || (1..=3).all(|node| rows(node) == 10)).await;
    for (id, wanted) in [(0, RowStatus::NotFound), (1, RowStatus::Found)] {
        assert_eq!(read(&cluster.node(2), &group, partition, id, STRONG).await.unwrap().0, wanted);
    }
}
