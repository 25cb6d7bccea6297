//! Runs planted bugs and looks who reports them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::options::BugsOptions;
use super::report::{Hunted, Report};
use super::table::BUGS;
use super::{PlantedBug, Way};
use crate::judges::Broken;
use crate::plan::Plan;
use crate::run::{Planted, run};

/// Hunts all bugs, or the one that is asked for; prints what came of each, and says whether all were caught and no seed
/// without a bug broke a promise.
///
/// # Errors
/// If there is no bug of the name given, or a run cannot be made.
pub fn hunt(options: &BugsOptions) -> std::io::Result<bool> {
    // Bugs make the product panic; that is noted, and would only hide the table.
    std::panic::set_hook(Box::new(|_| {}));
    let asked = |bug: &&PlantedBug| options.only.as_ref().is_none_or(|name| name == bug.name);
    let bugs: Vec<&PlantedBug> = BUGS.iter().filter(asked).collect();
    if bugs.is_empty() {
        let names: Vec<_> = BUGS.iter().map(|bug| bug.name).collect();
        return Err(std::io::Error::other(format!("there is no such bug; there are {}", names.join(", "))));
    }
    let mut report = Report::new(options.json);
    for bug in bugs {
        report.add(hunt_one(bug, options)?);
    }
    Ok(report.end())
}

fn hunt_one<'a>(bug: &'a PlantedBug, options: &BugsOptions) -> std::io::Result<Hunted<'a>> {
    let mut hunted = Hunted::new(bug, options.from);
    for nth in 0..options.seeds {
        if hunted.needed.is_some() && (options.quick || nth >= options.rate) {
            break;
        }
        let seed = options.from + nth;
        hunted.seeds += 1;
        let (broken, reached) = live(bug, seed, true)?;
        hunted.reached += u64::from(reached);
        if broken.iter().any(|broken| broken.judge == bug.judge) {
            hunted.caught += 1;
            hunted.needed.get_or_insert(hunted.seeds);
        } else {
            let told: BTreeMap<&str, &Broken> = broken.iter().map(|broken| (broken.judge, broken)).collect();
            hunted.others.extend(told.into_values().map(|broken| (seed, broken.clone())));
        }
        // The same world without the bug. It must be well, or the judge says nothing of the bug.
        let (broken, _) = live(bug, seed, false)?;
        hunted.clean.extend(broken.into_iter().map(|broken| (seed, broken)));
    }
    Ok(hunted)
}

/// One run, with the bug or without it: what is broken in the end, and whether it came to the bug.
fn live(bug: &PlantedBug, seed: u64, on: bool) -> std::io::Result<(Vec<Broken>, bool)> {
    let planted = Planted { world: bug.switch.world(on), ..Planted::default() };
    let line = bug.switch.line();
    stoa_planted::set(line.filter(|_| on));
    let lived = catch_unwind(AssertUnwindSafe(|| match &bug.way {
        Way::Swarm { shape, .. } => {
            let mut plan = Plan::draw(seed);
            shape(&mut plan);
            Ok(run(plan, None, &planted)?.broken)
        }
        Way::Scenario(scenario) => Ok(scenario(seed)),
    }));
    let reached = line.is_none() || stoa_planted::reached() > 0;
    stoa_planted::set(None);
    match lived {
        Ok(broken) => broken.map(|broken| (broken, reached)),
        Err(_) => Ok((vec![Broken { judge: "nothing panics", what: "the run itself".into() }], reached)),
    }
}
