//! Writing many rows: split by partition, laid out in batches, sent to each partition's leader.
//!
//! Batches of one partition go one after the other, which keeps their order and a session's steps without gaps; the
//! partitions go side by side, up to [`PARTITIONS_IN_FLIGHT_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use stoa_env::{Gauge, Transport, planted};
use stoa_protocol::catalog::FeatureGroup;
use stoa_protocol::key::{encode_key, key_prefix, partition_hash};
use stoa_protocol::message::{SessionStep, WriteAnswer};
use stoa_protocol::value::ValueError;
use stoa_protocol::{ClusterMap, ErrorCode, KeyType, KeyValue, PartitionId, RowBatch, RowBatchBuilder, Value};

use crate::error::{RowsError, WriteError};
use crate::plan::key_error;
use crate::session_place::{SessionPlace, SessionPlaces};
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
    /// continues a session asks each partition how far it has come.
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

/// Writes rows of one group. Calls may be made at the same time; batches of one partition then go in turn. With a session,
/// use one writer at a time for it.
pub struct GroupWriter<T: Transport> {
    group: Group<T>,
    features: Vec<u16>,
    types: Vec<KeyType>,
    options: WriterOptions,
    places: SessionPlaces,
}

struct Job {
    rows: Vec<u32>,
    batch: RowBatch,
}

impl<T: Transport> Group<T> {
    /// A writer of these features, by whatever names they have, in the order in which rows give their values. It goes on
    /// when the group's schema changes: values are taken in the types of the schema with which the group was opened, and of
    /// features that were dropped since they are passed over.
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
                wanted: definition.live_features().map(|(_, feature)| feature.name.clone()).collect(),
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
            places: SessionPlaces::new(self.client.bounds_registry()),
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
        let bounds = self.group.client.bounds_registry();
        let gauge = bounds.gauge("client: partitions that a call writes to at once", PARTITIONS_IN_FLIGHT_MAX as u64);
        let writes = jobs.into_iter().map(|(partition, jobs)| self.write_partition(partition, jobs, &gauge));
        let results: Vec<Vec<BatchResult>> =
            stream::iter(writes).buffer_unordered(PARTITIONS_IN_FLIGHT_MAX).collect().await;
        Ok(results.into_iter().flatten().skip(usize::from(planted!(DropFirstOutcome))).collect())
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
                        match error {
                            ValueError::Storage(why) => RowsError::Storage { row: at, feature, why },
                            other => RowsError::Value { row: at, feature, why: other.to_string() },
                        }
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

