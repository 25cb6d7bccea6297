//! How long a peer takes to answer, over the last seconds.

use std::time::Duration;

use stoa_env::BootTime;

/// Half of the window. Two halves take turns, so an estimate covers the last 5 to 10 seconds: long enough for some
/// hundred answers, short enough to forget yesterday's trouble.
const HALF_WINDOW: Duration = Duration::from_secs(5);

/// Answers without which a percentile is guesswork.
const SAMPLES_MIN: u32 = 20;

/// Four buckets for each power of two of microseconds: an error of at most 19 %. 80 buckets reach one second.
const BUCKETS: usize = 80;

/// A histogram of latencies over a sliding window.
#[derive(Debug, Clone)]
pub struct LatencyDigest {
    current: [u32; BUCKETS],
    previous: [u32; BUCKETS],
    turned: BootTime,
}

impl LatencyDigest {
    /// Knows nothing yet.
    pub fn new(now: BootTime) -> Self {
        Self { current: [0; BUCKETS], previous: [0; BUCKETS], turned: now }
    }

    /// Counts one answer.
    pub fn record(&mut self, latency: Duration, now: BootTime) {
        self.turn(now);
        let bucket = &mut self.current[bucket_of(latency)];
        *bucket = bucket.saturating_add(1);
    }

    /// The time within which 95 of 100 answers came, rounded up to its bucket; `None` with too few answers.
    pub fn p95(&mut self, now: BootTime) -> Option<Duration> {
        self.turn(now);
        let counts = || self.current.iter().zip(&self.previous).map(|(a, b)| a.saturating_add(*b));
        let total: u32 = counts().fold(0, u32::saturating_add);
        if total < SAMPLES_MIN {
            return None;
        }
        let wanted = (u64::from(total) * 95).div_ceil(100);
        let mut seen = 0u64;
        let at = counts().position(|count| {
            seen += u64::from(count);
            seen >= wanted
        });
        at.map(bucket_end)
    }

    fn turn(&mut self, now: BootTime) {
        let age = now.since(self.turned);
        if age < HALF_WINDOW {
            return;
        }
        self.previous = if age < HALF_WINDOW * 2 { self.current } else { [0; BUCKETS] };
        self.current = [0; BUCKETS];
        self.turned = now;
    }
}

fn bucket_of(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
    let power = us.ilog2() as usize;
    // The two bits below the highest one.
    let quarter = (if power >= 2 { us >> (power - 2) } else { us << (2 - power) }) as usize & 3;
    (power * 4 + quarter).min(BUCKETS - 1)
}

fn bucket_end(bucket: usize) -> Duration {
    let (power, quarter) = (bucket / 4, bucket as u64 % 4);
    Duration::from_micros(((5 + quarter) << power) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    #[test]
    fn the_95th_percentile_is_within_a_bucket() {
        let mut digest = LatencyDigest::new(at(0));
        assert_eq!(digest.p95(at(0)), None, "too few answers");
        for n in 1..=100 {
            digest.record(Duration::from_micros(n * 10), at(1));
        }
        let p95 = digest.p95(at(1)).unwrap().as_micros();
        assert!((950..=1_150).contains(&p95), "{p95}");
    }

    #[test]
    fn old_answers_are_forgotten() {
        let mut digest = LatencyDigest::new(at(0));
        (0..100).for_each(|_| digest.record(Duration::from_millis(40), at(1)));
        assert!(digest.p95(at(6_000)).is_some(), "half a window later they still count");
        (0..100).for_each(|_| digest.record(Duration::from_millis(1), at(11_500)));
        assert!(digest.p95(at(11_500)).unwrap() < Duration::from_millis(2));
    }

    #[test]
    fn every_latency_has_a_bucket_that_ends_after_it() {
        for us in (0..2_000).chain((11..19).map(|power| (1 << power) + 3)) {
            let latency = Duration::from_micros(us);
            assert!(bucket_end(bucket_of(latency)) >= latency, "{us} us");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }
}
