//! No read is staler than it says, or than it was allowed to be without a mark. Ages are the product's own claim, by a
//! node's clock; here they are held against true time, with the drift that is declared of clocks.
//!
//! A claim counts from when the replica read, which is not before the client sent the read. So whatever was acknowledged
//! that long before the sending, and the drift, must be shown.

use std::time::Duration;

use stoa_protocol::read::{OnStale, ReadLevel};
use stoa_raft::RaftTiming;

use super::lost_row::missing;
use crate::history::{History, Seen};

/// Judges local reads.
pub fn judge(history: &History, seen: &Seen) -> Option<String> {
    let ReadLevel::Local { max_staleness, on_stale } = seen.level else { return None };
    let allowed = max_staleness.filter(|_| !seen.stale);
    for claimed in [seen.age, allowed].into_iter().flatten() {
        // A time that began before the history did says nothing.
        let Some(time) = history.time_of(seen.sent).checked_sub(with_drift(claimed)) else { continue };
        let winner = history.winner(seen.key, history.moment_at(time), |_| true);
        if let Some(what) = winner.and_then(|winner| missing(history, seen, winner)) {
            return Some(format!("at most {claimed:?} behind, it says, {:?}: {what}", seen.level));
        }
    }
    let told = match (seen.stale, max_staleness) {
        (true, None) => "marked as stale, and any age was allowed",
        (true, Some(_)) if on_stale == OnStale::Refuse => "marked as stale, and should have been refused",
        (true, Some(max)) if seen.age.is_some_and(|age| age <= max) => "marked as stale, and young enough",
        (false, Some(_)) if seen.age.is_none() => "not marked, and of no known age",
        _ => return None,
    };
    Some(format!("key {}: {told}: {:?}, age {:?}", seen.key, seen.level, seen.age))
}

/// The true time that a clock of the most drift may have counted as `claimed`; claims are in whole microseconds.
fn with_drift(claimed: Duration) -> Duration {
    let slowest_ppm = 1_000_000 - u128::from(RaftTiming::default().clock_drift_ppm);
    let true_ns = claimed.as_nanos() * 1_000_000 / slowest_ppm;
    Duration::from_nanos(u64::try_from(true_ns).unwrap_or(u64::MAX)) + Duration::from_micros(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Demand, Rule, Took};
    use crate::rows::{Features, What};

    const WHOLE: What = What::Update(Features::ALL);

    const MS: Duration = Duration::from_millis(1);

    fn nothing(sent: u64, level: ReadLevel, age: Option<Duration>, stale: bool) -> Seen {
        Seen { client: 1, key: 1, sent, demand: Demand::Any, level, age, stale, row: None }
    }

    fn at_most(max: Duration, on_stale: OnStale) -> ReadLevel {
        ReadLevel::Local { max_staleness: Some(max), on_stale }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_was_acknowledged_longer_ago_than_claimed_or_allowed_is_shown() {
        let mut history = History::new(Rule::Newest);
        let number = history.send(0, 1, 10, WHOLE);
        history.acknowledge(number, Took::Applied);
        tokio::time::sleep(MS * 100).await;
        let sent = history.tick();
        let broken = |level, age| judge(&history, &nothing(sent, level, age, false)).is_some();
        assert!(!broken(ReadLevel::default(), None), "nothing was claimed");
        assert!(!broken(ReadLevel::default(), Some(MS * 100)));
        assert!(!broken(ReadLevel::default(), Some(MS * 99)), "a clock may be slow by as much");
        assert!(broken(ReadLevel::default(), Some(MS * 98)));
        assert!(broken(at_most(MS * 50, OnStale::Serve), Some(MS * 200)), "allowed was less than that");
        assert!(!broken(at_most(MS * 200, OnStale::Serve), Some(MS * 200)));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn marks_are_true() {
        let mut history = History::new(Rule::Newest);
        let sent = history.tick();
        let broken = |level, age, stale| judge(&history, &nothing(sent, level, age, stale)).is_some();
        let serve = at_most(MS, OnStale::Serve);
        assert!(!broken(serve, Some(MS * 2), true) && !broken(serve, None, true));
        assert!(broken(serve, Some(MS), true), "young enough, and marked");
        assert!(broken(serve, None, false), "nobody knows, and it is not marked");
        assert!(broken(at_most(MS, OnStale::Refuse), Some(MS * 2), true), "marked, and not refused");
        assert!(broken(ReadLevel::default(), Some(MS * 2), true));
    }
}
