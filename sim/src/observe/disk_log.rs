//! What a disk would still hold of each group's log if power were lost now: frames are read as they become durable, each
//! once, and taken in their order as docs/storage.md has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::frames::{self, Frame, LogId, Members, Owner, Said, Vote};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::SimDisk;

/// An entry that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its term.
    pub term: u64,
    /// Of its bytes.
    pub hash: u64,
    segment: u64,
}

/// What is durable of one group.
#[derive(Debug, Clone, Default)]
pub struct GroupLog {
    /// The entries.
    pub entries: BTreeMap<u64, Held>,
    /// The memberships among them.
    pub members: BTreeMap<u64, Members>,
    /// The vote.
    pub vote: Option<Vote>,
    /// The latest term whose leader it knew, or led: what it takes as committed was committed in that term at the latest.
    pub led: Option<u64>,
    /// The commit position.
    pub committed: Option<LogId>,
    /// The purge point.
    pub purged: Option<LogId>,
    /// The index at which the newest whole snapshot ends.
    pub snapshot: Option<u64>,
    /// The node itself does not believe this log any more.
    pub suspect: bool,
    /// The first and the last entry, as far as the frames say.
    pub range: Option<(u64, u64)>,
}

impl Held {
    /// An entry as a judge's test makes it up.
    pub fn new(term: u64, hash: u64) -> Self {
        Self { term, hash, segment: 0 }
    }
}

impl GroupLog {
    /// The term of the entry at `index`, or of the purge point if it is there.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let purged = self.purged.filter(|purged| purged.index == index).map(|purged| purged.term);
        self.entries.get(&index).map(|held| held.term).or(purged)
    }

    /// Whether a snapshot has what stands at `index`.
    pub fn is_covered(&self, index: u64) -> bool {
        self.snapshot.is_some_and(|end| end >= index)
    }

    /// What there is of it, in words.
    pub fn extent(&self) -> String {
        let ends = self.entries.first_key_value().zip(self.entries.last_key_value());
        let ends = ends.map(|((first, _), (last, held))| {
            format!("{} entries, {first} to {last} in segment {}", self.entries.len(), held.segment)
        });
        format!("{ends:?}, range {:?}, purged {:?}, snapshot {:?}", self.range, self.purged, self.snapshot)
    }

    /// Snapshots lie elsewhere, and stay.
    fn forget_log(&mut self) {
        *self = Self { snapshot: self.snapshot, ..Self::default() };
    }

    fn take_vote(&mut self, vote: Option<Vote>) {
        self.vote = vote;
        self.led = self.led.max(vote.filter(|vote| vote.committed).map(|vote| vote.term));
    }

    /// The latest term in which an entry of `term` that it takes as committed can have been committed. Where the vote that
    /// tells it was read away, the one that stands tells enough.
    pub fn committed_by(&self, term: u64) -> u64 {
        self.led.or(self.vote.map(|vote| vote.term)).unwrap_or(term).max(term)
    }

    fn take(&mut self, frame: &Frame, segment: u64) {
        match &frame.said {
            Said::Entry { term, hash, moved, members } => {
                let held = |(first, last): (u64, u64)| (first..=last).contains(&frame.index);
                // What is moved and not here any more was dropped since.
                if !moved {
                    let first = self.range.map_or(frame.index, |(first, _)| first.min(frame.index));
                    self.range = Some((first, frame.index));
                }
                if !moved || self.range.is_some_and(held) {
                    match members {
                        Some(members) => drop(self.members.insert(frame.index, members.as_ref().clone())),
                        None => drop(self.members.remove(&frame.index)),
                    }
                    self.entries.insert(frame.index, Held { term: *term, hash: *hash, segment });
                }
            }
            Said::Vote(vote) => self.take_vote(Some(*vote)),
            Said::Committed(id) => self.committed = Some(*id),
            Said::Truncate(keep) => {
                self.entries =
                    std::mem::take(&mut self.entries).into_iter().filter(|(at, _)| Some(*at) <= *keep).collect();
                self.members.retain(|at, _| Some(*at) <= *keep);
                self.range = self.range.zip(*keep).map(|((first, last), keep)| (first, last.min(keep)));
                self.range = self.range.filter(|(first, last)| first <= last);
            }
            Said::Purge(id) => {
                self.entries = self.entries.split_off(&(id.index + 1));
                self.members = self.members.split_off(&(id.index + 1));
                self.purged = Some(*id);
                self.range = self.range.map(|(first, last)| (first.max(id.index + 1), last));
                self.range = self.range.filter(|(first, last)| first <= last);
            }
            Said::HardState { vote, committed, purged, entries, suspect } => {
                self.take_vote(*vote);
                (self.committed, self.purged, self.suspect) = (*committed, *purged, *suspect);
                self.range = *entries;
            }
            Said::Segment { .. } | Said::Forget | Said::Mark => {}
        }
    }
}

