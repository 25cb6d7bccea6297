//! The writer: one task that owns the current segment and turns rounds of requests into one append and one sync.
//!
//! A round, where the order matters:
//! 1. Take what is pending, in order; encode it, rolling to a new segment where the old one is full.
//! 2. Append the frames. Only then do they exist for anybody.
//! 3. Sync, if anyone waits for it. Only then is the durable position moved.
//! 4. Answer, in order.
//! 5. Delete the oldest segments if nothing in them is needed any more. What made them dispensable (a purge) was synced
//!    in step 3, so a crash between cannot leave a group without both its entries and the purge of them.

mod clean;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Clock, Disk, DiskFile, planted};

use super::frame::{self, FrameTitle, Kind, Position, frame_bytes};
use super::hard_state::HardState;
use super::options::{PAYLOAD_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_FILE_BYTES_MAX};
use super::queue::{Op, Queue, Request, Taken};
use super::recovery::Loaded;
use super::replay::Copied;
use super::segment::{SegmentHeader, draft_name, segment_name};
use super::{WalError, WalIdentity, WalOptions, is_full};

/// The name of the file of zeros that is given up when the device is full.
const RESERVE: &str = "reserve";
/// The reserve in the making.
const RESERVE_DRAFT: &str = "reserve.new";
/// Bytes of zeros written at once.
const RESERVE_CHUNK: usize = 1 << 20;
/// How long the writer waits before it tries to reserve space again. Writing the reserve is the test of whether there
/// is space, and a second of refused proposals more is nothing to a device that was full.
const RESERVE_RETRY: Duration = Duration::from_secs(1);
/// Groups named in the statistics as holding the oldest segment: enough to begin with, few enough to print.
const PINNING_MAX: usize = 16;

/// A segment file, as far as its deletion is concerned.
struct Segment {
    id: u64,
    bytes: u64,
    /// Of these, how many are of its beginning.
    preamble: u64,
    /// Per group, what stands here.
    held: BTreeMap<u64, Held>,
}

/// What a segment holds of one group.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// The first entry that stands here.
    first: u64,
    /// The last entry that stands here and was not dropped.
    last: u64,
    /// Bytes of the frames of its entries here, dropped and purged ones among them.
    bytes: u64,
}

impl Held {
    /// About how many of the bytes are of entries above `purged`, as if all entries were of one size. To know it, the
    /// size of every entry would have to be kept.
    fn live_bytes(&self, purged: Option<u64>) -> u64 {
        let entries = self.last.saturating_sub(self.first).saturating_add(1);
        let below = purged.map_or(0, |upto| upto.saturating_add(1).saturating_sub(self.first));
        let live = u128::from(self.bytes) * u128::from(entries.saturating_sub(below)) / u128::from(entries);
        u64::try_from(live).unwrap_or(u64::MAX)
    }
}

impl Segment {
    fn new(id: u64, bytes: u64, preamble: u64) -> Self {
        Self { id, bytes, preamble, held: BTreeMap::new() }
    }

    /// What it was filled with beyond its beginning. The first segment after a start has entries in its beginning, too.
    fn filling(&self) -> u64 {
        let held = self.held.values().map(|held| held.bytes).sum();
        self.bytes.saturating_sub(self.preamble).max(held)
    }

    /// Entry `index`, just written here, is live.
    fn hold(&mut self, group: u64, index: u64, payload: usize) {
        let held = self.held.entry(group).or_insert(Held { first: index, last: index, bytes: 0 });
        held.first = held.first.min(index);
        held.last = held.last.max(index);
        held.bytes += frame_bytes(payload);
    }
}

pub(super) struct Writer<D: Disk> {
    disk: D,
    dir: PathBuf,
    identity: WalIdentity,
    salt: u32,
    options: WalOptions,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    file: D::File,
    /// Frames encoded and not yet appended; the first will stand at `at`.
    buffer: Vec<u8>,
    frames: u64,
    at: Position,
    durable: Position,
    /// Where the current segment's preamble ends.
    preamble: u64,
    groups: BTreeMap<u64, HardState>,
    segments: VecDeque<Segment>,
    /// A damaged segment that no group answers for stays for ever.
    kept: Option<u64>,
    reserve: bool,
}

