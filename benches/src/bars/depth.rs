//! What one partition in memory costs as it grows: bytes of a row (P3), the cost of a read (P9), reads beside writes (P5). It runs
//! in a process of its own, `stoa-bench depth`, since the bytes of a row are those that the kernel counts for the process.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use stoa_protocol::LogIndex;
use stoa_store::{Command, Partition, PartitionReader, StoreOptions};

use crate::layouts::{Layout, Near};
use crate::machine::Cores;
use crate::profile::profile;
use crate::rows::{Floats, Picks};
use crate::store::{FEATURES, StoreBench, fill, in_turn, visit};

/// Rows that are written again at each size while a snapshot is taken, of a hundred rows.
const WRITTEN_PERCENT: u64 = 5;
/// Rows of one command of these writes.
const BATCH_ROWS: usize = 1_000;
/// Reads of 100 rows in each repetition.
const READS: u64 = 2_000;
/// How long reads are profiled.
const PROFILED: Duration = Duration::from_secs(3);
/// Repetitions of each timing.
const REPETITIONS: u64 = 21;
/// Sizes, in parts of the largest: reads of all and of a partition of one, bytes at those between, which are 8 to 16 of 20.
const PARTS: u64 = 20;
const BYTES_AT: std::ops::RangeInclusive<u64> = 8..=16;

/// Measures one partition as it grows, and prints JSON.
#[derive(Debug, Args)]
pub struct DepthBench {
    /// Rows in the end.
    #[arg(long, default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(200_000..=100_000_000))]
    rows: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Depth {
    /// Bytes of a row at each size in rows: what the kernel counts for the process, less what it counted before the first row,
    /// at its largest while rows were written and a snapshot was taken.
    pub bytes: Vec<(u64, f64)>,
    /// The same as the store accounts for it, without the snapshot.
    pub accounted: Vec<(u64, f64)>,
    /// Rows, nanoseconds of a row read, nanoseconds of one copied from an array of as many.
    pub small: (u64, f64, f64),
    /// The same at the end.
    pub large: (u64, f64, f64),
    /// Nanoseconds of one there that is copied after its lines were asked for, as the store asks; those of the others were touched.
    pub large_copy_asked: f64,
    /// Microseconds of a read of 100 rows, 99th percentile, alone.
    pub p99_alone_us: f64,
    /// The same beside a thread that applies without a pause.
    pub p99_writes_us: f64,
    /// Rows applied a second beside these reads.
    pub applied_beside_reads: f64,
    /// Rows applied a second, new ones.
    pub apply_rows_per_s: f64,
    /// What reads of the largest size spend their time on.
    pub reads_profile: Vec<String>,
}

impl DepthBench {
    /// Runs it.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        println!("{}", serde_json::to_string(&self.measure()?)?);
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self) -> anyhow::Result<Depth> {
        let (floats, cores, part) = (Floats::new(FEATURES), Cores::of_this_process()?, self.rows / PARTS);
        let new = || {
            let (mut partition, reader) = Partition::new(StoreOptions { index_seed: 7, ..StoreOptions::default() });
            partition.apply(LogIndex(1), &Command::Define(floats.group.clone()));
            (partition, reader)
        };
        let (mut partition, reader) = new();
        let (before, mut found) = (resident_bytes()?, Depth::default());
        for at in 1..=PARTS {
            let (from, rows) = ((at - 1) * part, at * part);
            fill(&floats, &mut partition, from..rows, 1);
            if BYTES_AT.contains(&at) {
                found.accounted.push((rows, partition.memory().total as f64 / rows as f64));
                let most = snapshot_under_writes(&floats, &mut partition, rows)?;
                found.bytes.push((rows, most.saturating_sub(before) as f64 / rows as f64));
            }
        }
        // Another one, so that both sizes are read in turn.
        let (mut small, small_reader) = new();
        found.apply_rows_per_s = fill(&floats, &mut small, 0..part, 1);
        let (small, large) = (bench(part), bench(PARTS * part));
        time(&floats, (&small, &small_reader), (&large, &reader), &mut found)?;
        found.reads_profile = profile_of_reads(&floats, &reader, &large)?;
        let p99 = large.read_p99(&floats, &mut partition, &reader, &cores).map_err(anyhow::Error::msg)?;
        (found.p99_alone_us, found.p99_writes_us) = (p99.alone, p99.writes);
        found.applied_beside_reads = p99.applied_rows_per_s;
        Ok(found)
    }
}

