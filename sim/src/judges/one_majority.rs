//! At most one voting majority: at no moment do two replicas of a group both hold a lease of a quorum, and each membership
//! of a group has a voter in common with every majority of the next one, so that none can decide without the other.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::disk_log::GroupLog;
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

/// A membership stands at `index` of a log that is `before` up to there.
pub fn judge_next(group: u64, index: u64, members: &Members, before: &GroupLog) -> Option<String> {
    let (_, last) = before.members.range(..index).next_back()?;
    disjoint(last, members).map(|majority| {
        format!(
            "group {group}: {majority:?} are a majority of {:?}, and none is needed for one of {:?}, which follows at {index}",
            last.configs, members.configs
        )
    })
}

/// All memberships that any log has had, by group and index. What is purged is in no log after a start.
#[derive(Debug, Default)]
pub struct Memberships {
    seen: BTreeMap<u64, BTreeMap<u64, Members>>,
}

impl Memberships {
    /// A membership stands at `index` of a log of `group`.
    pub fn note(&mut self, group: u64, index: u64, members: &Members) {
        self.seen.entry(group).or_default().insert(index, members.clone());
    }

    /// The memberships that may decide about entry `index`: by the logs that there are the last one before or at it, and
    /// the later ones; and the last one that there has been.
    pub fn deciding<'a>(
        &'a self,
        group: u64,
        index: u64,
        logs: impl Iterator<Item = &'a GroupLog>,
    ) -> Vec<(u64, Members)> {
        let mut all: Vec<(u64, &Members)> = logs.flat_map(|log| log.members.iter().map(|(at, m)| (*at, m))).collect();
        let last = all.iter().map(|(at, _)| *at).filter(|at| *at <= index).max();
        all.retain(|(at, _)| *at > index || Some(*at) == last);
        let seen = self.seen.get(&group).and_then(|seen| seen.range(..=index).next_back());
        all.extend(seen.map(|(at, members)| (*at, members)));
        all.sort_by_key(|(at, _)| *at);
        all.dedup();
        all.into_iter().map(|(at, members)| (at, members.clone())).collect()
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

    fn log(members: &[(u64, &[&[u64]])]) -> GroupLog {
        let members = members.iter().map(|(at, configs)| (*at, self::members(configs))).collect();
        GroupLog { members, ..GroupLog::default() }
    }

    #[test]
    fn memberships_that_could_decide_apart_are_seen() {
        let next = |before: &[(u64, &[&[u64]])], configs: &[&[u64]]| judge_next(1, 9, &members(configs), &log(before));
        assert_eq!(next(&[], &[&[1, 2, 3]]), None);
        assert_eq!(next(&[(0, &[&[1, 2, 3]])], &[&[1, 2, 3], &[1, 2, 4]]), None, "a joint one");
        assert_eq!(next(&[(0, &[&[1, 2, 3]]), (5, &[&[1, 2, 3], &[1, 2, 4]])], &[&[1, 2, 4]]), None);
        assert_eq!(next(&[(6, &[&[1, 2, 4]])], &[&[1, 2, 4, 5]]), None, "one more at once");
        assert!(next(&[(6, &[&[1, 2, 4, 5]])], &[&[1, 6, 7]]).is_some(), "two exchanged at once");
    }

    #[test]
    fn the_last_membership_before_an_entry_and_all_later_ones_decide_about_it() {
        let logs = [log(&[(0, &[&[1, 2, 3]]), (5, &[&[1, 2, 4]])]), log(&[(0, &[&[1, 2, 3]]), (8, &[&[1, 5, 4]])])];
        let mut all = Memberships::default();
        all.note(1, 3, &members(&[&[1, 2, 9]]));
        let at = |index| all.deciding(1, index, logs.iter()).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!((at(4), at(5), at(9)), (vec![0, 3, 5, 8], vec![3, 5, 8], vec![3, 8]));
    }

    #[test]
    fn two_leaders_with_a_lease_are_seen_and_one_whose_lease_has_run_out_is_not_counted() {
        let ms = Duration::from_millis;
        assert_eq!(judge_leaders(1, &[(1, 1, ms(10)), (2, 2, ms(700))], ms(594)), None);
        assert!(judge_leaders(1, &[(1, 1, ms(10)), (2, 2, ms(300))], ms(594)).is_some());
    }
}
