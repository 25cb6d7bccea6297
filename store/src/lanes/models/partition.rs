//! Whole partitions: commands beside reads, and beside a snapshot.

use std::sync::Mutex;

use bytes::Bytes;
use loom::thread::{self, JoinHandle};
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::read::{Projection, RowStatus, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, SectionRows, parse_answer};
use stoa_protocol::{FeatureGroup, FeatureGroupId, FeatureType, KeyType, LogIndex, RowBatchBuilder, Value};

use super::explore;
use crate::{Command, Partition, PartitionReader, SectionSource, StoreOptions, read_sections};

/// Words of the stack of a thread that applies or reads: loom's own have 4,096.
const STACK_WORDS: usize = 1 << 16;

fn spawn_deep(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().stack_size(STACK_WORDS).spawn(run).expect("loom has room for the thread")
}

/// Explores a model whose first thread applies.
fn explore_deep(preemptions: usize, run: impl Fn() + Send + Sync + Clone + 'static) {
    explore(Some(preemptions), move || spawn_deep(run.clone()).join().unwrap());
}

fn group() -> FeatureGroup {
    let features = [("mark", FeatureType::Int64), ("text", FeatureType::String)];
    FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features)
}

fn key(id: i64) -> Vec<u8> {
    let mut key = Vec::new();
    encode_key(&[KeyType::Int64], &[id.into()], &mut key).unwrap();
    key
}

fn keys(ids: &[i64]) -> KeyBlock {
    let mut keys = KeyBlock::new();
    ids.iter().for_each(|id| keys.push(&key(*id)));
    keys
}

fn text(id: i64, round: i64) -> Value {
    Value::String(format!("round {round} of {id}"))
}

fn write(id: i64, round: i64) -> Command {
    let mut batch = RowBatchBuilder::new(&group(), &[0, 1]);
    batch.upsert(&key(id), round, 0, &[Value::Int(id * 100 + round), text(id, round)]).unwrap();
    Command::Write { stamp_us: round, step: None, batch: batch.finish().unwrap() }
}

/// A partition whose first two commands have made the group and row 7 in round 0.
fn begun() -> (Partition, PartitionReader) {
    let (mut partition, reader) = Partition::new(StoreOptions::default());
    partition.apply(LogIndex(1), &Command::Define(group()));
    partition.apply(LogIndex(2), &write(7, 0));
    (partition, reader)
}

fn projection() -> Projection {
    Projection { group: FeatureGroupId(1), schema_version: 1, features: vec![0, 1] }
}

/// The round of a row after all of it has been looked at; `None` if it is not there.
fn round_of(rows: &SectionRows, at: usize, id: i64) -> Option<i64> {
    let round = (rows.status(at) == RowStatus::Found).then(|| rows.event_time(at))?;
    let value = |feature, ty| Value::decode(ty, rows.value(feature, at).unwrap()).unwrap();
    assert_eq!(value(0, FeatureType::Int64), Value::Int(id * 100 + round));
    assert_eq!(value(1, FeatureType::String), text(id, round));
    Some(round)
}

#[test]
fn a_partition_answers_with_whole_rows_that_never_go_back_and_are_as_new_as_it_says() {
    const WRITES: [(u64, i64, i64); 4] = [(2, 7, 0), (3, 7, 1), (4, 8, 1), (5, 7, 2)];
    explore_deep(4, || {
        let (mut partition, reader) = begun();
        let reader = spawn_deep(move || {
            let mut last = [Some(0), None];
            for _ in 0..2 {
                let rows = reader.read(&projection(), &keys(&[7, 8]), LogIndex(2)).unwrap();
                for (at, id) in [7, 8].into_iter().enumerate() {
                    let round = round_of(&rows, at, id);
                    assert!(round >= last[at], "{id} went back from {:?} to {round:?}", last[at]);
                    let said = rows.head.applied;
                    let covered = WRITES.iter().filter(|(index, of, _)| LogIndex(*index) <= said && *of == id);
                    let newest = covered.map(|(_, _, round)| *round).max();
                    assert!(round >= newest, "{id} is of {round:?}, and index {said} has {newest:?}");
                    last[at] = round;
                }
            }
        });
        for (index, id, round) in &WRITES[1..] {
            partition.apply(LogIndex(*index), &write(*id, *round));
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_read_of_two_partitions_keeps_the_rows_of_both() {
    explore_deep(3, || {
        let mut both = [begun(), begun()];
        // The read enters partitions in the order of their places; the one that changes is the last.
        both.sort_by_key(|(partition, _)| std::sync::Arc::as_ptr(&partition.shared).addr());
        let [(_still, still), (mut changing, changed)] = both;
        let reader = spawn_deep(move || {
            let keys = keys(&[7]);
            let source =
                |reader| SectionSource { reader, at_least: LogIndex(2), time_us: 0, keys: keys.range(0, keys.len()) };
            let mut answer = AnswerWriter::new(2);
            let heads = read_sections(&projection(), &[source(&still), source(&changed)], &mut answer);
            let results: Vec<_> = heads.into_iter().map(|head| SectionResult::Rows(head.unwrap())).collect();
            let sections = parse_answer(answer.finish(&results).into_body().into()).unwrap();
            for rows in sections {
                assert!(round_of(&rows.unwrap(), 0, 7).is_some(), "the row was there all the time");
            }
        });
        (1..4).for_each(|round| drop(changing.apply(LogIndex(round as u64 + 2), &write(7, round))));
        reader.join().unwrap();
    });
}

/// The chunks of a snapshot of a partition that was just begun.
fn chunks(partition: &Partition) -> Vec<Bytes> {
    partition.snapshot().map(|part| part.unwrap().into_chunk().unwrap()).collect()
}

#[test]
fn a_snapshot_that_is_read_beside_commands_has_what_there_was_when_it_began() {
    explore_deep(3, || {
        let (mut partition, _reader) = begun();
        let (wanted, source) = (chunks(&partition), partition.snapshot());
        let snapshot = spawn_deep(move || {
            let read: Vec<_> = source.map(|part| part.unwrap().into_chunk().unwrap()).collect();
            assert_eq!(read, wanted);
        });
        (1..4).for_each(|round| drop(partition.apply(LogIndex(round as u64 + 2), &write(7, round))));
        snapshot.join().unwrap();
    });
}

#[test]
fn a_cold_row_is_found_all_the_time_while_it_is_taken_into_memory() {
    let made: &'static Mutex<Vec<Bytes>> = Box::leak(Box::default());
    explore_deep(0, || *made.lock().unwrap() = chunks(&begun().0));
    let made = made.lock().unwrap().clone();
    explore_deep(2, move || {
        let (mut partition, reader) = Partition::restore(StoreOptions::default(), made.iter().cloned()).unwrap();
        let reader = spawn_deep(move || {
            let rows = reader.read(&projection(), &keys(&[7]), LogIndex(2)).unwrap();
            assert!(round_of(&rows, 0, 7).is_some(), "the row was there all the time");
        });
        while partition.thaw(1).unwrap() {}
        partition.apply(LogIndex(3), &write(7, 1));
        reader.join().unwrap();
    });
}
