//! Chunks of a snapshot by docs/storage-snapshot.md, written a second time here: so that damage gets past checksums, the
//! order of rows and the digest, and so that the page and the code are held against each other.

use std::collections::BTreeMap;

use stoa_protocol::key::{key_prefix, partition_hash};
use stoa_protocol::limits::SET_PARTITIONS_MAX;
use stoa_protocol::widen::narrowest;
use stoa_protocol::{FeatureGroup, FeatureGroupId, Reader, Width, Wire};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

const MAGIC: &[u8; 4] = b"SSN1";
const VERSION: u16 = 2;
const ENTRY_BYTES: usize = 8;
const RANGES: usize = 64;
/// The first bits of the partition hash say which partition it is, the next six which range.
const RANGE_SHIFT: u32 = 64 - SET_PARTITIONS_MAX.ilog2() - RANGES.ilog2();
const HEAD_BYTES: usize = 24;
const HEADER_BYTES: usize = 32;
const SESSION_BYTES: usize = 40;

/// The kind of a chunk of the header.
pub const HEADER: u16 = 1;
/// The kind of a chunk of a definition.
pub const DEFINITION: u16 = 2;
/// The kind of a chunk of rows.
pub const ROWS: u16 = 3;
/// The kind of the last chunk.
pub const TRAILER: u16 = 4;

/// What a chunk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What it holds.
    pub kind: u16,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Chunk {
    /// What a sound chunk says.
    pub fn open(bytes: &[u8]) -> Self {
        let kind = u16::from_le_bytes([bytes[6], bytes[7]]);
        Self { kind, payload: bytes[HEAD_BYTES..].to_vec() }
    }

    /// The chunk's bytes.
    pub fn seal(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        VERSION.put(&mut out);
        self.kind.put(&mut out);
        0u32.put(&mut out);
        (self.payload.len() as u32).put(&mut out);
        0u32.put(&mut out);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&out);
        hasher.update(&self.payload);
        hasher.finalize().put(&mut out);
        out.extend_from_slice(&self.payload);
        out
    }
}

/// A row: its key, and all that stands behind it.
struct Row<'a> {
    key: &'a [u8],
    rest: &'a [u8],
    digest: u128,
    tombstone: bool,
    /// Bytes of its key and its values of variable width.
    variable: usize,
}

/// What the table says of a group.
struct Total {
    ranges: [u128; RANGES],
    rows: u64,
    tombstones: u64,
    variable: u64,
    /// First hash, rows and checksum of each chunk.
    chunks: Vec<(u64, u32, u32)>,
}

/// Puts rows into their order and gives the table the digests of what is there. `None`, and nothing done, if the chunks
/// cannot be read. All ranges are one.
pub fn settle(chunks: &mut [Chunk]) -> Option<()> {
    let header = chunks.iter().find(|chunk| chunk.kind == HEADER)?;
    let seed = u64::from_le_bytes(header.payload.get(..8)?.try_into().ok()?);
    let time: [u8; 8] = header.payload.get(24..HEADER_BYTES)?.try_into().ok()?;
    let sessions = sum(header.payload.get(HEADER_BYTES + 4..)?.chunks(SESSION_BYTES).map(xxh3_128));
    let definitions = chunks.iter().filter(|chunk| chunk.kind == DEFINITION);
    let definitions: Option<Vec<_>> = definitions.map(|chunk| FeatureGroup::from_bytes(&chunk.payload).ok()).collect();
    let definitions: BTreeMap<_, _> = definitions?.into_iter().map(|group| (group.id, group)).collect();
    let none = || Total { ranges: [0; RANGES], rows: 0, tombstones: 0, variable: 0, chunks: Vec::new() };
    let mut totals: BTreeMap<_, Total> = definitions.keys().map(|id| (*id, none())).collect();

    let mut sorted = Vec::new();
    for (at, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| chunk.kind == ROWS) {
        let mut input = Reader::new(&chunk.payload);
        let id = FeatureGroupId::get(&mut input).ok()?;
        let count = u32::get(&mut input).ok()? as usize;
        input.take(count.checked_mul(ENTRY_BYTES)?, "the table of rows").ok()?;
        let group = definitions.get(&id)?;
        let mut rows = Vec::new();
        while input.left() > 0 {
            rows.push(row(&chunk.payload, &mut input, group)?);
        }
        let hash = |row: &Row<'_>| xxh3_64_with_seed(row.key, seed);
        rows.sort_by_cached_key(|row| (hash(row), row.key.to_vec()));
        let total = totals.get_mut(&id)?;
        rows.iter().for_each(|row| total.add(row, group));
        let chunk = Chunk { kind: ROWS, payload: rows_payload(id, &rows, hash) };
        let crc = u32::from_le_bytes(*chunk.seal()[HEAD_BYTES - 4..].first_chunk()?);
        total.chunks.push((rows.first().map_or(0, hash), rows.len() as u32, crc));
        sorted.push((at, chunk));
    }
    let table = table(sessions, sum(definitions.values().map(|group| xxh3_128(&group.to_bytes()))), time, &totals);
    sorted.into_iter().for_each(|(at, chunk)| chunks[at] = chunk);
    chunks.iter_mut().filter(|chunk| chunk.kind == TRAILER).for_each(|chunk| chunk.payload.clone_from(&table));
    Some(())
}

