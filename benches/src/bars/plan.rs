//! How large the runs of the bars are.

use std::time::Duration;

use crate::workloads::Sizes;

/// Sizes. The bars are for those of scale 1; at any other scale every row is void, whatever was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// 1 for the bars; less to see whether everything runs.
    pub scale: f64,
}

impl Plan {
    fn scaled(self, of: u64, least: u64) -> u64 {
        ((of as f64 * self.scale).round() as u64).max(least)
    }

    /// Rows of P1, P4, P5 and P7.
    pub fn rows(self) -> u64 {
        self.scaled(10_000_000, 20_000)
    }

    /// Rows of the clusters whose zones are apart, whose nodes are killed, and whose partitions are quiet.
    pub fn few_rows(self) -> u64 {
        self.scaled(200_000, 20_000)
    }

    /// Rows of Redis' hashes: a tenth, since each is 921 bytes there. Fewer rows are faster for it, if anything.
    pub fn hash_rows(self) -> u64 {
        self.scaled(1_000_000, 20_000)
    }

    /// Rows in the end of P3, P5 in process, and P9.
    pub fn depth_rows(self) -> u64 {
        self.scaled(20_000_000, 400_000)
    }

    /// How long one repetition is measured.
    pub fn repetition(self) -> Duration {
        Duration::from_millis(self.scaled(4_000, 500))
    }

    /// Repetitions.
    pub fn repetitions(self) -> usize {
        if self.scale < 1.0 { 1 } else { 3 }
    }

    /// How long P2 runs; a zone goes silent half way.
    pub fn loss_run(self) -> Duration {
        Duration::from_secs(self.scaled(60, 6))
    }

    /// Kills of P6.
    pub fn kills(self) -> usize {
        self.scaled(20, 2) as usize
    }

    /// Partitions of P8, and how long they are quiet.
    pub fn quiet(self) -> (u64, Duration) {
        (self.scaled(1_000, 30), Duration::from_secs(self.scaled(60, 3)))
    }

    /// The other workloads, for the table of runs.
    pub fn workloads(self) -> Sizes {
        Sizes { rows: self.few_rows(), seconds: 1, partitions: 64, one_way: Duration::ZERO }
    }

    /// Writes of P10.
    pub fn visible_writes(self) -> usize {
        self.scaled(500, 20) as usize
    }
}
