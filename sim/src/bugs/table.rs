//! The planted bugs.

use std::time::Duration;

use stoa_planted::Bug;

use super::worlds::{altering_network, lying_disks, replaying_network};
use super::{PlantedBug, Switch, Way};
use crate::plan::{FaultKind, Plan};

const DIGESTS: &str = "equal digests at equal positions";
const HALF_ROW: &str = "no half row";
const INVENTED: &str = "no invented value";
const LOST_ROW: &str = "no acknowledged row lost";
const NEWEST: &str = "the newest event time wins";
const OWN_WRITES: &str = "own writes are read";

/// All of them.
pub const BUGS: &[PlantedBug] = &[
    PlantedBug {
        name: "AckBeforeFsync",
        what: "the log answers an append before its fsync",
        place: "raft/src/wal/writer.rs",
        judge: LOST_ROW,
        switch: Switch::Line(Bug::AckBeforeFsync),
        way: Way::Swarm {
            needs: "power losses of all machines",
            shape: |plan| short(plan, &[FaultKind::PowerLossOfAll]),
        },
    },
    PlantedBug {
        name: "AckOnOneReplica",
        what: "an append that was lost on its way counts as taken",
        place: "raft/src/network.rs",
        judge: LOST_ROW,
        switch: Switch::Line(Bug::AckOnOneReplica),
        way: Way::Swarm { needs: "cut zones", shape: |plan| short(plan, &[FaultKind::CutZone, FaultKind::Loss]) },
    },
    PlantedBug {
        name: "SkipEntry",
        what: "followers skip an entry now and then",
        place: "raft/src/state_machine.rs",
        judge: DIGESTS,
        switch: Switch::Line(Bug::SkipEntry),
        way: Way::Swarm { needs: "nothing", shape: |plan| short(plan, &[]) },
    },
    PlantedBug {
        name: "SnapshotWithoutTail",
        what: "a snapshot claims two entries that are not in it",
        place: "raft/src/state_machine.rs",
        judge: DIGESTS,
        switch: Switch::Line(Bug::SnapshotWithoutTail),
        way: Way::Swarm { needs: "crashes", shape: |plan| short(plan, &[FaultKind::CrashProcess]) },
    },
    PlantedBug {
        name: "OlderEventWins",
        what: "an event overwrites a newer one",
        place: "store/src/group_writer.rs",
        judge: NEWEST,
        switch: Switch::Line(Bug::OlderEventWins),
        way: Way::Swarm { needs: "nothing", shape: |plan| short(plan, &[]) },
    },
    PlantedBug {
        name: "TornRow",
        what: "an update writes the first of its values alone",
        place: "store/src/group_writer.rs",
        judge: HALF_ROW,
        switch: Switch::Line(Bug::TornRow),
        way: Way::Swarm { needs: "nothing", shape: |plan| short(plan, &[]) },
    },
    PlantedBug {
        name: "IgnorePosition",
        what: "a read that asks for a position is answered before the position is applied",
        place: "store/src/reader.rs",
        judge: OWN_WRITES,
        switch: Switch::Line(Bug::IgnorePosition),
        way: Way::Swarm { needs: "followers that lag", shape: |plan| short(plan, &[FaultKind::Loss, FaultKind::Hold]) },
    },
    PlantedBug {
        name: "UnknownIsFailed",
        what: "a write whose outcome nobody knows is told to have failed",
        place: "client/src/writer.rs",
        judge: INVENTED,
        switch: Switch::Line(Bug::UnknownIsFailed),
        way: Way::Swarm { needs: "cut zones", shape: |plan| short(plan, &[FaultKind::CutZone, FaultKind::Loss]) },
    },
    PlantedBug {
        name: "LyingDisks",
        what: "devices answer syncs and do nothing",
        place: "world",
        judge: LOST_ROW,
        switch: Switch::World(lying_disks),
        way: Way::Swarm {
            needs: "power losses of all machines",
            shape: |plan| short(plan, &[FaultKind::PowerLossOfAll]),
        },
    },
    PlantedBug {
        name: "AlteringNetwork",
        what: "values change on their way, past the checksum",
        place: "world",
        judge: HALF_ROW,
        switch: Switch::World(altering_network),
        way: Way::Swarm { needs: "nothing", shape: |plan| short(plan, &[]) },
    },
    PlantedBug {
        name: "CountStaleAcks",
        what: "an answer to an earlier append, which arrived again, counts for a newer one",
        place: "raft/src/peers.rs",
        judge: LOST_ROW,
        switch: Switch::LineIn(Bug::CountStaleAcks, replaying_network),
        way: Way::Swarm {
            needs: "a network that replays, crashes",
            shape: |plan| short(plan, &[FaultKind::CrashProcess]),
        },
    },
];

/// One partition, three nodes, ten seconds of brisk work, and these faults in quick succession.
fn short(plan: &mut Plan, faults: &[FaultKind]) {
    plan.nodes = 3;
    plan.partitions = 1;
    plan.clients = 3;
    plan.keys = 40;
    plan.chaos = Duration::from_secs(10);
    plan.pace = Duration::from_millis(60);
    plan.faults = faults.to_vec();
    plan.overlap = 1;
    plan.fault_pause = Some(Duration::from_millis(800));
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
            assert_eq!(format!("{line:?}"), bug.name);
            lines.push((bug.name.to_owned(), bug.place.to_owned()));
        }
        lines.sort();
        assert_eq!(lines, planted());
    }
}
