//! What the lanes and the index promise to readers beside the writer, as models for loom: each is run in every order
//! that its threads can be scheduled in (the larger ones: with so many preemptions) and with every value that a load may
//! give by the memory model. `.ci/models` runs them, in a build of their own.
//!
//! A thing that readers look at has a [`Witness`]. The writer touches it when it fills the thing and when it uses it
//! again; loom fails if a look of a reader is not ordered after the one and before the other. So it is the order that
//! is checked, and not only which values came out of it.
//!
//! What loom 0.7.3 sees, and what it does not:
//!
//! - It has SeqCst fences, on which the epochs rest, and a model fails without either of the two. But a fence comes
//!   after an earlier one together with all that was done before that one, which is more than C++20 promises: there,
//!   two such fences order what they stand between on atomics alone. So a mistake could hide whose two sides both run
//!   a fence; the sides of publishing a row do not. loom takes SeqCst loads and stores for AcqRel; there are none
//!   here.
//! - It runs a fence at once with the access before it; that of [`super::sync`] is an access by itself.
//! - A load never gives a value that is stored later in the schedule (load buffering). That a relaxed word is
//!   overwritten too early in no other way than that is told by its witness.
//! - It knows the last seven values of an atomic; no atomic here is stored to more often while threads run.
//! - The `Arc`s, what a slab reaches its segments by, and the `Mutex` of the graveyard are those of std, which order more than
//!   loom is told of. So it is checked that a row can be read by what publishes its number, without their help. The end of a
//!   snapshot, which the writer sees in the count of an `Arc`, is not checked.
//!
//! There are two slots for readers here, a slab begins with two rows, and a segment has one line, which is full with seven
//! entries.
#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use loom::thread::{self, JoinHandle};
use stoa_protocol::FeatureGroupId;

use super::sync::{Ordering, prepare_fences};
use super::trash::Retired;
use super::{Dead, EpochCell, Epochs, LongGuard, Slab, Trash};
use crate::index::{Index, IndexWriter, Place, UNIT_ENTRIES_MAX};

mod partition;

/// Runs a model to its end; with `preemptions`, in those orders only that interrupt a running thread so often at most.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // LOOM_MAX_PREEMPTIONS goes before.
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        prepare_fences();
        model();
    });
    println!("{} runs", runs.load(Ordering::Relaxed));
}

/// Stands for memory that is looked at and used again.
struct Witness(UnsafeCell<()>);

// SAFETY: there is nothing in it to be shared; loom watches who comes by in which order.
unsafe impl Sync for Witness {}

impl Witness {
    fn new() -> Self {
        Self(UnsafeCell::new(()))
    }
    fn look(&self) {
        self.0.with(|_| ());
    }
    fn fill(&self) {
        self.0.with_mut(|_| ());
    }
}

/// What a cell holds.
struct Held {
    number: u32,
    witness: Witness,
}

fn held(number: u32) -> Arc<Held> {
    Arc::new(Held { number, witness: Witness::new() })
}

/// A cell and its writer, which uses again what comes back to it. The memory itself is kept to the end, so that a
/// mistake shows as a failure of the model.
struct CellWriter {
    cell: Arc<EpochCell<Held>>,
    trash: Trash,
    kept: Vec<Arc<Held>>,
}

impl CellWriter {
    fn new() -> (Arc<Epochs>, Self) {
        let (epochs, trash) = Epochs::new();
        (epochs, Self { cell: Arc::new(EpochCell::new(held(0))), trash, kept: Vec::new() })
    }

    fn replace(&mut self, number: u32) {
        self.cell.replace(held(number), size_of::<Held>(), &mut self.trash);
    }

    fn collect(&mut self) {
        self.trash.collect(|dead| {
            let Dead::Memory(retired) = dead else { unreachable!("the cell retires memory alone") };
            let value = retired.memory.downcast::<Held>().expect("the cell holds values");
            value.witness.fill();
            self.kept.push(value);
        });
    }

    /// Once all readers have left, all is used again.
    fn finish(&mut self) {
        self.collect();
        assert_eq!(self.trash.iter().count(), 0, "nobody is left that it could wait for");
    }
}

