//! A snapshot on its way here. One transfer at a time for each group:
//! - It begins with the sender's vote, which goes through openraft first: a sender that is deposed is told so before it
//!   sends a byte, so two senders cannot replace each other's transfer over and over; and this replica's vote is durable
//!   before the first byte of a snapshot of that term is.
//! - The same snapshot again (equal meta data, lengths and checksums) goes on where it stopped: a sender that is
//!   interrupted does not begin anew.
//! - A snapshot that is applied already is answered with success.
//! - While it is installed, a new begin waits; then it finds the snapshot applied. The install goes on if its caller has
//!   given up. A few calls wait, and more are refused: senders that are in earnest send them again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::Snapshot;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use stoa_env::{BootTime, Bounds, Disk, Gauge, Hold};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::envelope::RaftAnswer;
use crate::machine::Machine;
use crate::runtime::NodeContext;
use crate::snapshots::{ChunkInfo, SnapshotStore, SnapshotWriter, reach};
use crate::state_machine::StateMachine;
use crate::types::{SnapshotMeta, StoaTypes, Vote};

/// A transfer that nothing was heard of for so long is dropped, and its files removed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Calls of transfers that are here at once, of one group. A leader has one on its way; one that it has given up and one of
/// a leader before it may be here as well, each once more if the network has doubled it.
const CALLS_MAX: usize = 8;

type Raft<D, M> = openraft::Raft<StoaTypes, StateMachine<D, M>>;

/// The place for the one transfer.
pub(crate) struct Incoming<D> {
    snapshots: SnapshotStore<D>,
    slot: Arc<Mutex<Option<Transfer<D>>>>,
    calls: Calls,
}

/// Those that are here.
struct Calls {
    places: Arc<Semaphore>,
    gauge: Gauge,
}

