//! In which order the columns of a group are packed into lanes: by the views that read them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use stoa_protocol::FeatureGroupId;

/// In which order the columns of groups are packed into lanes, as far as something is known of those who read them; the rest
/// follows in the order of the schema. A replica's own affair: it shows in no answer, digest or snapshot, and two replicas of a
/// partition may have different ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaneOrders(BTreeMap<FeatureGroupId, Vec<u16>>);

impl LaneOrders {
    /// By views: of each view, and each group that it reads, the places of the features that it reads there. In which order the
    /// views come makes no difference, nor in which order each has its features.
    ///
    /// 1. The narrowest views come first: they gain most by few lines of the cache, and what a wide one reads of theirs it finds
    ///    at the head of the row, which every read has near. Of equally narrow ones the first is the one that more views are equal to.
    /// 2. Each view takes what those before it have left of its features: those first that more views read, and those that the
    ///    same views read side by side.
    ///
    /// Costs as much as sorting all features of all views.
    pub fn by_views(views: impl IntoIterator<Item = (FeatureGroupId, Vec<u16>)>) -> Self {
        let mut groups: BTreeMap<FeatureGroupId, BTreeMap<Vec<u16>, usize>> = BTreeMap::new();
        for (group, mut features) in views {
            features.sort_unstable();
            features.dedup();
            *groups.entry(group).or_default().entry(features).or_default() += 1;
        }
        Self(groups.into_iter().map(|(group, sets)| (group, order(sets))).collect())
    }

    /// The places of all features of a group that has so many.
    pub(crate) fn of(&self, group: FeatureGroupId, features: usize) -> Vec<usize> {
        let known = self.0.get(&group).into_iter().flatten().map(|feature| usize::from(*feature));
        // A partition may not have learnt yet what a view reads.
        let mut order: Vec<usize> = known.filter(|feature| *feature < features).collect();
        let mut is_placed = vec![false; features];
        order.iter().for_each(|feature| is_placed[*feature] = true);
        order.extend((0..features).filter(|feature| !is_placed[*feature]));
        order
    }
}

/// Who reads a feature.
#[derive(Default)]
struct Readers {
    views: usize,
    /// The sets of features that it is of, by their places in the order of the narrowest.
    sets: Vec<u32>,
    is_placed: bool,
}

/// The features of all sets, each of which so many views read.
fn order(sets: BTreeMap<Vec<u16>, usize>) -> Vec<u16> {
    let mut sets: Vec<(Vec<u16>, usize)> = sets.into_iter().collect();
    // Stable: of those that are equal in both, the one with the lower features.
    sets.sort_by_key(|(features, views)| (features.len(), Reverse(*views)));
    let mut readers: BTreeMap<u16, Readers> = BTreeMap::new();
    for (at, (features, views)) in (0..).zip(&sets) {
        for feature in features {
            let readers = readers.entry(*feature).or_default();
            readers.views += views;
            readers.sets.push(at);
        }
    }
    let mut order = Vec::with_capacity(readers.len());
    for (features, _) in &sets {
        let mut left: Vec<u16> = features.iter().copied().filter(|feature| !readers[feature].is_placed).collect();
        left.sort_by_key(|feature| (Reverse(readers[feature].views), &readers[feature].sets));
        left.iter().for_each(|feature| readers.get_mut(feature).expect("it is read").is_placed = true);
        order.extend(left);
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: FeatureGroupId = FeatureGroupId(1);

    fn ordered(views: &[&[u16]], features: usize) -> Vec<usize> {
        LaneOrders::by_views(views.iter().map(|view| (GROUP, view.to_vec()))).of(GROUP, features)
    }

    #[test]
    fn without_views_the_order_is_that_of_the_schema() {
        assert_eq!(ordered(&[], 5), [0, 1, 2, 3, 4]);
        assert_eq!(ordered(&[&[]], 3), [0, 1, 2], "a view that reads nothing of the group");
        let other = LaneOrders::by_views([(FeatureGroupId(2), vec![4, 3])]);
        assert_eq!(other.of(GROUP, 5), [0, 1, 2, 3, 4], "a view of another group");
    }

    #[test]
    fn the_narrowest_view_comes_first_and_what_no_view_reads_comes_last() {
        assert_eq!(ordered(&[&[7, 1, 3, 5], &[6, 2]], 9), [2, 6, 1, 3, 5, 7, 0, 4, 8]);
    }

    #[test]
    fn what_a_narrow_view_reads_of_a_wide_one_is_not_there_twice() {
        assert_eq!(ordered(&[&[0, 1, 2, 3, 4, 5], &[5, 3], &[9, 3]], 10), [3, 5, 9, 0, 1, 2, 4, 6, 7, 8]);
    }

    #[test]
    fn of_equally_narrow_views_the_one_that_is_there_more_often_comes_first() {
        assert_eq!(ordered(&[&[0, 1], &[2, 3], &[3, 2]], 4), [2, 3, 0, 1]);
    }

    #[test]
    fn of_one_view_what_others_read_too_comes_first_and_what_the_same_views_read_side_by_side() {
        let wide = [0, 1, 2, 3, 4, 5, 6, 7];
        let (one, other) = ([1, 3, 5, 7, 8, 9, 10, 11], [0, 3, 4, 7, 12, 13, 14, 15]);
        // All three read 3 and 7; the first and the second 1 and 5; the first and the third 0 and 4; the first alone 2 and 6.
        assert_eq!(ordered(&[&wide, &one, &other], 16)[..8], [3, 7, 0, 4, 1, 5, 2, 6]);
    }

    #[test]
    fn what_the_partition_has_not_learnt_is_left_out() {
        assert_eq!(ordered(&[&[9, 2], &[7, 8]], 4), [2, 0, 1, 3]);
    }

    fn any_views() -> impl Strategy<Value = Vec<Vec<u16>>> {
        prop::collection::vec(prop::collection::vec(0..24_u16, 0..12), 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn an_order_has_each_feature_once_and_tells_nothing_of_the_order_of_the_views(
            views in any_views(),
            features in 0..32_usize,
        ) {
            let of = |views: &[Vec<u16>]| {
                LaneOrders::by_views(views.iter().map(|view| (GROUP, view.clone()))).of(GROUP, features)
            };
            let order = of(&views);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..features));
            let turned: Vec<Vec<u16>> = views.iter().rev().map(|view| view.iter().rev().copied().collect()).collect();
            prop_assert_eq!(of(&turned), order);
        }

        #[test]
        fn features_that_the_same_views_read_are_neighbours(views in any_views()) {
            let order = LaneOrders::by_views(views.iter().map(|view| (GROUP, view.clone()))).of(GROUP, 24);
            let readers = |feature: usize| -> Vec<bool> {
                views.iter().map(|view| view.contains(&(feature as u16))).collect()
            };
            let mut seen: Vec<Vec<bool>> = order.into_iter().map(readers).collect();
            seen.dedup();
            let runs = seen.len();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), runs, "each set of readers has one run of features");
        }
    }
}
