//! The runs in which bugs are hunted, without any: in the program that has none. They must be well, or a judge that reports
//! says nothing of the bug.

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::options::{BugsOptions, build_and_start};
use super::report::{Hunted, Report, Told};
use super::{PlantedBug, Way};
use crate::judges::Broken;
use crate::plan::Plan;
use crate::run::{Planted, run};
use crate::world::World;

/// What a run for a bug is made of.
pub enum Shaped {
    /// A plan of the swarm.
    Plan(Box<Plan>),
    /// A scenario and its seed.
    Scenario(fn(u64) -> Vec<Broken>, u64),
}

/// The run of a seed for a bug.
pub fn shaped(bug: &PlantedBug, seed: u64) -> Shaped {
    match &bug.way {
        Way::Swarm { shape, .. } => {
            let mut plan = Plan::draw(seed);
            shape(&mut plan);
            Shaped::Plan(Box::new(plan))
        }
        Way::Scenario(scenario) => Shaped::Scenario(*scenario, seed),
    }
}

/// Lives it; what is broken in the end, a panic of the run itself among it.
///
/// # Errors
/// If the run cannot be made.
pub fn live(world: fn(&mut World), shaped: impl FnOnce() -> Shaped) -> std::io::Result<Vec<Broken>> {
    let planted = Planted { world, ..Planted::default() };
    let lived = catch_unwind(AssertUnwindSafe(|| match shaped() {
        Shaped::Plan(plan) => Ok(run(*plan, None, &planted)?.broken),
        Shaped::Scenario(scenario, seed) => Ok(scenario(seed)),
    }));
    lived.unwrap_or_else(|_| Ok(vec![Broken { judge: "nothing panics", what: "the run itself".into() }]))
}

/// Has the bugs hunted by the program that has them, runs the same seeds without, and prints what came of each; whether all
/// were caught, and no seed without a bug broke a promise.
///
/// # Errors
/// If the other program cannot be built or ends badly, or a run cannot be made.
pub fn bugs(options: &BugsOptions) -> std::io::Result<bool> {
    let mut hunter = build_and_start(options)?;
    let lines = BufReader::new(hunter.stdout.take().expect("it was asked for"));
    let mut report = Report::new(options.json);
    for line in lines.lines() {
        let mut hunted = Hunted::from_line(&line?).map_err(std::io::Error::other)?;
        let bug = hunted.bug();
        for seed in hunted.from..hunted.from + hunted.seeds {
            let broken = live(bug.switch.world(false), || shaped(bug, seed))?;
            hunted.clean.extend(broken.iter().map(|broken| Told::new(seed, broken)));
        }
        report.add(hunted);
    }
    let status = hunter.wait()?;
    if !status.success() {
        return Err(std::io::Error::other(format!("the program with the bugs ended with {status}")));
    }
    Ok(report.end())
}