/// Follows the cell so many times, each in a stay of its own.
fn look(epochs: &Arc<Epochs>, cell: &Arc<EpochCell<Held>>, times: usize) -> JoinHandle<()> {
    let (epochs, cell) = (epochs.clone(), cell.clone());
    thread::spawn(move || {
        let mut last = 0;
        for _ in 0..times {
            let guard = epochs.pin(0);
            let value = cell.load(&guard);
            value.witness.look();
            assert!(value.number >= last, "a cell went back from {last} to {}", value.number);
            last = value.number;
        }
    })
}

#[test]
fn a_value_is_not_used_again_while_the_reader_that_follows_the_cell_looks_at_it() {
    explore(None, || {
        let (epochs, mut writer) = CellWriter::new();
        let reader = look(&epochs, &writer.cell, 2);
        writer.replace(1);
        writer.collect();
        writer.replace(2);
        writer.collect();
        reader.join().unwrap();
        writer.finish();
    });
}

#[test]
fn two_readers_that_want_one_slot_do_not_give_up_each_others_values() {
    explore(Some(3), || {
        let (epochs, mut writer) = CellWriter::new();
        let readers = [look(&epochs, &writer.cell, 1), look(&epochs, &writer.cell, 1)];
        writer.replace(1);
        writer.collect();
        writer.replace(2);
        writer.collect();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        writer.finish();
    });
}

/// Memory that is used again as soon as it is dropped.
struct Dropped(Arc<Witness>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fill();
    }
}

#[test]
fn what_waits_when_the_writer_goes_is_not_dropped_before_its_reader_has_left() {
    explore(None, || {
        let (epochs, mut trash) = Epochs::new();
        let (witness, linked) = (Arc::new(Witness::new()), Arc::new(AtomicBool::new(true)));
        let reader = thread::spawn({
            let (epochs, witness, linked) = (epochs.clone(), witness.clone(), linked.clone());
            move || {
                let _guard = epochs.pin(0);
                if linked.load(Ordering::Acquire) {
                    witness.look();
                }
            }
        });
        linked.store(false, Ordering::Release);
        trash.push(Dead::Memory(Box::new(Retired { memory: Arc::new(Dropped(witness)), bytes: 0 })));
        drop(trash);
        reader.join().unwrap();
        drop(epochs);
    });
}

/// No row has this number: it is what stands in an empty slot, and what a segment is filled with that is used again.
const NO_ROW: u32 = 0;
const ROWS: usize = 9;
/// The group whose rows these are.
const GROUP: FeatureGroupId = FeatureGroupId(1);

/// Rows that say whose they are, and the index over them; what readers have of a group.
struct Table {
    epochs: Arc<Epochs>,
    index: Arc<Index>,
    /// Two words to a row, both `entity * 100 + version`.
    rows: Slab,
    witnesses: [Witness; ROWS],
}

/// Entities that are both odd or both even have one hash, so that a reader comes across rows of others.
fn hash(entity: u64) -> u64 {
    entity << 63
}

impl Table {
    fn is(&self, row: u32, entity: u64) -> bool {
        assert_ne!(row, NO_ROW, "an entry before its row, or of a segment that is used again");
        self.witnesses[row as usize].look();
        self.rows.slot(row).word(0) / 100 == entity
    }

    /// What a row says, all of it.
    fn word(&self, row: u32) -> u64 {
        assert_ne!(row, NO_ROW, "an entry before its row, or of a segment that is used again");
        let mut out = [0; 16];
        self.rows.read(row, &mut out);
        let words = out.as_chunks::<8>().0;
        let [first, second] = [0, 1].map(|at| u64::from_le_bytes(words[at]));
        assert_eq!(first, second, "one row is of one version");
        self.witnesses[row as usize].look();
        first
    }

    /// The version of an entity that a row holds.
    fn version(&self, row: u32, entity: u64) -> u64 {
        let word = self.word(row);
        assert_eq!(word / 100, entity, "the row is of the entity that was asked for");
        word % 100
    }

    /// As a multi-get does it.
    fn read(&self, entity: u64) -> Option<u64> {
        let guard = self.epochs.pin(0);
        let segment = self.index.view(&guard).segment(hash(entity));
        let (_, row) = segment.find(hash(entity), |row| self.is(row, entity))?;
        Some(self.version(row, entity))
    }
}

