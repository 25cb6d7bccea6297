//! When each request is due.

use std::time::Duration;

const NANOS_PER_S: u128 = 1_000_000_000;

/// Requests at a steady rate. Its times count from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Requests a second.
    pub rate: u32,
    /// What is due before this is asked, but not recorded.
    pub warm_up: Duration,
    /// How long requests are recorded, from the end of the warm-up.
    pub measured: Duration,
}

impl Schedule {
    /// When request `n` is due; `None` after the last one. Each is computed from `n`, so rounding never adds up.
    pub fn due(&self, n: u64) -> Option<Duration> {
        assert!(self.rate > 0, "a schedule has at least one request a second");
        let nanos = u128::from(n) * NANOS_PER_S / u128::from(self.rate);
        let due = Duration::new((nanos / NANOS_PER_S) as u64, (nanos % NANOS_PER_S) as u32);
        (due < self.warm_up + self.measured).then_some(due)
    }

    /// Whether a request that is due then is recorded.
    pub fn is_measured(&self, due: Duration) -> bool {
        due >= self.warm_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_divides_nothing_evenly_does_not_drift() {
        let schedule = Schedule { rate: 7, warm_up: Duration::from_secs(1), measured: Duration::from_secs(3_600) };
        assert_eq!(schedule.due(0), Some(Duration::ZERO));
        assert_eq!(schedule.due(7 * 3_600), Some(Duration::from_secs(3_600)));
        assert_eq!(schedule.due(7 * 3_601), None);
        assert!(!schedule.is_measured(Duration::from_millis(999)));
        assert!(schedule.is_measured(Duration::from_secs(1)));
    }
}
