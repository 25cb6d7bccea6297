//! A bound on what strangers can make a node write into its log: anybody may knock, as often as they like.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::BootTime;

/// Time between two complaints of one kind: often enough to be seen, too seldom to fill a disk.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// Complaints of one kind, one a second at the most; the others are counted.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<BootTime>,
    held_back: u64,
}

impl Complaints {
    /// Whether to complain now; if so, how many complaints were held back since the last one.
    pub(super) fn due(&self, now: BootTime) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.since(last) < COMPLAINT_PAUSE) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_said_and_the_others_are_counted() {
        let complaints = Complaints::default();
        let at = |ms: u64| complaints.due(BootTime(ms * 1_000_000));
        assert_eq!([at(5), at(6), at(1_004), at(1_005), at(1_006)], [Some(0), None, None, Some(2), None]);
        assert_eq!(at(9_000), Some(1));
    }
}
