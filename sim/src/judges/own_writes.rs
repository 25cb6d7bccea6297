//! A read at the position of a client's own writes shows them, or newer ones.

use super::lost_row::missing;
use crate::history::{Demand, History, Seen};

/// Judges reads that demand their own writes.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    if seen.demand != Demand::OwnWrites {
        return None;
    }
    let winner = history.winner(seen.key, seen.sent, |write| write.client == seen.client)?;
    missing(history, seen, winner)
}
