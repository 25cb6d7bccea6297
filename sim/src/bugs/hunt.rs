//! Runs planted bugs and looks who reports them. What comes of each is told in a line of JSON to the program that has no bugs
//! (`stoa-sim bugs`), which runs the same seeds and prints the table.

use std::collections::BTreeMap;

use super::PlantedBug;
use super::clean::{live, shaped};
use super::options::BugsOptions;
use super::report::{Hunted, Told};
use super::table::BUGS;
use crate::judges::Broken;

/// Hunts all bugs, or the one that is asked for.
///
/// # Errors
/// If there is no bug of the name given, or a run cannot be made.
pub fn hunt(options: &BugsOptions) -> std::io::Result<()> {
    // Bugs make the product panic; that is noted, and would only hide the table.
    std::panic::set_hook(Box::new(|_| {}));
    let asked = |bug: &&PlantedBug| options.only.as_ref().is_none_or(|name| name == bug.name);
    let bugs: Vec<&PlantedBug> = BUGS.iter().filter(asked).collect();
    if bugs.is_empty() {
        let names: Vec<_> = BUGS.iter().map(|bug| bug.name).collect();
        return Err(std::io::Error::other(format!("there is no such bug; there are {}", names.join(", "))));
    }
    for bug in bugs {
        println!("{}", hunt_one(bug, options)?.to_line());
    }
    Ok(())
}

fn hunt_one<'a>(bug: &'a PlantedBug, options: &BugsOptions) -> std::io::Result<Hunted<'a>> {
    let mut hunted = Hunted::new(bug, options.from);
    for nth in 0..options.seeds {
        if hunted.needed.is_some() && (options.quick || nth >= options.rate) {
            break;
        }
        let seed = options.from + nth;
        hunted.seeds += 1;
        let line = bug.switch.line();
        stoa_planted::set(line);
        let broken = live(bug.switch.world(true), || shaped(bug, seed));
        hunted.reached += u64::from(line.is_none() || stoa_planted::reached() > 0);
        stoa_planted::set(None);
        let broken = broken?;
        if broken.iter().any(|broken| broken.judge == bug.judge) {
            hunted.caught += 1;
            hunted.needed.get_or_insert(hunted.seeds);
        } else {
            let told: BTreeMap<&str, &Broken> = broken.iter().map(|broken| (broken.judge, broken)).collect();
            hunted.others.extend(told.into_values().map(|broken| Told::new(seed, broken)));
        }
    }
    Ok(hunted)
}
