//! No acknowledged row lost: when all is healed, before anybody writes again, and once more when all is over, each key
//! holds the winner among the acknowledged writes, or one that beats it and whose outcome nobody knows.

use crate::history::{Demand, Event, History, Known, Seen, Write};

/// Judges an audit.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    if seen.demand != Demand::All {
        return None;
    }
    let winner = history.winner(seen.key, seen.sent, |_| true)?;
    missing(history, seen, winner)
}

/// What of `winner` is missing in what was seen.
pub(super) fn missing(history: &History, seen: &Seen, winner: &Write) -> Option<String> {
    let may_stand = |event: Event| event == winner.event || history.beats(event, winner.event);
    let stands = match &seen.row {
        Some(row) => history.top(seen.key, row).is_some_and(|write| may_stand(write.event)),
        // No row: a delete that stands. One that failed does not.
        None => history.of(seen.key).any(|w| w.deletes() && w.known != Known::Failed && may_stand(w.event)),
    };
    (!stands).then(|| format!("key {}: read {:?}, and acknowledged was {winner:?}", seen.key, seen.row))
}
