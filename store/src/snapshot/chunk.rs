//! The frame of a chunk: what it is, where it stands, and a checksum over both and the rest.

use bytes::Bytes;
use stoa_protocol::limits::{GROUP_FEATURES_MAX, KEY_BYTES_MAX, ROW_FIXED_BYTES_MAX, VALUE_BYTES_MAX};
use stoa_protocol::{Reader, Wire};

use super::restore::RestoreError;

const MAGIC: u32 = u32::from_le_bytes(*b"SSN1");
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 24;

/// A chunk of rows is closed once its payload has this many bytes.
pub(super) const CHUNK_BYTES_TARGET: usize = 1 << 20;

/// The longest payload: a full chunk and the largest row, which partial writes can make much larger than a batch.
pub(super) const CHUNK_BYTES_MAX: usize =
    CHUNK_BYTES_TARGET + KEY_BYTES_MAX + ROW_FIXED_BYTES_MAX + GROUP_FEATURES_MAX * (VALUE_BYTES_MAX + 5) + 64;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum ChunkKind {
    Header = 1,
    Definition = 2,
    Rows = 3,
    Trailer = 4,
}

/// Frames a payload.
pub(super) fn seal(kind: ChunkKind, number: u32, payload: &[u8]) -> Bytes {
    assert!(payload.len() <= CHUNK_BYTES_MAX, "a chunk of {} bytes", payload.len());
    let mut out = Vec::with_capacity(HEAD_BYTES + payload.len());
    MAGIC.put(&mut out);
    VERSION.put(&mut out);
    (kind as u16).put(&mut out);
    number.put(&mut out);
    (payload.len() as u32).put(&mut out);
    0u32.put(&mut out);
    checksum(&out, payload).put(&mut out);
    out.extend_from_slice(payload);
    out.into()
}

/// Checks the frame of chunk `number` and gives its payload.
pub(super) fn open(bytes: &[u8], number: u32) -> Result<(ChunkKind, &[u8]), RestoreError> {
    let mut input = Reader::new(bytes);
    if u32::get(&mut input)? != MAGIC {
        return Err(RestoreError::Foreign { chunk: number });
    }
    let version = u16::get(&mut input)?;
    if version != VERSION {
        return Err(RestoreError::Version { found: version, known: VERSION });
    }
    let kind = u16::get(&mut input)?;
    let found = u32::get(&mut input)?;
    let length = u32::get(&mut input)? as usize;
    let reserved = u32::get(&mut input)?;
    let sum = u32::get(&mut input)?;
    let damaged = RestoreError::Damaged { chunk: number };
    if length > CHUNK_BYTES_MAX || length != input.left() || reserved != 0 {
        return Err(damaged);
    }
    let payload = input.take(length, "a chunk's payload")?;
    if checksum(&bytes[..HEAD_BYTES - 4], payload) != sum {
        return Err(damaged);
    }
    if found != number {
        return Err(RestoreError::Order { expected: number, found });
    }
    let kinds = [ChunkKind::Header, ChunkKind::Definition, ChunkKind::Rows, ChunkKind::Trailer];
    let kind = kinds.into_iter().find(|known| *known as u16 == kind).ok_or(damaged)?;
    Ok((kind, payload))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}
