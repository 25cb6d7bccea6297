//! The thin edge between schedule, service and recorder.

#![allow(clippy::disallowed_methods)] // a load generator measures true time, and no node is about

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoa_env::JoinSet;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::recorder::{DROPPED_LATENCY, Outcome, Recorder, Summary};
use super::schedule::Schedule;

/// Requests under way at once in the open loop. At 20,000 a second it is most of a second's; beyond it they are dropped,
/// and counted so, lest a service that has stopped fill the memory.
const IN_FLIGHT_MAX: usize = 16_384;
/// How far before its time a request is waited for without sleeping: a timer's grain is a millisecond.
const SPIN: Duration = Duration::from_micros(1_500);

/// What is asked.
pub trait Service: Send + Sync + 'static {
    /// Sends request `n` and judges its answer. It must end by itself: the driver has no limit of its own.
    fn call(&self, n: u64) -> impl Future<Output = Outcome> + Send;
}

/// How the open loop waits for the next request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// By the timer alone, to a millisecond.
    Timer,
    /// By the timer, then looking at the clock again and again: exact, and busy for the last part of each wait.
    Exact,
}

/// Asks by the schedule, whatever becomes of the answers, then waits for those that are still under way.
pub async fn open_loop<S: Service>(service: Arc<S>, schedule: Schedule, pace: Pace) -> Summary {
    let (_never, stop) = watch::channel(false);
    open_loop_watched(service, schedule, pace, stop, |_, _, _| {}).await
}

/// The same, until `stop` is set or the schedule ends, whichever is first; what was measured lasts until then.
pub async fn open_loop_until<S: Service>(
    service: Arc<S>,
    schedule: Schedule,
    pace: Pace,
    stop: watch::Receiver<bool>,
) -> Summary {
    open_loop_watched(service, schedule, pace, stop, |_, _, _| {}).await
}

/// The same, and tells of every request that ended, the warm-up's too: when it was due, how long it took from then, and whether its
/// answer was complete.
pub async fn open_loop_watched<S: Service>(
    service: Arc<S>,
    schedule: Schedule,
    pace: Pace,
    stop: watch::Receiver<bool>,
    mut watch: impl FnMut(Duration, Duration, bool),
) -> Summary {
    let mut recorder = Recorder::new();
    let mut under_way = JoinSet::new();
    let start = Instant::now();
    for n in 0.. {
        let Some(due) = schedule.due(n).filter(|_| !*stop.borrow()) else { break };
        wait_until(start + due, pace).await;
        while let Some(ended) = under_way.try_join_next() {
            take(&mut recorder, schedule, ended, &mut watch);
        }
        if under_way.len() >= IN_FLIGHT_MAX {
            if schedule.is_measured(due) {
                recorder.record_dropped(due);
            }
            watch(due, DROPPED_LATENCY, false);
            continue;
        }
        let service = service.clone();
        under_way.spawn(async move {
            let sent = start.elapsed();
            let outcome = service.call(n).await;
            Ended { due, sent, done: start.elapsed(), outcome }
        });
    }
    let asked = start.elapsed().saturating_sub(schedule.warm_up).min(schedule.measured);
    while let Some(ended) = under_way.join_next().await {
        take(&mut recorder, schedule, ended, &mut watch);
    }
    recorder.finish(asked)
}

/// `callers` ask, each again as soon as it has its answer. What ends in the warm-up or after the end is not recorded.
pub async fn closed_loop<S: Service>(
    service: Arc<S>,
    callers: usize,
    warm_up: Duration,
    measured: Duration,
) -> Summary {
    let (start, end) = (Instant::now(), warm_up + measured);
    let numbers = Arc::new(AtomicU64::new(0));
    let recorder = Arc::new(Mutex::new(Recorder::new()));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (service, numbers, recorder) = (service.clone(), numbers.clone(), recorder.clone());
        tasks.spawn(async move {
            while start.elapsed() < end {
                let sent = start.elapsed();
                let outcome = service.call(numbers.fetch_add(1, Ordering::Relaxed)).await;
                let done = start.elapsed();
                let mut recorder = recorder.lock().unwrap_or_else(|e| e.into_inner());
                match outcome {
                    Outcome::Wrong(what) => recorder.record_wrong(what),
                    // A request counts where it ends: so the rate is that of the measured time, no more and no less.
                    outcome if done >= warm_up && done <= end => recorder.record(sent, done, outcome),
                    _ => {}
                }
            }
        });
    }
    let mut panics = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        panics.extend(ended.err());
    }
    let recorder = Arc::into_inner(recorder).expect("all callers have ended");
    let mut recorder = recorder.into_inner().unwrap_or_else(|e| e.into_inner());
    panics.iter().for_each(|error| recorder.record_wrong(format!("a caller's task ended: {error}")));
    recorder.finish(measured)
}

/// One request of the open loop; times are from the start.
struct Ended {
    due: Duration,
    sent: Duration,
    done: Duration,
    outcome: Outcome,
}

fn take(
    recorder: &mut Recorder,
    schedule: Schedule,
    ended: Result<Ended, tokio::task::JoinError>,
    watch: &mut impl FnMut(Duration, Duration, bool),
) {
    if let Ok(Ended { due, sent, done, outcome }) = &ended {
        watch(*due, done.saturating_sub(*due), matches!(outcome, Outcome::Answered { .. }));
        recorder.record_sent(sent.saturating_sub(*due));
    }
    match ended {
        // A panic of the harness is no latency of the service: it voids the run.
        Err(error) => recorder.record_wrong(format!("a request's task ended: {error}")),
        Ok(Ended { due, done, outcome, .. }) if schedule.is_measured(due) => recorder.record(due, done, outcome),
        Ok(Ended { outcome: Outcome::Wrong(what), .. }) => recorder.record_wrong(what),
        Ok(_) => {}
    }
}

