//! Reads of a whole client on a transport in memory.

#![allow(clippy::unwrap_used)] // a test's helper may fail loudly, as the test itself

#[allow(dead_code)] // each test binary uses a part
mod support;

use std::time::Duration;

use stoa_client::{READS_MAX, ReadError, ReadOptions, Rows, RowsError, ValueStatus};
use stoa_protocol::message::Kind;
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::{ErrorClass, ErrorCode, FeatureType, LogIndex, PartitionId, PartitionSetId, Position, Value};
use support::{Cluster, Mood};

fn rows(products: impl Iterator<Item = i64>) -> Rows {
    let mut rows = Rows::new(&["product_id", "household_id"]);
    products.for_each(|id| rows.push(&[id.into(), 7.into()]).unwrap());
    rows
}

#[tokio::test(start_paused = true)]
async fn columns_come_in_view_order_with_a_status_for_every_value() {
    let cluster = Cluster::new();
    let view = cluster.client().await.view("test/rank@1").await.unwrap();
    let answer = view.get(&rows([4, 5, 4, 999].into_iter()), &ReadOptions::default()).await.unwrap();
    assert_eq!(answer.columns().map(|c| c.name()).collect::<Vec<_>>(), ["p_name", "h_units", "p_units"]);
    let name = answer.column("p_name").unwrap();
    use ValueStatus::*;
    assert_eq!([0, 1, 2, 3].map(|row| name.status(row)), [Present, Null, Present, NotFound]);
    assert_eq!([0, 1, 2, 3].map(|row| name.str(row)), [Some("product 4"), None, Some("product 4"), None]);
    assert_eq!(name.to_value(0).to_string(), "product 4");
    let household = answer.column("h_units").unwrap();
    assert_eq!([0, 3].map(|row| household.i64(row)), [Some(1_007); 2]);
    assert_eq!(household.f32(0), None, "it is an Int32");
    let product = answer.groups().position(|group| group == "test/product@1").unwrap();
    assert_eq!((answer.event_time(0, product), answer.event_time(3, product)), (Some(40), None));
    assert!(answer.is_complete());
    assert!(answer.position().parts().iter().all(|part| part.index == LogIndex(100)));
    assert_eq!(answer.stats().requests, 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_beyond_those_that_may_be_under_way_is_refused_and_asks_nobody() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let view = client.view("test/rank@1").await.unwrap();
    let others = client.bounds_registry().node_gauge("client: reads under way", READS_MAX).hold(READS_MAX);
    let refused = view.get(&rows([4].into_iter()), &ReadOptions::default()).await.err().unwrap();
    assert_eq!(refused, ReadError::Overloaded { under_way: READS_MAX });
    assert_eq!(refused.class(), ErrorClass::Retry);
    assert_eq!(cluster.asked(Kind::Read), []);
    drop(others);
    assert!(view.get(&rows([4].into_iter()), &ReadOptions::default()).await.unwrap().is_complete());
    assert!(client.bounds().iter().all(|bounded| bounded.high <= bounded.bound), "{:?}", client.bounds());
}

#[tokio::test(start_paused = true)]
async fn one_request_to_one_node_asks_for_every_entity_once() {
    let cluster = Cluster::new();
    let view = cluster.client().await.view("test/rank@1").await.unwrap();
    cluster.asked(Kind::Read);
    view.get(&rows((0..100).map(|n| n % 30)), &ReadOptions::default()).await.unwrap();
    assert_eq!(cluster.asked(Kind::Read), [1]);
    assert_eq!(cluster.state().keys_read, 31, "30 products and a household");
}

#[tokio::test(start_paused = true)]
async fn a_view_reads_on_when_a_feature_is_appended_to_a_group() {
    let cluster = Cluster::new();
    let view = cluster.client().await.view("test/rank@1").await.unwrap();
    cluster.state().schema_version = 2;
    let answer = view.get(&rows([4, 6].into_iter()), &ReadOptions::default()).await.unwrap();
    assert!(answer.is_complete());
    assert_eq!(answer.column("p_name").unwrap().str(1), Some("product 6"));
    assert_eq!(answer.stats().requests, 1);
    cluster.state().schema_version = 0;
    let answer = view.get(&rows([4, 6].into_iter()), &ReadOptions::default()).await.unwrap();
    assert_eq!(answer.column("p_name").unwrap().status(1), ValueStatus::Unavailable, "an older schema is not believed");
}

#[tokio::test(start_paused = true)]
async fn a_view_reads_on_while_a_feature_is_widened_partition_by_partition() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let view = client.view("test/rank@1").await.unwrap();
    let partitions: Vec<_> = client.map().sets[0].partitions.iter().map(|partition| partition.id).collect();
    assert!(partitions.len() > 1, "some are ahead of the others");
    for ahead in 0..=partitions.len() {
        cluster.state().widened = partitions[..ahead].iter().copied().collect();
        let answer = view.get(&rows(0..40), &ReadOptions::default()).await.unwrap();
        assert!(answer.is_complete());
        let units = answer.column("p_units").unwrap();
        let of_group = units.group();
        assert_eq!(units.ty(), if ahead == 0 { FeatureType::Int32 } else { FeatureType::Int64 });
        let mut seen = [0; 2];
        for row in 0..40 {
            let schema = answer.schema_version(row, of_group).unwrap();
            seen[schema as usize - 1] += 1;
            assert_eq!(
                units.i64(row),
                Some((row as i64) << if schema == 2 { 40 } else { 0 }),
                "row {row}, schema {schema}"
            );
            assert_eq!(units.to_value(row), Value::Int(units.i64(row).unwrap()));
            let name = answer.column("p_name").unwrap();
            assert_eq!(name.str(row), (row % 2 == 0).then(|| format!("product {row}")).as_deref());
            assert_eq!(answer.event_time(row, of_group), Some(row as i64 * 10));
        }
        assert!(
            seen.iter().filter(|count| **count > 0).count()
                == if [0, partitions.len()].contains(&ahead) { 1 } else { 2 }
        );
    }
    // A type that is not wider is no answer, whatever schema it says it is of.
    let wide = view.get(&rows(0..1), &ReadOptions::default()).await.unwrap();
    assert!(wide.is_complete());
    cluster.state().widened_as = 1;
    let unfit = view.get(&rows(0..1), &ReadOptions::default()).await.unwrap();
    assert!(!unfit.is_complete(), "an Int64 of the schema in which it was an Int32");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_for_a_position_leaves_time_to_ask_another() {
    let cluster = Cluster::new();
    let view = cluster.client().await.view("test/rank@1").await.unwrap();
    let answer = view.get(&rows(0..8), &ReadOptions::default()).await.unwrap();
    let options = ReadOptions { at_least: Some(answer.position().clone()), ..ReadOptions::default() };
    cluster.state().behind = Some(1);
    // The node answers other reads, so it is not ejected. The first waits use up the budget of hedges.
    for at in 0..100 {
        let others = async {
            for _ in 0..8 {
                view.get(&rows(0..1), &ReadOptions::default()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let rows = rows(0..8);
        let (answer, ()) = tokio::join!(view.get(&rows, &options), others);
        let answer = answer.unwrap();
        assert!(answer.is_complete(), "read {at}: {:?}", answer.stats());
    }
}

#[tokio::test(start_paused = true)]
async fn no_rows_give_an_empty_answer_and_wrong_ones_a_typed_error() {
    let cluster = Cluster::new();
    let view = cluster.client().await.view("test/rank@1").await.unwrap();
    cluster.asked(Kind::Read);
    let answer = view.get(&rows(std::iter::empty()), &ReadOptions::default()).await.unwrap();
    assert_eq!((answer.rows(), answer.is_complete()), (0, true));
    assert_eq!(answer.columns().len(), 3);
    let error = view.get(&Rows::new(&["product_id"]), &ReadOptions::default()).await.err().unwrap();
    assert!(matches!(error, ReadError::Rows(RowsError::Missing { .. })), "{error}");
    let long = ReadOptions { deadline: Duration::from_secs(61), ..ReadOptions::default() };
    assert!(matches!(view.get(&rows(0..1), &long).await.err().unwrap(), ReadError::Deadline { .. }));
    let mut many = rows(0..4_096);
    let error = many.push(&[1.into(), 1.into()]).unwrap_err();
    assert_eq!(error.to_string(), "4097 rows are over the limit of 4096 a call: ask for them in several calls");
    assert_eq!(cluster.asked(Kind::Read), [] as [u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_within_10_ms_when_a_zone_falls_silent() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let view = client.view("test/rank@1").await.unwrap();
    let mut late = 0;
    for n in 0..400 {
        if n == 50 {
            cluster.set(1, Mood::Silent);
        }
        let answer = view.get(&rows(0..50), &ReadOptions::default()).await.unwrap();
        assert!(answer.is_complete());
        late += u32::from(answer.stats().elapsed > Duration::from_millis(10));
        tokio::time::sleep(Duration::from_millis(14)).await;
    }
    assert_eq!(late, 0);
    cluster.asked(Kind::Read);
    view.get(&rows(0..50), &ReadOptions::default()).await.unwrap();
    assert_eq!(cluster.asked(Kind::Read).len(), 1, "the silent node is not asked first any more");

    cluster.set(1, Mood::Well);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    cluster.asked(Kind::Read);
    view.get(&rows(0..50), &ReadOptions::default()).await.unwrap();
    assert_eq!(cluster.asked(Kind::Read), [1], "pings have brought it back");
}

#[tokio::test(start_paused = true)]
async fn a_read_survives_nodes_that_are_down_not_ready_or_talk_nonsense() {
    for mood in [Mood::Down, Mood::Refusing(ErrorCode::NotReady), Mood::Garbled, Mood::Slow(Duration::from_millis(30))]
    {
        let cluster = Cluster::new();
        let view = cluster.client().await.view("test/rank@1").await.unwrap();
        cluster.set(1, mood.clone());
        cluster.set(2, mood.clone());
        let answer = view.get(&rows(0..20), &ReadOptions::default()).await.unwrap();
        assert!(answer.is_complete(), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_brings_what_there_is() {
    let cluster = Cluster::new();
    let view = cluster.client().await.view("test/rank@1").await.unwrap();
    (1..=3).for_each(|node| cluster.set(node, Mood::Silent));
    let answer = view.get(&rows(0..2), &ReadOptions::default()).await.unwrap();
    assert!(!answer.is_complete());
    assert_eq!(answer.column("p_units").unwrap().status(1), ValueStatus::Unavailable);
    assert!(answer.position().parts().is_empty());
    let elapsed = answer.stats().elapsed;
    assert!((50..=52).contains(&elapsed.as_millis()), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_shows_a_newer_map_brings_it() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let view = client.view("test/rank@1").await.unwrap();
    cluster.state().map_version = 8;
    cluster.state().hide_from = Some(1);
    let answer = view.get(&rows(0..20), &ReadOptions::default()).await.unwrap();
    assert!(answer.is_complete());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.map().version.0, 8);
}

#[tokio::test(start_paused = true)]
async fn rejections_are_typed() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let error = client.view("test/nothing@1").await.err().unwrap();
    assert!(matches!(&error, ReadError::Rejected { error, .. } if error.code == ErrorCode::NotFound), "{error}");
    assert!(matches!(client.view("nothing").await.err().unwrap(), ReadError::Name(_)));
    let view = client.view("test/rank@1").await.unwrap();
    cluster.set(1, Mood::Refusing(ErrorCode::Forbidden));
    let error = view.get(&rows(0..1), &ReadOptions::default()).await.err().unwrap();
    assert!(matches!(&error, ReadError::Rejected { error, .. } if error.code == ErrorCode::Forbidden), "{error}");
    cluster.set(1, Mood::Foreign);
    let error = view.get(&rows(0..1), &ReadOptions::default()).await.err().unwrap();
    assert!(matches!(&error, ReadError::Rejected { error, .. } if error.code == ErrorCode::WrongCluster), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_position_from_before_a_restore_is_refused() {
    let cluster = Cluster::new();
    let view = cluster.client().await.view("test/rank@1").await.unwrap();
    let mut position = Position::new();
    let part =
        PartitionPosition { set: PartitionSetId(1), incarnation: 7, partition: PartitionId(2), index: LogIndex(1) };
    position.raise(part);
    let options = ReadOptions { at_least: Some(position), ..ReadOptions::default() };
    let error = view.get(&rows(0..1), &options).await.err().unwrap();
    assert!(matches!(error, ReadError::PositionLost { given: 7, current: 0, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_ends_its_background_work() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let view = client.view("test/rank@1").await.unwrap();
    cluster.set(1, Mood::Down);
    view.get(&rows(0..1), &ReadOptions::default()).await.unwrap();
    cluster.set(1, Mood::Well);
    drop((client, view));
    cluster.asked(Kind::Ping);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.asked(Kind::Ping), [] as [u64; 0]);
}
