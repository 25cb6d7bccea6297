//! What became of the requests. No clock: times come in as arguments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::slots::Slots;
use crate::report::model::Slot;

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// What a request counts with that could not be sent.
pub const DROPPED_LATENCY: Duration = LATENCY_MAX;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A complete answer; its values were compared with what they must be, or were not this time.
    Answered {
        /// Whether they were compared.
        checked: bool,
    },
    /// No answer, or one that is not complete. It counts with the time it took, like any other.
    Failed(String),
    /// A value that is not what was written. It voids the run.
    Wrong(String),
}

/// Wrong values that anybody recorded in this process.
static WRONG: AtomicU64 = AtomicU64::new(0);

/// Wrong values in all runs of this process, whatever became of their figures: with one, the process has failed.
pub fn wrong_values() -> u64 {
    WRONG.load(Ordering::Relaxed)
}

/// Of latencies in nanoseconds, up to [`LATENCY_MAX`]; what is longer is recorded as that by `saturating_record`.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, DIGITS)
        .expect("bounds and digits are within what a histogram allows")
}

/// Latencies and counts of one run.
pub struct Recorder {
    latencies: Histogram<u64>,
    lateness: Histogram<u64>,
    answered: u64,
    checked: u64,
    failed: u64,
    dropped: u64,
    wrong: u64,
    first_failure: Option<String>,
    first_wrong: Option<String>,
    slots: Slots,
}

/// Length of the slots that requests are counted in by their time, too.
const SLOT: Duration = Duration::from_millis(250);

impl Recorder {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self {
            latencies: histogram(),
            lateness: histogram(),
            answered: 0,
            checked: 0,
            failed: 0,
            dropped: 0,
            wrong: 0,
            first_failure: None,
            first_wrong: None,
            slots: Slots::new(SLOT),
        }
    }

    /// A request that was due at `due` had its outcome at `done`, both from the start of the run. When it was sent does
    /// not matter: whoever waited, waited since it was due.
    pub fn record(&mut self, due: Duration, done: Duration, outcome: Outcome) {
        let latency = done.saturating_sub(due);
        self.latencies.saturating_record(latency.as_nanos() as u64);
        self.slots.record(due, latency, matches!(outcome, Outcome::Answered { .. }));
        match outcome {
            Outcome::Answered { checked } => {
                self.answered += 1;
                self.checked += u64::from(checked);
            }
            Outcome::Failed(why) => {
                self.failed += 1;
                self.first_failure.get_or_insert(why);
            }
            Outcome::Wrong(what) => self.record_wrong(what),
        }
    }

    /// A request was sent so long after it was due: what the generator itself adds to its latency.
    pub fn record_sent(&mut self, late: Duration) {
        self.lateness.saturating_record(late.as_nanos() as u64);
    }

    /// A request could not be sent, because too many were under way. It counts with the longest latency: leaving it out
    /// would make a service look faster the more it stalls.
    pub fn record_dropped(&mut self, due: Duration) {
        self.slots.record(due, LATENCY_MAX, false);
        self.latencies.saturating_record(LATENCY_MAX.as_nanos() as u64);
        self.dropped += 1;
    }

    /// A wrong value of a request whose time is not recorded.
    pub fn record_wrong(&mut self, what: String) {
        WRONG.fetch_add(1, Ordering::Relaxed);
        self.wrong += 1;
        self.first_wrong.get_or_insert(what);
    }

    /// The figures, of a run whose measured part lasted so long.
    pub fn finish(self, measured: Duration) -> Summary {
        let at = |quantile: f64| Duration::from_nanos(self.latencies.value_at_quantile(quantile));
        let void = match (&self.first_wrong, self.answered) {
            (Some(what), _) => Some(format!("{} wrong values, the first: {what}", self.wrong)),
            (None, 0) => Some(match &self.first_failure {
                Some(why) => format!("nothing was answered; the first failure: {why}"),
                None => "nothing was answered".to_owned(),
            }),
            (None, _) if self.checked == 0 => Some("no answer was checked".to_owned()),
            (None, _) => None,
        };
        Summary {
            rate: self.answered as f64 / measured.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_nanos(self.latencies.max()),
            sent_late_p99: Duration::from_nanos(self.lateness.value_at_quantile(0.99)),
            answered: self.answered,
            checked: self.checked,
            failed: self.failed,
            dropped: self.dropped,
            wrong: self.wrong,
            first_failure: self.first_failure,
            void,
            slots: self.slots.finish(),
        }
    }
}

