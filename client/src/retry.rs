//! How long to wait before asking again.

use std::time::Duration;

use stoa_protocol::ErrorCode;

/// The first pause. A leader election takes some hundred milliseconds; starting low costs a few requests and saves the
/// wait where a redirect was all that was needed.
pub const PAUSE_FIRST: Duration = Duration::from_millis(5);

/// The longest pause that grows by itself; a node that names a longer one is obeyed.
pub const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Attempts of one write or one administrative call. The deadline ends most calls earlier; this bounds a cluster that
/// refuses at once, for ever.
pub const CALL_ATTEMPTS_MAX: u32 = 64;

/// The pauses of one call: exponential, with jitter so that clients that failed together do not return together.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    attempts: u32,
    pauses: u32,
}

impl Backoff {
    /// Counts an attempt; false once there have been [`CALL_ATTEMPTS_MAX`].
    #[must_use]
    pub fn attempt(&mut self) -> bool {
        self.attempts += 1;
        self.attempts <= CALL_ATTEMPTS_MAX
    }

    /// Attempts so far.
    pub fn attempts(&self) -> u32 {
        self.attempts.min(CALL_ATTEMPTS_MAX)
    }

    /// The next pause: between half and the whole of 5, 10, 20 … 500 ms, and at least what the node asked for.
    /// `random` is 64 random bits.
    pub fn pause(&mut self, retry_after: Duration, random: u64) -> Duration {
        let whole = PAUSE_FIRST.saturating_mul(1 << self.pauses.min(10)).min(PAUSE_MAX);
        self.pauses += 1;
        jittered(whole, random).max(retry_after)
    }
}

/// Between half and the whole of `whole`.
pub(crate) fn jittered(whole: Duration, random: u64) -> Duration {
    let half = whole / 2;
    let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_nanos(random % span)
}

/// Whether a refusal leaves open what became of the request. All others say that it was not carried out.
pub fn leaves_outcome_open(code: ErrorCode) -> bool {
    // A node that ran out of time, or halted, may have proposed the batch before.
    matches!(code, ErrorCode::OutcomeUnknown | ErrorCode::DeadlineExceeded | ErrorCode::Halted | ErrorCode::LogFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_jitter_to_a_bound_and_obey_the_node() {
        let mut backoff = Backoff::default();
        for (at, random) in (0..20).zip([0, u64::MAX, 7, 1 << 40].into_iter().cycle()) {
            let whole = PAUSE_FIRST.saturating_mul(1 << at.min(10)).min(PAUSE_MAX);
            let pause = backoff.pause(Duration::ZERO, random);
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
        assert_eq!(backoff.pause(Duration::from_secs(2), 1), Duration::from_secs(2));
    }

    #[test]
    fn a_replica_that_is_out_has_done_nothing_and_one_that_halted_may_have() {
        assert!(!leaves_outcome_open(ErrorCode::ReplicaOut));
        assert!(leaves_outcome_open(ErrorCode::Halted));
    }

    #[test]
    fn attempts_end() {
        let mut backoff = Backoff::default();
        assert_eq!((0..1_000).filter(|_| backoff.attempt()).count() as u32, CALL_ATTEMPTS_MAX);
    }
}
