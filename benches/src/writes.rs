//! Writes through the client: batches of rows of one partition each, whole rows, every write of a row newer than the one before.
//! The event time of a row is its version, from which all its values follow: whoever reads it can check it.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use stoa_client::{Client, OnLostAnswer, WriteOptions};
use stoa_env::Transport;
use stoa_protocol::key::{encode_key, key_prefix, partition_hash};
use stoa_protocol::{ClusterMap, FeatureGroup, PartitionId, RowBatch, RowBatchBuilder};

use crate::load::{Outcome, Service};
use crate::rows::key_value;
use crate::workload::{Shape, VERSION};

/// How long one batch may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Rows of a group, by the partition that they lie in.
pub struct RowsByPartition {
    /// The group.
    pub group: Arc<FeatureGroup>,
    map: Arc<ClusterMap>,
    parts: Vec<(PartitionId, Vec<u32>)>,
}

impl RowsByPartition {
    /// The rows below `rows` of the benchmark's group, by the map that the client has.
    pub async fn of<T: Transport>(client: &Client<T>, rows: u64) -> anyhow::Result<Self> {
        let group = Arc::new(Shape::group(client).await?.definition().clone());
        let map = client.map();
        let set = map.set(group.set).with_context(|| format!("the map has no set {}", group.set))?;
        let parts: Vec<(PartitionId, Vec<u32>)> = set.partitions.iter().map(|part| (part.id, Vec::new())).collect();
        let mut all = Self { group, map: map.clone(), parts };
        for id in 0..u32::try_from(rows).context("no more than 2^32 rows")? {
            let partition = all.partition_of(id.into())?;
            let part = all.parts.iter_mut().find(|(id, _)| *id == partition).expect("it is one of the set's");
            part.1.push(id);
        }
        ensure!(
            all.parts.iter().all(|(_, ids)| !ids.is_empty()),
            "{rows} rows are too few: a partition has none of them"
        );
        Ok(all)
    }

    /// The partition of a row.
    pub fn partition_of(&self, id: u64) -> anyhow::Result<PartitionId> {
        let types = self.group.entity.key_types();
        let mut key = Vec::new();
        encode_key(&types, &[key_value(id)], &mut key)?;
        let hash = partition_hash(key_prefix(&types, &key, usize::from(self.group.entity.partition_by))?);
        let set = self.map.set(self.group.set).context("the map had the set")?;
        Ok(set.partition_of(hash).context("the set has no partition")?.id)
    }

    /// The partitions and their rows.
    pub fn parts(&self) -> &[(PartitionId, Vec<u32>)] {
        &self.parts
    }

    /// A batch of rows of these numbers in this version.
    pub fn batch(&self, shape: Shape, ids: impl Iterator<Item = u32>, version: i64) -> RowBatch {
        let types = self.group.entity.key_types();
        let features: Vec<u16> = (0..self.group.features.len() as u16).collect();
        let mut builder = RowBatchBuilder::new(&self.group, &features);
        let mut key = Vec::new();
        for id in ids {
            key.clear();
            encode_key(&types, &[key_value(id.into())], &mut key).expect("an integer key always fits");
            let values = shape.values(id.into(), version);
            builder.upsert(&key, version, 0, &values).expect("the values are of the group's types");
        }
        builder.finish().expect("a batch of the benchmark has rows")
    }
}

/// Batches of `batch` rows, each of one partition, the partitions in turn.
pub struct Writes<T: Transport> {
    client: Client<T>,
    rows: Arc<RowsByPartition>,
    shape: Shape,
    batch: usize,
    /// The version of the next batch: newer than all before, of this service and of others that had the same source.
    versions: Arc<AtomicU64>,
}

/// Where writers of one group take versions from.
pub fn versions() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(VERSION as u64 + 1))
}

impl<T: Transport> Writes<T> {
    /// Through this client.
    pub fn new(
        client: &Client<T>,
        rows: Arc<RowsByPartition>,
        shape: Shape,
        batch: usize,
        versions: Arc<AtomicU64>,
    ) -> Self {
        Self { client: client.clone(), rows, shape, batch, versions }
    }

    /// Writes one row in a version.
    pub async fn one(
        client: &Client<T>,
        rows: &RowsByPartition,
        shape: Shape,
        id: u64,
        version: i64,
    ) -> anyhow::Result<()> {
        let batch = rows.batch(shape, std::iter::once(u32::try_from(id)?), version);
        let options = WriteOptions { deadline: DEADLINE, on_lost_answer: OnLostAnswer::Resend, step: None };
        let answer = client.write(rows.partition_of(id)?, &batch, &options).await?;
        ensure!(answer.applied == 1 || answer.repeated, "row {id} was not written: {answer:?}");
        Ok(())
    }

