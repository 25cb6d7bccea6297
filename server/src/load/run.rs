//! One load from file to acknowledgement: what `stoa load` does, and the demo with it.
//!
//! The rows of the file become batches, one partition each, numbered from 1 in their partition; each batch is one step of
//! the load's writer session, applied whole or not at all, and once however often it is sent. A second run of the same
//! load asks each partition how far it has come and goes on from there.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stoa_client::{Client, WriteError, WriteOptions};
use stoa_env::{Transport, spawn};
use stoa_protocol::message::SessionStep;
use stoa_protocol::{FeatureGroup, PartitionId};
use tokio::sync::mpsc;

use super::{
    BadRow, Batcher, LoadError, LoadIdentity, LoadOptions, ReadyBatch, SourceFile, UnknownColumns, load_session_id,
};

/// Rows read from the file at once.
const CHUNK_ROWS: usize = 4_096;
/// Batches of one partition that wait for the one before; with 2 MiB each it bounds what a slow partition holds.
const WAITING_BATCHES_MAX: usize = 2;
/// How long one batch may take over all attempts: a zone may be lost and a leader elected meanwhile.
const BATCH_DEADLINE: Duration = Duration::from_secs(30);
/// Bad rows that are kept for the report.
pub const BAD_ROWS_SHOWN: usize = 20;

/// What to do with a row that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// Report it and write the others.
    Skip,
    /// Write nothing at all: the file is checked to its end before the first batch is sent.
    Abort,
}

/// What is to be loaded, and how.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// The group's full name.
    pub group: String,
    /// The file.
    pub file: PathBuf,
    /// The load's name: the same name, file, group and options resume a load; another name begins a new one.
    pub name: String,
    /// What to do with bad rows.
    pub on_bad: OnBad,
    /// What to do with columns that the group has not.
    pub unknown_columns: UnknownColumns,
    /// Rows of a batch.
    pub rows_per_batch: usize,
    /// The time of the load, microseconds since 1970-01-01T00:00:00Z: the event time of rows of a group that has none,
    /// and what "in the future" is measured against.
    pub at_us: i64,
}

/// What one partition has acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Acknowledged {
    /// Batches 1 to this one.
    pub batches: u64,
    /// Of these, the ones that an earlier run had written.
    pub batches_before: u64,
    /// Rows in them.
    pub rows: u64,
    /// The first line of the file among them; 0 if there is none.
    pub first_line: u64,
    /// The last line of the file among them; other partitions' lines lie between.
    pub last_line: u64,
}

/// How a load went.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Rows of the file.
    pub rows_read: u64,
    /// Rows that are in the store now, those of an earlier run included.
    pub rows_acknowledged: u64,
    /// Rows that an earlier run had written.
    pub rows_before: u64,
    /// Rows that were older than what was there, and changed nothing.
    pub rows_older: u64,
    /// Rows that could not be written.
    pub rows_bad: u64,
    /// The first of them.
    pub bad: Vec<BadRow>,
    /// File columns that were not read.
    pub ignored_columns: Vec<String>,
    /// What each partition has acknowledged.
    pub acknowledged: BTreeMap<PartitionId, Acknowledged>,
}

impl LoadReport {
    /// Rows that this run has written.
    pub fn rows_written(&self) -> u64 {
        self.rows_acknowledged - self.rows_before
    }
}

/// Why a load ended early. What was acknowledged stays; the same load may be run again.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// The file cannot be loaded. Nothing was written.
    #[error(transparent)]
    File(#[from] LoadError),
    /// Rows cannot be written, and the load was to abort then. Nothing was written.
    #[error("{} of {} rows cannot be written, so nothing was; mend them, or load with --on-bad skip", .0.rows_bad, .0.rows_read)]
    BadRows(Box<LoadReport>),
    /// The group cannot be opened. Nothing was written.
    #[error("{0}")]
    Group(WriteError),
    /// A batch was not written.
    #[error(
        "batch {sequence} of partition {partition} was not written: {error}. Run the same load again to go on from there"
    )]
    Write {
        /// The partition.
        partition: PartitionId,
        /// The batch's number there.
        sequence: u64,
        /// Why.
        error: String,
        /// What was acknowledged until then.
        report: Box<LoadReport>,
    },
    /// The load itself broke down, which is a fault of the program.
    #[error("the load broke down: {what} ended before its work was done. Run the same load again to go on from there")]
    Broken {
        /// Which part of it.
        what: String,
        /// What was acknowledged until then.
        report: Box<LoadReport>,
    },
}

