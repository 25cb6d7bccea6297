//! Makes the plan of a seed that fails smaller, as long as the same judge goes on reporting it.

use stoa_sim::plan::Plan;
use stoa_sim::run::{Planted, run};

use super::options::Overrides;
use super::report::replay;

/// Runs of one minimisation, at the most.
const RUNS_MAX: u32 = 200;

struct Search {
    seed: u64,
    judge: &'static str,
    runs: u32,
    best: Overrides,
}

/// Minimises; false if the seed does not fail.
pub fn minimise(seed: u64, given: Overrides) -> std::io::Result<bool> {
    let Some(judge) = first_judge(given.plan(seed)?)? else {
        println!("seed {seed} breaks no promise");
        return Ok(false);
    };
    println!("seed {seed} breaks a promise: {judge}");
    let mut search = Search { seed, judge, runs: 1, best: given };
    search.fewer_faults()?;
    search.shorter()?;
    for change in [
        (|best| Overrides { no_moves: true, ..best }) as fn(Overrides) -> Overrides,
        |best| Overrides { work: Some("none".into()), ..best },
        |best| Overrides { overlap: Some(1), ..best },
        |best| Overrides { partitions: Some(1), ..best },
        |best| Overrides { clients: Some(1), ..best },
    ] {
        let smaller = change(search.best.clone());
        search.try_out(smaller)?;
    }
    // Fewer clients or partitions may have made a fault needless.
    search.fewer_faults()?;
    println!("{}\n{} runs; {}", search.best.plan(seed)?, search.runs, replay(seed, &search.best));
    Ok(true)
}

impl Search {
    fn fewer_faults(&mut self) -> std::io::Result<()> {
        let all = self.best.plan(self.seed)?.faults;
        for kind in &all {
            let left: Vec<_> = self.best.plan(self.seed)?.faults.into_iter().filter(|other| other != kind).collect();
            self.try_out(self.best.with_faults(&left))?;
        }
        Ok(())
    }

    fn shorter(&mut self) -> std::io::Result<()> {
        loop {
            let seconds = self.best.plan(self.seed)?.chaos.as_secs();
            let shorter = Overrides { chaos_s: Some(seconds * 3 / 4), ..self.best.clone() };
            if seconds < 4 || !self.try_out(shorter)? {
                return Ok(());
            }
        }
    }

    /// Whether the same judge still reports this plan; it is the best then.
    fn try_out(&mut self, smaller: Overrides) -> std::io::Result<bool> {
        if self.runs >= RUNS_MAX || smaller == self.best {
            return Ok(false);
        }
        self.runs += 1;
        let outcome = run(smaller.plan(self.seed)?, None, &Planted::default())?;
        let fails = outcome.broken.iter().any(|broken| broken.judge == self.judge);
        println!("  {}:{}", if fails { "still" } else { "not  " }, smaller.words());
        if fails {
            self.best = smaller;
        }
        Ok(fails)
    }
}

fn first_judge(plan: Plan) -> std::io::Result<Option<&'static str>> {
    let outcome = run(plan, None, &Planted::default())?;
    Ok(outcome.broken.first().map(|broken| broken.judge))
}