impl<D: Disk> Writer<D> {
    /// Writes the segment that makes what was loaded durable, and removes what it replaces.
    pub(super) async fn start(
        disk: D,
        dir: PathBuf,
        identity: WalIdentity,
        options: WalOptions,
        clock: Arc<dyn Clock>,
        queue: Arc<Queue>,
        loaded: Loaded,
    ) -> Result<Self, WalError> {
        // The name of the segment that replaced them may be in the cache alone: first make it durable. They go before
        // anything new is written, so that a start that fails over and over leaves no trail.
        disk.sync_dir(&dir).await.map_err(|e| WalError::io(&dir, e))?;
        for path in &loaded.useless {
            disk.remove(path).await.map_err(|e| WalError::io(path, e))?;
        }
        let preamble = Preamble {
            identity,
            id: loaded.next_segment,
            continues: loaded.continues,
            groups: &loaded.base,
            copied: &loaded.copied,
        };
        let bytes = preamble.encode()?;
        let length = bytes.len() as u64;
        let file = match create_segment(&disk, &dir, preamble.id, bytes.clone()).await {
            Err(error) if is_full(&error) && disk.remove(&dir.join(RESERVE)).await.is_ok() => {
                create_segment(&disk, &dir, preamble.id, bytes).await
            }
            other => other,
        };
        let file = file.map_err(|e| WalError::io(dir.join(draft_name(loaded.next_segment)), e))?;

        // From here on the new segment is what counts; the one it replaces is only space.
        if let Some(path) = &loaded.replaced {
            disk.remove(path).await.map_err(|e| WalError::io(path, e))?;
        }
        disk.sync_dir(&dir).await.map_err(|e| WalError::io(&dir, e))?;

        let mut segments: VecDeque<Segment> =
            loaded.segments.iter().map(|found| Segment::new(found.id, found.bytes, found.preamble)).collect();
        segments.push_back(Segment::new(loaded.next_segment, length, length));
        for (group, replay) in &loaded.groups {
            for (index, (segment, payload)) in &replay.entries {
                let holder = segments.iter_mut().find(|s| s.id == *segment);
                let holder = holder.expect("entries come from segments of the chain or from the new one");
                holder.hold(*group, *index, payload.len());
            }
        }
        let at = Position { segment: loaded.next_segment, offset: length };
        let mut writer = Self {
            disk,
            dir,
            identity,
            salt: identity.salt(),
            options,
            clock,
            queue,
            file,
            buffer: Vec::new(),
            frames: 0,
            at,
            durable: at,
            preamble: length,
            groups: loaded.groups.into_iter().map(|(id, group)| (id, group.state)).collect(),
            segments,
            kept: loaded.unattributed.map(|found| found.segment),
            reserve: false,
        };
        writer.fill_reserve().await?;
        writer.delete_dispensable().await.map_err(|e| WalError::io(&writer.dir, e))?;
        writer.publish();
        Ok(writer)
    }

    /// Works until the log is closed, fails, or is abandoned.
    pub(super) async fn run(mut self) {
        let _end = EndOnDrop(self.queue.clone());
        loop {
            match self.queue.take() {
                Taken::Ops(ops) => {
                    let bytes = ops.iter().map(|op| op.bytes).sum();
                    let closing = ops.iter().any(|op| matches!(op.request, Request::Close));
                    let went_on = self.round(ops).await;
                    self.queue.release(bytes);
                    if !went_on || closing || !self.clean_if_pressed().await {
                        return;
                    }
                }
                Taken::Abandoned => return,
                // One segment at a time, so that what came meanwhile is taken in between.
                Taken::Nothing if self.wants_cleaning() => {
                    if !self.clean_if_pressed().await {
                        return;
                    }
                }
                Taken::Nothing if self.lacks_reserve() => {
                    tokio::select! {
                        biased;
                        () = self.queue.wait() => {}
                        () = stoa_env::sleep(RESERVE_RETRY) => {
                            if let Err(error) = self.fill_reserve().await {
                                self.queue.end(error);
                                return;
                            }
                        }
                    }
                }
                Taken::Nothing => self.queue.wait().await,
            }
        }
    }