    async fn write_partition(&self, partition: PartitionId, jobs: Vec<Job>, gauge: &Gauge) -> Vec<BatchResult> {
        let _counted = gauge.hold(1);
        let mut queue: VecDeque<Job> = jobs.into();
        let mut results = Vec::with_capacity(queue.len());
        while let Some(job) = queue.pop_front() {
            let (settled, result) = match self.options.session {
                None => (None, self.write_plain(partition, &job.batch).await),
                Some(session) => self.write_step(partition, session, &job.batch).await,
            };
            results.extend(settled.map(|result| BatchResult { partition, rows: Vec::new(), result }));
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

    async fn write_plain(&self, partition: PartitionId, batch: &RowBatch) -> Result<WriteAnswer, WriteError> {
        let WriterOptions { deadline, on_lost_answer, .. } = self.options;
        let options = WriteOptions { deadline, step: None, on_lost_answer };
        self.group.client.write(partition, batch, &options).await
    }

    /// Writes a batch as the next step of the session. First is what became of an earlier batch that was open still, if
    /// there was one; if it could not be settled, this one is not sent.
    async fn write_step(
        &self,
        partition: PartitionId,
        session: u128,
        batch: &RowBatch,
    ) -> (Option<Result<WriteAnswer, WriteError>>, Result<WriteAnswer, WriteError>) {
        let deadline = self.options.deadline;
        let held = self.places.of(partition);
        let Ok(mut held) = stoa_env::timeout(deadline, held.lock()).await else {
            return (None, Err(WriteError::Busy { partition, waited: deadline }));
        };
        let place = match &mut *held {
            Some(place) => place,
            unknown => match self.group.client.session(partition, session, deadline).await {
                Ok(answer) => unknown.insert(SessionPlace::new(answer.last)),
                Err(error) => return (None, Err(error)),
            },
        };
        let settled = match place.open() {
            Some(open) => Some(self.send_step(partition, session, place, &open, SentBefore::Yes).await),
            None => None,
        };
        let result = match &settled {
            Some(Err(_)) => Err(WriteError::Skipped { partition }),
            _ => self.send_step(partition, session, place, batch, SentBefore::No).await,
        };
        let errors = [settled.as_ref().and_then(|settled| settled.as_ref().err()), result.as_ref().err()];
        let lost = |error| has_code(error, ErrorCode::SessionGap) || has_code(error, ErrorCode::SessionConflict);
        if errors.into_iter().flatten().any(lost) {
            // The partition has forgotten the session, or another writer has it too: what this one knows of its place is
            // worth nothing.
            *held = None;
        }
        (settled, result)
    }

    async fn send_step(
        &self,
        partition: PartitionId,
        session: u128,
        place: &mut SessionPlace,
        batch: &RowBatch,
        sent_before: SentBefore,
    ) -> Result<WriteAnswer, WriteError> {
        let WriterOptions { deadline, on_lost_answer, .. } = self.options;
        // Twice at most: a number is contested only until it is used, and an uncontested one is not refused as taken.
        loop {
            let step = Some(SessionStep { session, sequence: place.next() });
            place.on_send(batch);
            let result =
                self.group.client.write(partition, batch, &WriteOptions { deadline, step, on_lost_answer }).await;
            match result {
                Ok(answer) => {
                    place.on_applied();
                    return Ok(answer);
                }
                Err(error) if error.may_have_happened() => return Err(error),
                // Another batch has the number: this one was not applied under it, and the next number is free.
                Err(error) if has_code(&error, ErrorCode::SessionConflict) && place.on_taken() => {}
                Err(error) if sent_before == SentBefore::No => {
                    place.on_never_taken();
                    return Err(error);
                }
                Err(error) => return self.settle_refused(partition, session, place, error).await,
            }
        }
    }

    /// A batch that may have happened earlier is refused now: what became of it only a quorum can tell.
    async fn settle_refused(
        &self,
        partition: PartitionId,
        session: u128,
        place: &mut SessionPlace,
        refused: WriteError,
    ) -> Result<WriteAnswer, WriteError> {
        let WriteError::Rejected(last) = &refused else {
            // It was not taken this time, and may be the next time.
            return Err(refused);
        };
        if has_code(&refused, ErrorCode::SessionGap) {
            return Err(WriteError::OutcomeUnknown { waited: Duration::ZERO, last: last.clone() });
        }
        let Ok(answer) = self.group.client.session(partition, session, self.options.deadline).await else {
            return Err(WriteError::OutcomeUnknown { waited: self.options.deadline, last: last.clone() });
        };
        if answer.last < place.next() {
            place.on_given_up();
            return Err(refused);
        }
        if !place.on_used() {
            // The number was contested, so it may be another batch that was applied. The next one is nobody else's, and
            // this one is refused.
            return Err(refused);
        }
        let incarnation = self.group.client.map().set(self.group.definition().set).map_or(0, |set| set.incarnation);
        Ok(WriteAnswer { index: answer.index, incarnation, applied: 0, older: Vec::new(), repeated: true })
    }
}

/// Whether an earlier call has sent the batch already, with an outcome that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SentBefore {
    Yes,
    No,
}

fn has_code(error: &WriteError, code: ErrorCode) -> bool {
    let last = match error {
        WriteError::Rejected(last) | WriteError::OutcomeUnknown { last, .. } => last,
        _ => return false,
    };
    last.refusal().is_some_and(|refusal| refusal.code == code)
}

fn finish(rows: Vec<u32>, builder: RowBatchBuilder) -> Option<Job> {
    builder.finish().map(|batch| Job { rows, batch })
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
