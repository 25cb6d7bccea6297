//! The time of a partition as one replica knows it, by which rows expire.
//!
//! Leaders stamp their time into commands, and the log's time is the largest stamp so far. Between two stamps time goes on
//! with the replica's own boot clock, from the moment at which it applied the newer one. So no replica asks a calendar, a
//! partition that nobody writes to still grows older, and a replica that lags is behind by as much as its rows are.
//!
//! It never goes back. A stamp that says less than what the clock has come to may have been on its way for long, or the clock
//! may run fast: the clock is believed, less what it may have gained since the stamp before ([`DRIFT_PPM_MAX`]).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use stoa_env::BootTime;

/// How much faster a clock may run than true time, in millionths: the drift that nodes count with unless told otherwise.
const DRIFT_PPM_MAX: i64 = 10_000;

/// No stamp has been applied.
const UNKNOWN: i64 = i64::MIN;

/// The time of a partition, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug)]
pub(crate) struct PartitionTime {
    /// Whether anything of the partition expires.
    expires: AtomicBool,
    /// The time less the boot time, when the newest stamp was applied.
    ahead: AtomicI64,
    /// When that was, in boot time. Who applies alone writes and reads it.
    noted: AtomicI64,
    /// The latest time that was told.
    told: AtomicI64,
}

impl Default for PartitionTime {
    fn default() -> Self {
        let [ahead, told] = [UNKNOWN; 2].map(AtomicI64::new);
        Self { expires: AtomicBool::new(false), ahead, noted: AtomicI64::new(0), told }
    }
}

impl PartitionTime {
    /// Notes that the log's time has risen to `stamp_us`.
    pub fn note(&self, stamp_us: i64, now: BootTime) {
        let (now_us, ahead) = (micros(now), self.ahead.load(Ordering::Relaxed));
        let passed = now_us.saturating_sub(self.noted.load(Ordering::Relaxed));
        // Rounded up: stamps may come in quick succession.
        let gained = passed.saturating_mul(DRIFT_PPM_MAX).saturating_add(999_999) / 1_000_000;
        let held = if ahead == UNKNOWN { UNKNOWN } else { ahead.saturating_sub(gained) };
        self.ahead.store(stamp_us.saturating_sub(now_us).max(held), Ordering::Relaxed);
        self.noted.store(now_us, Ordering::Relaxed);
    }

    /// Notes whether any group has a time to live.
    pub fn set_expires(&self, expires: bool) {
        self.expires.store(expires, Ordering::Release);
    }

    /// Whether any group has a time to live.
    pub fn expires(&self) -> bool {
        self.expires.load(Ordering::Acquire)
    }

    /// The time now; `i64::MIN` before the first stamp.
    pub fn tell(&self, now: BootTime) -> i64 {
        let ahead = self.ahead.load(Ordering::Relaxed);
        if ahead == UNKNOWN {
            return UNKNOWN;
        }
        let time = ahead.saturating_add(micros(now));
        self.told.fetch_max(time, Ordering::Relaxed).max(time)
    }
}

fn micros(at: BootTime) -> i64 {
    (at.0 / 1_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn at(minutes: i64) -> BootTime {
        BootTime((minutes * MINUTE) as u64 * 1_000)
    }

    #[test]
    fn time_goes_on_by_the_own_clock_from_the_moment_of_the_newest_stamp() {
        let time = PartitionTime::default();
        assert_eq!(time.tell(at(5)), i64::MIN, "nobody has said what time it is");
        time.note(1_000 * MINUTE, at(5));
        assert_eq!(time.tell(at(5)), 1_000 * MINUTE);
        assert_eq!(time.tell(at(65)), 1_060 * MINUTE, "an hour without a write");
        time.note(1_100 * MINUTE, at(66));
        assert_eq!(time.tell(at(67)), 1_101 * MINUTE, "the leader's word counts");
    }

    #[test]
    fn a_stamp_that_was_long_on_its_way_does_not_set_it_back() {
        let time = PartitionTime::default();
        time.note(0, at(0));
        time.note(10 * MINUTE, at(15));
        assert_eq!(time.tell(at(15)), 15 * MINUTE - 9 * MINUTE / 60, "less what the clock may have gained");
    }

    #[test]
    fn what_has_been_told_stays_true_and_a_clock_that_runs_fast_is_put_right() {
        let time = PartitionTime::default();
        time.note(0, at(0));
        assert_eq!(time.tell(at(100)), 100 * MINUTE);
        time.note(99 * MINUTE, at(100));
        assert_eq!(time.tell(at(100)), 100 * MINUTE, "it stands");
        assert_eq!(time.tell(at(101)), 100 * MINUTE, "and goes on when stamps have caught up");
        assert_eq!(time.tell(at(103)), 102 * MINUTE);
        assert_eq!(time.tell(at(102)), 102 * MINUTE, "also for a reader that looked at the clock earlier");
    }
}
