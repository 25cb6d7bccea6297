#![allow(clippy::unwrap_used)] // a test's helper may fail loudly, as the test itself

#[allow(dead_code)] // a part of it is used here
#[path = "../../../../client/tests/support/mod.rs"]
mod support;

use std::io::Write;

use stoa_protocol::message::Kind;
use support::{Cluster, Mood, product};

use super::*;
use crate::load::Silent;

const ROWS: u64 = 100;

fn file(rows: impl Iterator<Item = String>) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    writeln!(file, "product_id,p_units").unwrap();
    rows.for_each(|row| writeln!(file, "{row}").unwrap());
    file
}

fn whole_file() -> tempfile::NamedTempFile {
    file((0..ROWS).map(|id| format!("{id},{}", id + 7)))
}

fn request(file: &tempfile::NamedTempFile, on_bad: OnBad) -> LoadRequest {
    LoadRequest {
        group: "test/product@1".into(),
        file: file.path().to_owned(),
        name: "daily".into(),
        on_bad,
        unknown_columns: UnknownColumns::Refuse,
        rows_per_batch: 2,
        at_us: 5,
    }
}

/// A reader of the whole file that does something else after some batches.
fn reader(after: usize, then: fn() -> Result<(), ReadEnd>) -> impl FnOnce(&mut Output) -> Result<(), ReadEnd> + Send {
    let file = whole_file();
    let source = SourceFile::open(file.path(), &product(), LoadOptions::new(5)).unwrap();
    let set = Cluster::new().map().sets.remove(0);
    let mut batcher = Batcher::new(&product(), &source.features(), &set, 2).unwrap();
    let rows = source.chunks(CHUNK_ROWS).unwrap().next().unwrap().unwrap().rows;
    let batches: Vec<_> = rows.iter().filter_map(|row| batcher.push(row)).take(after).collect();
    move |send| {
        batches.into_iter().try_for_each(|batch| send.batch(batch))?;
        then()
    }
}

async fn carry(
    cluster: &Cluster,
    read: impl FnOnce(&mut Output) -> Result<(), ReadEnd> + Send + 'static,
) -> Result<LoadReport, LoadFailure> {
    let lanes = Lanes::new(cluster.client().await, 9, Arc::new(Silent), None);
    transfer(read_on_a_thread(read).unwrap(), lanes, LoadReport::default()).await
}

#[tokio::test]
async fn a_reader_that_panics_is_no_end_of_the_file() {
    let failure = carry(&Cluster::new(), reader(10, || panic!("as the test wants"))).await.unwrap_err();
    let LoadFailure::Interrupted { error: LoadError::Stopped { .. }, report } = failure else { panic!("{failure}") };
    assert_eq!(report.rows_acknowledged, 20);
    assert_eq!(report.acknowledged.values().map(|done| done.rows).sum::<u64>(), 20);
}

#[tokio::test]
async fn what_was_acknowledged_before_the_file_could_not_be_read_is_reported() {
    let fail = || Err(LoadError::Changed { path: "x".into() }.into());
    let failure = carry(&Cluster::new(), reader(10, fail)).await.unwrap_err();
    assert!(failure.to_string().contains("20 rows of it are acknowledged"), "{failure}");
    assert_eq!(failure.report().unwrap().rows_acknowledged, 20);
}

struct Panics;

impl Progress for Panics {
    fn checked(&self, _rows: u64, _total: Option<u64>) {}
    fn acknowledged(&self, _rows: u64, _total: Option<u64>) {
        panic!("as the test wants")
    }
}

#[tokio::test]
async fn a_writer_of_a_partition_that_panics_fails_the_load_and_its_batches_are_told() {
    let (cluster, file) = (Cluster::new(), whole_file());
    let client = cluster.client().await;
    let failure = load(&client, &request(&file, OnBad::Skip), Arc::new(Panics)).await.unwrap_err();
    let LoadFailure::Write { sequence, report, .. } = &failure else { panic!("{failure}") };
    assert_eq!(*sequence, 2);
    assert_eq!(report.rows_acknowledged, 2 * cluster.state().batches as u64);
}

#[tokio::test]
async fn a_load_that_failed_is_gone_on_with_and_tells_what_was_there() {
    let (cluster, file) = (Cluster::new(), whole_file());
    let client = cluster.client().await;
    let whole = request(&file, OnBad::Abort);
    cluster.set(1, Mood::Well);
    cluster.state().refuse_after = Some(9);
    let failure = load(&client, &whole, Arc::new(Silent)).await.unwrap_err();
    assert!(matches!(failure, LoadFailure::Write { .. }), "{failure}");
    let before = failure.report().unwrap().rows_acknowledged;
    assert_eq!(before, 18);
    cluster.state().refuse_after = None;
    let report = load(&client, &whole, Arc::new(Silent)).await.unwrap();
    assert_eq!((report.rows_read, report.rows_acknowledged, report.rows_before), (ROWS, ROWS, before));
    cluster.asked(Kind::Write);
    let again = load(&client, &whole, Arc::new(Silent)).await.unwrap();
    assert_eq!((again.rows_acknowledged, again.rows_before), (ROWS, ROWS));
    assert!(cluster.asked(Kind::Write).is_empty(), "nothing is sent twice");
}

#[tokio::test]
async fn bad_rows_are_told_by_line_and_end_the_load_or_are_left_out() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = file(["1,1", "2,many", "3,3", "4", "5,5"].into_iter().map(str::to_owned));
    let failure = load(&client, &request(&file, OnBad::Abort), Arc::new(Silent)).await.unwrap_err();
    assert!(matches!(failure, LoadFailure::BadRows(_)), "{failure}");
    assert_eq!(cluster.state().batches, 0, "nothing was written");
    let report = load(&client, &request(&file, OnBad::Skip), Arc::new(Silent)).await.unwrap();
    assert_eq!((report.rows_read, report.rows_acknowledged, report.rows_bad), (5, 3, 2));
    assert_eq!(report.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3, 5]);
    assert!(report.bad[0].reason.contains("p_units"), "{}", report.bad[0].reason);
}
