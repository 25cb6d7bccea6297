//! The command line: one subcommand a file.

mod apply;
mod connect;
mod get;
mod load;
mod node;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use connect::Connect;

/// The `stoa` program: reads the command line and runs what it says. The whole of it, so that a program of another
/// package (the one that the end-to-end tests start) is the same program.
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STOA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,stoa=info,openraft=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("stoa: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Stoa, a distributed in-memory columnar feature store.
#[derive(Debug, Parser)]
#[command(name = "stoa", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node of a cluster.
    Node(node::NodeCommand),
    /// Take projects, entities, groups, grants and views from a YAML file into the catalog.
    Apply(apply::ApplyCommand),
    /// Load a Parquet or CSV file into a feature group.
    Load(load::LoadCommand),
    /// Read a feature view.
    Get(get::GetCommand),
    /// Show nodes, zones, partitions, leaders and lag.
    Status(status::StatusCommand),
    /// Show what Stoa is for: three zones, real features, a ranking workload, and the loss of a zone.
    Demo(crate::demo::DemoCommand),
}

impl Cli {
    /// Runs the command; the number is the exit status.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Node(command) => command.run(),
            Command::Apply(command) => runtime()?.block_on(command.run()),
            Command::Load(command) => runtime()?.block_on(command.run()),
            Command::Get(command) => runtime()?.block_on(command.run()),
            Command::Status(command) => runtime()?.block_on(command.run()),
            Command::Demo(command) => runtime()?.block_on(command.run()),
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
