//! Frames of the log by docs/storage.md, as far as it takes to find one and to make its checksums fit again.

use stoa_protocol::{Reader, Wire};
use stoa_raft::wal::WalIdentity;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 80;
/// Bytes of the last frame of a log that was closed, which has no payload.
pub const MARK_BYTES: usize = HEADER_BYTES;

const KIND_AT: usize = 4;
const PAYLOAD_BYTES_AT: usize = 8;
const PAYLOAD_CRC_AT: usize = 12;
const CRC_AT: usize = 72;
const SEGMENT: u8 = 1;

/// Where frames begin, as far as their lengths tell.
pub fn frames(file: &[u8]) -> Vec<usize> {
    let mut out = Vec::new();
    let mut at = 0;
    while file.len() - at >= HEADER_BYTES {
        out.push(at);
        at = end(file, at);
    }
    out
}

fn end(file: &[u8], at: usize) -> usize {
    let end = at + HEADER_BYTES + payload_bytes(file, at).next_multiple_of(8);
    end.min(file.len())
}

fn payload_bytes(file: &[u8], at: usize) -> usize {
    let mut input = Reader::new(&file[at + PAYLOAD_BYTES_AT..]);
    u32::get(&mut input).expect("a header is whole") as usize
}

/// Makes both checksums of the frame at `at` fit what is there.
pub fn seal(file: &mut [u8], at: usize, identity: WalIdentity) {
    let payload = at + HEADER_BYTES..(at + HEADER_BYTES + payload_bytes(file, at)).min(file.len());
    let crc = crc32fast::hash(&file[payload]);
    file[at + PAYLOAD_CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
    let salt = crc32fast::hash(&[&identity.cluster.to_le_bytes()[..], &identity.node.to_le_bytes()].concat());
    let mut hasher = crc32fast::Hasher::new_with_initial(if file[at + KIND_AT] == SEGMENT { 0 } else { salt });
    hasher.update(&file[at..at + CRC_AT]);
    file[at + CRC_AT..][..4].copy_from_slice(&hasher.finalize().to_le_bytes());
}
