//! `stoa-bench store`: one partition in memory, without network and log.
//!
//! | figure | what it is |
//! |---|---|
//! | `apply_rows_per_s` | rows applied a second by one thread, new and overwritten, 1,000 a command |
//! | `bytes_per_row` | all memory of the partition, as it accounts for it, by its rows; beside it the values and the key |
//! | `gather_ns_per_row` | a whole read: hash, probe, gather, validity, event time, reader protocol; 100 random rows |
//! | `copy_ns_per_row` | the same rows copied from one plain array of the same width, each touched before: what memory allows |
//! | `read_us_p99_*` | one read of 100 rows, alone and beside a thread that applies without a pause |
//!
//! Rows that are read are compared with what they were made from; one wrong value voids the run.

#![allow(clippy::disallowed_methods)] // a benchmark measures true time, and no node is about

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use stoa_protocol::LogIndex;
use stoa_protocol::read::RowStatus;
use stoa_store::{Command, Partition, PartitionReader, StoreOptions};

use crate::load::histogram;
use crate::machine::Cores;
use crate::rows::{Ask, Floats, Picks, value};

/// Features of a row.
pub const FEATURES: usize = 48;
/// Rows of one read.
pub const READ_ROWS: usize = 100;
/// Rows of one command.
const BATCH_ROWS: u64 = 1_000;
/// Bytes of the values and the key of a row.
pub const RAW_BYTES: usize = FEATURES * 4 + 8;
/// Batches that are applied beside reads, again and again: half a million random rows of all, too many for any cache.
const BATCHES: usize = 512;
/// A cache line.
const LINE_BYTES: usize = 64;
/// Features that are read, of the 48.
const WIDTHS: [usize; 3] = [3, 24, 48];

/// Measures one partition in memory.
#[derive(Debug, Args)]
pub struct StoreBench {
    /// Rows of the partition, 48 Float32 each under an integer key.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    pub rows: u64,
    /// Reads of 100 rows in each repetition.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub reads: u64,
    /// Repetitions; medians are printed.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub repetitions: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

struct Figures {
    apply_new: f64,
    apply_over: f64,
    bytes_per_row: f64,
    gather: [f64; WIDTHS.len()],
    copy: f64,
    p99_idle_us: f64,
    p99_writes_us: f64,
}

impl StoreBench {
    /// Runs it and prints the figures.
    pub fn run(&self) -> Result<(), String> {
        let floats = Floats::new(FEATURES);
        let (mut partition, reader) = Partition::new(StoreOptions { index_seed: 7, ..StoreOptions::default() });
        partition.apply(LogIndex(1), &Command::Define(floats.group.clone()));
        let apply_new = fill(&floats, &mut partition, 0..self.rows, 0);
        let memory = partition.memory();
        let apply_over = fill(&floats, &mut partition, 0..self.rows, 1);
        let mut gather = [0.0; WIDTHS.len()];
        for (figure, width) in gather.iter_mut().zip(WIDTHS) {
            *figure = self.gather(&floats, &reader, width)?;
        }
        let copy = self.copy();
        let p99_idle_us = self.read_p99(&floats, &reader, &AtomicBool::new(false))?;
        let cores = Cores::of_this_process().map_err(|error| error.to_string())?;
        let (p99_writes_us, _) = self.read_beside_writes(&floats, &mut partition, &reader, &cores)?;
        let bytes_per_row = memory.total as f64 / self.rows as f64;
        let figures = Figures { apply_new, apply_over, bytes_per_row, gather, copy, p99_idle_us, p99_writes_us };
        match self.json {
            true => println!("{}", self.to_json(&figures)),
            false => println!("{}", self.table(&figures)),
        }
        Ok(())
    }

    fn asks(&self, floats: &Floats, width: usize, seed: u64) -> Vec<(Vec<u64>, Ask)> {
        let mut picks = Picks::new(seed, self.rows);
        let ask = |_| {
            let ids = picks.distinct(READ_ROWS);
            let ask = floats.ask(&ids, width);
            (ids, ask)
        };
        (0..self.reads).map(ask).collect()
    }

