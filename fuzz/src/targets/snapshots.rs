//! `Partition::restore`: the chunks of a snapshot of a real partition, damaged as the input says. What restores is sound,
//! is written again to the same state, and takes commands.

use std::cell::LazyCell;

use bytes::Bytes;
use stoa_protocol::message::SessionStep;
use stoa_protocol::{FeatureGroup, LogIndex};
use stoa_store::{Command, Outcome, Partition, StoreOptions};

use super::Seed;
use crate::Input;
use crate::input::put_piece;
use crate::sample::{self, Row};
use crate::snapshot_bytes::{Chunk, DEFINITION, HEADER, ROWS, TRAILER, settle};

// What is done to the chunks before they are restored.
const SEALED: u8 = 1;
const SETTLED: u8 = 2;
const OWN: u8 = 4;

/// Changes of one input.
const CHANGES_MAX: usize = 16;

thread_local! {
    static SAMPLE: LazyCell<Vec<Vec<u8>>> = LazyCell::new(|| {
        let (partition, _) = sample::partition(options());
        whole(&partition).iter().map(|chunk| chunk.to_vec()).collect()
    });
}

fn options() -> StoreOptions {
    StoreOptions { index_seed: 5, incarnation: 3, ..StoreOptions::default() }
}

/// A byte of what is done, then changes of the sample's chunks, or chunks.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let done = input.byte();
    let chunks = match done & OWN {
        0 if done & (SEALED | SETTLED) == 0 => {
            let mut chunks = SAMPLE.with(|sample| (**sample).clone());
            change(&mut chunks, &mut input, |chunk| chunk);
            chunks
        }
        0 => {
            let mut chunks: Vec<_> = SAMPLE.with(|sample| sample.iter().map(|chunk| Chunk::open(chunk)).collect());
            change(&mut chunks, &mut input, |chunk| &mut chunk.payload);
            seal(chunks, done)
        }
        _ => {
            let mut chunks = Vec::new();
            while !input.is_empty() {
                chunks.push(Chunk { kind: u16::from(input.byte()), payload: input.piece().to_vec() });
            }
            seal(chunks, done)
        }
    };
    match Partition::restore(options(), chunks) {
        Ok((partition, _reader)) => restored(partition),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn seal(mut chunks: Vec<Chunk>, done: u8) -> Vec<Vec<u8>> {
    if done & SETTLED != 0 {
        settle(&mut chunks);
    }
    chunks.iter().map(Chunk::seal).collect()
}

/// Bytes are written over, put in and taken out; chunks change places, come twice, and go.
fn change<T: Clone>(chunks: &mut Vec<T>, input: &mut Input<'_>, bytes: impl Fn(&mut T) -> &mut Vec<u8>) {
    for _ in 0..CHANGES_MAX {
        if input.is_empty() || chunks.is_empty() {
            return;
        }
        let (what, at) = (input.below(7), input.below(chunks.len()));
        let place = usize::from(input.u16());
        let count = chunks.len();
        let chunk = bytes(&mut chunks[at]);
        let place = place % (chunk.len() + 1);
        match what {
            0 => {
                let with = input.piece();
                let end = chunk.len().min(place + with.len());
                chunk[place..end].copy_from_slice(&with[..end - place]);
            }
            1 => drop(chunk.splice(place..place, input.piece().iter().copied()).collect::<Vec<_>>()),
            2 => drop(chunk.drain(place..chunk.len().min(place + usize::from(input.byte())))),
            3 => chunk.truncate(place),
            4 => chunks.swap(at, place % count),
            5 => {
                let again = chunks[at].clone();
                chunks.insert(place % count, again);
            }
            _ => drop(chunks.remove(at)),
        }
    }
}

/// The chunks of a partition's snapshot.
fn whole(partition: &Partition) -> Vec<Bytes> {
    partition.snapshot().map(|part| part.expect("it is sound").into_chunk().expect("it has no base")).collect()
}

/// What the head and the table of a snapshot let through; its rows may be no good.
fn restored(mut partition: Partition) {
    let cold: Result<Vec<_>, _> = partition.snapshot().collect();
    let thawed = loop {
        match partition.thaw(3) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = thawed {
        return assert!(!error.to_string().is_empty());
    }
    partition.check();
    let chunks = whole(&partition);
    let cold = cold.map(|parts| parts.into_iter().filter_map(|part| part.into_chunk()).collect::<Vec<_>>());
    assert_eq!(cold.as_ref(), Ok(&chunks), "what was cold is written as what is in memory");
    let narrow = StoreOptions { lane_bytes_max: 64, ..options() };
    let (again, _) = Partition::restore(narrow, chunks.clone()).expect("what was just written");
    assert_eq!(again.digest(), partition.digest());
    assert_eq!(whole(&again), chunks, "equal state gives equal bytes");
    let mut settled: Vec<_> = chunks.iter().map(|chunk| Chunk::open(chunk)).collect();
    let before = settled.clone();
    assert_eq!((settle(&mut settled), &settled), (Some(()), &before), "the page says the same");
    go_on(&mut partition);
}

/// The log goes on: a writer session that is new, and rows of every group.
fn go_on(partition: &mut Partition) {
    let groups: Vec<FeatureGroup> = partition.groups().cloned().collect();
    for (group, session) in groups.iter().zip(1 << 90..) {
        let Some(index) = partition.applied().0.checked_add(1) else { return };
        let row = |key, values| Row { key, time: i64::MAX, sequence: u64::MAX, values };
        let features: Vec<u16> = (0..group.features.len() as u16).collect();
        let batch = sample::batch(group, &features, &[row(1, Some(7)), row(2, None), row(1, Some(8))]);
        let step = Some(SessionStep { session, sequence: 1 });
        let write = Command::Write { stamp_us: 0, step, batch: batch.expect("it has rows") };
        let outcome = partition.apply(LogIndex(index), &write);
        assert!(matches!(&outcome, Outcome::Wrote(answer) if answer.applied == 3), "{outcome:?}");
    }
    partition.check();
}

/// The sample as it is, as chunks of its own, and with changes of each kind.
pub fn seeds() -> Vec<Seed> {
    let chunks: Vec<_> = SAMPLE.with(|sample| sample.iter().map(|chunk| Chunk::open(chunk)).collect());
    let mut own = vec![OWN];
    for chunk in &chunks {
        own.push(chunk.kind as u8);
        put_piece(&chunk.payload, &mut own);
    }
    let kinds: Vec<_> = chunks.iter().map(|chunk| chunk.kind).collect();
    assert_eq!(kinds, [HEADER, DEFINITION, DEFINITION, ROWS, ROWS, TRAILER]);
    let settled = [&[OWN | SETTLED], &own[1..]].concat();
    let changed = |done: u8, what: u8, chunk: u8, place: u16, piece: &[u8]| {
        let mut seed = vec![done, what, chunk];
        seed.extend_from_slice(&place.to_le_bytes());
        put_piece(piece, &mut seed);
        seed
    };
    vec![
        ("whole", vec![]),
        ("own", own),
        ("settled", settled),
        ("damaged", changed(0, 0, 3, 60, b"x")),
        ("sealed", changed(SEALED, 0, 3, 60, b"x")),
        ("time", changed(SETTLED, 0, 3, 24, b"time")),
        ("longer", changed(SETTLED, 1, 0, 36, &[1; 40])),
        ("row", changed(SETTLED, 1, 3, 12, &[9, 0, 0x20, 0x80, 0, 0, 0, 0, 0, 0, 77])),
        ("shorter", changed(SETTLED, 2, 4, 12, &[])),
        ("moved", changed(SEALED, 4, 1, 2, &[])),
        ("twice", changed(SETTLED, 5, 3, 4, &[])),
        ("gone", changed(SETTLED, 6, 4, 0, &[])),
    ]
}