/// The writer's half, as a group's writer does it.
struct TableWriter {
    table: Arc<Table>,
    index: IndexWriter,
    trash: Trash,
    next_row: u32,
    free_rows: Vec<u32>,
    /// Snapshots that have begun.
    snapshots: u64,
    /// Directories that were out of use, to the end: a mistake shows as a failure of the model.
    kept: Vec<Arc<dyn Any + Send + Sync>>,
}

impl TableWriter {
    fn new() -> Self {
        let (epochs, trash) = Epochs::new();
        let index = IndexWriter::new(GROUP, UNIT_ENTRIES_MAX);
        let witnesses = std::array::from_fn(|_| Witness::new());
        let table = Arc::new(Table { epochs, index: index.shared().clone(), rows: Slab::new(16), witnesses });
        Self { table, index, trash, next_row: NO_ROW + 1, free_rows: Vec::new(), snapshots: 0, kept: Vec::new() }
    }

    /// Writes a version of an entity into a free row and publishes that.
    fn write(&mut self, entity: u64, version: u64) {
        let table = self.table.clone();
        let found = self.index.find(hash(entity), |row| table.rows.slot(row).word(0) / 100 == entity);
        let row = self.free_rows.pop().unwrap_or_else(|| {
            let row = self.next_row;
            table.rows.reserve(row);
            self.next_row += 1;
            row
        });
        table.witnesses[row as usize].fill();
        table.rows.write(row, &[entity * 100 + version; 2].map(u64::to_le_bytes).concat());
        let Some(found) = found else {
            let rehash = |row| hash(table.rows.slot(row).word(0) / 100);
            self.index.insert(hash(entity), row, rehash, self.snapshots, self.snapshots, &mut self.trash);
            return;
        };
        self.index.replace(hash(entity), found, row, self.snapshots, self.snapshots, &mut self.trash);
        self.trash.push(Dead::Row(GROUP, found.row));
    }

    /// Takes rows and segments back. Segments are filled with what no reader may see before they are used again.
    fn collect(&mut self) {
        self.trash.collect(|dead| match dead {
            Dead::Row(_, row) => self.free_rows.push(row),
            Dead::Value(_) => unreachable!("there are no values of variable width"),
            Dead::Segment(_, place) => {
                self.index.spoil(place, NO_ROW);
                self.index.free(place);
            }
            Dead::Memory(retired) => self.kept.push(retired.memory),
        });
    }

    fn read(&self, times: usize, entity: u64) -> JoinHandle<()> {
        let table = self.table.clone();
        thread::spawn(move || {
            let mut last = None;
            for _ in 0..times {
                let seen = table.read(entity);
                assert!(seen >= last, "an entity went back from {last:?} to {seen:?}");
                last = seen;
            }
        })
    }

    fn finish(&mut self, readers: impl IntoIterator<Item = JoinHandle<()>>) {
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        self.collect();
        assert_eq!(self.trash.iter().count(), 0, "nobody is left that it could wait for");
    }
}

#[test]
fn a_reader_that_finds_an_inserted_row_sees_the_whole_of_it() {
    explore(Some(3), || {
        let mut writer = TableWriter::new();
        writer.write(2, 0);
        let readers = [writer.read(2, 4), writer.read(2, 6)];
        writer.write(4, 0);
        writer.write(6, 0);
        writer.finish(readers);
    });
}

#[test]
fn a_reader_sees_one_version_whole_and_none_before_it_again_while_rows_are_replaced_and_reused() {
    explore(None, || {
        let mut writer = TableWriter::new();
        writer.write(2, 0);
        let reader = writer.read(2, 2);
        writer.write(2, 1);
        writer.collect();
        writer.write(2, 2);
        writer.finish([reader]);
    });
}

#[test]
fn a_row_that_another_entity_takes_over_is_never_read_for_the_old_one() {
    explore(None, || {
        let mut writer = TableWriter::new();
        writer.write(2, 0);
        let reader = writer.read(2, 2);
        writer.write(2, 1);
        writer.collect();
        writer.write(4, 0);
        writer.collect();
        writer.write(2, 2);
        writer.finish([reader]);
    });
}

#[test]
fn a_reader_that_comes_late_and_one_that_stays_long_both_keep_their_rows() {
    explore(Some(3), || {
        let mut writer = TableWriter::new();
        writer.write(2, 0);
        let readers = [writer.read(1, 2), writer.read(1, 2)];
        writer.write(2, 1);
        writer.collect();
        writer.write(2, 2);
        writer.collect();
        writer.write(4, 0);
        writer.finish(readers);
    });
}

