//! One writer for each partition: batches of a partition go in order, partitions side by side.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoa_client::{Client, WriteError, WriteOptions};
use stoa_env::{Gauge, Transport, planted, spawn};
use stoa_protocol::PartitionId;
use stoa_protocol::message::SessionStep;
use tokio::sync::mpsc;

use super::{Acknowledged, LoadReport, Progress, ReadyBatch};

/// Batches of one partition that wait for the one before; with 2 MiB each it bounds what a slow partition holds.
pub(super) const WAITING_BATCHES_MAX: usize = 2;
/// How long one batch may take over all attempts: a zone may be lost and a leader elected meanwhile.
const BATCH_DEADLINE: Duration = Duration::from_secs(30);

/// The first batch of a partition that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneFailure {
    /// The partition.
    pub partition: PartitionId,
    /// The batch's number there.
    pub sequence: u64,
    /// Why.
    pub error: String,
}

/// The writers of all partitions: what a load does once its file is cut into batches.
///
/// It knows no file. Batches of a session are sent in the order of their numbers, and whoever sends them all again, under
/// the same session, goes on where the session had come to.
pub struct Lanes<T: Transport> {
    client: Client<T>,
    session: u128,
    told: Arc<Told>,
    lanes: BTreeMap<PartitionId, mpsc::Sender<ReadyBatch>>,
    tasks: Vec<(PartitionId, Task)>,
    /// Counts the batches that wait in a lane.
    waiting: Gauge,
}

type Task = tokio::task::JoinHandle<Option<Result<(), LaneFailure>>>;

/// What was acknowledged, kept outside the writers: if one panics, it is still told.
struct Told {
    sums: Mutex<Sums>,
    progress: Arc<dyn Progress>,
    total: Option<u64>,
}

#[derive(Default)]
struct Sums {
    acknowledged: BTreeMap<PartitionId, Acknowledged>,
    rows: u64,
    rows_older: u64,
}

impl<T: Transport> Lanes<T> {
    /// Writers of a session; none works before its partition's first batch comes. `total` rows are told to `progress`.
    pub fn new(client: Client<T>, session: u128, progress: Arc<dyn Progress>, total: Option<u64>) -> Self {
        let told = Arc::new(Told { sums: Mutex::default(), progress, total });
        let bounds = client.bounds_registry();
        let waiting = bounds.gauge("load: batches of a partition that wait", WAITING_BATCHES_MAX as u64);
        Self { client, session, told, lanes: BTreeMap::new(), tasks: Vec::new(), waiting }
    }

    /// Hands a batch to its partition's writer; false if that one has failed.
    pub async fn send(&mut self, batch: ReadyBatch) -> bool {
        let partition = batch.partition;
        let lane = match self.lanes.get(&partition) {
            Some(lane) => lane,
            None => {
                let (send, receive) = mpsc::channel(WAITING_BATCHES_MAX);
                let lane = write_lane(self.client.clone(), partition, self.session, receive, self.told.clone());
                self.tasks.push((partition, spawn("load a partition", lane)));
                self.lanes.entry(partition).or_insert(send)
            }
        };
        let taken = lane.send(batch).await.is_ok();
        self.waiting.note_len(lane.max_capacity() - lane.capacity());
        taken
    }

    /// Waits for all writers, and adds up what they did. The first failure in the order of their beginnings.
    pub async fn finish(mut self, report: &mut LoadReport) -> Option<LaneFailure> {
        self.lanes.clear();
        let mut failed = None;
        // Taken out one by one: whoever gives up waiting ends the others.
        while !self.tasks.is_empty() {
            let (partition, task) = &mut self.tasks[0];
            let (partition, ended) = (*partition, task.await);
            self.tasks.remove(0);
            let failure = match ended {
                Ok(Some(Ok(()))) => continue,
                Ok(Some(Err(failure))) => failure,
                Ok(None) | Err(_) => LaneFailure {
                    partition,
                    sequence: self.told.batches(partition) + 1,
                    error: "its writer stopped by a fault of this program; the log has more".to_owned(),
                },
            };
            failed.get_or_insert(failure);
        }
        let sums = self.told.sums();
        report.acknowledged = sums.acknowledged.clone();
        report.rows_acknowledged = sums.rows;
        report.rows_before = sums.acknowledged.values().map(|done| done.rows_before).sum();
        report.rows_older = sums.rows_older;
        failed
    }
}

/// Nobody waits for them any more: what they have sent arrives or does not, and the rest is not sent.
impl<T: Transport> Drop for Lanes<T> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }
}

async fn write_lane<T: Transport>(
    client: Client<T>,
    partition: PartitionId,
    session: u128,
    mut batches: mpsc::Receiver<ReadyBatch>,
    told: Arc<Told>,
) -> Result<(), LaneFailure> {
    let failure = |sequence, error: WriteError| LaneFailure { partition, sequence, error: error.to_string() };
    let answer = client.session(partition, session, BATCH_DEADLINE).await.map_err(|error| failure(1, error))?;
    while let Some(ReadyBatch { sequence, lines, batch, .. }) = batches.recv().await {
        let rows = batch.rows() as u64;
        if sequence <= answer.last + u64::from(answer.last > 0 && planted!(SkipBatchOnResume)) {
            told.note(partition, sequence, &lines, rows, Wrote::Before);
            continue;
        }
        let step = Some(SessionStep { session, sequence });
        let options = WriteOptions { deadline: BATCH_DEADLINE, step, ..WriteOptions::default() };
        let answer = client.write(partition, &batch, &options).await.map_err(|error| failure(sequence, error))?;
        told.note(partition, sequence, &lines, rows, Wrote::Now { older: answer.older.len() as u64 });
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Wrote {
    Before,
    Now { older: u64 },
}

impl Told {
    fn note(&self, partition: PartitionId, sequence: u64, lines: &RangeInclusive<u64>, rows: u64, wrote: Wrote) {
        let mut sums = self.sums();
        sums.rows += rows;
        let acknowledged = sums.acknowledged.entry(partition).or_default();
        acknowledged.batches = sequence;
        acknowledged.rows += rows;
        if acknowledged.first_line == 0 {
            acknowledged.first_line = *lines.start();
        }
        acknowledged.last_line = acknowledged.last_line.max(*lines.end());
        match wrote {
            Wrote::Before => {
                acknowledged.batches_before += 1;
                acknowledged.rows_before += rows;
            }
            Wrote::Now { older } => sums.rows_older += older,
        }
        let sum = sums.rows;
        drop(sums);
        self.progress.acknowledged(sum, self.total);
    }

    fn batches(&self, partition: PartitionId) -> u64 {
        self.sums().acknowledged.get(&partition).map_or(0, |done| done.batches)
    }

    fn sums(&self) -> std::sync::MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
