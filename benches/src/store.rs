//! `stoa-bench store`: one partition in memory, without network and log.
//!
//! | figure | what it is |
//! |---|---|
//! | `apply_rows_per_s` | rows applied a second by one thread, new and overwritten, 1,000 a command |
//! | `bytes_per_row` | all memory of the partition, as it accounts for it, by its rows, at its worst while it grows from 0.8 to 1.6 times the rows asked for; beside it the values and the key |
//! | `gather_ns_per_row` | 100 random rows, some of the columns, in each layout ([`crate::layouts`]): `whole`, a read with hash, probe, gather, validity, event time, reader protocol; `bare`, from plain arrays |
//! | `copy_ns_per_row` | whole rows copied from one plain array, each touched before: what a program gets of memory that does no more; `copy_asked_ns_per_row`: each asked for into the second cache before, as the store does it, which no limit is set by |
//! | `restart_ms` | from a snapshot's files in the page cache to 1,000 random keys read from them and right; `thaw_ms`: until all rows are in memory, without a pause |
//! | `snapshot_bytes` | a whole snapshot; `_unchanged`: what another one writes at once; `_after_1_percent`: after an update of one row in a hundred, at random |
//! | `cost_ratio` | a row read of twice the rows, by one of a tenth; `cost_ratio_20m_to_1m` where these are the sizes |
//! | `read_us_p99_*` | one read of 100 rows, alone and beside a thread that applies without a pause; `apply_rows_per_s_beside_reads`: what that applied |
//!
//! What is compared is timed in turn, so that whatever slows the machine down for a while slows all of it down ([`in_turn`]), and
//! its memory has been visited just before ([`visit`]).
//!
//! Some reads of each timing are compared with what their rows were made from; one wrong value voids the run.

#![allow(clippy::disallowed_methods)] // a benchmark measures true time, and no node is about

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use stoa_protocol::LogIndex;
use stoa_protocol::read::RowStatus;
use stoa_store::{Command, Outcome, Partition, PartitionReader, StoreOptions};

use crate::layouts::{LAYOUTS, Layout, Near, Plain};
use crate::load::histogram;
use crate::machine::Cores;
use crate::rows::{Ask, Floats, Picks, value};
use crate::store_files::StoreFiles;

/// Features of a row.
pub const FEATURES: usize = 48;
/// Rows of one read.
pub const READ_ROWS: usize = 100;
/// Rows of one command.
pub const BATCH_ROWS: u64 = 1_000;
/// Values of one command at the most: what rows of many features leave of the bytes of a batch.
const BATCH_VALUES_MAX: u64 = 100_000;
/// Bytes of the values and the key of a row.
pub const RAW_BYTES: usize = FEATURES * 4 + 8;
/// Batches that are applied beside reads, again and again: half a million random rows of all, too many for any cache.
const BATCHES: usize = 512;
/// Rows at which P9's two sizes are a tenth and twice as many.
const MILLIONS_10: u64 = 10_000_000;
/// Features that are read, of the 48.
const WIDTHS: [usize; 3] = [3, 24, 48];

