//! What Stoa costs, measured. Start reading at [`store`], one partition in memory, in process; or at [`cluster`], reads
//! through the client from real processes, with [`load`] as the generator of its requests. [`peers`] are what it is measured
//! beside.
//!
//! Every figure of [`store`] is printed beside a limit that was measured in the same run, on the same rows.

mod against;
mod bars;
mod cluster;
mod counted;
mod cpu;
mod directed;
mod fixture;
mod health;
mod layouts;
mod load;
mod machine;
mod measure;
mod micro;
mod peers;
mod process;
mod profile;
mod ranking;
mod redis;
mod report;
mod rows;
mod scene;
mod smoke;
mod store;
mod store_files;
mod widths;
mod workload;
mod workloads;
mod writes;
mod ycsb;
mod zones;

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
    /// One partition in memory, as it grows: reads by the width of its lanes, which says how wide they should be.
    Widths(widths::WidthsBench),
    /// The parts of a read and a write, each by itself: time, and instructions against a committed baseline.
    Micro(micro::MicroBench),
    /// A cluster of local processes: rows loaded and read through the client, on a schedule or at its peak.
    Cluster(cluster::ClusterBench),
    /// Every workload: its peak, and its latencies at half of that.
    Workloads(workloads::WorkloadsCommand),
    /// Every workload and every peer for a second each; looks at answers, judges no speed.
    Smoke(smoke::SmokeCommand),
    /// Loads a cluster that lives with one of its views; shows what comes of it, and writes it down.
    Against(against::AgainstCommand),
    /// P1 to P11 of the design, each beside its bar, with the peers in the same run.
    Bars(bars::BarsCommand),
    /// One partition as it grows, in a process of its own: part of `bars`.
    #[command(hide = true)]
    Depth(bars::DepthBench),
    /// A node whose messages to other zones are delayed: what the clusters of measurements are made of.
    #[command(hide = true)]
    Node(zones::BenchNode),
    /// A server that answers with so many bytes: the limit of what a transport can do.
    #[command(hide = true)]
    Echo(peers::echo::EchoServer),
    /// The same reads from Redis, which must be installed: a peer for the peak rate of `cluster`.
    Redis(redis::RedisBench),
    /// Documents and pictures of a run, from its JSON file.
    Report(report::ReportCommand),
}

fn main() -> ExitCode {
    let Bench { what } = Bench::parse();
    let result = match what {
        What::Store(bench) => bench.run().map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::msg),
        What::Widths(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        What::Micro(bench) => bench.run(),
        What::Cluster(bench) => bench.run(),
        What::Workloads(command) => command.run(),
        What::Smoke(command) => command.run(),
        What::Against(command) => command.run(),
        What::Bars(bars) => bars.run(),
        What::Depth(bench) => bench.run(),
        What::Node(node) => return node.run(),
        What::Echo(server) => server.run(),
        What::Redis(bench) => bench.run(),
        What::Report(command) => command.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("stoa-bench: {error:#}");
        ExitCode::FAILURE
    })
}