/// Which frames have been seen. What is read once more stands where it stood. A frame that a start of the node copied, one
/// of an erased replica among them, stands at a new place, and is known by its group, its number and what it says.
#[derive(Debug, Clone, Default)]
struct SeenFrames {
    known: BTreeSet<(u64, u64, u64)>,
    /// Segment and offset of the last frame.
    upto: Option<(u64, usize)>,
}

impl SeenFrames {
    /// Notes a frame, and says whether it is seen for the first time. `copied` if it may be a copy.
    fn is_new(&mut self, frame: &Frame, segment: u64, copied: bool) -> bool {
        let place = Some((segment, frame.offset));
        if place <= self.upto {
            return false;
        }
        self.upto = place;
        let says = xxh3_64(format!("{:?} {}", frame.said, frame.index).as_bytes());
        let unknown = self.known.insert((frame.group, frame.sequence, says));
        // Two replicas, one after the other, may be erased at the same number.
        unknown || frame.said == Said::Forget && !copied
    }
}

/// Sees each frame once, when it has become durable, with what was durable of its group before it.
pub type See<'a> = &'a mut dyn FnMut(&GroupLog, &Frame);

/// The durable part of a node's log.
#[derive(Debug, Clone, Default)]
pub struct DiskLog {
    changes: Option<u64>,
    epoch: u64,
    segments: BTreeMap<u64, Segment>,
    groups: BTreeMap<u64, GroupLog>,
    seen: SeenFrames,
    /// Where what was durable was found damaged, and whose it was, until that group is erased; also of segments that are gone
    /// since: the node has to find it out itself.
    rot: BTreeSet<(u64, usize, Owner)>,
    nothing: GroupLog,
}

#[derive(Debug, Clone)]
struct Segment {
    file: u64,
    read: usize,
    salt: u32,
    previous: u64,
    previous_valid: u64,
    /// How many of its first bytes are attested as durable: by its name, by any frame in it, or by the next segment.
    attested: u64,
    frames: Vec<Frame>,
    /// Whether its header, or its end, is damaged.
    damaged: bool,
    /// Where something else that was durable is no sound frame, and whose it was.
    rot: Vec<(usize, Owner)>,
}

impl DiskLog {
    /// What is durable of a group.
    pub fn group(&self, group: u64) -> &GroupLog {
        self.groups.get(&group).unwrap_or(&self.nothing)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = (u64, &GroupLog)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// Whether what was durable was found damaged, other than of groups that were erased since.
    pub fn is_damaged(&self) -> bool {
        !self.rot.is_empty()
    }

    /// Reads what has become durable since the last time.
    pub fn refresh(&mut self, disk: &SimDisk, see: See<'_>) {
        disk.durable(|durable| {
            if self.changes == Some(durable.changes()) {
                return;
            }
            self.changes = Some(durable.changes());
            if std::mem::replace(&mut self.epoch, durable.epoch()) != durable.epoch() {
                self.segments.clear();
            }
            self.groups.values_mut().for_each(|group| group.snapshot = None);
            for (path, _, bytes) in durable.below(Path::new("snapshots")) {
                if let Some((group, end)) = snapshot(path).filter(|_| !bytes.is_empty()) {
                    let group = self.groups.entry(group).or_default();
                    group.snapshot = group.snapshot.max(Some(end));
                }
            }
            self.read_segments(durable.below(Path::new("wal")), see);
        });
    }

    fn read_segments<'a>(&mut self, files: impl Iterator<Item = (&'a Path, u64, &'a [u8])>, see: See<'_>) {
        let files: Vec<(u64, u64, &[u8])> =
            files.filter_map(|(path, file, bytes)| Some((segment_id(path)?, file, bytes))).collect();
        let there: Vec<u64> = files.iter().map(|(id, ..)| *id).collect();
        let mut anew = false;
        let mut last = self.segments.last_key_value().map(|(id, _)| *id);
        for &(id, file, bytes) in &files {
            let known = self.segments.get(&id);
            if known.is_none_or(|known| known.file != file || known.read > bytes.len()) {
                let segment = Segment::begin(file, bytes, id);
                anew |= last.is_none_or(|last| segment.previous != last || id < last);
                self.segments.insert(id, segment);
                last = last.max(Some(id));
            }
        }
        let continued = self.segments.values().map(|segment| (segment.previous, segment.previous_valid));
        let sealed: BTreeMap<u64, u64> = continued.collect();
        let mut appended: Vec<(u64, usize)> = Vec::new();
        for &(id, _, bytes) in &files {
            let segment = self.segments.get_mut(&id).expect("known, or just put there");
            let from = segment.read_on(bytes, id, sealed.get(&id).copied().unwrap_or(0));
            if from < segment.frames.len() {
                appended.push((id, from));
            }
        }
        let gone: Vec<u64> = self.segments.keys().filter(|id| !there.contains(id)).copied().collect();
        let older_stay = |id: &u64| there.first().is_some_and(|first| first < id);
        anew |= there.is_empty() || gone.iter().any(older_stay);
        for id in &gone {
            self.segments.remove(id);
        }
        if anew {
            return self.replay(see);
        }
        for (id, from) in appended {
            self.note_rot(id);
            let segment = &self.segments[&id];
            for frame in &segment.frames[from..] {
                take(&mut self.groups, &mut self.seen, frame, id, false, see);
            }
        }
        self.suspect();
        // What was still needed of them has been written once more, and was taken above.
        for group in self.groups.values_mut().filter(|_| !gone.is_empty()) {
            group.entries.retain(|_, held| !gone.contains(&held.segment));
        }
    }

