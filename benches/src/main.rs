//! What Stoa costs, measured. Start reading at [`store`]: one partition in memory, in process.
//!
//! Every figure is printed beside a limit or a peer that was measured in the same run, on the same rows.

mod rows;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks of Stoa.
#[derive(Debug, Parser)]
#[command(name = "stoa-bench", version)]
struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One partition in memory: reads beside a plain copy of the same rows, writes, memory, reads under writes.
    Store(store::StoreBench),
}

fn main() -> ExitCode {
    let Bench { what } = Bench::parse();
    let result = match what {
        What::Store(bench) => bench.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stoa-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
