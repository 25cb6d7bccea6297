//! Plays the directed scenarios.

use std::collections::BTreeSet;

use stoa_sim::judges::Broken;
use stoa_sim::scenarios;

/// Plays all scenarios, or the one of that name, with each of these seeds.
pub fn play(seeds: std::ops::Range<u64>, only: Option<&str>) -> std::io::Result<bool> {
    let mut kept = true;
    let chosen = scenarios::ALL.iter().filter(|scenario| only.is_none_or(|name| name == scenario.name));
    for scenario in chosen {
        let broken: Vec<(u64, Broken)> = seeds
            .clone()
            .flat_map(|seed| (scenario.play)(seed).into_iter().map(move |broken| (seed, broken)))
            .collect();
        let failed: BTreeSet<u64> = broken.iter().map(|(seed, _)| *seed).collect();
        println!("{}: {}", scenario.name, scenario.what);
        println!("  {} seeds, {} failed {failed:?}", seeds.end - seeds.start, failed.len());
        for (seed, broken) in broken.iter().take(5) {
            println!("  BROKEN in seed {seed}, {}: {}", broken.judge, broken.what);
        }
        kept &= failed.is_empty();
    }
    Ok(kept)
}