/// What a load tells while it runs. Called often.
pub trait Progress: Send + Sync + 'static {
    /// Rows checked, of how many if that is known.
    fn checked(&self, rows: u64, total: Option<u64>);
    /// Rows acknowledged, of how many if that is known.
    fn acknowledged(&self, rows: u64, total: Option<u64>);
}

/// Tells nothing.
pub struct Silent;

impl Progress for Silent {
    fn checked(&self, _rows: u64, _total: Option<u64>) {}
    fn acknowledged(&self, _rows: u64, _total: Option<u64>) {}
}

/// Runs a load.
pub async fn load<T: Transport>(
    client: &Client<T>,
    request: &LoadRequest,
    progress: Arc<dyn Progress>,
) -> Result<LoadReport, LoadFailure> {
    let group = client.group(&request.group).await.map_err(LoadFailure::Group)?;
    let definition = group.definition().clone();
    let options = LoadOptions { unknown_columns: request.unknown_columns, ..LoadOptions::new(request.at_us) };
    let source = Arc::new(SourceFile::open(&request.file, &definition, options)?);
    let mut report = LoadReport { ignored_columns: source.ignored_columns().to_vec(), ..LoadReport::default() };
    if request.on_bad == OnBad::Abort {
        check_all(&source, &*progress, &mut report)?;
        if report.rows_bad > 0 {
            return Err(LoadFailure::BadRows(Box::new(report)));
        }
        report.rows_read = 0;
    }
    let map = client.map();
    let set = map.set(definition.set).cloned().ok_or_else(|| LoadError::Partitions {
        group: definition.full_name(),
        wanted: definition.set.0,
        given: 0,
        partitions: 0,
    })?;
    let session = load_session_id(&LoadIdentity {
        name: &request.name,
        file_digest: source.digest()?,
        group: &definition,
        set: &set,
        rows_per_batch: request.rows_per_batch,
        load_time_us: request.at_us,
    });
    let batcher = Batcher::new(&definition, &source.features(), &set, request.rows_per_batch)?;
    let mut batches = read_batches(source.clone(), batcher);
    let mut lanes = Lanes::new(client.clone(), session, progress, source.rows_total());
    let read = feed(&mut batches, &mut report, async |batch| lanes.send(batch).await).await;
    // Ends the reader if it is still at it.
    drop(batches);
    let failed = lanes.finish(&mut report).await;
    match (failed, read) {
        (Some(LaneFailure::Write { partition, sequence, error }), _) => {
            Err(LoadFailure::Write { partition, sequence, error: error.to_string(), report: Box::new(report) })
        }
        (Some(LaneFailure::Broken { partition }), _) => {
            Err(LoadFailure::Broken { what: format!("the writer of partition {partition}"), report: Box::new(report) })
        }
        (None, Fed::Failed(error)) => Err(error.into()),
        (None, Fed::Stopped) => {
            Err(LoadFailure::Broken { what: "the reader of the file".into(), report: Box::new(report) })
        }
        (None, Fed::Whole) => Ok(report),
    }
}

/// How the feeding of a file to its partitions ended.
#[derive(Debug)]
enum Fed {
    /// With the end of the file.
    Whole,
    /// The file cannot be read any further.
    Failed(LoadError),
    /// Before its end: a partition took no more, or the reader died.
    Stopped,
}

/// Hands on what the reader reads. Only the reader's own word says that the file was read to its end: a reader that has
/// died is silent, too.
async fn feed(
    batches: &mut mpsc::Receiver<Result<Read, LoadError>>,
    report: &mut LoadReport,
    mut send: impl AsyncFnMut(ReadyBatch) -> bool,
) -> Fed {
    while let Some(item) = batches.recv().await {
        match item {
            Ok(Read::End) => return Fed::Whole,
            Ok(Read::Batch(batch)) => {
                if !send(batch).await {
                    return Fed::Stopped;
                }
            }
            Ok(Read::Rows { read, bad, first_bad }) => {
                report.rows_read += read;
                report.rows_bad += bad;
                let room = BAD_ROWS_SHOWN.saturating_sub(report.bad.len());
                report.bad.extend(first_bad.into_iter().take(room));
            }
            Err(error) => return Fed::Failed(error),
        }
    }
    Fed::Stopped
}

fn check_all(source: &SourceFile, progress: &dyn Progress, report: &mut LoadReport) -> Result<(), LoadError> {
    for chunk in source.chunks(CHUNK_ROWS)? {
        let chunk = chunk?;
        report.rows_read += chunk.len() as u64;
        report.rows_bad += chunk.bad.len() as u64;
        let room = BAD_ROWS_SHOWN.saturating_sub(report.bad.len());
        report.bad.extend(chunk.bad.into_iter().take(room));
        progress.checked(report.rows_read, source.rows_total());
    }
    Ok(())
}