/// Measures one partition in memory.
#[derive(Debug, Args)]
pub struct StoreBench {
    /// Rows of the partition, 48 Float32 each under an integer key. It grows to twice as many, beside one of a tenth and an
    /// array of twice as many: 9 GB for the default, and some minutes.
    #[arg(long, default_value_t = MILLIONS_10, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    pub rows: u64,
    /// Reads of 100 rows in each repetition.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub reads: u64,
    /// Repetitions; medians are printed.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub repetitions: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

struct Figures {
    apply_new: f64,
    apply_over: f64,
    bytes_per_row: f64,
    /// Bare and whole, by layout and width.
    gather: Vec<[(f64, f64); WIDTHS.len()]>,
    copy: f64,
    copy_asked: f64,
    copy_large: f64,
    small: f64,
    large: f64,
    files: StoreFiles,
    p99: ReadP99,
}

/// The 99th percentile of single reads of 100 rows, microseconds.
#[derive(Debug, Clone, Copy)]
pub struct ReadP99 {
    /// On a core of its own, with nothing beside it.
    pub alone: f64,
    /// The same beside a thread that applies without a pause.
    pub writes: f64,
    /// Rows that thread applied a second.
    pub applied_rows_per_s: f64,
}

impl Figures {
    fn whole(&self) -> f64 {
        self.gather[LAYOUTS.len() - 1][WIDTHS.len() - 1].1
    }
}

impl StoreBench {
    /// Runs it and prints the figures.
    pub fn run(&self) -> Result<(), String> {
        let floats = Floats::new(FEATURES);
        let text = |error: std::io::Error| error.to_string();
        let (own, others) = LAYOUTS.split_last().expect("there is the store's own");
        let mut gather = Vec::new();
        for layout in others {
            let (mut partition, reader) = self.partition(&floats, layout);
            fill(&floats, &mut partition, 0..self.rows, 1);
            let plain = layout.plain(self.rows, FEATURES).map_err(text)?;
            gather.push(self.gather_and_copy(&floats, &reader, &plain, self.rows)?.0);
        }
        let tenth = self.rows / 10;
        let (mut small, small_reader) = self.partition(&floats, own);
        fill(&floats, &mut small, 0..tenth, 1);
        let (mut partition, reader) = self.partition(&floats, own);
        let (mut bytes_per_row, mut seconds) = (0_f64, 0.0);
        for at in 0..10 {
            // Over all of the growth: how many segments of the index split differs from tenth to tenth.
            seconds += tenth as f64 / fill(&floats, &mut partition, tenth * at..tenth * (at + 1), 1);
            if at >= 7 {
                bytes_per_row = bytes_per_row.max(bytes_a_row(&partition));
            }
        }
        let all = self.of_rows(tenth * 10);
        let apply_new = all.rows as f64 / seconds;
        let apply_over = fill(&floats, &mut partition, 0..tenth, 1);
        let plain = own.plain(all.rows, FEATURES).map_err(text)?;
        let (figures, copy_asked) = all.gather_and_copy(&floats, &reader, &plain, all.rows)?;
        drop(plain);
        let copy = figures[WIDTHS.len() - 1].0;
        gather.push(figures);
        let files = StoreFiles::measure(&floats, &mut partition, all.rows).map_err(|error| format!("{error:#}"))?;
        let cores = Cores::of_this_process().map_err(|error| error.to_string())?;
        let p99 = all.read_p99(&floats, &mut partition, &reader, &cores)?;
        for at in 10..20 {
            fill(&floats, &mut partition, tenth * at..tenth * (at + 1), 1);
            if at < 16 {
                bytes_per_row = bytes_per_row.max(bytes_a_row(&partition));
            }
        }
        let twice = self.of_rows(tenth * 20);
        let plain = own.plain(twice.rows, FEATURES).map_err(text)?;
        let visit_all = || {
            visit(&floats, &small_reader, tenth);
            visit(&floats, &reader, twice.rows);
            plain.visit();
        };
        let [small, large, copy_large] = in_turn(
            self.repetitions,
            visit_all,
            [
                &mut |seed| self.of_rows(tenth).time(&floats, &small_reader, FEATURES, seed),
                &mut |seed| twice.time(&floats, &reader, FEATURES, seed),
                &mut |seed| Ok(plain.time(FEATURES, Near::Touched, self.reads, seed)),
            ],
        )?;
        let figures = Figures {
            apply_new,
            apply_over,
            bytes_per_row,
            gather,
            copy,
            copy_asked,
            copy_large,
            small,
            large,
            files,
            p99,
        };
        match self.json {
            true => println!("{}", self.to_json(&figures)),
            false => println!("{}", self.table(&figures)),
        }
        Ok(())
    }

    fn partition(&self, floats: &Floats, layout: &Layout) -> (Partition, PartitionReader) {
        let options = StoreOptions { index_seed: 7, lane_bytes_max: layout.lane_bytes, ..StoreOptions::default() };
        let (mut partition, reader) = Partition::new(options);
        partition.apply(LogIndex(1), &Command::Define(floats.group.clone()));
        (partition, reader)
    }

