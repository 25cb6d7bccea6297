//! Seeds one after the other, and what came of all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use stoa_sim::faults::TABLE;
use stoa_sim::judges::bounds::HighWater;
use stoa_sim::plan::{FaultKind, LEAST, Moves, Plan};
use stoa_sim::run::{Outcome, Planted, run};
use stoa_sim::workload::moves::MoveCounts;
use stoa_sim::workload::{ExtraCounts, LevelCounts};

use super::options::Overrides;
use super::report::{replay, summary, tell_broken};

/// Of one kind of fault.
#[derive(Debug, Clone, Copy, Default)]
struct Struck {
    drawn: u64,
    runs: u64,
    times: u64,
}

/// Of all runs together.
#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: Vec<u64>,
    simulated: Duration,
    cpu: Duration,
    writes: u64,
    acknowledged: u64,
    reads: u64,
    rows: u64,
    unavailable: u64,
    levels: LevelCounts,
    extra: ExtraCounts,
    /// In how many runs each kind of work besides was drawn, and in how many it was done.
    works: BTreeMap<&'static str, (u64, u64)>,
    /// What operators did in all runs.
    moves: MoveCounts,
    /// Seeds in whose plan replicas are replaced, and none was.
    unmoved: Vec<u64>,
    longest: Duration,
    longest_seed: u64,
    faults: BTreeMap<FaultKind, Struck>,
    /// Seeds whose clients did less than a run needs.
    idle: Vec<u64>,
    /// Seeds in which a fault of the plan never struck.
    unstruck: Vec<u64>,
    /// The most that there ever was, of what is bounded.
    high_water: HighWater,
}

/// How a sweep tells what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One object; failures are told on standard error.
    Json,
}

/// Runs seeds; whether all of them kept every promise.
pub fn sweep(seeds: &[u64], form: Form) -> std::io::Result<bool> {
    let start = cpu();
    let mut totals = Totals::default();
    let on = Arc::new(AtomicU64::new(NO_SEED));
    std::thread::spawn({
        let on = on.clone();
        move || tell_of_slow_runs(&on)
    });
    for &seed in seeds {
        on.store(seed, Ordering::Relaxed);
        // A panic of a task is caught where it happens. One on the way of the run itself has unwound through it.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(Plan::draw(seed), None, &Planted::default())));
        let Ok(outcome) = outcome else {
            eprintln!("seed {seed} BROKEN, nothing panics: see above\n{}", replay(seed, &Overrides::default()));
            totals.count_panic(seed);
            continue;
        };
        let outcome = outcome?;
        totals.count(&outcome);
        match form {
            _ if outcome.broken.is_empty() => {}
            Form::Text => {
                println!("{}\n{}", outcome.plan, summary(&outcome));
                tell_broken(&outcome, &Overrides::default());
            }
            Form::Json => {
                let broken = outcome.broken.iter();
                broken.for_each(|broken| eprintln!("seed {seed} BROKEN, {}: {}", broken.judge, broken.what));
                eprintln!("{}", replay(seed, &Overrides::default()));
            }
        }
    }
    totals.cpu = cpu().saturating_sub(start);
    match form {
        Form::Text => println!("{totals}"),
        Form::Json => println!("{}", totals.json()),
    }
    Ok(totals.failed.is_empty())
}

/// No run is under way.
const NO_SEED: u64 = u64::MAX;
/// A run costs a second or two, and ten on a slow machine.
const SLOW: Duration = Duration::from_secs(300);

/// Says which seed it is when a run does not end: one in which time does not pass, or never stops to.
fn tell_of_slow_runs(on: &AtomicU64) {
    let (mut seen, mut looks) = (NO_SEED, 0);
    loop {
        std::thread::sleep(SLOW / 10);
        let seed = on.load(Ordering::Relaxed);
        looks = if seed == seen { looks + 1 } else { 0 };
        seen = seed;
        if looks == 10 {
            eprintln!("seed {seed} has not come to its end for {SLOW:?}\n{}", replay(seed, &Overrides::default()));
        }
    }
}