    /// The place of the last word that says of a group that it is no more.
    fn forgotten(&self) -> BTreeMap<u64, (u64, usize)> {
        let frames = self.segments.iter().flat_map(|(id, segment)| segment.frames.iter().map(|frame| (*id, frame)));
        let forgets = frames.filter(|(_, frame)| frame.said == Said::Forget);
        forgets.map(|(id, frame)| (frame.group, (id, frame.offset))).collect()
    }

    /// Remembers where a segment is damaged, but for frames that said nothing of any group.
    fn note_rot(&mut self, id: u64) {
        let segment = &self.segments[&id];
        let whole = segment.damaged.then_some((id, 0, Owner::Unknown));
        let frames = segment.rot.iter().filter(|(_, owner)| *owner != Owner::Nobody);
        self.rot.extend(frames.map(|(offset, owner)| (id, *offset, *owner)).chain(whole));
    }

    /// Forgets the damage of what was erased, and takes the groups for suspect that the rest may have hit.
    fn suspect(&mut self) {
        let forgotten = self.forgotten();
        let erased = |group: u64, at: (u64, usize)| forgotten.get(&group).is_some_and(|forgot| *forgot > at);
        self.rot.retain(|&(id, at, owner)| !matches!(owner, Owner::Group(group) if erased(group, (id, at))));
        doubt(&mut self.groups, &self.rot);
    }

    /// Takes all frames from the first one on: segments that a later one replaces are left out, and what a later one says
    /// is not valid; a break in the chain begins it anew.
    fn replay(&mut self, see: See<'_>) {
        // What judges look at while frames are shown to them.
        self.groups.values_mut().for_each(GroupLog::forget_log);
        self.suspect();
        if self.segments.is_empty() {
            // An empty disk is another life, and has no past.
            self.seen = SeenFrames::default();
            return;
        }
        let ids: Vec<u64> = self.segments.keys().copied().collect();
        let forgotten = self.forgotten();
        let (mut before, mut chain) = (0, Vec::new());
        for (place, &id) in ids.iter().enumerate() {
            let later = ids.get(place + 1).map(|next| &self.segments[next]);
            if later.is_some_and(|later| later.previous < id) {
                continue;
            }
            let segment = &self.segments[&id];
            let first = segment.previous != before || before == 0;
            if first {
                chain.clear();
                self.groups.values_mut().for_each(GroupLog::forget_log);
                doubt(&mut self.groups, &self.rot);
            }
            chain.push(id);
            let valid = later.filter(|later| later.previous == id).map_or(u64::MAX, |later| later.previous_valid);
            for frame in segment.frames.iter().take_while(|frame| (frame.offset as u64) < valid) {
                // Of a replica that is gone by now the older segments may be gone as well: what it had is not known.
                let gone = forgotten.get(&frame.group).is_some_and(|at| (id, frame.offset) < *at);
                let see: See<'_> = if gone { &mut |_, _| {} } else { see };
                take(&mut self.groups, &mut self.seen, frame, id, first, see);
            }
            before = id;
        }
        chain.into_iter().for_each(|id| self.note_rot(id));
        self.suspect();
    }
}

