//! Proof that the judges can fail: bugs that are planted one at a time, each with the judge that must report it. Another
//! judge, a panic or a run that never ends does not count.
//!
//! A bug is a line of the product that `stoa_env::planted!` names and no other build has, or a world that breaks what
//! the product builds on. [`table`] lists them; `hunt` (with the feature `planted` alone) looks for the first seed in
//! which the judge reports, and [`clean`] runs the same seeds in the program that has no bugs. `stoa-sim bugs` is that program;
//! it builds and starts `stoa-sim-bugs`, so that one with bugs in it never stands where it did itself.

pub mod clean;
#[cfg(feature = "planted")]
pub mod hunt;
pub mod options;
pub mod report;
pub mod table;
pub mod worlds;

use crate::judges::Broken;
use crate::plan::Plan;
use crate::world::World;

/// A planted bug.
pub struct PlantedBug {
    /// Its name, and that of its switch if it is a line of the product.
    pub name: &'static str,
    /// What it does, for people.
    pub what: &'static str,
    /// Where it lies: a file of the product, or `world`.
    pub place: &'static str,
    /// The judge that must report it, by the name it gives to what is broken.
    pub judge: &'static str,
    /// How it is switched on.
    pub switch: Switch,
    /// What it is run in.
    pub way: Way,
}

/// How a bug is switched on.
pub enum Switch {
    /// A line of the product.
    Line(stoa_planted::Bug),
    /// A line of the product, in a world that it must bear without the bug.
    LineIn(stoa_planted::Bug, fn(&mut World)),
    /// From outside, before the machines of the world start.
    World(fn(&mut World)),
}

impl Switch {
    /// The line of the product, if it is one.
    pub fn line(&self) -> Option<stoa_planted::Bug> {
        match self {
            Self::Line(line) | Self::LineIn(line, _) => Some(*line),
            Self::World(_) => None,
        }
    }

    /// What is done to the world, with the bug or without it.
    pub fn world(&self, on: bool) -> fn(&mut World) {
        match self {
            Self::LineIn(_, world) => *world,
            Self::World(world) if on => *world,
            Self::Line(_) | Self::World(_) => |_| {},
        }
    }
}

/// What a bug is run in.
pub enum Way {
    /// Runs of the swarm.
    Swarm {
        /// What the plan of each seed must have for the bug to do harm.
        needs: &'static str,
        /// Gives the plan that.
        shape: fn(&mut Plan),
    },
    /// A directed scenario: what chance does not find.
    Scenario(fn(u64) -> Vec<Broken>),
}

impl Way {
    /// For people.
    pub fn told(&self) -> String {
        match self {
            Self::Swarm { needs, .. } => format!("swarm, {needs}"),
            Self::Scenario(_) => "scenario".into(),
        }
    }
}
