//! A snapshot's chunks made, and a partition restored from them, its digest computed again.

use std::hint::black_box;

use bytes::Bytes;
use stoa_store::Partition;

use super::subject::{Repeat, Subject, Work};
use super::table::{FEATURES, SMALL_ROWS, Table, options};

/// Making and restoring.
pub fn subjects() -> Vec<Subject> {
    vec![
        Subject::new("snapshot/make", SMALL_ROWS, |_| make()),
        // A restored partition takes about 1 MiB.
        Subject::new("snapshot/restore", SMALL_ROWS, |_| Restore::boxed()).at_once(32),
    ]
}

fn make() -> Box<dyn Work> {
    let table = Table::filled(FEATURES, SMALL_ROWS);
    Box::new(Repeat(move || {
        for chunk in table.partition.snapshot() {
            black_box(chunk);
        }
    }))
}

struct Restore {
    chunks: Vec<Bytes>,
    restored: Vec<Partition>,
}

impl Restore {
    fn boxed() -> Box<dyn Work> {
        let chunks = Table::filled(FEATURES, SMALL_ROWS).partition.snapshot().collect();
        Box::new(Self { chunks, restored: Vec::new() })
    }
}

impl Work for Restore {
    /// Drops what was restored.
    fn prepare(&mut self, _count: u64) {
        self.restored.clear();
    }

    fn run(&mut self, count: u64) {
        for _ in 0..count {
            let (partition, _reader) =
                Partition::restore(options(), black_box(&self.chunks)).expect("the snapshot was just made");
            self.restored.push(partition);
        }
    }
}
