//! Sleeps and time limits by the monotonic clock of the process that asks. In a program that is one node that is tokio's
//! clock, and these are tokio's timers. A [`Process`] of several in one program may be suspended by its machine: its
//! monotonic clock stands still then, as a kernel's does, and what sleeps in it sleeps on for as long afterwards.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;

use crate::task::Process;

pin_project! {
    /// Sleeps; see [`sleep`].
    #[derive(Debug)]
    #[must_use = "a future does nothing until it is awaited"]
    pub struct Sleep {
        #[pin]
        inner: tokio::time::Sleep,
        process: Option<Process>,
        // For how long the process had stood still when the deadline was set.
        stood: Duration,
    }
}

pin_project! {
    /// A future that has a time limit; see [`timeout`].
    #[derive(Debug)]
    #[must_use = "a future does nothing until it is awaited"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        limit: Sleep,
    }
}

/// The time limit has passed, and the future has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time limit has passed")]
pub struct Elapsed;

/// Sleeps for this long. The grain is a millisecond; it may take longer, and ends early only by as much as the clocks that one
/// asks have drifted apart from this one.
pub fn sleep(duration: Duration) -> Sleep {
    let process = Process::current();
    let stood = process.as_ref().map_or(Duration::ZERO, Process::stood);
    Sleep { inner: tokio::time::sleep(duration), process, stood }
}

/// Gives `future` this long; then it is dropped, and the result is [`Elapsed`]. A future that has ended wins over a limit that
/// has passed.
pub fn timeout<F: Future>(limit: Duration, future: F) -> Timeout<F> {
    Timeout { future, limit: sleep(limit) }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            ready!(this.inner.as_mut().poll(context));
            let stood = this.process.as_ref().map_or(*this.stood, Process::stood);
            let more = stood.saturating_sub(*this.stood);
            if more.is_zero() {
                return Poll::Ready(());
            }
            *this.stood = stood;
            let deadline = this.inner.deadline() + more;
            this.inner.as_mut().reset(deadline);
        }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let before = coop::has_budget_remaining();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        // A future that uses up what tokio lets a task do at a time, at every step, must not outlive its limit by that.
        let limit = match before && !coop::has_budget_remaining() {
            true => pin!(coop::unconstrained(this.limit)).poll(context),
            false => this.limit.poll(context),
        };
        limit.map(|()| Err(Elapsed))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the test asks how long it took by tokio's paused time
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How long a second's sleep and a limit of two seconds take in a process to which `befall` happens.
    async fn slept(befall: impl AsyncFnOnce(&Process)) -> (Duration, Duration) {
        let process = Process::new();
        let start = Instant::now();
        let sleeper = process.spawn("sleeper", async move {
            sleep(Duration::from_secs(1)).await;
            start.elapsed()
        });
        let waiter = process.spawn("waiter", async move {
            let limited = timeout(Duration::from_secs(2), std::future::pending::<()>()).await;
            assert_eq!(limited, Err(Elapsed));
            start.elapsed()
        });
        befall(&process).await;
        let took = (sleeper.await.unwrap().unwrap(), waiter.await.unwrap().unwrap());
        (Duration::from_millis(took.0.as_millis() as u64), Duration::from_millis(took.1.as_millis() as u64))
    }

    #[tokio::test(start_paused = true)]
    async fn sleeps_are_longer_by_a_suspension_and_not_by_being_held() {
        let ms = Duration::from_millis;
        let nothing = slept(async |_| {}).await;
        let held = slept(async |process| {
            tokio::time::sleep(ms(500)).await;
            process.hold();
            tokio::time::sleep(ms(300)).await;
            process.go_on();
        });
        let suspended = slept(async |process| {
            for _ in 0..2 {
                tokio::time::sleep(ms(400)).await;
                process.suspend();
                tokio::time::sleep(ms(5_000)).await;
                process.go_on();
            }
        });
        // tokio's timers end up to a millisecond late.
        let near = |took: (Duration, Duration), wanted: (u64, u64)| {
            let fits = |took: Duration, wanted| took >= ms(wanted) && took <= ms(wanted + 3);
            assert!(fits(took.0, wanted.0) && fits(took.1, wanted.1), "{took:?}, {wanted:?} is wanted");
        };
        near(nothing, (1_000, 2_000));
        near(held.await, (1_000, 2_000));
        near(suspended.await, (11_000, 12_000));
    }

    #[tokio::test]
    async fn a_future_that_never_rests_does_not_outlive_its_limit() {
        let greedy = async {
            loop {
                coop::consume_budget().await;
            }
        };
        assert_eq!(timeout(Duration::from_millis(5), greedy).await, Err::<(), _>(Elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_ends_in_time_gives_its_output() {
        assert_eq!(timeout(Duration::from_secs(1), async { 7 }).await, Ok(7));
        assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7), "it has ended when it is asked first");
    }
}
