//! The time of one node. Three readings, because three questions are different: how long did this take (boot time, which
//! runs on while the machine is suspended, so that a lease cannot outlive its holder's sleep), and what does the
//! calendar say (wall time, which jumps and is used for event times alone). Monotonic time that stops during suspension
//! (`CLOCK_MONOTONIC`) drives tokio's sleeps; nobody may draw a verdict from it.

use std::time::Duration;

/// Nanoseconds since this machine booted, time in suspension included. Only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The time from `earlier` to `self`; zero if `earlier` lies ahead.
    pub fn since(self, earlier: BootTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This time plus `by`, held at the largest representable time (584 years of uptime).
    pub fn plus(self, by: Duration) -> BootTime {
        BootTime(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Microseconds since 1970-01-01T00:00:00Z by this machine's calendar, leap seconds ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

/// The clocks of one node. Readings of `boot` never go backward.
pub trait Clock: Send + Sync + 'static {
    /// Time since boot, suspension included: for deadlines, leases, elections, ages.
    fn boot(&self) -> BootTime;
    /// Calendar time: for stamps of events alone, never for a verdict about order or leases.
    fn wall(&self) -> WallTime;
}

/// The kernel's clocks: `CLOCK_BOOTTIME` and `CLOCK_REALTIME`.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealClock;

impl Clock for RealClock {
    fn boot(&self) -> BootTime {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        BootTime(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    fn wall(&self) -> WallTime {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        WallTime(t.tv_sec * 1_000_000 + t.tv_nsec / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_backward_and_differences_saturate() {
        let clock = RealClock;
        let mut last = clock.boot();
        for _ in 0..10_000 {
            let now = clock.boot();
            assert!(now >= last);
            last = now;
        }
        assert_eq!(BootTime(5).since(BootTime(9)), Duration::ZERO);
        assert_eq!(BootTime(u64::MAX).plus(Duration::from_secs(1)), BootTime(u64::MAX));
        assert!(clock.wall().0 > 1_600_000_000_000_000, "the calendar of this machine is before 2020");
    }
}
