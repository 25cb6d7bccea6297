//! What the frames of a log, taken in order, say about each group. Pure: bytes in, state out; the files are opened in
//! `recovery.rs`, which also decides which bytes count as durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use stoa_env::planted;

use super::frame::{FrameHeader, Item, Kind};
use super::hard_state::{HardState, Suspicion, SuspicionCause};

/// One group while its frames are replayed.
#[derive(Debug, Default, Clone)]
pub(super) struct GroupReplay {
    pub state: HardState,
    /// Entries with the segment each stands in.
    pub entries: BTreeMap<u64, (u64, Bytes)>,
}

/// All groups while the log is replayed.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub groups: BTreeMap<u64, GroupReplay>,
    /// Damage that no header attributes: groups may have been in it that no frame names any more.
    pub unattributed: Option<Suspicion>,
}

impl Replay {
    /// Takes one sound frame in its turn.
    pub(super) fn frame(&mut self, header: &FrameHeader, payload: &[u8], first_segment: bool) {
        match header.kind {
            Kind::Segment | Kind::Mark => {}
            Kind::HardState => match HardState::decode(payload) {
                Some(state) => self.hard_state(header, state, first_segment),
                None => self.suspect(header.group, header, SuspicionCause::DamagedFrame),
            },
            Kind::Forget => {
                self.groups.remove(&header.group);
            }
            _ => {
                self.advance(header);
                let group = self.groups.entry(header.group).or_default();
                group.take(header, Bytes::copy_from_slice(payload));
            }
        }
    }

    /// Takes durable bytes that are no sound frame. `named` are the groups the segment's header lists.
    pub(super) fn damage(&mut self, segment: u64, offset: u64, header: Option<&FrameHeader>, named: &[u64]) {
        match header {
            Some(header) if header.kind == Kind::Mark => {} // it said nothing of any group
            Some(header) if header.kind != Kind::Segment => {
                self.suspect(header.group, header, SuspicionCause::DamagedFrame);
                self.group(header.group).state.next_sequence = header.sequence.wrapping_add(1);
            }
            _ => {
                let found = Suspicion { segment, offset, cause: SuspicionCause::UnattributedDamage };
                // Also of a group that is new in this segment, and that no frame but the damaged one names.
                self.unattributed.get_or_insert(found);
                for group in named {
                    self.groups.entry(*group).or_default();
                }
                for group in self.groups.values_mut() {
                    group.state.suspect.get_or_insert(found);
                }
            }
        }
    }

    /// States what must hold once all frames are taken: the entries named at the log's first hard state are there.
    pub(super) fn finish(&mut self, segment: u64) {
        for group in self.groups.values_mut() {
            let Some((first, last)) = group.state.entries else { continue };
            // `HardState::decode` has seen that they end after they begin, and what changes them keeps that.
            let held = group.entries.range(first..=last).count() as u64;
            let expected = (last - first).saturating_add(1);
            if held != expected {
                let found = Suspicion { segment, offset: 0, cause: SuspicionCause::MissingEntries };
                group.state.suspect.get_or_insert(found);
            }
        }
    }

    fn group(&mut self, group: u64) -> &mut GroupReplay {
        self.groups.entry(group).or_default()
    }

    fn suspect(&mut self, group: u64, header: &FrameHeader, cause: SuspicionCause) {
        if planted!(BelieveRottenLog) {
            return;
        }
        let found = Suspicion { segment: header.at.segment, offset: header.at.offset, cause };
        self.group(group).state.suspect.get_or_insert(found);
    }

    /// Checks the frame's number against the group's, and counts on from the frame.
    fn advance(&mut self, header: &FrameHeader) {
        if self.group(header.group).state.next_sequence != header.sequence {
            self.suspect(header.group, header, SuspicionCause::BrokenSequence);
        }
        self.group(header.group).state.next_sequence = header.sequence.wrapping_add(1);
    }

    /// The first segment's hard state is all there is to know of what came before; later ones repeat what is known.
    fn hard_state(&mut self, header: &FrameHeader, state: HardState, first_segment: bool) {
        if first_segment {
            self.groups.insert(header.group, GroupReplay { state, entries: BTreeMap::new() });
            return;
        }
        let known = self.group(header.group);
        let carried = state.suspect.or(known.state.suspect);
        let agrees = known.state.next_sequence == state.next_sequence && known.state.entries == state.entries;
        known.state = HardState { suspect: known.state.suspect.or(carried), ..state };
        if !agrees {
            self.suspect(header.group, header, SuspicionCause::BrokenSequence);
        }
    }
}

impl GroupReplay {
    fn take(&mut self, header: &FrameHeader, payload: Bytes) {
        match header.kind {
            Kind::Entry => {
                self.state.appended(header.index);
                self.entries.insert(header.index, (header.at.segment, payload));
            }
            // What it says again was live when it was written; if it is not now, a purge or truncation came after.
            Kind::Moved if self.state.holds(header.index) => {
                self.entries.insert(header.index, (header.at.segment, payload));
            }
            Kind::Moved => {}
            Kind::Vote => self.state.vote = Some(payload),
            Kind::Committed => self.state.committed = Some(payload),
            Kind::Truncate => {
                let keep = (!payload.is_empty()).then_some(header.index);
                self.state.truncated(keep);
                match keep.and_then(|keep| keep.checked_add(1)) {
                    Some(from) => drop(self.entries.split_off(&from)),
                    None if keep.is_none() => self.entries.clear(),
                    None => {}
                }
            }
            Kind::Purge => {
                self.state.purged(header.index, payload);
                self.entries = match header.index.checked_add(1) {
                    Some(from) => self.entries.split_off(&from),
                    None => BTreeMap::new(),
                };
            }
            Kind::Segment | Kind::HardState | Kind::Forget | Kind::Mark => {
                unreachable!("`Replay::frame` takes these itself")
            }
        }
    }
}

/// The frame as the writer would write it again, elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Copied {
    pub kind: Kind,
    pub group: u64,
    pub sequence: u64,
    pub index: u64,
    pub payload: Bytes,
}

impl Copied {
    /// A copy of a frame that speaks of a group; the others are of no use elsewhere.
    pub(super) fn of(item: &Item<'_>) -> Option<Self> {
        let Item::Frame(header, payload) = item else { return None };
        let speaks = !matches!(header.kind, Kind::Segment | Kind::HardState | Kind::Mark);
        speaks.then(|| Self {
            kind: header.kind,
            group: header.group,
            sequence: header.sequence,
            index: header.index,
            payload: Bytes::copy_from_slice(payload),
        })
    }
}
