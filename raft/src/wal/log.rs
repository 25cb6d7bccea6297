//! The handle of the log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use stoa_env::{Bounded, Bounds, Clock, Disk, Gauge};
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::message::LogHeight;
use tokio::sync::oneshot;

use super::frame::frame_bytes;
use super::in_time::InTime;
use super::options::{GROUPS_MAX, PAYLOAD_BYTES_MAX, SMALL_BYTES_MAX};
use super::queue::{Completion, Queue, Request};
use super::recovery::{self, Loaded};
use super::room::Room;
use super::writer::Writer;
use super::{Suspicion, WalError, WalIdentity, WalOptions, WalStats};

/// One group as the log remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The last vote saved.
    pub vote: Option<Bytes>,
    /// The last commit position saved, or an earlier one: it is not synced by itself.
    pub committed: Option<Bytes>,
    /// Up to where the group was purged, and the log id given with it.
    pub purged: Option<(u64, Bytes)>,
    /// The entries, without gaps.
    pub entries: BTreeMap<u64, Bytes>,
}

/// What the log remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The groups whose log is whole.
    pub groups: BTreeMap<u64, RecoveredGroup>,
    /// The groups whose log is not. Each must be forgotten and rebuilt from its peers; until then the log takes nothing
    /// for it, and keeps its files as they are.
    pub suspect: BTreeMap<u64, Suspicion>,
    /// Durable bytes are damaged that no header attributes: groups may have been there that no frame names any more.
    /// Whoever knows of a group that is in neither map must treat it as suspect.
    pub unattributed: Option<Suspicion>,
}

/// What comes of the options.
struct Limits {
    admitted: u64,
    queue: u64,
    live: u64,
}

impl Limits {
    fn of(options: &WalOptions) -> Self {
        // One call is admitted whatever its size when nothing else is under way; the largest is a frame between nodes.
        let admitted = options.queue_bytes.max(FRAME_BYTES_MAX as u64);
        // What nobody admits: a commit position for an entry at the most, and some votes, truncations and purges of groups.
        let queue = 2 * admitted + options.round_bytes;
        // At the bound nothing is admitted any more, and what was before goes through; a segment is being cleaned
        // meanwhile. What is in memory is in a segment or on its way there.
        let live = options.max_live_bytes + queue + 2 * options.segment_bytes;
        Self { admitted, queue, live }
    }
}

/// The write-ahead log of one node. Clones are handles of the same log; when the last is dropped, the writer finishes
/// what is pending and ends.
///
/// All calls go through one queue, in the order in which they are made; a call's place is taken when the call is first
/// polled, or at once where it is not a future.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

struct Handle {
    queue: Arc<Queue>,
    found: LogHeight,
    bounds: Bounds,
    /// Counts the entries that groups keep in memory.
    memory: Gauge,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("stats", &self.stats()).finish()
    }
}

