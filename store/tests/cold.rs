//! Partitions that answer from the snapshot they were restored from, and snapshots that keep what has not changed.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use bytes::Bytes;
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::read::{Projection, RowStatus};
use stoa_protocol::{
    ErrorCode, FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, RowBatchBuilder, Value,
};
use stoa_store::{
    Command, Outcome, Partition, PartitionReader, RestoreError, SnapshotBase, SnapshotPart, StoreOptions,
};

const ROWS: i64 = 24_000;
const PAD: usize = 200;

fn group() -> FeatureGroup {
    let features = [("round", FeatureType::Int64), ("pad", FeatureType::String)];
    FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features)
}

fn key(id: i64) -> Vec<u8> {
    let mut key = Vec::new();
    encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut key).unwrap();
    key
}

fn pad(id: i64, round: i64) -> String {
    format!("{id:0PAD$}/{round}")
}

fn write(ids: impl Iterator<Item = i64>, round: i64) -> Command {
    let mut batch = RowBatchBuilder::new(&group(), &[0, 1]);
    for id in ids {
        batch.upsert(&key(id), round, 0, &[Value::Int(round), Value::String(pad(id, round))]).unwrap();
    }
    Command::Write { stamp_us: round, step: None, batch: batch.finish().unwrap() }
}

fn delete(ids: impl Iterator<Item = i64>, round: i64) -> Command {
    let mut batch = RowBatchBuilder::new(&group(), &[]);
    ids.for_each(|id| batch.delete(&key(id), round, 0));
    Command::Write { stamp_us: round, step: None, batch: batch.finish().unwrap() }
}

fn apply(partition: &mut Partition, command: &Command) {
    let index = LogIndex(partition.applied().0 + 1);
    let outcome = partition.apply(index, command);
    assert!(matches!(outcome, Outcome::Wrote(_) | Outcome::Defined), "{outcome:?}");
}

/// Rows 0 to 24,000, in the first round.
fn filled() -> Partition {
    let (mut partition, _) = Partition::new(StoreOptions { index_seed: 5, ..StoreOptions::default() });
    apply(&mut partition, &Command::Define(group()));
    for first in (0..ROWS).step_by(1_000) {
        apply(&mut partition, &write(first..first + 1_000, 1));
    }
    partition
}

fn whole(partition: &Partition) -> Vec<Bytes> {
    partition.snapshot().map(|part| part.unwrap().into_chunk().unwrap()).collect()
}

fn restore(chunks: &[Bytes]) -> (Partition, PartitionReader) {
    Partition::restore(StoreOptions::default(), chunks.iter().cloned()).unwrap()
}

/// The round of each key, `None` where it is not there, after its values have been compared.
fn rounds(reader: &PartitionReader, ids: &[i64]) -> Vec<Option<i64>> {
    let projection = Projection { group: FeatureGroupId(1), schema_version: 1, features: vec![1, 0] };
    let mut keys = KeyBlock::new();
    ids.iter().for_each(|id| keys.push(&key(*id)));
    let rows = reader.read(&projection, &keys, LogIndex(0)).unwrap();
    let round = |(row, id): (usize, &i64)| {
        (rows.status(row) == RowStatus::Found).then(|| {
            // The columns stand in the order asked for.
            let (pad_found, round) = (rows.value(0, row).unwrap(), rows.value(1, row).unwrap());
            let round = i64::from_le_bytes(round.try_into().unwrap());
            assert_eq!(pad_found, pad(*id, round).as_bytes(), "key {id}");
            round
        })
    };
    ids.iter().enumerate().map(round).collect()
}

#[test]
fn rows_are_answered_before_they_are_in_memory_and_commands_touch_them_there() {
    let mut partition = filled();
    apply(&mut partition, &delete(0..100, 2));
    let (mut restored, reader) = restore(&whole(&partition));
    assert!(restored.is_cold());
    assert_eq!((restored.digest(), reader.rows()), (partition.digest(), ROWS as u64 - 100));
    assert_eq!(rounds(&reader, &[99, 100, 23_999, 24_000]), [None, Some(1), Some(1), None]);
    for each in [&mut partition, &mut restored] {
        apply(each, &write(100..200, 3));
        apply(each, &delete(200..300, 3));
        // Older than the tombstone, which is cold in one of them.
        apply(each, &write(0..10, 1));
    }
    assert_eq!(restored.digest(), partition.digest());
    assert_eq!(rounds(&reader, &[5, 100, 250, 300]), [None, Some(3), None, Some(1)]);
    restored.check();
    while restored.thaw(1_000).unwrap() {
        assert_eq!(rounds(&reader, &[5, 100, 250, 300, 23_999]), [None, Some(3), None, Some(1), Some(1)]);
    }
    restored.check();
    assert_eq!(whole(&restored), whole(&partition), "equal states give equal bytes");
    assert_eq!(rounds(&reader, &[5, 100, 250, 300, 23_999]), [None, Some(3), None, Some(1), Some(1)]);
}