/// Reads on this thread while another one has the process profiled.
fn profile_of_reads(floats: &Floats, reader: &PartitionReader, bench: &StoreBench) -> anyhow::Result<Vec<String>> {
    std::thread::scope(|scope| {
        let profile = scope.spawn(|| -> anyhow::Result<Vec<String>> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(profile(std::process::id(), PROFILED)))
        });
        let mut seeds = (0..).map(|number: u64| number << 40);
        while !profile.is_finished() {
            let seed = seeds.next().expect("numbers never end");
            bench.time(floats, reader, FEATURES, seed).map_err(anyhow::Error::msg)?;
        }
        profile.join().map_err(|_| anyhow::anyhow!("the profiling thread panicked"))?
    })
}

fn bench(rows: u64) -> StoreBench {
    StoreBench { rows, reads: READS, repetitions: REPETITIONS, json: true }
}

/// Reads of both sizes and copies out of arrays of as many rows, in turn.
fn time(
    floats: &Floats,
    small: (&StoreBench, &PartitionReader),
    large: (&StoreBench, &PartitionReader),
    found: &mut Depth,
) -> anyhow::Result<()> {
    let layout = Layout::of_rows(FEATURES);
    let arrays = [layout.plain(small.0.rows, FEATURES)?, layout.plain(large.0.rows, FEATURES)?];
    let visit_all = || {
        for (bench, reader) in [small, large] {
            visit(floats, reader, bench.rows);
        }
        arrays.iter().for_each(|array| array.visit());
    };
    let read = |(bench, reader): (&StoreBench, &PartitionReader), seed| bench.time(floats, reader, FEATURES, seed);
    let copy = |at: usize, near, seed| arrays[at].time(FEATURES, near, READS, seed);
    let [read_small, copy_small, read_large, copy_large, copy_asked] = in_turn(
        REPETITIONS,
        visit_all,
        [
            &mut |seed| read(small, seed),
            &mut |seed| Ok(copy(0, Near::Touched, seed)),
            &mut |seed| read(large, seed),
            &mut |seed| Ok(copy(1, Near::Touched, seed)),
            &mut |seed| Ok(copy(1, Near::Asked, seed)),
        ],
    )
    .map_err(anyhow::Error::msg)?;
    found.small = (small.0.rows, read_small, copy_small);
    found.large = (large.0.rows, read_large, copy_large);
    found.large_copy_asked = copy_asked;
    Ok(())
}

/// Takes a snapshot, chunk by chunk, and writes rows again between the chunks; the most that the process had in memory.
fn snapshot_under_writes(floats: &Floats, partition: &mut Partition, rows: u64) -> anyhow::Result<u64> {
    let snapshot = partition.snapshot();
    let mut left = (rows * WRITTEN_PERCENT / 100).next_multiple_of(BATCH_ROWS as u64);
    let mut picks = Picks::new(rows, rows);
    let mut most = resident_bytes()?;
    for chunk in snapshot {
        drop(chunk);
        // The version stays, so that later reads find what they look for; each row gets new memory all the same.
        let ids = picks.distinct(BATCH_ROWS);
        let batch = floats.batch(ids.into_iter(), 1);
        let index = LogIndex(partition.applied().0 + 1);
        partition.apply(index, &Command::Write { stamp_us: 1, step: None, batch });
        left -= BATCH_ROWS as u64;
        most = most.max(resident_bytes()?);
        if left == 0 {
            // What the snapshot holds is freed as it goes on, and grows by writes alone: this was the most.
            return Ok(most);
        }
    }
    anyhow::bail!("the snapshot ended before the writes did: {left} rows were left")
}

/// What the kernel counts as resident for this process, in bytes.
fn resident_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_ascii_whitespace().nth(1).context("/proc/self/statm has a second field")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Runs it in a process of its own.
pub async fn run_apart(rows: u64) -> anyhow::Result<Depth> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    let out = command.args(["depth", "--rows", &rows.to_string()]).kill_on_drop(true).output().await?;
    anyhow::ensure!(out.status.success(), "stoa-bench depth: {}", String::from_utf8_lossy(&out.stderr));
    Ok(serde_json::from_slice(&out.stdout)?)
}
