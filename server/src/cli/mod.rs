//! The command line: one subcommand a file.

mod apply;
mod connect;
mod describe;
mod get;
mod load;
mod log;
mod node;
mod replica;
mod status;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

pub use connect::Connect;
pub use get::parse_key;
use log::Log;
pub use node::NodeCommand;

/// How long the end of a process waits for somebody to read its last words.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// The `stoa` program: reads the command line and runs what it says. The whole of it, so that a program of another
/// package (the one that the end-to-end tests start) is the same program.
pub fn main() -> ExitCode {
    logged(|| Cli::parse().run())
}

/// Runs a command, whose number is the exit status, with a log on standard error (filtered by `STOA_LOG`) that never waits for
/// its reader.
pub fn logged(command: impl FnOnce() -> anyhow::Result<u8>) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STOA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,stoa=info,openraft=error"));
    let log = Log::start();
    let (of_tracing, of_panics) = (log.clone(), log.clone());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(move || of_tracing.clone()).init();
    // The standard hook writes to standard error itself, and so would wait with the thread that panicked.
    std::panic::set_hook(Box::new(move |panic| {
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
        of_panics.put(format!("{panic}\n{trace}").as_bytes());
    }));
    let code = match command() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.put(format!("stoa: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    };
    log.flush(LAST_WORDS_LIMIT);
    code
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
    Node(NodeCommand),
    /// Take projects, entities, groups, grants and views from a YAML file into the catalog.
    Apply(apply::ApplyCommand),
    /// Load a Parquet or CSV file into a feature group.
    Load(load::LoadCommand),
    /// Read a feature view.
    Get(get::GetCommand),
    /// Show a feature group: its entity, how long its rows live, its features.
    Describe(describe::DescribeCommand),
    /// Show nodes, zones, partitions, leaders and lag.
    Status(status::StatusCommand),
    /// Replace replicas that are damaged or lost, one by one or all of a node.
    #[command(subcommand)]
    Replica(replica::ReplicaCommand),
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
            Command::Describe(command) => runtime()?.block_on(command.run()),
            Command::Status(command) => runtime()?.block_on(command.run()),
            Command::Replica(command) => runtime()?.block_on(command.run()),
            Command::Demo(command) => runtime()?.block_on(command.run()),
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Prints a result. Nobody reading on (`stoa get … | head -1`) is no fault; output that cannot be written is one.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    say_to(&mut std::io::stdout().lock(), text)
}

fn say_to(out: &mut impl std::io::Write, text: &str) -> anyhow::Result<()> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("writing to standard output"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refuses(std::io::ErrorKind);

    impl std::io::Write for Refuses {
        fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_fault_and_a_full_disk_is() {
        assert!(say_to(&mut Refuses(std::io::ErrorKind::BrokenPipe), "text").is_ok());
        assert!(say_to(&mut Refuses(std::io::ErrorKind::StorageFull), "text").is_err());
    }
}
