//! Memory and queues stay inside their bounds: of nothing that a node or a client bounds was there ever more than the
//! bound.

use std::collections::BTreeMap;

use stoa_env::Bounded;

/// The most of each that there was, by name, over all nodes, clients and lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HighWater {
    by_name: BTreeMap<&'static str, (u64, u64)>,
}

impl HighWater {
    /// Takes the table of one node or client, and says what of it is over its bound.
    pub fn judge(&mut self, whose: &str, table: &[Bounded]) -> Option<String> {
        for Bounded { name, bound, high } in table {
            let (known, highest) = self.by_name.entry(name).or_insert((*bound, 0));
            (*known, *highest) = ((*known).max(*bound), (*highest).max(*high));
        }
        let over = table.iter().find(|bounded| bounded.high > bounded.bound)?;
        Some(format!("{whose}: {}: {} of at most {}", over.name, over.high, over.bound))
    }

    /// Takes over what another run has seen.
    pub fn merge(&mut self, other: &Self) {
        for (name, (bound, high)) in &other.by_name {
            let (known, highest) = self.by_name.entry(name).or_insert((*bound, 0));
            (*known, *highest) = ((*known).max(*bound), (*highest).max(*high));
        }
    }

    /// Name, bound and the most that there was.
    pub fn table(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.by_name.iter().map(|(name, (bound, high))| (*name, *bound, *high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_its_bound_is_named_and_the_highest_of_all_is_kept() {
        let mut water = HighWater::default();
        let of = |high| [Bounded { name: "proposals", bound: 8, high }];
        assert_eq!(water.judge("node 1", &of(8)), None);
        assert_eq!(water.judge("node 2", &of(3)), None);
        assert!(water.judge("node 3", &of(9)).unwrap().contains("node 3: proposals: 9 of at most 8"));
        let mut all = HighWater::default();
        all.merge(&water);
        assert_eq!(all.table().collect::<Vec<_>>(), [("proposals", 8, 9)]);
    }
}
