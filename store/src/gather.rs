//! A multi-get, batch by batch: hash all keys, bring the places of their index near, find candidate rows, bring their
//! lanes near, compare keys, copy the pieces that were asked for into the rows of the answer. Every step runs over all keys
//! of a chunk before the next begins, so that cache misses overlap instead of queueing; a chunk goes over the borders of
//! partitions, which have a key or two each where a read is spread over many of them.

use stoa_protocol::key::KeyRange;
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::read::RowStatus;
use stoa_protocol::row_block::{BlockWriter, STATUS_AT, VALIDITY_AT};
use stoa_protocol::types::Width;
use stoa_protocol::widen::widen;
use stoa_protocol::{ErrorBody, ErrorCode, OnExpired};

use crate::arena::{Arena, ArenaRef};
use crate::cold::{ColdRow, Lookup};
use crate::group::{Group, reference};
use crate::index::{First, IndexView, Place, ProbeLine, Segment, index_hash};
use crate::lane_plan::{EVENT_TIME_AT, FLAGS_AT, LanePlan};
use crate::lanes::{Guard, Slab, Slot, copy_few};
use crate::projector::{Head, Near, Patch, Projector};
use crate::row::RowBuffer;

/// Keys of a chunk: enough misses at once for any memory, few enough that their lanes stay in the second cache. A bit of a
/// word for each.
const CHUNK_KEYS: usize = u128::BITS as usize;

/// Keys of one partition that are read together with those of others.
pub(crate) struct Target<'g> {
    pub group: &'g Group,
    /// The group's first lane.
    pub heads: &'g Slab,
    pub index: IndexView<'g>,
    pub arena: &'g Arena,
    pub guard: &'g Guard<'g>,
    pub seed: u64,
    pub keys: KeyRange<'g>,
    /// The place of its first row in the answer's block.
    pub first_row: usize,
    /// How its rows expire; `None` if they do not.
    pub expiry: Option<Expiry>,
}

/// How the rows of a group expire.
#[derive(Clone, Copy)]
pub(crate) struct Expiry {
    /// Rows whose event time is before this have expired.
    pub before: i64,
    pub on_expired: OnExpired,
}

/// One key on its way: a line of the cache and a bit, as each step goes over all of them.
struct Probe<'g> {
    of: &'g Target<'g>,
    key: &'g [u8],
    hash: u64,
    /// Its segment of the index.
    place: Place,
    /// Where its entry is, or the first part of the way to it.
    line: Option<ProbeLine<'g>>,
    /// The part in lane 0 of a row of this key or, before it is copied, of one that may be.
    head: Slot<'g>,
    /// The number of that row.
    row: u32,
    /// Its place in the answer's block.
    to: u32,
    found: Found,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing, or that there is no row.
    Nothing,
    /// That it was deleted.
    Deleted,
    /// A row in memory or, before it is copied, one that may be.
    Row,
    /// A row that has not been taken into memory yet.
    Cold,
}

impl<'g> Probe<'g> {
    #[inline]
    fn new(of: &'g Target<'g>, key: &'g [u8], to: usize) -> Self {
        let hash = index_hash(of.seed, key);
        let place = of.index.place(hash);
        Self { of, key, hash, place, line: None, head: Slot::EMPTY, row: 0, to: to as u32, found: Found::Nothing }
    }

    /// Its segment of the index.
    #[inline(always)]
    fn segment(&self) -> Segment<'g> {
        self.of.index.at(self.place)
    }

    #[inline(always)]
    fn line(&self) -> ProbeLine<'g> {
        self.line.expect("the second step finds it for all of a chunk")
    }

    /// Takes a row that may be of the key.
    #[inline]
    fn take(&mut self, row: u32) {
        (self.row, self.head, self.found) = (row, self.of.heads.slot(row), Found::Row);
    }

    fn to(&self) -> usize {
        self.to as usize
    }

    fn is_found(&self) -> bool {
        matches!(self.found, Found::Row | Found::Cold)
    }
}