/// The figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Complete answers a second.
    pub rate: f64,
    /// Half of the requests took no longer, from when they were due. So did the others below, by their share.
    pub p50: Duration,
    /// 99 %.
    pub p99: Duration,
    /// 99.9 %.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
    /// 99 % of the requests of an open loop were sent no later than this after they were due; part of their latencies.
    pub sent_late_p99: Duration,
    /// Complete answers.
    pub answered: u64,
    /// Answers whose values were compared.
    pub checked: u64,
    /// Requests without a complete answer.
    pub failed: u64,
    /// Requests that were never sent.
    pub dropped: u64,
    /// Requests with a wrong value, those of the warm-up among them.
    pub wrong: u64,
    /// Why the first of the failed ones failed.
    pub first_failure: Option<String>,
    /// Why the figures stand for nothing, if they do not.
    pub void: Option<String>,
    /// The requests by the time at which they were due (in a closed loop: sent), the warm-up's left out.
    pub slots: Vec<Slot>,
}

impl Summary {
    /// Requests, of whatever end, that were due from `from` to before `to`, and those of them that were not complete within
    /// 10 ms of when they were due; to the nearest slot.
    pub fn late_between(&self, from: Duration, to: Duration) -> (u64, u64) {
        let inside = self.slots.iter().filter(|slot| (from.as_secs_f64()..to.as_secs_f64()).contains(&slot.at_s));
        inside.fold((0, 0), |(all, late), slot| (all + slot.answered + slot.failed, late + slot.late))
    }
}

/// The median of some figures, and their spread: what lies between the least and the greatest, by the median.
pub fn median_and_spread(figures: &[f64]) -> (f64, f64) {
    assert!(!figures.is_empty(), "there is no median of nothing");
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    };
    let width = sorted[sorted.len() - 1] - sorted[0];
    (median, if median == 0.0 { 0.0 } else { width / median })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Outcome = Outcome::Answered { checked: true };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_dropped_request_is_the_slowest_of_all() {
        let mut recorder = Recorder::new();
        (0..98).for_each(|n| recorder.record(ms(n), ms(n + 1), RIGHT));
        (0..2).for_each(|_| recorder.record_dropped(ms(99)));
        let summary = recorder.finish(Duration::from_secs(1));
        assert!(summary.p99 >= LATENCY_MAX, "{summary:?}");
        assert_eq!((summary.answered, summary.dropped), (98, 2));
        assert_eq!(summary.void, None);
    }

    #[test]
    fn a_run_without_a_checked_answer_is_void() {
        let mut recorder = Recorder::new();
        recorder.record(ms(0), ms(1), Outcome::Answered { checked: false });
        assert_eq!(recorder.finish(ms(1)).void.as_deref(), Some("no answer was checked"));
        let mut recorder = Recorder::new();
        recorder.record(ms(0), ms(1), Outcome::Failed("gone".into()));
        assert!(recorder.finish(ms(1)).void.is_some_and(|why| why.contains("gone")));
    }

    #[test]
    fn the_median_of_even_and_odd_counts_and_its_spread() {
        assert_eq!(median_and_spread(&[3.0, 1.0, 2.0]), (2.0, 1.0));
        assert_eq!(median_and_spread(&[4.0, 1.0, 2.0, 2.0]), (2.0, 1.5));
    }
}
