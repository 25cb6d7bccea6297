//! Timing of replication. What must hold between the numbers is checked once, at start, with both numbers in the message.

use std::time::Duration;

use stoa_env::planted;

/// Timing of all groups of a node. Equal on all nodes is wise; safety does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftTiming {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest wait of a follower before it campaigns, after the leader's lease has run out.
    pub election_min: Duration,
    /// Longest such wait. openraft takes this as the leader's lease, too.
    pub election_max: Duration,
    /// Longest one-way delay between two zones in health.
    pub zone_delay_max: Duration,
    /// Longest fdatasync of the log in health.
    pub fsync_max: Duration,
    /// How much faster or slower than true time a node's clock may run, in millionths.
    pub clock_drift_ppm: u32,
}

impl Default for RaftTiming {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(600),
            zone_delay_max: Duration::from_millis(5),
            fsync_max: Duration::from_millis(50),
            clock_drift_ppm: 10_000,
        }
    }
}

/// Two numbers of a [`RaftTiming`] that do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimingError(String);

impl RaftTiming {
    /// The leader's lease: a follower that heard its leader grants no vote for this long.
    pub fn lease(&self) -> Duration {
        self.election_max
    }

    /// How long after a start a replica neither votes nor campaigns: the lease that it may have granted before, by the
    /// slowest allowed clock. openraft forgets that lease at a restart.
    pub fn silence_after_start(&self) -> Duration {
        self.lease() + self.lease() * self.clock_drift_ppm / 1_000_000
    }

    /// How old a quorum's acknowledgement may be for a lease read: the lease less the drift of both clocks. The leader counts
    /// from when it sent what was acknowledged, each follower from when it got that, which is later. With a slow clock here
    /// and a fast one there, `age / (1 - drift)` of true time must not be more than `lease / (1 + drift)`.
    ///
    /// What a lease read assumes, all of it declared here or in the configuration of the cluster:
    /// 1. No clock drifts further than `clock_drift_ppm`.
    /// 2. Clocks run on while their machine is suspended.
    /// 3. A replica that starts again keeps quiet for [`silence_after_start`](Self::silence_after_start).
    /// 4. A leader that hands leadership over gives no lease read from then on: voters let its successor into the lease.
    ///
    /// 5. All nodes of a cluster have the same timing: a voter waits out its own lease, not the leader's.
    ///
    /// `replica.rs` keeps 3 and, with openraft, 4. Nothing checks 5.
    pub fn lease_read_age_max(&self) -> Duration {
        let drift_ppm = if planted!(LeaseWithoutMargin) { 0 } else { self.clock_drift_ppm };
        self.lease().saturating_sub(self.lease() * drift_ppm * 2 / 1_000_000)
    }

    /// Checks the relations:
    /// 1. A follower waits for at least three heartbeats: one may be lost and one late.
    /// 2. A heartbeat's round trip with an fdatasync in it ends before the shortest election wait.
    /// 3. Election waits are spread by at least two round trips, or followers would campaign at once.
    /// 4. Drift leaves a lease worth having.
    pub fn check(&self) -> Result<(), TimingError> {
        let fail = |text: String| Err(TimingError(text));
        let round_trip = self.zone_delay_max * 2 + self.fsync_max;
        if self.heartbeat.is_zero() || self.election_min < self.heartbeat * 3 {
            return fail(format!(
                "the shortest election wait ({:?}) must be at least 3 heartbeats ({:?} each), and a heartbeat above zero",
                self.election_min, self.heartbeat
            ));
        }
        if self.election_min < self.heartbeat + round_trip {
            return fail(format!(
                "the shortest election wait ({:?}) must be at least a heartbeat ({:?}) and a round trip between zones with \
                 its fdatasync ({round_trip:?})",
                self.election_min, self.heartbeat
            ));
        }
        if self.election_max < self.election_min + self.zone_delay_max * 4 || self.election_max == self.election_min {
            return fail(format!(
                "the longest election wait ({:?}) must be above the shortest ({:?}) by at least two round trips between \
                 zones ({:?} one way)",
                self.election_max, self.election_min, self.zone_delay_max
            ));
        }
        if self.clock_drift_ppm > 100_000 {
            return fail(format!(
                "a clock drift of {} ppm is more than the 100000 (a tenth) that leases can carry",
                self.clock_drift_ppm
            ));
        }
        Ok(())
    }

    pub(crate) fn openraft_config(&self, partition: stoa_protocol::PartitionId) -> openraft::Config {
        openraft::Config {
            cluster_name: format!("partition {partition}"),
            heartbeat_interval: self.heartbeat.as_millis() as u64,
            election_timeout_min: self.election_min.as_millis() as u64,
            election_timeout_max: self.election_max.as_millis() as u64,
            install_snapshot_timeout: crate::network::SNAPSHOT_CHUNK_LIMIT.as_millis() as u64,
            max_payload_entries: 256,
            // Snapshots are triggered by the bytes of the log (replica.rs), not by counting entries of any size.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // The log is purged by our own call alone (replica.rs): Raft's own rule forgets that more has been asked for.
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_pre_vote: Some(true),
            // A transient machine must not lead before it has replayed: a restarted leader is elected again.
            enable_leader_restore: Some(false),
            // A leader that was replaced hands leadership over by our own call when its node stops it (`Replica`): Raft's
            // own way would void its lease without a word to those who count on it.
            removed_leader_step_down: openraft::StepDownPolicy::Never,
            // A replica campaigns only when its silence after the start has passed (replica.rs).
            enable_elect: false,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_relation_is_refused_with_both_numbers() {
        let good = RaftTiming::default();
        good.check().unwrap();
        let ms = Duration::from_millis;
        let cases = [
            (RaftTiming { election_min: ms(299), ..good }, "299ms"),
            (RaftTiming { heartbeat: ms(0), ..good }, "above zero"),
            (RaftTiming { fsync_max: ms(500), ..good }, "510ms"),
            (RaftTiming { election_max: ms(405), ..good }, "405ms"),
            (RaftTiming { clock_drift_ppm: 200_000, ..good }, "200000"),
        ];
        for (timing, wanted) in cases {
            let message = timing.check().unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn openraft_gets_the_settings_that_its_traps_demand() {
        let timing = RaftTiming::default();
        let config = timing.openraft_config(stoa_protocol::PartitionId(1)).validate().unwrap();
        assert_eq!(config.enable_pre_vote, Some(true), "a replica that was cut off must not raise terms");
        assert_eq!(config.enable_leader_restore, Some(false), "a transient machine must replay before it leads");
        assert!(!config.enable_elect, "nobody campaigns in the silence after a start");
        assert!(matches!(config.snapshot_policy, openraft::SnapshotPolicy::Never), "bytes decide, not entries");
        assert!(config.install_snapshot_timeout > 200, "openraft's own limit is shorter than an install");
        assert_eq!(Duration::from_millis(config.election_timeout_max), timing.lease());
    }

    #[test]
    fn the_silence_covers_the_lease_by_the_slowest_clock() {
        let timing = RaftTiming::default();
        assert_eq!(timing.silence_after_start(), Duration::from_millis(606));
        assert!(timing.lease_read_age_max() < timing.lease());
    }
}
