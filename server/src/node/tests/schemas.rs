//! Schemas that change under traffic: who was there before goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use stoa_client::{
    Client, GroupWriter, ReadOptions, Rows, RowsError, ValueStatus, View, WriteError, WriteRow, WriterOptions,
};
use stoa_env::{OsEntropy, RealClock};
use stoa_protocol::message::Caller;
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::{ErrorClass, FeatureType, Position, Value};
use stoa_raft::root::state::STORAGE_VERSION;

use super::cluster::{Cluster, MemoryTransport, addr, until};

const LIMIT: Duration = Duration::from_secs(30);

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
features:
  - {name: number, type: Int16}
  - {name: share, type: Float32}
  - {name: gone, type: String}
---
kind: feature_view
project: shop
name: row
version: 1
entities: [item]
features:
  - {group: shop/row@1, feature: number}
  - {group: shop/row@1, feature: share}
";

const CHANGED: &str = "
kind: feature_group
project: shop
name: row
version: 1
entity: item
features:
  - {name: number, type: Int64, aliases: [count]}
  - {name: share, type: Float64}
  - {name: gone, type: String, dropped: true}
  - {name: level, type: Int8, default: 3}
  - {name: label, type: String, default: none yet}
---
kind: feature_view
project: shop
name: row
version: 2
entities: [item]
features:
  - {group: shop/row@1, feature: count}
  - {group: shop/row@1, feature: number, as: number}
  - {group: shop/row@1, feature: share}
  - {group: shop/row@1, feature: level}
  - {group: shop/row@1, feature: label}
";

type TestClient = Client<MemoryTransport>;

async fn client(cluster: &Cluster) -> TestClient {
    let caller = Caller { project: "shop".into(), principal: String::new() };
    let seeds = (1..=3).map(addr).collect();
    let transport = cluster.transport(1);
    Client::with(transport, seeds, "a", caller, Arc::new(RealClock), Arc::new(OsEntropy)).await.unwrap()
}

async fn apply(client: &TestClient, text: &str) {
    let definitions = crate::definitions::parse_definitions("catalog", text).unwrap();
    client.apply(definitions, LIMIT).await.unwrap();
}

/// Writes one row, and gives the position at which it can be read.
async fn write(
    writer: &GroupWriter<MemoryTransport>,
    client: &TestClient,
    id: i64,
    time: i64,
    values: Vec<Value>,
) -> Position {
    let row = WriteRow { key: vec![id.into()], event_time: time, sequence: 0, values: Some(values) };
    let result = writer.write_rows(&[row]).await.unwrap().remove(0);
    let answer = result.result.unwrap();
    let mut position = Position::new();
    position.raise(PartitionPosition {
        set: client.map().sets[0].id,
        incarnation: answer.incarnation,
        partition: result.partition,
        index: answer.index,
    });
    position
}

fn key(id: i64) -> Rows {
    let mut rows = Rows::new(&["id"]);
    rows.push(&[id.into()]).unwrap();
    rows
}

/// Reads one row: its schema version, the type of each column, and the values.
async fn read(
    view: &View<MemoryTransport>,
    id: i64,
    at_least: Option<Position>,
) -> (u32, Vec<FeatureType>, Vec<Value>) {
    let options = ReadOptions { at_least, deadline: LIMIT, ..ReadOptions::default() };
    let answer = view.get(&key(id), &options).await.unwrap();
    assert!(answer.is_complete(), "key {id}");
    let types = answer.columns().map(|column| column.ty()).collect();
    (answer.schema_version(0, 0).unwrap(), types, answer.columns().map(|column| column.to_value(0)).collect())
}

/// Writes and reads by the schema that it was opened with, until told to stop.
async fn old_traffic(client: TestClient, stop: Arc<AtomicBool>, rows: Arc<AtomicU64>) -> i64 {
    let view = client.view("shop/row@1").await.unwrap();
    let group = client.group("shop/row@1").await.unwrap();
    assert_eq!(group.definition().schema_version, 1);
    let writer =
        group.writer(&["number", "share", "gone"], WriterOptions { deadline: LIMIT, ..Default::default() }).unwrap();
    let mut time = 0;
    while !stop.load(Ordering::Relaxed) {
        time += 1;
        let id = time % 50;
        let single = time as f32 / 7.0;
        let values = vec![Value::Int(-time), Value::Float32(single), Value::String("gone".into())];
        let position = write(&writer, &client, id, time, values).await;
        let (schema, types, values) = read(&view, id, Some(position)).await;
        let (wanted_types, share) = match schema {
            1 => ([FeatureType::Int16, FeatureType::Float32], Value::Float32(single)),
            _ => ([FeatureType::Int64, FeatureType::Float64], Value::Float64(f64::from(single))),
        };
        assert_eq!((types.as_slice(), values), (&wanted_types[..], vec![Value::Int(-time), share]), "schema {schema}");
        rows.fetch_add(1, Ordering::Relaxed);
    }
    time
}

