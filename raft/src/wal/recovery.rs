//! From the files of a log to the state of its groups. The rules are numbered in docs/storage.md; the numbers below
//! refer to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stoa_env::{Disk, planted};

use super::frame::{self, Item, Kind, Position};
use super::hard_state::HardState;
use super::options::{SEGMENT_FILE_BYTES_MAX, SUPERSEDE_BYTES_MAX};
use super::replay::{Copied, GroupReplay, Replay};
use super::segment::{self, HeaderRefusal, Name, SegmentHeader, segment_name};
use super::{Suspicion, WalError, WalIdentity};

/// What the files say, and what must be written and removed before anybody may believe it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub groups: BTreeMap<u64, GroupReplay>,
    pub unattributed: Option<Suspicion>,
    /// Up to where sound bytes were found.
    pub found: Position,
    /// The id of the segment to be written now.
    pub next_segment: u64,
    /// Where the new segment continues: all before is valid.
    pub continues: Position,
    /// The hard state of all groups there.
    pub base: BTreeMap<u64, HardState>,
    /// The frames after it, to be written again.
    pub copied: Vec<Copied>,
    /// The segments that stay, oldest first.
    pub segments: Vec<LoadedSegment>,
    /// Files that are of no use already, once the names in the directory are durable.
    pub useless: Vec<PathBuf>,
    /// The segment that is of no use once the new one is durable.
    pub replaced: Option<PathBuf>,
}

/// One segment file in memory.
struct File {
    id: u64,
    bytes: Bytes,
    header: Option<SegmentHeader>,
}

/// A segment file that stays.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadedSegment {
    pub id: u64,
    /// Of the whole file.
    pub bytes: u64,
    /// Of its beginning, which says how things stood when it was begun.
    pub preamble: u64,
}

/// Reads the log in `dir`, changing nothing.
pub(super) async fn load<D: Disk>(disk: &D, dir: &Path, identity: WalIdentity) -> Result<Loaded, WalError> {
    let (ids, drafts, highest) = names(disk, dir).await?;
    let next_segment = highest.checked_add(1).ok_or_else(|| {
        let text = "a segment has the last number there is; move the file away, this program did not write it";
        WalError::io(dir, std::io::Error::other(text))
    })?;
    let mut walk = Walk::new(identity.salt(), next_segment);
    let mut current: Option<File> = None;
    for id in ids {
        let next = read(disk, dir, id, identity).await?;
        if let Some(file) = current.replace(next) {
            let next = current.as_ref().expect("just replaced");
            walk.sealed(&file, next);
        }
    }
    if let Some(last) = current {
        walk.last(&last);
    }
    Ok(walk.finish(dir, drafts))
}

async fn names<D: Disk>(disk: &D, dir: &Path) -> Result<(Vec<u64>, Vec<PathBuf>, u64), WalError> {
    let (mut ids, mut drafts, mut highest) = (Vec::new(), Vec::new(), 0);
    for name in disk.list(dir).await.map_err(|e| WalError::io(dir, e))? {
        match segment::parse_name(&name) {
            Name::Segment(id) => {
                ids.push(id);
                highest = highest.max(id);
            }
            Name::Draft(id) => {
                drafts.push(dir.join(name));
                highest = highest.max(id);
            }
            Name::Other => {}
        }
    }
    ids.sort_unstable();
    Ok((ids, drafts, highest))
}

async fn read<D: Disk>(disk: &D, dir: &Path, id: u64, identity: WalIdentity) -> Result<File, WalError> {
    let path = dir.join(segment_name(id));
    let bytes = disk.read(&path, SEGMENT_FILE_BYTES_MAX).await.map_err(|e| WalError::io(&path, e))?;
    let at = Position { segment: id, offset: 0 };
    let header = frame::decode_header(&bytes, at, identity.salt())
        .filter(|header| header.kind == Kind::Segment)
        .and_then(|header| frame::decode_payload(&bytes, &header))
        .map(SegmentHeader::decode);
    let header = match header {
        Some(Ok(header)) if header.identity != identity => {
            return Err(WalError::Foreign { path, found: header.identity, expected: identity });
        }
        Some(Err(HeaderRefusal::Version(found))) => {
            return Err(WalError::Version { path, found, supported: segment::FORMAT });
        }
        // What comes before a segment has a lower number: whatever says otherwise, no program of ours wrote it.
        Some(Ok(header)) => Some(header).filter(|header| header.previous < id),
        Some(Err(HeaderRefusal::Malformed)) | None => None,
    };
    Ok(File { id, bytes, header })
}

