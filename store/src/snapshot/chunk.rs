//! The frame of a chunk: what it is, and a checksum over that and the rest.

use bytes::Bytes;
use stoa_protocol::limits::{GROUP_FEATURES_MAX, KEY_BYTES_MAX, ROW_FIXED_BYTES_MAX, VALUE_BYTES_MAX};
use stoa_protocol::{Reader, Wire};

use super::restore::RestoreError;
use crate::cold::ENTRY_BYTES;

const MAGIC: u32 = u32::from_le_bytes(*b"SSN1");
/// The format that is written. Format 1, whose chunks are numbered and which has no table, is read as well.
const VERSION: u16 = 2;
const HEAD_BYTES: usize = 24;
const CRC_AT: usize = HEAD_BYTES - 4;

/// What ranges of a group are divided by: a chunk has half of it to all of it on average.
pub(super) const CHUNK_BYTES_TARGET: usize = 1 << 20;

/// A chunk is closed once its payload has this many bytes, whatever its range still has.
pub(super) const CHUNK_BYTES_CLOSED: usize = 3 << 20;

/// The longest payload: a full chunk and the largest row, which partial writes can make much larger than a batch.
pub(super) const CHUNK_BYTES_MAX: usize = CHUNK_BYTES_CLOSED
    + KEY_BYTES_MAX
    + ROW_FIXED_BYTES_MAX
    + GROUP_FEATURES_MAX * (VALUE_BYTES_MAX + 5)
    + ENTRIES_BYTES_MAX;

/// The table of rows at the head of a payload: the smallest row has 20 bytes.
const ENTRIES_BYTES_MAX: usize = 64 + (CHUNK_BYTES_CLOSED / 20 + 1) * ENTRY_BYTES;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum ChunkKind {
    Header = 1,
    Definition = 2,
    Rows = 3,
    Trailer = 4,
}

/// A frame that has been checked.
pub(super) struct Opened<'a> {
    pub version: u16,
    pub kind: ChunkKind,
    pub payload: &'a [u8],
    pub crc: u32,
}

/// Frames a payload.
pub(super) fn seal(kind: ChunkKind, payload: &[u8]) -> Bytes {
    assert!(payload.len() <= CHUNK_BYTES_MAX, "a chunk of {} bytes", payload.len());
    let mut out = Vec::with_capacity(HEAD_BYTES + payload.len());
    MAGIC.put(&mut out);
    VERSION.put(&mut out);
    (kind as u16).put(&mut out);
    0u32.put(&mut out);
    (payload.len() as u32).put(&mut out);
    0u32.put(&mut out);
    checksum(&out, payload).put(&mut out);
    out.extend_from_slice(payload);
    out.into()
}

/// The checksum in a frame that was just made.
pub(super) fn crc_of(sealed: &[u8]) -> u32 {
    u32::from_le_bytes(*sealed[CRC_AT..].first_chunk().expect("a sealed chunk has a head"))
}

/// The payload of a chunk that was checked before.
pub(crate) fn payload_of(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(HEAD_BYTES..)
}

/// Checks the frame of the chunk at a place.
pub(super) fn open(bytes: &[u8], place: u32) -> Result<Opened<'_>, RestoreError> {
    open_frame(bytes, place).map_err(|error| match error {
        // It breaks off.
        RestoreError::Bytes(_) => RestoreError::Damaged { chunk: place },
        other => other,
    })
}

fn open_frame(bytes: &[u8], place: u32) -> Result<Opened<'_>, RestoreError> {
    let mut input = Reader::new(bytes);
    if u32::get(&mut input)? != MAGIC {
        return Err(RestoreError::Foreign { chunk: place });
    }
    let version = u16::get(&mut input)?;
    if !(1..=VERSION).contains(&version) {
        return Err(RestoreError::Version { chunk: place, found: version, known: VERSION });
    }
    let kind = u16::get(&mut input)?;
    let number = u32::get(&mut input)?;
    let length = u32::get(&mut input)? as usize;
    let reserved = u32::get(&mut input)?;
    let crc = u32::get(&mut input)?;
    let damaged = RestoreError::Damaged { chunk: place };
    if length > CHUNK_BYTES_MAX || length != input.left() || reserved != 0 {
        return Err(damaged);
    }
    let payload = input.take(length, "a chunk's payload")?;
    if checksum(&bytes[..CRC_AT], payload) != crc {
        return Err(damaged);
    }
    // In format 2 the table says where a chunk belongs.
    let numbered = if version == 1 { place } else { 0 };
    if number != numbered {
        return Err(RestoreError::Order { expected: numbered, found: number });
    }
    let kinds = [ChunkKind::Header, ChunkKind::Definition, ChunkKind::Rows, ChunkKind::Trailer];
    let kind = kinds.into_iter().find(|known| *known as u16 == kind).ok_or(damaged)?;
    Ok(Opened { version, kind, payload, crc })
}

/// Kind, payload and checksum of a chunk of rows of the format that has a table.
pub(crate) fn chunk_of_rows(bytes: &[u8], place: u32) -> Result<(ChunkKind, &[u8], u32), RestoreError> {
    let opened = open(bytes, place)?;
    match opened.version {
        1 => Err(RestoreError::Order { expected: 0, found: place }),
        _ => Ok((opened.kind, opened.payload, opened.crc)),
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}