/// Takes groups for suspect that damage may have hit.
fn doubt(groups: &mut BTreeMap<u64, GroupLog>, rot: &BTreeSet<(u64, usize, Owner)>) {
    let hit = |id: u64| rot.iter().any(|(.., owner)| [Owner::Unknown, Owner::Group(id)].contains(owner));
    groups.iter_mut().for_each(|(id, group)| group.suspect |= hit(*id));
}

fn take(
    groups: &mut BTreeMap<u64, GroupLog>,
    seen: &mut SeenFrames,
    frame: &Frame,
    segment: u64,
    first_segment: bool,
    see: See<'_>,
) {
    match frame.said {
        Said::Segment { .. } | Said::Mark => return,
        Said::HardState { .. } => {
            // Later ones repeat what is known.
            if first_segment {
                groups.entry(frame.group).or_default().take(frame, segment);
            }
            return;
        }
        _ => {}
    }
    let group = groups.entry(frame.group).or_default();
    if seen.is_new(frame, segment, first_segment) {
        see(group, frame);
    }
    if frame.said == Said::Forget {
        // The snapshot is a file, and may be the next replica's.
        group.forget_log();
    } else {
        group.take(frame, segment);
    }
}

impl Segment {
    fn begin(file: u64, bytes: &[u8], id: u64) -> Self {
        let begun = frames::read(bytes, id, 0, 0).map(|frame| frame.said);
        let (previous, previous_valid, attested, salt) = match begun {
            Some(Said::Segment { previous, previous_valid, preamble, salt }) => {
                (previous, previous_valid, preamble, salt)
            }
            _ => (0, 0, 0, 0),
        };
        // A name is durable after the beginning of its file.
        let damaged = salt == 0;
        Self { file, read: 0, salt, previous, previous_valid, attested, frames: Vec::new(), damaged, rot: Vec::new() }
    }

    /// Reads on where the last reading ended; the place of the first new frame. `sealed` is how much of it the next
    /// segment says to be durable.
    fn read_on(&mut self, bytes: &[u8], id: u64, sealed: u64) -> usize {
        let from = self.frames.len();
        self.attested = self.attested.max(sealed);
        while self.read < bytes.len() {
            let sound = frames::read(bytes, id, self.read, self.salt);
            let rotten = sound.is_none();
            let Some(frame) = sound.or_else(|| self.after_damage(bytes, id)) else { break };
            if rotten {
                // What the damage covers may be several frames, of which headers are left.
                let owner = |at: usize| (at, frames::owner(bytes, id, at, self.salt));
                let named = (self.read + 8..frame.offset).step_by(8).map(owner);
                self.rot.push(owner(self.read));
                self.rot.extend(named.filter(|(_, owner)| *owner != Owner::Unknown));
            }
            self.read = frame.end;
            self.frames.push(frame);
        }
        self.damaged |= (self.read as u64) < self.attested;
        from
    }

    /// The next sound frame, if what is no sound frame here is attested as durable. If not, it is a torn tail. Whatever
    /// stands behind the damage may attest it, and not only what comes next: that may have been written with it.
    fn after_damage(&mut self, bytes: &[u8], id: u64) -> Option<Frame> {
        let (mut at, mut next) = (self.read + 8, None);
        while at < bytes.len() {
            let Some(frame) = frames::read(bytes, id, at, self.salt) else {
                at += 8;
                continue;
            };
            at = frame.end;
            if frame.durable.0 == id {
                self.attested = self.attested.max(frame.durable.1);
            }
            next.get_or_insert(frame);
        }
        next.filter(|_| self.attested > self.read as u64)
    }
}

fn segment_id(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()
}

/// Group and end of the whole snapshot that a manifest is that of.
fn snapshot(path: &Path) -> Option<(u64, u64)> {
    let mut parts = path.iter().map(|part| part.to_str().unwrap_or_default());
    let (_, group, name, file) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // What is in the making, or on its way out, has a name that begins with a word.
    let end = name.split('-').next()?.parse().ok()?;
    (file == "manifest").then_some((group.parse().ok()?, end))
}