    /// One round; false if the log ended with it.
    async fn round(&mut self, mut ops: Vec<Op>) -> bool {
        match self.write(&mut ops).await {
            Ok(()) => {
                for op in ops {
                    op.done.answer(Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the write-ahead log ended");
                self.queue.end(error.clone());
                for op in ops {
                    op.done.answer(Err(error.clone()));
                }
                return false;
            }
        }
        if let Err(source) = self.delete_dispensable().await {
            let error = WalError::failed("deleting old segments", source);
            tracing::error!(%error, "the write-ahead log ended");
            self.queue.end(error);
            return false;
        }
        self.publish();
        true
    }

    /// Lets the oldest segment go if the log is pressed; false if the log ended with it.
    async fn clean_if_pressed(&mut self) -> bool {
        if !self.wants_cleaning() {
            return true;
        }
        match self.clean_oldest().await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the write-ahead log ended");
                self.queue.end(error);
                false
            }
        }
    }

    /// Steps 1 to 3 of a round.
    async fn write(&mut self, ops: &mut [Op]) -> Result<(), WalError> {
        let mut sync = false;
        for op in ops {
            sync |= op.request.needs_sync()
                && !(planted!(AckBeforeFsync) && matches!(op.request, Request::Append(_)))
                && !(planted!(SkipVoteFsync) && matches!(op.request, Request::Vote(_)));
            self.encode(op).await?;
        }
        self.flush().await?;
        if sync || self.dispensable() > 0 {
            self.sync().await?;
        }
        Ok(())
    }

    async fn encode(&mut self, op: &mut Op) -> Result<(), WalError> {
        let group = op.group;
        match &mut op.request {
            Request::Append(entries) => {
                // Taken, not borrowed: each payload is let go as soon as its frame is encoded.
                for (index, payload) in std::mem::take(entries) {
                    self.push(Kind::Entry, group, index, &payload).await?;
                    self.groups.entry(group).or_default().appended(index);
                    let current = self.segments.back_mut().expect("there is always a current segment");
                    current.hold(group, index, payload.len());
                }
            }
            Request::Vote(vote) => {
                self.push(Kind::Vote, group, 0, vote).await?;
                self.groups.entry(group).or_default().vote = Some(vote.clone());
            }
            Request::Committed(committed) => {
                self.push(Kind::Committed, group, 0, committed).await?;
                self.groups.entry(group).or_default().committed = Some(committed.clone());
            }
            Request::Truncate(keep) => {
                let payload: &[u8] = if keep.is_some() { &[1] } else { &[] };
                self.push(Kind::Truncate, group, keep.unwrap_or(0), payload).await?;
                self.groups.entry(group).or_default().truncated(*keep);
                self.forget_entries(group, *keep);
            }
            Request::Purge(upto, id) => {
                self.push(Kind::Purge, group, *upto, id).await?;
                self.groups.entry(group).or_default().purged(*upto, id.clone());
            }
            Request::Forget => {
                self.push(Kind::Forget, group, 0, &[]).await?;
                self.groups.remove(&group);
                self.forget_entries(group, None);
            }
            Request::Close => {
                // All before must be durable for the mark to say so: then damage below it is known as rot.
                self.flush().await?;
                self.sync().await?;
                self.push(Kind::Mark, 0, 0, &[]).await?;
            }
        }
        Ok(())
    }