/// Reads the segments of a snapshot, whose only entity is 2 in version 0, and ends it.
fn read_snapshot(table: Arc<Table>, guard: LongGuard, segments: Vec<Place>) -> JoinHandle<()> {
    thread::spawn(move || {
        let rows: Vec<_> = segments.iter().flat_map(|place| table.index.rows(*place)).collect();
        let versions: Vec<_> = rows.into_iter().map(|row| table.is(row, 2).then(|| table.version(row, 2))).collect();
        assert_eq!(versions, [Some(0)], "the rows of the moment when the snapshot began");
        drop(guard);
    })
}

#[test]
fn a_snapshot_keeps_its_segment_and_a_reader_goes_from_it_to_the_copy() {
    explore(None, || {
        let mut writer = TableWriter::new();
        writer.write(2, 0);
        let segments = writer.index.places().collect();
        let snapshot = read_snapshot(writer.table.clone(), writer.table.epochs.pin_long(), segments);
        writer.snapshots += 1;
        let reader = writer.read(1, 2);
        writer.write(2, 1);
        writer.collect();
        writer.write(4, 0);
        writer.write(2, 2);
        writer.finish([snapshot, reader]);
    });
}

#[test]
fn a_segment_that_was_copied_for_a_snapshot_is_not_used_again_under_a_reader() {
    explore(None, || {
        let mut writer = TableWriter::new();
        writer.write(2, 0);
        writer.snapshots += 1;
        let reader = writer.read(2, 2);
        writer.write(2, 1);
        writer.collect();
        // The copy for the next one would be made where the first segment lay.
        writer.snapshots += 1;
        writer.write(2, 2);
        writer.finish([reader]);
    });
}

#[test]
fn a_row_is_found_all_the_time_while_its_segment_splits_and_the_directory_doubles() {
    explore(None, || {
        let mut writer = TableWriter::new();
        // Seven are all that a segment takes. Every entity has the row of its number.
        (1..8).for_each(|entity| writer.write(entity, 0));
        let table = writer.table.clone();
        let reader = thread::spawn(move || {
            (0..2).for_each(|_| assert_eq!(table.read(2), Some(0), "the entity was there all the time"));
        });
        writer.write(8, 0);
        writer.collect();
        writer.finish([reader]);
    });
}

#[test]
fn a_row_is_found_all_the_time_while_its_segment_merges_and_those_that_were_are_used_again() {
    explore(None, || {
        let mut writer = TableWriter::new();
        (1..9).for_each(|entity| writer.write(entity, 0));
        writer.collect();
        // One is left in each of the two segments.
        let table = writer.table.clone();
        let rehash = |row| hash(table.rows.slot(row).word(0) / 100);
        let mut gone: Vec<_> = (3..9).map(|row| (rehash(row), row)).collect();
        gone.sort_unstable();
        writer.index.remove(&gone, rehash, 0, &mut writer.trash);
        writer.collect();
        let reader = thread::spawn({
            let table = table.clone();
            move || (0..2).for_each(|_| assert_eq!(table.read(2), Some(0), "the entity was there all the time"))
        });
        writer.index.tidy(0, rehash, 0, &mut writer.trash);
        writer.collect();
        assert_eq!(writer.index.places().count(), 1);
        writer.finish([reader]);
    });
}

#[test]
fn a_walk_from_segment_to_segment_sees_whole_rows_while_they_are_inserted_and_replaced() {
    explore(Some(3), || {
        let mut writer = TableWriter::new();
        writer.write(2, 0);
        let table = writer.table.clone();
        let walk = thread::spawn(move || {
            let guard = table.epochs.pin(0);
            let (segment, last_hash) = table.index.view(&guard).segment_with_end(0);
            assert_eq!(last_hash, u64::MAX, "there is one segment");
            let seen: Vec<u64> = segment.rows().map(|row| table.word(row) / 100).collect();
            assert!(seen.contains(&2), "the entity was there all the time: {seen:?}");
        });
        writer.write(4, 0);
        writer.write(2, 1);
        writer.collect();
        writer.write(6, 0);
        writer.finish([walk]);
    });
}
