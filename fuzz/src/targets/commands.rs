//! `store::Command`: entries of a partition's log, read and applied to two partitions that must stay the same.

use std::sync::Arc;

use bytes::Bytes;
use stoa_protocol::limits::SWEEP_ROWS_MAX;
use stoa_protocol::message::{SessionStep, WriteAnswer};
use stoa_protocol::{FeatureGroup, FeatureGroupId, LogIndex, RowBatch};
use stoa_store::{
    Command, LaneOrders, Outcome, Partition, PartitionReader, SnapshotPart, SnapshotSource, StoreOptions,
};

use super::Seed;
use crate::input::put_piece;
use crate::sample::{self, Row, TYPES};
use crate::{Input, round_trip};

/// Commands of one input.
const COMMANDS_MAX: usize = 40;

/// A list of commands, each a byte of what it is and then its parts: the bytes of one, or what one is made of.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pair = Pair::new();
    for _ in 0..COMMANDS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0 | 1 => {
                let bytes = Bytes::copy_from_slice(input.piece());
                if let Some(mut command) = round_trip::taken(Command::decode(&bytes)) {
                    assert_eq!(command.encode(), bytes, "{command:?} has two forms");
                    whole(&mut command);
                    pair.apply(&command);
                }
            }
            2 => pair.snapshot = input.flag().then(|| pair.other.snapshot()),
            3 => {
                let group = pair.group(&mut input);
                pair.apply(&Command::Define(sample::grown(&group, TYPES[input.below(TYPES.len())])));
            }
            _ => {
                let group = pair.group(&mut input);
                if let Some(command) = write(&group, &mut input) {
                    pair.apply(&command);
                }
            }
        }
    }
    pair.finish();
}

/// Seeds differ here, and a range of hashes means other rows under another seed: a sweep goes through all of a group.
fn whole(command: &mut Command) {
    if let Command::Sweep(sweep) = command {
        (sweep.first_hash, sweep.last_hash, sweep.rows_max) = (0, u64::MAX, SWEEP_ROWS_MAX);
    }
}

/// A batch of up to four rows of few keys, event times and sequences, so that they meet.
fn write(group: &FeatureGroup, input: &mut Input<'_>) -> Option<Command> {
    let stamp_us = i64::from(input.byte());
    let step = input.flag().then(|| SessionStep { session: input.below(3) as u128, sequence: input.below(5) as u64 });
    let chosen = input.u32();
    let features: Vec<u16> = (0..group.features.len() as u16).filter(|at| chosen >> (at % 32) & 1 == 1).collect();
    let rows: Vec<Row> = (0..1 + input.below(4))
        .map(|_| Row {
            key: input.byte() % 8,
            time: i64::from(input.byte() % 8),
            sequence: u64::from(input.byte() % 3),
            values: (!input.flag()).then(|| input.byte()),
        })
        .collect();
    let batch = sample::batch(group, &features, &rows)?;
    Some(Command::Write { stamp_us, step, batch })
}

/// Two partitions with the same log. Seeds and lanes differ, and a snapshot of one may be open, or may not.
struct Pair {
    one: Partition,
    other: Partition,
    reader: PartitionReader,
    snapshot: Option<SnapshotSource>,
    index: u64,
}

impl Pair {
    fn new() -> Self {
        let options = StoreOptions { incarnation: 3, logical_bytes_max: Some(1 << 20), ..StoreOptions::default() };
        let (one, reader) = Partition::new(options.clone());
        let views =
            [vec![2], vec![1, 2]].into_iter().flat_map(|view| [7, 9].map(|id| (FeatureGroupId(id), view.clone())));
        let lane_orders = Arc::new(LaneOrders::by_views(views));
        let options = StoreOptions { index_seed: u64::MAX, lane_orders, ..options };
        let (other, _) = Partition::new(StoreOptions { lane_bytes_max: 64, tidy_bytes_min: 1, ..options });
        let mut pair = Self { one, other, reader, snapshot: None, index: 0 };
        [sample::product(), sample::visitor()].into_iter().for_each(|group| pair.apply(&Command::Define(group)));
        pair
    }

    fn group(&self, input: &mut Input<'_>) -> FeatureGroup {
        let id = FeatureGroupId([7, 9][input.below(2)]);
        self.one.group(id).expect("it was defined at the beginning").clone()
    }

    fn apply(&mut self, command: &Command) {
        self.index += 1;
        let index = LogIndex(self.index);
        if let Command::Write { batch, .. } = command {
            assert_eq!(self.reader.admits(batch), self.one.admits(batch));
        }
        let outcome = self.one.apply(index, command);
        assert_eq!(self.other.apply(index, command), outcome, "equal commands have equal outcomes");
        match (&outcome, command) {
            (Outcome::Noop, Command::Noop | Command::Stamp { .. }) | (Outcome::Defined, Command::Define(_)) => {}
            (Outcome::Wrote(answer), Command::Write { batch, .. }) => check_answer(answer, batch, index),
            (Outcome::Swept(removed), Command::Sweep(sweep)) => assert!(*removed <= sweep.rows_max),
            (Outcome::Refused(error), _) => assert!(!error.message.is_empty()),
            other => panic!("{other:?}"),
        }
        assert_eq!((self.one.applied(), self.reader.applied()), (index, index));
    }

    fn finish(self) {
        self.one.check();
        self.other.check();
        assert_eq!(self.one.digest(), self.other.digest(), "equal commands give equal state");
        assert_eq!(self.reader.digest().rows, self.one.memory().rows);
        let parts: Result<Vec<_>, _> = self.one.snapshot().collect();
        let parts = parts.expect("nothing of it is cold");
        let options = StoreOptions { incarnation: 3, ..StoreOptions::default() };
        let chunks = parts.iter().cloned().filter_map(SnapshotPart::into_chunk);
        let (mut restored, _) = Partition::restore(options, chunks).expect("what was just written");
        restored.check();
        assert_eq!(restored.thaw(usize::MAX), Ok(false));
        restored.check();
        assert_eq!(restored.digest(), self.one.digest());
        assert!(restored.snapshot().eq(parts.into_iter().map(Ok)), "equal state gives equal bytes");
    }
}

fn check_answer(answer: &WriteAnswer, batch: &RowBatch, index: LogIndex) {
    assert_eq!(answer.incarnation, 3);
    if answer.repeated {
        assert!(answer.index < index && answer.applied == 0 && answer.older.is_empty());
        return;
    }
    assert_eq!((answer.index, answer.applied as usize + answer.older.len()), (index, batch.rows()));
    assert!(answer.older.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(answer.older.last().is_none_or(|row| (*row as usize) < batch.rows()));
}

/// Each command of the sample by itself, all of them, and some that are made up.
pub fn seeds() -> Vec<Seed> {
    let bytes = |command: &Command| {
        let mut out = vec![0];
        put_piece(&command.encode(), &mut out);
        out
    };
    let each: Vec<Vec<u8>> = sample::commands().iter().map(bytes).collect();
    let names = ["product", "visitor", "write", "write_all", "noop", "partial", "grown", "appended", "deletes", "step"];
    let made = |key, value| {
        [&[4, 0, 20, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 1][..], &[key, 3, 1, 0, value, key, 4, 0, 1]].concat()
    };
    let made = [made(1, 3), made(2, 4), vec![2, 1], made(1, 9), vec![3, 0, 10], made(1, 11)].concat();
    let all = each.concat();
    names.into_iter().zip(each).chain([("all", all), ("made", made)]).collect()
}