/// What a read is made with besides its keys.
struct Run<'g, 'p> {
    targets: &'g [Target<'g>],
    projector: &'p Projector,
    /// Whether some rows may not have been taken into memory.
    cold: bool,
    /// Whether some rows expire.
    expires: bool,
}

/// Reads the keys of all targets, whose groups have the plan that the projector is for, into the rows of a block. What is
/// too large fails by itself: the answer is the errors, by target.
pub(crate) fn gather<'g>(
    targets: &'g [Target<'g>],
    projector: &Projector,
    block: &mut BlockWriter<'_>,
) -> Vec<(usize, ErrorBody)> {
    let keys = targets.iter().map(|target| target.keys.len()).sum::<usize>();
    let mut chunk: Vec<Probe<'g>> = Vec::with_capacity(keys.min(CHUNK_KEYS));
    let mut heap = Heap { target: std::ptr::null(), began_at: 0, failed: Vec::new() };
    let run = Run {
        targets,
        projector,
        cold: targets.iter().any(|target| target.group.cold.is_some()),
        expires: targets.iter().any(|target| target.expiry.is_some()),
    };
    for of in targets {
        for (to, key) in (of.first_row..).zip(of.keys.iter()) {
            chunk.push(Probe::new(of, key, to));
            if chunk.len() == CHUNK_KEYS {
                run.chunk(&mut chunk, block, &mut heap);
            }
        }
    }
    run.chunk(&mut chunk, block, &mut heap);
    heap.failed
}

impl<'g> Run<'g, '_> {
    /// Takes a chunk, whose keys have been hashed, to its end.
    fn chunk(&self, chunk: &mut Vec<Probe<'g>>, block: &mut BlockWriter<'_>, heap: &mut Heap<'g>) {
        fetch(chunk, self.projector, block);
        let mut cold = Vec::new();
        if self.cold {
            cold = self.look_into_cold(chunk, block, heap);
        }
        if self.expires {
            expire(chunk, block);
        }
        if !self.projector.references.is_empty() {
            self.fill_heap(chunk, &cold, block, heap);
        }
        chunk.clear();
    }

    /// The place of a target among all.
    fn number(&self, target: &Target<'g>) -> usize {
        self.targets.iter().position(|of| std::ptr::eq(of, target)).expect("a probe is of one of them")
    }
}

/// Finds the rows of a chunk, whose keys have been hashed, and copies what is wanted of them.
///
/// What asks for the lines of many keys is a loop of its own that does nothing else. An instruction that asks does not retire
/// before its address has been translated; beyond the reach of the translation caches that takes as long as memory does, and only what lies close
/// behind it in the program goes on meanwhile. So the more of them lie close together, the more wait at once.
fn fetch(chunk: &mut [Probe<'_>], projector: &Projector, block: &mut BlockWriter<'_>) {
    // A loop of its own, too: the directory of many rows does not fit the first cache, and its entries have come meanwhile.
    chunk.iter_mut().for_each(|probe| probe.line = Some(probe.segment().first_line(probe.hash)));
    chunk.iter().for_each(|probe| probe.line().prefetch());
    // The places of keys that may have more than one row, and of those whose first line is full and has none.
    let (mut several, mut behind): (u128, u128) = (0, 0);
    for (at, probe) in chunk.iter_mut().enumerate() {
        match probe.line().first(probe.hash) {
            // Nearly always the one, and nearly always the only one.
            First::Row(row, more) => {
                probe.take(row);
                several |= u128::from(more) << at;
            }
            First::Nothing => {}
            First::Behind => {
                probe.segment().second_line(probe.hash).prefetch();
                behind |= 1 << at;
            }
        }
    }
    while behind != 0 {
        take_behind(&mut chunk[behind.trailing_zeros() as usize]);
        behind &= behind - 1;
    }
    let (near, others) = projector.near.split_first().expect("the key is brought near");
    for probe in chunk.iter().filter(|probe| probe.found == Found::Row) {
        probe.head.prefetch(near.first, near.last);
    }
    if !others.is_empty() {
        for probe in chunk.iter().filter(|probe| probe.found == Found::Row) {
            bring_near(probe.of.group, probe.row, others);
        }
    }
    while several != 0 {
        let probe = &chunk[several.trailing_zeros() as usize];
        several &= several - 1;
        let rows = probe.line().candidates(probe.hash).filter(|row| *row != probe.row);
        rows.for_each(|row| bring_near(probe.of.group, row, &projector.near));
    }
    match projector.single() {
        // By far the most frequent, and all that the loop does besides comparing keys.
        Some(single) => for_each_row(chunk, block, |probe, out| {
            begin(projector.head, probe.head, out);
            single.run(probe.head, out);
        }),
        None => for_each_row(chunk, block, |probe, out| copy(probe.of.group, probe.row, probe.head, projector, out)),
    }
}

/// Finds out which of the rows that may be a key's are, and copies those, into their rows of the block.
#[inline(always)]
fn for_each_row<'g>(chunk: &mut [Probe<'g>], block: &mut BlockWriter<'_>, copy: impl Fn(&Probe<'g>, &mut [u8])) {
    for probe in chunk.iter_mut().filter(|probe| probe.found == Found::Row) {
        let Target { group, arena, .. } = probe.of;
        if !group.is_key_of(probe.head, probe.key, arena) && !find_behind(probe) {
            continue;
        }
        if probe.head.word(FLAGS_AT / 8) as u8 != 0 {
            probe.found = Found::Deleted;
            continue;
        }
        copy(probe, block.row_mut(probe.to()));
    }
}

