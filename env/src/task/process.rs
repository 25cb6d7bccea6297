//! Several processes in one program. Whoever runs more than one node in a program (a test, the simulator) gives each a
//! [`Process`]: every task that a member spawns is a member, so all of them can be ended at once, as `kill -9` ends a
//! real process, or held, as SIGSTOP holds it. A program that is one node has none, and its tasks are tokio's alone.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

/// Finished members are forgotten when there are this many, and again at twice what is left.
const MEMBERS_CHECKED_AT: usize = 256;

tokio::task_local! {
    static CURRENT: Process;
}

/// The tasks of one process. Clones are the same process.
#[derive(Debug, Clone, Default)]
pub struct Process {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    name: Arc<str>,
    state: State,
    members: Vec<AbortHandle>,
    check_at: usize,
    /// Members that wanted to run while the process was held, in order.
    held: Vec<Waker>,
    /// Since when its machine has been suspended, if it is.
    suspended: Option<Instant>,
    /// For how long it was before.
    stood: Duration,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Running,
    Held,
    Dead,
}

impl Process {
    /// A running process without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// One with a name, for whoever reads what several of them log.
    pub fn named(name: &str) -> Self {
        let process = Self::default();
        process.lock().name = name.into();
        process
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> Arc<str> {
        self.lock().name.clone()
    }

    /// The process of the task that asks.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Spawns `future` as a member, as [`spawn`](super::spawn) does.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        CURRENT.sync_scope(self.clone(), || super::spawn(name, future))
    }

    /// Ends all members at once: none of them runs another step, and what they spawn from now on (as their futures are
    /// dropped) never runs at all.
    pub fn kill(&self) {
        let members = {
            let mut inner = self.lock();
            inner.state = State::Dead;
            inner.held.clear();
            std::mem::take(&mut inner.members)
        };
        members.iter().for_each(AbortHandle::abort);
    }

    /// Holds all members where they are. Timers run on: members find them past when they go on.
    pub fn hold(&self) {
        let mut inner = self.lock();
        if inner.state == State::Running {
            inner.state = State::Held;
        }
    }

    /// Holds all members as [`hold`](Self::hold) does, with the monotonic clock of their machine: what sleeps in them
    /// ([`crate::timer`]) sleeps on for as long when they go on.
    #[allow(clippy::disallowed_methods)] // true time, in which a suspension lasts
    pub fn suspend(&self) {
        self.hold();
        let mut inner = self.lock();
        if inner.state == State::Held && inner.suspended.is_none() {
            inner.suspended = Some(Instant::now());
        }
    }

    /// For how long the monotonic clock of its machine has stood still, in all suspensions that are over.
    pub fn stood(&self) -> Duration {
        self.lock().stood
    }

    /// Lets the members go on.
    pub fn go_on(&self) {
        let held = {
            let mut inner = self.lock();
            if inner.state != State::Held {
                return;
            }
            let stood = inner.suspended.take().map_or(Duration::ZERO, |since| since.elapsed());
            inner.stood += stood;
            inner.state = State::Running;
            std::mem::take(&mut inner.held)
        };
        held.into_iter().for_each(Waker::wake);
    }

    #[allow(clippy::disallowed_methods)] // as in the module above
    pub(super) fn adopt<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = tokio::spawn(self.member(future));
        let mut inner = self.lock();
        if inner.state == State::Dead {
            handle.abort();
            return handle;
        }
        if inner.members.len() >= inner.check_at.max(MEMBERS_CHECKED_AT) {
            inner.members.retain(|member| !member.is_finished());
            inner.check_at = inner.members.len() * 2;
        }
        inner.members.push(handle.abort_handle());
        handle
    }

    /// `future` as a part of this process: held when it is, and what it spawns are members.
    pub(super) fn member<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let process = self.clone();
        CURRENT.scope(self.clone(), async move {
            let mut future = pin!(future);
            poll_fn(|context| match process.may_run(context.waker()) {
                true => future.as_mut().poll(context),
                false => Poll::Pending,
            })
            .await
        })
    }

    /// Whether a member may take a step now; if not, it is woken when it may.
    fn may_run(&self, waker: &Waker) -> bool {
        let mut inner = self.lock();
        match inner.state {
            State::Running => true,
            State::Dead => false,
            State::Held => {
                if !inner.held.iter().any(|held| held.will_wake(waker)) {
                    inner.held.push(waker.clone());
                }
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts every 10 ms, in a task of a task.
    fn counter(process: &Process) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let inner = count.clone();
        process.spawn("outer", async move {
            let task = super::super::spawn("inner", async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    inner.fetch_add(1, Ordering::Relaxed);
                }
            });
            let _ = task.await;
        });
        count
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_killed_process_takes_no_further_step_and_another_goes_on() {
        let (doomed, other) = (Process::new(), Process::new());
        let (count, others) = (counter(&doomed), counter(&other));
        tokio::time::sleep(Duration::from_millis(105)).await;
        assert_eq!(count.load(Ordering::Relaxed), 10);
        doomed.kill();
        doomed.spawn("late", async { panic!("a dead process runs nothing") });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((count.load(Ordering::Relaxed), others.load(Ordering::Relaxed)), (10, 20));
        assert_eq!(Arc::strong_count(&count), 1, "what its tasks held is dropped");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_held_process_stands_still_and_goes_on() {
        let process = Process::new();
        let count = counter(&process);
        tokio::time::sleep(Duration::from_millis(55)).await;
        process.hold();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::Relaxed), 5);
        process.go_on();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(count.load(Ordering::Relaxed) >= 9, "{count:?}");
    }
}
