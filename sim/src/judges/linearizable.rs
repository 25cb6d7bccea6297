//! Strong reads are linearizable, key by key, by the complete history.
//!
//! A key is a register that keeps the greatest event it was given, and no two events are equal. So its history is
//! linearizable if every strong read shows
//! 1. at least every write that was acknowledged before the read was sent,
//! 2. at least what every strong read has shown that had ended before this one was sent,
//! 3. nothing that had not been sent when the read ended. The judge of invented values sees to that: what it does not know
//!    has not been sent yet.
//!
//! Keys are independent of each other, and linearizability is local: nothing else is to be judged.

use stoa_protocol::read::ReadLevel;

use super::lost_row::missing;
use crate::history::{History, Seen};

/// Judges strong reads.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    let ReadLevel::Linearizable { by } = seen.level else { return None };
    if let Some(winner) = history.winner(seen.key, seen.sent, |_| true)
        && let Some(what) = missing(history, seen, winner)
    {
        return Some(format!("by {by:?}, {what}"));
    }
    let shown = history.write(history.shown_before(seen.key, seen.sent)?.1)?;
    let what = missing(history, seen, shown)?;
    Some(format!("by {by:?}, an earlier strong read has shown it: {what}"))
}

#[cfg(test)]
mod tests {
    use stoa_protocol::read::ConfirmBy;

    use super::*;
    use crate::history::{Demand, Rule, SeenRow, Took};
    use crate::rows::{Features, What, whole_row};

    const WHOLE: What = What::Update(Features::ALL);

    /// A strong read of key 1, sent at a moment, that shows a write or nothing.
    fn strong(history: &History, sent: u64, number: Option<u64>) -> Seen {
        let row = number
            .and_then(|number| history.write(number))
            .map(|write| SeenRow { event_time: write.event.0, values: whole_row(write.number()) });
        let level = ReadLevel::Linearizable { by: ConfirmBy::ReadIndex };
        Seen { client: 1, key: 1, sent, demand: Demand::Any, level, age: None, stale: false, row }
    }

    #[test]
    fn what_was_acknowledged_before_the_read_is_shown_whatever_came_later() {
        let mut history = History::new(Rule::Newest);
        let old = history.send(0, 1, 10, WHOLE);
        history.acknowledge(old, Took::Applied);
        let new = history.send(0, 1, 20, WHOLE);
        let sent = history.tick();
        for number in [old, new] {
            assert_eq!(judge(&history, &strong(&history, sent, Some(number))), None, "the new one may be seen, or not");
        }
        assert!(judge(&history, &strong(&history, sent, None)).is_some(), "the old one is not there");
        history.acknowledge(new, Took::Applied);
        assert_eq!(judge(&history, &strong(&history, sent, Some(old))), None, "it was sent before the acknowledgement");
        let later = history.tick();
        assert!(judge(&history, &strong(&history, later, Some(old))).is_some());
        let local = Seen { level: ReadLevel::default(), ..strong(&history, later, Some(old)) };
        assert_eq!(judge(&history, &local), None, "no other level promises it");
    }

    #[test]
    fn what_a_strong_read_has_shown_every_later_one_shows() {
        let mut history = History::new(Rule::Newest);
        let [first, second] = [10, 20].map(|time| history.send(0, 1, time, WHOLE));
        let beside = history.tick();
        let seen = strong(&history, beside, Some(second));
        assert_eq!(judge(&history, &seen), None, "nobody has acknowledged it, and it may be seen");
        history.note_strong(&seen);
        let after = history.tick();
        assert!(judge(&history, &strong(&history, after, Some(first))).is_some());
        assert!(judge(&history, &strong(&history, after, None)).is_some());
        assert_eq!(judge(&history, &strong(&history, beside, Some(first))), None, "it began before the other ended");
    }

    #[test]
    fn a_missing_row_that_only_a_delete_explains_is_that_delete_from_then_on() {
        let mut history = History::new(Rule::Newest);
        let row = history.send(0, 1, 10, WHOLE);
        history.acknowledge(row, Took::Applied);
        let [early, late] = [20, 30].map(|time| history.send(0, 1, time, What::Delete));
        let between = history.send(0, 1, 25, WHOLE);
        let sent = history.tick();
        let none = strong(&history, sent, None);
        assert_eq!(judge(&history, &none), None);
        history.note_strong(&none);
        let after = history.tick();
        assert!(judge(&history, &strong(&history, after, Some(row))).is_some(), "one of the deletes stands");
        assert_eq!(judge(&history, &strong(&history, after, Some(between))), None, "the early one may");
        history.fail(early);
        let none = strong(&history, after, None);
        history.note_strong(&none);
        let last = history.tick();
        assert!(
            judge(&history, &strong(&history, last, Some(between))).is_some(),
            "now it must be the late one, {late}"
        );
    }
}
