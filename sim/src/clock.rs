//! The clocks of one machine, over tokio's paused time: a rate and an offset of its own.

use stoa_env::{BootTime, Clock, WallTime};
use tokio::time::Instant;

/// Boot time at the start of a run: large, since openraft subtracts time limits from it.
const BOOT_BASE_NS: u64 = 1_000_000_000_000_000;
/// The calendar at the start of a run: 2026-01-01T00:00:00Z.
pub const WALL_BASE_US: i64 = 1_767_225_600_000_000;

/// A machine's clock. It outlives the processes that run there.
#[derive(Debug)]
pub struct SimClock {
    start: Instant,
    /// Deviation from true time in millionths.
    rate_ppm: i64,
    boot_offset_ns: u64,
    wall_offset_us: i64,
}

impl SimClock {
    /// A clock that starts now.
    pub fn new(start: Instant, rate_ppm: i64, boot_offset_ns: u64, wall_offset_us: i64) -> Self {
        Self { start, rate_ppm, boot_offset_ns, wall_offset_us }
    }

    fn elapsed_ns(&self) -> i128 {
        let true_ns = self.start.elapsed().as_nanos() as i128;
        true_ns + true_ns * i128::from(self.rate_ppm) / 1_000_000
    }
}

impl Clock for SimClock {
    fn boot(&self) -> BootTime {
        BootTime(BOOT_BASE_NS + self.boot_offset_ns + self.elapsed_ns() as u64)
    }

    fn wall(&self) -> WallTime {
        WallTime(WALL_BASE_US + self.wall_offset_us + (self.elapsed_ns() / 1_000) as i64)
    }
}
