//! What a partition's snapshots cost, and what a restart from one does.

#![allow(clippy::disallowed_methods)] // a benchmark measures true time, and no node is about

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stoa_env::{Disk, RealDisk};
use stoa_protocol::LogIndex;
use stoa_store::{Command, Partition, PartitionReader, SnapshotBase, SnapshotPart, StoreOptions};

use crate::rows::{Floats, Picks, value};
use crate::store::{BATCH_ROWS, FEATURES, READ_ROWS};

/// Keys that must be right for a restart to be over.
const KEYS: usize = 1_000;
/// Rows looked at in one piece of taking in.
const PIECE_ROWS: usize = 500;

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct StoreFiles {
    /// Bytes of a whole snapshot.
    pub whole: u64,
    /// Bytes that a snapshot after it wrote, when nothing had changed.
    pub unchanged: u64,
    /// Bytes that one wrote after one row of a hundred had been updated, at random.
    pub after_one_percent: u64,
    /// From files in the page cache to 1,000 random keys that were read and right.
    pub restart: Duration,
    /// Until all rows were in memory, one piece after the other.
    pub thaw: Duration,
}

impl StoreFiles {
    /// Measures a partition whose rows 0 to `rows` are in version 1; they still are afterwards.
    pub fn measure(floats: &Floats, partition: &mut Partition, rows: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (mut names, mut whole, mut ends) = (Vec::new(), 0, Vec::new());
        for part in partition.snapshot() {
            let chunk = part?.into_chunk().expect("there is no base");
            names.push(PathBuf::from(names.len().to_string()));
            std::fs::write(dir.path().join(names.last().expect("it was just added")), &chunk)?;
            whole += chunk.len() as u64;
            if names.len() == 1 {
                ends.push(chunk.clone());
            }
            ends.truncate(1);
            ends.push(chunk);
        }
        let base = SnapshotBase::read(&ends[0], &ends[1]);
        anyhow::ensure!(base.is_some(), "a snapshot that was just taken is no base for another");
        let over = |partition: &Partition| -> anyhow::Result<u64> {
            let mut bytes = 0;
            for part in partition.snapshot_over(base.as_ref()) {
                if let SnapshotPart::Chunk(chunk) = part? {
                    bytes += chunk.len() as u64;
                }
            }
            Ok(bytes)
        };
        let unchanged = over(partition)?;
        let (restart, thaw) = restart(dir.path(), &names, partition, floats, rows)?;
        let mut left = rows / 100;
        let mut picks = Picks::new(rows, rows);
        while left > 0 {
            let ids = picks.distinct(BATCH_ROWS.min(left) as usize);
            left -= ids.len() as u64;
            let batch = floats.batch(ids.into_iter(), 1);
            let index = LogIndex(partition.applied().0 + 1);
            partition.apply(index, &Command::Write { stamp_us: 1, step: None, batch });
        }
        let after_one_percent = over(partition)?;
        Ok(Self { whole, unchanged, after_one_percent, restart, thaw })
    }
}

/// Maps the files and reads; then takes all in.
fn restart(
    dir: &std::path::Path,
    names: &[PathBuf],
    saved: &Partition,
    floats: &Floats,
    rows: u64,
) -> anyhow::Result<(Duration, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let disk = RealDisk::new(dir)?;
    let start = Instant::now();
    let map = async {
        let mut chunks = Vec::with_capacity(names.len());
        for name in names {
            chunks.push(Bytes::from_owner(disk.map(name).await?));
        }
        Ok::<_, std::io::Error>(chunks)
    };
    // On a thread of its own: the caller's may be that of a runtime.
    let mapped = std::thread::scope(|scope| scope.spawn(move || runtime.block_on(map)).join());
    let chunks: Vec<Bytes> = mapped.map_err(|_| anyhow::anyhow!("the mapping thread panicked"))??;
    let (mut restored, reader) = Partition::restore(StoreOptions::default(), chunks)?;
    let ids: Vec<u64> = Picks::new(7, rows).take(KEYS).collect();
    for ids in ids.chunks(READ_ROWS) {
        check(floats, &reader, ids)?;
    }
    let restart = start.elapsed();
    let start = Instant::now();
    while restored.thaw(PIECE_ROWS)? {}
    let thaw = start.elapsed();
    anyhow::ensure!(restored.digest() == saved.digest(), "what was restored is not what was saved");
    Ok((restart, thaw))
}

fn check(floats: &Floats, reader: &PartitionReader, ids: &[u64]) -> anyhow::Result<()> {
    let ask = floats.ask(ids, FEATURES);
    let answer = ask.read(reader).map_err(anyhow::Error::msg)?;
    for (row, &id) in ids.iter().enumerate() {
        for (column, &feature) in ask.projection.features.iter().enumerate() {
            let wanted = value(id, feature, 1).to_le_bytes();
            anyhow::ensure!(
                answer.value(column, row) == Some(&wanted[..]),
                "feature {feature} of row {id} is not what was written"
            );
        }
    }
    Ok(())
}
