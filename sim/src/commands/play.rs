//! Plays the directed scenarios.

use std::collections::BTreeMap;
use std::ops::Range;

use stoa_sim::judges::Broken;
use stoa_sim::scenarios::{self, Scenario};

/// What is told of one seed at the most.
const SHOWN: usize = 3;

/// Plays all scenarios, or the one of that name, with each of these seeds; whether none broke a promise. Of each that did
/// it prints the command that plays it again.
///
/// # Errors
/// If there is no scenario of that name.
pub fn play(seeds: Range<u64>, only: Option<&str>) -> std::io::Result<bool> {
    let chosen = |scenario: &&Scenario| only.is_none_or(|name| name == scenario.name);
    let chosen: Vec<&Scenario> = scenarios::ALL.iter().filter(chosen).collect();
    if chosen.is_empty() {
        let names: Vec<_> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
        return Err(std::io::Error::other(format!("there is no such scenario; there are {}", names.join(", "))));
    }
    let mut kept = true;
    for scenario in chosen {
        let played = seeds.clone().map(|seed| (seed, (scenario.play)(seed)));
        let failed: BTreeMap<u64, Vec<Broken>> = played.filter(|(_, broken)| !broken.is_empty()).collect();
        println!("{}: {}", scenario.name, scenario.what);
        println!("  {} seeds, {} failed {:?}", seeds.end - seeds.start, failed.len(), failed.keys());
        for (seed, broken) in &failed {
            for broken in broken.iter().take(SHOWN) {
                println!("  BROKEN in seed {seed}, {}: {}", broken.judge, broken.what);
            }
            println!("  {}", replay(scenario.name, *seed));
        }
        kept &= failed.is_empty();
    }
    Ok(kept)
}

/// The command that plays a scenario again under a seed.
pub fn replay(scenario: &str, seed: u64) -> String {
    format!("replay: cargo run --release -p stoa-sim -- scenarios --only {scenario} --from {seed} --seeds 1")
}
