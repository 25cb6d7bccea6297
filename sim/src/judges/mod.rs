//! Judges: each states one promise and looks whether it was kept. Those of reads know the history as clients know it, and
//! nothing of how Stoa works; those of replication know what is on the disks, what nodes answer, and where replicas say
//! they stand ([`crate::observe`]).

pub mod bounds;
pub mod catalog_grows;
pub mod committed;
pub mod digests;
pub mod durable_quorum;
pub mod election_safety;
pub mod half_row;
pub mod invented;
pub mod kept_promises;
pub mod leader_completeness;
pub mod lifetimes;
pub mod linearizable;
pub mod log_matching;
pub mod lost_row;
pub mod newest_wins;
pub mod old_disk;
pub mod one_majority;
pub mod one_move;
pub mod one_vote;
pub mod own_writes;
pub mod partial_rows;
pub mod progress;
pub mod purged;
pub mod replica_ids;
pub mod root_state;
pub mod rot_found;
pub mod staleness;
pub mod versions;
pub mod voter_sets;

use crate::history::{History, Seen};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The judge.
    pub judge: &'static str,
    /// What was seen, and what should have been.
    pub what: String,
}

/// Judges one row that was read.
pub type ReadJudge = fn(&History, &Seen) -> Option<String>;

/// The judges of reads, by name.
pub const READ_JUDGES: [(&str, ReadJudge); 8] = [
    ("no half row", half_row::judge),
    ("absent features keep their values", partial_rows::judge),
    ("no invented value", invented::judge),
    ("no acknowledged row lost", lost_row::judge),
    ("own writes are read", own_writes::judge),
    ("strong reads are linearizable", linearizable::judge),
    ("no staler than said", staleness::judge),
    ("the newest event time wins", newest_wins::judge_read),
];

/// All that is broken in one row that was read.
pub fn judge_read(history: &History, seen: &Seen) -> Vec<Broken> {
    let judge =
        |(name, judge): &(&'static str, ReadJudge)| judge(history, seen).map(|what| Broken { judge: name, what });
    READ_JUDGES.iter().filter_map(judge).collect()
}
