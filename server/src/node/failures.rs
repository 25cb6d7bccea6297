//! Replicas that do not start: why, and whether it may pass.

use std::sync::Weak;
use std::time::Duration;

use stoa_env::{BootTime, Disk, Transport};
use stoa_protocol::{PartitionId, ROOT_PARTITION, ReplicaId};
use stoa_raft::wal::RecoveredGroup;

use super::Node;

/// The pause after a start that failed for a reason that may pass.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Why a replica does not start.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The replica; none if the log is damaged, whosever it was.
    replica: Option<ReplicaId>,
    /// In words.
    pub why: String,
    /// When it is tried again; never, if the reason does not pass by itself.
    retry: Option<BootTime>,
}

impl Failure {
    /// The log of a group is damaged.
    pub(crate) fn of_log(why: String) -> Self {
        Self { replica: None, why, retry: None }
    }

    /// A replica that never starts by these files.
    pub(crate) fn of_replica(replica: ReplicaId, why: String) -> Self {
        Self { replica: Some(replica), why, retry: None }
    }

    /// A start that failed. What files say does not pass, nor what happened inside Raft; a device that did not answer
    /// well may do so the next time.
    pub(crate) fn of_start(replica: ReplicaId, error: &std::io::Error, now: BootTime) -> Self {
        use std::io::ErrorKind::{InvalidData, Other};
        let passes = !matches!(error.kind(), InvalidData | Other);
        Self { replica: Some(replica), why: error.to_string(), retry: passes.then(|| now.plus(RETRY_PAUSE)) }
    }

    /// Whether it may pass by itself.
    pub(crate) fn may_pass_later(&self) -> bool {
        self.retry.is_some()
    }

    /// Whether a replica may be tried in spite of it: it is another one, or it is time to try again.
    pub(crate) fn may_pass(&self, replica: ReplicaId, now: BootTime) -> bool {
        self.replica != Some(replica) || self.retry.is_some_and(|at| now >= at)
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// The present moment, in boot time.
    pub(crate) fn now(&self) -> BootTime {
        self.env.context.clock.boot()
    }

    /// What recovery found of a group, or has left to find.
    pub(crate) fn recovered_of(&self, partition: PartitionId) -> RecoveredGroup {
        let recovered = self.recovered.lock().unwrap_or_else(|e| e.into_inner());
        recovered.get(&partition.0).cloned().unwrap_or_default()
    }

    /// A start has failed, and left this of what recovery found: the next one in this process begins with it.
    pub(crate) fn keep_recovered(&self, partition: PartitionId, left: RecoveredGroup) {
        self.recovered.lock().unwrap_or_else(|e| e.into_inner()).insert(partition.0, left);
    }

    /// What recovery found of a group counts no more: it has been started by it, or it has been erased.
    pub(crate) fn forget_recovered(&self, partition: PartitionId) {
        self.recovered.lock().unwrap_or_else(|e| e.into_inner()).remove(&partition.0);
        self.failures.lock().unwrap_or_else(|e| e.into_inner()).remove(&partition);
    }

    /// Why a group must not start because the log is damaged, if so. A group whose earlier life has been `erased` has
    /// nothing to do with what the log may have lost.
    pub(crate) fn damaged(&self, partition: PartitionId, erased: bool) -> Option<String> {
        if let Some(failure) = self.failure(partition).filter(|failure| failure.replica.is_none()) {
            return Some(failure.why);
        }
        let known = self.recovered.lock().unwrap_or_else(|e| e.into_inner()).contains_key(&partition.0);
        if known || erased { None } else { self.lost.clone() }
    }

    pub(crate) fn failure(&self, partition: PartitionId) -> Option<Failure> {
        self.failures.lock().unwrap_or_else(|e| e.into_inner()).get(&partition).cloned()
    }

    pub(crate) fn fail_replica(&self, partition: PartitionId, failure: Failure) {
        let again = failure.retry.is_some();
        tracing::error!(partition = partition.0, why = failure.why, again, "a replica does not start");
        self.failures.lock().unwrap_or_else(|e| e.into_inner()).insert(partition, failure);
    }

    /// Notes that the cluster knows this node with another data directory, and says once what to do.
    pub(crate) fn refuse_data(&self, why: String) {
        let mut refused = self.refused.lock().unwrap_or_else(|e| e.into_inner());
        if refused.is_none() {
            let id = self.info.id;
            let why = format!(
                "{why}: its data is gone, so nothing of what it had is started; bring its data directory back, or have it \
                 built anew in this one: stoa replica replace --node {id}"
            );
            tracing::error!(why, "this node is not part of the cluster");
            *refused = Some(why);
        }
    }

    /// Notes that the cluster knows this node with this data directory.
    pub(crate) fn accept_data(&self) {
        *self.refused.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

/// Starts this node's replica of the root group, again and again until it starts or fails for a reason that does not pass.
pub(super) async fn start_root_again<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        stoa_env::sleep(RETRY_PAUSE).await;
        let Some(strong) = node.upgrade() else { return };
        let Err(failure) = strong.try_root().await else { return };
        let again = failure.may_pass_later();
        strong.fail_replica(ROOT_PARTITION, failure);
        if !again {
            return;
        }
    }
}
