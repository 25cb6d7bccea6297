//! Directed scenarios break no promise.

use stoa_sim::scenarios;

/// Seeds for each scenario.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=6;

fn keeps_all(play: fn(u64) -> Vec<stoa_sim::judges::Broken>) {
    for seed in SEEDS {
        assert_eq!(play(seed), [], "seed {seed}");
    }
}

#[test]
fn a_voter_that_restarts_grants_no_vote_within_a_lease_that_it_has_forgotten() {
    keeps_all(scenarios::restarted_voter);
}

#[test]
fn clocks_that_are_a_fifth_apart_make_no_lease_read_stale() {
    keeps_all(scenarios::clocks_apart);
}

#[test]
fn strong_reads_that_waited_in_a_held_leader_are_not_answered_from_the_past() {
    keeps_all(scenarios::held_leader);
}

#[test]
fn a_lease_runs_from_when_it_was_asked_for_and_not_from_when_the_answer_came() {
    keeps_all(scenarios::late_answers);
}

#[test]
fn a_new_leader_is_not_read_before_it_knows_what_is_committed() {
    keeps_all(scenarios::new_leader);
}

/// That the scenarios can fail: `cargo test -p stoa-sim --features planted --test scenarios`.
#[cfg(feature = "planted")]
mod planted {
    use stoa_planted::Bug;

    use super::*;

    /// In how many of thirty seeds the judge of strong reads sees a bug, and in how many it is reported as anything else.
    fn caught(bug: Bug, play: fn(u64) -> Vec<stoa_sim::judges::Broken>) -> (usize, usize) {
        let (mut seen, mut otherwise) = (0, 0);
        for seed in 1..=30 {
            stoa_planted::set(Some(bug));
            let broken = play(seed);
            stoa_planted::set(None);
            let strong = broken.iter().any(|broken| broken.judge == "strong reads are linearizable");
            seen += usize::from(strong);
            otherwise += usize::from(!strong && !broken.is_empty());
        }
        println!("{bug:?}: caught in {seen} of 30 seeds, reported as something else alone in {otherwise}");
        (seen, otherwise)
    }

    #[test]
    fn a_vote_within_a_forgotten_lease_is_seen() {
        assert!(caught(Bug::VoteAfterRestart, scenarios::restarted_voter).0 >= 20);
    }

    #[test]
    fn a_lease_without_a_margin_is_seen() {
        assert!(caught(Bug::LeaseWithoutMargin, scenarios::clocks_apart).0 >= 1);
    }

    #[test]
    fn a_lease_that_counts_from_the_answer_is_seen() {
        assert!(caught(Bug::LeaseFromReceiveTime, scenarios::late_answers).0 >= 10);
    }

    #[test]
    fn a_verdict_that_is_kept_is_seen() {
        assert!(caught(Bug::CachedLeaseVerdict, scenarios::held_leader).0 >= 20);
    }

    #[test]
    fn a_leader_that_asks_no_quorum_is_seen() {
        assert!(caught(Bug::StrongReadWithoutQuorum, scenarios::held_leader).0 >= 20);
        assert!(caught(Bug::StrongReadWithoutQuorum, scenarios::new_leader).0 >= 1);
    }
}
