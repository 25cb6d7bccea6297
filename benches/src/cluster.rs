//! `stoa-bench cluster`: reads through the public client from a cluster of real processes, one node in each of three
//! zones, with certificates, sockets and files of their own.
//!
//! Steps: 1. the nodes start on the first core; 2. rows are loaded through the client; 3. the load runs from the second
//! core, as often as asked, and medians are printed. An open loop (`--rate`) gives latencies, from when each request was
//! due; a closed one (`--closed`) gives the peak rate.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use stoa::local_cluster::{LocalCluster, LocalClusterOptions, ZONES};
use stoa_env::QuicTransport;

use crate::load::{Pace, Schedule, Summary, closed_loop, median_and_spread, open_loop};
use crate::machine::{self, Cores};
use crate::rows::Zipf;
use crate::workload::{Keys, Reads, Workload};

/// How long forming the cluster may take.
const FORM_LIMIT: Duration = Duration::from_secs(60);

/// Measures reads from a cluster of local processes.
#[derive(Debug, Args)]
pub struct ClusterBench {
    /// What a request reads.
    #[arg(long, value_enum, default_value = "vectors")]
    workload: Workload,
    /// Rows of the group.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..=100_000_000))]
    rows: u64,
    /// Rows of a request, for the workload `batch`.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batch: u16,
    /// Open loop: requests a second, on a schedule that does not wait for answers.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Closed loop instead: so many callers, each asking again when it has its answer.
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..=4_096))]
    closed: Option<u16>,
    /// How long each repetition is measured, after a warm-up of a fifth of it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Repetitions; medians are printed, and how far the repetitions lie apart.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    repetitions: u16,
    /// Ask for some rows more often than for others: the exponent, above 0 and below 1. All alike, if not given.
    #[arg(long, value_parser = parse_theta)]
    zipf: Option<f64>,
    /// After so many milliseconds an answer that is not there has failed.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    deadline_ms: u64,
    /// Partitions of the cluster.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    partitions: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn parse_theta(text: &str) -> Result<f64, String> {
    let theta: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if theta > 0.0 && theta < 1.0 { Ok(theta) } else { Err("it must be above 0 and below 1".to_owned()) }
}

impl ClusterBench {
    /// Runs it and prints the figures. Exit status 1 if they are void.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let program = find_stoa()?;
        let cores = Cores::of_this_process()?;
        // One thread: whatever the load does is on the core it is pinned to.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let summaries = runtime.block_on(self.measure(program, &cores))?;
        let report = self.report(&summaries, &cores);
        match self.json {
            true => println!("{report:#}"),
            false => print_table(&report),
        }
        Ok(if report["void"].is_null() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn measure(&self, program: PathBuf, cores: &Cores) -> anyhow::Result<Vec<Summary>> {
        let options = LocalClusterOptions { partitions: self.partitions, ..LocalClusterOptions::new("bench", program) };
        cores.go_to_servers()?;
        let mut cluster = LocalCluster::start(options, FORM_LIMIT).await?;
        let result = match cores.go_to_load() {
            Ok(()) => self.measure_on(&cluster).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            eprintln!("{}", cluster.last_words());
        }
        cluster.stop().await;
        result
    }

    async fn measure_on(&self, cluster: &LocalCluster) -> anyhow::Result<Vec<Summary>> {
        let client = cluster.client(ZONES[0]).await?;
        let shape = self.workload.shape(usize::from(self.batch));
        shape.define(&client).await?;
        let loaded = shape.load(&client, self.rows).await.context("loading the rows")?;
        let keys = match self.zipf {
            Some(theta) => Keys::Zipf(Zipf::new(self.rows, theta)),
            None => Keys::Uniform(self.rows),
        };
        let reads = Arc::new(Reads::new(&client, shape, keys, loaded, Duration::from_millis(self.deadline_ms)).await?);
        let mut summaries = Vec::new();
        for _ in 0..self.repetitions {
            summaries.push(self.repetition(reads.clone()).await);
        }
        Ok(summaries)
    }

    async fn repetition(&self, reads: Arc<Reads<QuicTransport>>) -> Summary {
        let measured = Duration::from_secs(self.seconds);
        let warm_up = measured / 5;
        match self.closed {
            Some(callers) => closed_loop(reads, usize::from(callers), warm_up, measured).await,
            None => open_loop(reads, Schedule { rate: self.rate, warm_up, measured }, Pace::Exact).await,
        }
    }

    fn report(&self, summaries: &[Summary], cores: &Cores) -> Value {
        let figure = |of: fn(&Summary) -> f64| {
            let (median, spread) = median_and_spread(&summaries.iter().map(of).collect::<Vec<_>>());
            json!({"median": median, "spread": spread})
        };
        let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
        let latencies = json!({
            "p50": figure(|s| micros(s.p50)),
            "p99": figure(|s| micros(s.p99)),
            "p999": figure(|s| micros(s.p999)),
            "max": figure(|s| micros(s.max)),
        });
        json!({
            "machine": machine::describe(cores),
            "options": {
                "workload": format!("{:?}", self.workload).to_lowercase(), "rows": self.rows, "batch": self.batch,
                "rate": self.closed.is_none().then_some(self.rate), "closed": self.closed, "seconds": self.seconds,
                "repetitions": self.repetitions, "zipf": self.zipf, "deadline_ms": self.deadline_ms,
                "partitions": self.partitions, "optimised": !cfg!(debug_assertions),
            },
            "requests_per_s": figure(|s| s.rate),
            // Callers of a closed loop do not ask while they wait, so their times are not those of a service.
            "latency_us": if self.closed.is_none() { latencies } else { Value::Null },
            "answered": sum(|s| s.answered),
            "checked": sum(|s| s.checked),
            "failed": sum(|s| s.failed),
            "dropped": sum(|s| s.dropped),
            "wrong": sum(|s| s.wrong),
            "first_failure": summaries.iter().find_map(|s| s.first_failure.clone()),
            "void": summaries.iter().find_map(|s| s.void.clone()),
        })
    }
}

fn micros(of: Duration) -> f64 {
    of.as_nanos() as f64 / 1_000.0
}

/// The program `stoa`, beside this one.
fn find_stoa() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("stoa");
    if !program.is_file() {
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        bail!("there is no program {}; build it with: cargo build{profile} -p stoa", program.display());
    }
    Ok(program)
}

fn print_table(report: &Value) {
    println!("machine  {}", report["machine"]);
    println!("options  {}", report["options"]);
    println!("{:<16} {:>12} {:>8}", "figure", "median", "spread");
    let line = |name: &str, of: &Value| {
        if let (Some(median), Some(spread)) = (of["median"].as_f64(), of["spread"].as_f64()) {
            println!("{name:<16} {median:>12.1} {:>6.1} %", spread * 100.0);
        }
    };
    line("requests/s", &report["requests_per_s"]);
    for (name, figure) in ["p50", "p99", "p999", "max"].map(|name| (name, &report["latency_us"][name])) {
        line(&format!("{name} us"), figure);
    }
    for count in ["answered", "checked", "failed", "dropped", "wrong"] {
        println!("{count:<16} {:>12}", report[count]);
    }
    for (name, why) in [("first failure", &report["first_failure"]), ("VOID", &report["void"])] {
        if let Some(why) = why.as_str() {
            println!("{name}: {why}");
        }
    }
}