async fn wait_until(at: Instant, pace: Pace) {
    if pace == Pace::Timer {
        // Even a late generator lets others run, or the answers would wait for it.
        return sleep_until(at).await;
    }
    if at.saturating_duration_since(Instant::now()) > SPIN {
        sleep_until(at - SPIN).await;
    }
    loop {
        tokio::task::yield_now().await;
        if Instant::now() >= at {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE_TIME: Duration = Duration::from_millis(1);
    const SECONDS: Duration = Duration::from_secs(10);

    fn schedule(rate: u32) -> Schedule {
        Schedule { rate, warm_up: Duration::from_secs(1), measured: SECONDS }
    }

    /// Answers after a millisecond, but for the first 50 ms of each second, in which it does nothing.
    struct Stalling {
        start: Instant,
        wrong_at: Option<u64>,
    }

    impl Stalling {
        fn new(wrong_at: Option<u64>) -> Arc<Self> {
            Arc::new(Self { start: Instant::now(), wrong_at })
        }
    }

    impl Service for Stalling {
        async fn call(&self, n: u64) -> Outcome {
            let into_second = self.start.elapsed().subsec_millis();
            if into_second < 50 {
                tokio::time::sleep(Duration::from_millis(u64::from(50 - into_second))).await;
            }
            tokio::time::sleep(SERVICE_TIME).await;
            match self.wrong_at == Some(n) {
                true => Outcome::Wrong(format!("request {n}: 1 instead of 2")),
                false => Outcome::Answered { checked: true },
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_of_50_ms_in_each_second_is_seen_by_the_open_loop_and_hidden_by_the_closed_one() {
        let open = open_loop(Stalling::new(None), schedule(1_000), Pace::Timer).await;
        let closed = closed_loop(Stalling::new(None), 1, Duration::from_secs(1), SECONDS).await;
        let ms = Duration::from_millis;
        assert!(open.p99 >= ms(35) && open.p99 <= ms(55), "{open:?}");
        assert!(closed.p99 < ms(10), "{closed:?}");
        assert!(closed.max >= ms(50), "the closed loop met no stall: {closed:?}");
        assert_eq!((open.answered, open.failed, open.dropped, open.void), (10_000, 0, 0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_wrong_value_voids_the_run_even_in_the_warm_up() {
        for n in [3, 5_000] {
            let open = open_loop(Stalling::new(Some(n)), schedule(1_000), Pace::Timer).await;
            let closed = closed_loop(Stalling::new(Some(n)), 2, Duration::from_secs(1), SECONDS).await;
            for summary in [open, closed] {
                assert_eq!(summary.wrong, 1, "request {n}");
                let why = summary.void.unwrap_or_default();
                assert!(why.contains(&format!("request {n}: 1 instead of 2")), "{why}");
            }
        }
    }

    /// Stalls as [`Stalling`] does, and knows when each request is due and how many came before that.
    struct Due {
        stalling: Arc<Stalling>,
        schedule: Schedule,
        early: AtomicU64,
    }

    impl Service for Due {
        async fn call(&self, n: u64) -> Outcome {
            let due = self.schedule.due(n).unwrap_or(Duration::MAX);
            let early = self.stalling.start.elapsed() < due;
            self.early.fetch_add(u64::from(early), Ordering::Relaxed);
            self.stalling.call(n).await
        }
    }

    /// In true time, since the exact pace spins and a paused clock would stand still; so only what a busy machine cannot
    /// break is asked.
    #[tokio::test]
    async fn the_exact_pace_sends_nothing_early_and_sees_the_stalls_too() {
        let schedule = Schedule { rate: 500, warm_up: Duration::from_millis(200), measured: Duration::from_secs(2) };
        let service = Arc::new(Due { stalling: Stalling::new(None), schedule, early: AtomicU64::new(0) });
        let summary = open_loop(service.clone(), schedule, Pace::Exact).await;
        assert_eq!((summary.answered, summary.failed, summary.dropped), (1_000, 0, 0), "{summary:?}");
        assert_eq!(service.early.load(Ordering::Relaxed), 0, "requests were sent before they were due");
        assert!(summary.p99 >= Duration::from_millis(35), "{summary:?}");
    }

    /// Its first request holds the whole machine for 30 ms, the load generator too; the others are answered at once.
    struct Holding;

    impl Service for Holding {
        async fn call(&self, n: u64) -> Outcome {
            if n == 1_000 {
                tokio::time::advance(Duration::from_millis(30)).await;
            }
            Outcome::Answered { checked: true }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_sent_late_counts_from_when_it_was_due() {
        let summary = open_loop(Arc::new(Holding), schedule(1_000), Pace::Timer).await;
        assert!(summary.max >= Duration::from_millis(29), "{summary:?}");
        // Some thirty of ten thousand were sent late: the 99.9th percentile is one of them.
        assert!(summary.p999 >= Duration::from_millis(15), "{summary:?}");
        assert_eq!(summary.answered, 10_000);
    }

    /// Never answers within the run.
    struct Stopped;

    impl Service for Stopped {
        async fn call(&self, _: u64) -> Outcome {
            tokio::time::sleep(Duration::from_secs(30)).await;
            Outcome::Failed("no answer within 30 s".into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_has_stopped_is_asked_on_until_requests_are_dropped_and_counted() {
        let summary = open_loop(Arc::new(Stopped), schedule(2_000), Pace::Timer).await;
        assert_eq!(summary.failed + summary.dropped, 20_000);
        assert_eq!(summary.dropped, 22_000 - IN_FLIGHT_MAX as u64);
        assert!(summary.p50 >= Duration::from_secs(30), "{summary:?}");
        assert!(summary.void.is_some());
    }
}