/// What this process has cost so far: on a shared machine, time on the wall says little.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Totals {
    fn count_panic(&mut self, seed: u64) {
        self.seeds += 1;
        self.failed.push(seed);
    }

    fn count(&mut self, outcome: &Outcome) {
        let (seed, counts) = (outcome.plan.seed, &outcome.counts);
        self.seeds += 1;
        if !outcome.broken.is_empty() {
            self.failed.push(seed);
        }
        self.simulated += outcome.simulated;
        self.writes += counts.writes;
        self.acknowledged += counts.acknowledged;
        self.reads += counts.reads;
        self.rows += counts.rows_read;
        self.unavailable += counts.unavailable;
        self.levels += counts.levels;
        self.extra += counts.extra;
        for (name, drawn) in outcome.plan.work.kinds() {
            let (runs_drawn, runs_done) = self.works.entry(name).or_default();
            *runs_drawn += u64::from(drawn);
            *runs_done += u64::from(drawn && counts.extra.did(name));
        }
        self.moves += outcome.moves;
        if outcome.plan.moves != Moves::None && outcome.moves.begun == 0 {
            self.unmoved.push(seed);
        }
        self.high_water.merge(&outcome.high_water);
        if let Some((_, equal)) = outcome.alive.filter(|(_, equal)| *equal > self.longest) {
            (self.longest, self.longest_seed) = (equal, seed);
        }
        if counts.writes < LEAST.writes || counts.reads < LEAST.reads {
            self.idle.push(seed);
        }
        let mut all_struck = true;
        for kind in &outcome.plan.faults {
            let of_kind = self.faults.entry(*kind).or_default();
            let times = outcome.strikes.get(kind).copied().unwrap_or_default();
            of_kind.drawn += 1;
            of_kind.runs += u64::from(times > 0);
            of_kind.times += times;
            all_struck &= times > 0;
        }
        if !all_struck {
            self.unstruck.push(seed);
        }
    }

    fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.cpu.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn json(&self) -> Value {
        let fault = |entry: &stoa_sim::faults::Entry| {
            let Struck { drawn, runs, times } = self.faults.get(&entry.kind).copied().unwrap_or_default();
            let told = json!({ "numbers": entry.numbers, "drawn": drawn, "runs": runs, "strikes": times });
            (format!("{:?}", entry.kind), told)
        };
        let faults: serde_json::Map<String, Value> = TABLE.iter().filter(|entry| entry.drawn).map(fault).collect();
        let work = |(name, &(drawn, runs)): (&&str, &(u64, u64))| {
            ((*name).to_owned(), json!({ "drawn": drawn, "runs": runs }))
        };
        let works: serde_json::Map<String, Value> = self.works.iter().map(work).collect();
        let bound = |(name, bound, high)| json!({ "name": name, "bound": bound, "high_water": high });
        let bounds: Vec<Value> = self.high_water.table().map(bound).collect();
        json!({
            "seeds": self.seeds,
            "failed": self.failed.len(),
            "failed_seeds": self.failed,
            "simulated_s": self.simulated.as_secs_f64(),
            "cpu_s": self.cpu.as_secs_f64(),
            "simulated_s_per_cpu_s": self.speed(),
            "writes": self.writes,
            "acknowledged": self.acknowledged,
            "reads": self.reads,
            "rows_read": self.rows,
            "unavailable": self.unavailable,
            "work": works,
            "moves": {
                "begun": self.moves.begun,
                "refused": self.moves.refused,
                "aborted": self.moves.aborted,
                "nodes_lost": self.moves.lost,
                "nodes_given_up": self.moves.given_up,
                "seeds_without": self.unmoved,
            },
            "longest_recovery_s": self.longest.as_secs_f64(),
            "longest_recovery_seed": self.longest_seed,
            "idle_seeds": self.idle,
            "seeds_with_a_fault_that_never_struck": self.unstruck,
            "faults": faults,
            "bounds": bounds,
        })
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs, {} failed {:?}; {:.0} simulated seconds in {:.1} s of one core ({:.0} a second); {} writes of \
             {} rows acknowledged, {} reads of {} rows ({}), {} unavailable; longest until all replicas were equal again: {:?} \
             (seed {})",
            self.seeds,
            self.failed.len(),
            self.failed,
            self.simulated.as_secs_f64(),
            self.cpu.as_secs_f64(),
            self.speed(),
            self.writes,
            self.acknowledged,
            self.reads,
            self.rows,
            self.levels,
            self.unavailable,
            self.longest,
            self.longest_seed,
        )?;
        writeln!(f, "  work besides: {}", self.extra)?;
        for (name, (drawn, runs)) in &self.works {
            writeln!(f, "    {name}: drawn in {drawn} runs, done in {runs}")?;
        }
        let MoveCounts { begun, refused, aborted, lost, given_up } = self.moves;
        writeln!(
            f,
            "  moves: {begun} begun, {refused} refused, {aborted} given up; {lost} nodes lost their disks, {given_up} were \
             given up; runs that drew moves and began none: {} {:?}",
            self.unmoved.len(),
            self.unmoved
        )?;
        writeln!(f, "  {:<18} {:<12} {:>6} {:>6} {:>8}", "fault", "numbers", "drawn", "struck", "times")?;
        for entry in TABLE.iter().filter(|entry| entry.drawn) {
            let Struck { drawn, runs, times } = self.faults.get(&entry.kind).copied().unwrap_or_default();
            let numbers: Vec<String> = entry.numbers.iter().map(u32::to_string).collect();
            let (kind, numbers) = (format!("{:?}", entry.kind), numbers.join(","));
            writeln!(f, "  {kind:<18} {numbers:<12} {drawn:>6} {runs:>6} {times:>8}")?;
        }
        writeln!(f, "  runs in which a fault of the plan never struck: {} {:?}", self.unstruck.len(), self.unstruck)?;
        writeln!(f, "  the most that there ever was, of what is bounded:")?;
        for (name, bound, high) in self.high_water.table() {
            writeln!(f, "    {name}: {high} of {bound}")?;
        }
        write!(
            f,
            "  idle runs (under {} writes acknowledged or {} reads): {} {:?}",
            LEAST.writes,
            LEAST.reads,
            self.idle.len(),
            self.idle
        )
    }
}
