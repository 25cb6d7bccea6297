//! Requests by the time at which they were due. No clock: times come in as arguments.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::model::Slot;

/// An answer that comes later than this after its request was due is late, complete or not.
pub const GOOD: Duration = Duration::from_millis(10);
/// The longest latency that is told apart.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Slots of one length, from the start of the run on.
pub struct Slots {
    length: Duration,
    slots: Vec<Of>,
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
        Self { length, slots: Vec::new() }
    }

    /// A request that was due at `due` ended after `latency`, with a complete answer or without.
    pub fn record(&mut self, due: Duration, latency: Duration, answered: bool) {
        let at = (due.as_nanos() / self.length.as_nanos()) as usize;
        while self.slots.len() <= at {
            let latencies = Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 2)
                .expect("bounds and digits are within what a histogram allows");
            self.slots.push(Of { latencies, answered: 0, failed: 0, late: 0 });
        }
        let slot = &mut self.slots[at];
        slot.latencies.saturating_record(latency.as_micros() as u64);
        slot.answered += u64::from(answered);
        slot.failed += u64::from(!answered);
        slot.late += u64::from(!answered || latency > GOOD);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The figures of one, as they are by now.
    pub fn at(&self, at: usize) -> Option<Slot> {
        let of = self.slots.get(at)?;
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
}
