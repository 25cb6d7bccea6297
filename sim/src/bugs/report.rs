//! What came of the planted bugs, as a table or as JSON.

use serde_json::json;

use super::PlantedBug;
use crate::judges::Broken;

/// What came of one bug.
pub struct Hunted<'a> {
    bug: &'a PlantedBug,
    /// Seeds that were run with it.
    pub seeds: u64,
    /// Those that came to the line of the bug.
    pub reached: u64,
    /// Those in which its judge reported.
    pub caught: u64,
    /// How many seeds it took until its judge reported.
    pub needed: Option<u64>,
    /// What other judges reported where its own did not, once each a seed.
    pub others: Vec<(u64, Broken)>,
    /// What was reported without the bug.
    pub clean: Vec<(u64, Broken)>,
}

impl<'a> Hunted<'a> {
    /// Nothing was run yet.
    pub fn new(bug: &'a PlantedBug) -> Self {
        Self { bug, seeds: 0, reached: 0, caught: 0, needed: None, others: Vec::new(), clean: Vec::new() }
    }

    fn is_proof(&self) -> bool {
        self.needed.is_some() && self.clean.is_empty()
    }

    fn line(&self) -> String {
        let needed = self.needed.map_or("never".into(), |needed| needed.to_string());
        let Self { bug, seeds, reached, caught, .. } = self;
        let counts = format!("{needed:>5}  {caught:>3} of {seeds:>3}  {reached:>3}");
        let clean = if self.clean.is_empty() { "passes" } else { "FAILS" };
        format!("{:<22} {counts}  {clean}  {} [{}; {}]", bug.name, bug.judge, bug.place, bug.way.told())
    }
}

/// All of them, printed as they come.
pub struct Report<'a> {
    json: bool,
    all: Vec<Hunted<'a>>,
}

impl<'a> Report<'a> {
    /// Prints the head of the table, unless JSON is wanted.
    pub fn new(json: bool) -> Self {
        if !json {
            println!("{:<22} seeds   caught in  reached  clean   judge [place; way]", "bug");
        }
        Self { json, all: Vec::new() }
    }

    /// One more.
    pub fn add(&mut self, hunted: Hunted<'a>) {
        const SHOWN: usize = 3;
        if !self.json {
            println!("{}", hunted.line());
            if hunted.needed.is_none() {
                for (seed, broken) in hunted.others.iter().take(SHOWN) {
                    println!("  seed {seed}, another judge, {}: {}", broken.judge, broken.what);
                }
            }
            for (seed, broken) in hunted.clean.iter().take(SHOWN) {
                println!("  seed {seed} WITHOUT THE BUG, {}: {}", broken.judge, broken.what);
            }
        }
        self.all.push(hunted);
    }

    /// Prints the sum; whether each bug was caught, and no seed without one broke a promise.
    pub fn end(self) -> bool {
        let caught = self.all.iter().filter(|hunted| hunted.needed.is_some()).count();
        let clean = self.all.iter().filter(|hunted| !hunted.clean.is_empty()).count();
        if self.json {
            let bugs: Vec<_> = self.all.iter().map(Hunted::json).collect();
            let sum = json!({ "planted": self.all.len(), "caught": caught, "clean_failed": clean, "bugs": bugs });
            println!("{sum:#}");
        } else {
            println!("{} planted, {caught} caught; the same seeds without the bug fail for {clean}", self.all.len());
        }
        self.all.iter().all(Hunted::is_proof)
    }
}

impl Hunted<'_> {
    fn json(&self) -> serde_json::Value {
        let PlantedBug { name, what, place, judge, way, .. } = self.bug;
        let told = |of: &[(u64, Broken)]| -> Vec<_> {
            of.iter()
                .map(|(seed, broken)| json!({ "seed": seed, "judge": broken.judge, "what": broken.what }))
                .collect()
        };
        json!({
            "name": name,
            "what": what,
            "place": place,
            "judge": judge,
            "way": way.told(),
            "caught": self.needed.is_some(),
            "seeds_needed": self.needed,
            "seeds_run": self.seeds,
            "seeds_caught": self.caught,
            "seeds_reached": self.reached,
            "others": if self.needed.is_some() { Vec::new() } else { told(&self.others) },
            "clean": told(&self.clean),
        })
    }
}
