//! No invented value: what is read was written, to that key and feature, with that event time, and its writer was not told
//! that it failed.

use crate::history::{History, Known, Seen};
use crate::rows::{number_of, value_of};

/// The row's event is one of its key, and every value is of a write of its key.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    let row = seen.row.as_ref()?;
    let key = seen.key;
    let Some(top) = history.top(key, row) else {
        return Some(format!("key {key}: nobody wrote an event of that time: {row:?}"));
    };
    let mut writes = vec![top];
    for (feature, value) in row.values.iter().enumerate() {
        let Some(number) = number_of(value) else { continue };
        match history.write(number).filter(|write| write.key == key && write.gives(feature)) {
            Some(write) if value_of(number, feature) == *value => writes.push(write),
            Some(write) => return Some(format!("key {key}: {value:?} in {row:?} is not what was written: {write:?}")),
            None => return Some(format!("key {key}: nobody wrote {value:?} in {row:?}")),
        }
    }
    let failed = writes.into_iter().find(|write| write.known == Known::Failed)?;
    Some(format!("key {key}: {row:?} was written by a call that said it had failed: {failed:?}"))
}
