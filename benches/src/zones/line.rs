//! Waits to some microseconds: a thread of its own sleeps by the kernel's fine timer, which the runtime's timer, with its grain of
//! a millisecond, cannot.

#![allow(clippy::disallowed_methods)] // delays are in true time, and only measurements have them

use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::thread::set_current_timer_slack;
use tokio::sync::oneshot;

/// How late the kernel may wake the thread on purpose, in nanoseconds; 50,000 unless set.
const SLACK_NS: NonZeroU64 = NonZeroU64::new(1_000).expect("it is not 0");

/// Lets many wait, each for its own time. The thread ends with the last handle.
pub struct DelayLine {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BinaryHeap<Waiting>,
    ended: bool,
}

/// Ordered so that the heap gives the earliest first.
struct Waiting {
    due: Instant,
    wake: oneshot::Sender<()>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

impl DelayLine {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let of_thread = shared.clone();
        std::thread::Builder::new().name("delay line".into()).spawn(move || of_thread.run())?;
        Ok(Self { shared })
    }

    /// Waits.
    pub async fn wait(&self, delay: Duration) {
        let (wake, woken) = oneshot::channel();
        let due = Instant::now() + delay;
        let first = {
            let mut state = self.shared.lock();
            let first = state.waiting.peek().is_none_or(|next| due < next.due);
            state.waiting.push(Waiting { due, wake });
            first
        };
        if first {
            self.shared.changed.notify_one();
        }
        // The sender is dropped only with the line itself, while nobody can wait on it any more.
        let _line_has_ended = woken.await;
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn run(&self) {
        // Without it delays are 50 us longer: less exact, and nothing else.
        let _refused = set_current_timer_slack(Some(SLACK_NS));
        let mut state = self.lock();
        while !state.ended {
            let now = Instant::now();
            while state.waiting.peek().is_some_and(|next| next.due <= now) {
                let next = state.waiting.pop().expect("it is the first");
                let _gave_up = next.wake.send(());
            }
            state = match state.waiting.peek().map(|next| next.due) {
                None => self.changed.wait(state).unwrap_or_else(|e| e.into_inner()),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_end_in_the_order_of_their_times_and_none_too_early() {
        let line = DelayLine::start().unwrap();
        let start = Instant::now();
        let wait = async |ms: u64| {
            line.wait(Duration::from_millis(ms)).await;
            assert!(start.elapsed() >= Duration::from_millis(ms));
            ms
        };
        let mut ended = Vec::new();
        let (long, short) = (wait(60), wait(20));
        tokio::pin!(long, short);
        while ended.len() < 2 {
            tokio::select! {
                biased;
                ms = &mut long, if !ended.contains(&60) => ended.push(ms),
                ms = &mut short, if !ended.contains(&20) => ended.push(ms),
            }
        }
        assert_eq!(ended, [20, 60]);
    }
}
