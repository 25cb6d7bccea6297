//! Chunks of a snapshot by docs/storage-snapshot.md, written a second time here: so that damage gets past checksums, the
//! order of rows and the digest, and so that the page and the code are held against each other.

use std::collections::BTreeMap;

use stoa_protocol::widen::narrowest;
use stoa_protocol::{FeatureGroup, FeatureGroupId, Reader, Width, Wire};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

const MAGIC: &[u8; 4] = b"SSN1";
const VERSION: u16 = 1;
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

    /// The chunk as number `number`.
    pub fn seal(&self, number: u32) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        VERSION.put(&mut out);
        self.kind.put(&mut out);
        number.put(&mut out);
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
}

/// Puts rows into their order and gives the trailer the digests of what is there. `None`, and nothing done, if the chunks
/// cannot be read.
pub fn settle(chunks: &mut [Chunk]) -> Option<()> {
    let header = chunks.iter().find(|chunk| chunk.kind == HEADER)?;
    let seed = u64::from_le_bytes(header.payload.get(..8)?.try_into().ok()?);
    let time: [u8; 8] = header.payload.get(24..HEADER_BYTES)?.try_into().ok()?;
    let sessions = sum(header.payload.get(HEADER_BYTES + 4..)?.chunks(SESSION_BYTES).map(xxh3_128));
    let definitions = chunks.iter().filter(|chunk| chunk.kind == DEFINITION);
    let definitions: Option<Vec<_>> = definitions.map(|chunk| FeatureGroup::from_bytes(&chunk.payload).ok()).collect();
    let definitions: BTreeMap<_, _> = definitions?.into_iter().map(|group| (group.id, group)).collect();
    let mut totals: BTreeMap<_, (u128, u64)> = definitions.keys().map(|id| (*id, (0, 0))).collect();

    let mut sorted = Vec::new();
    for (at, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| chunk.kind == ROWS) {
        let mut input = Reader::new(&chunk.payload);
        let id = FeatureGroupId::get(&mut input).ok()?;
        let count = u32::get(&mut input).ok()?;
        let mut rows = Vec::new();
        while input.left() > 0 {
            rows.push(row(&chunk.payload, &mut input, definitions.get(&id)?)?);
        }
        rows.sort_by_cached_key(|row| (xxh3_64_with_seed(row.key, seed), row.key.to_vec()));
        let total = totals.get_mut(&id)?;
        *total = (total.0.wrapping_add(sum(rows.iter().map(|row| row.digest))), total.1 + u64::from(count));
        let mut payload = chunk.payload[..12].to_vec();
        for row in &rows {
            (row.key.len() as u16).put(&mut payload);
            payload.extend_from_slice(row.key);
            payload.extend_from_slice(row.rest);
        }
        sorted.push((at, payload));
    }
    let trailer = trailer(sessions, sum(definitions.values().map(|group| xxh3_128(&group.to_bytes()))), time, &totals);
    sorted.into_iter().for_each(|(at, payload)| chunks[at].payload = payload);
    chunks.iter_mut().filter(|chunk| chunk.kind == TRAILER).for_each(|chunk| chunk.payload.clone_from(&trailer));
    Some(())
}

fn sum(digests: impl Iterator<Item = u128>) -> u128 {
    digests.fold(0, u128::wrapping_add)
}

/// The digest of the state is XXH3-128 over the sums of sessions and definitions and the partition time.
fn trailer(
    sessions: u128,
    definitions: u128,
    time: [u8; 8],
    totals: &BTreeMap<FeatureGroupId, (u128, u64)>,
) -> Vec<u8> {
    let mut state = Vec::new();
    sessions.put(&mut state);
    definitions.put(&mut state);
    state.extend_from_slice(&time);
    let mut out = Vec::new();
    xxh3_128(&state).put(&mut out);
    (totals.len() as u32).put(&mut out);
    for (id, (digest, _)) in totals {
        id.put(&mut out);
        digest.put(&mut out);
    }
    totals.values().for_each(|(_, rows)| rows.put(&mut out));
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
            let bytes = match feature.ty.width() {
                Width::Fixed(width) => width,
                Width::Variable => u32::get(input).ok()? as usize,
            };
            let value = input.take(bytes, "a value").ok()?;
            let narrow = narrowest(feature.ty, feature.earlier.iter().map(|earlier| earlier.ty), value);
            let value = narrow.as_deref().unwrap_or(value);
            (place as u16).put(&mut hashed);
            (value.len() as u32).put(&mut hashed);
            hashed.extend_from_slice(value);
        }
    }
    Some(Row { key, rest: &payload[start..input.position()], digest: xxh3_128(&hashed) })
}
