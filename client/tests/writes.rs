//! Writes and administration of a whole client on a transport in memory.

#![allow(clippy::unwrap_used)] // a test's helper may fail loudly, as the test itself

#[allow(dead_code)] // each test binary uses a part
mod support;

use std::time::Duration;

use stoa_client::{Group, GroupWriter, OnLostAnswer, WRITES_MAX, WriteError, WriteOptions, WriteRow, WriterOptions};
use stoa_protocol::message::Kind;
use stoa_protocol::{ErrorClass, ErrorCode, FeatureGroupId, KeyValue, PartitionId, RowBatch, RowBatchBuilder, Value};
use support::{Cluster, Mood, key, product};

fn batch(cluster: &Cluster, id: i64) -> (PartitionId, RowBatch) {
    let mut builder = RowBatchBuilder::new(&product(), &[0]);
    builder.upsert(&key(id), 1, 0, &[Value::Int(77)]).unwrap();
    let hash = stoa_protocol::key::partition_hash(&key(id));
    (cluster.map().sets[0].partition_of(hash).unwrap().id, builder.finish().unwrap())
}

fn row(id: i64, units: i64) -> WriteRow {
    let values = vec![Value::String("n".into()), Value::Int(units)];
    WriteRow { key: vec![id.into()], event_time: 1, sequence: 0, values: Some(values) }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_followed_and_remembered() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    cluster.state().leader = 3;
    let (partition, rows) = batch(&cluster, 5);
    cluster.asked(Kind::Write);
    client.write(partition, &rows, &WriteOptions::default()).await.unwrap();
    assert_eq!(cluster.asked(Kind::Write), [1, 3]);
    client.write(partition, &rows, &WriteOptions::default()).await.unwrap();
    assert_eq!(cluster.asked(Kind::Write), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_write_beyond_those_that_may_be_under_way_is_refused_and_sent_nowhere() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (partition, rows) = batch(&cluster, 5);
    let others = client.bounds_registry().node_gauge("client: writes under way", WRITES_MAX).hold(WRITES_MAX);
    let refused = client.write(partition, &rows, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(refused, WriteError::Overloaded { under_way: WRITES_MAX });
    assert_eq!((refused.class(), refused.may_have_happened()), (ErrorClass::Retry, false));
    assert_eq!(cluster.asked(Kind::Write), []);
    drop(others);
    client.write(partition, &rows, &WriteOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_left_for_the_next_one() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (partition, rows) = batch(&cluster, 5);
    cluster.set(1, Mood::Down);
    cluster.state().leader = 0; // an election
    let electing = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        cluster.state().leader = 2;
    };
    let options = WriteOptions::default();
    let (result, ()) = tokio::join!(client.write(partition, &rows, &options), electing);
    result.unwrap();
    assert_eq!(cluster.state().batches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_an_open_outcome_unless_the_batch_may_be_sent_again() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (partition, rows) = batch(&cluster, 5);
    cluster.set(1, Mood::Deaf);
    let error = client.write(partition, &rows, &WriteOptions::default()).await.unwrap_err();
    assert!(matches!(error, WriteError::OutcomeUnknown { .. }), "{error}");
    assert!(error.may_have_happened());
    assert_eq!(cluster.state().batches, 1, "it had happened");

    let heal = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        cluster.set(1, Mood::Well);
    };
    let options = WriteOptions { on_lost_answer: OnLostAnswer::Resend, ..WriteOptions::default() };
    let (result, ()) = tokio::join!(client.write(partition, &rows, &options), heal);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_session_is_sent_again_and_applied_once() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (partition, rows) = batch(&cluster, 5);
    cluster.set(1, Mood::Deaf);
    let heal = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        cluster.set(1, Mood::Well);
    };
    let step = stoa_protocol::message::SessionStep { session: 9, sequence: 1 };
    let options = WriteOptions { step: Some(step), ..WriteOptions::default() };
    let (result, ()) = tokio::join!(client.write(partition, &rows, &options), heal);
    assert!(result.unwrap().repeated);
    assert_eq!(cluster.state().batches, 1);
    let answer = client.session(partition, 9, Duration::from_secs(1)).await.unwrap();
    assert_eq!(answer.last, 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_slow_to_commit_is_waited_for() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (partition, rows) = batch(&cluster, 5);
    cluster.set(1, Mood::Slow(Duration::from_millis(800)));
    cluster.asked(Kind::Write);
    client.write(partition, &rows, &WriteOptions::default()).await.unwrap();
    assert_eq!(cluster.asked(Kind::Write), [1], "it may be sent once, so it is waited for");
    let step = stoa_protocol::message::SessionStep { session: 9, sequence: 1 };
    let options = WriteOptions { step: Some(step), ..WriteOptions::default() };
    client.write(partition, &rows, &options).await.unwrap();
    let sent = cluster.asked(Kind::Write).into_iter().filter(|node| *node == 1).count();
    assert!(sent <= 3, "{sent} times the same batch");
}

#[tokio::test(start_paused = true)]
async fn a_write_ends_at_its_deadline_with_what_it_met() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (partition, rows) = batch(&cluster, 5);
    (1..=3).for_each(|node| cluster.set(node, Mood::Refusing(ErrorCode::NoQuorum)));
    let options = WriteOptions { deadline: Duration::from_secs(2), ..WriteOptions::default() };
    let error = client.write(partition, &rows, &options).await.unwrap_err();
    let WriteError::NotTaken { waited, attempts, .. } = &error else { panic!("{error}") };
    assert!(waited.as_millis() <= 2_001 && *attempts > 3, "{error}");
    (1..=3).for_each(|node| cluster.set(node, Mood::Refusing(ErrorCode::Forbidden)));
    let error = client.write(partition, &rows, &options).await.unwrap_err();
    assert!(matches!(error, WriteError::Rejected(_)), "{error}");
    let error = client.write(PartitionId(99), &rows, &options).await.unwrap_err();
    assert!(matches!(error, WriteError::NoPartition { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rows_are_split_by_partition_and_every_one_arrives() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = group.writer(&["p_name", "p_units"], WriterOptions::default()).unwrap();
    let rows: Vec<_> = (0..500).map(|id| row(id, id + 5)).collect();
    let results = writer.write_rows(&rows).await.unwrap();
    let mut seen: Vec<u32> = results.iter().flat_map(|result| result.rows.clone()).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..500));
    assert!(results.iter().all(|result| result.result.is_ok()));
    assert_eq!(cluster.state().rows[&(FeatureGroupId(11), key(499))], 504);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_does_not_fit_stops_the_call_before_anything_is_sent() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = group.writer(&["p_name", "p_units"], WriterOptions::default()).unwrap();
    let error = writer.write_rows(&[row(1, 1), row(2, i64::MAX)]).await.unwrap_err();
    assert!(error.to_string().starts_with("row 1, feature p_units:"), "{error}");
    assert_eq!(cluster.state().batches, 0);
    assert!(group.writer(&["p_nam"], WriterOptions::default()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_session_writer_settles_an_open_batch_before_the_next() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let options = WriterOptions { session: Some(4), deadline: Duration::from_secs(1), ..WriterOptions::default() };
    let writer = group.writer(&["p_name", "p_units"], options).unwrap();
    writer.write_rows(&[row(1, 1)]).await.unwrap();
    (1..=3).for_each(|node| cluster.set(node, Mood::Deaf));
    let results = writer.write_rows(&[row(1, 2)]).await.unwrap();
    assert!(results[0].result.as_ref().unwrap_err().may_have_happened());
    (1..=3).for_each(|node| cluster.set(node, Mood::Well));
    let results = writer.write_rows(&[row(1, 3)]).await.unwrap();
    assert_eq!(results.len(), 2, "the open one, again, and the new one");
    assert!(results[0].rows.is_empty() && results[0].result.as_ref().unwrap().repeated);
    assert_eq!(cluster.state().batches, 3);
    assert_eq!(cluster.state().rows[&(FeatureGroupId(11), key(1))], 3);
}

fn session_writer(group: &Group<Cluster>) -> GroupWriter<Cluster> {
    let options = WriterOptions { session: Some(4), deadline: Duration::from_secs(1), ..WriterOptions::default() };
    group.writer(&["p_name", "p_units"], options).unwrap()
}

fn set_all(cluster: &Cluster, mood: &Mood) {
    (1..=3).for_each(|node| cluster.set(node, mood.clone()));
}

fn units(cluster: &Cluster, id: i64) -> i32 {
    cluster.state().rows[&(FeatureGroupId(11), key(id))]
}

#[tokio::test(start_paused = true)]
async fn the_number_of_a_batch_that_may_yet_arrive_costs_no_other_batch_its_rows() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = session_writer(&group);
    writer.write_rows(&[row(1, 1)]).await.unwrap();
    set_all(&cluster, &Mood::Late);
    let results = writer.write_rows(&[row(1, 2)]).await.unwrap();
    assert!(results[0].result.as_ref().unwrap_err().may_have_happened());
    set_all(&cluster, &Mood::Refusing(ErrorCode::Forbidden));
    let results = writer.write_rows(&[row(1, 3)]).await.unwrap();
    assert!(results.iter().all(|result| result.result.is_err()), "{results:?}");
    set_all(&cluster, &Mood::Well);
    cluster.deliver_late();
    let results = writer.write_rows(&[row(1, 4)]).await.unwrap();
    assert!(results.iter().all(|result| result.result.is_ok()), "{results:?}");
    assert_eq!(units(&cluster, 1), 4, "what was acknowledged last is there");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_had_happened_and_is_refused_later_keeps_its_number() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = session_writer(&group);
    set_all(&cluster, &Mood::Deaf);
    // The first call learns the place before it writes.
    let ask = writer.write_rows(&[row(1, 0)]).await.unwrap();
    assert!(ask[0].result.is_err());
    set_all(&cluster, &Mood::Well);
    writer.write_rows(&[row(1, 1)]).await.unwrap();
    set_all(&cluster, &Mood::Deaf);
    writer.write_rows(&[row(1, 2)]).await.unwrap();
    set_all(&cluster, &Mood::Refusing(ErrorCode::Forbidden));
    let results = writer.write_rows(&[row(1, 3)]).await.unwrap();
    assert!(results[0].rows.is_empty() && results[0].result.as_ref().unwrap().repeated, "{results:?}");
    assert!(results[1].result.is_err());
    set_all(&cluster, &Mood::Well);
    writer.write_rows(&[row(1, 4)]).await.unwrap();
    assert_eq!(units(&cluster, 1), 4);
    assert_eq!(cluster.state().batches, 3, "1, 2 and 4");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_leaves_its_number_taken() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = session_writer(&group);
    writer.write_rows(&[row(1, 1)]).await.unwrap();
    set_all(&cluster, &Mood::Late);
    let rows = [row(1, 2)];
    assert!(tokio::time::timeout(Duration::from_millis(100), writer.write_rows(&rows)).await.is_err());
    set_all(&cluster, &Mood::Refusing(ErrorCode::Forbidden));
    writer.write_rows(&[row(1, 3)]).await.unwrap();
    set_all(&cluster, &Mood::Well);
    cluster.deliver_late();
    let results = writer.write_rows(&[row(1, 4)]).await.unwrap();
    assert!(results.iter().all(|result| result.result.is_ok()), "{results:?}");
    assert_eq!(units(&cluster, 1), 4);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_continues_a_session_loses_nothing_to_what_its_predecessor_left_on_the_way() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let group = client.group("test/product@1").await.unwrap();
    let first = session_writer(&group);
    first.write_rows(&[row(1, 1)]).await.unwrap();
    set_all(&cluster, &Mood::Late);
    first.write_rows(&[row(1, 2)]).await.unwrap();
    drop(first);
    set_all(&cluster, &Mood::Refusing(ErrorCode::Forbidden));
    let second = session_writer(&group);
    second.write_rows(&[row(1, 3)]).await.unwrap(); // it has asked for its place, and been refused
    set_all(&cluster, &Mood::Well);
    cluster.deliver_late();
    let results = second.write_rows(&[row(1, 4)]).await.unwrap();
    assert!(results[0].result.is_ok());
    assert_eq!(units(&cluster, 1), 4);
}

#[tokio::test(start_paused = true)]
async fn two_calls_of_one_writer_at_once_take_different_numbers() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = session_writer(&group);
    let ids: Vec<i64> = (0..20).collect();
    let (even, odd): (Vec<_>, Vec<_>) = ids.iter().map(|&id| row(id, id + 500)).partition(|row| {
        row.event_time == 1 && {
            let KeyValue::Int(id) = row.key[0] else { unreachable!() };
            id % 2 == 0
        }
    });
    let (a, b) = tokio::join!(writer.write_rows(&even), writer.write_rows(&odd));
    assert!(a.unwrap().iter().chain(&b.unwrap()).all(|result| result.result.is_ok()));
    ids.iter().for_each(|&id| assert_eq!(i64::from(units(&cluster, id)), id + 500, "row {id}"));
}

#[tokio::test(start_paused = true)]
async fn a_second_writer_of_a_session_costs_the_first_no_acknowledged_row() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let (first, second) = (session_writer(&group), session_writer(&group));
    first.write_rows(&[row(1, 1)]).await.unwrap();
    for units in 2..5 {
        second.write_rows(&[row(1, units)]).await.unwrap();
    }
    for units in 5..12 {
        let results = first.write_rows(&[row(1, units)]).await.unwrap();
        if results[0].result.is_ok() {
            assert_eq!(i64::from(self::units(&cluster, 1)), units, "acknowledged, and not there");
        }
    }
    assert_eq!(units(&cluster, 1), 11, "it has found its place again");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_forgotten_is_begun_again() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = session_writer(&group);
    writer.write_rows(&[row(1, 1)]).await.unwrap();
    cluster.state().sessions.clear();
    let results = writer.write_rows(&[row(1, 2)]).await.unwrap();
    assert!(results[0].result.is_err(), "the caller is told");
    let results = writer.write_rows(&[row(1, 3)]).await.unwrap();
    assert!(results[0].result.is_ok(), "{results:?}");
    assert_eq!(units(&cluster, 1), 3);
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_writer_side_by_side_take_turns() {
    let cluster = Cluster::new();
    let group = cluster.client().await.group("test/product@1").await.unwrap();
    let writer = group.writer(&["p_name", "p_units"], WriterOptions { session: Some(4), ..WriterOptions::default() });
    let writer = writer.unwrap();
    let rows = [[row(1, 10)], [row(1, 20)], [row(1, 30)]];
    let results = tokio::join!(writer.write_rows(&rows[0]), writer.write_rows(&rows[1]), writer.write_rows(&rows[2]));
    for results in [results.0, results.1, results.2] {
        let results = results.unwrap();
        assert_eq!(results.len(), 1, "a batch that is under way is not sent by another call");
        assert!(!results[0].result.as_ref().unwrap().repeated, "two batches were given one number");
    }
    assert_eq!(cluster.state().batches, 3);
}

#[tokio::test(start_paused = true)]
async fn definitions_go_to_the_root_leader_and_their_map_is_fetched() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    cluster.state().leader = 2;
    let answer = client.apply(Vec::new(), Duration::from_secs(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.map().version, answer.version);
}