    /// Nanoseconds of a row of a whole read, of `width` features; rows are in version 1.
    pub fn gather(&self, floats: &Floats, reader: &PartitionReader, width: usize) -> Result<f64, String> {
        let mut times = Vec::new();
        for repetition in 0..self.repetitions {
            let asks = self.asks(floats, width, repetition << 40);
            let start = Instant::now();
            for (_, ask) in &asks {
                black_box(ask.answer(reader));
            }
            times.push(start.elapsed().as_nanos() as f64 / (self.reads as usize * READ_ROWS) as f64);
            asks.iter().take(10).try_for_each(|(ids, ask)| check(reader, ids, ask))?;
        }
        Ok(median(times))
    }

    /// Nanoseconds of a row that is copied out of one array: random rows of the width of a whole one, as many at a time as a read
    /// has. All are touched before the first is copied, so that the memory brings them side by side, as it does for a read.
    pub fn copy(&self) -> f64 {
        let array = vec![1_u8; self.rows as usize * RAW_BYTES];
        let mut out = vec![0_u8; READ_ROWS * RAW_BYTES];
        let mut times = Vec::new();
        for repetition in 0..self.repetitions {
            let mut picks = Picks::new(repetition << 40, self.rows);
            let rows: Vec<usize> = (0..self.reads as usize * READ_ROWS)
                .map(|_| picks.next().expect("picks never end") as usize * RAW_BYTES)
                .collect();
            let start = Instant::now();
            for read in rows.chunks(READ_ROWS) {
                let touch = |&from: &usize| {
                    (from..from + RAW_BYTES).step_by(LINE_BYTES).map(|at| array[at]).fold(0, u8::wrapping_add)
                };
                black_box(read.iter().map(touch).fold(0, u8::wrapping_add));
                for (to, &from) in out.chunks_mut(RAW_BYTES).zip(read) {
                    to.copy_from_slice(&array[from..from + RAW_BYTES]);
                }
                black_box(&mut out);
            }
            times.push(start.elapsed().as_nanos() as f64 / rows.len() as f64);
        }
        median(times)
    }

    /// The 99th percentile of single reads, microseconds, at least for the given reads and then until `done`.
    pub fn read_p99(&self, floats: &Floats, reader: &PartitionReader, wanted: &AtomicBool) -> Result<f64, String> {
        let asks = self.asks(floats, FEATURES, 1 << 50);
        let mut times = histogram();
        for _ in 0..self.repetitions {
            for (_, ask) in &asks {
                let start = Instant::now();
                black_box(ask.answer(reader));
                times.saturating_record(start.elapsed().as_nanos() as u64);
            }
        }
        wanted.store(true, Ordering::Relaxed);
        Ok(times.value_at_quantile(0.99) as f64 / 1_000.0)
    }

