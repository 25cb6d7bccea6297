//! One frame: a fixed header with its own checksum, then the payload, both padded to eight bytes (docs/storage.md).
//!
//! The header says where it stands (segment, offset). A frame found elsewhere, by a misdirected write or on a recycled
//! block, is damage, however well its checksum fits.

use stoa_protocol::message::LogHeight;

use super::options::PAYLOAD_BYTES_MAX;

/// Bytes of a frame header.
pub(super) const HEADER_BYTES: usize = 80;
/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;
const MAGIC: u32 = u32::from_le_bytes(*b"SWAL");
const CRC_AT: usize = 72;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN) && CRC_AT + 8 == HEADER_BYTES);
const _: () = assert!(PAYLOAD_BYTES_MAX <= u32::MAX as usize);

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub segment: u64,
    pub offset: u64,
}

impl Position {
    /// The same, for those outside the log.
    pub(super) fn height(self) -> LogHeight {
        LogHeight { segment: self.segment, offset: self.offset }
    }
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Begins a segment; payload `SegmentHeader`.
    Segment = 1,
    /// The hard state of one group; payload `HardState`.
    HardState = 2,
    /// Entry `index`; payload opaque.
    Entry = 3,
    /// The vote; payload opaque.
    Vote = 4,
    /// The commit position; payload opaque.
    Committed = 5,
    /// Entries after `index` are dropped; all of them if the payload is empty rather than the byte 1.
    Truncate = 6,
    /// Entries up to `index` are dropped; payload the opaque log id.
    Purge = 7,
    /// The group is no more.
    Forget = 8,
    /// Says nothing but its durable position: written on close.
    Mark = 9,
    /// Entry `index` once more, from an older segment, so that that one can go; payload as of `Entry`.
    Moved = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Segment, HardState, Entry, Vote, Committed, Truncate, Purge, Forget, Mark, Moved]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A frame's header, but for its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub kind: Kind,
    pub payload_len: u32,
    pub payload_crc: u32,
    pub at: Position,
    pub group: u64,
    pub sequence: u64,
    /// Everything before this was synced when the frame was written.
    pub durable: Position,
    pub index: u64,
}

/// Bytes a frame with this payload takes.
pub(super) fn frame_bytes(payload: usize) -> u64 {
    (HEADER_BYTES + payload.next_multiple_of(ALIGN)) as u64
}

/// A header's place and meaning, before the payload is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameTitle {
    pub kind: Kind,
    pub at: Position,
    pub group: u64,
    pub sequence: u64,
    pub durable: Position,
    pub index: u64,
}

/// Appends a frame to `out`.
pub(super) fn encode(out: &mut Vec<u8>, title: FrameTitle, payload: &[u8], salt: u32) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payloads are measured before they are queued");
    assert!(title.at.offset.is_multiple_of(ALIGN as u64), "frames are aligned");
    assert!(title.durable <= title.at, "nothing is durable before it is written");
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[title.kind as u8, 0, 0, 0]);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    for field in [
        title.at.segment,
        title.at.offset,
        title.group,
        title.sequence,
        title.durable.segment,
        title.durable.offset,
        title.index,
    ] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    let crc = header_crc(&out[start..start + CRC_AT], title.kind, salt);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out.resize(start + frame_bytes(payload.len()) as usize, 0);
}

/// A segment header carries the identity the salt comes from, so it is not salted itself.
fn header_crc(bytes: &[u8], kind: Kind, salt: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(if kind == Kind::Segment { 0 } else { salt });
    hasher.update(bytes);
    hasher.finalize()
}

/// The header at `at` in `file`, if it is whole, sound, and stands where it says.
pub(super) fn decode_header(file: &[u8], at: Position, salt: u32) -> Option<FrameHeader> {
    let start = usize::try_from(at.offset).ok()?;
    let bytes = file.get(start..start.checked_add(HEADER_BYTES)?)?;
    if u32_at(bytes, 0) != MAGIC || bytes[5..8] != [0; 3] || bytes[76..80] != [0; 4] {
        return None;
    }
    let kind = Kind::from_byte(bytes[4])?;
    let header = FrameHeader {
        kind,
        payload_len: u32_at(bytes, 8),
        payload_crc: u32_at(bytes, 12),
        at: Position { segment: u64_at(bytes, 16), offset: u64_at(bytes, 24) },
        group: u64_at(bytes, 32),
        sequence: u64_at(bytes, 40),
        durable: Position { segment: u64_at(bytes, 48), offset: u64_at(bytes, 56) },
        index: u64_at(bytes, 64),
    };
    let sound = u32_at(bytes, CRC_AT) == header_crc(&bytes[..CRC_AT], kind, salt)
        && header.at == at
        && header.durable <= at
        && header.payload_len as usize <= PAYLOAD_BYTES_MAX;
    sound.then_some(header)
}