/// The walk over the segments, oldest first.
struct Walk {
    salt: u32,
    next_segment: u64,
    replay: Replay,
    /// Segments walked since the chain began.
    chain: Vec<LoadedSegment>,
    /// Segments that a later one replaces, or that lie before a break of the chain.
    superseded: Vec<u64>,
    stale: Vec<u64>,
    /// The last segment, if it is written again whole.
    replaced: Option<u64>,
    found: Position,
    continues: Position,
    base: BTreeMap<u64, HardState>,
    copied: Vec<Copied>,
}

impl Walk {
    fn new(salt: u32, next_segment: u64) -> Self {
        Self {
            salt,
            next_segment,
            replay: Replay::default(),
            chain: Vec::new(),
            superseded: Vec::new(),
            stale: Vec::new(),
            replaced: None,
            found: Position { segment: 0, offset: 0 },
            continues: Position { segment: 0, offset: 0 },
            base: BTreeMap::new(),
            copied: Vec::new(),
        }
    }

    /// Rule 3: a segment with a later one, whose header says how much of this one is valid.
    fn sealed(&mut self, file: &File, next: &File) {
        if next.header.as_ref().is_some_and(|header| header.previous < file.id) {
            self.superseded.push(file.id);
            return;
        }
        let items = frame::scan(&file.bytes, file.id, self.salt);
        let valid = match &next.header {
            Some(header) if header.previous == file.id => header.previous_valid,
            // The next header is damaged, or speaks of a segment that is gone: what is sound here is all there is.
            _ => attested(file, &items).max(sound_prefix(&items, file.bytes.len())),
        };
        let first = self.enter(file);
        self.durable(file, &items, valid, first);
    }

    /// Rules 4 and 5: the last segment; what is not attested as durable is a tail.
    fn last(&mut self, file: &File) {
        let items = frame::scan(&file.bytes, file.id, self.salt);
        let durable = attested(file, &items);
        let end = tail_end(&items, durable, file.bytes.len());
        self.found = Position { segment: file.id, offset: end };
        let whole = file.header.is_some()
            && durable <= file.bytes.len() as u64
            && !items.iter().any(|item| item.offset() < durable && matches!(item, Item::Damage { .. }));
        let first = self.enter(file);
        let body: u64 = items.iter().filter_map(Copied::of).map(|c| frame::frame_bytes(c.payload.len())).sum();
        let split = match &file.header {
            // Rule 6: a small sound segment is written again whole, and goes.
            Some(header) if whole && body <= SUPERSEDE_BYTES_MAX => {
                self.continues = Position { segment: header.previous, offset: header.previous_valid };
                self.chain.pop();
                self.replaced = Some(file.id);
                let body = items.iter().find(|item| Copied::of(item).is_some());
                body.map_or(durable, |item| item.offset()).min(durable)
            }
            _ => {
                self.continues = Position { segment: file.id, offset: durable };
                durable
            }
        };
        self.durable(file, &items, split, first);
        self.base = self.replay.groups.iter().map(|(id, group)| (*id, group.state.clone())).collect();
        for item in items.iter().filter(|item| (split..end).contains(&item.offset())) {
            let Item::Frame(header, payload) = item else { continue };
            let mut header = *header;
            header.at.segment = self.next_segment; // where it will stand
            self.replay.frame(&header, payload, first);
            self.copied.extend(Copied::of(item));
        }
    }

