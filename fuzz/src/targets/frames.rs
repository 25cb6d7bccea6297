//! `protocol::frame`: frames as they come, and frames whose checksums fit.

use bytes::Bytes;
use stoa_protocol::frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameError, FrameHeader, PROTOCOL_VERSION, decode_frame, encode_frame,
};
use stoa_protocol::limits::{DEADLINE_US_MAX, FRAME_BYTES_MAX};
use stoa_protocol::{ClusterId, MapVersion};

use super::Seed;
use crate::Input;

// Each bit puts right what it names before the frame is decoded.
const MAGIC: u8 = 1;
const LENGTH: u8 = 2;
const FIELDS: u8 = 4;
const CHECKSUMS: u8 = 8;

/// A byte of what is put right, then the frame.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let right = input.byte();
    let mut frame = input.rest().to_vec();
    if right & (MAGIC | LENGTH | FIELDS | CHECKSUMS) != 0 && frame.len() < FRAME_HEADER_BYTES {
        frame.resize(FRAME_HEADER_BYTES, 0);
    }
    put_right(&mut frame, right);
    let frame = Bytes::from(frame);
    let decoded = decode_frame(&frame);
    match &decoded {
        Ok((header, body)) => {
            assert!(header.remaining_us <= DEADLINE_US_MAX && frame.len() <= FRAME_BYTES_MAX);
            assert_eq!(encode_frame(header, body), frame);
            flip(&frame, data.len());
        }
        Err(FrameError::Version { theirs }) => assert_ne!(*theirs, PROTOCOL_VERSION),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert!(decoded.is_ok() || right & 0xf != MAGIC | LENGTH | FIELDS | CHECKSUMS, "{decoded:?}");
}

fn put_right(frame: &mut [u8], right: u8) {
    let length = frame.len().saturating_sub(FRAME_HEADER_BYTES) as u32;
    let mut put = |bit: u8, at: usize, bytes: &[u8]| {
        if right & bit != 0 {
            frame[at..at + bytes.len()].copy_from_slice(bytes);
        }
    };
    put(MAGIC, 0, &FRAME_MAGIC.to_le_bytes());
    put(FIELDS, 4, &PROTOCOL_VERSION.to_le_bytes());
    put(LENGTH, 8, &length.to_le_bytes());
    put(FIELDS, 12, &[0; 4]);
    // Up to 16.8 s.
    put(FIELDS, 51, &[0; 5]);
    if right & CHECKSUMS != 0 {
        let body = crc32fast::hash(&frame[FRAME_HEADER_BYTES..]);
        frame[56..60].copy_from_slice(&body.to_le_bytes());
        let header = crc32fast::hash(&frame[..60]);
        frame[60..64].copy_from_slice(&header.to_le_bytes());
    }
}

/// No frame is another one but for a bit.
fn flip(frame: &Bytes, number: usize) {
    let mut copy = frame.to_vec();
    let bit = number.wrapping_mul(0x9e37_79b1) % (copy.len() * 8);
    copy[bit / 8] ^= 1 << (bit % 8);
    assert!(decode_frame(&copy.into()).is_err(), "bit {bit} went unseen");
}

/// A frame with a body, one without, and one to be put right.
pub fn seeds() -> Vec<Seed> {
    let header =
        FrameHeader { kind: 7, request_id: 99, cluster: ClusterId(1 << 100), map_version: MapVersion(3), remaining_us: 9 };
    let seed = |right: u8, body: &[u8]| [&[right][..], &encode_frame(&header, body)].concat();
    let mut later = seed(CHECKSUMS, b"a later version");
    later[5] = 9;
    vec![("body", seed(0, b"body")), ("empty", seed(0, b"")), ("right", seed(15, b"body")), ("later", later)]
}
