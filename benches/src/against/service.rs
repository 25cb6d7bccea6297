//! One read of a user's view.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stoa_client::{ReadOptions, Rows, View};
use stoa_env::Transport;

use super::keys::Keys;
use crate::load::{Outcome, Service};

/// Reads of a view, and what they found.
pub struct ViewReads<T: Transport> {
    view: View<T>,
    keys: Keys,
    rows: usize,
    options: ReadOptions,
    rows_asked: AtomicU64,
    rows_found: AtomicU64,
    hedges: AtomicU64,
    age_max_us: AtomicU64,
}

/// What reads found since they were counted last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    asked: u64,
    found: u64,
    /// Second requests that were sent because a first one was slow.
    pub hedges: u64,
    /// The largest age of an answer.
    pub age_max: Duration,
}

impl Counts {
    /// Rows that were found in at least one group of the view, of a hundred.
    pub fn found_percent(&self) -> f64 {
        self.found as f64 * 100.0 / self.asked.max(1) as f64
    }
}

impl<T: Transport> ViewReads<T> {
    /// Reads of `rows` rows by these options.
    pub fn new(view: View<T>, keys: Keys, rows: usize, options: ReadOptions) -> Self {
        let zero = || AtomicU64::new(0);
        Self { view, keys, rows, options, rows_asked: zero(), rows_found: zero(), hedges: zero(), age_max_us: zero() }
    }

    /// What there was since the last time.
    pub fn take_counts(&self) -> Counts {
        let take = |of: &AtomicU64| of.swap(0, Ordering::Relaxed);
        Counts {
            asked: take(&self.rows_asked),
            found: take(&self.rows_found),
            hedges: take(&self.hedges),
            age_max: Duration::from_micros(take(&self.age_max_us)),
        }
    }

    async fn read(&self, n: u64) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
        let mut rows = Rows::new(&self.keys.names());
        for key in self.keys.request(n, self.rows) {
            rows.push(&key)?;
        }
        let answer = self.view.get(&rows, &self.options).await?;
        let groups = answer.groups().len();
        let found = (0..answer.rows()).filter(|row| (0..groups).any(|group| answer.event_time(*row, group).is_some()));
        self.rows_found.fetch_add(found.count() as u64, Ordering::Relaxed);
        self.rows_asked.fetch_add(answer.rows() as u64, Ordering::Relaxed);
        self.hedges.fetch_add(answer.stats().hedges.into(), Ordering::Relaxed);
        if let Some(age) = answer.age_max() {
            self.age_max_us.fetch_max(age.as_micros() as u64, Ordering::Relaxed);
        }
        Ok(match (answer.is_complete(), answer.is_stale()) {
            (true, false) => Outcome::Answered { checked: false },
            (true, true) => Outcome::Failed("the answer is stale".into()),
            (false, _) => Outcome::Failed(format!("the answer is not complete within {:?}", self.options.deadline)),
        })
    }
}

impl<T: Transport> Service for ViewReads<T> {
    async fn call(&self, n: u64) -> Outcome {
        self.read(n).await.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }
}