    async fn write(&self, n: u64) -> Result<Outcome, stoa_client::WriteError> {
        let parts = self.rows.parts();
        let (partition, ids) = &parts[(n % parts.len() as u64) as usize];
        let from = (n / parts.len() as u64) as usize * self.batch;
        let ids = (from..from + self.batch.min(ids.len())).map(|at| ids[at % ids.len()]);
        let version = self.versions.fetch_add(1, Ordering::Relaxed) as i64;
        let batch = self.rows.batch(self.shape, ids, version);
        let rows = batch.rows();
        let options = WriteOptions { deadline: DEADLINE, on_lost_answer: OnLostAnswer::Resend, step: None };
        let answer = self.client.write(*partition, &batch, &options).await?;
        // Two batches with the same row may pass each other: the older one then changes nothing, and says so.
        match answer.applied as usize + answer.older.len() == rows {
            true => Ok(Outcome::Answered { checked: true }),
            false => Ok(Outcome::Wrong(format!("write {n}: of {rows} rows {answer:?}"))),
        }
    }
}

impl<T: Transport> Service for Writes<T> {
    async fn call(&self, n: u64) -> Outcome {
        self.write(n).await.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }
}

/// Loads all rows once, in version [`VERSION`], `batch` rows a call and many calls side by side.
pub struct Load<T: Transport> {
    client: Client<T>,
    rows: Arc<RowsByPartition>,
    shape: Shape,
    calls: Vec<(usize, usize)>,
}

/// Rows of one call that loads: some 200 KiB at 48 Float32.
const LOAD_ROWS: usize = 1_000;
/// Batches that are made before: 100 MB of 1,000 rows of 48 Float32.
const PREPARED: usize = 512;
/// Bytes of one call that loads, at the most.
const LOAD_BYTES: usize = 512 << 10;
/// Calls side by side.
const LOAD_CALLERS: usize = 16;
/// How long one call that loads may take, over all its attempts.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
/// Between two attempts.
const LOAD_PAUSE: Duration = Duration::from_millis(200);

impl<T: Transport> Load<T> {
    /// Loads the rows.
    ///
    /// # Errors
    /// What the first call said that failed.
    pub async fn run(client: &Client<T>, rows: Arc<RowsByPartition>, shape: Shape) -> anyhow::Result<()> {
        let batch = LOAD_ROWS.min(LOAD_BYTES / (usize::from(shape.floats) * 4)).max(1);
        let longest = rows.parts().iter().map(|(_, ids)| ids.len()).max().unwrap_or(0);
        let starts = (0..longest).step_by(batch);
        let calls = starts.flat_map(|from| (0..rows.parts().len()).map(move |part| (part, from)));
        let calls = calls.filter(|(part, from)| *from < rows.parts()[*part].1.len()).collect();
        let load = Arc::new(Self { client: client.clone(), rows, shape, calls });
        let (next, mut tasks) = (Arc::new(AtomicU64::new(0)), stoa_env::JoinSet::new());
        for _ in 0..LOAD_CALLERS {
            let (load, next) = (load.clone(), next.clone());
            tasks.spawn(async move {
                while let Some(&(part, from)) = load.calls.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    load.call(part, from, batch).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Rows that are loaded twice are the same rows: so a call whose outcome is open is made again.
    async fn call(&self, part: usize, from: usize, batch: usize) -> anyhow::Result<()> {
        let (partition, ids) = &self.rows.parts()[part];
        let ids = ids[from..ids.len().min(from + batch)].iter().copied();
        let batch = self.rows.batch(self.shape, ids, VERSION);
        let options = WriteOptions { deadline: DEADLINE, on_lost_answer: OnLostAnswer::Resend, step: None };
        let start = Instant::now();
        loop {
            match self.client.write(*partition, &batch, &options).await {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > LOAD_LIMIT => return Err(error).context("loading rows"),
                Err(_) => tokio::time::sleep(LOAD_PAUSE).await,
            }
        }
    }
}

/// Batches that were made before, sent again and again: for writes beside reads of the same process, which the making of a batch
/// would hold up.
pub struct PreparedWrites<T: Transport> {
    client: Client<T>,
    batches: Vec<(PartitionId, RowBatch)>,
}

impl<T: Transport> PreparedWrites<T> {
    /// As many batches as fit into some hundred MB, of `batch` rows each, of all partitions in turn.
    pub fn new(client: &Client<T>, rows: &RowsByPartition, shape: Shape, batch: usize, versions: &AtomicU64) -> Self {
        let batches = (0..PREPARED).map(|n| {
            let (partition, ids) = &rows.parts()[n % rows.parts().len()];
            let from = n / rows.parts().len() * batch;
            let ids = (from..from + batch.min(ids.len())).map(|at| ids[at % ids.len()]);
            (*partition, rows.batch(shape, ids, versions.fetch_add(1, Ordering::Relaxed) as i64))
        });
        Self { client: client.clone(), batches: batches.collect() }
    }
}

impl<T: Transport> Service for PreparedWrites<T> {
    async fn call(&self, n: u64) -> Outcome {
        let (partition, batch) = &self.batches[n as usize % self.batches.len()];
        let options = WriteOptions { deadline: DEADLINE, on_lost_answer: OnLostAnswer::Resend, step: None };
        match self.client.write(*partition, batch, &options).await {
            Ok(answer) if answer.applied as usize + answer.older.len() == batch.rows() => {
                Outcome::Answered { checked: true }
            }
            Ok(answer) => Outcome::Wrong(format!("write {n}: of {} rows {answer:?}", batch.rows())),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}
