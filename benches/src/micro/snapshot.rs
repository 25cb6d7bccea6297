//! A snapshot's chunks made, and a partition restored from them: all rows taken in, their digest computed again.

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
        for part in table.partition.snapshot() {
            let _made = black_box(part);
        }
    }))
}

struct Restore {
    chunks: Vec<Bytes>,
    restored: Vec<Partition>,
}

impl Restore {
    fn boxed() -> Box<dyn Work> {
        let table = Table::filled(FEATURES, SMALL_ROWS);
        let parts = table.partition.snapshot();
        let chunks = parts.map(|part| part.expect("nothing is cold").into_chunk().expect("there is no base"));
        Box::new(Self { chunks: chunks.collect(), restored: Vec::new() })
    }
}

impl Work for Restore {
    /// Drops what was restored.
    fn prepare(&mut self, _count: u64) {
        self.restored.clear();
    }

    fn run(&mut self, count: u64) {
        for _ in 0..count {
            let (mut partition, _reader) =
                Partition::restore(options(), black_box(self.chunks.clone())).expect("the snapshot was just made");
            assert!(!partition.thaw(usize::MAX).expect("the snapshot was just made"), "all rows are in memory");
            self.restored.push(partition);
        }
    }
}
