//! A [`Machine`] and its snapshots, as openraft sees them. The machine lives in memory; the newest snapshot on disk and
//! the log after it make it again at start.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, Snapshot};
use stoa_env::{Disk, planted};
use stoa_protocol::LogIndex;
use tokio::sync::Notify;

use crate::machine::{ApplyError, Machine, SnapshotPart};
use crate::snapshots::{SnapshotHandle, SnapshotStore, reach};
use crate::types::{LogId, Reply, SnapshotMeta, StoaTypes, StoredMembership};

/// A machine with its place in the log.
pub struct StateMachine<D, M> {
    machine: M,
    snapshots: SnapshotStore<D>,
    newest: Arc<Mutex<Option<SnapshotHandle<D>>>>,
    builds: Arc<Builds>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Notified when the machine has been restored.
    restored: Arc<Notify>,
}

/// What is known of how a replica's snapshots come about.
#[derive(Debug, Default)]
pub struct Builds {
    written: AtomicU64,
    failed: AtomicU32,
    pausing: AtomicBool,
}

impl Builds {
    /// Bytes that the last snapshot wrote, without the chunks that it kept of the one before. Of one that an earlier process
    /// wrote, or another replica, it is not known what was kept: all of its bytes. 0 if there is none.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether one was given up a moment ago, and none is begun yet.
    pub fn is_pausing(&self) -> bool {
        self.pausing.load(Ordering::Relaxed)
    }

    fn note_written(&self, bytes: u64) {
        self.written.store(bytes, Ordering::Relaxed);
    }
}

impl<D: Disk, M: Machine> StateMachine<D, M> {
    /// The machine as its newest snapshot has it, or as it is given if there is none.
    pub async fn open(
        mut machine: M,
        snapshots: SnapshotStore<D>,
        newest: Option<SnapshotHandle<D>>,
    ) -> io::Result<Self> {
        let (mut applied, mut membership) = (None, StoredMembership::default());
        let restored = Arc::new(Notify::new());
        let builds = Arc::new(Builds::default());
        if let Some(handle) = &newest {
            restore(&mut machine, handle).await?;
            builds.note_written(handle.bytes());
            applied = handle.meta.last_log_id;
            membership = handle.meta.last_membership.clone();
            restored.notify_one();
        }
        Ok(Self { machine, snapshots, newest: Arc::new(Mutex::new(newest)), builds, applied, membership, restored })
    }

    /// Has the machine take in what it was restored from; see [`Machine::thaw`].
    pub fn thaw(&mut self, rows: usize) -> io::Result<bool> {
        self.machine.thaw(rows)
    }

    /// Notified when the machine has been restored.
    pub fn restored(&self) -> Arc<Notify> {
        self.restored.clone()
    }

    /// How its snapshots come about.
    pub fn builds(&self) -> Arc<Builds> {
        self.builds.clone()
    }

    /// The machine, between two commands.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Lets the machine do some of what commands leave for quiet times; says whether there is more.
    pub fn tidy(&mut self) -> bool {
        self.machine.tidy()
    }

    fn newest(&self) -> Option<SnapshotHandle<D>> {
        self.newest.lock().expect("nothing panics while it holds a handle").clone()
    }
}

/// Reads or maps all chunks, then restores: the machine is replaced whole or not at all.
async fn restore<D: Disk, M: Machine>(machine: &mut M, handle: &SnapshotHandle<D>) -> io::Result<()> {
    let chunks = if M::CHECKS_CHUNKS { handle.map_all().await? } else { handle.read_all().await? };
    machine.restore(chunks)
}

