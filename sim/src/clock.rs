//! The clocks of one machine, over tokio's paused time: a rate and an offset of its own, a calendar that can be set, and
//! a suspension in which they stop.

use std::sync::{Mutex, MutexGuard};

use stoa_env::{BootTime, Clock, WallTime};
use tokio::time::Instant;

/// Boot time at the start of a run: large, since openraft subtracts time limits from it.
const BOOT_BASE_NS: u64 = 1_000_000_000_000_000;
/// The calendar at the start of a run: 2026-01-01T00:00:00Z.
pub const WALL_BASE_US: i64 = 1_767_225_600_000_000;

/// A machine's clock. It outlives the processes that run there.
#[derive(Debug)]
pub struct SimClock {
    boot_offset_ns: u64,
    /// Rate and calendar as the machine was set up with.
    own: (i64, i64),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// A true moment, and how much time the clock had counted then.
    since: Instant,
    counted_ns: i128,
    /// Deviation from true time in millionths.
    rate_ppm: i64,
    stopped: bool,
    wall_offset_us: i64,
}

impl State {
    fn counted_ns(&self) -> i128 {
        if self.stopped {
            return self.counted_ns;
        }
        let true_ns = self.since.elapsed().as_nanos() as i128;
        self.counted_ns + true_ns + true_ns * i128::from(self.rate_ppm) / 1_000_000
    }

    /// What has been counted so far stays, whatever changes now.
    fn settle(&mut self) {
        self.counted_ns = self.counted_ns();
        self.since = crate::world::now();
    }
}

impl SimClock {
    /// A clock that starts now.
    pub fn new(start: Instant, rate_ppm: i64, boot_offset_ns: u64, wall_offset_us: i64) -> Self {
        let state = State { since: start, counted_ns: 0, rate_ppm, stopped: false, wall_offset_us };
        Self { boot_offset_ns, own: (rate_ppm, wall_offset_us), state: Mutex::new(state) }
    }

    /// Its deviation from true time, in millionths.
    pub fn rate_ppm(&self) -> i64 {
        self.lock().rate_ppm
    }

    /// From now on it deviates by this.
    pub fn set_rate_ppm(&self, rate_ppm: i64) {
        let mut state = self.lock();
        state.settle();
        state.rate_ppm = rate_ppm;
    }

    /// The calendar jumps, forward or back.
    pub fn jump_wall(&self, by_us: i64) {
        self.lock().wall_offset_us += by_us;
    }

    /// All clocks stop, as in a machine that is suspended and does not know of it.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.settle();
        state.stopped = true;
    }

    /// They go on where they stood.
    pub fn go_on(&self) {
        let mut state = self.lock();
        state.settle();
        state.stopped = false;
    }

    /// Rate and calendar are what they were at first, and the clocks run.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.settle();
        state.stopped = false;
        (state.rate_ppm, state.wall_offset_us) = self.own;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Clock for SimClock {
    fn boot(&self) -> BootTime {
        BootTime(BOOT_BASE_NS + self.boot_offset_ns + self.lock().counted_ns() as u64)
    }

    fn wall(&self) -> WallTime {
        let state = self.lock();
        WallTime(WALL_BASE_US + state.wall_offset_us + (state.counted_ns() / 1_000) as i64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::world::now;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_clock_keeps_its_rate_stops_and_jumps_and_boot_time_never_goes_back() {
        let clock = SimClock::new(now(), 100_000, 0, 0);
        let start = clock.boot();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.boot().since(start), Duration::from_millis(1_100));
        clock.set_rate_ppm(-100_000);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.boot().since(start), Duration::from_millis(2_000));
        clock.stop();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(clock.boot().since(start), Duration::from_millis(2_000));
        clock.go_on();
        let wall = clock.wall();
        clock.jump_wall(-3_600_000_000);
        assert_eq!(clock.wall(), WallTime(wall.0 - 3_600_000_000));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.boot().since(start), Duration::from_millis(2_900));
    }
}
