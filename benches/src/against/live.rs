//! A line for each second of a run: what the time line in the report shows, turned by a quarter, while it happens.
//!
//! ```text
//!   time     due/s  failed   p50 ms   p99 ms   max ms   0.1      1        10       100      1 s
//!    3 s       200       0     1.82     4.10     9.03    |         o    x   X                |
//! ```

use std::io::Write;
use std::time::Duration;

use crate::load::Slots;
use crate::report::model::Slot;

/// Length of a line's time, and of the slots of the report.
pub const SLOT: Duration = Duration::from_secs(1);
/// A second is shown this long after it is over: most of its answers have come then.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Columns of the axis, over its four powers of ten from 0.1 ms on.
const COLUMNS: usize = 40;
const DECADES: f64 = 4.0;
const FIRST_US: f64 = 100.0;

/// What is shown of a run.
pub struct Live {
    slots: Slots,
    shown: usize,
    finished: Vec<Slot>,
    rates: usize,
}

impl Live {
    /// Of so many rates.
    pub fn start(rates: usize) -> Self {
        say("  time     due/s  failed   p50 ms   p99 ms   max ms   0.1 ms    1         10        100       1 s");
        Self { slots: Slots::new(SLOT), shown: 0, finished: Vec::new(), rates }
    }

    /// A rate begins.
    pub fn begin(&mut self, rate: u32) {
        if self.rates > 1 {
            say(&format!("{rate} requests/s"));
        }
        (self.slots, self.shown) = (Slots::new(SLOT), 0);
    }

    /// A request ended, the warm-up's too.
    pub fn take(&mut self, due: Duration, latency: Duration, answered: bool) {
        self.slots.record(due, latency, answered);
        let now = due + latency;
        while now >= SLOT * (self.shown as u32 + 1) + SHOWN_AFTER {
            self.show();
        }
    }

    /// The rate has ended.
    pub fn end(&mut self) {
        while self.shown < self.slots.len() {
            self.show();
        }
        self.finished = std::mem::replace(&mut self.slots, Slots::new(SLOT)).finish();
    }

    /// The slots of the rate that ended.
    pub fn slots(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.finished)
    }

    fn show(&mut self) {
        if let Some(slot) = self.slots.at(self.shown) {
            say(&line(&slot));
        }
        self.shown += 1;
    }
}

fn line(slot: &Slot) -> String {
    let mut axis = [b' '; COLUMNS];
    // Where two fall together, the worse is seen.
    for (mark, us) in [(b'o', slot.p50_us), (b'x', slot.p99_us), (b'X', slot.max_us)] {
        axis[column(us)] = mark;
    }
    let axis = String::from_utf8_lossy(&axis);
    let ms = |us: f64| us / 1e3;
    format!(
        "{:>4.0} s {:>9} {:>7} {:>8.2} {:>8.2} {:>8.2}   |{axis}|",
        slot.at_s,
        slot.answered + slot.failed,
        slot.failed,
        ms(slot.p50_us),
        ms(slot.p99_us),
        ms(slot.max_us)
    )
}

fn column(us: f64) -> usize {
    let decades = (us.max(FIRST_US) / FIRST_US).log10();
    ((decades / DECADES * COLUMNS as f64) as usize).min(COLUMNS - 1)
}

fn say(text: &str) {
    // Nobody reading on is no fault of the run.
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_at_their_powers_of_ten_and_beyond_the_ends_at_the_ends() {
        assert_eq!([1.0, 100.0, 1_000.0, 10_000.0, 1e9].map(column), [0, 0, 10, 20, 39]);
        let slot =
            Slot { at_s: 3.0, answered: 199, failed: 1, p50_us: 1_000.0, p99_us: 10_000.0, max_us: 10_000.0, late: 0 };
        let line = line(&slot);
        assert!(line.contains("200       1     1.00    10.00    10.00   |          o         X"), "{line}");
    }

    #[test]
    fn each_second_is_shown_once_and_the_last_ones_at_the_end() {
        let (ms, mut live) = (Duration::from_millis, Live::start(1));
        live.begin(10);
        for n in 0..35 {
            live.take(ms(n * 100), ms(2), true);
        }
        assert_eq!(live.shown, 2);
        live.end();
        assert_eq!(live.shown, 4);
        let slots = live.slots();
        assert_eq!(slots.iter().map(|slot| slot.answered).collect::<Vec<_>>(), [10, 10, 10, 5]);
    }
}
