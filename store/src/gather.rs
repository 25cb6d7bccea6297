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
use crate::group_writer::NO_ROW;
use crate::index::{Directory, Segment, index_hash};
use crate::lane_plan::{EVENT_TIME_AT, FLAGS_AT, LanePlan};
use crate::lanes::prefetch::prefetch;
use crate::lanes::{Guard, Slot};
use crate::projector::{Patch, Projector};
use crate::row::RowBuffer;

/// Keys of a chunk: enough misses at once for any memory, few enough that their lanes stay in the first caches.
const CHUNK_KEYS: usize = 64;

/// Keys of one partition that are read together with those of others.
pub(crate) struct Target<'g> {
    pub group: &'g Group,
    pub directory: &'g Directory,
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

/// One key on its way.
struct Probe<'g> {
    target: usize,
    key: &'g [u8],
    hash: u64,
    segment: Option<&'g Segment>,
    /// A row of this key or, before it is copied, one that may be; [`NO_ROW`] if there is none.
    row: u32,
    /// Whether the index knows the key as deleted.
    deleted: bool,
    /// The row, where it has not been taken into memory yet.
    cold: Option<ColdRow<'g>>,
    /// Its place in the answer's block.
    to: usize,
}

impl Probe<'_> {
    fn is_found(&self) -> bool {
        self.row != NO_ROW || self.cold.is_some()
    }
}

/// Reads the keys of all targets, whose groups have the plan that the projector is for, into the rows of a block. What is
/// too large fails by itself: the answer is the errors, by target.
pub(crate) fn gather<'g>(
    targets: &'g [Target<'g>],
    projector: &Projector,
    block: &mut BlockWriter<'_>,
) -> Vec<(usize, ErrorBody)> {
    let mut chunk: Vec<Probe<'g>> = Vec::with_capacity(CHUNK_KEYS);
    let mut heap = Heap { target: usize::MAX, began_at: 0, failed: Vec::new() };
    let cold = targets.iter().any(|target| target.group.cold.is_some());
    let expires = targets.iter().any(|target| target.expiry.is_some());
    let mut run = |chunk: &mut Vec<Probe<'g>>| {
        fetch(targets, chunk, projector, block);
        if cold {
            look_into_cold(targets, chunk, projector, block, &mut heap);
        }
        if expires {
            expire(targets, chunk, block);
        }
        if !projector.references.is_empty() {
            heap.fill(targets, chunk, projector, block);
        }
        chunk.clear();
    };
    let all = targets
        .iter()
        .enumerate()
        .flat_map(|(target, of)| of.keys.iter().enumerate().map(move |(at, key)| (target, key, of.first_row + at)));
    for (target, key, to) in all {
        let hash = index_hash(targets[target].seed, key);
        targets[target].directory.prefetch(hash);
        chunk.push(Probe { target, key, hash, segment: None, row: NO_ROW, deleted: false, cold: None, to });
        if chunk.len() == CHUNK_KEYS {
            run(&mut chunk);
        }
    }
    run(&mut chunk);
    heap.failed
}

/// Finds the rows of a chunk, whose keys have been hashed, and copies what is wanted of them.
fn fetch<'g>(targets: &'g [Target<'g>], chunk: &mut [Probe<'g>], projector: &Projector, block: &mut BlockWriter<'_>) {
    for probe in chunk.iter_mut() {
        let target = &targets[probe.target];
        let segment = target.directory.segment(probe.hash, target.guard);
        prefetch(segment);
        probe.segment = Some(segment);
    }
    let segment = |probe: &Probe<'g>| probe.segment.expect("found above for every key");
    chunk.iter().for_each(|probe| segment(probe).prefetch(probe.hash));
    for probe in chunk.iter_mut() {
        // The first row with the tag of the key: nearly always the one.
        if let Some((_, row)) = segment(probe).find(probe.hash, |_| true) {
            probe.row = row;
            let lanes = &targets[probe.target].group.lanes;
            let (mut lane, mut slot) = (0, lanes[0].slot(row));
            for &(of, word) in &projector.near {
                if of != lane {
                    (lane, slot) = (of, lanes[of].slot(row));
                }
                slot.prefetch(word);
            }
        }
    }
    for probe in chunk.iter_mut().filter(|probe| probe.row != NO_ROW) {
        let Target { group, arena, .. } = &targets[probe.target];
        let mut head = group.lanes[0].slot(probe.row);
        if !group.is_key_of(head, probe.key, arena) {
            let found = segment(probe).find(probe.hash, |row| group.is_key(row, probe.key, arena));
            probe.row = found.map_or(NO_ROW, |(_, row)| row);
            if probe.row == NO_ROW {
                continue;
            }
            head = group.lanes[0].slot(probe.row);
        }
        if head.word(FLAGS_AT / 8) as u8 != 0 {
            (probe.row, probe.deleted) = (NO_ROW, true);
            continue;
        }
        copy(group, probe.row, head, projector, block.row_mut(probe.to));
    }
}

/// Marks the rows of a chunk that have expired, and takes their values back where the group does not hand them over. A pass
/// of its own over rows that have just been written: groups whose rows live for ever do without it.
fn expire(targets: &[Target<'_>], chunk: &mut [Probe<'_>], block: &mut BlockWriter<'_>) {
    for probe in chunk.iter_mut().filter(|probe| probe.is_found()) {
        let Some(Expiry { before, on_expired }) = targets[probe.target].expiry else { continue };
        let row = block.row_mut(probe.to);
        let event_time = i64::from_le_bytes(*row.first_chunk().expect("a row begins with it"));
        if event_time >= before {
            continue;
        }
        row[STATUS_AT] = RowStatus::Expired as u8;
        if on_expired == OnExpired::Expire {
            row[VALIDITY_AT..].fill(0);
            (probe.row, probe.cold) = (NO_ROW, None); // nothing of it goes into the heap
        }
    }
}

