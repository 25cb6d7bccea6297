//! Writing many rows: split by partition, laid out in batches, sent to each partition's leader.
//!
//! Batches of one partition go one after the other, which keeps their order and a session's steps without gaps; the
//! partitions go side by side, up to [`PARTITIONS_IN_FLIGHT_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use stoa_env::Transport;
use stoa_protocol::catalog::FeatureGroup;
use stoa_protocol::key::{encode_key, key_prefix, partition_hash};
use stoa_protocol::message::{SessionStep, WriteAnswer};
use stoa_protocol::{ClusterMap, KeyType, KeyValue, PartitionId, RowBatch, RowBatchBuilder, Value};

use crate::error::{RowsError, WriteError};
use crate::plan::key_error;
use crate::writer::{Group, OnLostAnswer, WriteOptions};

/// Partitions that one call writes to at the same time: enough to fill three nodes' group commits, few enough that
/// batches of 2 MiB stay within some tens of MiB.
pub const PARTITIONS_IN_FLIGHT_MAX: usize = 16;

/// One row to write.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteRow {
    /// The values of the entity's key columns, in their order.
    pub key: Vec<KeyValue>,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub event_time: i64,
    /// Breaks ties of event time; 0 if the source has none.
    pub sequence: u64,
    /// The values in the order of the writer's features; `None` deletes the row.
    pub values: Option<Vec<Value>>,
}

/// What became of one batch.
#[derive(Debug)]
pub struct BatchResult {
    /// The partition.
    pub partition: PartitionId,
    /// Places of its rows among those given; empty for a batch of an earlier call that was sent again.
    pub rows: Vec<u32>,
    /// The result.
    pub result: Result<WriteAnswer, WriteError>,
}

/// How a writer works.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// For each batch, as [`WriteOptions::deadline`].
    pub deadline: Duration,
    /// A writer session for exactly-once: a number that no other writer uses. Its steps begin at 1; a writer that
    /// continues a session asks each partition how far it has come. It must write the same batches again from there: a
    /// batch of the former writer may still be on its way, and a number that two batches were given is refused with
    /// [`ErrorCode::SessionConflict`](stoa_protocol::ErrorCode::SessionConflict). Other rows take a new session.
    pub session: Option<u128>,
    /// As [`WriteOptions::on_lost_answer`].
    pub on_lost_answer: OnLostAnswer,
}

impl Default for WriterOptions {
    fn default() -> Self {
        let WriteOptions { deadline, on_lost_answer, .. } = WriteOptions::default();
        Self { deadline, session: None, on_lost_answer }
    }
}

/// Writes rows of one group. With a session, use one writer at a time for it; calls of one writer may go side by side.
pub struct GroupWriter<T: Transport> {
    group: Group<T>,
    features: Vec<u16>,
    types: Vec<KeyType>,
    options: WriterOptions,
    /// Each partition's place in the session; `None` until the partition was asked. A place is locked for as long as
    /// batches of its partition are under way, so that calls side by side take turns. As many as the map has partitions.
    steps: Mutex<BTreeMap<PartitionId, Place>>,
}

type Place = Arc<tokio::sync::Mutex<Option<SessionPlace>>>;

#[derive(Debug, Clone, Default)]
struct SessionPlace {
    /// The last sequence known to be applied.
    last: u64,
    /// A batch of sequence `last + 1` that was sent and whose outcome is not known. It keeps the number until a leader
    /// says that it was applied: even if it is refused later, an earlier attempt may have been carried out, or may lie
    /// in the network still, and whatever took the number then would be acknowledged and lost.
    unsettled: Option<RowBatch>,
}

struct Job {
    rows: Vec<u32>,
    batch: RowBatch,
}

impl<T: Transport> Group<T> {
    /// A writer of these features, in the order in which rows give their values.
    ///
    /// # Errors
    /// [`WriteError::Rows`] if the group has no such feature, or one is named twice.
    pub fn writer(&self, features: &[&str], options: WriterOptions) -> Result<GroupWriter<T>, WriteError> {
        let definition = self.definition();
        let mut places = Vec::with_capacity(features.len());
        for name in features {
            let place = definition.feature(name).ok_or_else(|| RowsError::Unknown {
                column: (*name).to_owned(),
                of: definition.full_name(),
                wanted: definition.features.iter().map(|feature| feature.name.clone()).collect(),
            })?;
            if places.contains(&place) {
                return Err(RowsError::Twice { column: (*name).to_owned() }.into());
            }
            places.push(place);
        }
        Ok(GroupWriter {
            types: definition.entity.key_types(),
            group: self.clone(),
            features: places,
            options,
            steps: Mutex::default(),
        })
    }
}