#[tokio::test]
async fn clients_of_the_earlier_schema_work_on_while_features_are_widened_dropped_added_and_renamed() {
    let cluster = Cluster::formed(4, 3).await;
    let old = client(&cluster).await;
    apply(&old, CATALOG).await;
    let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let traffic = stoa_env::spawn("old traffic", old_traffic(old.clone(), stop.clone(), rows.clone()));
    until("there is traffic", || rows.load(Ordering::Relaxed) >= 60).await;
    apply(&old, CHANGED).await;
    let known = |node| {
        cluster
            .node(node)
            .all_hosted()
            .iter()
            .all(|hosted| hosted.view.definitions().first().is_some_and(|group| group.schema_version == 2))
    };
    until("all replicas have learnt the new schema", || (1..=3).all(known)).await;
    let seen = rows.load(Ordering::Relaxed);
    until("there is traffic by the old schema still", || rows.load(Ordering::Relaxed) >= seen + 60).await;
    stop.store(true, Ordering::Relaxed);
    let time = traffic.await.unwrap().expect("nobody ended it");

    let new = client(&cluster).await;
    let view = new.view("shop/row@2").await.unwrap();
    let last_of = |id: i64| time - (time - id).rem_euclid(50);
    for id in 0..50 {
        let (schema, _, values) = read(&view, id, None).await;
        let number = Value::Int(-last_of(id));
        let share = Value::Float64(f64::from(last_of(id) as f32 / 7.0));
        let wanted = vec![number.clone(), number, share, Value::Int(3), Value::String("none yet".into())];
        assert_eq!((schema, values), (2, wanted), "key {id}");
    }
    let group = new.group("shop/row@1").await.unwrap();
    assert!(group.writer(&["gone"], WriterOptions::default()).is_err(), "it was dropped");
    let writer = group.writer(&["count", "level", "label"], WriterOptions::default()).unwrap();
    let values = vec![Value::Int(1 << 40), Value::Null, Value::String("label".into())];
    let position = write(&writer, &new, 7, time + 1, values).await;
    let (_, _, values) = read(&view, 7, Some(position.clone())).await;
    assert_eq!(values[3..], [Value::Null, Value::String("label".into())], "a null that was written stays one");
    // The view that was opened before sees what no Int16 could hold.
    let old_view = old.view("shop/row@1").await.unwrap();
    let (_, types, values) = read(&old_view, 7, Some(position)).await;
    assert_eq!((types[0], &values[0]), (FeatureType::Int64, &Value::Int(1 << 40)));
}

const NARROW: &str = "
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
  - {name: share, type: Float32, storage: float16}
  - {name: taste, type: 'FixedArray<Float32, 3>', storage: int8_scaled}
  - {name: mood, type: 'FixedArray<Float32, 3>', storage: float16, default: [0.1, 0, 1]}
---
kind: feature_view
project: shop
name: row
version: 1
entities: [item]
features:
  - {group: shop/row@1, feature: mood}
  - {group: shop/row@1, feature: taste}
  - {group: shop/row@1, feature: share}
";