/// The place of a call that is here.
struct Call(#[allow(dead_code)] (Hold, OwnedSemaphorePermit)); // held, never read; the count falls before the permit is back

impl Calls {
    fn new(bounds: &Bounds) -> Self {
        let gauge = bounds.gauge("calls of snapshot transfers of a group", CALLS_MAX as u64);
        Self { places: Arc::new(Semaphore::new(CALLS_MAX)), gauge }
    }

    fn enter(&self) -> Result<Call, String> {
        let refused = |_| format!("{CALLS_MAX} calls of snapshot transfers are here already; send it again");
        let permit = self.places.clone().try_acquire_owned().map_err(refused)?;
        Ok(Call((self.gauge.hold(1), permit)))
    }
}

struct Transfer<D> {
    number: u64,
    writer: SnapshotWriter<D>,
    chunks: Vec<ChunkInfo>,
    touched: BootTime,
}

/// What a sender announces.
pub(crate) struct Announcement {
    pub transfer: u64,
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub chunks: Vec<ChunkInfo>,
}

impl<D: Disk> Incoming<D> {
    pub(crate) fn new(snapshots: SnapshotStore<D>, bounds: &Bounds) -> Self {
        Self { snapshots, slot: Arc::default(), calls: Calls::new(bounds) }
    }

    /// Answers where the sender should go on, or that there is no need to.
    pub(crate) async fn begin<M: Machine>(
        &self,
        raft: &Raft<D, M>,
        now: BootTime,
        asked: Announcement,
    ) -> Result<RaftAnswer, String> {
        let _call = self.calls.enter()?;
        let heartbeat =
            AppendEntriesRequest { vote: asked.vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        match raft.append_entries(heartbeat).await.map_err(|e| e.to_string())? {
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => {}
            AppendEntriesResponse::HigherVote(vote) => {
                return Ok(RaftAnswer::SnapshotInstalled(SnapshotResponse { vote }));
            }
            AppendEntriesResponse::Conflict => {
                return Err("a log that begins at nothing conflicts with this one".into());
            }
        }
        let mut slot = self.slot.lock().await;
        let applied = raft.metrics().borrow_watched().last_applied;
        if reach(applied.as_ref()) >= reach(asked.meta.last_log_id.as_ref()) {
            drop_transfer(&mut slot).await?;
            return Ok(RaftAnswer::SnapshotInstalled(SnapshotResponse { vote: asked.vote }));
        }
        let same = |t: &&mut Transfer<D>| *t.writer.meta() == asked.meta && t.chunks == asked.chunks;
        if let Some(transfer) = slot.as_mut().filter(same) {
            (transfer.number, transfer.touched) = (asked.transfer, now);
            return Ok(RaftAnswer::SnapshotGoOn { next: transfer.writer.chunks().len() as u32 });
        }
        drop_transfer(&mut slot).await?;
        let writer = self.snapshots.create(asked.meta).await.map_err(|e| e.to_string())?;
        *slot = Some(Transfer { number: asked.transfer, writer, chunks: asked.chunks, touched: now });
        Ok(RaftAnswer::SnapshotGoOn { next: 0 })
    }

    /// Takes the next chunk, or one again whose answer was lost.
    pub(crate) async fn chunk(
        &self,
        now: BootTime,
        transfer: u64,
        number: u32,
        bytes: Bytes,
    ) -> Result<RaftAnswer, String> {
        let _call = self.calls.enter()?;
        let mut slot = self.slot.lock().await;
        let incoming = slot.as_mut().filter(|i| i.number == transfer).ok_or("no such transfer is under way")?;
        incoming.touched = now;
        let written = incoming.writer.chunks().len();
        if number as usize + 1 == written {
            return Ok(RaftAnswer::SnapshotGoOn { next: written as u32 });
        }
        let info = *incoming.chunks.get(written).ok_or("more chunks than were announced")?;
        if number as usize != written || bytes.len() != info.bytes as usize || crc32fast::hash(&bytes) != info.crc {
            return Err(format!("chunk {number} is not the one that is missing, {written}, or it is damaged"));
        }
        if let Err(error) = incoming.writer.write_file(bytes, info.continued).await {
            // The file may be there in part, or fill the device: the transfer begins anew.
            drop_transfer(&mut slot).await?;
            return Err(error.to_string());
        }
        Ok(RaftAnswer::SnapshotGoOn { next: written as u32 + 1 })
    }

    /// Installs what has come whole.
    pub(crate) async fn install<M: Machine>(
        &self,
        raft: &Raft<D, M>,
        context: &NodeContext,
        transfer: u64,
        vote: Vote,
    ) -> Result<RaftAnswer, String> {
        let _call = self.calls.enter()?;
        let slot = self.slot.clone().lock_owned().await;
        if !slot.as_ref().is_some_and(|i| i.number == transfer && i.writer.chunks() == i.chunks) {
            return Err("no such transfer is under way, or chunks are missing".into());
        }
        let (raft, context) = (raft.clone(), context.clone());
        let installing =
            stoa_env::spawn("install a snapshot", async move { context.run(install_whole(raft, slot, vote)).await });
        match installing.await {
            Ok(Some(answer)) => answer,
            _ => Err("the install ended with a panic".into()),
        }
    }

    /// Ends all transfers, and all writing of snapshots.
    pub(crate) async fn close(&self) {
        self.snapshots.close().await;
    }

    /// Drops a transfer that nothing was heard of for long, and snapshots that nobody reads any more.
    pub(crate) async fn tidy(&self, now: BootTime) {
        self.snapshots.tidy().await;
        let Ok(mut slot) = self.slot.try_lock() else { return };
        if slot.as_ref().is_some_and(|transfer| now.since(transfer.touched) > IDLE_MAX)
            && let Err(why) = drop_transfer(&mut slot).await
        {
            tracing::warn!(why, "a snapshot that did not come whole could not be removed");
        }
    }
}

async fn drop_transfer<D: Disk>(slot: &mut Option<Transfer<D>>) -> Result<(), String> {
    match slot.take() {
        Some(old) => old.writer.abandon().await.map_err(|e| e.to_string()),
        None => Ok(()),
    }
}

async fn install_whole<D: Disk, M: Machine>(
    raft: Raft<D, M>,
    mut slot: OwnedMutexGuard<Option<Transfer<D>>>,
    vote: Vote,
) -> Result<RaftAnswer, String> {
    let transfer = slot.take().expect("it was there when the lock was taken");
    let handle = transfer.writer.finish().await.map_err(|e| e.to_string())?;
    let snapshot = Snapshot { meta: handle.meta.clone(), snapshot: handle };
    let answer = raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string())?;
    Ok(RaftAnswer::SnapshotInstalled(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_beyond_the_bound_are_refused_until_one_has_left() {
        let bounds = Bounds::default();
        let calls = Calls::new(&bounds);
        let mut here: Vec<_> = (0..CALLS_MAX).map(|_| calls.enter().unwrap()).collect();
        assert!(calls.enter().is_err_and(|why| why.contains("send it again")));
        here.pop();
        let _again = calls.enter().unwrap();
        assert_eq!(bounds.table()[0].high, CALLS_MAX as u64);
    }
}