    /// The same on the second core while another thread applies without a pause on the first, where this thread stays; and the
    /// rows that were applied a second.
    pub fn read_beside_writes(
        &self,
        floats: &Floats,
        partition: &mut Partition,
        reader: &PartitionReader,
        cores: &Cores,
    ) -> Result<(f64, f64), String> {
        // Made before: the making of batches must not be taken for applying.
        let mut picks = Picks::new(3 << 50, self.rows);
        let batches: Vec<_> =
            (0..BATCHES).map(|_| floats.batch(picks.distinct(BATCH_ROWS as usize).into_iter(), 2)).collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                cores.go_to_load().map_err(|error| error.to_string())?;
                self.read_p99(floats, reader, &done)
            });
            cores.go_to_servers().map_err(|error| error.to_string())?;
            let (mut applied, start) = (0_usize, Instant::now());
            while !done.load(Ordering::Relaxed) && !reads.is_finished() {
                let batch = batches[applied % batches.len()].clone();
                let index = LogIndex(partition.applied().0 + 1);
                partition.apply(index, &Command::Write { stamp_us: 2, step: None, batch });
                applied += 1;
            }
            let rate = (applied * BATCH_ROWS as usize) as f64 / start.elapsed().as_secs_f64();
            let p99 = reads.join().map_err(|_| "the reading thread panicked".to_owned())??;
            Ok((p99, rate))
        })
    }

    fn to_json(&self, figures: &Figures) -> serde_json::Value {
        let per_width = |values: &[f64]| {
            WIDTHS.iter().zip(values).map(|(w, ns)| (w.to_string(), (*ns).into())).collect::<serde_json::Map<_, _>>()
        };
        serde_json::json!({
            "rows": self.rows,
            "features": FEATURES,
            "reads": self.reads,
            "repetitions": self.repetitions,
            "apply_rows_per_s": figures.apply_new.round(),
            "apply_overwrite_rows_per_s": figures.apply_over.round(),
            "bytes_per_row": figures.bytes_per_row,
            "raw_bytes_per_row": RAW_BYTES,
            "gather_ns_per_row": per_width(&figures.gather),
            "copy_ns_per_row": figures.copy,
            "gather_to_copy": figures.gather[2] / figures.copy,
            "read_us_p99_idle": figures.p99_idle_us,
            "read_us_p99_under_writes": figures.p99_writes_us,
            "read_p99_under_writes_to_idle": figures.p99_writes_us / figures.p99_idle_us,
        })
    }

    fn table(&self, figures: &Figures) -> String {
        let Figures { apply_new, apply_over, bytes_per_row, gather, copy, p99_idle_us, p99_writes_us } = figures;
        let mut out = format!("{} rows x {FEATURES} Float32, medians of {} repetitions\n", self.rows, self.repetitions);
        out += &format!("apply               {apply_new:>10.0} rows/s new, {apply_over:.0} rows/s overwritten\n");
        out += &format!(
            "memory              {bytes_per_row:>10.1} bytes a row, {:.2} x the {RAW_BYTES} of values and key\n",
            bytes_per_row / RAW_BYTES as f64
        );
        for (width, ns) in WIDTHS.iter().zip(gather) {
            out += &format!("read {width:>2} features    {ns:>10.1} ns a row, 100 rows a read\n");
        }
        out += &format!("prefetched copy     {copy:>10.1} ns a row: a whole read costs {:.2} x\n", gather[2] / copy);
        out += &format!(
            "p99 of a read       {p99_idle_us:>10.1} us alone, {p99_writes_us:.1} us beside writes: {:.2} x",
            p99_writes_us / p99_idle_us
        );
        out
    }
}

/// Writes rows in a version; rows a second, without the making of the batches.
pub fn fill(floats: &Floats, partition: &mut Partition, rows: std::ops::Range<u64>, version: i64) -> f64 {
    let (count, mut spent) = (rows.end - rows.start, Duration::ZERO);
    for first in rows.clone().step_by(BATCH_ROWS as usize) {
        let ids = first..(first + BATCH_ROWS).min(rows.end);
        let command = Command::Write { stamp_us: version, step: None, batch: floats.batch(ids, version) };
        let index = LogIndex(partition.applied().0 + 1);
        let start = Instant::now();
        black_box(partition.apply(index, &command));
        spent += start.elapsed();
    }
    count as f64 / spent.as_secs_f64()
}

/// Compares an answer with what its rows were made from.
fn check(reader: &PartitionReader, ids: &[u64], ask: &Ask) -> Result<(), String> {
    let answer = ask.read(reader)?;
    for (row, &id) in ids.iter().enumerate() {
        if answer.status(row) != RowStatus::Found {
            return Err(format!("row {id} was written and is not found"));
        }
        for (column, &feature) in ask.projection.features.iter().enumerate() {
            let wanted = value(id, feature, 1).to_le_bytes();
            if answer.value(column, row) != Some(&wanted[..]) {
                return Err(format!("feature {feature} of row {id} is not what was written"));
            }
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