#[tokio::test]
async fn clients_write_and_read_single_floats_whatever_a_feature_is_kept_as() {
    let cluster = Cluster::formed(2, 3).await;
    let client = client(&cluster).await;
    until("the cluster is raised", || cluster.node(1).state().cluster_version >= STORAGE_VERSION).await;
    apply(&client, NARROW).await;
    let group = client.group("shop/row@1").await.unwrap();
    let writer = group.writer(&["taste", "share"], WriterOptions { deadline: LIMIT, ..Default::default() }).unwrap();
    let taste = |items: [f32; 3]| Value::FixedArray(items.to_vec());
    let position = write(&writer, &client, 1, 1, vec![taste([-254.0, 3.1, 0.0]), Value::Float32(0.1)]).await;
    let view = client.view("shop/row@1").await.unwrap();
    let (_, types, values) = read(&view, 1, Some(position.clone())).await;
    let vector = FeatureType::FixedArray { items: 3 };
    assert_eq!(types, [vector, vector, FeatureType::Float32]);
    let wanted = [taste([0.099_975_586, 0.0, 1.0]), taste([-254.0, 4.0, 0.0]), Value::Float32(0.099_975_586)];
    assert_eq!(values, wanted, "a writer reads what it wrote as it is kept");

    let row = |id: i64, values| WriteRow { key: vec![id.into()], event_time: 2, sequence: 0, values: Some(values) };
    let good = vec![taste([1.0; 3]), Value::Null];
    let bad = vec![taste([1.0, f32::NAN, 1.0]), Value::Float32(1.0)];
    let error = writer.write_rows(&[row(1, good), row(2, bad)]).await.unwrap_err();
    let WriteError::Rows(RowsError::Storage { row: 1, feature, why }) = error else { panic!("{error}") };
    assert!(feature == "taste" && why.to_string().starts_with("item 1 is NaN"), "{why}");
    assert_eq!(read(&view, 1, Some(position)).await.2, wanted, "nothing was sent");

    let definitions = |text: &str| crate::definitions::parse_definitions("catalog", text).unwrap();
    let other = definitions(&NARROW.replace("storage: int8_scaled", "storage: float16"));
    let error = client.apply(other, LIMIT).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Reject);
    let message = error.to_string();
    assert!(message.contains("the storage of taste is int8_scaled and does not become float16"), "{message}");
    assert!(message.contains("all else is a new version of the group"), "{message}");
}

#[tokio::test]
async fn a_change_that_would_break_a_view_is_refused_by_name_and_a_new_version_stands_beside_the_old() {
    let cluster = Cluster::formed(2, 3).await;
    let client = client(&cluster).await;
    apply(&client, CATALOG).await;
    let definitions = |text: &str| crate::definitions::parse_definitions("catalog", text).unwrap();
    let dropped = CATALOG.replace("share, type: Float32}", "share, type: Float32, dropped: true}");
    let error = client.apply(definitions(&dropped), LIMIT).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Reject);
    assert!(error.to_string().contains("share is read by views and cannot be dropped: shop/row@1"), "{error}");
    let json =
        CATALOG.replace("gone, type: String}", "gone, type: String}\n  - {name: more, type: Json, default: '{}'}");
    let mut bad = definitions(&json);
    let stoa_protocol::catalog::Definition::Group(group) = &mut bad[2] else { panic!("{bad:?}") };
    group.features[3].default = Some(b"{".to_vec());
    assert!(client.apply(bad, LIMIT).await.unwrap_err().to_string().contains("not JSON"));

    // The same features in other types and another order: a version of its own.
    let second = "
kind: feature_group
project: shop
name: row
version: 2
entity: item
features: [{name: share, type: String}, {name: number, type: Float64}]
---
kind: feature_view
project: shop
name: row
version: 2
entities: [item]
features: [{group: shop/row@2, feature: share}, {group: shop/row@1, feature: share, as: share_1}]
";
    apply(&client, second).await;
    let mut position = Position::new();
    for (name, features, values) in [
        ("shop/row@1", ["number", "share"], [Value::Int(5), Value::Float32(0.5)]),
        ("shop/row@2", ["number", "share"], [Value::Float64(2.5), Value::String("half".into())]),
    ] {
        let group = client.group(name).await.unwrap();
        let writer = group.writer(&features, WriterOptions { deadline: LIMIT, ..Default::default() }).unwrap();
        let written = write(&writer, &client, 1, 1, values.to_vec()).await;
        written.parts().iter().for_each(|part| position.raise(*part));
    }
    let both = client.view("shop/row@2").await.unwrap();
    let (_, types, values) = read(&both, 1, Some(position.clone())).await;
    assert_eq!(types, [FeatureType::String, FeatureType::Float32]);
    assert_eq!(values, [Value::String("half".into()), Value::Float32(0.5)]);
    let first = client.view("shop/row@1").await.unwrap();
    let options = ReadOptions { at_least: Some(position), deadline: LIMIT, ..ReadOptions::default() };
    let answer = first.get(&key(1), &options).await.unwrap();
    assert_eq!(answer.column("number").unwrap().status(0), ValueStatus::Present);
    assert_eq!(answer.column("number").unwrap().i64(0), Some(5));
    let missing = client.group("shop/row@3").await.err().unwrap();
    assert!(missing.to_string().contains("shop/row@2"), "{missing}");
}
