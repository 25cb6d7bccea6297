//! What the log knows of one group besides its entries. The writer keeps it in memory and writes it at the beginning of
//! each segment, so that older segments can go.

use bytes::Bytes;

use super::frame::{u32_at, u64_at};
use super::segment::segment_name;

const FIXED_BYTES: usize = 64;

const HAS_VOTE: u32 = 1;
const HAS_COMMITTED: u32 = 2;
const HAS_PURGED: u32 = 4;
const HAS_ENTRIES: u32 = 8;
const IS_SUSPECT: u32 = 16;

/// Why a group's log cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// The segment in which the damage was found.
    pub segment: u64,
    /// The offset in its file.
    pub offset: u64,
    /// What was found.
    pub cause: SuspicionCause,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuspicionCause {
    /// A frame of this group is damaged, its header says so.
    DamagedFrame,
    /// Bytes that may have held frames of this group.
    UnattributedDamage,
    /// The group's sequence numbers have a gap or repeat: a frame is missing, or not the one that was written.
    BrokenSequence,
    /// Entries that the hard state names are in no segment.
    MissingEntries,
    /// Found when the log was opened before, and not forgotten since.
    CarriedOver,
}

impl std::fmt::Display for Suspicion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.cause {
            SuspicionCause::DamagedFrame => "a durable frame of the group is damaged",
            SuspicionCause::UnattributedDamage => "durable bytes are damaged that may have been the group's",
            SuspicionCause::BrokenSequence => "the group's sequence of frames is broken",
            SuspicionCause::MissingEntries => "entries of the group are missing",
            SuspicionCause::CarriedOver => "damage was found at an earlier start",
        };
        write!(f, "{}, offset {}: {what}", segment_name(self.segment).display(), self.offset)
    }
}

/// The hard state of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HardState {
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    /// The first and the last entry held.
    pub entries: Option<(u64, u64)>,
    /// The sequence number of the group's next frame.
    pub next_sequence: u64,
    pub suspect: Option<Suspicion>,
}

impl HardState {
    pub(super) fn payload_bytes(&self) -> usize {
        let small = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
        FIXED_BYTES
            + small(self.vote.as_ref())
            + small(self.committed.as_ref())
            + small(self.purged.as_ref().map(|(_, id)| id))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = [
            (self.vote.is_some(), HAS_VOTE),
            (self.committed.is_some(), HAS_COMMITTED),
            (self.purged.is_some(), HAS_PURGED),
            (self.entries.is_some(), HAS_ENTRIES),
            (self.suspect.is_some(), IS_SUSPECT),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
        let vote = self.vote.as_deref().unwrap_or_default();
        let committed = self.committed.as_deref().unwrap_or_default();
        let (purged, purged_id) = self.purged.as_ref().map_or((0, &[][..]), |(index, id)| (*index, id));
        let (first, last) = self.entries.unwrap_or_default();
        let (segment, offset) = self.suspect.map_or((0, 0), |s| (s.segment, s.offset));

        let mut out = Vec::with_capacity(self.payload_bytes());
        for field in [flags, vote.len() as u32, committed.len() as u32, purged_id.len() as u32] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [self.next_sequence, purged, first, last, segment, offset] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for bytes in [vote, committed, purged_id] {
            out.extend_from_slice(bytes);
        }
        assert_eq!(out.len(), self.payload_bytes());
        out
    }

    /// The hard state in a payload; `None` if the payload is not one.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        if payload.len() < FIXED_BYTES {
            return None;
        }
        let flags = u32_at(payload, 0);
        let mut rest = &payload[FIXED_BYTES..];
        let mut take = |at: usize| {
            let (bytes, after) = rest.split_at_checked(u32_at(payload, at) as usize)?;
            rest = after;
            Some(Bytes::copy_from_slice(bytes))
        };
        let (vote, committed, purged_id) = (take(4)?, take(8)?, take(12)?);
        if !rest.is_empty() {
            return None;
        }
        let has = |flag| flags & flag != 0;
        let (first, last) = (u64_at(payload, 32), u64_at(payload, 40));
        if has(HAS_ENTRIES) && first > last {
            return None;
        }
        let carried =
            Suspicion { segment: u64_at(payload, 48), offset: u64_at(payload, 56), cause: SuspicionCause::CarriedOver };
        Some(Self {
            vote: has(HAS_VOTE).then_some(vote),
            committed: has(HAS_COMMITTED).then_some(committed),
            purged: has(HAS_PURGED).then(|| (u64_at(payload, 24), purged_id)),
            entries: has(HAS_ENTRIES).then_some((first, last)),
            next_sequence: u64_at(payload, 16),
            suspect: has(IS_SUSPECT).then_some(carried),
        })
    }

    /// Whether entry `index` is one of those held.
    pub(super) fn holds(&self, index: u64) -> bool {
        self.entries.is_some_and(|(first, last)| (first..=last).contains(&index))
    }

    /// Entry `index` was appended.
    pub(super) fn appended(&mut self, index: u64) {
        let first = self.entries.map_or(index, |(first, _)| first.min(index));
        self.entries = Some((first, index));
    }

    /// Entries after `keep` were dropped, all of them if it is none.
    pub(super) fn truncated(&mut self, keep: Option<u64>) {
        self.entries = self.entries.zip(keep).and_then(|((first, last), keep)| range(first, last.min(keep)));
    }

    /// Entries up to `upto` were dropped.
    pub(super) fn purged(&mut self, upto: u64, id: Bytes) {
        self.purged = Some((upto, id));
        self.entries = self.entries.and_then(|(first, last)| range(first.max(upto.saturating_add(1)), last));
    }
}

/// The closed range, or none if it is empty.
fn range(first: u64, last: u64) -> Option<(u64, u64)> {
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_state_comes_back_and_no_cut_of_it_is_taken() {
        let cause = SuspicionCause::CarriedOver;
        let full = HardState {
            vote: Some(Bytes::from_static(b"vote")),
            committed: Some(Bytes::new()),
            purged: Some((7, Bytes::from_static(b"log id"))),
            entries: Some((8, 9)),
            next_sequence: 11,
            suspect: Some(Suspicion { segment: 1, offset: 2, cause }),
        };
        for state in [HardState::default(), full] {
            let bytes = state.encode();
            assert_eq!(HardState::decode(&bytes), Some(state));
            for cut in 0..bytes.len() {
                assert_eq!(HardState::decode(&bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn entries_that_end_before_they_begin_are_no_hard_state() {
        for (first, last, is_one) in [(0, 0, true), (8, 8, true), (9, 8, false), (u64::MAX, 0, false)] {
            let state = HardState { entries: Some((first, last)), ..HardState::default() };
            assert_eq!(HardState::decode(&state.encode()).is_some(), is_one, "{first} to {last}");
        }
    }

    #[test]
    fn the_range_of_entries_follows_appends_truncations_and_purges() {
        let mut state = HardState::default();
        (5..=9).for_each(|index| state.appended(index));
        state.truncated(Some(8));
        state.purged(6, Bytes::new());
        assert_eq!(state.entries, Some((7, 8)));
        state.purged(8, Bytes::new());
        assert_eq!(state.entries, None);
        state.appended(9);
        state.truncated(None);
        assert_eq!(state.entries, None);
    }
}