#[test]
fn a_snapshot_of_a_partition_that_is_cold_in_part_is_that_of_one_that_is_not() {
    let mut partition = filled();
    let chunks = whole(&partition);
    let (mut restored, _) = restore(&chunks);
    for each in [&mut partition, &mut restored] {
        apply(each, &write((0..ROWS).step_by(97), 2));
        apply(each, &delete((0..ROWS).step_by(101), 3));
    }
    assert!(restored.thaw(ROWS as usize / 2 + 7).unwrap(), "a chunk has been begun, others not");
    let wanted = whole(&partition);
    let source = restored.snapshot();
    // What happens after it was begun is not in it.
    restored.thaw(usize::MAX).unwrap();
    apply(&mut restored, &write((0..ROWS).step_by(7), 4));
    let taken: Vec<_> = source.map(|part| part.unwrap().into_chunk().unwrap()).collect();
    assert_eq!(taken, wanted);
}

#[test]
fn chunks_whose_rows_have_not_changed_are_kept() {
    let mut partition = filled();
    let chunks = whole(&partition);
    let over = |partition: &Partition, chunks: &[Bytes]| {
        let base = SnapshotBase::read(&chunks[0], chunks.last().unwrap()).unwrap();
        let mut kept = 0;
        let parts = partition.snapshot_over(Some(&base)).map(|part| match part.unwrap() {
            SnapshotPart::Chunk(chunk) => chunk,
            SnapshotPart::Kept(place) => {
                kept += 1;
                chunks[place as usize].clone()
            }
        });
        let parts: Vec<_> = parts.collect();
        assert_eq!(parts, whole(partition), "what is kept is what would be written");
        kept
    };
    let of_rows = chunks.len() - 3;
    assert!(of_rows >= 4, "{of_rows} chunks of rows");
    assert_eq!(over(&partition, &chunks), of_rows, "nothing has changed");
    apply(&mut partition, &write(7..8, 2));
    assert_eq!(over(&partition, &chunks), of_rows - 1);
    let later = whole(&partition);
    assert_eq!(over(&partition, &later), of_rows);
    // What was restored knows what has not changed, whether its rows are in memory or not.
    let (mut restored, _) = restore(&later);
    assert_eq!(over(&restored, &later), of_rows);
    restored.thaw(usize::MAX).unwrap();
    apply(&mut restored, &write(9..10, 3));
    assert_eq!(over(&restored, &later), of_rows - 1);
    // A change of the schema changes the bytes of every row.
    let mut wider = group();
    wider.schema_version = 2;
    wider.features.push(stoa_protocol::Feature::new("late", FeatureType::Bool));
    apply(&mut restored, &Command::Define(wider));
    assert_eq!(over(&restored, &later), 0);
}

#[test]
fn a_flipped_bit_is_found_before_a_value_of_its_chunk_is_served() {
    let partition = filled();
    let chunks = whole(&partition);
    let at = chunks.len() / 2;
    let mut bytes = chunks[at].to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    let mut damaged = chunks.clone();
    damaged[at] = bytes.into();
    let (mut restored, reader) = restore(&damaged);
    let projection = Projection { group: FeatureGroupId(1), schema_version: 1, features: vec![0] };
    let (mut good, mut bad) = (0, 0);
    for id in 0..ROWS {
        let mut keys = KeyBlock::new();
        keys.push(&key(id));
        match reader.read(&projection, &keys, LogIndex(0)) {
            Ok(rows) => {
                good += 1;
                assert_eq!((rows.status(0), rows.value(0, 0)), (RowStatus::Found, Some(&1i64.to_le_bytes()[..])));
            }
            Err(error) => {
                bad += 1;
                assert_eq!(error.code, ErrorCode::ReplicaOut, "{error}");
            }
        }
    }
    assert!(bad > ROWS / 20 && good > ROWS / 2, "{good} and {bad}");
    let before = restored.digest();
    let outcome = restored.apply(LogIndex(restored.applied().0 + 1), &write(0..1_000, 2));
    assert_eq!(outcome, Outcome::Damaged(RestoreError::Damaged { chunk: at as u32 }));
    assert_eq!(restored.digest(), before, "nothing was applied");
    let error = loop {
        match restored.thaw(1_000) {
            Ok(more) => assert!(more),
            Err(error) => break error,
        }
    };
    assert_eq!(error, RestoreError::Damaged { chunk: at as u32 });
    assert!(restored.snapshot().any(|part| part.is_err()), "nobody takes a snapshot of it");
}

