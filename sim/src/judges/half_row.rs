//! No half row: of every write that a row shows anything of, it shows all values, or newer ones.

use crate::history::{History, Seen};
use crate::rows::FEATURES;

/// Every value is one that may stand if the writes of which the row shows something were applied, and nothing else is
/// known.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    let row = seen.row.as_ref()?;
    let top = history.top(seen.key, row)?;
    let shown = history.shown_in(seen.key, row);
    let sure = |write: &crate::history::Write| shown.iter().any(|shown| shown.event == write.event);
    let torn = (0..FEATURES.len())
        .find(|feature| !history.may_stand(seen.key, *feature, top.event, sure).contains(&row.values[*feature]))?;
    Some(format!("key {}: {} of {row:?} does not go with {shown:?}", seen.key, FEATURES[torn]))
}
