//! At most one voting majority: at no moment do two replicas of a group both hold a lease of a quorum, and each membership
//! of a group has a voter in common with every majority of the next one, so that none can decide without the other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::committed::Committed;
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

/// All memberships that any log has had: what is purged is in no log after a start.
#[derive(Debug, Default)]
pub struct Memberships {
    /// By group, index and term.
    seen: BTreeMap<u64, BTreeMap<(u64, u64), Members>>,
}

impl Memberships {
    /// A membership stands at `index` of a log of `group` that is `before` up to there.
    pub fn judge_next(
        &self,
        group: u64,
        index: u64,
        members: &Members,
        before: &GroupLog,
        committed: &Committed,
    ) -> Option<String> {
        let (_, last) = self.last(group, index.checked_sub(1)?, before, committed)?;
        disjoint(last, members).map(|majority| {
            format!(
                "group {group}: {majority:?} are a majority of {:?}, and none is needed for one of {:?}, which follows at \
                 {index} of a log of {}",
                last.configs,
                members.configs,
                before.extent()
            )
        })
    }

    /// A membership stands at `index` of a log of `group`, in an entry of `term`.
    pub fn note(&mut self, group: u64, index: u64, term: u64, members: &Members) {
        self.seen.entry(group).or_default().insert((index, term), members.clone());
    }

    /// The memberships that may decide about entry `index` in a log of `group`: the last one up to it, and the later ones.
    pub fn deciding(&self, group: u64, index: u64, log: &GroupLog, committed: &Committed) -> Vec<(u64, Members)> {
        let last = self.last(group, index, log, committed);
        let kept = log.purged.map_or(0, |purged| purged.index + 1).max(index + 1);
        let purged = self.committed_up_to(group, kept - 1, committed).take_while(|(at, _)| *at > index);
        let later = log.members.range(kept..).map(|(at, members)| (*at, members));
        last.into_iter().chain(purged).chain(later).map(|(at, members)| (at, members.clone())).collect()
    }

    /// The last membership up to `index` of `log`. Of what is purged the log says nothing: that was committed.
    fn last<'a>(
        &'a self,
        group: u64,
        index: u64,
        log: &'a GroupLog,
        committed: &'a Committed,
    ) -> Option<(u64, &'a Members)> {
        let kept = log.purged.map_or(0, |purged| purged.index + 1);
        if let Some((at, members)) =
            log.members.range(kept..=index.max(kept)).next_back().filter(|(at, _)| **at <= index)
        {
            return Some((*at, members));
        }
        self.committed_up_to(group, index.min(kept.checked_sub(1)?), committed).next()
    }

    /// The memberships of a group that are known to be committed up to `index`, the last one first.
    fn committed_up_to<'a>(
        &'a self,
        group: u64,
        index: u64,
        committed: &'a Committed,
    ) -> impl Iterator<Item = (u64, &'a Members)> {
        let stands = committed.of(group);
        // Entry 0 is the group's first membership, equal on all who formed it.
        let is_committed = move |at: u64, term: u64| {
            at == 0 || stands.and_then(|stands| stands.get(&at)).is_some_and(|stands| stands.term == term)
        };
        let seen = self.seen.get(&group).into_iter().flat_map(move |seen| seen.range(..=(index, u64::MAX)).rev());
        seen.filter(move |((at, term), _)| is_committed(*at, *term)).map(|((at, _), members)| (*at, members))
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
    use crate::observe::disk_log::Held;
    use crate::observe::frames::LogId;

    fn members(configs: &[&[u64]]) -> Members {
        Members { configs: configs.iter().map(|config| config.to_vec()).collect(), nodes: Vec::new() }
    }

    fn log(members: &[(u64, &[&[u64]])]) -> GroupLog {
        let members = members.iter().map(|(at, configs)| (*at, self::members(configs))).collect();
        GroupLog { members, ..GroupLog::default() }
    }

    #[test]
    fn memberships_that_could_decide_apart_are_seen() {
        let none = (Memberships::default(), Committed::default());
        let next = |before: &[(u64, &[&[u64]])], configs: &[&[u64]]| {
            none.0.judge_next(1, 9, &members(configs), &log(before), &none.1)
        };
        assert_eq!(next(&[], &[&[1, 2, 3]]), None);
        assert_eq!(next(&[(0, &[&[1, 2, 3]])], &[&[1, 2, 3], &[1, 2, 4]]), None, "a joint one");
        assert_eq!(next(&[(0, &[&[1, 2, 3]]), (5, &[&[1, 2, 3], &[1, 2, 4]])], &[&[1, 2, 4]]), None);
        assert_eq!(next(&[(6, &[&[1, 2, 4]])], &[&[1, 2, 4, 5]]), None, "one more at once");
        assert!(next(&[(6, &[&[1, 2, 4, 5]])], &[&[1, 6, 7]]).is_some(), "two exchanged at once");
    }

    #[test]
    fn the_last_membership_before_an_entry_and_the_later_ones_of_that_log_decide_about_it() {
        let all = Memberships::default();
        let log = log(&[(0, &[&[1, 2, 3]]), (5, &[&[1, 2, 4]]), (8, &[&[1, 5, 4]])]);
        let decide = all.deciding(1, 6, &log, &Committed::default());
        assert_eq!(decide.into_iter().map(|(at, _)| at).collect::<Vec<_>>(), [5, 8]);
    }

    #[test]
    fn what_was_purged_decides_by_what_was_committed_there() {
        let (mut all, mut committed) = (Memberships::default(), Committed::default());
        all.note(1, 3, 1, &members(&[&[1, 2, 3]]));
        all.note(1, 5, 1, &members(&[&[7, 8, 9]]));
        let entries = (1..=6).map(|index| (index, Held::new(2 - u64::from(index < 4), index))).collect();
        let whole = GroupLog { entries, ..GroupLog::default() };
        assert_eq!(committed.judge(1, 1, LogId { term: 2, index: 6 }, &whole), None);
        let cut = GroupLog { purged: Some(LogId { term: 2, index: 6 }), ..GroupLog::default() };
        let decide = all.deciding(1, 7, &cut, &committed);
        assert_eq!(decide, [(3, members(&[&[1, 2, 3]]))], "entry 5 of term 1 was replaced by one of term 2");
        let decide: Vec<_> = all.deciding(1, 2, &cut, &committed).into_iter().map(|(at, _)| at).collect();
        assert_eq!(decide, [3], "those after it that were purged with it decide as well");
        assert!(all.judge_next(1, 7, &members(&[&[4, 5, 6]]), &cut, &committed).is_some());
        assert_eq!(all.judge_next(1, 7, &members(&[&[1, 2, 3], &[1, 2, 9]]), &cut, &committed), None);
    }

    #[test]
    fn two_leaders_with_a_lease_are_seen_and_one_whose_lease_has_run_out_is_not_counted() {
        let ms = Duration::from_millis;
        assert_eq!(judge_leaders(1, &[(1, 1, ms(10)), (2, 2, ms(700))], ms(594)), None);
        assert!(judge_leaders(1, &[(1, 1, ms(10)), (2, 2, ms(300))], ms(594)).is_some());
    }
}
