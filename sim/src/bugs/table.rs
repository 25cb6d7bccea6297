//! The planted bugs.

use std::time::Duration;

use stoa_planted::Bug;
use stoa_raft::RaftTiming;

use super::worlds::{altering_network, lying_disks, replaying_network, wrong_calendar};
use super::{PlantedBug, Switch, Way};
use crate::plan::FaultKind::{
    self, Bridge, CrashProcess, CutPair, CutZone, FailedSync, Hold, Loss, LostDisk, OldDisk, PowerLossOfAll,
    RollingRestart, RotInLog, RotInSnapshot, SlowDisk, SlowNode, Spikes, Upgrade,
};
use crate::plan::{Least, Moves, Plan, Sizes, Work};
use crate::scenarios;

const ABSENT: &str = "absent features keep their values";
const BOUNDS: &str = "what is bounded stays in its bounds";
const CATALOG: &str = "the catalog is what was defined";
const CATALOG_GROWS: &str = "what a node has of the catalog only grows";
const DIGESTS: &str = "equal digests at equal positions";
const DURABLE_FIRST: &str = "a promise is durable first";
const DURABLE_QUORUM: &str = "acknowledged is durable on a quorum";
const HALF_ROW: &str = "no half row";
const INVENTED: &str = "no invented value";
const LIFETIMES: &str = "rows live as long as their group says";
const LINEARIZABLE: &str = "strong reads are linearizable";
const LOADS: &str = "a load says what is loaded";
const LOST_ROW: &str = "no acknowledged row lost";
const NEWEST: &str = "the newest event time wins";
const OLD_DISK: &str = "an old disk answers for nothing";
const OWN_WRITES: &str = "own writes are read";
const PURGED: &str = "what is purged is in a snapshot";
const REPLICA_ID: &str = "a replica id is one replica";
const ROT_IN_LOG: &str = "rot in a log is found";
const STALENESS: &str = "no staler than said";
const TAKEN: &str = "what fits is taken";
const TOLD_ONCE: &str = "every row's outcome is told once";
const VERSIONS: &str = "versions interoperate";
const ZONES: &str = "a voter in each of three zones";

/// A line of the product in runs of the swarm.
macro_rules! line {
    ($name:ident, $place:literal, $judge:expr, $what:literal, needs $needs:literal, $shape:expr) => {
        PlantedBug {
            name: stringify!($name),
            what: $what,
            place: $place,
            judge: $judge,
            switch: Switch::Line(Bug::$name),
            way: Way::Swarm { needs: $needs, shape: $shape },
        }
    };
    ($name:ident, $place:literal, $judge:expr, $what:literal, scenario $scenario:expr) => {
        PlantedBug {
            name: stringify!($name),
            what: $what,
            place: $place,
            judge: $judge,
            switch: Switch::Line(Bug::$name),
            way: Way::Scenario($scenario),
        }
    };
}