enum Read {
    Batch(ReadyBatch),
    Rows {
        read: u64,
        bad: u64,
        first_bad: Vec<BadRow>,
    },
    /// The last item of a file that was read to its end.
    End,
}

/// Reads the file on a thread of its own: decoding blocks, and the runtime's threads carry the network.
fn read_batches(source: Arc<SourceFile>, mut batcher: Batcher) -> mpsc::Receiver<Result<Read, LoadError>> {
    let (send, receive) = mpsc::channel(WAITING_BATCHES_MAX);
    std::thread::spawn(move || {
        let chunks = match source.chunks(CHUNK_ROWS) {
            Ok(chunks) => chunks,
            Err(error) => return drop(send.blocking_send(Err(error))),
        };
        for chunk in chunks {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => return drop(send.blocking_send(Err(error))),
            };
            for batch in chunk.rows.iter().filter_map(|row| batcher.push(row)).collect::<Vec<_>>() {
                if send.blocking_send(Ok(Read::Batch(batch))).is_err() {
                    return;
                }
            }
            let rows = Read::Rows {
                read: chunk.len() as u64,
                bad: chunk.bad.len() as u64,
                first_bad: chunk.bad.into_iter().take(BAD_ROWS_SHOWN).collect(),
            };
            if send.blocking_send(Ok(rows)).is_err() {
                return;
            }
        }
        for batch in batcher.finish() {
            if send.blocking_send(Ok(Read::Batch(batch))).is_err() {
                return;
            }
        }
        // Nobody listens any more only if a partition has failed, which is what the load then reports.
        let _nobody_listens = send.blocking_send(Ok(Read::End));
    });
    receive
}

/// What a lane has to tell at its end.
#[derive(Default)]
struct LaneResult {
    acknowledged: Acknowledged,
    /// Rows of batches that an earlier run had written.
    rows_before: u64,
    rows_older: u64,
    failed: Option<(u64, WriteError)>,
}

/// A lane at work; `None` if it panicked.
type LaneTask = tokio::task::JoinHandle<Option<LaneResult>>;

/// How a lane failed.
#[derive(Debug)]
enum LaneFailure {
    Write {
        partition: PartitionId,
        sequence: u64,
        error: WriteError,
    },
    /// Its task panicked, so nobody knows how far it came.
    Broken {
        partition: PartitionId,
    },
}

/// One writer for each partition: batches of a partition go in order, partitions side by side.
struct Lanes<T: Transport> {
    client: Client<T>,
    session: u128,
    progress: Arc<dyn Progress>,
    total: Option<u64>,
    rows_done: Arc<AtomicU64>,
    lanes: BTreeMap<PartitionId, mpsc::Sender<ReadyBatch>>,
    tasks: Vec<(PartitionId, LaneTask)>,
}

impl<T: Transport> Lanes<T> {
    fn new(client: Client<T>, session: u128, progress: Arc<dyn Progress>, total: Option<u64>) -> Self {
        let rows_done = Arc::default();
        Self { client, session, progress, total, rows_done, lanes: BTreeMap::new(), tasks: Vec::new() }
    }

    /// Hands a batch to its partition's writer; false if that one has failed.
    async fn send(&mut self, batch: ReadyBatch) -> bool {
        let partition = batch.partition;
        let lane = match self.lanes.get(&partition) {
            Some(lane) => lane,
            None => {
                let (send, receive) = mpsc::channel(WAITING_BATCHES_MAX);
                let (client, session) = (self.client.clone(), self.session);
                let (progress, total, done) = (self.progress.clone(), self.total, self.rows_done.clone());
                let told = move |rows: u64| {
                    let sum = done.fetch_add(rows, Ordering::Relaxed) + rows;
                    progress.acknowledged(sum, total);
                };
                let lane = spawn("load a partition", write_lane(client, partition, session, receive, told));
                self.tasks.push((partition, lane));
                self.lanes.entry(partition).or_insert(send)
            }
        };
        lane.send(batch).await.is_ok()
    }

    async fn finish(self, report: &mut LoadReport) -> Option<LaneFailure> {
        drop(self.lanes);
        add_up(self.tasks, report).await
    }
}

