//! A multi-get, batch by batch: hash all keys, bring the places of their index near, find candidate rows, bring their
//! lanes near, compare keys, copy the pieces that were asked for into the rows of the answer. Every step runs over all keys
//! of a chunk before the next begins, so that cache misses overlap instead of queueing; a chunk goes over the borders of
//! partitions, which have a key or two each where a read is spread over many of them.

use stoa_protocol::key::KeyRange;
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::read::RowStatus;
use stoa_protocol::row_block::{BlockWriter, STATUS_AT, VALIDITY_AT};
use stoa_protocol::{ErrorBody, ErrorCode};

use crate::arena::Arena;
use crate::group::{Group, reference};
use crate::index::{IndexView, Reached, index_hash};
use crate::lane_plan::{EVENT_TIME_AT, FLAGS_AT};
use crate::lanes::Slot;
use crate::projector::Projector;

/// Keys of a chunk: enough misses at once for any memory, few enough that their lanes stay in the first caches.
const CHUNK_KEYS: usize = 64;

/// Keys of one partition that are read together with those of others.
pub(crate) struct Target<'g> {
    pub group: &'g Group,
    pub index: IndexView<'g>,
    pub arena: &'g Arena,
    pub seed: u64,
    pub keys: KeyRange<'g>,
    /// The place of its first row in the answer's block.
    pub first_row: usize,
}

/// One key on its way.
struct Probe<'g> {
    of: &'g Target<'g>,
    target: usize,
    key: &'g [u8],
    hash: u64,
    /// Its place in the answer's block.
    to: usize,
    /// Where its entry of the index is, if there is one.
    reached: Option<Reached<'g>>,
    /// A row of this key or, before it is copied, one that may be, and the row in lane 0.
    row: Option<(u32, Slot<'g>)>,
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
    let mut heap = Heap { target: usize::MAX, began_at: 0, failed: Vec::new() };
    for (target, of) in targets.iter().enumerate() {
        for (at, key) in of.keys.iter().enumerate() {
            let hash = index_hash(of.seed, key);
            of.index.prefetch(hash);
            chunk.push(Probe { of, target, key, hash, to: of.first_row + at, reached: None, row: None });
            if chunk.len() == CHUNK_KEYS {
                run(&mut chunk, projector, block, &mut heap);
            }
        }
    }
    run(&mut chunk, projector, block, &mut heap);
    heap.failed
}

/// Takes a chunk, whose keys have been hashed, to its end.
fn run(chunk: &mut Vec<Probe<'_>>, projector: &Projector, block: &mut BlockWriter<'_>, heap: &mut Heap) {
    for probe in chunk.iter_mut() {
        probe.reached = Some(probe.of.index.segment(probe.hash).reach(probe.hash));
    }
    for probe in chunk.iter_mut() {
        // The first row with the tag of the key: nearly always the one.
        let Some(row) = probe.reached.and_then(Reached::first) else { continue };
        let lanes = &probe.of.group.lanes;
        let head = lanes[0].slot(row);
        probe.row = Some((row, head));
        for near in &projector.near {
            let slot = if near.lane == 0 { head } else { lanes[near.lane].slot(row) };
            slot.prefetch(near.first, near.last);
        }
    }
    for probe in chunk.iter_mut() {
        let Some((mut row, mut head)) = probe.row.take() else { continue };
        let Target { group, arena, .. } = probe.of;
        if !group.is_key_of(head, probe.key, arena) {
            let is = |row| group.is_key(row, probe.key, arena);
            let Some(found) = probe.reached.and_then(|reached| reached.find(is)) else { continue };
            (row, head) = (found, group.lanes[0].slot(found));
        }
        if head.word(FLAGS_AT / 8) as u8 != 0 {
            continue; // deleted
        }
        probe.row = Some((row, head));
        copy(group, row, head, projector, block.row_mut(probe.to));
    }
    if !projector.references.is_empty() {
        heap.fill(chunk, projector, block);
    }
    chunk.clear();
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
    if projector.hides {
        let validity = &mut out[VALIDITY_AT..VALIDITY_AT + projector.mask.len()];
        validity.iter_mut().zip(&projector.mask).for_each(|(bits, mask)| *bits &= mask);
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
    fn fill(&mut self, chunk: &[Probe<'_>], projector: &Projector, block: &mut BlockWriter<'_>) {
        let there = || chunk.iter().filter(|probe| probe.row.is_some());
        for probe in there() {
            let row = block.row_mut(probe.to);
            projector.references.iter().for_each(|&at| probe.of.arena.prefetch(reference(&row[at..at + 8])));
        }
        for probe in there() {
            if probe.target != self.target {
                (self.target, self.began_at) = (probe.target, block.heap_bytes());
            }
            if self.failed.last().is_some_and(|(failed, _)| *failed == probe.target) {
                block.clear_rows(probe.to..probe.to + 1, block.heap_bytes());
                continue;
            }
            for &at in &projector.references {
                let reference = reference(&block.row_mut(probe.to)[at..at + 8]);
                // A null and an empty value are the reference 0, and the same in the answer.
                if reference.len() > 0 {
                    block.set_variable(probe.to, at, |heap| probe.of.arena.read(reference, heap));
                }
            }
            if let Err(error) = check_answer_bytes(block.heap_bytes()) {
                block.clear_rows(probe.of.first_row..probe.to + 1, self.began_at);
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
