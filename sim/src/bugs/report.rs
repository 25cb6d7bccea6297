//! What came of the planted bugs, as a table or as JSON.

use serde_json::json;

use super::PlantedBug;
use crate::judges::Broken;

/// What came of one bug.
pub struct Hunted<'a> {
    bug: &'a PlantedBug,
    /// The first seed.
    from: u64,
    /// Seeds that were run with it, that one and those after it.
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
    pub fn new(bug: &'a PlantedBug, from: u64) -> Self {
        Self { bug, from, seeds: 0, reached: 0, caught: 0, needed: None, others: Vec::new(), clean: Vec::new() }
    }

    fn is_proof(&self) -> bool {
        self.needed.is_some() && self.clean.is_empty()
    }

    /// The command that shows again what is wrong with it, if something is: the seeds in which it was not caught, or the
    /// first one that failed without it.
    fn replay(&self) -> Option<String> {
        let (from, seeds) = match self.clean.first() {
            Some((seed, _)) => (*seed, 1),
            None if self.needed.is_none() => (self.from, self.seeds),
            None => return None,
        };
        let name = self.bug.name;
        Some(format!("cargo run --release -p stoa-sim -- bugs --only {name} --from {from} --seeds {seeds}"))
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
            hunted.replay().iter().for_each(|command| println!("  replay: {command}"));
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
            "replay": self.replay(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::options::BugsOptions;
    use super::super::table::BUGS;
    use super::*;

    #[derive(Parser)]
    struct Asked {
        #[command(flatten)]
        options: BugsOptions,
    }

    fn replayed(hunted: &Hunted<'_>) -> Option<(String, u64, u64)> {
        let command = hunted.replay()?;
        let words = command.strip_prefix("cargo run --release -p stoa-sim -- ").expect("as all others are told");
        let BugsOptions { only, from, seeds, .. } = Asked::try_parse_from(words.split(' ')).expect("it is one").options;
        Some((only.expect("one bug is named"), from, seeds))
    }

    #[test]
    fn a_bug_that_is_not_caught_or_not_needed_comes_with_the_command_that_shows_it_again() {
        let name = BUGS[0].name.to_owned();
        let mut hunted = Hunted { seeds: 40, ..Hunted::new(&BUGS[0], 3) };
        assert_eq!(replayed(&hunted), Some((name.clone(), 3, 40)), "it was not caught");
        hunted.needed = Some(2);
        assert_eq!(replayed(&hunted), None);
        hunted.clean.push((17, Broken { judge: "any", what: "thing".into() }));
        assert_eq!(replayed(&hunted), Some((name, 17, 1)), "it was not needed");
    }
}