impl<T: Transport> GroupWriter<T> {
    /// Writes rows. The results are per batch, in the order in which they became known; every row is in one of them. If
    /// a batch fails, the later ones of its partition are not sent.
    ///
    /// # Errors
    /// [`WriteError::Rows`] if a row does not fit; nothing was sent then.
    pub async fn write_rows(&self, rows: &[WriteRow]) -> Result<Vec<BatchResult>, WriteError> {
        let map = self.group.client.map();
        let jobs = self.lay_out(rows, &map)?;
        let writes = jobs.into_iter().map(|(partition, jobs)| self.write_partition(partition, jobs));
        let results: Vec<Vec<BatchResult>> =
            stream::iter(writes).buffer_unordered(PARTITIONS_IN_FLIGHT_MAX).collect().await;
        Ok(results.into_iter().flatten().collect())
    }

    fn lay_out(&self, rows: &[WriteRow], map: &ClusterMap) -> Result<BTreeMap<PartitionId, Vec<Job>>, WriteError> {
        let group = self.group.definition();
        let missing = |what: String| WriteError::NoPartition { what, map_version: map.version.0 };
        let set = map.set(group.set).ok_or_else(|| missing(format!("no partition set {}", group.set)))?;
        let mut jobs: BTreeMap<PartitionId, Vec<Job>> = BTreeMap::new();
        let mut open: BTreeMap<PartitionId, (Vec<u32>, RowBatchBuilder)> = BTreeMap::new();
        let order = self.order();
        let (mut key, mut sorted) = (Vec::new(), Vec::new());
        for (at, row) in rows.iter().enumerate() {
            key.clear();
            self.encode_key(group, at, row, &mut key)?;
            let prefix = key_prefix(&self.types, &key, usize::from(group.entity.partition_by));
            let hash = partition_hash(prefix.expect("the key has just been encoded"));
            let partition =
                set.partition_of(hash).ok_or_else(|| missing(format!("partition set {} is empty", set.name)))?.id;
            let new = || (Vec::new(), RowBatchBuilder::new(group, &self.features));
            let (places, builder) = open.entry(partition).or_insert_with(new);
            if builder.is_full(key.len() + row_bytes(row)) {
                let (places, builder) = (std::mem::take(places), std::mem::replace(builder, new().1));
                jobs.entry(partition).or_default().extend(finish(places, builder));
            }
            match &row.values {
                None => builder.delete(&key, row.event_time, row.sequence),
                Some(values) => {
                    self.sort_values(at, values, &order, &mut sorted)?;
                    builder.upsert(&key, row.event_time, row.sequence, &sorted).map_err(|(feature, error)| {
                        let feature = group.features[usize::from(feature)].name.clone();
                        RowsError::Value { row: at, feature, why: error.to_string() }
                    })?;
                }
            }
            places.push(at as u32);
        }
        for (partition, (places, builder)) in open {
            jobs.entry(partition).or_default().extend(finish(places, builder));
        }
        Ok(jobs)
    }

    fn encode_key(&self, group: &FeatureGroup, at: usize, row: &WriteRow, key: &mut Vec<u8>) -> Result<(), RowsError> {
        let columns = &group.entity.keys;
        if row.key.len() != columns.len() {
            let columns = columns.iter().map(|column| column.name.clone()).collect();
            return Err(RowsError::Count { row: at, given: row.key.len(), columns });
        }
        for (column, value) in columns.iter().zip(&row.key) {
            encode_key(&[column.ty], std::slice::from_ref(value), key).map_err(|error| key_error(at, column, error))?;
        }
        crate::plan::check_key_bytes(at, columns.iter(), key.len())
    }

