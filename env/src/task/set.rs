//! Tasks whose results their owner waits for.

use std::future::Future;

use tokio::task::JoinError;

use super::Process;

/// tokio's `JoinSet` with members that are of the same [`Process`] as the one that spawns them: they stand still when it
/// does, and so does what they spawn. Dropping the set ends them all.
#[derive(Debug, Default)]
#[allow(clippy::disallowed_types)] // this is what is to be used in its place
pub struct JoinSet<T>(tokio::task::JoinSet<T>);

#[allow(clippy::disallowed_types)] // as above
impl<T: Send + 'static> JoinSet<T> {
    /// An empty set.
    pub fn new() -> Self {
        Self(tokio::task::JoinSet::new())
    }

    /// Adds a task.
    pub fn spawn(&mut self, future: impl Future<Output = T> + Send + 'static) {
        match Process::current() {
            Some(process) => drop(self.0.spawn(process.member(future))),
            None => drop(self.0.spawn(future)),
        }
    }

    /// The result of the next one that ends; none if there are none.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.0.join_next().await
    }

    /// As [`JoinSet::join_next`], if one has ended already.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.0.try_join_next()
    }

    /// How many have not been joined.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_set_of_a_held_process_stands_still_and_goes_on() {
        let process = Process::new();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        process.spawn("owner", async move {
            let mut set = JoinSet::new();
            set.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            let _: Option<Result<(), _>> = set.join_next().await;
        });
        tokio::time::sleep(Duration::from_millis(55)).await;
        process.hold();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::Relaxed), 5);
        process.go_on();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(count.load(Ordering::Relaxed) >= 9, "{count:?}");
        process.kill();
        let before = count.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::Relaxed), before, "a set ends with its process");
    }
}
