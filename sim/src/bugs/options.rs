//! What `bugs` is asked for, and the start of the program that can do it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use clap::Args;

/// Switches planted bugs on, one at a time, and looks whether the judge named for each reports it.
#[derive(Debug, Clone, Args)]
pub struct BugsOptions {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Ends with each bug at the first seed in which it is caught, and does not look how many others catch it.
    #[arg(long)]
    pub quick: bool,
    /// Runs this bug alone.
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub from: u64,
    /// Within how many seeds each bug must be caught.
    #[arg(long, default_value_t = 200)]
    pub seeds: u64,
    /// How many seeds tell in how many a bug is caught.
    #[arg(long, default_value_t = 20)]
    pub rate: u64,
}

/// Builds the program that has the planted bugs, with the optimisation of a release, and starts it; it tells what came of each
/// bug in a line. It is another program under another name: what stands at the release build's place stays free of bugs.
///
/// # Errors
/// If cargo cannot be started.
pub fn build_and_start(options: &BugsOptions) -> std::io::Result<Child> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--features", "planted", "--bin", "stoa-sim-bugs", "--manifest-path"]);
    command.arg(manifest).arg("--").args(options.words()).stdout(Stdio::piped());
    command.spawn()
}

impl BugsOptions {
    /// As they are given to the program that hunts.
    fn words(&self) -> Vec<String> {
        let Self { json: _, quick, only, from, seeds, rate } = self;
        let mut words: Vec<String> = Vec::new();
        words.extend(quick.then(|| "--quick".into()));
        words.extend(only.iter().flat_map(|name| ["--only".into(), name.clone()]));
        for (name, value) in [("--from", from), ("--seeds", seeds), ("--rate", rate)] {
            words.extend([name.into(), value.to_string()]);
        }
        words
    }
}
