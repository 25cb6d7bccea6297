//! Taking a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use stoa_protocol::{LogIndex, Wire};

use super::chunk::{CHUNK_BYTES_TARGET, ChunkKind, seal};
use crate::Partition;
use crate::arena::Arena;
use crate::group::Group;
use crate::index::{Segment, index_hash};
use crate::lanes::LongGuard;
use crate::row::RowBuffer;

/// The state of a partition at one index, as an iterator of chunks in their order. The chunks are made as they are asked
/// for, on whatever thread. Equal states give equal bytes. Dropping it ends the snapshot.
pub struct SnapshotSource {
    applied: LogIndex,
    seed: u64,
    number: u32,
    /// Chunks that were made at once: they are small.
    head: VecDeque<(ChunkKind, Vec<u8>)>,
    groups: VecDeque<GroupRows>,
    trailer: Option<Vec<u8>>,
    rows: Vec<u64>,
    arena: Arc<Arena>,
    _guard: LongGuard,
    _token: Arc<()>,
}

/// What is left of a group.
struct GroupRows {
    group: Arc<Group>,
    segments: std::vec::IntoIter<Arc<Segment>>,
    /// The rows of the segment that has been begun: hash, key, row; last first.
    begun: Vec<(u64, Vec<u8>, u32)>,
    count: u64,
}

impl SnapshotSource {
    pub(crate) fn new(partition: &Partition) -> Self {
        let mut header = Vec::new();
        partition.space.seed.put(&mut header);
        partition.shared.incarnation.put(&mut header);
        0u32.put(&mut header);
        partition.applied.put(&mut header);
        partition.time_us.put(&mut header);
        partition.sessions.put(&mut header);
        let mut head = VecDeque::from([(ChunkKind::Header, header)]);
        head.extend(partition.groups().map(|group| (ChunkKind::Definition, group.to_bytes())));
        let digest = partition.digest();
        let mut trailer = Vec::new();
        digest.state.put(&mut trailer);
        (digest.groups.len() as u32).put(&mut trailer);
        for (id, group) in &digest.groups {
            id.put(&mut trailer);
            group.total().put(&mut trailer);
        }
        let groups = partition.groups.values().map(|writer| GroupRows {
            group: writer.group.clone(),
            segments: writer.index.segments().cloned().collect::<Vec<_>>().into_iter(),
            begun: Vec::new(),
            count: 0,
        });
        Self {
            applied: partition.applied,
            seed: partition.space.seed,
            number: 0,
            head,
            groups: groups.collect(),
            trailer: Some(trailer),
            rows: Vec::new(),
            arena: partition.space.arena.shared().clone(),
            _guard: partition.shared.epochs.pin_long(),
            _token: partition.space.begin_snapshot(),
        }
    }

    /// The index of the last command that the snapshot covers.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    fn next_payload(&mut self) -> Option<(ChunkKind, Vec<u8>)> {
        if let Some(chunk) = self.head.pop_front() {
            return Some(chunk);
        }
        while let Some(group) = self.groups.front_mut() {
            if let Some(payload) = group.next_payload(&self.arena, self.seed) {
                return Some((ChunkKind::Rows, payload));
            }
            self.rows.push(group.count);
            self.groups.pop_front();
        }
        let mut trailer = self.trailer.take()?;
        self.rows.iter().for_each(|count| count.put(&mut trailer));
        Some((ChunkKind::Trailer, trailer))
    }
}

impl Iterator for SnapshotSource {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (kind, payload) = self.next_payload()?;
        let chunk = seal(kind, self.number, &payload);
        self.number += 1;
        Some(chunk)
    }
}

impl GroupRows {
    fn next_payload(&mut self, arena: &Arena, seed: u64) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        let mut count = 0u32;
        let mut version = RowBuffer::default();
        self.group.definition.id.put(&mut payload);
        count.put(&mut payload);
        while payload.len() < CHUNK_BYTES_TARGET {
            let Some((_, key, row)) = self.next_row(arena, seed) else {
                break;
            };
            self.group.load(row, &mut version);
            put_row(&self.group, arena, &key, &version, &mut payload);
            count += 1;
        }
        self.count += u64::from(count);
        payload[8..12].copy_from_slice(&count.to_le_bytes());
        (count > 0).then_some(payload)
    }

    /// Rows by hash, then by key: segments stand in the order of their hashes, so each is sorted by itself.
    fn next_row(&mut self, arena: &Arena, seed: u64) -> Option<(u64, Vec<u8>, u32)> {
        while self.begun.is_empty() {
            let segment = self.segments.next()?;
            for row in segment.rows() {
                let mut key = Vec::new();
                self.group.key_of(row, arena, &mut key);
                self.begun.push((index_hash(seed, &key), key, row));
            }
            self.begun.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.begun.pop()
    }
}

fn put_row(group: &Group, arena: &Arena, key: &[u8], version: &RowBuffer, out: &mut Vec<u8>) {
    let plan = &group.plan;
    (key.len() as u16).put(out);
    out.extend_from_slice(key);
    version.event_time().put(out);
    version.sequence().put(out);
    if let Some(stamp_us) = version.tombstone(plan) {
        out.push(1);
        stamp_us.put(out);
        return;
    }
    out.push(0);
    let validity = out.len();
    out.resize(validity + plan.features.len().div_ceil(8) + plan.defaults.len().div_ceil(8), 0);
    let nulls = validity + plan.features.len().div_ceil(8);
    for (bit, (feature, _)) in plan.defaults.iter().enumerate() {
        let written = version.is_null(plan, &plan.features[usize::from(*feature)]);
        out[nulls + bit / 8] |= u8::from(written) << (bit % 8);
    }
    for (feature, place) in plan.features.iter().enumerate() {
        if !version.holds(plan, feature) {
            continue;
        }
        out[validity + feature / 8] |= 1 << (feature % 8);
        match version.reference(plan, place) {
            None => out.extend_from_slice(&version.fixed(plan, feature).expect("it holds one")),
            Some(reference) => {
                (reference.len() as u32).put(out);
                arena.read(reference, out);
            }
        }
    }
}
