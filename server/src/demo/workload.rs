//! The ranking service: requests leave on schedule whatever happens to earlier ones, and each is measured from the moment
//! at which it should have left.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use stoa_client::{Client, ReadOptions, ValueStatus, View};
use stoa_env::{BootTime, Clock, Entropy, OsEntropy, QuicTransport, RealClock, spawn};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::report::{PhaseReport, Report};
use super::shop::VIEW;
use super::truth::Truth;

/// Candidate products of a request.
const CANDIDATES: usize = 100;
/// When the answer must be there, from the call.
const DEADLINE: Duration = Duration::from_millis(200);
/// One answer in this many is compared with the files, value by value.
const CHECK_EVERY: u64 = 10;
/// The window after the loss that is judged by itself.
const LOSS_WINDOW: Duration = Duration::from_secs(5);
/// What complete answers are counted against in it.
const GOOD: Duration = Duration::from_millis(10);
/// Requests under way at once; beyond it the schedule waits, and the waiting counts as latency.
const IN_FLIGHT_MAX: usize = 4_096;

/// The longest latency that is told apart, a minute.
const LATENCY_US_MAX: u32 = 60_000_000;
/// Failures that are told in words.
const FAILURES_SHOWN: usize = 10;

/// When what happens.
#[derive(Debug, Clone, Copy)]
pub struct Phases {
    /// The first request.
    pub start: BootTime,
    /// The zone is killed.
    pub loss: BootTime,
    /// The zone starts again.
    pub back: BootTime,
}

struct Outcome {
    scheduled: BootTime,
    latency: Duration,
    failure: Option<String>,
    checked: u64,
    wrong: u64,
    hedges: u32,
}

/// The requests under way.
pub struct Workload {
    tally: JoinHandle<Option<Tally>>,
    expected: u64,
}

/// What the requests came to, added up as they end.
struct Tally {
    phases: Phases,
    whole: Histogram<u64>,
    of_phase: [Histogram<u64>; 3],
    window: u64,
    good: u64,
    report: TallyReport,
}

/// Counts that go into the report as they are.
#[derive(Default)]
struct TallyReport {
    ended: u64,
    failed: u64,
    failures: Vec<String>,
    checked: u64,
    wrong: u64,
    hedges: u64,
}

impl Workload {
    /// Begins to send.
    pub async fn start(
        clients: &[Client<QuicTransport>],
        truth: Arc<Truth>,
        phases: Phases,
        rate: u64,
        seconds: u64,
    ) -> anyhow::Result<Self> {
        let mut views = Vec::new();
        for client in clients {
            views.push(client.view(VIEW).await?);
        }
        let (tick, mut ticks) = mpsc::channel::<(u64, BootTime)>(IN_FLIGHT_MAX);
        // A thread of its own keeps time: tokio's timers are no finer than a millisecond.
        std::thread::spawn(move || {
            for number in 0..rate * seconds {
                let due = phases.start.plus(Duration::from_nanos(number * 1_000_000_000 / rate));
                std::thread::sleep(due.since(RealClock.boot()));
                if tick.blocking_send((number, due)).is_err() {
                    return;
                }
            }
        });
        let (done, mut outcomes) = mpsc::channel(IN_FLIGHT_MAX);
        let tally = spawn("demo tally", async move {
            let mut tally = Tally::new(phases);
            while let Some(outcome) = outcomes.recv().await {
                tally.take(outcome);
            }
            tally
        });
        spawn("demo workload", async move {
            while let Some((number, due)) = ticks.recv().await {
                let view = views[number as usize % views.len()].clone();
                let (truth, done) = (truth.clone(), done.clone());
                spawn("demo request", async move {
                    let outcome = one(&view, &truth, number, due).await;
                    // Nobody listens any more only when the demo is being given up.
                    let _ = done.send(outcome).await;
                });
            }
        });
        Ok(Self { tally, expected: rate * seconds })
    }