    fn of_rows(&self, rows: u64) -> Self {
        Self { rows, reads: self.reads, repetitions: self.repetitions, json: self.json }
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

    /// Nanoseconds of a row, bare and whole, by width, of a partition and arrays of as many rows, which are in version 1; and of
    /// a copy of a whole row that was asked for.
    fn gather_and_copy(
        &self,
        floats: &Floats,
        reader: &PartitionReader,
        plain: &Plain,
        rows: u64,
    ) -> Result<([(f64, f64); WIDTHS.len()], f64), String> {
        let visit_both = || {
            visit(floats, reader, rows);
            plain.visit();
        };
        let [w0, w1, w2] = WIDTHS;
        let bare = |width| move |seed| Ok(plain.time(width, Near::Touched, self.reads, seed));
        let whole = |width| move |seed| self.time(floats, reader, width, seed);
        let [b0, b1, b2, g0, g1, g2, asked] = in_turn(
            self.repetitions,
            visit_both,
            [
                &mut bare(w0),
                &mut bare(w1),
                &mut bare(w2),
                &mut whole(w0),
                &mut whole(w1),
                &mut whole(w2),
                &mut |seed| Ok(plain.time(FEATURES, Near::Asked, self.reads, seed)),
            ],
        )?;
        Ok(([(b0, g0), (b1, g1), (b2, g2)], asked))
    }

    /// Nanoseconds of a row of whole reads, of `width` features; some of the reads are compared with what was written.
    pub fn time(&self, floats: &Floats, reader: &PartitionReader, width: usize, seed: u64) -> Result<f64, String> {
        time_reads(reader, &self.asks(floats, width, seed))
    }

    /// Single reads, alone and beside a thread that applies without a pause on the first core, where this thread stays
    /// afterwards; in turn, as often as there are repetitions, and the reads always on the second core.
    pub fn read_p99(
        &self,
        floats: &Floats,
        partition: &mut Partition,
        reader: &PartitionReader,
        cores: &Cores,
    ) -> Result<ReadP99, String> {
        // Made before: the making of batches must not be taken for applying.
        let mut picks = Picks::new(3 << 50, self.rows);
        let batches: Vec<_> =
            (0..BATCHES).map(|_| floats.batch(picks.distinct(BATCH_ROWS as usize).into_iter(), 2)).collect();
        let (mut alone, mut beside) = (histogram(), histogram());
        let (mut applied, mut spent) = (0, Duration::ZERO);
        for repetition in 0..self.repetitions {
            visit(floats, reader, self.rows);
            let mut turns = [(&mut alone, false), (&mut beside, true)];
            // What comes first finds caches that the visit has filled.
            turns.rotate_left(repetition as usize % 2);
            for (times, writes) in turns {
                let seed = (repetition * 2 + u64::from(writes)) << 40 | 1 << 39;
                let done = AtomicBool::new(false);
                let asks = self.asks(floats, FEATURES, seed);
                std::thread::scope(|scope| {
                    let reads = scope.spawn(|| {
                        let to_load = cores.go_to_load().map_err(|error| error.to_string());
                        for (_, ask) in &asks {
                            let start = Instant::now();
                            black_box(ask.answer(reader));
                            times.saturating_record(start.elapsed().as_nanos() as u64);
                        }
                        done.store(true, Ordering::Relaxed);
                        // Beside the writes or after them: each row is of one version or the other as a whole.
                        to_load.and_then(|()| check_some(reader, &asks))
                    });
                    cores.go_to_servers().map_err(|error| error.to_string())?;
                    let start = Instant::now();
                    while writes && !done.load(Ordering::Relaxed) && !reads.is_finished() {
                        let batch = batches[applied % batches.len()].clone();
                        let index = LogIndex(partition.applied().0 + 1);
                        partition.apply(index, &Command::Write { stamp_us: 2, step: None, batch });
                        applied += 1;
                    }
                    if writes {
                        spent += start.elapsed();
                    }
                    reads.join().map_err(|_| "the reading thread panicked".to_owned())?
                })?;
            }
        }
        let of = |times: &hdrhistogram::Histogram<u64>| times.value_at_quantile(0.99) as f64 / 1_000.0;
        let applied_rows_per_s = (applied * BATCH_ROWS as usize) as f64 / spent.as_secs_f64();
        Ok(ReadP99 { alone: of(&alone), writes: of(&beside), applied_rows_per_s })
    }

    fn to_json(&self, figures: &Figures) -> serde_json::Value {
        let of_widths = |figures: &[(f64, f64); WIDTHS.len()]| -> serde_json::Map<_, _> {
            let both = |(bare, whole): &(f64, f64)| serde_json::json!({ "bare": bare, "whole": whole });
            WIDTHS.iter().zip(figures).map(|(width, figure)| (width.to_string(), both(figure))).collect()
        };
        let gather: serde_json::Map<_, _> =
            LAYOUTS.iter().zip(&figures.gather).map(|(l, f)| (l.name.to_owned(), of_widths(f).into())).collect();
        let cost_ratio = figures.large / figures.small;
        serde_json::json!({
            "rows": self.rows,
            "features": FEATURES,
            "reads": self.reads,
            "repetitions": self.repetitions,
            "apply_rows_per_s": figures.apply_new.round(),
            "apply_overwrite_rows_per_s": figures.apply_over.round(),
            "bytes_per_row": figures.bytes_per_row,
            "raw_bytes_per_row": RAW_BYTES,
            "gather_ns_per_row": gather,
            "copy_ns_per_row": figures.copy,
            "copy_asked_ns_per_row": figures.copy_asked,
            "gather_to_copy": figures.whole() / figures.copy,
            "gather_to_copy_asked": figures.whole() / figures.copy_asked,
            "small_rows": self.rows / 10,
            "small_gather_ns_per_row": figures.small,
            "large_rows": self.rows / 10 * 20,
            "large_gather_ns_per_row": figures.large,
            "large_copy_ns_per_row": figures.copy_large,
            "cost_ratio": cost_ratio,
            "cost_ratio_20m_to_1m": (self.rows == MILLIONS_10).then_some(cost_ratio),
            "restart_ms": figures.files.restart.as_secs_f64() * 1e3,
            "thaw_ms": figures.files.thaw.as_secs_f64() * 1e3,
            "snapshot_bytes": figures.files.whole,
            "snapshot_bytes_unchanged": figures.files.unchanged,
            "snapshot_bytes_after_1_percent": figures.files.after_one_percent,
            "read_us_p99_idle": figures.p99.alone,
            "read_us_p99_under_writes": figures.p99.writes,
            "read_p99_under_writes_to_idle": figures.p99.writes / figures.p99.alone,
            "apply_rows_per_s_beside_reads": figures.p99.applied_rows_per_s.round(),
        })
    }

    fn table(&self, figures: &Figures) -> String {
        let Figures { apply_new, apply_over, bytes_per_row, copy, p99, small, large, .. } = figures;
        let mut out = format!("{} rows x {FEATURES} Float32, medians of {} repetitions\n", self.rows, self.repetitions);
        out += &format!("apply               {apply_new:>10.0} rows/s new, {apply_over:.0} rows/s overwritten\n");
        out += &format!(
            "memory              {bytes_per_row:>10.1} bytes a row at the most, {:.2} x the {RAW_BYTES} of values and key\n",
            bytes_per_row / RAW_BYTES as f64
        );
        for (layout, figures) in LAYOUTS.iter().zip(&figures.gather) {
            for (width, (bare, whole)) in WIDTHS.iter().zip(figures) {
                let name = layout.name;
                out += &format!(
                    "{name:<8} {width:>2} features {whole:>10.1} ns a row whole, {bare:.1} bare, 100 rows a read\n"
                );
            }
        }
        out +=
            &format!("touched copy        {copy:>10.1} ns a row: a whole read costs {:.2} x\n", figures.whole() / copy);
        let asked = figures.copy_asked;
        out += &format!("copy that asks      {asked:>10.1} ns a row: {:.2} x\n", figures.whole() / asked);
        let (tenth, twice) = (self.rows / 10, self.rows / 10 * 20);
        out += &format!(
            "growth              {large:>10.1} ns a row of {twice} rows, {small:.1} of {tenth}: {:.2} x; copy {:.1}\n",
            large / small,
            figures.copy_large
        );
        let files = &figures.files;
        out += &format!(
            "restart             {:>10.1} ms until 1,000 random keys were right; all rows in memory {:.0} ms later\n",
            files.restart.as_secs_f64() * 1e3,
            files.thaw.as_secs_f64() * 1e3
        );
        out += &format!(
            "snapshot            {:>10} bytes; {} of another one at once, {} after 1 % of the rows were updated\n",
            files.whole, files.unchanged, files.after_one_percent
        );
        out += &format!(
            "p99 of a read       {:>10.1} us alone, {:.1} us beside writes of {:.0} rows/s: {:.2} x",
            p99.alone,
            p99.writes,
            p99.applied_rows_per_s,
            p99.writes / p99.alone
        );
        out
    }
}

/// What times something once, by a number that no other time has.
pub type Timing<'a> = &'a mut dyn FnMut(u64) -> Result<f64, String>;

/// Medians of timings that are taken in turn, so often each, and each of them first as often as any other; `visit` comes before
/// each turn.
///
/// # Errors
/// Of the first that fails.
pub fn in_turn<const N: usize>(
    repetitions: u64,
    visit: impl Fn(),
    timings: [Timing<'_>; N],
) -> Result<[f64; N], String> {
    let mut times = [const { Vec::new() }; N];
    for repetition in 0..repetitions {
        visit();
        for at in 0..N {
            let which = (at + repetition as usize) % N;
            times[which].push(timings[which]((repetition * N as u64 + at as u64) << 40)?);
        }
    }
    Ok(times.map(median))
}

/// Reads rows of all pages once. A host may take memory from its guests that they have not touched for some seconds, and where it
/// does each page of 4 KiB comes back by a fault of its own, of microseconds: a prefetch is dropped there, and the load that
/// follows waits. So memory that is compared has been touched at the same time, whatever was filled first.
pub fn visit(floats: &Floats, reader: &PartitionReader, rows: u64) {
    // A lane is 512 bytes wide at the most, so a page has as many rows or more.
    const ROWS_OF_A_PAGE: usize = 8;
    let mut ids = (0..rows).step_by(ROWS_OF_A_PAGE).peekable();
    while ids.peek().is_some() {
        let ids: Vec<u64> = ids.by_ref().take(READ_ROWS).collect();
        black_box(floats.ask(&ids, floats.features()).answer(reader));
    }
}

/// All memory of a partition, by its rows.
pub fn bytes_a_row(partition: &Partition) -> f64 {
    let memory = partition.memory();
    memory.total as f64 / memory.rows as f64
}

/// Writes rows in a version, as many a command as may be; rows a second, without the making of the batches. Panics if one is
/// refused: they are of the group's own types.
pub fn fill(floats: &Floats, partition: &mut Partition, rows: std::ops::Range<u64>, version: i64) -> f64 {
    let (count, mut spent) = (rows.end - rows.start, Duration::ZERO);
    let at_once = BATCH_ROWS.min(BATCH_VALUES_MAX / floats.features() as u64);
    for first in rows.clone().step_by(at_once as usize) {
        let ids = first..(first + at_once).min(rows.end);
        let command = Command::Write { stamp_us: version, step: None, batch: floats.batch(ids, version) };
        let index = LogIndex(partition.applied().0 + 1);
        let start = Instant::now();
        let outcome = black_box(partition.apply(index, &command));
        spent += start.elapsed();
        assert!(matches!(outcome, Outcome::Wrote(_)), "rows of the group's own types are refused: {outcome:?}");
    }
    count as f64 / spent.as_secs_f64()
}

/// Nanoseconds of a row of these reads of 100 rows, of which some are compared with what was written.
pub fn time_reads(reader: &PartitionReader, asks: &[(Vec<u64>, Ask)]) -> Result<f64, String> {
    let start = Instant::now();
    for (_, ask) in asks {
        black_box(ask.answer(reader));
    }
    let time = start.elapsed().as_nanos() as f64 / (asks.len() * READ_ROWS) as f64;
    check_some(reader, asks)?;
    Ok(time)
}

/// Compares answers to the first of these.
fn check_some(reader: &PartitionReader, asks: &[(Vec<u64>, Ask)]) -> Result<(), String> {
    asks.iter().take(2).try_for_each(|(ids, ask)| check(reader, ids, ask))
}

/// Compares an answer with what its rows were made from, in version 1 or 2, which is each row's event time.
fn check(reader: &PartitionReader, ids: &[u64], ask: &Ask) -> Result<(), String> {
    let answer = ask.read(reader)?;
    for (row, &id) in ids.iter().enumerate() {
        if answer.status(row) != RowStatus::Found {
            return Err(format!("row {id} was written and is not found"));
        }
        let version = answer.event_time(row);
        if !(1..=2).contains(&version) {
            return Err(format!("row {id} was never written in version {version}"));
        }
        for (column, &feature) in ask.projection.features.iter().enumerate() {
            let wanted = value(id, feature, version).to_le_bytes();
            if answer.value(column, row) != Some(&wanted[..]) {
                return Err(format!("feature {feature} of row {id} is not what was written"));
            }
        }
    }
    Ok(())
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_taken_in_turn_by_numbers_of_their_own_and_a_burst_does_not_move_a_median() {
        let order = std::cell::RefCell::new(Vec::new());
        let note = |which: usize, number: u64, time: f64| {
            order.borrow_mut().push((which, number));
            Ok(time)
        };
        let mut calls = 0;
        let visits = std::cell::Cell::new(0);
        let [first, second] = in_turn(
            5,
            || visits.set(visits.get() + 1),
            [&mut |number| note(0, number, 1.0), &mut |number| {
                calls += 1;
                note(1, number, if calls < 3 { 1_000.0 } else { f64::from(calls) })
            }],
        )
        .expect("no timing fails");
        assert_eq!((first, second, visits.get()), (1.0, 5.0, 5));
        let order = order.into_inner();
        assert!(order.iter().map(|(which, _)| *which).eq([0, 1, 1, 0, 0, 1, 1, 0, 0, 1]));
        let numbers: std::collections::BTreeSet<u64> = order.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), 10);
    }
}
