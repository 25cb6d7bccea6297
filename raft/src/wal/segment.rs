//! Segment files: their names, and the payload of the frame that begins each.

use std::path::PathBuf;

use super::WalIdentity;
use super::frame::{u32_at, u64_at};
use super::options::GROUPS_MAX;

/// The version of the layout. A change that an older program would misread raises it.
pub(super) const FORMAT: u32 = 1;

/// Payload bytes before the list of groups.
const FIXED_BYTES: usize = 56;

/// The name of a segment whose preamble is durable. The name itself says so: a segment is written under
/// [`draft_name`], synced, and renamed only then.
pub(super) fn segment_name(id: u64) -> PathBuf {
    PathBuf::from(format!("{id:016x}.wal"))
}

/// The name of a segment in the making; worth nothing after a crash.
pub(super) fn draft_name(id: u64) -> PathBuf {
    PathBuf::from(format!("{id:016x}.new"))
}

/// What a name in the log's directory is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Segment(u64),
    Draft(u64),
    Other,
}

pub(super) fn parse_name(name: &std::path::Path) -> Name {
    let Some(text) = name.to_str() else { return Name::Other };
    let id = |stem: &str| (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok()).flatten();
    match (text.strip_suffix(".wal").and_then(id), text.strip_suffix(".new").and_then(id)) {
        (Some(id), _) if segment_name(id) == name => Name::Segment(id),
        (_, Some(id)) if draft_name(id) == name => Name::Draft(id),
        _ => Name::Other,
    }
}

/// What a segment says of itself and of the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub identity: WalIdentity,
    /// The segment this one continues, 0 for none. Segments between the two are superseded.
    pub previous: u64,
    /// How many bytes of it are valid, and durable; whatever follows there is not to be believed.
    pub previous_valid: u64,
    /// Bytes of this segment that were durable before it got its name.
    pub preamble: u64,
    /// The groups whose hard state follows, ascending.
    pub groups: Vec<u64>,
}

/// Why a segment header is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderRefusal {
    Version(u32),
    Malformed,
}

impl SegmentHeader {
    pub(super) fn payload_bytes(groups: usize) -> usize {
        FIXED_BYTES + 8 * groups
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        assert!(self.groups.len() <= GROUPS_MAX, "groups are counted when they are made");
        let mut out = Vec::with_capacity(Self::payload_bytes(self.groups.len()));
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(self.groups.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.identity.cluster.to_le_bytes());
        for field in [self.identity.node, self.previous, self.previous_valid, self.preamble] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for group in &self.groups {
            out.extend_from_slice(&group.to_le_bytes());
        }
        assert_eq!(out.len(), Self::payload_bytes(self.groups.len()));
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, HeaderRefusal> {
        if payload.len() < 4 {
            return Err(HeaderRefusal::Malformed);
        }
        let version = u32_at(payload, 0);
        if version != FORMAT {
            return Err(HeaderRefusal::Version(version));
        }
        if payload.len() < FIXED_BYTES || payload.len() != Self::payload_bytes(u32_at(payload, 4) as usize) {
            return Err(HeaderRefusal::Malformed);
        }
        let cluster = u128::from(u64_at(payload, 8)) | u128::from(u64_at(payload, 16)) << 64;
        Ok(Self {
            identity: WalIdentity { cluster, node: u64_at(payload, 24) },
            previous: u64_at(payload, 32),
            previous_valid: u64_at(payload, 40),
            preamble: u64_at(payload, 48),
            groups: (FIXED_BYTES..payload.len()).step_by(8).map(|at| u64_at(payload, at)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_headers_come_back_and_strange_ones_are_refused() {
        assert_eq!(parse_name(&segment_name(255)), Name::Segment(255));
        assert_eq!(parse_name(&draft_name(255)), Name::Draft(255));
        for name in ["reserve", "00000000000000ff.wa", "FF.wal", "00000000000000FF.wal", "+0000000000000ff.wal"] {
            assert_eq!(parse_name(name.as_ref()), Name::Other, "{name}");
        }
        let identity = WalIdentity { cluster: u128::MAX - 5, node: 9 };
        let header = SegmentHeader { identity, previous: 1, previous_valid: 2, preamble: 3, groups: vec![4, 5] };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for cut in 4..bytes.len() {
            assert_eq!(SegmentHeader::decode(&bytes[..cut]), Err(HeaderRefusal::Malformed));
        }
        let mut later = bytes.clone();
        later[0] = 2;
        assert_eq!(SegmentHeader::decode(&later), Err(HeaderRefusal::Version(2)));
    }
}