    /// Waits for the last answer and adds everything up. A request that has no outcome at all has failed.
    pub async fn finish(self, report: &mut Report) -> anyhow::Result<()> {
        let tally = self.tally.await?.context("the demo lost count of its requests")?;
        let TallyReport { ended, failed, failures, checked, wrong, hedges } = tally.report;
        let missing = self.expected.saturating_sub(ended);
        report.reads_total = self.expected;
        report.reads_failed = failed + missing;
        report.failures = failures;
        if missing > 0 {
            report.failures.push(format!("{missing} requests were never sent, or came to no end"));
        }
        report.values_checked += checked;
        report.values_wrong += wrong;
        report.hedges = hedges;
        report.whole = PhaseReport::of(&tally.whole);
        report.phases = tally.of_phase.each_ref().map(PhaseReport::of);
        report.good_share = if tally.window == 0 { 0.0 } else { tally.good as f64 / tally.window as f64 };
        Ok(())
    }
}

impl Tally {
    fn new(phases: Phases) -> Self {
        let of_phase = [histogram(), histogram(), histogram()];
        Self { phases, whole: histogram(), of_phase, window: 0, good: 0, report: TallyReport::default() }
    }

    fn take(&mut self, outcome: Outcome) {
        let micros = outcome.latency.as_micros().clamp(1, LATENCY_US_MAX.into()) as u64;
        let at =
            usize::from(outcome.scheduled >= self.phases.loss) + usize::from(outcome.scheduled >= self.phases.back);
        self.whole.saturating_record(micros);
        self.of_phase[at].saturating_record(micros);
        self.report.ended += 1;
        self.report.checked += outcome.checked;
        self.report.wrong += outcome.wrong;
        self.report.hedges += u64::from(outcome.hedges);
        if at > 0 && outcome.scheduled.since(self.phases.loss) < LOSS_WINDOW {
            self.window += 1;
            self.good += u64::from(outcome.failure.is_none() && outcome.latency <= GOOD);
        }
        if let Some(why) = outcome.failure {
            self.report.failed += 1;
            if self.report.failures.len() < FAILURES_SHOWN {
                let at = outcome.scheduled.since(self.phases.start);
                self.report.failures.push(format!("at {:.3} s: {why}", at.as_secs_f64()));
            }
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX.into(), 3).expect("the bounds are constants that fit")
}

async fn one(view: &View<QuicTransport>, truth: &Truth, number: u64, scheduled: BootTime) -> Outcome {
    let request = truth.request(|| OsEntropy.next_u64(), CANDIDATES);
    let mut outcome = Outcome { scheduled, latency: Duration::ZERO, failure: None, checked: 0, wrong: 0, hedges: 0 };
    let rows = match request.rows() {
        Ok(rows) => rows,
        Err(error) => {
            outcome.failure = Some(error.to_string());
            return outcome;
        }
    };
    let called = RealClock.boot();
    let answer = view.get(&rows, &ReadOptions { deadline: DEADLINE, ..ReadOptions::default() }).await;
    let ended = RealClock.boot();
    outcome.latency = ended.since(scheduled);
    match answer {
        Err(error) => outcome.failure = Some(error.to_string()),
        Ok(answer) => {
            outcome.hedges = answer.stats().hedges;
            let unavailable = answer
                .columns()
                .map(|column| (0..answer.rows()).filter(|row| column.status(*row) == ValueStatus::Unavailable).count())
                .sum::<usize>();
            if unavailable > 0 {
                outcome.failure =
                    Some(format!("{unavailable} values were unavailable after {:?}", ended.since(called)));
            } else if ended.since(called) > DEADLINE {
                outcome.failure = Some(format!("the answer came after {:?}, beyond its deadline", ended.since(called)));
            }
            if number.is_multiple_of(CHECK_EVERY) && unavailable == 0 {
                match truth.compare(&request, &answer) {
                    Ok((checked, wrong)) => (outcome.checked, outcome.wrong) = (checked, wrong),
                    Err(error) => outcome.failure = Some(error.to_string()),
                }
            }
        }
    }
    outcome
}
