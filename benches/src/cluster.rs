//! `stoa-bench cluster`: reads through the public client from a cluster of real processes, one node in each of three
//! zones, with certificates, sockets and files of their own.
//!
//! Steps: 1. the nodes start on the first core; 2. rows are loaded through the client; 3. the load runs from the second
//! core, as often as asked, and medians are printed. An open loop (`--rate`) gives latencies, from when each request was
//! due; a closed one (`--closed`) gives the peak rate.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use stoa::local_cluster::ZONES;
use stoa_client::{Hedging, ReadOptions};

use crate::fixture::FixtureOptions;
use crate::load::Schedule;
use crate::machine::{self, Cores};
use crate::measure::{Measured, Repetitions, closed, micros, open};
use crate::process::interruptible;
use crate::rows::Zipf;
use crate::scene::{Scene, parse_time};
use crate::workload::{Keys, Workload};

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
    /// How long a message between zones takes, one way: zones are emulated so far apart. 0us for zones that are together.
    #[arg(long, default_value = "0.5ms", value_parser = parse_time)]
    one_way: Duration,
    /// At most so much more or less.
    #[arg(long, default_value = "0.05ms", value_parser = parse_time)]
    jitter: Duration,
    /// The zone of the client; nodes are in a, b and c.
    #[arg(long, default_value = "a")]
    zone: String,
    /// Never ask another replica beside one that is slow.
    #[arg(long)]
    no_hedging: bool,
    /// Partitions of the cluster.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=256))]
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
        anyhow::ensure!(
            self.jitter <= self.one_way,
            "--jitter {:?} is more than --one-way {:?}",
            self.jitter,
            self.one_way
        );
        anyhow::ensure!(ZONES.contains(&self.zone.as_str()), "--zone {} is none of {ZONES:?}", self.zone);
        let cores = Cores::of_this_process()?;
        // One thread: whatever the load does is on the core it is pinned to.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let repetitions = runtime.block_on(interruptible(self.measure(&cores)))?;
        let report = self.report(&repetitions, &cores);
        match self.json {
            true => println!("{report:#}"),
            false => print_table(&report),
        }
        Ok(if report["void"].is_null() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn measure(&self, cores: &Cores) -> anyhow::Result<Repetitions> {
        let options = FixtureOptions::new(self.partitions).apart(self.one_way, self.jitter);
        let shape = self.workload.shape(usize::from(self.batch));
        Scene::with(options, cores, (shape, self.rows), async |fixture, scene| {
            let zone = ZONES.iter().position(|zone| *zone == self.zone).expect("it was looked for");
            let keys = match self.zipf {
                Some(theta) => Keys::Zipf(Zipf::new(self.rows, theta)),
                None => Keys::Uniform(self.rows),
            };
            let hedging = if self.no_hedging { Hedging::Off } else { Hedging::On };
            let deadline = Duration::from_millis(self.deadline_ms);
            let options = ReadOptions { deadline, hedging, ..ReadOptions::default() };
            let reads = Arc::new(scene.reads(zone, keys, options).await?);
            let server = fixture.cluster.process_id(fixture.node_in(ZONES[zone])?)?;
            let measured = Duration::from_secs(self.seconds);
            let mut all = Vec::new();
            for _ in 0..self.repetitions {
                all.push(match self.closed {
                    Some(callers) => closed(reads.clone(), usize::from(callers), measured, &[server]).await?,
                    None => {
                        let schedule = Schedule { rate: self.rate, warm_up: measured / 5, measured };
                        open(reads.clone(), schedule, &[server]).await?
                    }
                });
            }
            Ok(Repetitions(all))
        })
        .await
    }

    fn report(&self, all: &Repetitions, cores: &Cores) -> Value {
        let figure = |of: fn(&Measured) -> f64| {
            let (median, spread) = all.figure(of);
            json!({"median": median, "spread": spread})
        };
        let sum = |of: fn(&Measured) -> u64| all.0.iter().map(of).sum::<u64>();
        let latencies = json!({
            "p50": figure(|m| micros(m.summary.p50)),
            "p99": figure(|m| micros(m.summary.p99)),
            "p999": figure(|m| micros(m.summary.p999)),
            "max": figure(|m| micros(m.summary.max)),
        });
        json!({
            "machine": machine::describe(cores),
            "options": {
                "workload": format!("{:?}", self.workload).to_lowercase(), "rows": self.rows, "batch": self.batch,
                "rate": self.closed.is_none().then_some(self.rate), "closed": self.closed, "seconds": self.seconds,
                "repetitions": self.repetitions, "zipf": self.zipf, "deadline_ms": self.deadline_ms,
                "partitions": self.partitions, "one_way_us": self.one_way.as_micros() as u64,
                "jitter_us": self.jitter.as_micros() as u64, "zone": self.zone, "hedging": !self.no_hedging,
                "optimised": !cfg!(debug_assertions),
            },
            "requests_per_s": figure(|m| m.summary.rate),
            "server_us_per_request": figure(Measured::server_us),
            "server_share_of_core": figure(|m| m.server),
            "client_share_of_core": figure(|m| m.client),
            // Callers of a closed loop do not ask while they wait, so their times are not those of a service.
            "latency_us": if self.closed.is_none() { latencies } else { Value::Null },
            "answered": sum(|m| m.summary.answered),
            "checked": sum(|m| m.summary.checked),
            "failed": sum(|m| m.summary.failed),
            "dropped": sum(|m| m.summary.dropped),
            "wrong": sum(|m| m.summary.wrong),
            "first_failure": all.0.iter().find_map(|m| m.summary.first_failure.clone()),
            "void": all.0.iter().find_map(|m| m.summary.void.clone()),
        })
    }
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
    line("server us/req", &report["server_us_per_request"]);
    for (name, share) in [("server core %", "server_share_of_core"), ("client core %", "client_share_of_core")] {
        let of = &report[share];
        line(name, &json!({"median": of["median"].as_f64().map(|share| share * 100.0), "spread": of["spread"]}));
    }
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
