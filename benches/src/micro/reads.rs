//! The probe of the index, and the gather of rows.
//!
//! The probe has no entry of its own, and a public one for benchmarks alone would have to be kept. What is measured is a read
//! of no features. For keys that are there it is: check the keys, hash them, probe, compare the key of each row and copy its
//! event time. For absent keys it ends with the probe. Both make an answer of statuses and event times.
//!
//! Gathers are from a table that stays in the caches, so that they show what the code costs; `stoa-bench store` measures the
//! same from memory, beside a plain copy.
//!
//! `lanes` is a view of few features of a wide group, whose rows no cache holds: with the columns in schema order, over which the
//! view's are spread evenly, and in lanes made for it. What the one takes by the other is what lanes by views are worth where
//! they are worth most.

use std::hint::black_box;

use stoa_protocol::read::RowStatus;
use stoa_store::PartitionReader;

use super::subject::{Subject, Work};
use super::table::{FEATURES, SMALL_ROWS, Table};
use crate::rows::{Ask, Picks};

/// Keys of a large read.
const KEYS: usize = 100;
/// Rows of a table that no cache holds: over 200 MiB.
const LARGE_ROWS: u64 = 4 << 20;
/// Features of its rows.
const LARGE_FEATURES: usize = 3;
/// Features of a wide group, and its rows: 400 MiB of them.
const WIDE_FEATURES: usize = 500;
const WIDE_ROWS: u64 = 200_000;
/// A view reads every so many-th feature of it: 20 in all.
const VIEW_STEP: usize = 25;
/// Different reads of a table that stays in the caches, asked in turn.
const SMALL_READS: usize = 64;
/// Different reads of the other: a million rows, so that none is near when its turn comes again.
const LARGE_READS: usize = 10_000;

/// The probe and the gather.
pub fn subjects() -> Vec<Subject> {
    vec![
        Subject::new("probe/hit-in-cache", KEYS as u64, |_| hits(&Table::filled(FEATURES, SMALL_ROWS), SMALL_READS))
            .counted(512),
        Subject::new("probe/miss-in-cache", KEYS as u64, |_| misses(&Table::filled(FEATURES, SMALL_ROWS), SMALL_READS))
            .counted(512),
        Subject::new("probe/hit-in-memory", KEYS as u64, |_| hits(&large(), LARGE_READS)),
        Subject::new("probe/miss-in-memory", KEYS as u64, |_| misses(&large(), LARGE_READS)),
        Subject::new("gather/1x3", 1, |_| gather(1, 3)).counted(2_048),
        Subject::new("gather/1x48", 1, |_| gather(1, FEATURES)).counted(2_048),
        Subject::new("gather/100x3", KEYS as u64, |_| gather(KEYS, 3)).counted(512),
        Subject::new("gather/100x48", KEYS as u64, |_| gather(KEYS, FEATURES)).counted(512),
        Subject::new("lanes/20-of-500-in-schema-order", KEYS as u64, |_| {
            viewed(&Table::filled(WIDE_FEATURES, WIDE_ROWS))
        }),
        Subject::new("lanes/20-of-500-by-view", KEYS as u64, |_| {
            viewed(&Table::filled_for(&[view()], WIDE_FEATURES, WIDE_ROWS))
        }),
    ]
}

/// Reads of one partition, asked in turn.
struct Reads {
    reader: PartitionReader,
    asks: Vec<Ask>,
    next: usize,
}

impl Work for Reads {
    fn run(&mut self, count: u64) {
        for _ in 0..count {
            black_box(black_box(&self.asks[self.next]).answer(&self.reader));
            self.next = if self.next + 1 == self.asks.len() { 0 } else { self.next + 1 };
        }
    }
}

impl Reads {
    fn boxed(table: &Table, asks: Vec<Ask>, status: RowStatus) -> Box<dyn Work> {
        let reader = table.reader.clone();
        for ask in &asks {
            let rows = ask.read(&reader).expect("a read of the benchmark is answered");
            let all_are = (0..rows.rows()).all(|row| rows.status(row) == status);
            assert!(all_are, "a key of the benchmark is not {status:?}");
        }
        Box::new(Self { reader, asks, next: 0 })
    }
}

fn hits(table: &Table, reads: usize) -> Box<dyn Work> {
    Reads::boxed(table, asks(table, KEYS, 0, reads), RowStatus::Found)
}

/// Keys of rows beyond the last one.
fn misses(table: &Table, reads: usize) -> Box<dyn Work> {
    let mut picks = Picks::new(1, 1 << 40);
    let beyond = table.reader.rows();
    let mut ids = || -> Vec<u64> { picks.distinct(KEYS).iter().map(|id| beyond + id).collect() };
    let asks = (0..reads).map(|_| table.floats.ask(&ids(), 0)).collect();
    Reads::boxed(table, asks, RowStatus::NotFound)
}

fn gather(keys: usize, features: usize) -> Box<dyn Work> {
    let table = Table::filled(FEATURES, SMALL_ROWS);
    Reads::boxed(&table, asks(&table, keys, features, SMALL_READS), RowStatus::Found)
}

/// The features of a view of the wide group.
fn view() -> Vec<u16> {
    (0..WIDE_FEATURES as u16).step_by(VIEW_STEP).collect()
}

/// What the view reads.
fn viewed(table: &Table) -> Box<dyn Work> {
    let mut asks = asks(table, KEYS, 0, LARGE_READS);
    asks.iter_mut().for_each(|ask| ask.projection.features = view());
    Reads::boxed(table, asks, RowStatus::Found)
}

fn asks(table: &Table, keys: usize, features: usize, count: usize) -> Vec<Ask> {
    let mut picks = Picks::new(1, table.reader.rows());
    (0..count).map(|_| table.floats.ask(&picks.distinct(keys), features)).collect()
}

fn large() -> Table {
    Table::filled(LARGE_FEATURES, LARGE_ROWS)
}
