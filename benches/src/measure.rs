//! One repetition of a load, with what it cost on both sides.

use std::sync::Arc;
use std::time::Duration;

use crate::cpu;
use crate::load::{Pace, Schedule, Service, Summary, closed_loop, median_and_spread, open_loop};
use crate::report::model::Side;

/// One repetition.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What became of the requests.
    pub summary: Summary,
    /// Share of the time for which the server had a core.
    pub server: f64,
    /// Share of the time for which this process had one.
    pub client: f64,
    /// What a request cost the server, user and system.
    pub server_per_request: Duration,
}

/// `callers` ask as fast as they can, for a warm-up of a fifth of the time first; `server` is whose CPU time is counted.
pub async fn closed<S: Service>(
    service: Arc<S>,
    callers: usize,
    measured: Duration,
    server: u32,
) -> anyhow::Result<Measured> {
    let warm = closed_loop(service.clone(), callers, Duration::ZERO, measured / 5).await;
    let before = (cpu::of_process(server)?, cpu::of_this_process());
    let mut summary = closed_loop(service, callers, Duration::ZERO, measured).await;
    // A wrong value of the warm-up is one.
    if warm.wrong > 0 && summary.void.is_none() {
        summary.void = warm.void;
    }
    Measured::new(summary, before, measured, server)
}

/// Asks by a schedule.
pub async fn open<S: Service>(service: Arc<S>, schedule: Schedule, server: u32) -> anyhow::Result<Measured> {
    let before = (cpu::of_process(server)?, cpu::of_this_process());
    let summary = open_loop(service, schedule, Pace::Exact).await;
    Measured::new(summary, before, schedule.warm_up + schedule.measured, server)
}

impl Measured {
    fn new(summary: Summary, before: (Duration, Duration), time: Duration, server: u32) -> anyhow::Result<Self> {
        let (server, client) = (cpu::of_process(server)? - before.0, cpu::of_this_process() - before.1);
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

    /// Why they stand for nothing, if one of them does not; a request that failed in a calm run is a reason.
    pub fn void(&self) -> Option<String> {
        let of = |one: &Measured| {
            let Summary { failed, dropped, first_failure, void, .. } = &one.summary;
            let failures = failed + dropped;
            let why = || format!("{failures} requests failed: {}", first_failure.as_deref().unwrap_or("never sent"));
            void.clone().or_else(|| (failures > 0).then(why))
        };
        self.0.iter().find_map(of)
    }
}

/// Microseconds.
pub fn micros(of: Duration) -> f64 {
    of.as_nanos() as f64 / 1_000.0
}
