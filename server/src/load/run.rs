//! One load from file to acknowledgement: what `stoa load` does, and the demo with it.
//!
//! The rows of the file become batches, one partition each, numbered from 1 in their partition; each batch is one step of
//! the load's writer session, applied whole or not at all, and once however often it is sent. A second run of the same
//! load asks each partition how far it has come and goes on from there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stoa_client::{Client, WriteError};
use stoa_env::Transport;
use stoa_protocol::{FeatureGroup, PartitionId};

use super::lanes::{LaneFailure, Lanes};
use super::reading::{Input, Item, Output, ReadEnd, apart, read_on_a_thread};
use super::{BadRow, Batcher, LoadError, LoadIdentity, LoadOptions, SourceFile, UnknownColumns, load_session_id};

/// Rows read from the file at once.
const CHUNK_ROWS: usize = 4_096;
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
    /// Of these, the ones that an earlier run had written.
    pub rows_before: u64,
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
    fn note_rows(&mut self, read: u64, bad: u64, first_bad: Vec<BadRow>) {
        self.rows_read += read;
        self.rows_bad += bad;
        let room = BAD_ROWS_SHOWN.saturating_sub(self.bad.len());
        self.bad.extend(first_bad.into_iter().take(room));
    }
}

impl LoadFailure {
    /// What was read and acknowledged until then, if the load came that far.
    pub fn report(&self) -> Option<&LoadReport> {
        match self {
            Self::File(_) | Self::Group(_) => None,
            Self::BadRows(report) | Self::Interrupted { report, .. } | Self::Write { report, .. } => Some(report),
        }
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
    /// The file could not be read to its end.
    #[error("{error}. {} rows of it are acknowledged; run the same load again to go on from there", .report.rows_acknowledged)]
    Interrupted {
        /// Why.
        error: LoadError,
        /// What was acknowledged until then.
        report: Box<LoadReport>,
    },
    /// A batch was not acknowledged; the error says whether it may have been written. The same load settles it.
    #[error(
        "batch {sequence} of partition {partition} was not acknowledged: {error}. Run the same load again to go on from there"
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
    let file = request.file.clone();
    let group_read = definition.clone();
    let source = apart("open the file", move || SourceFile::open(&file, &group_read, options)).await??;
    let source = Arc::new(source);
    let report = LoadReport { ignored_columns: source.ignored_columns().to_vec(), ..LoadReport::default() };
    let mut total = source.rows_total();
    if request.on_bad == OnBad::Abort {
        let (checked, progress) = (source.clone(), progress.clone());
        let found = apart("check the file", move || check_all(&checked, &*progress)).await??;
        if found.rows_bad > 0 {
            return Err(LoadFailure::BadRows(Box::new(LoadReport {
                ignored_columns: report.ignored_columns,
                ..found
            })));
        }
        total = Some(found.rows_read);
    }
    let map = client.map();
    let set = map.set(definition.set).cloned().ok_or_else(|| LoadError::Partitions {
        group: definition.full_name(),
        wanted: definition.set.0,
        given: 0,
        partitions: 0,
    })?;
    let digested = source.clone();
    let session = load_session_id(&LoadIdentity {
        name: &request.name,
        file_digest: apart("digest the file", move || digested.digest()).await??,
        group: &definition,
        set: &set,
        rows_per_batch: request.rows_per_batch,
        load_time_us: request.at_us,
    });
    let batcher = Batcher::new(&definition, &source.features(), &set, request.rows_per_batch)?;
    let batcher = batcher.counted(client.bounds_registry());
    let lanes = Lanes::new(client.clone(), session, progress, total);
    let items = read_on_a_thread(move |send| read_batches(&source, batcher, send))?;
    transfer(items, lanes, report).await
}

/// Reads the whole file to find its bad rows, and counts them all.
fn check_all(source: &SourceFile, progress: &dyn Progress) -> Result<LoadReport, LoadError> {
    let mut report = LoadReport::default();
    for chunk in source.chunks(CHUNK_ROWS)? {
        let chunk = chunk?;
        report.note_rows(chunk.len() as u64, chunk.bad.len() as u64, chunk.bad);
        progress.checked(report.rows_read, source.rows_total());
    }
    Ok(report)
}

/// Reads the file and cuts it into batches.
fn read_batches(source: &SourceFile, mut batcher: Batcher, send: &mut Output) -> Result<(), ReadEnd> {
    for chunk in source.chunks(CHUNK_ROWS)? {
        let chunk = chunk?;
        for row in &chunk.rows {
            if let Some(batch) = batcher.push(row) {
                send.batch(batch)?;
            }
        }
        let read = chunk.len() as u64;
        let bad = chunk.bad.len() as u64;
        send.rows(read, bad, chunk.bad.into_iter().take(BAD_ROWS_SHOWN).collect())?;
    }
    batcher.finish().into_iter().try_for_each(|batch| send.batch(batch))
}

/// Carries what the reader finds to the partitions. Whatever happens, the report says what was acknowledged.
async fn transfer<T: Transport>(
    mut items: Input,
    mut lanes: Lanes<T>,
    mut report: LoadReport,
) -> Result<LoadReport, LoadFailure> {
    let mut failure = None;
    loop {
        match items.next().await {
            Item::Batch(batch) => {
                if !lanes.send(batch).await {
                    break;
                }
            }
            Item::Rows { read, bad, first_bad } => report.note_rows(read, bad, first_bad),
            Item::End => break,
            Item::Failed(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    // Ends the reader if it is still at it.
    drop(items);
    let failed = lanes.finish(&mut report).await;
    match (failed, failure) {
        (Some(LaneFailure { partition, sequence, error }), _) => {
            Err(LoadFailure::Write { partition, sequence, error, report: Box::new(report) })
        }
        (None, Some(error)) => Err(LoadFailure::Interrupted { error, report: Box::new(report) }),
        (None, None) => Ok(report),
    }
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
mod tests;
