//! `stoa-bench redis`: what Redis gives on this machine for the reads that Stoa is measured by, with its server on the first core
//! and the client on the second. The figures are void unless the server's core was busy: a client that is too slow for a peer
//! would flatter whatever stands beside it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::load::{Service, Summary, median_and_spread};
use crate::machine::{self, Cores};
use crate::measure::{Measured, closed};
use crate::peers::reads::{Form, RedisReads};
use crate::peers::redis::{Durability, Redis};
use crate::peers::writes::RedisWrites;
use crate::process::interruptible;

/// A server that is the limit of a run has its core for this share of the time at the least.
const BUSY_MIN: f64 = 0.95;

/// Measures reads from Redis.
#[derive(Debug, Args)]
pub struct RedisBench {
    /// How a row lies there.
    #[arg(long, value_enum, default_value = "packed")]
    form: FormArg,
    /// Rows that are loaded.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..=50_000_000))]
    rows: u64,
    /// Float32 of a row.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    floats: u16,
    /// Write instead: batches of rows with `appendfsync always`, two replicas, and a `WAIT 1` behind each batch.
    #[arg(long)]
    durable_writes: bool,
    /// Rows of a request.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batch: u16,
    /// Connections.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    connections: u16,
    /// Requests under way on all of them together.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    closed: u16,
    /// How long each repetition is measured, after a warm-up of a fifth of it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Repetitions; medians are printed, and how far the repetitions lie apart.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    repetitions: u16,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// How a row lies in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormArg {
    /// All features in one value, read by MGET.
    Packed,
    /// A hash with a field for each feature, read by HMGET.
    Hash,
}

impl RedisBench {
    /// Runs it and prints the figures. Exit status 1 if they are void.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let cores = Cores::of_this_process()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let measured = runtime.block_on(interruptible(self.measure(&cores)))?;
        let report = self.report(&measured, &cores);
        match self.json {
            true => println!("{report:#}"),
            false => print_table(&report),
        }
        Ok(if report["void"].is_null() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn measure(&self, cores: &Cores) -> anyhow::Result<Vec<Measured>> {
        cores.go_to_servers()?;
        let durability = if self.durable_writes { Durability::Replicated(2) } else { Durability::Memory };
        let redis = Redis::start(durability).await?;
        cores.go_to_load()?;
        let form = if self.form == FormArg::Packed { Form::Packed } else { Form::Hash };
        let (batch, connections) = (usize::from(self.batch), usize::from(self.connections));
        let rows = (self.rows, self.floats);
        match self.durable_writes {
            true => self.repeat(&redis, RedisWrites::open(&redis, form, rows, batch, connections).await?).await,
            false => self.repeat(&redis, RedisReads::load(&redis, form, rows, batch, connections).await?).await,
        }
    }

    async fn repeat<S: Service>(&self, redis: &Redis, service: S) -> anyhow::Result<Vec<Measured>> {
        let service = Arc::new(service);
        let mut all = Vec::new();
        for _ in 0..self.repetitions {
            let (callers, measured) = (usize::from(self.closed), Duration::from_secs(self.seconds));
            all.push(closed(service.clone(), callers, measured, &redis.process_ids()?).await?);
        }
        Ok(all)
    }

    fn report(&self, all: &[Measured], cores: &Cores) -> Value {
        let figure = |of: fn(&Measured) -> f64| {
            let (median, spread) = median_and_spread(&all.iter().map(of).collect::<Vec<_>>());
            json!({"median": median, "spread": spread})
        };
        let sum = |of: fn(&Summary) -> u64| all.iter().map(|one| of(&one.summary)).sum::<u64>();
        let (server, _) = median_and_spread(&all.iter().map(|one| one.server).collect::<Vec<_>>());
        // Where rows are synced, the disk may be the limit.
        let idle = (server < BUSY_MIN && !self.durable_writes)
            .then(|| format!("the server had its core for {:.0} % of the time: it was not the limit", server * 100.0));
        let (rate, spread) = median_and_spread(&all.iter().map(|one| one.summary.rate).collect::<Vec<_>>());
        let rows_per_s = json!({"median": rate * f64::from(self.batch), "spread": spread});
        json!({
            "machine": machine::describe(cores),
            "options": {
                "form": format!("{:?}", self.form).to_lowercase(), "durable_writes": self.durable_writes, "rows": self.rows, "floats": self.floats,
                "batch": self.batch, "connections": self.connections, "closed": self.closed, "seconds": self.seconds,
                "repetitions": self.repetitions, "optimised": !cfg!(debug_assertions),
            },
            "requests_per_s": figure(|one| one.summary.rate),
            "rows_per_s": rows_per_s,
            "server_us_per_request": figure(|one| one.server_per_request.as_secs_f64() * 1e6),
            "server_share_of_core": figure(|one| one.server),
            "client_share_of_core": figure(|one| one.client),
            "answered": sum(|s| s.answered),
            "checked": sum(|s| s.checked),
            "failed": sum(|s| s.failed),
            "wrong": sum(|s| s.wrong),
            "first_failure": all.iter().find_map(|one| one.summary.first_failure.clone()),
            "void": all.iter().find_map(|one| one.summary.void.clone()).or(idle),
        })
    }
}

fn print_table(report: &Value) {
    println!("machine  {}", report["machine"]);
    println!("options  {}", report["options"]);
    println!("{:<24} {:>12} {:>8}", "figure", "median", "spread");
    for name in
        ["requests_per_s", "rows_per_s", "server_us_per_request", "server_share_of_core", "client_share_of_core"]
    {
        if let (Some(median), Some(spread)) = (report[name]["median"].as_f64(), report[name]["spread"].as_f64()) {
            println!("{name:<24} {median:>12.2} {:>6.1} %", spread * 100.0);
        }
    }
    for count in ["answered", "checked", "failed", "wrong"] {
        println!("{count:<24} {:>12}", report[count]);
    }
    for (name, why) in [("first failure", &report["first_failure"]), ("VOID", &report["void"])] {
        if let Some(why) = why.as_str() {
            println!("{name}: {why}");
        }
    }
}