/// Waits for all lanes and adds up what they tell; the first failure.
async fn add_up(tasks: Vec<(PartitionId, LaneTask)>, report: &mut LoadReport) -> Option<LaneFailure> {
    let mut failed = None;
    for (partition, task) in tasks {
        let Ok(Some(lane)) = task.await else {
            failed.get_or_insert(LaneFailure::Broken { partition });
            continue;
        };
        report.rows_acknowledged += lane.acknowledged.rows;
        report.rows_before += lane.rows_before;
        report.rows_older += lane.rows_older;
        report.acknowledged.insert(partition, lane.acknowledged);
        if let Some((sequence, error)) = lane.failed {
            failed.get_or_insert(LaneFailure::Write { partition, sequence, error });
        }
    }
    failed
}

async fn write_lane<T: Transport>(
    client: Client<T>,
    partition: PartitionId,
    session: u128,
    mut batches: mpsc::Receiver<ReadyBatch>,
    told: impl Fn(u64),
) -> LaneResult {
    let mut lane = LaneResult::default();
    let before = match client.session(partition, session, BATCH_DEADLINE).await {
        Ok(answer) => answer.last,
        Err(error) => return LaneResult { failed: Some((1, error)), ..lane },
    };
    while let Some(ReadyBatch { sequence, lines, batch, .. }) = batches.recv().await {
        let rows = batch.rows() as u64;
        if sequence > before {
            let step = Some(SessionStep { session, sequence });
            let options = WriteOptions { deadline: BATCH_DEADLINE, step, ..WriteOptions::default() };
            match client.write(partition, &batch, &options).await {
                Ok(answer) => lane.rows_older += answer.older.len() as u64,
                Err(error) => return LaneResult { failed: Some((sequence, error)), ..lane },
            }
        } else {
            lane.acknowledged.batches_before += 1;
            lane.rows_before += rows;
        }
        note(&mut lane.acknowledged, sequence, &lines, rows);
        told(rows);
    }
    lane
}

fn note(acknowledged: &mut Acknowledged, sequence: u64, lines: &RangeInclusive<u64>, rows: u64) {
    acknowledged.batches = sequence;
    acknowledged.rows += rows;
    if acknowledged.first_line == 0 {
        acknowledged.first_line = *lines.start();
    }
    acknowledged.last_line = acknowledged.last_line.max(*lines.end());
}

/// The load time when none is given: when the file was last changed, but not later than `now_us`. It is the same in
/// every run over the same file, so that a load can be resumed.
pub fn file_time_us(file: &Path, now_us: i64) -> i64 {
    let modified = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|d| i64::try_from(d.as_micros()).ok()).map_or(now_us, |us| us.min(now_us))
}

/// The name of a load that was given none: of file and group.
pub fn default_name(file: &Path, group: &FeatureGroup) -> String {
    let file = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{}:{file}", group.full_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::map::{PartitionInfo, PartitionSet};
    use stoa_protocol::{FeatureType, KeyType, PartitionSetId};

    #[tokio::test]
    async fn a_file_is_read_to_its_end_or_the_load_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.csv");
        std::fs::write(&file, "id,x\n1,10\n2,20\n3,oops\n").unwrap();
        let group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("x", FeatureType::Int64)]);
        let partitions = vec![PartitionInfo { id: PartitionId(2), first_hash: 0, replicas: Vec::new() }];
        let set = PartitionSet { id: PartitionSetId(1), name: "shared".into(), incarnation: 0, partitions };
        let source = Arc::new(SourceFile::open(&file, &group, LoadOptions::new(0)).unwrap());
        let batcher = Batcher::new(&group, &source.features(), &set, 1).unwrap();
        let (mut report, mut rows) = (LoadReport::default(), 0);
        let mut batches = read_batches(source, batcher);
        let fed = feed(&mut batches, &mut report, async |batch| {
            rows += batch.batch.rows();
            true
        });
        assert!(matches!(fed.await, Fed::Whole));
        assert_eq!((rows, report.rows_read, report.rows_bad), (2, 3, 1));

        let (send, mut receive) = mpsc::channel(1);
        send.send(Ok(Read::Rows { read: 1, bad: 0, first_bad: Vec::new() })).await.unwrap();
        drop(send);
        let fed = feed(&mut receive, &mut report, async |_| true).await;
        assert!(matches!(fed, Fed::Stopped), "a reader that died is taken for the end of the file: {fed:?}");
    }

    #[tokio::test]
    async fn a_lane_that_died_fails_the_load() {
        let died = spawn("a lane that dies", async { panic!("planted") });
        let mut report = LoadReport::default();
        let failed = add_up(vec![(PartitionId(7), died)], &mut report).await;
        assert!(matches!(failed, Some(LaneFailure::Broken { partition: PartitionId(7) })));
    }
}