    fn forget_entries(&mut self, group: u64, keep: Option<u64>) {
        for segment in &mut self.segments {
            match (segment.held.get_mut(&group), keep) {
                (Some(held), Some(keep)) => held.last = keep.min(held.last),
                (Some(_), None) => drop(segment.held.remove(&group)),
                (None, _) => {}
            }
        }
    }

    /// Encodes one frame, in a new segment if the current one is full.
    async fn push(&mut self, kind: Kind, group: u64, index: u64, payload: &[u8]) -> Result<(), WalError> {
        let end = self.at.offset + self.buffer.len() as u64;
        let fits = end + frame_bytes(payload.len()) <= self.options.segment_bytes;
        if !fits && end > self.preamble {
            self.roll().await?;
        }
        let at = Position { segment: self.at.segment, offset: self.at.offset + self.buffer.len() as u64 };
        let mut sequence = 0;
        if kind != Kind::Mark {
            let state = self.groups.entry(group).or_default();
            sequence = state.next_sequence;
            state.next_sequence += 1;
        }
        let title = FrameTitle { kind, at, group, sequence, durable: self.durable, index };
        frame::encode(&mut self.buffer, title, payload, self.salt);
        self.frames += 1;
        Ok(())
    }

    /// Appends what is encoded.
    async fn flush(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let length = bytes.len() as u64;
        match self.file.append(bytes.clone()).await {
            Ok(()) => {}
            Err(error) if is_full(&error) && self.reserve => {
                // Nothing of it was synced or answered: cut the torn part away, and write it again into the reserve.
                self.give_up_reserve().await?;
                self.cut_back().await?;
                self.file.append(bytes).await.map_err(|e| WalError::failed("appending into the reserve", e))?;
            }
            Err(error) => return Err(WalError::failed("appending to a segment", error)),
        }
        self.at.offset += length;
        let current = self.segments.back_mut().expect("there is always a current segment");
        current.bytes = self.at.offset;
        Ok(())
    }

    /// Cuts the current segment back to its last whole append.
    async fn cut_back(&mut self) -> Result<(), WalError> {
        let doing = "cutting back after a full device";
        let length = self.file.len().await.map_err(|e| WalError::failed(doing, e))?;
        if length < self.at.offset {
            return Err(WalError::failed(doing, io::Error::other("the segment is shorter than what was written")));
        }
        self.file.truncate(self.at.offset).await.map_err(|e| WalError::failed(doing, e))
    }

    async fn sync(&mut self) -> Result<(), WalError> {
        let began = self.clock.boot();
        let synced = self.file.sync().await;
        let synced = if synced.is_err() && planted!(RetryFailedFsync) { self.file.sync().await } else { synced };
        synced.map_err(|e| WalError::failed("syncing a segment", e))?;
        let took = self.clock.boot().since(began);
        self.durable = self.at;
        let frames = std::mem::take(&mut self.frames);
        // Before anybody is answered: nobody may count on more than the log says it has.
        let height = self.durable.height();
        self.queue.update_stats(|stats| {
            stats.height = height;
            stats.syncs += 1;
            stats.frames_synced += frames;
            stats.sync_worst = stats.sync_worst.max(took);
        });
        Ok(())
    }

    /// Seals the current segment and begins the next.
    async fn roll(&mut self) -> Result<(), WalError> {
        self.flush().await?;
        self.sync().await?;
        let id = self.at.segment + 1;
        let preamble = Preamble { identity: self.identity, id, continues: self.at, groups: &self.groups, copied: &[] };
        let bytes = preamble.encode()?;
        let length = bytes.len() as u64;
        self.file = match create_segment(&self.disk, &self.dir, id, bytes.clone()).await {
            Err(error) if is_full(&error) && self.reserve => {
                self.give_up_reserve().await?;
                create_segment(&self.disk, &self.dir, id, bytes).await
            }
            other => other,
        }
        .map_err(|e| WalError::failed("beginning a segment", e))?;
        self.segments.push_back(Segment::new(id, length, length));
        self.at = Position { segment: id, offset: length };
        self.durable = self.at;
        self.preamble = length;
        Ok(())
    }

