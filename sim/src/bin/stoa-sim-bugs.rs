//! The simulator with the planted bugs in it. `stoa-sim bugs` builds and starts it, and reads what it prints: a line of JSON for
//! each bug.

use std::process::ExitCode;

use clap::Parser;
use stoa_sim::bugs::hunt::hunt;
use stoa_sim::bugs::options::BugsOptions;

/// Planted bugs, and the judges that must report them.
#[derive(Debug, Parser)]
#[command(name = "stoa-sim bugs", version)]
struct Bugs {
    #[command(flatten)]
    options: BugsOptions,
}

fn main() -> ExitCode {
    match hunt(&Bugs::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stoa-sim bugs: {error}");
            ExitCode::FAILURE
        }
    }
}