/// All of them.
pub const BUGS: &[PlantedBug] = &[
    line!(AckBeforeFsync, "raft/src/wal/writer.rs", DURABLE_QUORUM, "the log answers an append before its fsync",
        needs "nothing", |plan| short(plan, &[])),
    PlantedBug {
        name: "AckBeforeFsyncLost",
        what: "the same, seen by clients alone",
        place: "raft/src/wal/writer.rs",
        judge: LOST_ROW,
        switch: Switch::Line(Bug::AckBeforeFsync),
        way: Way::Swarm { needs: "power losses of all machines", shape: |plan| short(plan, &[PowerLossOfAll]) },
    },
    line!(AckOnOneReplica, "raft/src/network.rs", DURABLE_QUORUM, "an append that was lost on its way counts as taken",
        needs "cut zones, loss", |plan| short(plan, &[CutZone, Loss])),
    line!(SkipVoteFsync, "raft/src/wal/writer.rs", DURABLE_FIRST, "the log answers a vote before its fsync",
        needs "crashes", |plan| short(plan, &[CrashProcess])),
    line!(RetryFailedFsync, "raft/src/wal/writer.rs", DURABLE_QUORUM, "a failed fsync is tried again, and believed",
        needs "syncs that fail", |plan| short(plan, &[FailedSync])),
    line!(TruncateMiddle, "raft/src/wal/recovery.rs", LINEARIZABLE, "damage in the middle of the log is cut like a torn tail",
        scenario scenarios::rot_in_the_middle),
    line!(BelieveRottenLog, "raft/src/wal/replay.rs", ROT_IN_LOG,
        "a replica whose log is damaged goes on with what is left of it",
        needs "rot in logs", |plan| short(plan, &[RotInLog])),
    line!(BelieveUnsyncedTail, "raft/src/wal/writer.rs", DURABLE_QUORUM,
        "what was written and not synced before a crash is believed, and not synced",
        needs "crashes", |plan| short(plan, &[CrashProcess])),
    PlantedBug {
        name: "CountStaleAcks",
        what: "an answer to an earlier append, which arrived again, counts for a newer one",
        place: "raft/src/peers.rs",
        judge: DURABLE_QUORUM,
        switch: Switch::LineIn(Bug::CountStaleAcks, replaying_network),
        way: Way::Swarm { needs: "a network that replays", shape: |plan| short(plan, &[]) },
    },
    line!(VoteAfterRestart, "raft/src/replica.rs", LINEARIZABLE,
        "a replica votes at once after a start, within the lease that it may have granted",
        scenario scenarios::restarted_voter),
    line!(SkipEntry, "raft/src/state_machine.rs", DIGESTS, "followers skip an entry now and then",
        needs "nothing", |plan| short(plan, &[])),
    line!(SnapshotWithoutTail, "raft/src/state_machine.rs", DIGESTS, "a snapshot claims two entries that are not in it",
        needs "crashes", |plan| short(plan, &[CrashProcess])),
    line!(PurgePastSnapshot, "raft/src/log.rs", PURGED, "the log is purged beyond its snapshot",
        needs "nothing", |plan| short(plan, &[])),
    line!(ApplyOutOfOrder, "raft/src/state_machine.rs", DIGESTS, "followers apply two entries in the wrong order",
        needs "followers that lag", |plan| short(plan, &[Hold])),
    line!(BelieveRottenSnapshot, "store/src/cold/mod.rs", DIGESTS,
        "a replica goes on without the rows of a chunk of its snapshot that is damaged",
    needs "rot in snapshots", |plan| {
        short(plan, &[RotInSnapshot]);
        plan.chaos = Duration::from_secs(25);
    }),
    line!(OlderEventWins, "store/src/group_writer.rs", NEWEST, "an event overwrites a newer one",
        needs "nothing", |plan| short(plan, &[])),
    line!(TieIgnoresSequence, "store/src/group_writer.rs", LIFETIMES,
        "of events of one time the last in the log wins, whatever their sequences",
        needs "rows that expire", aging),
    line!(ReuseTooEarly, "store/src/group_writer.rs", DIGESTS,
        "a row number is used again at once, while a snapshot that is being written still holds it",
        needs "slow devices, restarts, brisk clients", overwriting),
    line!(ReuseValueTooEarly, "store/src/space.rs", DIGESTS,
        "the bytes of a value are used again at once, while a snapshot that is being written still holds them",
        needs "slow devices, restarts, brisk clients", overwriting),
    line!(ChangeHeldSegment, "store/src/index/writer.rs", DIGESTS,
        "a segment of the index is changed in place, while a snapshot that is being written still reads it",
        needs "slow devices, restarts, brisk clients", overwriting),
    line!(SweepEarly, "store/src/group.rs", LIFETIMES, "a sweep removes tombstones within the late horizon",
        needs "rows that expire", aging),
    PlantedBug {
        name: "TimeByOwnCalendar",
        what: "a replica tells the time of its partitions by its own calendar",
        place: "server/src/node/reads.rs",
        judge: LIFETIMES,
        switch: Switch::LineIn(Bug::TimeByOwnCalendar, wrong_calendar),
        way: Way::Swarm { needs: "rows that expire, a calendar an hour ahead", shape: aging },
    },
    line!(TornRow, "store/src/group_writer.rs", HALF_ROW, "an update writes the first of its values alone",
        needs "nothing", |plan| short(plan, &[])),
    line!(ForgetAbsent, "store/src/group_writer.rs", ABSENT, "an update takes the features away that it does not name",
    needs "partial rows", |plan| {
        short(plan, &[]);
        plan.work.partial_per_million = 300_000;
    }),
    line!(IgnorePosition, "store/src/reader.rs", OWN_WRITES,
        "a read that asks for a position is answered before the position is applied",
        needs "followers that lag", |plan| short(plan, &[Loss, Hold])),
    line!(StrongReadWithoutQuorum, "raft/src/replica.rs", LINEARIZABLE, "a leader confirms reads without asking a quorum",
        scenario scenarios::held_leader),
    line!(CachedLeaseVerdict, "raft/src/replica.rs", LINEARIZABLE,
        "a verdict on the lease serves for as long as the replica believes that it leads",
        scenario scenarios::held_leader),
    line!(LeaseWithoutMargin, "raft/src/options.rs", LINEARIZABLE, "a lease read takes no account of drift",
        scenario scenarios::clocks_apart),
    line!(LeaseFromReceiveTime, "raft/src/replica.rs", LINEARIZABLE,
        "a lease counts from when the acknowledgement came, not from when it was asked for",
        scenario scenarios::late_answers),
    line!(StalenessByLocalClock, "server/src/node/rounds.rs", STALENESS,
        "an age counts from when the leader's answer came, not from when it was asked",
        needs "messages that are late", |plan| short(plan, &[Spikes])),
    line!(AwaitWithoutBound, "server/src/node/freshness.rs", BOUNDS,
        "a replica that lags remembers every answer of its leader that it has yet to apply",
        needs "slow devices", |plan| short(plan, &[SlowDisk])),
    line!(HedgeWithoutBudget, "client/src/budget.rs", BOUNDS, "hedges are sent that the budget does not have",
    needs "slow nodes, links that are cut, brisk clients", |plan| {
        short(plan, &[SlowNode, Bridge, CutPair]);
        plan.pace = Duration::from_millis(10);
    }),
    line!(UnknownIsFailed, "client/src/writer.rs", INVENTED, "a write whose outcome nobody knows is told to have failed",
        needs "cut zones, loss", |plan| short(plan, &[CutZone, Loss])),
    line!(DropFirstOutcome, "client/src/group_writer.rs", TOLD_ONCE,
        "what became of the first batch of a call is not told", needs "nothing", |plan| short(plan, &[])),
    line!(RefuseEarlierSchema, "store/src/partition.rs", TAKEN,
        "a batch of an earlier schema version is refused, of a writer that was open when the group grew",
    needs "catalog changes", |plan| {
        short(plan, &[]);
        plan.work.definitions = true;
    }),
    line!(EarlierByPlace, "store/src/group_writer.rs", INVENTED,
        "the bytes of a batch of an earlier schema are taken for those of the present type",
    needs "catalog changes", |plan| {
        short(plan, &[]);
        plan.work.definitions = true;
    }),
    line!(TwoReplicasInOneZone, "server/src/node/hosting.rs", ZONES, "a group is formed with two voters in one zone",
    needs "six nodes", |plan| {
        short(plan, &[]);
        plan.nodes = 6;
    }),
    line!(ReuseReplicaId, "raft/src/root/moves.rs", REPLICA_ID, "a new replica gets the number of one that is gone",
    needs "six nodes, moves", |plan| {
        short(plan, &[]);
        plan.nodes = 6;
        plan.moves = Moves::Between;
        plan.chaos = Duration::from_secs(25);
    }),
    line!(ReuseNodeId, "server/src/node/hosting.rs", REPLICA_ID,
        "a node comes back with another data directory, and takes part as if it were the same",
        needs "a lost disk", |plan| short(plan, &[LostDisk])),
    line!(GrowUnderOneVersion, "raft/src/root/catalog.rs", CATALOG_GROWS, "a group that grows keeps its schema version",
    needs "catalog changes", |plan| {
        short(plan, &[]);
        plan.work.definitions = true;
    }),
    line!(ExchangeFeatures, "raft/src/root/catalog.rs", CATALOG, "a group's features are exchanged for others under its name",
    needs "catalog changes", |plan| {
        short(plan, &[]);
        plan.work.definitions = true;
    }),
    line!(DropLastBatch, "server/src/load/batcher.rs", LOADS, "a load ends without the last batch of the last partition",
    needs "loads", |plan| {
        short(plan, &[]);
        plan.work.loads = true;
    }),
    line!(SkipBatchOnResume, "server/src/load/lanes.rs", LOST_ROW,
        "a load that goes on takes the first batch that its session lacks for written",
    needs "loads", |plan| {
        short(plan, &[]);
        plan.work.loads = true;
    }),
    line!(BelieveOldDisk, "server/src/node/witness.rs", OLD_DISK,
        "a data directory that is an old image of itself is believed",
        needs "old images of disks", |plan| short(plan, &[OldDisk])),
    line!(ProposeUngated, "server/src/node/bootstrap.rs", VERSIONS,
        "a command is proposed before every node speaks its version",
        needs "six nodes, moves, an upgrade", |plan| {
        short(plan, &[Upgrade]);
        plan.nodes = 6;
        plan.moves = Moves::Between;
    }),
    PlantedBug {
        name: "LyingDisks",
        what: "devices answer syncs and do nothing",
        place: "world",
        judge: DURABLE_QUORUM,
        switch: Switch::World(lying_disks),
        way: Way::Swarm { needs: "nothing", shape: |plan| short(plan, &[]) },
    },
    PlantedBug {
        name: "AlteringNetwork",
        what: "values change on their way, past the checksum",
        place: "world",
        judge: HALF_ROW,
        switch: Switch::World(altering_network),
        way: Way::Swarm { needs: "nothing", shape: |plan| short(plan, &[]) },
    },
];

