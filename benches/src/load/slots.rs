//! Requests by the time at which they were due. No clock: times come in as arguments.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::model::Slot;

/// An answer that comes later than this after its request was due is late, complete or not.
pub const GOOD: Duration = Duration::from_millis(10);
/// The longest latency that is told apart.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Slots whose figures may still change: those of the last minute and more, at four a second. Older ones keep their figures
/// alone; whoever is later than that counts in the oldest that is open.
const OPEN_MAX: usize = 300;

/// Slots of one length, from the start of the run on.
pub struct Slots {
    length: Duration,
    closed: Vec<Slot>,
    open: VecDeque<Of>,
}

struct Of {
    latencies: Histogram<u64>,
    answered: u64,
    failed: u64,
    late: u64,
}

impl Slots {
    /// None yet.
    pub fn new(length: Duration) -> Self {
        Self { length, closed: Vec::new(), open: VecDeque::new() }
    }

    /// A request that was due at `due` ended after `latency`, with a complete answer or without.
    pub fn record(&mut self, due: Duration, latency: Duration, answered: bool) {
        let at = (due.as_nanos() / self.length.as_nanos()) as usize;
        while self.len() <= at {
            if self.open.len() == OPEN_MAX {
                self.closed.extend(self.at(self.closed.len()));
                self.open.pop_front();
            }
            let latencies = Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 2)
                .expect("bounds and digits are within what a histogram allows");
            self.open.push_back(Of { latencies, answered: 0, failed: 0, late: 0 });
        }
        let slot = &mut self.open[at.saturating_sub(self.closed.len())];
        slot.latencies.saturating_record(latency.as_micros() as u64);
        slot.answered += u64::from(answered);
        slot.failed += u64::from(!answered);
        slot.late += u64::from(!answered || latency > GOOD);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.closed.len() + self.open.len()
    }

    /// The figures of one, as they are by now.
    pub fn at(&self, at: usize) -> Option<Slot> {
        let Some(open) = at.checked_sub(self.closed.len()) else { return Some(self.closed[at].clone()) };
        let of = self.open.get(open)?;
        Some(Slot {
            at_s: self.length.as_secs_f64() * at as f64,
            answered: of.answered,
            failed: of.failed,
            late: of.late,
            p50_us: of.latencies.value_at_quantile(0.5) as f64,
            p99_us: of.latencies.value_at_quantile(0.99) as f64,
            max_us: of.latencies.max() as f64,
        })
    }

    /// The figures of all.
    pub fn finish(self) -> Vec<Slot> {
        (0..self.len()).filter_map(|at| self.at(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_in_the_slot_of_its_due_time_and_late_beyond_10_ms() {
        let ms = Duration::from_millis;
        let mut slots = Slots::new(ms(250));
        slots.record(ms(0), ms(1), true);
        slots.record(ms(249), ms(11), true);
        slots.record(ms(600), ms(2), false);
        let slots = slots.finish();
        assert_eq!(slots.len(), 3);
        let counts: Vec<_> = slots.iter().map(|slot| (slot.answered, slot.failed, slot.late)).collect();
        assert_eq!(counts, [(2, 0, 1), (0, 0, 0), (0, 1, 1)]);
        assert_eq!(slots[2].at_s, 0.5);
    }

    #[test]
    fn slots_of_a_long_run_keep_their_figures_and_not_their_histograms() {
        let (second, mut slots) = (Duration::from_secs(1), Slots::new(Duration::from_secs(1)));
        let count = OPEN_MAX + 50;
        (0..count).for_each(|at| slots.record(second * at as u32, Duration::from_millis(at as u64), true));
        assert_eq!((slots.len(), slots.open.len()), (count, OPEN_MAX));
        slots.record(Duration::ZERO, second, false);
        let finished = slots.finish();
        assert_eq!(finished.iter().map(|slot| slot.answered + slot.failed).sum::<u64>(), count as u64 + 1);
        assert_eq!(finished[50].failed, 1, "what is later than all that is open counts in the oldest");
        assert_eq!(finished[7].at_s, 7.0);
        assert!((finished[7].p50_us - 7_000.0).abs() < 100.0);
    }
}