#[test]
fn readers_beside_the_thawing_see_every_row_all_the_time() {
    let (mut restored, reader) = restore(&whole(&filled()));
    let done = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for first in [0, 1] {
            let reader = reader.clone();
            scope.spawn(move || {
                let mut last = vec![1; ROWS as usize];
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for ids in (first..ROWS).step_by(61).collect::<Vec<_>>().chunks(100) {
                        for (id, round) in ids.iter().zip(rounds(&reader, ids)) {
                            let round = round.unwrap_or_else(|| panic!("key {id} was not found"));
                            assert!(round >= last[*id as usize], "key {id} went back to {round}");
                            last[*id as usize] = round;
                        }
                    }
                }
            });
        }
        let mut round = 2;
        while restored.thaw(200).unwrap() {
            apply(&mut restored, &write((round..ROWS).step_by(997), round));
            round += 1;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    restored.check();
}

#[test]
fn a_chunk_that_is_thawed_between_two_looks_hides_no_row() {
    let (mut partition, _) = Partition::new(StoreOptions::default());
    apply(&mut partition, &Command::Define(group()));
    apply(&mut partition, &write(0..64, 1));
    let (chunks, ids) = (whole(&partition), (0..64).collect::<Vec<_>>());
    for _ in 0..1_500 {
        let (mut restored, reader) = restore(&chunks);
        let (ids, done) = (&ids, std::sync::atomic::AtomicBool::new(false));
        let begun = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begun.wait();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(rounds(&reader, ids).iter().all(|round| *round == Some(1)));
                }
            });
            begun.wait();
            while restored.thaw(16).unwrap() {}
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

#[test]
fn keys_whose_hashes_begin_alike_are_told_apart() {
    let seed = 5;
    let mut seen = std::collections::BTreeMap::new();
    let upper = |id: i64| (xxhash_rust::xxh3::xxh3_64_with_seed(&key(id), seed) >> 32) as u32;
    let alike = (0..).find_map(|id| seen.insert(upper(id), id).map(|other| [other, id])).unwrap();
    for there in [&alike[..1], &alike[1..], &alike[..]] {
        let (mut partition, _) = Partition::new(StoreOptions { index_seed: seed, ..StoreOptions::default() });
        apply(&mut partition, &Command::Define(group()));
        apply(&mut partition, &write(there.iter().copied(), 1));
        let (mut restored, reader) = restore(&whole(&partition));
        let wanted = alike.map(|id| there.contains(&id).then_some(1));
        assert_eq!(rounds(&reader, &alike), wanted);
        assert!(!restored.thaw(usize::MAX).unwrap());
        assert_eq!(rounds(&reader, &alike), wanted);
    }
}

#[test]
fn rows_that_are_not_those_of_the_table_are_found_once_all_are_in_memory() {
    let chunks = whole(&filled());
    let mut table = chunks.last().unwrap().to_vec();
    // The first byte of the first range's digest: behind frame, digest of the state, number of groups, number of the group.
    table[24 + 16 + 4 + 8] ^= 1;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&table[..20]);
    hasher.update(&table[24..]);
    table[20..24].copy_from_slice(&hasher.finalize().to_le_bytes());
    let forged = [&chunks[..chunks.len() - 1], &[Bytes::from(table)]].concat();
    let (mut restored, _) = restore(&forged);
    let error = restored.thaw(usize::MAX).unwrap_err();
    assert!(matches!(&error, RestoreError::Digest { what } if what == "the rows of group 1"), "{error}");
}

#[test]
fn the_first_row_of_a_chunk_is_found_when_the_chunk_before_has_been_taken_in() {
    let chunks = whole(&filled());
    let rows = |chunk: &Bytes| u32::from_le_bytes(*chunk[24 + 8..].first_chunk().unwrap()) as usize;
    // The keys that stand first in each chunk of rows: behind frame, head and table, two bytes of length.
    let of_rows = &chunks[2..chunks.len() - 1];
    let first = |chunk: &Bytes| chunk[24 + 12 + rows(chunk) * 8 + 2..][..9].to_vec();
    let firsts: Vec<i64> = of_rows.iter().map(|chunk| (0..ROWS).find(|id| key(*id) == first(chunk)).unwrap()).collect();
    let (mut restored, reader) = restore(&chunks);
    let mut partition = filled();
    for (at, chunk) in of_rows.iter().enumerate() {
        assert!(rounds(&reader, &firsts).iter().all(Option::is_some), "before chunk {at} is taken in");
        let left = restored.thaw(rows(chunk)).unwrap();
        assert_eq!(left, at + 1 < of_rows.len(), "exactly a chunk was taken in");
        if let Some(next) = firsts.get(at + 1) {
            // Older than what is there, wherever it is.
            let older = write(std::iter::once(*next), 0);
            [&mut partition, &mut restored].into_iter().for_each(|each| apply(each, &older));
            assert_eq!(restored.digest(), partition.digest(), "after chunk {at}");
        }
    }
    restored.check();
}
