//! How a replica's log is cut: when a snapshot is due, and what stays behind it.

use openraft::async_runtime::watch::WatchReceiver;
use stoa_env::Disk;

use crate::machine::Machine;
use crate::replica::Replica;

/// Entries that stay behind a snapshot, so that a follower that lags a little needs no snapshot.
const ENTRIES_KEPT: u64 = 32;

impl<D: Disk, M: Machine> Replica<D, M> {
    /// Bytes of entries that a start would have to apply: those after the last snapshot.
    pub fn replay_bytes(&self) -> u64 {
        let covered = self.raft.metrics().borrow_watched().snapshot.map(|id| id.index);
        self.log.bytes_after(covered)
    }

    /// Bytes that the last snapshot wrote ([`Builds::written`](crate::state_machine::Builds::written)).
    pub fn snapshot_written(&self) -> u64 {
        self.builds.written()
    }

    /// Whether a snapshot that is asked for is taken now, and covers more than the last one.
    pub fn can_snapshot(&self) -> bool {
        let covers_more = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.last_applied.map(|id| id.index) > metrics.snapshot.map(|id| id.index)
        };
        covers_more && !self.builds.is_pausing() && self.trouble().is_none()
    }

    /// Cuts the log: takes a snapshot once more than `after_max` bytes have been logged since the last one and some of it is
    /// applied, and lets go what the snapshot has, but for [`ENTRIES_KEPT`] for followers that lag, of `kept_max` bytes at the
    /// most. Returns once the request is with Raft, which takes one snapshot at a time.
    ///
    /// What counts is what came after the snapshot: entries that are kept behind it must not ask for another, which would
    /// change nothing, again and again.
    pub async fn cut_log(&self, after_max: u64, kept_max: u64) {
        self.incoming.tidy(self.context.clock.boot()).await;
        let (covered, applied, purged) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let index = |id: Option<crate::types::LogId>| id.map(|id| id.index);
            (index(metrics.snapshot), index(metrics.last_applied), index(metrics.purged))
        };
        let after = self.log.bytes_after(covered);
        let spare = covered.and_then(|covered| self.log.kept_behind(covered, ENTRIES_KEPT, kept_max));
        // Both, where both are due: while a snapshot is taken the next one may be wanted already.
        if let Some(upto) = spare.filter(|upto| Some(*upto) > purged)
            && let Err(fatal) = self.context.run(self.raft.trigger().purge_log(upto)).await
        {
            self.halted(fatal.to_string());
            return;
        }
        if after > after_max
            && applied > covered
            && let Err(fatal) = self.context.run(self.raft.trigger().snapshot()).await
        {
            self.halted(fatal.to_string());
        }
    }
}