impl Wal {
    /// Opens the log in `dir` of `disk`, creating it if there is none. When this returns, everything in the answer is
    /// durable; a crash at any point leaves a log that opens with the same answer.
    ///
    /// # Errors
    /// Of class stop: the files cannot be read or written, or are another node's, or a later version's. Damage is no
    /// error: it is in the answer.
    pub async fn open<D: Disk>(
        disk: D,
        dir: PathBuf,
        identity: WalIdentity,
        options: WalOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<(Wal, Recovered), WalError> {
        options.check()?;
        let disk = InTime(disk);
        disk.create_dir(&dir).await.map_err(|e| WalError::io(&dir, e))?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).await.map_err(|e| WalError::io(parent, e))?;
        }
        let loaded = recovery::load(&disk, &dir, identity).await?;
        let recovered = recovered(&loaded);
        let found = loaded.found.height();
        let next = loaded.groups.iter().map(|(id, group)| {
            let last = group.state.entries.map(|(_, last)| last);
            let last = last.max(group.state.purged.as_ref().map(|(upto, _)| *upto));
            (*id, last.and_then(|last| last.checked_add(1)))
        });
        let queue = Queue::new(options.clone(), next.collect(), recovered.suspect.keys().copied().collect());
        let queue = Arc::new(queue);
        let writer = Writer::start(disk, dir, identity, options, clock, queue.clone(), loaded).await?;
        stoa_env::spawn("wal writer", writer.run());
        let bounds = Bounds::default();
        let memory = bounds.node_gauge("log: bytes of entries in memory", Limits::of(queue.options()).live);
        Ok((Wal { handle: Arc::new(Handle { queue, found, bounds, memory }) }, recovered))
    }

    /// Whether entries would be admitted now.
    ///
    /// # Errors
    /// Of class retry: the queue, the device or the log is full. Of class stop: the log has ended.
    pub fn reserve_check(&self) -> Result<(), WalError> {
        self.handle.queue.check()
    }

    /// Takes room for an entry or entries of `bytes` in all. Ask before a proposal, or an append of another replica,
    /// reaches Raft: once Raft has an entry, [`Wal::append`] does not refuse it for want of room. Keep the answer until
    /// the entries are durable or will never come.
    ///
    /// # Errors
    /// Of class retry: the queue, the device or the log is full. Of class stop: the log has ended.
    pub fn admit(&self, bytes: usize) -> Result<Room, WalError> {
        Room::take(&self.handle.queue, frame_bytes(bytes))
    }

    /// Appends entries, consecutive and following the group's last one. `done` is called, by the writer and in order,
    /// once they are durable or the log has failed; it must not block. Whoever calls has asked [`Wal::admit`] before,
    /// unless the entries are few and small and must go through whatever happens.
    ///
    /// # Errors
    /// Of class stop or reject; then nothing was taken and `done` is not called.
    pub fn append(
        &self,
        group: u64,
        entries: Vec<(u64, Bytes)>,
        done: impl FnOnce(Result<(), WalError>) + Send + 'static,
    ) -> Result<(), WalError> {
        for (_, payload) in &entries {
            limit("an entry", payload, PAYLOAD_BYTES_MAX)?;
        }
        self.handle.queue.put(group, Request::Append(entries), Completion::new(done))
    }

    /// Saves the group's vote. It is durable when this returns; never refused for want of space in the queue.
    ///
    /// # Errors
    /// Of class stop or reject.
    pub async fn save_vote(&self, group: u64, vote: Bytes) -> Result<(), WalError> {
        limit("a vote", &vote, SMALL_BYTES_MAX)?;
        self.ask(group, Request::Vote(vote)).await
    }

    /// Saves the group's commit position with the next round; it is durable when anything later is.
    ///
    /// # Errors
    /// Of class stop or reject.
    pub fn save_committed(&self, group: u64, committed: Bytes) -> Result<(), WalError> {
        limit("a commit position", &committed, SMALL_BYTES_MAX)?;
        self.handle.queue.put(group, Request::Committed(committed), Completion::new(|_| {}))
    }

    /// Drops the group's entries after `keep`, or all of them. Durable when this returns.
    ///
    /// # Errors
    /// Of class stop or reject.
    pub async fn truncate_after(&self, group: u64, keep: Option<u64>) -> Result<(), WalError> {
        self.ask(group, Request::Truncate(keep)).await
    }

    /// Drops the group's entries up to `upto`, and remembers `log_id` for that point. Written, not synced, when this
    /// returns; segments that nobody needs any more are deleted, after a sync.
    ///
    /// # Errors
    /// Of class stop or reject.
    pub async fn purge(&self, group: u64, upto: u64, log_id: Bytes) -> Result<(), WalError> {
        limit("a log id", &log_id, SMALL_BYTES_MAX)?;
        self.ask(group, Request::Purge(upto, log_id)).await
    }

    /// Forgets all of the group, its suspicion too. Durable when this returns.
    ///
    /// # Errors
    /// Of class stop.
    pub async fn forget(&self, group: u64) -> Result<(), WalError> {
        self.ask(group, Request::Forget).await
    }

    /// Writes what is pending and a mark that says that all of it is durable, then ends the log. Every later call gets
    /// [`WalError::Closed`].
    ///
    /// # Errors
    /// Of class stop.
    pub async fn close(&self) -> Result<(), WalError> {
        self.ask(0, Request::Close).await
    }

    /// Figures of the log.
    pub fn stats(&self) -> WalStats {
        self.handle.queue.stats()
    }

    /// How far the log reaches durably: all that was acknowledged lies below. It rises with all that is acknowledged, and
    /// with each start.
    pub fn height(&self) -> LogHeight {
        self.stats().height
    }

    /// How far the log reached when it was opened, by what was found of it. If nothing was taken away from it since, that is
    /// at least as far as [`Wal::height`] said at any time before.
    pub fn found_height(&self) -> LogHeight {
        self.handle.found
    }

    /// What the log bounds, and the most of each that there was since it was opened.
    pub fn bounded(&self) -> Vec<Bounded> {
        let (limits, stats) = (Limits::of(self.handle.queue.options()), self.stats());
        let mut table = self.handle.bounds.table();
        table.extend([
            Bounded { name: "log: bytes admitted", bound: limits.admitted, high: stats.admitted_bytes_worst },
            Bounded { name: "log: bytes in the queue", bound: limits.queue, high: stats.queue_bytes_worst },
            Bounded { name: "log: bytes of segments", bound: limits.live, high: stats.live_bytes_worst },
            Bounded { name: "log: groups", bound: GROUPS_MAX as u64, high: stats.groups_worst },
        ]);
        table
    }

    /// Counts the entries that groups keep in memory, over all groups.
    pub(crate) fn memory(&self) -> &Gauge {
        &self.handle.memory
    }

    /// Whether the log has ended, by a failure or because it was closed.
    pub fn is_ended(&self) -> bool {
        self.handle.queue.is_ended()
    }

    /// Waits until the log has ended, and says why: [`WalError::Failed`] if the device failed, [`WalError::Closed`] if it
    /// was closed or its writer is gone. Whoever runs a node must watch this: after the end nothing is durable any more.
    pub async fn ended(&self) -> WalError {
        self.handle.queue.ended().await
    }

    async fn ask(&self, group: u64, request: Request) -> Result<(), WalError> {
        let (answer, answered) = oneshot::channel();
        let done = Completion::new(move |result| {
            let _nobody_waits = answer.send(result);
        });
        self.handle.queue.put(group, request, done)?;
        answered.await.unwrap_or(Err(WalError::Closed))
    }
}

