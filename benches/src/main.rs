//! What Stoa costs, measured. Start reading at [`store`], one partition in memory, in process; or at [`cluster`], reads
//! through the client from real processes, with [`load`] as the generator of its requests. [`peers`] are what it is measured
//! beside.
//!
//! Every figure of [`store`] is printed beside a limit that was measured in the same run, on the same rows.

mod cluster;
mod cpu;
mod load;
mod machine;
mod peers;
mod redis;
mod rows;
mod store;
mod workload;

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
    /// A cluster of local processes: rows loaded and read through the client, on a schedule or at its peak.
    Cluster(cluster::ClusterBench),
    /// The same reads from Redis, which must be installed: a peer for the peak rate of `cluster`.
    Redis(redis::RedisBench),
}

fn main() -> ExitCode {
    let Bench { what } = Bench::parse();
    let result = match what {
        What::Store(bench) => bench.run().map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::msg),
        What::Cluster(bench) => bench.run(),
        What::Redis(bench) => bench.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("stoa-bench: {error:#}");
        ExitCode::FAILURE
    })
}