/// Looks for the keys that the indices do not know among the rows that have not been taken into memory.
fn look_into_cold<'g>(
    targets: &'g [Target<'g>],
    chunk: &mut [Probe<'g>],
    projector: &Projector,
    block: &mut BlockWriter<'_>,
    heap: &mut Heap,
) {
    let mut version = RowBuffer::default();
    for probe in chunk.iter_mut().filter(|probe| probe.row == NO_ROW && !probe.deleted) {
        let Target { group, arena, guard, .. } = &targets[probe.target];
        let Some(cold) = &group.cold else { continue };
        let looked = match cold.lookup(probe.hash, probe.key) {
            Ok(Lookup::Missing) => Ok(()),
            Ok(Lookup::Row(row)) if row.is_tombstone() => Ok(()),
            Ok(Lookup::Row(row)) => row.lay_out(&group.plan, &mut version).map_err(Into::into).map(|()| {
                copy_cold(&group.plan, &version, projector, block.row_mut(probe.to));
                probe.cold = Some(row);
            }),
            Ok(Lookup::Thawed) => {
                // The index was asked before its rows came there.
                let segment = group.index.directory(guard).segment(probe.hash, guard);
                let found = segment.find(probe.hash, |row| group.is_key(row, probe.key, arena));
                let found = found.map(|(_, row)| (row, group.lanes[0].slot(row)));
                if let Some((row, head)) = found.filter(|(_, head)| head.word(FLAGS_AT / 8) as u8 == 0) {
                    probe.row = row;
                    copy(group, row, head, projector, block.row_mut(probe.to));
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            let message = format!("the snapshot that this replica was started from: {error}");
            heap.failed.push((probe.target, ErrorBody::new(ErrorCode::ReplicaOut, message)));
        }
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
    let validity = &mut out[VALIDITY_AT..VALIDITY_AT + projector.mask.len()];
    validity.iter_mut().zip(&projector.mask).for_each(|(bits, mask)| *bits &= mask);
    if !projector.patches.is_empty() {
        patch(projector, out, |lane, from, bytes| {
            let from = plan.starts[lane] + from;
            bytes.copy_from_slice(&version.bytes[from..from + bytes.len()]);
        });
    }
}

/// Copies what is wanted of a row, whose part in lane 0 is `head`; places of variable values get the references that stand in
/// the lanes.
#[inline]
fn copy(group: &Group, row: u32, head: Slot<'_>, projector: &Projector, out: &mut [u8]) {
    out[..8].copy_from_slice(&head.word(EVENT_TIME_AT / 8).to_le_bytes());
    out[STATUS_AT] = RowStatus::Found as u8;
    let (mut lane, mut slot) = (0, head);
    for piece in &projector.pieces {
        if piece.lane != lane {
            (lane, slot) = (piece.lane, group.lanes[piece.lane].slot(row));
        }
        slot.copy(piece.from, &mut out[piece.to..piece.to + piece.bytes]);
    }
    let validity = &mut out[VALIDITY_AT..VALIDITY_AT + projector.mask.len()];
    validity.iter_mut().zip(&projector.mask).for_each(|(bits, mask)| *bits &= mask);
    if !projector.patches.is_empty() {
        patch(projector, out, |lane, from, bytes| group.lanes[lane].slot(row).copy(from, bytes));
    }
}

/// Fills in what a row has at the places of an earlier schema, and the defaults of what was never written; `read` reads the
/// bytes of the row from a byte of a lane on.
#[cold]
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
struct Heap {
    /// The target whose values are being added.
    target: usize,
    /// The bytes that were there before them.
    began_at: usize,
    failed: Vec<(usize, ErrorBody)>,
}

impl Heap {
    /// Adds the values of variable width of a chunk.
    fn fill(
        &mut self,
        targets: &[Target<'_>],
        chunk: &[Probe<'_>],
        projector: &Projector,
        block: &mut BlockWriter<'_>,
    ) {
        let there = || chunk.iter().filter(|probe| probe.is_found());
        for probe in there().filter(|probe| probe.cold.is_none()) {
            let row = block.row_mut(probe.to);
            let arena = targets[probe.target].arena;
            projector.references.iter().for_each(|&at| arena.prefetch(reference(&row[at..at + 8])));
        }
        for probe in there() {
            if probe.target != self.target {
                (self.target, self.began_at) = (probe.target, block.heap_bytes());
            }
            if self.failed.last().is_some_and(|(failed, _)| *failed == probe.target) {
                block.clear_rows(probe.to..probe.to + 1, block.heap_bytes());
                continue;
            }
            let target = &targets[probe.target];
            for &at in &projector.references {
                let reference = reference(&block.row_mut(probe.to)[at..at + 8]);
                // A null and an empty value are the reference 0, and the same in the answer.
                if reference.len() > 0 {
                    block.set_variable(probe.to, at, |heap| match &probe.cold {
                        Some(row) => heap.extend_from_slice(row.value(reference)),
                        None => target.arena.read(reference, heap),
                    });
                } else if reference == ArenaRef::DEFAULT {
                    block.set_variable(probe.to, at, |heap| heap.extend_from_slice(projector.default_at(at)));
                }
            }
            if let Err(error) = check_answer_bytes(block.heap_bytes()) {
                block.clear_rows(target.first_row..probe.to + 1, self.began_at);
                self.failed.push((probe.target, error));
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
