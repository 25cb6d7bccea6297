//! A write of some of a row's features leaves the others as they were: each shows what the newest event gave it that was
//! applied, and the row's event time is that of the newest of all.

use crate::history::{History, Seen, Took, Write};
use crate::rows::FEATURES;

/// Every value is one that may stand, by all that was told to have been applied.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    let row = seen.row.as_ref()?;
    let top = history.top(seen.key, row)?;
    let shown = history.shown_in(seen.key, row);
    let is_shown = |write: &Write| shown.iter().any(|shown| shown.event == write.event);
    let sure = |write: &Write| write.took == Took::Applied || is_shown(write);
    for (feature, value) in row.values.iter().enumerate() {
        let may_stand = history.may_stand(seen.key, feature, top.event, sure);
        if !may_stand.contains(value) {
            let name = FEATURES[feature];
            return Some(format!("key {}: {name} of {row:?} should be one of {may_stand:?}, at {top:?}", seen.key));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use stoa_protocol::Value;
    use stoa_protocol::read::ReadLevel;

    use super::*;
    use crate::history::{Demand, Rule, SeenRow};
    use crate::judges::{half_row, invented, newest_wins};
    use crate::rows::{Features, What, value_of};

    const NUMBER: What = What::Update(Features::of_bits(0b1));
    const TEXT: What = What::Update(Features::of_bits(0b10));
    const WHOLE: What = What::Update(Features::ALL);

    /// A row of key 1 whose number and text are of these writes, and whose other features are of `rest`.
    fn row(event_time: i64, number: Option<u64>, text: Option<u64>, rest: Option<u64>) -> Seen {
        let value = |write: Option<u64>, feature| write.map_or(Value::Null, |write| value_of(write, feature));
        let mut values = vec![value(number, 0), value(text, 1)];
        values.extend((2..FEATURES.len()).map(|feature| value(rest, feature)));
        let row = Some(SeenRow { event_time, values });
        let (demand, level) = (Demand::Any, ReadLevel::default());
        Seen { client: 1, key: 1, sent: 1, demand, level, age: None, stale: false, row }
    }

    /// A whole row at 10, the number at 20, the text at 30.
    fn three() -> (History, [u64; 3]) {
        let mut history = History::new(Rule::Newest);
        let writes = [(10, WHOLE), (20, NUMBER), (30, TEXT)];
        let numbers = writes.map(|(time, what)| history.send(0, 1, time, what));
        (history, numbers)
    }

    #[test]
    fn a_feature_shows_what_the_newest_applied_event_gave_it() {
        let (mut history, [whole, number, text]) = three();
        let all = row(30, Some(number), Some(text), Some(whole));
        let late = row(30, Some(whole), Some(text), Some(whole));
        assert_eq!([judge(&history, &all), judge(&history, &late)], [None, None], "nobody knows yet which came first");
        history.acknowledge(number, Took::Applied);
        assert_eq!(judge(&history, &all), None);
        assert!(judge(&history, &late).is_some(), "it was applied, so it was applied before the newer one");
        let (mut history, [whole, number, text]) = three();
        history.acknowledge(number, Took::Older);
        let shows_it = row(30, Some(number), Some(text), Some(whole));
        assert!(newest_wins::judge_read(&history, &shows_it).is_some(), "it changed nothing");
        assert_eq!(judge(&history, &row(30, Some(whole), Some(text), Some(whole))), None);
    }

    #[test]
    fn absent_features_are_not_taken_away() {
        let (mut history, [whole, number, text]) = three();
        [whole, number, text].into_iter().for_each(|write| history.acknowledge(write, Took::Applied));
        assert!(judge(&history, &row(30, None, Some(text), None)).is_some());
        assert!(judge(&history, &row(30, Some(number), Some(text), None)).is_some());
        assert!(judge(&history, &row(20, Some(number), None, Some(whole))).is_some());
        assert_eq!(judge(&history, &row(20, Some(number), Some(whole), Some(whole))), None, "an earlier state");
    }

    #[test]
    fn a_delete_takes_all_and_what_comes_after_it_begins_anew() {
        let mut history = History::new(Rule::Newest);
        let whole = history.send(0, 1, 10, WHOLE);
        let delete = history.send(0, 1, 20, What::Delete);
        let text = history.send(0, 1, 30, TEXT);
        [whole, delete, text].into_iter().for_each(|write| history.acknowledge(write, Took::Applied));
        assert_eq!(judge(&history, &row(30, None, Some(text), None)), None);
        assert!(judge(&history, &row(30, Some(whole), Some(text), Some(whole))).is_some());
    }

    #[test]
    fn what_a_row_shows_of_a_write_it_shows_whole() {
        let (history, [whole, number, text]) = three();
        assert_eq!(half_row::judge(&history, &row(10, Some(whole), Some(whole), Some(whole))), None);
        assert!(half_row::judge(&history, &row(10, Some(whole), None, Some(whole))).is_some());
        assert!(half_row::judge(&history, &row(30, Some(number), Some(text), None)).is_none(), "the whole one is open");
        let torn = row(30, None, Some(text), Some(whole));
        assert!(half_row::judge(&history, &torn).is_some(), "part of the whole one, without its number");
        let swapped = row(30, Some(text), Some(text), Some(whole));
        assert!(invented::judge(&history, &swapped).is_some(), "it gave no number");
    }
}
