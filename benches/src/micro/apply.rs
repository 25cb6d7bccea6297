//! Apply: commands of 1,000 rows of 48 features, new rows and overwritten ones, in one thread and without a reader.

use std::hint::black_box;

use stoa_store::{Command, Outcome, Partition};

use super::subject::{Subject, Work};
use super::table::{BATCH_ROWS, FEATURES, SMALL_ROWS, Table, apply};
use crate::rows::Picks;

/// Commands into an empty partition: the growth of index and lanes has its share.
const NEW_COMMANDS: u64 = 8;

/// New and overwritten rows.
pub fn subjects() -> Vec<Subject> {
    vec![
        // A partition of 8,000 rows takes about 2 MiB.
        Subject::new("apply/new", NEW_COMMANDS * BATCH_ROWS, |_| New::boxed()).counted(4).at_once(16),
        // A command takes 200 KiB.
        Subject::new("apply/overwrite", BATCH_ROWS, |_| Overwrite::boxed()).counted(32).at_once(64),
    ]
}

/// One operation fills one partition.
struct New {
    commands: Vec<Command>,
    empty: Vec<Partition>,
}

impl New {
    fn boxed() -> Box<dyn Work> {
        let table = Table::empty(FEATURES);
        let ids = |command| command * BATCH_ROWS..(command + 1) * BATCH_ROWS;
        let commands = (0..NEW_COMMANDS).map(|command| table.write(ids(command), 0)).collect();
        Box::new(Self { commands, empty: Vec::new() })
    }
}

impl Work for New {
    fn prepare(&mut self, count: u64) {
        self.empty.clear();
        self.empty.extend((0..count).map(|_| Table::empty(FEATURES).partition));
    }

    fn run(&mut self, count: u64) {
        for partition in &mut self.empty[..count as usize] {
            for command in &self.commands {
                assert_applied(&apply(partition, black_box(command)));
            }
        }
    }
}

/// One operation is one command, which rewrites a quarter of the rows.
struct Overwrite {
    table: Table,
    picks: Picks,
    version: i64,
    commands: Vec<Command>,
}

impl Overwrite {
    fn boxed() -> Box<dyn Work> {
        let table = Table::filled(FEATURES, SMALL_ROWS);
        Box::new(Self { table, picks: Picks::new(1, SMALL_ROWS), version: 0, commands: Vec::new() })
    }
}

impl Work for Overwrite {
    fn prepare(&mut self, count: u64) {
        self.commands.clear();
        for _ in 0..count {
            self.version += 1;
            let first = self.picks.next().expect("picks never end");
            // Neighbours by number: their keys are spread over the whole index all the same.
            let ids = (first..first + BATCH_ROWS).map(|id| id % SMALL_ROWS);
            self.commands.push(self.table.write(ids, self.version));
        }
    }

    fn run(&mut self, count: u64) {
        for command in &self.commands[..count as usize] {
            assert_applied(&apply(&mut self.table.partition, black_box(command)));
        }
    }
}

fn assert_applied(outcome: &Outcome) {
    let Outcome::Wrote(answer) = black_box(outcome) else { panic!("a command of the benchmark was refused") };
    assert_eq!(u64::from(answer.applied), BATCH_ROWS, "every row of the benchmark is newer than what it meets");
}
