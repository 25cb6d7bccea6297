//! Planted bugs: each is one condition in the product that is the constant `false` unless the feature `planted` is
//! on, and that asks which bug is on otherwise. `stoa-sim bugs` switches one on at a time, and the judge
//! that is named for it must report it. So the judges are known to be able to fail.
//!
//! It lies below all other crates, because there are bugs to plant in all of them, and knows none. What each bug does,
//! and who must catch it, is told in `sim/src/bugs`; docs/simulation.md tells how to add one.

/// A planted bug. Its line is where `planted!` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Bug {
    /// The log answers an append before its fsync.
    AckBeforeFsync,
    /// The log does not sync a vote.
    SkipVoteFsync,
    /// A failed fsync is tried again, and believed.
    RetryFailedFsync,
    /// Damage in the middle of the log is cut away like a torn tail.
    TruncateMiddle,
    /// The written but unsynced tail of the log is believed after a crash.
    BelieveUnsyncedTail,
    /// A write is acknowledged when one replica has it.
    AckOnOneReplica,
    /// An answer to an earlier append counts for a newer one.
    CountStaleAcks,
    /// A vote is given within the lease that may have been granted before a restart.
    VoteAfterRestart,
    /// One of the entries to apply is skipped.
    SkipEntry,
    /// Two entries are applied in the wrong order.
    ApplyOutOfOrder,
    /// A snapshot leaves out its last rows.
    SnapshotWithoutTail,
    /// The log is purged beyond the snapshot.
    PurgePastSnapshot,
    /// A replica whose log is damaged goes on with what is left of it.
    BelieveRottenLog,
    /// A replica goes on without the rows of a chunk of its snapshot that is damaged.
    BelieveRottenSnapshot,
    /// An event overwrites a newer one.
    OlderEventWins,
    /// An update writes the first of its values alone.
    TornRow,
    /// An update takes the features away that it does not name.
    ForgetAbsent,
    /// A read that asks for a position is answered before the position is applied.
    IgnorePosition,
    /// A strong read is served without asking a quorum.
    StrongReadWithoutQuorum,
    /// The verdict on a lease is kept and used again.
    CachedLeaseVerdict,
    /// The lease has no margin for drift.
    LeaseWithoutMargin,
    /// The lease counts from when an acknowledgement came, not from when it was asked for.
    LeaseFromReceiveTime,
    /// A read's age is computed from the local clock alone.
    StalenessByLocalClock,
    /// A list that has a bound grows beyond it.
    AwaitWithoutBound,
    /// More hedges are sent than the budget has.
    HedgeWithoutBudget,
    /// Two replicas of a group lie in one zone.
    TwoReplicasInOneZone,
    /// A new replica gets the number of one that is gone.
    ReuseReplicaId,
    /// A node comes back under its number with another data directory, and takes part as if it were the same.
    ReuseNodeId,
    /// A data directory that is an old image of itself is believed.
    BelieveOldDisk,
    /// A command is proposed before every node speaks its version.
    ProposeUngated,
    /// A group that grows keeps its schema version.
    GrowUnderOneVersion,
    /// A group's features are exchanged for others under its name.
    ExchangeFeatures,
    /// A load ends without the last batch of the last partition.
    DropLastBatch,
    /// A load that goes on takes the first batch that its session lacks for written.
    SkipBatchOnResume,
    /// A write whose outcome nobody knows is told to have failed.
    UnknownIsFailed,
    /// What became of the first batch of a call is not told.
    DropFirstOutcome,
    /// Of events of one time the last in the log wins, whatever their sequences.
    TieIgnoresSequence,
    /// A replica tells the time of its partitions by its own calendar.
    TimeByOwnCalendar,
    /// A row number is used again at once, whoever may still be looking at it.
    ReuseTooEarly,
    /// The bytes of a value are used again at once, whoever may still be looking at them.
    ReuseValueTooEarly,
    /// A part of the index that a snapshot still reads is changed in place.
    ChangeHeldSegment,
    /// A sweep removes tombstones within the late horizon.
    SweepEarly,
    /// A batch of an earlier schema version is refused.
    RefuseEarlierSchema,
    /// The bytes of a batch of an earlier schema are taken for those of the present type.
    EarlierByPlace,
}

/// Whether the named bug is on. Without the feature `planted` it is the constant `false`.
///
/// ```
/// if stoa_planted::planted!(AckBeforeFsync) {
///     unreachable!("no build but that of the simulator's `bugs` has it");
/// }
/// ```
#[cfg(not(feature = "planted"))]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {{
        const _: $crate::Bug = $crate::Bug::$bug;
        false
    }};
}

/// Whether the named bug is on.
#[cfg(feature = "planted")]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        $crate::is_on($crate::Bug::$bug)
    };
}

#[cfg(feature = "planted")]
pub use switch::{is_on, reached, set};

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    // A simulated cluster is one thread, and two of them may run side by side.
    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
        static REACHED: Cell<u64> = const { Cell::new(0) };
    }

    /// Switches a bug on in this thread, and all others off.
    pub fn set(bug: Option<Bug>) {
        ON.set(bug);
        REACHED.set(0);
    }

    /// Whether a bug is on in this thread. `planted!` asks.
    pub fn is_on(bug: Bug) -> bool {
        let on = ON.get() == Some(bug);
        REACHED.set(REACHED.get() + u64::from(on));
        on
    }

    /// How often the line of the bug that is on was reached since it was switched on.
    pub fn reached() -> u64 {
        REACHED.get()
    }
}
