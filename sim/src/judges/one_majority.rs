//! At most one voting majority: at no moment do two replicas of a group both hold a lease of a quorum, and each membership
//! of a group has a voter in common with every majority of the next one, so that none can decide without the other.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::frames::Members;

/// Whether the replicas that `counts` picks are a majority of every configuration.
pub fn is_quorum(members: &Members, counts: &dyn Fn(u64) -> bool) -> bool {
    let majority = |config: &Vec<u64>| 2 * config.iter().filter(|id| counts(**id)).count() > config.len();
    !members.configs.is_empty() && members.configs.iter().all(majority)
}

/// Leaders of a group that look at this moment as if a quorum followed them: replica, node, age of its acknowledgement.
pub fn judge_leaders(group: u64, leaders: &[(u64, u64, Duration)], lease: Duration) -> Option<String> {
    let mut led = leaders.iter().filter(|(.., age)| *age < lease);
    let (first, second) = (led.next()?, led.next()?);
    Some(format!("group {group}: a quorum follows {first:?}, and one follows {second:?} (replica, node, age)"))
}

/// The memberships seen so far, by group and index.
#[derive(Debug, Default)]
pub struct Memberships {
    seen: BTreeMap<u64, BTreeMap<u64, Members>>,
}

impl Memberships {
    /// A membership stands at `index` of a log of `group`.
    pub fn judge(&mut self, group: u64, index: u64, members: &Members) -> Option<String> {
        let seen = self.seen.entry(group).or_default();
        if seen.insert(index, members.clone()).as_ref() == Some(members) {
            return None;
        }
        let (_, before) = seen.range(..index).next_back()?;
        disjoint(before, members).map(|majority| {
            format!("group {group}: {majority:?} are a majority of {:?}, and none is needed for one of {:?}, which follows at {index}", before.configs, members.configs)
        })
    }

    /// The memberships that may decide about entry `index`: the last one before or at it, and the later ones.
    pub fn deciding(&self, group: u64, index: u64) -> impl Iterator<Item = &Members> + Clone {
        let seen = self.seen.get(&group);
        let last = seen.and_then(|seen| seen.range(..=index).next_back());
        let later = seen.into_iter().flat_map(move |seen| seen.range(index + 1..));
        last.into_iter().chain(later).map(|(_, members)| members)
    }
}

/// A quorum of `a` whose complement still has one of `b`, if there is one.
fn disjoint(a: &Members, b: &Members) -> Option<Vec<u64>> {
    let mut all: Vec<u64> = a.configs.iter().chain(&b.configs).flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    // Voters are a handful: all subsets are few enough to look at.
    assert!(all.len() < 16, "a group of {} voters", all.len());
    let picks = |set: u32, id: u64| all.iter().position(|known| *known == id).is_some_and(|at| set >> at & 1 == 1);
    let apart = |set: &u32| is_quorum(a, &|id| picks(*set, id)) && is_quorum(b, &|id| !picks(*set, id));
    let set = (0..1u32 << all.len()).find(apart)?;
    Some(all.iter().copied().filter(|id| picks(set, *id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(configs: &[&[u64]]) -> Members {
        Members { configs: configs.iter().map(|config| config.to_vec()).collect(), nodes: Vec::new() }
    }

    #[test]
    fn memberships_that_could_decide_apart_are_seen() {
        let mut seen = Memberships::default();
        assert_eq!(seen.judge(1, 0, &members(&[&[1, 2, 3]])), None);
        assert_eq!(seen.judge(1, 5, &members(&[&[1, 2, 3], &[1, 2, 4]])), None, "a joint one");
        assert_eq!(seen.judge(1, 6, &members(&[&[1, 2, 4]])), None);
        assert_eq!(seen.judge(1, 9, &members(&[&[1, 2, 4, 5]])), None, "one more at once");
        assert!(seen.judge(1, 12, &members(&[&[1, 6, 7]])).is_some(), "two exchanged at once");
        assert_eq!(seen.deciding(1, 5).count(), 4);
        assert_eq!(seen.deciding(1, 4).count(), 5);
    }

    #[test]
    fn two_leaders_with_a_lease_are_seen_and_one_whose_lease_has_run_out_is_not_counted() {
        let ms = Duration::from_millis;
        assert_eq!(judge_leaders(1, &[(1, 1, ms(10)), (2, 2, ms(700))], ms(594)), None);
        assert!(judge_leaders(1, &[(1, 1, ms(10)), (2, 2, ms(300))], ms(594)).is_some());
    }
}
