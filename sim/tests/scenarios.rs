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
fn a_new_leader_is_not_read_before_it_knows_what_is_committed() {
    keeps_all(scenarios::new_leader);
}
