//! What came of the planted bugs, as a table or as JSON.

use serde_json::{Value, json};

use super::PlantedBug;
use super::table::BUGS;
use crate::judges::Broken;

/// What a judge reported, in which seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The seed.
    pub seed: u64,
    /// The judge.
    pub judge: String,
    /// What it saw.
    pub what: String,
}

impl Told {
    /// What is broken in a seed.
    pub fn new(seed: u64, broken: &Broken) -> Self {
        Self { seed, judge: broken.judge.into(), what: broken.what.clone() }
    }

    fn json(&self) -> Value {
        json!({ "seed": self.seed, "judge": self.judge, "what": self.what })
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |name: &str| Some(value[name].as_str()?.to_owned());
        Some(Self { seed: value["seed"].as_u64()?, judge: text("judge")?, what: text("what")? })
    }
}

/// What came of one bug.
pub struct Hunted<'a> {
    bug: &'a PlantedBug,
    /// The first seed.
    pub from: u64,
    /// Seeds that were run with it, that one and those after it.
    pub seeds: u64,
    /// Those that came to the line of the bug.
    pub reached: u64,
    /// Those in which its judge reported.
    pub caught: u64,
    /// How many seeds it took until its judge reported.
    pub needed: Option<u64>,
    /// What other judges reported where its own did not, once each a seed.
    pub others: Vec<Told>,
    /// What was reported without the bug, by the program that has none.
    pub clean: Vec<Told>,
}

impl<'a> Hunted<'a> {
    /// Nothing was run yet.
    pub fn new(bug: &'a PlantedBug, from: u64) -> Self {
        Self { bug, from, seeds: 0, reached: 0, caught: 0, needed: None, others: Vec::new(), clean: Vec::new() }
    }

    /// As one line, from the program that has the bugs to the one that has none.
    pub fn to_line(&self) -> String {
        let others: Vec<Value> = self.others.iter().map(Told::json).collect();
        let Self { bug, from, seeds, reached, caught, needed, .. } = self;
        json!({
            "name": bug.name, "from": from, "seeds": seeds, "reached": reached, "caught": caught, "needed": needed,
            "others": others,
        })
        .to_string()
    }

    /// What such a line tells.
    ///
    /// # Errors
    /// If it is none, or names a bug that is not in the table.
    pub fn from_line(line: &str) -> Result<Hunted<'static>, String> {
        let parse = |value: Value| {
            let number = |name: &str| value[name].as_u64();
            let bug = BUGS.iter().find(|bug| value["name"] == bug.name)?;
            Some(Hunted {
                seeds: number("seeds")?,
                reached: number("reached")?,
                caught: number("caught")?,
                needed: number("needed"),
                others: value["others"].as_array()?.iter().filter_map(Told::parse).collect(),
                ..Hunted::new(bug, number("from")?)
            })
        };
        let value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        parse(value).ok_or_else(|| format!("it tells of no bug: {line}"))
    }

    /// The bug.
    pub fn bug(&self) -> &'a PlantedBug {
        self.bug
    }

    fn is_proof(&self) -> bool {
        self.needed.is_some() && self.clean.is_empty()
    }

    /// The command that shows again what is wrong with it, if something is: the seeds in which it was not caught, or the
    /// first one that failed without it.
    fn replay(&self) -> Option<String> {
        let (from, seeds) = match self.clean.first() {
            Some(told) => (told.seed, 1),
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
                for Told { seed, judge, what } in hunted.others.iter().take(SHOWN) {
                    println!("  seed {seed}, another judge, {judge}: {what}");
                }
            }
            for Told { seed, judge, what } in hunted.clean.iter().take(SHOWN) {
                println!("  seed {seed} WITHOUT THE BUG, {judge}: {what}");
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
        let told = |of: &[Told]| -> Vec<Value> { of.iter().map(Told::json).collect() };
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
        hunted.clean.push(Told::new(17, &Broken { judge: "any", what: "thing".into() }));
        assert_eq!(replayed(&hunted), Some((name, 17, 1)), "it was not needed");
    }

    #[test]
    fn what_one_program_tells_the_other_is_what_was_seen() {
        let others = vec![Told { seed: 4, judge: "any".into(), what: "a\nthing".into() }];
        let hunted = Hunted { seeds: 9, reached: 8, caught: 7, needed: Some(2), others, ..Hunted::new(&BUGS[1], 3) };
        let line = hunted.to_line();
        assert!(!line.contains('\n'));
        let again = Hunted::from_line(&line).unwrap();
        assert_eq!((again.bug.name, again.from, again.to_line()), (BUGS[1].name, 3, line));
        assert!(Hunted::from_line("{\"name\": \"NoSuchBug\"}").is_err());
        assert!(Hunted::from_line("thread main panicked").is_err());
    }
}