impl<D: Disk, M: Machine> RaftStateMachine<StoaTypes> for StateMachine<D, M> {
    type SnapshotData = SnapshotHandle<D>;
    type SnapshotBuilder = SnapshotBuilder<D>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<StoaTypes>, io::Error>> + Unpin + Send,
    {
        let mut entries = std::pin::pin!(entries.peekable());
        while let Some(item) = entries.next().await {
            let (mut entry, responder) = item?;
            let index = LogIndex(entry.log_id.index);
            assert!(
                self.applied.as_ref().is_none_or(|applied| applied.index < index.0),
                "entry {index} comes after {:?} was applied",
                self.applied
            );
            // Followers alone, so that replicas come to differ.
            if planted!(ApplyOutOfOrder)
                && responder.is_none()
                && let Some(Ok((next, None))) = entries.as_mut().peek_mut().await
            {
                std::mem::swap(&mut entry.payload, &mut next.payload);
            }
            let outcome = match entry.payload {
                // Followers alone, so that replicas come to differ, and none of the first, by which a cluster comes to be.
                EntryPayload::Normal(_) if planted!(SkipEntry) && responder.is_none() && index.0 % 64 == 37 => {
                    self.machine.skip(index);
                    None
                }
                EntryPayload::Normal(command) => {
                    let machine = &mut self.machine;
                    // A panic here is a bug that every replica has: this group stops on this node, and nothing else.
                    let result = std::panic::catch_unwind(AssertUnwindSafe(|| machine.apply(index, &command.bytes)));
                    let result = result.map_err(|_| io::Error::other(format!("applying entry {index} panicked")))?;
                    Some(match result {
                        Ok(answer) => Ok(answer),
                        Err(ApplyError::Refused(error)) => Err(error),
                        Err(error) => return Err(io::Error::other(format!("applying entry {index}: {error}"))),
                    })
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.machine.skip(index);
                    None
                }
                EntryPayload::Blank => {
                    self.machine.skip(index);
                    None
                }
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(Reply { index, outcome });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let last_log_id = match self.applied {
            Some(id) if planted!(SnapshotWithoutTail) => Some(LogId { index: id.index + 2, ..id }),
            applied => applied,
        };
        let meta = SnapshotMeta { last_log_id, last_membership: self.membership.clone() };
        let base = self.newest();
        let ends = match &base {
            // What cannot be read is not kept, nor anything of what was found damaged.
            Some(handle) if !handle.is_rotten() => handle.ends().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the last snapshot cannot be read; the next one keeps nothing of it");
                None
            }),
            _ => None,
        };
        SnapshotBuilder {
            parts: Some(self.machine.snapshot(ends.as_ref())).into(),
            base,
            snapshots: self.snapshots.clone(),
            newest: self.newest.clone(),
            builds: self.builds.clone(),
            meta,
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotHandle<D>) -> Result<(), io::Error> {
        let snapshot = self.snapshots.adopt(snapshot).await?;
        restore(&mut self.machine, &snapshot).await?;
        self.builds.note_written(snapshot.bytes());
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.restored.notify_one();
        shelve(&self.newest, snapshot);
        self.snapshots.tidy().await;
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<CommittedLeader, u64, Member, SnapshotHandle<D>>>, io::Error> {
        Ok(self.newest().map(|handle| Snapshot { meta: handle.meta.clone(), snapshot: handle }))
    }
}

/// Takes a snapshot for the newest unless there is a newer one: a build may end after an install that began later.
fn shelve<D>(newest: &Mutex<Option<SnapshotHandle<D>>>, snapshot: SnapshotHandle<D>) {
    let mut newest = newest.lock().expect("nothing panics while it holds a handle");
    let covered = |handle: &SnapshotHandle<D>| reach(handle.meta.last_log_id.as_ref());
    if newest.as_ref().is_none_or(|known| covered(known) <= covered(&snapshot)) {
        *newest = Some(snapshot);
    }
}

use crate::types::Member;
type CommittedLeader = openraft::type_config::alias::CommittedLeaderIdOf<StoaTypes>;

/// The pause after a snapshot that was given up; twice as long after each one more, so many times at the most.
const GIVEN_UP_PAUSE: Duration = Duration::from_millis(250);
const GIVEN_UP_DOUBLINGS: u32 = 5;

type Parts = Box<dyn Iterator<Item = io::Result<SnapshotPart>> + Send>;

/// Writes one snapshot, chunk by chunk, while the machine goes on.
pub struct SnapshotBuilder<D> {
    // In a mutex because openraft asks for a builder that threads may share; only `build_snapshot` uses it.
    parts: Mutex<Option<Parts>>,
    /// The snapshot before, which chunks may be kept of.
    base: Option<SnapshotHandle<D>>,
    snapshots: SnapshotStore<D>,
    newest: Arc<Mutex<Option<SnapshotHandle<D>>>>,
    builds: Arc<Builds>,
    meta: SnapshotMeta,
}

impl<D: Disk> RaftSnapshotBuilder<StoaTypes> for SnapshotBuilder<D> {
    type SnapshotData = SnapshotHandle<D>;

    async fn build_snapshot(&mut self) -> Result<Snapshot<CommittedLeader, u64, Member, SnapshotHandle<D>>, io::Error> {
        let parts = self.parts.lock().expect("only this call locks it").take();
        let parts = parts.ok_or_else(|| io::Error::other("a snapshot is built once"))?;
        match self.write(parts).await {
            Ok(handle) => {
                self.builds.failed.store(0, Ordering::Relaxed);
                shelve(&self.newest, handle.clone());
                self.snapshots.tidy().await;
                Ok(Snapshot { meta: handle.meta.clone(), snapshot: handle })
            }
            // An error would halt the group, and a full device or a failed sync need not come again: nothing was built, the
            // last one and the log stay, and whoever wants the log cut asks again. The next one is written to new files.
            Err(error) => {
                let failed = self.builds.failed.fetch_add(1, Ordering::Relaxed).min(GIVEN_UP_DOUBLINGS);
                let pause = GIVEN_UP_PAUSE * (1 << failed);
                tracing::warn!(%error, ?pause, "a snapshot was given up");
                self.snapshots.tidy().await;
                // Raft takes one at a time, so none is tried meanwhile.
                self.builds.pausing.store(true, Ordering::Relaxed);
                stoa_env::sleep(pause).await;
                self.builds.pausing.store(false, Ordering::Relaxed);
                let last = self.newest.lock().expect("nothing panics while it holds a handle").clone();
                let handle = last.unwrap_or_else(|| self.snapshots.nothing());
                Ok(Snapshot { meta: handle.meta.clone(), snapshot: handle })
            }
        }
    }
}

impl<D: Disk> SnapshotBuilder<D> {
    async fn write(&self, parts: Parts) -> io::Result<SnapshotHandle<D>> {
        let mut writer = self.snapshots.create(self.meta.clone()).await?;
        let files = self.base.as_ref().map_or(Ok(Vec::new()), |base| base.files())?;
        let mut bytes = 0;
        for part in parts {
            let written = match (part, &self.base) {
                (Ok(SnapshotPart::Chunk(chunk)), _) => {
                    bytes += chunk.len() as u64;
                    writer.write(chunk).await
                }
                (Ok(SnapshotPart::Kept(place)), Some(base)) => match files.get(place as usize) {
                    Some(files) => writer.keep(base, files.clone()).await,
                    None => Err(io::Error::other(format!("there is no chunk {place} to keep"))),
                },
                (Ok(SnapshotPart::Kept(_)), None) => Err(io::Error::other("a chunk is kept of no snapshot")),
                (Err(error), _) => Err(error),
            };
            if let Err(error) = written {
                // Its bytes may be what fills the device.
                writer.abandon().await?;
                return Err(error);
            }
        }
        let handle = writer.finish().await?;
        self.builds.note_written(bytes);
        Ok(handle)
    }
}