/// One partition, three nodes, ten seconds of brisk work, and these faults in quick succession.
fn short(plan: &mut Plan, faults: &[FaultKind]) {
    plan.nodes = 3;
    plan.partitions = 1;
    plan.clients = 3;
    plan.keys = 40;
    plan.chaos = Duration::from_secs(10);
    plan.least = Least::default();
    plan.pace = Duration::from_millis(60);
    plan.faults = faults.to_vec();
    plan.overlap = 1;
    plan.moves = Moves::None;
    plan.work = Work::default();
    plan.timing = RaftTiming::default();
    plan.sizes = Sizes::default();
    plan.fault_pause = Some(Duration::from_millis(800));
}

/// The same with snapshots that take long, while many rows are overwritten, and starts from them.
fn overwriting(plan: &mut Plan) {
    short(plan, &[SlowDisk, RollingRestart]);
    plan.pace = Duration::from_millis(10);
    plan.overlap = 2;
    plan.sizes.snapshot_log_bytes = 16 << 10;
}

/// The same for long enough that rows expire.
fn aging(plan: &mut Plan) {
    short(plan, &[]);
    plan.chaos = Duration::from_secs(25);
    plan.work.aging = true;
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    const CRATES: [&str; 6] = ["protocol", "env", "store", "raft", "client", "server"];

    fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => sources(&entry, out),
                false => out.push(entry),
            }
        }
    }

    /// Every `planted!(Name)` in the product, with the file it stands in.
    fn planted() -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        CRATES.iter().for_each(|name| sources(&root.join(name).join("src"), &mut files));
        let mut found = Vec::new();
        for file in files {
            let name = file.strip_prefix(root).unwrap().display().to_string();
            for part in std::fs::read_to_string(&file).unwrap().split("planted!(").skip(1) {
                found.push((part.split(')').next().unwrap().to_owned(), name.clone()));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn each_line_of_the_table_is_one_line_of_the_product_and_the_other_way_round() {
        let mut lines = Vec::new();
        for (bug, line) in BUGS.iter().filter_map(|bug| Some((bug, bug.switch.line()?))) {
            assert!(bug.name.starts_with(&format!("{line:?}")), "{}", bug.name);
            lines.push((format!("{line:?}"), bug.place.to_owned()));
        }
        lines.sort();
        // A bug may be there twice, for two judges; its line is not.
        lines.dedup();
        assert_eq!(lines, planted());
    }
}
