//! Taking a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use stoa_protocol::{LogIndex, Wire};

use super::chunk::{CHUNK_BYTES_CLOSED, ChunkKind, crc_of, seal};
use super::header::put_header;
use super::restore::RestoreError;
use super::rows::{SortedRows, Wanted};
use super::table::{ChunkEntry, GroupTable, SnapshotBase, Table};
use crate::Partition;
use crate::changes::range;
use crate::cold::ENTRY_BYTES;
use crate::lanes::LongGuard;
use crate::row::RowBuffer;

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotPart {
    /// A chunk.
    Chunk(Bytes),
    /// The chunk at this place of the base: its rows have not changed since.
    Kept(u32),
}

impl SnapshotPart {
    /// The chunk, of a snapshot that has no base.
    pub fn into_chunk(self) -> Option<Bytes> {
        match self {
            Self::Chunk(bytes) => Some(bytes),
            Self::Kept(_) => None,
        }
    }
}

/// The state of a partition at one index, as an iterator of its pieces in their order. They are made as they are asked for, on
/// whatever thread. Equal states give equal chunks, whether kept or made. Dropping it ends the snapshot.
///
/// An error says that rows which still lie in the snapshot that the partition was restored from are damaged; nothing comes after
/// it.
pub struct SnapshotSource {
    applied: LogIndex,
    /// Chunks that were made at once: they are small.
    head: VecDeque<Bytes>,
    groups: VecDeque<GroupPieces>,
    /// The table, as far as it goes; `None` after the end.
    table: Option<Table>,
    _guard: LongGuard,
    _token: Arc<()>,
}

/// What is left of a group.
struct GroupPieces {
    rows: SortedRows,
    table: GroupTable,
    /// The ranges whose chunks are kept, and these chunks with their places, next first.
    kept: Vec<bool>,
    kept_chunks: VecDeque<(u32, ChunkEntry)>,
    /// The range that is being written.
    range: usize,
}

impl SnapshotSource {
    pub(crate) fn new(partition: &Partition, base: Option<&SnapshotBase>) -> Self {
        let place = (partition.applied, partition.time_us);
        let header = put_header(partition.space.seed, partition.shared.incarnation, place, &partition.sessions);
        let mut head = VecDeque::from([seal(ChunkKind::Header, &header)]);
        head.extend(partition.groups().map(|group| seal(ChunkKind::Definition, &group.to_bytes())));
        let fits = |base: &&SnapshotBase| base.seed == partition.space.seed && base.applied <= partition.applied;
        let base = base.filter(fits);
        let groups = partition.groups.values().map(|writer| {
            let segments = writer.index.places().map(|place| (place, writer.index.depth(place))).collect();
            let arena = partition.space.arena.shared().clone();
            let rows = SortedRows::new(writer.group.clone(), arena, partition.space.seed, segments);
            let table = writer.table();
            let mut pieces = GroupPieces {
                rows,
                kept: vec![false; 1 << table.depth],
                kept_chunks: VecDeque::new(),
                table,
                range: 0,
            };
            if let Some(base) = base {
                pieces.keep(base, |depth, range| writer.changes.last(depth, range));
            }
            pieces
        });
        Self {
            applied: partition.applied,
            head,
            groups: groups.collect(),
            table: Some(Table { state: partition.digest().state, groups: Vec::new() }),
            _guard: partition.shared.epochs.pin_long(),
            _token: partition.space.begin_snapshot(),
        }
    }

    /// The index of the last command that the snapshot covers.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    fn next_part(&mut self) -> Result<Option<SnapshotPart>, RestoreError> {
        if let Some(chunk) = self.head.pop_front() {
            return Ok(Some(SnapshotPart::Chunk(chunk)));
        }
        while let Some(group) = self.groups.front_mut() {
            if let Some(part) = group.next_part()? {
                return Ok(Some(part));
            }
            let done = self.groups.pop_front().expect("it is the first");
            self.table.as_mut().expect("it is written last").groups.push(done.table);
        }
        let Some(table) = self.table.take() else { return Ok(None) };
        let mut trailer = Vec::new();
        table.put(&mut trailer);
        Ok(Some(SnapshotPart::Chunk(seal(ChunkKind::Trailer, &trailer))))
    }
}

impl Iterator for SnapshotSource {
    type Item = Result<SnapshotPart, RestoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_part();
        if next.is_err() {
            self.groups.clear();
            self.table = None;
        }
        next.transpose()
    }
}

impl GroupPieces {
    /// Keeps the chunks of the ranges that `changed` says have not changed since the base.
    fn keep(&mut self, base: &SnapshotBase, changed: impl Fn(u32, usize) -> LogIndex) {
        let depth = self.table.depth;
        let Some((table, first)) = base.group(self.table.id).filter(|(table, _)| table.depth == depth) else { return };
        for (range, kept) in self.kept.iter_mut().enumerate() {
            *kept = changed(depth, range) <= base.applied;
        }
        let places = (first..).zip(table.chunks.iter().copied());
        self.kept_chunks = places.filter(|(_, chunk)| self.kept[range(chunk.first_hash, depth)]).collect();
    }

    fn next_part(&mut self) -> Result<Option<SnapshotPart>, RestoreError> {
        while self.range < self.kept.len() {
            if self.kept[self.range] {
                let here = |(_, chunk): &(u32, ChunkEntry)| range(chunk.first_hash, self.table.depth) == self.range;
                if self.kept_chunks.front().is_some_and(here) {
                    let (place, chunk) = self.kept_chunks.pop_front().expect("it was looked at");
                    self.table.chunks.push(chunk);
                    return Ok(Some(SnapshotPart::Kept(place)));
                }
            } else if let Some(chunk) = self.next_chunk()? {
                return Ok(Some(SnapshotPart::Chunk(chunk)));
            }
            self.range += 1;
        }
        Ok(None)
    }

    /// The next chunk of the range, if it has rows left.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, RestoreError> {
        let wanted = Wanted { depth: self.table.depth, kept: &self.kept };
        let (mut entries, mut rows, mut version) = (Vec::new(), Vec::new(), RowBuffer::default());
        while rows.len() < CHUNK_BYTES_CLOSED {
            let Some(entry) = self.rows.put_next(&wanted, self.range, &mut version, &mut rows)? else { break };
            entries.push(entry);
        }
        let Some(&(first_hash, _)) = entries.first() else { return Ok(None) };
        let mut payload = Vec::with_capacity(12 + entries.len() * ENTRY_BYTES + rows.len());
        self.rows.group().definition.id.put(&mut payload);
        (entries.len() as u32).put(&mut payload);
        let rows_at = payload.len() + entries.len() * ENTRY_BYTES;
        for &(hash, at) in &entries {
            ((hash >> 32) as u32).put(&mut payload);
            ((rows_at + at) as u32).put(&mut payload);
        }
        payload.extend_from_slice(&rows);
        let chunk = seal(ChunkKind::Rows, &payload);
        self.table.chunks.push(ChunkEntry { first_hash, rows: entries.len() as u32, crc: crc_of(&chunk) });
        Ok(Some(chunk))
    }
}