fn limit(what: &'static str, bytes: &Bytes, limit: usize) -> Result<(), WalError> {
    if bytes.len() <= limit {
        return Ok(());
    }
    Err(WalError::TooLarge { what, bytes: bytes.len() as u64, limit: limit as u64 })
}

/// The answer for the caller. The writer needs only to know where entries stand and how long they are.
fn recovered(loaded: &Loaded) -> Recovered {
    let mut recovered = Recovered { unattributed: loaded.unattributed, ..Recovered::default() };
    for (id, group) in &loaded.groups {
        if let Some(found) = group.state.suspect {
            recovered.suspect.insert(*id, found);
            continue;
        }
        let entries = group.entries.iter().map(|(index, (_, payload))| (*index, payload.clone())).collect();
        let state = &group.state;
        let (vote, committed, purged) = (state.vote.clone(), state.committed.clone(), state.purged.clone());
        recovered.groups.insert(*id, RecoveredGroup { vote, committed, purged, entries });
    }
    recovered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::frame::{self, FrameHeader, FrameTitle, Position};
    use crate::wal::segment::SegmentHeader;
    use stoa_env::RealClock;
    use stoa_env::disk::RealDisk;

    #[tokio::test]
    async fn on_a_real_disk_a_log_that_was_closed_opens_with_all_it_took() {
        fn handle<T: Clone + Send + Sync>(_: &T) {}
        let dir = tempfile::tempdir().unwrap();
        let options = WalOptions { reserve_bytes: 0, segment_bytes: 8 << 10, ..WalOptions::default() };
        let identity = WalIdentity { cluster: 1, node: 2 };
        for start in 0..3u64 {
            let disk = RealDisk::new(dir.path()).unwrap();
            let clock = Arc::new(RealClock);
            let (wal, found) = Wal::open(disk, "wal".into(), identity, options.clone(), clock).await.unwrap();
            handle(&wal);
            assert!(found.suspect.is_empty());
            assert_eq!(found.groups.get(&5).map_or(0, |group| group.entries.len()) as u64, start * 40);
            for index in start * 40..(start + 1) * 40 {
                wal.append(5, vec![(index, Bytes::from(vec![7; 500]))], |result| result.unwrap()).unwrap();
            }
            wal.save_vote(5, Bytes::from_static(b"vote")).await.unwrap();
            wal.close().await.unwrap();
            assert!(wal.stats().segments >= 2);
        }
    }

    #[tokio::test]
    async fn a_segment_that_says_it_follows_a_later_one_is_damage_and_the_log_opens() {
        let dir = tempfile::tempdir().unwrap();
        let identity = WalIdentity { cluster: 1, node: 2 };
        let open = || async {
            let options = WalOptions { reserve_bytes: 0, ..WalOptions::default() };
            let disk = RealDisk::new(dir.path()).unwrap();
            Wal::open(disk, "wal".into(), identity, options, Arc::new(RealClock)).await.unwrap()
        };
        let (wal, _) = open().await;
        wal.save_vote(5, Bytes::from_static(b"vote")).await.unwrap();
        wal.close().await.unwrap();
        let path = std::fs::read_dir(dir.path().join("wal")).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        let id = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        for previous in [id - 1, id, id + 1, u64::MAX] {
            let mut bytes = whole.clone();
            let at = Position { segment: id, offset: 0 };
            let found = frame::decode_header(&bytes, at, identity.salt()).unwrap();
            let payload = frame::decode_payload(&bytes, &found).unwrap();
            let header = SegmentHeader { previous, ..SegmentHeader::decode(payload).ok().unwrap() }.encode();
            let FrameHeader { kind, at, group, sequence, durable, index, .. } = found;
            let mut forged = Vec::new();
            let title = FrameTitle { kind, at, group, sequence, durable, index };
            frame::encode(&mut forged, title, &header, identity.salt());
            bytes[..forged.len()].copy_from_slice(&forged);
            std::fs::remove_dir_all(dir.path().join("wal")).unwrap();
            std::fs::create_dir(dir.path().join("wal")).unwrap();
            std::fs::write(&path, bytes).unwrap();
            let (wal, found) = open().await;
            assert_eq!(found.unattributed.is_some(), previous >= id, "{previous} before {id}");
            wal.close().await.unwrap();
        }
    }
}
