//! `micro time`: criterion, and what this machine is like at the moment is in its figures.

#![allow(clippy::disallowed_methods)] // a benchmark measures true time, and no node is about

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use criterion::{Criterion, Throughput};

use super::subject::{Subject, Work, all};

/// Samples of each part: enough for criterion's estimates, few enough that the slow ones end.
const SAMPLES: usize = 30;

/// Measures the time of each part.
#[derive(Debug, Args)]
pub struct Time {
    /// Only parts whose name has this in it, such as `gather` or `log/row`.
    filter: Option<String>,
    /// Seconds for each part, after one of warm-up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Where the log's files are made: a directory on the device whose sync is meant, as in memory (tmpfs) a sync costs
    /// nothing. The system's temporary directory, unless given.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Time {
    /// Runs it; criterion prints the figures, and the change against the run before.
    pub fn run(&self) -> anyhow::Result<()> {
        let filter = self.filter.as_deref().unwrap_or_default();
        let subjects: Vec<_> = all().into_iter().filter(|subject| subject.name.contains(filter)).collect();
        ensure!(!subjects.is_empty(), "no part has {filter:?} in its name");
        let dir = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut criterion = Criterion::default()
            .without_plots()
            .sample_size(SAMPLES)
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(self.seconds));
        for subject in &subjects {
            let mut work = (subject.make)(&dir);
            let (group, case) = subject.name.split_once('/').expect("a name has a group and a case");
            let mut group = criterion.benchmark_group(group);
            group.throughput(Throughput::Elements(subject.rows));
            group.bench_function(case, |bencher| bencher.iter_custom(|count| spent(subject, &mut *work, count)));
            group.finish();
        }
        Ok(())
    }
}

/// The time of so many operations, without what prepares them.
fn spent(subject: &Subject, work: &mut dyn Work, count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let now = left.min(subject.at_once_max);
        work.prepare(now);
        let start = Instant::now();
        work.run(now);
        spent += start.elapsed();
        left -= now;
    }
    spent
}
