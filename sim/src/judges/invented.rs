//! No invented value: what is read was written, to that key, with that event time, and its writer was not told that it
//! failed.

use crate::history::{History, Known, Seen};

/// The row is that of a write of its key.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    let row = seen.row.as_ref()?;
    let write = history.write(row.number? as u64).filter(|write| write.key == seen.key);
    match write {
        Some(write) if write.delete || write.event.0 != row.event_time => {
            Some(format!("key {}: {row:?} is not what was written: {write:?}", seen.key))
        }
        Some(write) if write.known == Known::Failed => {
            Some(format!("key {}: {row:?} was written by a call that said it had failed: {write:?}", seen.key))
        }
        Some(_) => None,
        None => Some(format!("key {}: nobody wrote {row:?}", seen.key)),
    }
}
