//! The peers of P1 and P4: Redis, and echoes of the same bytes. They run after the cluster, on the same cores.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::big::{READERS, WRITES, curve, shape};
use super::plan::Plan;
use crate::counted::CallBytes;
use crate::load::Service;
use crate::machine::Cores;
use crate::measure::{Repetitions, closed};
use crate::peers::echo::{Echo, Over};
use crate::peers::reads::{Form, RedisReads};
use crate::peers::redis::{Durability, Redis};
use crate::peers::writes::RedisWrites;
use crate::process::step;
use crate::report::model::Curve;

/// Connections to Redis for reads: with more its server does no more.
const CONNECTIONS: usize = 16;
/// A server that is the limit of a run has its core for this share of the time at the least.
pub const BUSY_MIN: f64 = 0.95;

/// What was found; a peer that could not be run says why.
pub struct Peers {
    /// QUIC's echo of the same bytes.
    pub quic: anyhow::Result<Repetitions>,
    /// TLS over TCP.
    pub tls: anyhow::Result<Repetitions>,
    /// Packed rows, and latencies by rate.
    pub mget: anyhow::Result<(Repetitions, Curve)>,
    /// Hashes.
    pub hmget: anyhow::Result<Repetitions>,
    /// Durable writes of packed rows, by the rows of a batch.
    pub writes: anyhow::Result<BTreeMap<usize, Repetitions>>,
}

/// Runs them all.
pub async fn measure(plan: Plan, cores: &Cores, bytes: CallBytes) -> Peers {
    step("a quinn echo of the same bytes");
    let quic = echo(plan, cores, Over::Quic, bytes).await;
    step("an echo over TLS and TCP");
    let tls = echo(plan, cores, Over::Tls, bytes).await;
    step("Redis MGET");
    let mget = mget(plan, cores).await;
    step("Redis HMGET");
    let hmget = hmget(plan, cores).await;
    step("durable writes to Redis");
    let writes = writes(plan, cores).await;
    Peers { quic, tls, mget, hmget, writes }
}

async fn echo(plan: Plan, cores: &Cores, over: Over, bytes: CallBytes) -> anyhow::Result<Repetitions> {
    cores.go_to_servers()?;
    let echo = Echo::start(over, bytes.down).await;
    cores.go_to_load()?;
    let echo = echo?;
    let calls = Arc::new(echo.calls(bytes.up, READERS).await?);
    repeat(plan, calls, READERS, &[echo.process_id()?]).await
}

async fn repeat<S: Service>(
    plan: Plan,
    service: Arc<S>,
    callers: usize,
    servers: &[u32],
) -> anyhow::Result<Repetitions> {
    let mut all = Repetitions::default();
    for _ in 0..plan.repetitions() {
        all.0.push(closed(service.clone(), callers, plan.repetition(), servers).await?);
    }
    Ok(all)
}

async fn start(cores: &Cores, durability: Durability) -> anyhow::Result<Redis> {
    cores.go_to_servers()?;
    let redis = Redis::start(durability).await;
    cores.go_to_load()?;
    redis
}

async fn mget(plan: Plan, cores: &Cores) -> anyhow::Result<(Repetitions, Curve)> {
    let redis = start(cores, Durability::Memory).await?;
    let rows = (plan.rows(), shape().floats);
    let reads = Arc::new(RedisReads::load(&redis, Form::Packed, rows, shape().rows, CONNECTIONS).await?);
    let all = repeat(plan, reads.clone(), READERS, &redis.process_ids()?).await?;
    let curve = curve("Redis MGET", reads, all.median(|one| one.summary.rate)).await;
    Ok((all, curve))
}

async fn hmget(plan: Plan, cores: &Cores) -> anyhow::Result<Repetitions> {
    let redis = start(cores, Durability::Memory).await?;
    let rows = (plan.hash_rows(), shape().floats);
    let reads = Arc::new(RedisReads::load(&redis, Form::Hash, rows, shape().rows, CONNECTIONS).await?);
    repeat(plan, reads, READERS, &redis.process_ids()?).await
}

async fn writes(plan: Plan, cores: &Cores) -> anyhow::Result<BTreeMap<usize, Repetitions>> {
    let mut all = BTreeMap::new();
    for (batch, writers) in WRITES {
        // A new one each time: its append-only file must not have to be rewritten in the middle of a run.
        let redis = start(cores, Durability::Replicated(2)).await?;
        let rows = (plan.hash_rows(), shape().floats);
        let writes = RedisWrites::open(&redis, Form::Packed, rows, batch, writers).await?;
        all.insert(batch, repeat(plan, Arc::new(writes), writers, &redis.process_ids()?).await?);
    }
    Ok(all)
}
