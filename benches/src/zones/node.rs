//! `stoa-bench node`: the node of `stoa node`, with the ways between zones around its messages.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stoa::cli::NodeCommand;

use super::{Delayed, ZonePlan};

/// Runs a node whose messages to other zones are delayed.
#[derive(Debug, Args)]
pub struct BenchNode {
    #[command(flatten)]
    node: NodeCommand,
    /// The plan of zones, as the harness writes it.
    #[arg(long)]
    zones: PathBuf,
}

impl BenchNode {
    /// Runs the node.
    pub fn run(self) -> ExitCode {
        stoa::cli::logged(|| {
            let plan = ZonePlan::load(&self.zones)?;
            self.node.run_over(|config, transport| Ok(Delayed::new(transport, plan, &config.zone)?))
        })
    }
}
