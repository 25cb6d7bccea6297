//! The frame around every message, 64 bytes, then the body:
//!
//! ```text
//!  0  u32  magic "STOA"            24  u128 cluster id
//!  4  u16  protocol version        40  u64  map version of the sender
//!  6  u16  kind                    48  u64  remaining time, microseconds
//!  8  u32  body length             56  u32  CRC-32 of the body
//! 12  u32  flags, 0                60  u32  CRC-32 of bytes 0..60
//! 16  u64  request id
//! ```
//!
//! The body begins with project and principal where the kind says so (message.rs).

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Wire};
use crate::ids::{ClusterId, MapVersion};
use crate::limits::{DEADLINE_US_MAX, FRAME_BYTES_MAX};

/// "STOA" in little-endian order.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"STOA");
/// The protocol version that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of the header.
pub const FRAME_HEADER_BYTES: usize = 64;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: u16,
    /// Chosen by the sender; an answer repeats its request's.
    pub request_id: u64,
    /// The cluster that the sender means; 0 in a first contact that asks for it.
    pub cluster: ClusterId,
    /// The version of the map that the sender has.
    pub map_version: MapVersion,
    /// How long the sender will still wait, in microseconds; 0 in answers.
    pub remaining_us: u64,
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is not a frame at all.
    #[error("these bytes do not begin with a Stoa frame")]
    NotAFrame,
    /// It speaks another version of the protocol.
    #[error("the frame speaks protocol version {theirs}, and this end speaks {PROTOCOL_VERSION}")]
    Version {
        /// The version in the frame.
        theirs: u16,
    },
    /// Its bytes were damaged on the way.
    #[error("the frame is damaged: {0}")]
    Damaged(&'static str),
    /// A field has a value that it may not have.
    #[error(transparent)]
    Field(#[from] DecodeError),
}

/// A body with room for its header before it, so that the frame around it is the same memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramedBody {
    /// The room, then the body.
    bytes: Vec<u8>,
}

impl FramedBody {
    /// An empty body that takes so many bytes without moving.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut room = Vec::with_capacity(FRAME_HEADER_BYTES + bytes);
        room.resize(FRAME_HEADER_BYTES, 0);
        Self { bytes: room }
    }

    /// Where to append to. What is there already must stay.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes of the body.
    pub fn len(&self) -> usize {
        self.bytes.len() - FRAME_HEADER_BYTES
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body by itself.
    pub fn into_body(mut self) -> Vec<u8> {
        self.bytes.split_off(FRAME_HEADER_BYTES)
    }
}

/// A copy.
impl From<&[u8]> for FramedBody {
    fn from(body: &[u8]) -> Self {
        let mut framed = Self::with_capacity(body.len());
        framed.bytes.extend_from_slice(body);
        framed
    }
}

/// A whole frame: the header, its two checksums, and a copy of the body.
pub fn encode_frame(header: &FrameHeader, body: &[u8]) -> Bytes {
    seal_frame(header, body.into())
}

/// The same of a body that has room for the header.
pub fn seal_frame(header: &FrameHeader, framed: FramedBody) -> Bytes {
    let FramedBody { mut bytes } = framed;
    assert!(bytes.len() <= FRAME_BYTES_MAX, "a body must be checked against the frame limit");
    let body = &bytes[FRAME_HEADER_BYTES..];
    let mut head = Vec::with_capacity(FRAME_HEADER_BYTES);
    FRAME_MAGIC.put(&mut head);
    PROTOCOL_VERSION.put(&mut head);
    header.kind.put(&mut head);
    (body.len() as u32).put(&mut head);
    0u32.put(&mut head);
    header.request_id.put(&mut head);
    header.cluster.put(&mut head);
    header.map_version.put(&mut head);
    header.remaining_us.put(&mut head);
    crc32fast::hash(body).put(&mut head);
    crc32fast::hash(&head).put(&mut head);
    bytes[..FRAME_HEADER_BYTES].copy_from_slice(&head);
    bytes.into()
}

/// Takes a frame apart and checks both checksums.
pub fn decode_frame(bytes: &Bytes) -> Result<(FrameHeader, Bytes), FrameError> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Err(FrameError::NotAFrame);
    }
    let mut input = Reader::new(&bytes[..FRAME_HEADER_BYTES]);
    if u32::get(&mut input)? != FRAME_MAGIC {
        return Err(FrameError::NotAFrame);
    }
    let version = u16::get(&mut input)?;
    let kind = u16::get(&mut input)?;
    let length = u32::get(&mut input)? as usize;
    let flags = u32::get(&mut input)?;
    let request_id = u64::get(&mut input)?;
    let cluster = ClusterId::get(&mut input)?;
    let map_version = MapVersion::get(&mut input)?;
    let remaining_us = u64::get(&mut input)?;
    let body_crc = u32::get(&mut input)?;
    let header_crc = u32::get(&mut input)?;
    if crc32fast::hash(&bytes[..FRAME_HEADER_BYTES - 4]) != header_crc {
        return Err(FrameError::Damaged("the header's checksum does not fit"));
    }
    if version != PROTOCOL_VERSION {
        return Err(FrameError::Version { theirs: version });
    }
    if length != bytes.len() - FRAME_HEADER_BYTES || bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::Damaged("the length does not fit"));
    }
    if flags != 0 {
        return Err(DecodeError::invalid("the frame's flags", flags, "0 in this version").into());
    }
    if remaining_us > DEADLINE_US_MAX {
        return Err(
            DecodeError::invalid("the remaining time", remaining_us, format!("up to {DEADLINE_US_MAX} us")).into()
        );
    }
    let body = bytes.slice(FRAME_HEADER_BYTES..);
    if crc32fast::hash(&body) != body_crc {
        return Err(FrameError::Damaged("the body's checksum does not fit"));
    }
    Ok((FrameHeader { kind, request_id, cluster, map_version, remaining_us }, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: 7,
            request_id: 99,
            cluster: ClusterId(1 << 100),
            map_version: MapVersion(3),
            remaining_us: 5_000,
        }
    }

    #[test]
    fn a_frame_comes_back() {
        let bytes = encode_frame(&header(), b"body");
        let (back, body) = decode_frame(&bytes).unwrap();
        assert_eq!((back, &body[..]), (header(), &b"body"[..]));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode_frame(&header(), b"body");
        for bit in 0..bytes.len() * 8 {
            let mut copy = bytes.to_vec();
            copy[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&copy.into()).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode_frame(&bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut copy = encode_frame(&header(), b"").to_vec();
        copy[4] = 9;
        let crc = crc32fast::hash(&copy[..60]).to_le_bytes();
        copy[60..].copy_from_slice(&crc);
        assert_eq!(decode_frame(&copy.into()).unwrap_err(), FrameError::Version { theirs: 9 });
    }
}
