//! `micro count`: the instructions of the hot parts, against the baseline.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::baseline::{Baseline, Change, MORE_PERCENT_MAX};
use super::callgrind::{Callgrind, valgrind_version};
use super::made_with::{MadeWith, is_optimised};
use super::subject::{Subject, all};

/// The committed baseline.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");

/// Counts the instructions of the hot parts and compares them with the baseline.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 nothing costs over 2 % more, 1 something does, 2 the command line is wrong, \
    3 the baseline does not compare with this build or machine, 4 valgrind is not installed, 5 counting failed.")]
pub struct Count {
    /// Only parts whose name has this in it, such as `gather`.
    filter: Option<String>,
    /// Write the baseline instead of comparing with it.
    #[arg(long, conflicts_with = "filter")]
    update: bool,
    /// The baseline.
    #[arg(long, default_value = BASELINE)]
    baseline: PathBuf,
}

/// Why there is no verdict.
enum NoVerdict {
    /// The counts would not compare; what differs and what to do.
    Incomparable(String),
    /// There is no valgrind.
    NoValgrind,
    /// Counting failed.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for NoVerdict {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Count {
    /// Runs it and prints the figures. The exit status says what came of it: the command's help lists them.
    pub fn run(&self) -> ExitCode {
        let (status, message) = match self.try_run() {
            Ok(costlier) if costlier.is_empty() => return ExitCode::SUCCESS,
            Ok(costlier) => (1, verdict(&costlier)),
            Err(NoVerdict::Incomparable(why)) => (3, why),
            Err(NoVerdict::NoValgrind) => (
                4,
                "valgrind is not installed, and it is what counts: apt-get install valgrind, or your system's package of \
                 that name"
                    .into(),
            ),
            Err(NoVerdict::Failed(error)) => (5, format!("{error:#}")),
        };
        eprintln!("stoa-bench: {message}");
        ExitCode::from(status)
    }

    fn try_run(&self) -> Result<BTreeMap<&'static str, Change>, NoVerdict> {
        if !is_optimised() {
            let why = "instructions of a build without optimisation say nothing: cargo run --release -p stoa-bench -- \
                       micro count";
            return Err(NoVerdict::Incomparable(why.into()));
        }
        let version = valgrind_version()?.ok_or(NoVerdict::NoValgrind)?;
        let made_with = MadeWith::here(&version);
        let subjects = self.subjects()?;
        let baseline = if self.update { None } else { Some(self.comparable(&made_with, &subjects)?) };
        let callgrind = Callgrind::new()?;
        println!("{:<26}{:>14}{:>12}{:>14}{:>10}", "instructions", "an operation", "a row", "baseline", "change");
        let mut instructions = BTreeMap::new();
        let mut changes = BTreeMap::new();
        for (subject, operations) in &subjects {
            let now = per_operation(callgrind.count(subject)?, *operations);
            let change = baseline.as_ref().and_then(|baseline| baseline.change(subject.name, now));
            println!("{}", line(subject, now, change));
            instructions.insert(subject.name.to_owned(), now);
            changes.extend(change.map(|change| (subject.name, change)));
        }
        if self.update {
            Baseline { made_with, instructions }.write(&self.baseline)?;
            println!("written to {}: commit it with the reason for what changed", self.baseline.display());
        }
        if changes.values().any(|change| change.is_cheaper()) {
            println!("some cost less: micro count --update keeps that from being lost again unseen");
        }
        changes.retain(|_, change| change.is_costlier());
        Ok(changes)
    }

    fn subjects(&self) -> Result<Vec<(Subject, u64)>, NoVerdict> {
        let filter = self.filter.as_deref().unwrap_or_default();
        let wanted = all().into_iter().filter(|subject| subject.name.contains(filter));
        let subjects: Vec<_> = wanted.filter_map(|subject| subject.counted.map(|count| (subject, count))).collect();
        if subjects.is_empty() {
            return Err(NoVerdict::Failed(anyhow::anyhow!("no part that is counted has {filter:?} in its name")));
        }
        Ok(subjects)
    }

    /// The baseline, if counts of these parts compare with it.
    fn comparable(&self, ours: &MadeWith, subjects: &[(Subject, u64)]) -> Result<Baseline, NoVerdict> {
        let path = self.baseline.display();
        let Some(baseline) = Baseline::read(&self.baseline)? else {
            let why = format!("there is no baseline at {path}: micro count --update writes one");
            return Err(NoVerdict::Incomparable(why));
        };
        let names: Vec<_> = subjects.iter().map(|(subject, _)| subject.name).collect();
        let mut obstacles = baseline.obstacles(ours, &names);
        if self.filter.is_none() {
            obstacles.extend(baseline.forgotten(&names));
        }
        if obstacles.is_empty() {
            return Ok(baseline);
        }
        Err(NoVerdict::Incomparable(format!(
            "counts of this build do not compare with {path}:\n  {}\nnothing was counted. Use what the baseline was made \
             with; or check out the commit whose cost is the measure, run micro count --update there, and compare with \
             what that wrote",
            obstacles.join("\n  ")
        )))
    }
}

/// To a tenth: less is not meant.
fn per_operation(total: u64, operations: u64) -> f64 {
    (total as f64 / operations as f64 * 10.0).round() / 10.0
}

fn line(subject: &Subject, now: f64, change: Option<Change>) -> String {
    let (name, each) = (subject.name, now / subject.rows as f64);
    let compared = change.map(|change| format!("{:>14.1}{:>+9.2}%", change.before, change.percent()));
    format!("{name:<26}{now:>14.1}{each:>12.1}{}", compared.unwrap_or_default())
}

fn verdict(costlier: &BTreeMap<&'static str, Change>) -> String {
    let mut out = format!("over {MORE_PERCENT_MAX} % more instructions than the baseline:");
    for (name, change) in costlier {
        out += &format!("\n  {name:<26}{:>14.1} -> {:<14.1}{:>+8.2} %", change.before, change.now, change.percent());
    }
    out + "\nIf that is the price of something wanted, micro count --update accepts it; say what for in the commit"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_verdict_names_each_part_that_costs_more() {
        let change = |now| Change { before: 1_000.0, now };
        let text = verdict(&[("gather/1x3", change(1_030.0)), ("apply/new", change(1_100.0))].into());
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("gather/1x3") && text.contains("+3.00 %") && text.contains("+10.00 %"), "{text}");
    }

    #[test]
    fn the_committed_baseline_has_each_part_that_is_counted_and_no_other() {
        let baseline = Baseline::read(Path::new(BASELINE)).unwrap().expect("benches/instructions.json is committed");
        let subjects = all();
        let names: Vec<_> = subjects.iter().filter(|s| s.counted.is_some()).map(|s| s.name).collect();
        assert!(baseline.obstacles(&baseline.made_with, &names).is_empty());
        assert!(baseline.forgotten(&names).is_empty());
    }
}
