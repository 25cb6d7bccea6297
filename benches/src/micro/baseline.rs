//! What each part cost when its cost was last accepted: a file that is committed, so that a change of it is reviewed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::made_with::MadeWith;

/// What more a part may cost, per cent. Counts of one program repeat to a hundredth of that; what is below is code that the
/// compiler laid out in another way.
pub const MORE_PERCENT_MAX: f64 = 2.0;

/// Costs, and what they were counted with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What they were counted with.
    pub made_with: MadeWith,
    /// Instructions of one operation, by the name of the part.
    pub instructions: BTreeMap<String, f64>,
}

/// What became of one part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Instructions of one operation, before.
    pub before: f64,
    /// And now.
    pub now: f64,
}

impl Change {
    /// Per cent of the cost before; positive if it costs more.
    pub fn percent(self) -> f64 {
        (self.now - self.before) / self.before * 100.0
    }

    /// Whether it costs more than may be.
    pub fn is_costlier(self) -> bool {
        self.percent() > MORE_PERCENT_MAX
    }

    /// Whether it costs so much less that the baseline no longer guards it.
    pub fn is_cheaper(self) -> bool {
        self.percent() < -MORE_PERCENT_MAX
    }
}

impl Baseline {
    /// Reads it; `None` if there is no such file.
    pub fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        serde_json::from_str(&text).map(Some).with_context(|| format!("{} is no baseline", path.display()))
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Why counts of these parts, made with `ours`, do not compare with this; nothing if they do.
    pub fn obstacles(&self, ours: &MadeWith, parts: &[&str]) -> Vec<String> {
        let mut out = self.made_with.differences(ours);
        let missing = parts.iter().filter(|part| !self.instructions.contains_key(**part));
        out.extend(missing.map(|part| format!("{part}: the baseline does not have it")));
        out
    }

    /// Parts of the baseline that are not counted any more.
    pub fn forgotten(&self, parts: &[&str]) -> Vec<String> {
        let forgotten = self.instructions.keys().filter(|name| !parts.contains(&name.as_str()));
        forgotten.map(|name| format!("{name}: the baseline has it, and it is not counted any more")).collect()
    }

    /// What became of a part.
    pub fn change(&self, part: &str, now: f64) -> Option<Change> {
        self.instructions.get(part).map(|&before| Change { before, now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let instructions = [("gather/1x3".to_owned(), 500.0), ("apply/new".to_owned(), 2e6)];
        Baseline { made_with: MadeWith::here("valgrind-3.19.0"), instructions: instructions.into() }
    }

    #[test]
    fn over_two_per_cent_more_is_costlier_and_as_much_less_is_cheaper() {
        let change = |now| baseline().change("gather/1x3", now).unwrap();
        assert!(!change(500.0).is_costlier() && !change(500.0).is_cheaper());
        assert!(!change(510.0).is_costlier());
        assert!(change(510.5).is_costlier());
        assert!(change(489.0).is_cheaper() && !change(489.0).is_costlier());
        assert_eq!(baseline().change("gather/2x3", 1.0), None);
    }

    #[test]
    fn another_compiler_and_parts_without_a_cost_are_obstacles() {
        let ours = baseline().made_with;
        assert!(baseline().obstacles(&ours, &["apply/new"]).is_empty());
        let other = MadeWith { rustc: "rustc 1.2.3".into(), ..ours.clone() };
        assert_eq!(baseline().obstacles(&other, &["apply/new", "apply/old"]).len(), 2);
        assert_eq!(
            baseline().forgotten(&["apply/new"]),
            ["gather/1x3: the baseline has it, and it is not counted any more"]
        );
    }

    #[test]
    fn a_baseline_comes_back_and_other_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("instructions.json");
        assert_eq!(Baseline::read(&path).unwrap(), None);
        baseline().write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), Some(baseline()));
        std::fs::write(&path, "{}").unwrap();
        assert!(Baseline::read(&path).unwrap_err().to_string().ends_with("is no baseline"));
    }
}