/// Takes the first row that may be a key's from behind its first line, which is full.
fn take_behind(probe: &mut Probe<'_>) {
    if let Some((_, row)) = probe.segment().find(probe.hash, |_| true) {
        probe.take(row);
    }
}

/// Asks for these parts of a row to be brought near.
fn bring_near(group: &Group, row: u32, parts: &[Near]) {
    parts.iter().for_each(|near| group.lanes[near.lane].slot(row).prefetch(near.first, near.last));
}

/// Finds the row of a key among all entries that may be its.
#[cold]
fn find_behind(probe: &mut Probe<'_>) -> bool {
    let Target { group, arena, .. } = probe.of;
    let found = probe.segment().find(probe.hash, |row| group.is_key(row, probe.key, arena));
    match found {
        Some((_, row)) => probe.take(row),
        None => probe.found = Found::Nothing,
    }
    found.is_some()
}

/// Marks the rows of a chunk that have expired, and takes their values back where the group does not hand them over. A pass
/// of its own over rows that have just been written: groups whose rows live for ever do without it.
fn expire(chunk: &mut [Probe<'_>], block: &mut BlockWriter<'_>) {
    for probe in chunk.iter_mut().filter(|probe| probe.is_found()) {
        let Some(Expiry { before, on_expired }) = probe.of.expiry else { continue };
        let row = block.row_mut(probe.to());
        let event_time = i64::from_le_bytes(*row.first_chunk().expect("a row begins with it"));
        if event_time >= before {
            continue;
        }
        row[STATUS_AT] = RowStatus::Expired as u8;
        if on_expired == OnExpired::Expire {
            row[VALIDITY_AT..].fill(0);
            probe.found = Found::Nothing; // nothing of it goes into the heap
        }
    }
}

impl<'g> Run<'g, '_> {
    /// Looks for the keys that the indices do not know among the rows that have not been taken into memory. The answer is these
    /// rows, by the places of their keys in the chunk.
    fn look_into_cold(
        &self,
        chunk: &mut [Probe<'g>],
        block: &mut BlockWriter<'_>,
        heap: &mut Heap<'g>,
    ) -> Vec<Option<ColdRow<'g>>> {
        let mut rows: Vec<Option<ColdRow<'g>>> = chunk.iter().map(|_| None).collect();
        let mut version = RowBuffer::default();
        let projector = self.projector;
        for (probe, cold_row) in chunk.iter_mut().zip(&mut rows).filter(|(probe, _)| probe.found == Found::Nothing) {
            let Target { group, arena, guard, .. } = probe.of;
            let Some(cold) = &group.cold else { continue };
            let looked = match cold.lookup(probe.hash, probe.key) {
                Ok(Lookup::Missing) => Ok(()),
                Ok(Lookup::Row(row)) if row.is_tombstone() => Ok(()),
                Ok(Lookup::Row(row)) => row.lay_out(&group.plan, &mut version).map_err(Into::into).map(|()| {
                    copy_cold(&group.plan, &version, projector, block.row_mut(probe.to()));
                    (probe.found, *cold_row) = (Found::Cold, Some(row));
                }),
                Ok(Lookup::Thawed) => {
                    // The index was asked before its rows came there, and its directory may be another one by now.
                    let segment = group.index.view(guard).segment(probe.hash);
                    let found = segment.find(probe.hash, |row| group.is_key(row, probe.key, arena));
                    let found = found.map(|(_, row)| (row, group.lanes[0].slot(row)));
                    if let Some((row, head)) = found.filter(|(_, head)| head.word(FLAGS_AT / 8) as u8 == 0) {
                        probe.take(row);
                        copy(group, row, head, projector, block.row_mut(probe.to()));
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = looked {
                let message = format!("the snapshot that this replica was started from: {error}");
                heap.failed.push((self.number(probe.of), ErrorBody::new(ErrorCode::ReplicaOut, message)));
            }
        }
        rows
    }
}

/// [`copy`] of a row that was laid out from a chunk.
fn copy_cold(plan: &LanePlan, version: &RowBuffer, projector: &Projector, out: &mut [u8]) {
    out[..8].copy_from_slice(&version.event_time().to_le_bytes());
    out[STATUS_AT] = RowStatus::Found as u8;
    for piece in &projector.pieces {
        let from = plan.starts[piece.lane] + piece.from;
        out[piece.to..piece.to + piece.bytes].copy_from_slice(&version.bytes[from..from + piece.bytes]);
    }
    widen_narrow(projector, out, |lane, from, bytes| {
        let from = plan.starts[lane] + from;
        bytes.copy_from_slice(&version.bytes[from..from + bytes.len()]);
    });
    hide(projector, out);
    patch(projector, out, |lane, from, bytes| {
        let from = plan.starts[lane] + from;
        bytes.copy_from_slice(&version.bytes[from..from + bytes.len()]);
    });
}

/// Copies what is wanted of a row, whose part in lane 0 is `head`; places of variable values get the references that stand in
/// the lanes.
#[inline]
fn copy(group: &Group, row: u32, head: Slot<'_>, projector: &Projector, out: &mut [u8]) {
    begin(projector.head, head, out);
    for (lane, copies) in &projector.copies {
        let slot = if *lane == 0 { head } else { group.lanes[*lane].slot(row) };
        copies.run(slot, out);
    }
    if !projector.is_copied {
        finish(group, row, projector, out);
    }
}

/// Event time, status and the first validity bits of a row, whose part in lane 0 is `head`.
#[inline(always)]
fn begin(own: Head, head: Slot<'_>, out: &mut [u8]) {
    let (event_time, rest) = out.split_first_chunk_mut().expect("a row begins with it");
    *event_time = head.word(EVENT_TIME_AT / 8).to_le_bytes();
    // Status and validity bits, and zeros where values follow, which are written over these.
    let word = head.word(FLAGS_AT / 8) >> own.shift & own.mask;
    match rest.first_chunk_mut() {
        Some(eight) => *eight = word.to_le_bytes(),
        None => copy_few(rest, word),
    }
}

/// What is to be done with a row of which all has been copied that can be.
#[inline(never)]
fn finish(group: &Group, row: u32, projector: &Projector, out: &mut [u8]) {
    widen_narrow(projector, out, |lane, from, bytes| group.lanes[lane].slot(row).copy(from, bytes));
    hide(projector, out);
    patch(projector, out, |lane, from, bytes| group.lanes[lane].slot(row).copy(from, bytes));
}

/// Widens what lies in the lanes in a storage; `read` reads the bytes of the row from a byte of a lane on.
fn widen_narrow(projector: &Projector, out: &mut [u8], read: impl Fn(usize, usize, &mut [u8])) {
    for value in &projector.narrow {
        let to = &mut out[value.to..value.to + value.wide_bytes];
        value.storage.widen(to, |at, bytes| read(value.lane, value.from + at, bytes));
    }
}

/// Takes the validity bits of features away that were not asked for.
fn hide(projector: &Projector, out: &mut [u8]) {
    let validity = &mut out[VALIDITY_AT..VALIDITY_AT + projector.mask.len()];
    validity.iter_mut().zip(&projector.mask).for_each(|(bits, mask)| *bits &= mask);
}

/// Fills in what a row has at the places of an earlier schema, and the defaults of what was never written; `read` reads the
/// bytes of the row from a byte of a lane on.
fn patch(projector: &Projector, out: &mut [u8], read: impl Fn(usize, usize, &mut [u8])) {
    let has = |lane: usize, byte: usize, mask: u8| {
        let mut bits = [0];
        read(lane, byte, &mut bits);
        bits[0] & mask != 0
    };
    for Patch { ty, to, validity: (byte, bit), earlier, default } in &projector.patches {
        if out[*byte] & bit != 0 {
            continue;
        }
        let before = earlier.iter().find(|place| has(place.validity_lane, place.validity_byte, place.validity_mask));
        if let Some(place) = before {
            let mut bytes = [0; 8];
            read(place.lane, place.offset, &mut bytes[..place.width]);
            let wide = widen(place.ty, *ty, &bytes[..place.width]);
            out[*to..*to + wide.len()].copy_from_slice(&wide);
            out[*byte] |= bit;
        } else if let Some((_, value)) = default.as_ref().filter(|(null, _)| !has(null.lane, null.byte, null.mask)) {
            match ty.width() {
                Width::Fixed(width) => out[*to..*to + width].copy_from_slice(value),
                Width::Variable if value.is_empty() => {}
                Width::Variable => out[*to..*to + 8].copy_from_slice(&ArenaRef::DEFAULT.0.to_le_bytes()),
            }
            out[*byte] |= bit;
        }
    }
}

/// How far the heap of a block has come.
struct Heap<'g> {
    /// The target whose values are being added.
    target: *const Target<'g>,
    /// The bytes that were there before them.
    began_at: usize,
    failed: Vec<(usize, ErrorBody)>,
}

impl<'g> Run<'g, '_> {
    /// Adds the values of variable width of a chunk; those of rows that have not been taken into memory are in `cold`, if there
    /// are any.
    fn fill_heap(
        &self,
        chunk: &[Probe<'g>],
        cold: &[Option<ColdRow<'g>>],
        block: &mut BlockWriter<'_>,
        heap: &mut Heap<'g>,
    ) {
        let projector = self.projector;
        for probe in chunk.iter().filter(|probe| probe.found == Found::Row) {
            let row = block.row_mut(probe.to());
            projector.references.iter().for_each(|&at| probe.of.arena.prefetch(reference(&row[at..at + 8])));
        }
        for (at, probe) in chunk.iter().enumerate().filter(|(_, probe)| probe.is_found()) {
            if !std::ptr::eq(heap.target, probe.of) {
                (heap.target, heap.began_at) = (probe.of, block.heap_bytes());
            }
            let to = probe.to();
            if heap.failed.last().is_some_and(|(failed, _)| std::ptr::eq(&self.targets[*failed], probe.of)) {
                block.clear_rows(to..to + 1, block.heap_bytes());
                continue;
            }
            let cold_row = cold.get(at).and_then(Option::as_ref);
            for &at in &projector.references {
                let reference = reference(&block.row_mut(to)[at..at + 8]);
                // A null and an empty value are the reference 0, and the same in the answer.
                if reference.len() > 0 {
                    block.set_variable(to, at, |heap| match cold_row {
                        Some(row) => heap.extend_from_slice(row.value(reference)),
                        None => probe.of.arena.read(reference, heap),
                    });
                } else if reference == ArenaRef::DEFAULT {
                    block.set_variable(to, at, |heap| heap.extend_from_slice(projector.default_at(at)));
                }
            }
            if let Err(error) = check_answer_bytes(block.heap_bytes()) {
                block.clear_rows(probe.of.first_row..to + 1, heap.began_at);
                heap.failed.push((self.number(probe.of), error));
            }
        }
    }
}

/// An answer must fit a frame: what cannot is refused before its memory is taken.
pub(crate) fn check_answer_bytes(bytes: usize) -> Result<(), ErrorBody> {
    if bytes <= FRAME_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the answer has over {FRAME_BYTES_MAX} bytes: ask for fewer keys or features at a time");
    Err(ErrorBody::new(ErrorCode::TooLarge, message))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use stoa_protocol::key::{KeyBlock, encode_key};
    use stoa_protocol::read::Projection;
    use stoa_protocol::row_block::AnswerWriter;
    use stoa_protocol::{
        FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, RowBatchBuilder, Storage, Value,
    };

    use super::*;
    use crate::index::{IndexWriter, UNIT_ENTRIES_MAX};
    use crate::{Command, Partition, SnapshotPart, StoreOptions};

    #[test]
    fn rows_that_are_taken_in_under_a_directory_that_came_after_the_reader_are_found() {
        let definition = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("value", FeatureType::Int64)]);
        let (mut partition, _) = Partition::new(StoreOptions::default());
        partition.apply(LogIndex(1), &Command::Define(definition.clone()));
        let (mut keys, mut batch) = (KeyBlock::new(), RowBatchBuilder::new(&definition, &[0]));
        for id in 0..3_000 {
            let mut key = Vec::new();
            encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut key).unwrap();
            keys.push(&key);
            batch.upsert(&key, 1, 0, &[Value::Int(id)]).unwrap();
        }
        partition.apply(LogIndex(2), &Command::Write { stamp_us: 1, step: None, batch: batch.finish().unwrap() });
        let chunks: Vec<Bytes> =
            partition.snapshot().filter_map(|part| part.map(SnapshotPart::into_chunk).unwrap()).collect();
        let (mut restored, _) = Partition::restore(StoreOptions::default(), chunks).unwrap();
        let shared = restored.shared.clone();
        let guard = shared.epochs.pin(0);
        let group = &shared.groups.load(&guard)[&FeatureGroupId(1)];
        let index = group.index.view(&guard);
        // A reader that has come as far as this; then all rows are taken in, and the directory is replaced some times.
        while restored.thaw(100).unwrap() {}
        let keys = keys.range(0, keys.len());
        let (arena, seed) = (&*shared.arena, shared.seed);
        let heads = &group.lanes[0];
        let targets = [Target { group, heads, index, arena, guard: &guard, seed, keys, first_row: 0, expiry: None }];
        let projector = Projector::new(&group.plan, &[0]);
        let mut answer = AnswerWriter::new(1);
        let (_, mut block) = answer.block(&projector.layout, keys.len());
        assert!(gather(&targets, &projector, &mut block).is_empty());
        let missing = (0..keys.len()).filter(|row| block.row_mut(*row)[STATUS_AT] != RowStatus::Found as u8).count();
        assert_eq!(missing, 0);
        block.finish();
    }

    #[test]
    fn every_row_is_found_of_so_many_that_lines_of_the_index_are_full() {
        let definition = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("value", FeatureType::Int64)]);
        let (mut partition, reader) = Partition::new(StoreOptions::default());
        partition.apply(LogIndex(1), &Command::Define(definition.clone()));
        for part in 0..20 {
            let (mut keys, mut batch) = (KeyBlock::new(), RowBatchBuilder::new(&definition, &[0]));
            for id in part * 1_000..(part + 1) * 1_000 {
                let mut key = Vec::new();
                encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut key).unwrap();
                keys.push(&key);
                batch.upsert(&key, 1, 0, &[Value::Int(id)]).unwrap();
            }
            let index = LogIndex(partition.applied().0 + 1);
            partition.apply(index, &Command::Write { stamp_us: 1, step: None, batch: batch.finish().unwrap() });
            let projection = Projection { group: definition.id, schema_version: 1, features: vec![0] };
            let rows = reader.read(&projection, &keys, index).unwrap();
            let right = |at: &usize| rows.value(0, *at) == Some(&(part * 1_000 + *at as i64).to_le_bytes()[..]);
            assert_eq!((0..keys.len()).filter(right).count(), 1_000, "rows from {part} thousand on");
        }
    }

    fn any_feature() -> impl Strategy<Value = (FeatureType, Option<Storage>, bool)> {
        use FeatureType::*;
        let types = [Bool, Int16, Int32, Float32, Float32, Float64, String, FixedArray { items: 5 }];
        let storage = [None, None, Some(Storage::Float16), Some(Storage::Int8Scaled)];
        (prop::sample::select(types.to_vec()), prop::sample::select(storage.to_vec()), any::<bool>())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn a_row_in_memory_and_one_that_is_still_cold_look_the_same(
            features in prop::collection::vec(any_feature(), 1..90),
            asked in prop::collection::vec(any::<prop::sample::Index>(), 0..90),
            bytes in prop::collection::vec(any::<u8>(), 256),
            lane_bytes_max in prop::sample::select(vec![8, 64, 256]),
        ) {
            let names: Vec<_> = (0..features.len()).map(|at| format!("f{at}")).collect();
            let types: Vec<_> = names.iter().map(String::as_str).zip(features.iter().map(|(ty, ..)| *ty)).collect();
            let mut definition = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &types);
            for (feature, (ty, storage, default)) in definition.features.iter_mut().zip(&features) {
                feature.storage = storage.filter(|storage| storage.check_type(*ty).is_ok());
                if let (true, None, Width::Fixed(width)) = (*default, feature.storage, ty.width()) {
                    feature.default = Some(vec![1; width]);
                }
            }
            let order: Vec<usize> = (0..features.len()).collect();
            let index = IndexWriter::new(definition.id, UNIT_ENTRIES_MAX);
            let group = Group::new(definition, index.shared().clone(), lane_bytes_max, &order);
            let mut version = RowBuffer::default();
            version.clear(&group.plan);
            version.bytes.iter_mut().zip(bytes.iter().cycle()).for_each(|(to, from)| *to = *from);
            version.bytes[FLAGS_AT] = 0;
            group.lanes.iter().for_each(|lane| lane.reserve(3));
            group.store(3, &version);
            let mut asked: Vec<u16> = asked.iter().map(|at| at.index(features.len()) as u16).collect();
            asked.sort_unstable();
            asked.dedup();
            let projector = Projector::new(&group.plan, &asked);
            let mut answer = AnswerWriter::new(1);
            let (_, mut block) = answer.block(&projector.layout, 3);
            let empty = block.row_mut(2).to_vec();
            copy_cold(&group.plan, &version, &projector, block.row_mut(0));
            copy(&group, 3, group.lanes[0].slot(3), &projector, block.row_mut(1));
            let rows = [0, 1, 2].map(|row| block.row_mut(row).to_vec());
            prop_assert_eq!(&rows[0], &rows[1]);
            if let Some(single) = projector.single() {
                let mut row = empty.clone();
                begin(projector.head, group.lanes[0].slot(3), &mut row);
                single.run(group.lanes[0].slot(3), &mut row);
                prop_assert_eq!(&rows[1], &row);
            }
            prop_assert_eq!(&rows[2], &empty, "the row behind them is untouched");
        }
    }
}