    /// For each feature of a batch, ascending: its place among a row's values.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.features.len()).collect();
        order.sort_by_key(|&at| self.features[at]);
        order
    }

    fn sort_values(&self, at: usize, values: &[Value], order: &[usize], out: &mut Vec<Value>) -> Result<(), RowsError> {
        if values.len() != order.len() {
            let name = |place: &u16| self.group.definition().features[usize::from(*place)].name.clone();
            let columns = self.features.iter().map(name).collect();
            return Err(RowsError::Count { row: at, given: values.len(), columns });
        }
        out.clear();
        out.extend(order.iter().map(|&place| values[place].clone()));
        Ok(())
    }

    async fn write_partition(&self, partition: PartitionId, jobs: Vec<Job>) -> Vec<BatchResult> {
        let Some(session) = self.options.session else { return self.write_all(partition, jobs.into(), None).await };
        let place =
            self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(partition).or_default().clone();
        let mut place = place.lock().await;
        let mut queue: VecDeque<Job> = jobs.into();
        let known = match place.take() {
            Some(known) => known,
            None => match self.group.client.session(partition, session, self.options.deadline).await {
                Ok(answer) => SessionPlace { last: answer.last, unsettled: None },
                Err(error) => return fail_all(partition, queue, error),
            },
        };
        if let Some(batch) = known.unsettled.clone() {
            queue.push_front(Job { rows: Vec::new(), batch });
        }
        self.write_all(partition, queue, Some((session, place.insert(known)))).await
    }

    /// Writes one batch after the other, up to the first that fails.
    async fn write_all(
        &self,
        partition: PartitionId,
        mut queue: VecDeque<Job>,
        mut session: Option<(u128, &mut SessionPlace)>,
    ) -> Vec<BatchResult> {
        let mut results = Vec::with_capacity(queue.len());
        while let Some(job) = queue.pop_front() {
            let result = match &mut session {
                Some((session, place)) => self.write_step(partition, &job.batch, *session, place).await,
                None => self.write_one(partition, &job.batch, None).await,
            };
            let failed = result.is_err();
            results.push(BatchResult { partition, rows: job.rows, result });
            if failed {
                let skipped = queue.drain(..).map(|job| BatchResult {
                    partition,
                    rows: job.rows,
                    result: Err(WriteError::Skipped { partition }),
                });
                results.extend(skipped);
            }
        }
        results
    }

    /// Writes the next batch of a session.
    async fn write_step(
        &self,
        partition: PartitionId,
        batch: &RowBatch,
        session: u128,
        place: &mut SessionPlace,
    ) -> Result<WriteAnswer, WriteError> {
        let step = SessionStep { session, sequence: place.last + 1 };
        let sent_before = place.unsettled.is_some();
        // Noted before it is sent: if this future is dropped, the number is not given to another batch.
        place.unsettled = Some(batch.clone());
        let result = self.write_one(partition, batch, Some(step)).await;
        match result {
            Ok(answer) => {
                *place = SessionPlace { last: step.sequence, unsettled: None };
                Ok(answer)
            }
            Err(error) if error.may_have_happened() => Err(error),
            Err(error) if sent_before => {
                Err(WriteError::StepUnsettled { partition, sequence: step.sequence, last: Box::new(error) })
            }
            Err(error) => {
                place.unsettled = None;
                Err(error)
            }
        }
    }

    async fn write_one(
        &self,
        partition: PartitionId,
        batch: &RowBatch,
        step: Option<SessionStep>,
    ) -> Result<WriteAnswer, WriteError> {
        let WriterOptions { deadline, on_lost_answer, .. } = self.options;
        self.group.client.write(partition, batch, &WriteOptions { deadline, step, on_lost_answer }).await
    }
}

fn finish(rows: Vec<u32>, builder: RowBatchBuilder) -> Option<Job> {
    builder.finish().map(|batch| Job { rows, batch })
}

fn fail_all(partition: PartitionId, queue: VecDeque<Job>, error: WriteError) -> Vec<BatchResult> {
    let fail = |job: Job| BatchResult { partition, rows: job.rows, result: Err(error.clone()) };
    queue.into_iter().map(fail).collect()
}

/// Bytes of a row's values of variable width, not less.
fn row_bytes(row: &WriteRow) -> usize {
    fn bytes(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len() + 4,
            Value::Binary(bytes) => bytes.len() + 4,
            Value::Array(items) => items.iter().map(bytes).sum(),
            Value::FixedArray(items) => items.len() * 4,
            _ => 16,
        }
    }
    row.values.iter().flatten().map(bytes).sum()
}