    /// How many of the oldest segments nobody needs: every entry in them is purged, and no damage pins them.
    fn dispensable(&self) -> usize {
        let pin = self.pinned_from();
        let older = self.segments.len() - 1;
        let free = |segment: &&Segment| segment.id < pin && self.needing(segment).next().is_none();
        self.segments.iter().take(older).take_while(free).count()
    }

    /// From this segment on, damage keeps all.
    fn pinned_from(&self) -> u64 {
        let damaged = self.groups.values().filter_map(|state| state.suspect.map(|found| found.segment));
        damaged.chain(self.kept).min().unwrap_or(u64::MAX)
    }

    /// The groups that need a segment, and what it holds of them.
    fn needing<'a>(&'a self, segment: &'a Segment) -> impl Iterator<Item = (u64, Held)> + 'a {
        segment.held.iter().filter_map(|(group, held)| {
            let state = self.groups.get(group)?;
            let purged = state.purged.as_ref().is_some_and(|(upto, _)| *upto >= held.last);
            (!purged).then_some((*group, *held))
        })
    }

    fn live_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Step 5 of a round. Oldest first: what is left is the newer part of the chain, at any crash.
    async fn delete_dispensable(&mut self) -> io::Result<()> {
        let count = self.dispensable();
        if count == 0 {
            return Ok(());
        }
        assert!(self.durable == self.at, "what made segments dispensable is durable before they go");
        for segment in self.segments.drain(..count) {
            self.disk.remove(&self.dir.join(segment_name(segment.id))).await?;
        }
        self.disk.sync_dir(&self.dir).await
    }

    fn publish(&self) {
        let oldest = self.segments.front().filter(|_| self.segments.len() > 1);
        let pinning = oldest
            .map(|segment| self.needing(segment).map(|(group, _)| group).take(PINNING_MAX).collect())
            .unwrap_or_default();
        let live = self.live_bytes();
        let height = self.durable.height();
        self.queue.update_stats(|stats| {
            stats.height = height;
            stats.live_bytes = live;
            stats.live_bytes_worst = stats.live_bytes_worst.max(live);
            stats.segments = self.segments.len() as u64;
            stats.pinning = pinning;
        });
    }

    fn lacks_reserve(&self) -> bool {
        self.options.reserve_bytes > 0 && !self.reserve
    }

    async fn give_up_reserve(&mut self) -> Result<(), WalError> {
        tracing::warn!(bytes = self.options.reserve_bytes, "the log's device is full; its reserve is given up");
        self.queue.set_full(true);
        self.reserve = false;
        let path = self.dir.join(RESERVE);
        self.disk.remove(&path).await.map_err(|e| WalError::failed("giving up the reserve", e))
    }

    /// Writes the reserve, real zeros, unless it is there. A full device is no error: entries are refused meanwhile.
    async fn fill_reserve(&mut self) -> Result<(), WalError> {
        if self.options.reserve_bytes == 0 {
            return Ok(());
        }
        match self.write_reserve().await {
            Ok(()) => {
                self.reserve = true;
                self.queue.set_full(false);
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.queue.set_full(true);
                match self.disk.remove(&self.dir.join(RESERVE_DRAFT)).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(WalError::failed("removing a part of the reserve", error))
                    }
                    _ => Ok(()),
                }
            }
            Err(error) => Err(WalError::failed("writing the reserve", error)),
        }
    }

    async fn write_reserve(&mut self) -> io::Result<()> {
        let (path, draft) = (self.dir.join(RESERVE), self.dir.join(RESERVE_DRAFT));
        match self.disk.open(&path).await {
            Ok(mut file) => {
                if file.len().await? == self.options.reserve_bytes {
                    return Ok(());
                }
                self.disk.remove(&path).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.disk.remove(&draft).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.disk.create(&draft).await?;
        let zeros = Bytes::from(vec![0; RESERVE_CHUNK]);
        let mut left = self.options.reserve_bytes;
        while left > 0 {
            let chunk = left.min(RESERVE_CHUNK as u64);
            file.append(zeros.slice(..chunk as usize)).await?;
            left -= chunk;
        }
        file.sync().await?;
        self.disk.rename(&draft, &path).await?;
        self.disk.sync_dir(&self.dir).await
    }
}

/// However the writer ends, by a panic too, nobody waits for it.
struct EndOnDrop(Arc<Queue>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(WalError::Closed);
    }
}

