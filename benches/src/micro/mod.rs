//! `stoa-bench micro`: the parts of a read and a write, each by itself.
//!
//! | command | what it does |
//! |---|---|
//! | `micro time` | measures time by criterion; says something on a quiet machine alone |
//! | `micro count` | counts instructions by callgrind and compares them with a committed baseline; noise does not matter |
//!
//! Start reading at [`subject`]: what is measured, as one list for both. Each subject's file says what its figure holds.

mod apply;
mod baseline;
mod callgrind;
mod codec;
mod count;
mod log;
mod made_with;
mod reads;
mod snapshot;
mod subject;
mod table;
mod time;
mod unsynced;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Measures the parts of a read and a write, each by itself.
#[derive(Debug, Args)]
pub struct MicroBench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The time of each part, by criterion, beside that of the run before.
    Time(time::Time),
    /// The instructions of the hot parts, by callgrind, beside those of the baseline.
    Count(count::Count),
    /// One part, once, as `count` runs it under callgrind.
    #[command(hide = true)]
    Once(callgrind::Once),
}

impl MicroBench {
    /// Runs it and prints the figures.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.what {
            What::Time(time) => time.run().map(|()| ExitCode::SUCCESS),
            What::Count(count) => Ok(count.run()),
            What::Once(once) => once.run().map(|()| ExitCode::SUCCESS),
        }
    }
}
