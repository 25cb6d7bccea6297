//! `stoa-bench smoke`: every workload and every peer for a second each. It looks at answers, and judges no speed.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::load::{Service, closed_loop};
use crate::machine::Cores;
use crate::peers::echo::{Echo, Over};
use crate::peers::reads::{Form, RedisReads};
use crate::peers::redis::{Durability, Redis};
use crate::peers::writes::RedisWrites;
use crate::process::interruptible;
use crate::store::StoreBench;
use crate::workloads::{self, Sizes, reason};

/// Rows, of clusters and of Redis.
const ROWS: u64 = 20_000;
/// Partitions of a cluster: fewer than by default, since much of a second would be their forming.
const PARTITIONS: u64 = 16;
/// Zones are so far apart in one of the two rounds.
const ONE_WAY: Duration = Duration::from_micros(500);
/// How long each runs.
const TIME: Duration = Duration::from_secs(1);
/// Requests under way at once.
const CALLERS: usize = 8;
/// Bytes of a call to an echo, there and back: those of a read of 100 rows.
const ECHO_BYTES: (usize, usize) = (1_100, 20_000);

/// Runs everything for a second each and looks at the answers.
#[derive(Debug, Args)]
pub struct SmokeCommand {
    /// Leave Redis out, where there is none.
    #[arg(long)]
    without_redis: bool,
}

impl SmokeCommand {
    /// Runs it. Exit status 1 if an answer was wrong, or missing.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let cores = Cores::of_this_process()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(interruptible(smoke(&cores, self.without_redis)))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn smoke(cores: &Cores, without_redis: bool) -> anyhow::Result<()> {
    let store = StoreBench { rows: ROWS, reads: 100, repetitions: 1, json: true };
    store.run().map_err(anyhow::Error::msg)?;
    let sizes = Sizes { rows: ROWS, seconds: TIME.as_secs(), partitions: PARTITIONS, one_way: ONE_WAY };
    for run in workloads::measure(sizes, cores).await? {
        println!("{}: {} answers, {} compared, {} failed", run.name, run.answered, run.checked, run.failed);
        ensure!(run.void.is_none(), "{}: {}", run.name, run.void.unwrap_or_default());
    }
    for over in [Over::Quic, Over::Tls] {
        let echo = Echo::start(over, ECHO_BYTES.1).await?;
        let calls = echo.calls(ECHO_BYTES.0, CALLERS).await?;
        asked(&format!("echo over {over:?}"), calls).await?;
    }
    if without_redis {
        println!("Redis is left out");
        return Ok(());
    }
    Redis::find()?;
    for (name, form) in [("MGET", Form::Packed), ("HMGET", Form::Hash)] {
        // The same keys are of another kind in each form.
        let fresh = Redis::start(Durability::Memory).await?;
        asked(&format!("Redis {name}"), RedisReads::load(&fresh, form, (ROWS, 48), 100, 4).await?).await?;
    }
    let replicated = Redis::start(Durability::Replicated(2)).await?;
    asked("Redis SET, durable", RedisWrites::open(&replicated, Form::Packed, (ROWS, 48), 100, 4).await?).await
}

async fn asked<S: Service>(name: &str, service: S) -> anyhow::Result<()> {
    let found = closed_loop(Arc::new(service), CALLERS, Duration::ZERO, TIME).await;
    println!("{name}: {} answers, {} compared, {} failed", found.answered, found.checked, found.failed);
    match reason(&found) {
        Some(why) => anyhow::bail!("{name}: {why}"),
        None => Ok(()),
    }
}
