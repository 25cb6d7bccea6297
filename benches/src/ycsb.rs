//! The shapes of YCSB's workloads A, B and C (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010): single
//! rows of 1,000 bytes by a Zipf distribution, read or written again. Rows here are 250 Float32 instead of ten strings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stoa_client::{Client, OnLostAnswer, WriteOptions};
use stoa_env::Transport;

use crate::load::{Outcome, Service};
use crate::rows::{Zipf, mix};
use crate::workload::{Reads, Shape};
use crate::writes::RowsByPartition;

/// A row.
pub const SHAPE: Shape = Shape { rows: 1, floats: 250, array: false };
/// The exponent of the distribution.
pub const THETA: f64 = 0.99;
/// How long a write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// Reads and writes of single rows.
pub struct Ycsb<T: Transport> {
    /// The reads.
    pub reads: Reads<T>,
    /// What writes go through.
    pub client: Client<T>,
    /// Where rows lie.
    pub rows: Arc<RowsByPartition>,
    /// Which rows are asked for.
    pub zipf: Zipf,
    /// Reads, of a hundred requests: 50 in workload A, 95 in B, 100 in C.
    pub read_percent: u64,
    /// The version of the next write.
    pub versions: Arc<AtomicU64>,
}

impl<T: Transport> Ycsb<T> {
    async fn write(&self, n: u64) -> Result<Outcome, String> {
        let id = self.zipf.pick(n);
        let version = self.versions.fetch_add(1, Ordering::Relaxed) as i64;
        let batch = self.rows.batch(SHAPE, std::iter::once(id as u32), version);
        let options = WriteOptions { deadline: WRITE_DEADLINE, step: None, on_lost_answer: OnLostAnswer::Resend };
        let partition = self.rows.partition_of(id).map_err(|error| format!("{error:#}"))?;
        let answer = self.client.write(partition, &batch, &options).await.map_err(|error| error.to_string())?;
        // Two writes of one row may pass each other: the older one changes nothing, and says so.
        match (answer.applied, answer.older.len()) {
            (1, 0) | (0, 1) => Ok(Outcome::Answered { checked: true }),
            _ => Ok(Outcome::Wrong(format!("write {n}: one row, and {answer:?}"))),
        }
    }
}

impl<T: Transport> Service for Ycsb<T> {
    async fn call(&self, n: u64) -> Outcome {
        // Other bits than those that choose the row.
        match mix(!n) % 100 < self.read_percent {
            true => self.reads.call(n).await,
            false => self.write(n).await.unwrap_or_else(Outcome::Failed),
        }
    }
}