impl Total {
    fn add(&mut self, row: &Row<'_>, group: &FeatureGroup) {
        let types = group.entity.key_types();
        let prefix = key_prefix(&types, row.key, usize::from(group.entity.partition_by)).unwrap_or(row.key);
        let range = &mut self.ranges[(partition_hash(prefix) >> RANGE_SHIFT) as usize % RANGES];
        *range = range.wrapping_add(row.digest);
        let count = if row.tombstone { &mut self.tombstones } else { &mut self.rows };
        *count += 1;
        self.variable += row.variable as u64;
    }
}

fn rows_payload(id: FeatureGroupId, rows: &[Row<'_>], hash: impl Fn(&Row<'_>) -> u64) -> Vec<u8> {
    let mut payload = id.to_bytes();
    (rows.len() as u32).put(&mut payload);
    let mut begins = payload.len() + rows.len() * ENTRY_BYTES;
    for row in rows {
        ((hash(row) >> 32) as u32).put(&mut payload);
        (begins as u32).put(&mut payload);
        begins += 2 + row.key.len() + row.rest.len();
    }
    for row in rows {
        (row.key.len() as u16).put(&mut payload);
        payload.extend_from_slice(row.key);
        payload.extend_from_slice(row.rest);
    }
    payload
}

fn sum(digests: impl Iterator<Item = u128>) -> u128 {
    digests.fold(0, u128::wrapping_add)
}

/// The digest of the state is XXH3-128 over the sums of sessions and definitions and the partition time.
fn table(sessions: u128, definitions: u128, time: [u8; 8], totals: &BTreeMap<FeatureGroupId, Total>) -> Vec<u8> {
    let mut state = Vec::new();
    sessions.put(&mut state);
    definitions.put(&mut state);
    state.extend_from_slice(&time);
    let mut out = Vec::new();
    xxh3_128(&state).put(&mut out);
    (totals.len() as u32).put(&mut out);
    for (id, total) in totals {
        id.put(&mut out);
        total.ranges.iter().for_each(|range| range.put(&mut out));
        [total.rows, total.tombstones, total.variable].iter().for_each(|count| count.put(&mut out));
        0u32.put(&mut out);
        (total.chunks.len() as u32).put(&mut out);
        for (first_hash, rows, crc) in &total.chunks {
            first_hash.put(&mut out);
            rows.put(&mut out);
            crc.put(&mut out);
        }
    }
    out
}

fn row<'a>(payload: &'a [u8], input: &mut Reader<'a>, group: &FeatureGroup) -> Option<Row<'a>> {
    let length = u16::get(input).ok()?;
    let key = input.take(usize::from(length), "a key").ok()?;
    let start = input.position();
    let event = input.take(16, "event time and sequence").ok()?;
    let mut hashed = group.id.to_bytes();
    (key.len() as u32).put(&mut hashed);
    hashed.extend_from_slice(key);
    hashed.extend_from_slice(event);
    let tombstone = u8::get(input).ok()?;
    hashed.push(tombstone);
    let mut variable = key.len();
    if tombstone == 1 {
        hashed.extend_from_slice(input.take(8, "a stamp").ok()?);
    } else {
        let validity = input.take(group.features.len().div_ceil(8), "validity").ok()?;
        let defaults = group.features.iter().filter(|feature| feature.default.is_some()).count();
        let nulls = input.take(defaults.div_ceil(8), "written nulls").ok()?;
        let mut null = 0;
        for (place, feature) in group.features.iter().enumerate() {
            let is_null = feature.default.is_some() && {
                null += 1;
                nulls[(null - 1) / 8] >> ((null - 1) % 8) & 1 == 1
            };
            if validity[place / 8] >> (place % 8) & 1 == 0 {
                if is_null {
                    (place as u16).put(&mut hashed);
                    u32::MAX.put(&mut hashed);
                }
                continue;
            }
            let bytes = match feature.stored_width() {
                Width::Fixed(width) => width,
                Width::Variable => u32::get(input).ok()? as usize,
            };
            variable += if feature.ty.width() == Width::Variable { bytes } else { 0 };
            let value = input.take(bytes, "a value").ok()?;
            let narrow = narrowest(feature.ty, feature.earlier.iter().map(|earlier| earlier.ty), value);
            let value = narrow.as_deref().unwrap_or(value);
            (place as u16).put(&mut hashed);
            (value.len() as u32).put(&mut hashed);
            hashed.extend_from_slice(value);
        }
    }
    let rest = &payload[start..input.position()];
    Some(Row { key, rest, digest: xxh3_128(&hashed), tombstone: tombstone == 1, variable })
}
