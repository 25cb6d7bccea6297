//! Replicas that start by a catalog with views lay their columns out by these.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use stoa_client::{Client, ReadOptions, Rows, View, WriteRow, WriterOptions};
use stoa_env::{OsEntropy, RealClock};
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::message::Caller;
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::read::{Projection, SectionResult};
use stoa_protocol::row_block::AnswerWriter;
use stoa_protocol::{FeatureGroupId, KeyType, LogIndex, Position, Value};
use stoa_store::{SectionSource, read_sections};

use super::cluster::{Cluster, MemoryTransport, TestNode, addr, until};

const LIMIT: Duration = Duration::from_secs(30);
/// Features of the group, of which the view reads every eighth.
const FEATURES: u16 = 64;
const STEP: u16 = 8;
const ROWS: i64 = 40;

fn group() -> String {
    let mut text = "
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
features:
"
    .to_owned();
    (0..FEATURES).for_each(|at| writeln!(text, "  - {{name: f{at}, type: Float32}}").unwrap());
    text
}

fn view() -> String {
    let mut text =
        "{kind: feature_view, project: shop, name: some, version: 1, entities: [item], features: [".to_owned();
    viewed().for_each(|at| write!(text, "{{group: shop/row@1, feature: f{at}}}, ").unwrap());
    text + "]}"
}

fn viewed() -> impl Iterator<Item = u16> {
    (0..FEATURES).step_by(usize::from(STEP))
}

async fn client(cluster: &Cluster) -> Client<MemoryTransport> {
    let caller = Caller { project: "shop".into(), principal: String::new() };
    let seeds = (1..=3).map(addr).collect();
    Client::with(cluster.transport(1), seeds, "a", caller, Arc::new(RealClock), Arc::new(OsEntropy)).await.unwrap()
}

/// The bytes that a node answers with when one of its replicas is asked for what the view reads of one key. Validity bits of
/// features that lie together are in one byte, and so this says whether they do.
fn answer_bytes(node: &TestNode, group: FeatureGroupId) -> usize {
    let hosted = &node.all_hosted()[0];
    let reader = hosted.view.reader();
    let (mut keys, mut key) = (KeyBlock::new(), Vec::new());
    encode_key(&[KeyType::Int64], &[0.into()], &mut key).unwrap();
    keys.push(&key);
    let projection = Projection { group, schema_version: 1, features: viewed().collect() };
    let keys = keys.range(0, keys.len());
    let source = SectionSource { reader: &reader, at_least: LogIndex(0), time_us: 0, keys };
    let mut answer = AnswerWriter::new(1);
    let head = read_sections(&projection, &[source], &mut answer).remove(0).unwrap();
    answer.finish(&[SectionResult::Rows(head)]).into_body().len()
}

fn value(id: i64, feature: u16) -> f32 {
    (id * 1_000) as f32 + f32::from(feature)
}

async fn check_rows(view: &View<MemoryTransport>, position: &Position) {
    let mut keys = Rows::new(&["id"]);
    (0..ROWS).for_each(|id| keys.push(&[id.into()]).unwrap());
    let options = ReadOptions { at_least: Some(position.clone()), deadline: LIMIT, ..ReadOptions::default() };
    let answer = view.get(&keys, &options).await.unwrap();
    assert!(answer.is_complete());
    for (column, feature) in answer.columns().zip(viewed()) {
        for id in 0..ROWS {
            assert_eq!(column.to_value(id as usize), Value::Float32(value(id, feature)), "row {id} feature {feature}");
        }
    }
}

#[tokio::test]
async fn a_node_that_starts_again_lays_columns_out_by_the_views_that_came_meanwhile() {
    let mut cluster = Cluster::formed(2, 3).await;
    let client = client(&cluster).await;
    let apply = async |text: &str| {
        let definitions = crate::definitions::parse_definitions("catalog", text).unwrap();
        client.apply(definitions, LIMIT).await.unwrap();
    };
    apply(&group()).await;
    let group = client.group("shop/row@1").await.unwrap();
    let names: Vec<String> = (0..FEATURES).map(|at| format!("f{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let writer = group.writer(&names, WriterOptions { deadline: LIMIT, ..Default::default() }).unwrap();
    let row = |id: i64| {
        let values = (0..FEATURES).map(|at| Value::Float32(value(id, at))).collect();
        WriteRow { key: vec![id.into()], event_time: 1, sequence: 0, values: Some(values) }
    };
    let mut position = Position::new();
    for result in writer.write_rows(&(0..ROWS).map(row).collect::<Vec<_>>()).await.unwrap() {
        let answer = result.result.unwrap();
        position.raise(PartitionPosition {
            set: client.map().sets[0].id,
            incarnation: answer.incarnation,
            partition: result.partition,
            index: answer.index,
        });
    }
    apply(&view()).await;
    let view = client.view("shop/some@1").await.unwrap();
    check_rows(&view, &position).await;

    let id = group.definition().id;
    let knows = |node: &TestNode| {
        let hosted = node.all_hosted();
        !node.state().views.is_empty() && hosted.iter().all(|h| h.view.definition(id).is_some())
    };
    until("node 3 knows all", || knows(&cluster.node(3))).await;
    let apart = answer_bytes(&cluster.node(3), id);
    cluster.stop(3).await;
    let node = cluster.start(3).await;
    cluster.settle().await;
    until("it knows all again", || knows(&node)).await;
    let together = answer_bytes(&node, id);
    assert_eq!(apart - together, usize::from(FEATURES / STEP) - 1, "eight validity bits in as many bytes, or in one");
    assert_eq!(answer_bytes(&cluster.node(2), id), apart, "nothing changes in a node that goes on");
    check_rows(&view, &position).await;
    let digest = |node: &TestNode| {
        let mut all: Vec<_> = node.all_hosted().iter().map(|h| (h.replica.partition(), h.view.digest())).collect();
        all.sort_unstable_by_key(|(partition, _)| *partition);
        all
    };
    until("replicas of both orders are equal", || digest(&node) == digest(&cluster.node(2))).await;
}
