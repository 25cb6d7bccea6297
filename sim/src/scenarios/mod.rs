//! Directed scenarios: scripts for what chance does not find. Each is played under many seeds, which draw all that the
//! script leaves open (delays, election waits, clocks, event times), and is judged by the same judges as a run.
//!
//! To add one: a file with a function from a seed to what is broken, and a row of [`ALL`].

mod clocks_apart;
mod held_leader;
mod late_answers;
mod new_leader;
mod restarted_voter;
mod rot_in_the_middle;
mod stage;

use crate::judges::Broken;

pub use clocks_apart::play as clocks_apart;
pub use held_leader::play as held_leader;
pub use late_answers::play as late_answers;
pub use new_leader::play as new_leader;
pub use restarted_voter::play as restarted_voter;
pub use rot_in_the_middle::play as rot_in_the_middle;

/// A scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What is tried.
    pub what: &'static str,
    /// Plays it under a seed, and says what is broken.
    pub play: fn(u64) -> Vec<Broken>,
}

/// All scenarios.
pub const ALL: [Scenario; 6] = [
    Scenario {
        name: "restarted_voter",
        what: "lease reads at a leader whose only voter restarts and is asked for its vote at once",
        play: restarted_voter,
    },
    Scenario {
        name: "clocks_apart",
        what: "lease reads at a leader with a slow clock, deposed by voters whose clocks run a fifth faster",
        play: clocks_apart,
    },
    Scenario {
        name: "late_answers",
        what: "lease reads at a leader whose voter's answers are late, and which is deposed meanwhile",
        play: late_answers,
    },
    Scenario {
        name: "held_leader",
        what: "strong reads that wait in a leader which stands still for 0.5, 1 and 5 leases, and is deposed meanwhile",
        play: held_leader,
    },
    Scenario {
        name: "new_leader",
        what: "strong reads at a leader that has just been elected and does not know yet what is committed",
        play: new_leader,
    },
    Scenario {
        name: "rot_in_the_middle",
        what: "a bit of acknowledged entries flips on a voter that would be a quorum with one that never had them",
        play: rot_in_the_middle,
    },
];
