//! The simulator's commands. Each failure names the seed, and the one command that replays it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use stoa_sim::bugs::options::{BugsOptions, build_and_run};
use stoa_sim::faults::Strikes;
use stoa_sim::judges::Broken;
use stoa_sim::plan::{FaultKind, Plan};
use stoa_sim::run::{Outcome, Planted, run};
use stoa_sim::scenarios;
use stoa_sim::workload::LevelCounts;

/// The whole cluster in one thread under a seed.
#[derive(Debug, Parser)]
#[command(name = "stoa-sim", version)]
struct Sim {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs one seed.
    Run {
        /// The seed.
        seed: u64,
        /// Writes every event to this file.
        #[arg(long)]
        trace: Option<PathBuf>,
    },
    /// Runs seeds twice each, in two processes, and compares every event.
    Meta {
        /// How many seeds.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// Runs seeds one after the other.
    Sweep {
        /// How many seeds.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// Plays the directed scenarios.
    Scenarios {
        /// How many seeds for each.
        #[arg(long, default_value_t = 30)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// One scenario, by its name.
        #[arg(long)]
        only: Option<String>,
    },
    /// Switches planted bugs on and looks whether the judges report them; builds the program that has them.
    Bugs(BugsOptions),
}

fn main() -> ExitCode {
    let result = match Sim::parse().what {
        What::Run { seed, trace } => one(seed, trace.as_deref()),
        What::Meta { seeds, from } => meta(from..from.saturating_add(seeds)),
        What::Sweep { seeds, from } => sweep(from..from.saturating_add(seeds)),
        What::Scenarios { seeds, from, only } => play(from..from.saturating_add(seeds), only.as_deref()),
        // As they were given, after the command's name.
        What::Bugs(_) => build_and_run(std::env::args_os().skip(2)).map(|status| status.success()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stoa-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, trace: Option<&Path>) -> std::io::Result<bool> {
    let plan = Plan::draw(seed);
    println!("{plan}");
    let outcome = run(plan, trace, &Planted::default())?;
    println!("{}", summary(&outcome));
    tell_broken(&outcome);
    Ok(outcome.broken.is_empty())
}

fn summary(outcome: &Outcome) -> String {
    let Outcome { counts, net, compared, strikes, judged, .. } = outcome;
    let alive = match outcome.alive {
        Some((writable, equal)) => format!("healed: writable after {writable:?}, equal after {equal:?}"),
        None => "never healed".into(),
    };
    format!(
        "{:?} simulated; {} rows acknowledged, {} reads of {} rows ({}), {} unavailable; {} messages, {} lost, {} cut, {} doubled; {compared} \
         comparisons of replicas; {judged:?}; {:?}; faults {strikes:?}; {alive}; trace {} lines, hash {:032x}",
        outcome.simulated,
        counts.acknowledged,
        counts.reads,
        counts.rows_read,
        counts.levels,
        counts.unavailable,
        net.sent,
        net.lost,
        net.cut,
        net.doubled,
        outcome.moves,
        outcome.trace.0,
        outcome.trace.1
    )
}

fn tell_broken(outcome: &Outcome) {
    const SHOWN: usize = 5;
    for broken in outcome.broken.iter().take(SHOWN) {
        println!("BROKEN, {}: {}", broken.judge, broken.what);
    }
    if outcome.broken.len() > SHOWN {
        println!("and {} more", outcome.broken.len() - SHOWN);
    }
    if !outcome.broken.is_empty() {
        println!("replay: cargo run --release -p stoa-sim -- run {} --trace trace.txt", outcome.plan.seed);
    }
}

fn play(seeds: std::ops::Range<u64>, only: Option<&str>) -> std::io::Result<bool> {
    let mut kept = true;
    let chosen = scenarios::ALL.iter().filter(|scenario| only.is_none_or(|name| name == scenario.name));
    for scenario in chosen {
        let broken: Vec<(u64, Broken)> = seeds
            .clone()
            .flat_map(|seed| (scenario.play)(seed).into_iter().map(move |broken| (seed, broken)))
            .collect();
        let failed: BTreeSet<u64> = broken.iter().map(|(seed, _)| *seed).collect();
        println!("{}: {}", scenario.name, scenario.what);
        println!("  {} seeds, {} failed {failed:?}", seeds.end - seeds.start, failed.len());
        for (seed, broken) in broken.iter().take(5) {
            println!("  BROKEN in seed {seed}, {}: {}", broken.judge, broken.what);
        }
        kept &= failed.is_empty();
    }
    Ok(kept)
}

/// Each seed in two processes: chance that leaks in from outside would differ between them.
fn meta(seeds: std::ops::Range<u64>) -> std::io::Result<bool> {
    let dir = std::env::temp_dir().join(format!("stoa-sim-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut equal = true;
    for seed in seeds {
        match twice(seed, &dir) {
            Ok(told) => println!("seed {seed}: {told}"),
            Err(told) => {
                println!("seed {seed}: {told}");
                equal = false;
            }
        }
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(equal)
}

fn twice(seed: u64, dir: &Path) -> Result<String, String> {
    let traced = |name: &str| {
        let file = dir.join(name);
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let run = Command::new(program).arg("run").arg(seed.to_string()).arg("--trace").arg(&file).output();
        let output = run.map_err(|e| e.to_string())?;
        // A run that breaks a promise has ended, too; one that died has not said its hash.
        if !String::from_utf8_lossy(&output.stdout).contains(", hash ") {
            return Err(format!("a run has died: {}", String::from_utf8_lossy(&output.stderr)));
        }
        std::fs::read_to_string(&file).map_err(|e| e.to_string())
    };
    let (first, second) = (traced("first")?, traced("second")?);
    if let Some((line, (a, b))) = first.lines().zip(second.lines()).enumerate().find(|(_, (a, b))| a != b) {
        return Err(format!("line {} differs\n  {a}\n  {b}", line + 1));
    }
    if first.len() != second.len() || first.is_empty() {
        return Err("one trace ends before the other, or both are empty".into());
    }
    Ok(format!("{} lines, equal", first.lines().count()))
}

#[allow(clippy::disallowed_methods)] // what the sweep costs in true time is no part of a run
fn sweep(seeds: std::ops::Range<u64>) -> std::io::Result<bool> {
    let start = Instant::now();
    let (mut simulated, mut acknowledged, mut reads, mut failed, mut runs) = (Duration::ZERO, 0, 0, Vec::new(), 0);
    let mut slowest = Duration::ZERO;
    let mut struck: std::collections::BTreeMap<FaultKind, (u64, u64)> = std::collections::BTreeMap::new();
    let (mut idle, mut rows, mut unavailable) = (0, 0, 0);
    let mut levels = LevelCounts::default();
    for seed in seeds {
        let outcome = run(Plan::draw(seed), None, &Planted::default())?;
        runs += 1;
        simulated += outcome.simulated;
        acknowledged += outcome.counts.acknowledged;
        reads += outcome.counts.reads;
        rows += outcome.counts.rows_read;
        levels += outcome.counts.levels;
        unavailable += outcome.counts.unavailable;
        slowest = slowest.max(outcome.alive.map_or(Duration::ZERO, |(_, equal)| equal));
        idle += u64::from(outcome.plan.faults.iter().any(|kind| !outcome.strikes.contains_key(kind)));
        count(&mut struck, &outcome.strikes);
        if !outcome.broken.is_empty() {
            println!("{}\n{}", outcome.plan, summary(&outcome));
            tell_broken(&outcome);
            failed.push(seed);
        }
    }
    let took = start.elapsed();
    println!(
        "{runs} runs, {} failed {failed:?}; {:.0} simulated seconds in {:.1} s ({:.0} a second); {acknowledged} rows \
         acknowledged, {reads} reads of {rows} rows ({levels}), {unavailable} unavailable; longest until all replicas were equal again: {slowest:?}",
        failed.len(),
        simulated.as_secs_f64(),
        took.as_secs_f64(),
        simulated.as_secs_f64() / took.as_secs_f64()
    );
    for kind in FaultKind::all() {
        let (runs, times) = struck.get(&kind).copied().unwrap_or_default();
        println!("  {kind:?}: struck in {runs} runs, {times} times");
    }
    println!("  runs in which a fault of the plan never struck: {idle}");
    Ok(failed.is_empty())
}

fn count(struck: &mut std::collections::BTreeMap<FaultKind, (u64, u64)>, strikes: &Strikes) {
    for (kind, times) in strikes {
        let entry = struck.entry(*kind).or_default();
        entry.0 += 1;
        entry.1 += times;
    }
}
