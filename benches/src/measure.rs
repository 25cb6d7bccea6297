//! One repetition of a load, with what it cost on both sides.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cpu;
use crate::load::{Pace, Schedule, Service, Summary, closed_loop, median_and_spread, open_loop};
use crate::report::model::Side;

/// One repetition.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What became of the requests.
    pub summary: Summary,
    /// Share of the time for which the servers had a core, all of them together.
    pub server: f64,
    /// Share of the time for which this process had one.
    pub client: f64,
    /// What a request cost the servers, user and system.
    pub server_per_request: Duration,
}

/// `callers` ask as fast as they can, for a warm-up of a fifth of the time first; the CPU time of the processes `servers` is
/// counted.
pub async fn closed<S: Service>(
    service: Arc<S>,
    callers: usize,
    measured: Duration,
    servers: &[u32],
) -> anyhow::Result<Measured> {
    let warm = closed_loop(service.clone(), callers, Duration::ZERO, measured / 5).await;
    let before = Costs::now(servers)?;
    let mut summary = closed_loop(service, callers, Duration::ZERO, measured).await;
    // A wrong value of the warm-up is one.
    if warm.wrong > 0 && summary.void.is_none() {
        summary.void = warm.void;
    }
    Measured::new(summary, before, servers)
}

/// Asks by a schedule.
pub async fn open<S: Service>(service: Arc<S>, schedule: Schedule, servers: &[u32]) -> anyhow::Result<Measured> {
    let before = Costs::now(servers)?;
    let summary = open_loop(service, schedule, Pace::Exact).await;
    Measured::new(summary, before, servers)
}

/// What has been spent at a moment.
#[derive(Clone, Copy)]
struct Costs {
    at: Instant,
    servers: Duration,
    client: Duration,
}

impl Costs {
    fn now(servers: &[u32]) -> anyhow::Result<Self> {
        let servers = servers.iter().map(|server| cpu::of_process(*server)).sum::<anyhow::Result<Duration>>()?;
        Ok(Self { at: Instant::now(), servers, client: cpu::of_this_process() })
    }
}

impl Measured {
    fn new(summary: Summary, before: Costs, servers: &[u32]) -> anyhow::Result<Self> {
        // The last answers come a little after the time is over: what they cost is in both.
        let after = Costs::now(servers)?;
        let time = after.at - before.at;
        let (server, client) = (after.servers - before.servers, after.client - before.client);
        let share = |cpu: Duration| cpu.as_secs_f64() / time.as_secs_f64();
        let ended = summary.answered + summary.failed;
        let server_per_request = server.div_f64(ended.max(1) as f64);
        Ok(Self { summary, server: share(server), client: share(client), server_per_request })
    }

    /// Microseconds of a request.
    pub fn server_us(&self) -> f64 {
        self.server_per_request.as_secs_f64() * 1e6
    }
}

/// Repetitions of one load.
#[derive(Debug, Clone, Default)]
pub struct Repetitions(pub Vec<Measured>);

impl Repetitions {
    /// The median of a figure, and its spread.
    pub fn figure(&self, of: impl Fn(&Measured) -> f64) -> (f64, f64) {
        median_and_spread(&self.0.iter().map(of).collect::<Vec<_>>())
    }

    /// The median of a figure.
    pub fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        self.figure(of).0
    }

    /// A figure as one side of a ratio.
    pub fn side(&self, name: &str, unit: &str, of: impl Fn(&Measured) -> f64) -> Side {
        let (value, spread) = self.figure(of);
        Side { name: name.to_owned(), value, unit: unit.to_owned(), spread }
    }

    /// Why they stand for nothing, if one of them does not: for a peer, of which a request that failed is a reason.
    pub fn void(&self) -> Option<String> {
        let failures = || self.failures().map(|(count, why)| format!("{count} requests failed: {why}"));
        self.wrong().or_else(failures)
    }

    /// The same for our own side, of which only a wrong value is a reason: what fails or is slow is a figure.
    pub fn wrong(&self) -> Option<String> {
        self.0.iter().find_map(|one| one.summary.void.clone().filter(|_| one.summary.wrong > 0))
    }

    /// Requests that failed, and why the first did.
    pub fn failures(&self) -> Option<(u64, String)> {
        let count: u64 = self.0.iter().map(|one| one.summary.failed + one.summary.dropped).sum();
        let why = self.0.iter().find_map(|one| one.summary.first_failure.clone());
        (count > 0).then(|| (count, why.unwrap_or_else(|| "never sent".to_owned())))
    }
}

/// Microseconds.
pub fn micros(of: Duration) -> f64 {
    of.as_nanos() as f64 / 1_000.0
}
