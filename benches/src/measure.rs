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

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::load::{Outcome, Recorder};

    /// A repetition with these figures, for tests of what is made of them.
    pub fn measured(rate: f64, server_us: f64, server: f64, client: f64) -> Measured {
        let mut summary = Recorder::new().finish(Duration::from_secs(1));
        summary.void = None;
        summary.rate = rate;
        summary.answered = rate as u64;
        Measured { summary, server, client, server_per_request: Duration::from_secs_f64(server_us / 1e6) }
    }

    #[test]
    fn failures_void_a_peer_and_are_figures_of_our_own() {
        let mut all = Repetitions(vec![measured(10.0, 1.0, 1.0, 0.5)]);
        assert_eq!((all.void(), all.wrong()), (None, None));
        all.0[0].summary.failed = 3;
        assert!(all.void().is_some_and(|why| why.contains("3 requests failed")));
        assert_eq!(all.wrong(), None);
        all.0[0].summary.wrong = 1;
        all.0[0].summary.void = Some("1 wrong values".into());
        assert_eq!(all.wrong().as_deref(), Some("1 wrong values"));
    }

    struct Busy;

    impl Service for Busy {
        async fn call(&self, _: u64) -> Outcome {
            let mut sum = 0_u64;
            (0..200_000).for_each(|at| sum = std::hint::black_box(sum.wrapping_add(at)));
            tokio::task::yield_now().await;
            Outcome::Answered { checked: true }
        }
    }

    #[tokio::test]
    async fn cpu_of_a_server_is_by_its_requests_and_by_the_time_they_took() {
        // The server is this process: what it costs is what the client costs.
        let found = closed(Arc::new(Busy), 2, Duration::from_millis(500), &[std::process::id()]).await.unwrap();
        let total = found.server_per_request.as_secs_f64() * found.summary.answered as f64;
        let share = found.server;
        assert!(found.summary.answered > 0 && share > 0.0);
        assert!((total / 0.5 / share - 1.0).abs() < 0.5, "{total} s of 0.5, and a share of {share}");
    }
}
