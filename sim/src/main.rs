//! The simulator's commands. Each failure names the seed, and the one command that replays it.

mod commands;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::meta::meta;
use commands::minimise::minimise;
use commands::options::Overrides;
use commands::play::play;
use commands::report::{summary, tell_broken};
use commands::sweep::{Form, sweep};
use stoa_sim::bugs::clean::bugs;
use stoa_sim::bugs::options::BugsOptions;
use stoa_sim::run::{Planted, run};

/// The whole cluster in one thread under a seed.
#[derive(Debug, Parser)]
#[command(name = "stoa-sim", version)]
struct Sim {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs one seed.
    Run {
        /// The seed.
        seed: u64,
        /// Writes every event to this file.
        #[arg(long)]
        trace: Option<PathBuf>,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Runs seeds twice each, in two processes, and compares every event.
    Meta {
        /// How many seeds.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// Runs seeds one after the other.
    Sweep {
        /// How many seeds.
        #[arg(long, alias = "seeds", default_value_t = 20)]
        count: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// These seeds and no others, with commas between.
        #[arg(long, value_delimiter = ',', conflicts_with_all = ["count", "from"])]
        list: Vec<u64>,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Makes the plan of a seed that fails smaller, as long as the same judge reports it.
    Minimise {
        /// The seed.
        seed: u64,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Plays the directed scenarios.
    Scenarios {
        /// How many seeds for each.
        #[arg(long, default_value_t = 30)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// One scenario, by its name.
        #[arg(long)]
        only: Option<String>,
    },
    /// Switches planted bugs on and looks whether the judges report them; builds the program that has them.
    Bugs(BugsOptions),
}

fn main() -> ExitCode {
    let result = match Sim::parse().what {
        What::Run { seed, trace, overrides } => one(seed, trace.as_deref(), &overrides),
        What::Meta { seeds, from } => meta(from..from.saturating_add(seeds)),
        What::Sweep { count, from, list, json } => {
            let seeds = if list.is_empty() { (from..from.saturating_add(count)).collect() } else { list };
            sweep(&seeds, if json { Form::Json } else { Form::Text })
        }
        What::Minimise { seed, overrides } => minimise(seed, overrides),
        What::Scenarios { seeds, from, only } => play(from..from.saturating_add(seeds), only.as_deref()),
        What::Bugs(options) => bugs(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stoa-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, trace: Option<&Path>, overrides: &Overrides) -> std::io::Result<bool> {
    let plan = overrides.plan(seed)?;
    println!("{plan}");
    let outcome = run(plan, trace, &Planted::default())?;
    println!("{}", summary(&outcome));
    tell_broken(&outcome, overrides);
    Ok(outcome.broken.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use commands::play::replay as replay_scenario;
    use commands::report::replay as replay_run;

    fn parsed(told: &str) -> What {
        let words = told.strip_prefix("replay: cargo run --release -p stoa-sim -- ").expect("one command after a word");
        Sim::try_parse_from(std::iter::once("stoa-sim").chain(words.split(' '))).expect("it is understood").what
    }

    #[test]
    fn the_command_that_is_told_of_what_failed_plays_it_again() {
        let overrides = Overrides { clients: Some(2), no_moves: true, ..Overrides::default() };
        assert!(matches!(parsed(&replay_run(7, &overrides)),
            What::Run { seed: 7, overrides: again, trace: Some(_) } if again == overrides));
        assert!(matches!(parsed(&replay_scenario("held_leader", 9)),
            What::Scenarios { seeds: 1, from: 9, only: Some(name) } if name == "held_leader"));
    }
}
