//! The newest event time wins, whatever the order of arrival: an answer calls a row older only if a newer one had been
//! sent, and applied only if no newer one had been acknowledged before it was sent; what stands in the end is not older
//! than what was reported applied.

use crate::history::{Demand, History, Known, Seen, Took};

/// Judges what a write's answer says of a row.
pub fn judge_answer(history: &History, number: u64, said_older: bool) -> Option<String> {
    let write = history.write(number)?;
    let beaten_by = history.of(write.key).find(|other| {
        let counts = match (said_older, other.known) {
            (true, known) => known != Known::Failed,
            (false, Known::Acknowledged(at)) => at < write.sent,
            (false, _) => false,
        };
        counts && history.beats(other.event, write.event)
    });
    match (said_older, beaten_by) {
        (true, None) => Some(format!("{write:?} was called older, and nothing newer had been sent")),
        (false, Some(other)) => Some(format!("{write:?} was applied over {other:?}")),
        _ => None,
    }
}

/// Judges what is read: nothing of a write that was called older is shown, and in the audit the event that stands is not
/// beaten by an acknowledged one of its key.
pub fn judge_read(history: &History, seen: &Seen) -> Option<String> {
    let row = seen.row.as_ref()?;
    if let Some(older) = history.shown_in(seen.key, row).into_iter().find(|write| write.took == Took::Older) {
        return Some(format!("key {}: {older:?} was called older, and {row:?} shows it", seen.key));
    }
    if seen.demand != Demand::All {
        return None;
    }
    let standing = history.top(seen.key, row)?;
    let winner = history.winner(seen.key, seen.sent, |_| true)?;
    history
        .beats(winner.event, standing.event)
        .then(|| format!("key {}: {standing:?} stands, and {winner:?} wins", seen.key))
}