    /// Begins a segment; true if it is the first of its chain. Rule 2: a break in the chain begins it anew, and the
    /// hard state at the new beginning tells whether anything needed is gone.
    fn enter(&mut self, file: &File) -> bool {
        let before = self.chain.last().map_or(0, |segment| segment.id);
        let continues = file.header.as_ref().is_none_or(|header| header.previous == before);
        if !continues {
            self.stale.extend(self.chain.drain(..).map(|segment| segment.id));
            self.replay = Replay::default();
        }
        let preamble = file.header.as_ref().map_or(0, |header| header.preamble);
        self.chain.push(LoadedSegment { id: file.id, bytes: file.bytes.len() as u64, preamble });
        self.chain.len() == 1
    }

    /// Takes what must be there: everything below `valid`. Damage in it is rot.
    fn durable(&mut self, file: &File, items: &[Item<'_>], valid: u64, first: bool) {
        let named = file.header.as_ref().map_or(&[][..], |header| &header.groups);
        let mut unattributed = None;
        if file.header.is_none() {
            unattributed = Some(0);
            self.replay.damage(file.id, 0, None, named);
        }
        for item in items.iter().take_while(|item| item.offset() < valid) {
            match item {
                Item::Frame(header, payload) => self.replay.frame(header, payload, first),
                Item::Damage { offset, header } => {
                    self.replay.damage(file.id, *offset, header.as_ref(), named);
                    if header.is_none() {
                        unattributed.get_or_insert(*offset);
                    }
                }
            }
        }
        if (file.bytes.len() as u64) < valid {
            unattributed.get_or_insert(file.bytes.len() as u64);
            self.replay.damage(file.id, file.bytes.len() as u64, None, named);
        }
        // Once more at the end: groups that came after the damage are groups of this segment too.
        if let Some(offset) = unattributed {
            self.replay.damage(file.id, offset, None, &[]);
        }
    }

    fn finish(mut self, dir: &Path, drafts: Vec<PathBuf>) -> Loaded {
        // A log of one segment has no chain: that segment is written anew, as the one after it.
        let oldest = self.chain.first().map_or(self.next_segment - 1, |segment| segment.id);
        self.replay.finish(oldest);
        for (id, state) in &mut self.base {
            let found = self.replay.groups.get(id).and_then(|group| group.state.suspect);
            state.suspect = state.suspect.or(found);
        }
        let sound =
            self.replay.unattributed.is_none() && self.replay.groups.values().all(|g| g.state.suspect.is_none());
        // Where there is damage, an older copy may be what somebody looks for.
        let mut useless = drafts;
        if sound {
            let older = self.superseded.iter().chain(&self.stale);
            useless.extend(older.map(|id| dir.join(segment_name(*id))));
        }
        Loaded {
            groups: self.replay.groups,
            unattributed: self.replay.unattributed,
            found: self.found,
            next_segment: self.next_segment,
            continues: self.continues,
            base: self.base,
            copied: self.copied,
            segments: self.chain,
            useless,
            replaced: self.replaced.map(|id| dir.join(segment_name(id))),
        }
    }
}

/// How much of a segment is attested as durable: its preamble, by the name of the file, and whatever any sound header in
/// it says, be it before or behind some damage.
fn attested(file: &File, items: &[Item<'_>]) -> u64 {
    let preamble = file.header.as_ref().map_or(0, |header| header.preamble);
    if planted!(TruncateMiddle) {
        return preamble;
    }
    let said = items.iter().filter_map(Item::header).map(|header| header.durable);
    said.filter(|durable| durable.segment == file.id).map(|durable| durable.offset).max().unwrap_or(0).max(preamble)
}

/// The end of the sound frames from the beginning of a file.
fn sound_prefix(items: &[Item<'_>], len: usize) -> u64 {
    tail_end(items, 0, len)
}

/// The first damage at or above `from`, or the end of the file.
fn tail_end(items: &[Item<'_>], from: u64, len: usize) -> u64 {
    let damage = items.iter().find(|item| item.offset() >= from && matches!(item, Item::Damage { .. }));
    damage.map_or(len as u64, Item::offset)
}