/// The payload of a header found by [`decode_header`], if it is whole and sound, its padding included.
pub(super) fn decode_payload<'a>(file: &'a [u8], header: &FrameHeader) -> Option<&'a [u8]> {
    let start = usize::try_from(header.at.offset).ok()?.checked_add(HEADER_BYTES)?;
    let len = header.payload_len as usize;
    let padded = file.get(start..start.checked_add(len.next_multiple_of(ALIGN))?)?;
    let (payload, padding) = padded.split_at(len);
    let sound = padding.iter().all(|byte| *byte == 0) && crc32fast::hash(payload) == header.payload_crc;
    sound.then_some(payload)
}

/// What stands in a segment file, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A sound frame.
    Frame(FrameHeader, &'a [u8]),
    /// Bytes that are no sound frame, up to the next place where one may begin. With the header, if that is sound: then
    /// it is known whose they were.
    Damage { offset: u64, header: Option<FrameHeader> },
}

impl Item<'_> {
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Frame(header, _) => header.at.offset,
            Self::Damage { offset, .. } => *offset,
        }
    }

    pub(super) fn header(&self) -> Option<&FrameHeader> {
        match self {
            Self::Frame(header, _) => Some(header),
            Self::Damage { header, .. } => header.as_ref(),
        }
    }
}

/// Reads a whole file as frames and damage. Never fails: what is not a frame is damage.
pub(super) fn scan(file: &[u8], segment: u64, salt: u32) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let mut offset = 0u64;
    while offset < file.len() as u64 {
        let at = Position { segment, offset };
        let Some(header) = decode_header(file, at, salt) else {
            items.push(Item::Damage { offset, header: None });
            offset = next_header(file, at, salt);
            continue;
        };
        match decode_payload(file, &header) {
            Some(payload) => items.push(Item::Frame(header, payload)),
            None => items.push(Item::Damage { offset, header: Some(header) }),
        }
        offset += frame_bytes(header.payload_len as usize);
    }
    items
}

/// The next aligned offset after `from` at which a sound header stands, or the end of the file.
fn next_header(file: &[u8], from: Position, salt: u32) -> u64 {
    let mut at = from;
    loop {
        at.offset += ALIGN as u64;
        if at.offset >= file.len() as u64 {
            return file.len() as u64;
        }
        if decode_header(file, at, salt).is_some() {
            return at.offset;
        }
    }
}

/// Eight little-endian bytes at `at`. The caller has measured.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

/// Four little-endian bytes at `at`. The caller has measured.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn title(offset: u64) -> FrameTitle {
        let durable = Position { segment: 7, offset: 0 };
        FrameTitle { kind: Kind::Entry, at: Position { segment: 7, offset }, group: 3, sequence: 4, durable, index: 5 }
    }

    #[test]
    fn frames_come_back_as_written() {
        let mut file = Vec::new();
        for payload in [&b""[..], b"a", b"12345678", b"123456789"] {
            let at = file.len() as u64;
            encode(&mut file, title(at), payload, 1);
        }
        let payloads: Vec<_> = scan(&file, 7, 1)
            .into_iter()
            .map(|item| match item {
                Item::Frame(header, payload) => {
                    assert_eq!((header.group, header.sequence, header.index), (3, 4, 5));
                    payload
                }
                damage => panic!("{damage:?}"),
            })
            .collect();
        assert_eq!(payloads, [&b""[..], b"a", b"12345678", b"123456789"]);
        assert!(scan(&file, 7, 2).iter().all(|item| item.header().is_none()), "another log's salt");
        assert!(scan(&file, 8, 1).iter().all(|item| item.header().is_none()), "another segment");
    }

    #[test]
    fn every_flipped_bit_is_damage_and_the_next_frame_is_found() {
        let mut file = Vec::new();
        encode(&mut file, title(0), b"payload with padding", 1);
        let second = file.len();
        encode(&mut file, title(second as u64), b"second", 1);
        for bit in 0..second * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let items = scan(&file, 7, 1);
            assert_eq!(items.len(), 2, "bit {bit}");
            let Item::Damage { offset: 0, header } = items[0] else { panic!("bit {bit} went unseen") };
            assert_eq!(header.is_some(), bit / 8 >= HEADER_BYTES, "bit {bit}");
            assert_eq!(items[1].offset(), second as u64);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_scan_panic(mut junk in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..600) {
            let mut frame = Vec::new();
            encode(&mut frame, title((at & !7) as u64), b"x", 1);
            for (place, byte) in junk.iter_mut().skip(at & !7).zip(frame) {
                *place = byte;
            }
            let items = scan(&junk, 7, 1);
            prop_assert!(items.windows(2).all(|pair| pair[0].offset() < pair[1].offset()));
        }
    }
}