/// The beginning of a segment, which is durable before the segment has its name.
struct Preamble<'a> {
    identity: WalIdentity,
    id: u64,
    continues: Position,
    groups: &'a BTreeMap<u64, HardState>,
    copied: &'a [Copied],
}

impl Preamble<'_> {
    fn encode(&self) -> Result<Vec<u8>, WalError> {
        let header_bytes = SegmentHeader::payload_bytes(self.groups.len());
        let payloads = self.groups.values().map(HardState::payload_bytes);
        let payloads = payloads.chain(self.copied.iter().map(|copied| copied.payload.len()));
        let length = frame_bytes(header_bytes) + payloads.map(frame_bytes).sum::<u64>();
        // What could not be read again must not be written.
        let limit = (SEGMENT_FILE_BYTES_MAX as u64) - SEGMENT_BYTES_MAX - frame_bytes(PAYLOAD_BYTES_MAX);
        if length > limit {
            return Err(WalError::TooLarge { what: "the beginning of a segment", bytes: length, limit });
        }
        let header = SegmentHeader {
            identity: self.identity,
            previous: self.continues.segment,
            previous_valid: self.continues.offset,
            preamble: length,
            groups: self.groups.keys().copied().collect(),
        };
        let mut out = Vec::with_capacity(length as usize);
        self.push(&mut out, (Kind::Segment, 0, 0, 0), &header.encode());
        for (group, state) in self.groups {
            self.push(&mut out, (Kind::HardState, *group, state.next_sequence, 0), &state.encode());
        }
        for frame in self.copied {
            self.push(&mut out, (frame.kind, frame.group, frame.sequence, frame.index), &frame.payload);
        }
        assert_eq!(out.len() as u64, length, "the preamble is as long as its header says");
        Ok(out)
    }

    fn push(&self, out: &mut Vec<u8>, (kind, group, sequence, index): (Kind, u64, u64, u64), payload: &[u8]) {
        let at = Position { segment: self.id, offset: out.len() as u64 };
        let title = FrameTitle { kind, at, group, sequence, durable: self.continues, index };
        frame::encode(out, title, payload, self.identity.salt());
    }
}

/// Creates a segment so that its name alone proves its preamble durable:
/// 1. write the preamble under the draft name, and sync it;
/// 2. rename it to its own name;
/// 3. sync the directory.
///
/// A crash before 3 leaves a draft, or the whole segment.
async fn create_segment<D: Disk>(disk: &D, dir: &std::path::Path, id: u64, bytes: Vec<u8>) -> io::Result<D::File> {
    let draft = dir.join(draft_name(id));
    let written = write_draft(disk, &draft, bytes).await;
    if written.is_err() {
        // It may be what fills the device. If it stays, the next start removes it.
        let _best_effort = disk.remove(&draft).await;
    }
    let file = written?;
    disk.rename(&draft, &dir.join(segment_name(id))).await?;
    disk.sync_dir(dir).await?;
    Ok(file)
}

async fn write_draft<D: Disk>(disk: &D, draft: &std::path::Path, bytes: Vec<u8>) -> io::Result<D::File> {
    let mut file = disk.create(draft).await?;
    file.append(bytes.into()).await?;
    if planted!(BelieveUnsyncedTail) {
        return Ok(file);
    }
    file.sync().await?;
    Ok(file)
}
