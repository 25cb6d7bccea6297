//! The table of what is bounded has everything that the product bounds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stoa_client::READS_MAX;
use stoa_env::task::spawn_unwatched;
use stoa_sim::plan::{Moves, Plan, Work};
use stoa_sim::run::{Planted, run};
use stoa_sim::world::World;

const CRATES: [&str; 6] = ["protocol", "env", "store", "raft", "client", "server"];
/// The simulator has a network and disks of its own.
const OUTSIDE: [&str; 2] = ["transport: ", "disk: "];
/// What a name stands behind, where it is registered.
const MARKS: [&str; 2] = ["gauge(", "Bounded { name: "];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the sources are here").map(|entry| entry.expect("and are read").path())
    {
        match entry.is_dir() {
            true => sources(&entry, out),
            false => out.push(entry),
        }
    }
}

/// Every name under which the product counts something that the simulator does not bring.
fn registered() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&root.join(name).join("src"), &mut files));
    let mut names = BTreeSet::new();
    for text in files.iter().filter_map(|file| std::fs::read_to_string(file).ok()) {
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for mark in MARKS {
            let behind = product.split(mark).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            names.extend(behind.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
    names.retain(|name| !OUTSIDE.iter().any(|outside| name.starts_with(outside)));
    names
}

#[test]
fn a_run_tells_the_most_that_there_was_of_everything_that_the_product_bounds() {
    let names = registered();
    assert!(names.contains("proposals of a group") && names.contains("log: groups"), "names are found: {names:?}");
    let plan = Plan {
        moves: Moves::Between,
        nodes: 6,
        work: Work { partial_per_million: 300_000, mortal: true, definitions: true, loads: true, aging: true },
        ..Plan::calm(1, 2, Duration::from_secs(8))
    };
    let outcome = run(plan, None, &Planted::default()).expect("a run without a trace file needs nothing");
    assert_eq!(outcome.broken, []);
    let table: BTreeSet<String> = outcome.high_water.table().map(|(name, ..)| name.to_owned()).collect();
    assert_eq!(table, names);
}

/// A client that comes in the place of another, goes over a bound, and is gone before anybody looks.
fn immoderate_heir(world: &mut World) {
    let door = world.door();
    spawn_unwatched(async move {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let client = door.client(1, 7).await.expect("the cluster has been formed");
        drop(client.bounds_registry().node_gauge("client: reads under way", READS_MAX).hold(READS_MAX + 1));
    });
}

#[test]
fn a_client_that_came_in_the_place_of_another_and_is_gone_has_been_judged_too() {
    let planted = Planted { world: immoderate_heir, ..Planted::default() };
    let outcome = run(Plan::calm(1, 1, Duration::from_secs(6)), None, &planted).expect("as above");
    let told: Vec<_> = outcome.broken.iter().map(|broken| (broken.judge, broken.what.as_str())).collect();
    let wanted = "client 1 life 7: client: reads under way: 16385 of at most 16384";
    assert_eq!(told, [("what is bounded stays in its bounds", wanted)]);
}
