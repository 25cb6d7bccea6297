//! No half row: all values of a row are of one write.

use crate::history::{History, Seen, text_of};

/// Both values are there and belong together.
pub fn judge(_: &History, seen: &Seen) -> Option<String> {
    let row = seen.row.as_ref()?;
    let whole = match (row.number, &row.text) {
        (Some(number), Some(text)) => *text == text_of(number as u64),
        _ => false,
    };
    (!whole).then(|| format!("key {}: number {:?} with text {:?}", seen.key, row.number, row.text))
}
