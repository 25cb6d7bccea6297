//! What a node bounds, and how near each bound has come: every bounded queue, map and buffer counts what it holds under a
//! name, and the most there ever was is kept. One registry for each node, handed down with its clock; nothing is global.
//!
//! Counting costs two relaxed atomic operations. Who has a bound of its own (a semaphore, the length of a map) refuses, and
//! this tells whether it does; who has none is refused by [`Gauge::take`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The bounds of one node. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    marks: Arc<Mutex<BTreeMap<&'static str, Named>>>,
}

#[derive(Debug)]
struct Named {
    mark: Arc<Mark>,
    /// The one gauge of the whole node, where there is only one.
    shared: Gauge,
}

#[derive(Debug)]
struct Mark {
    bound: u64,
    high: AtomicU64,
}

/// A bound and how near it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounded {
    /// What is bounded.
    pub name: &'static str,
    /// The most that may be.
    pub bound: u64,
    /// The most that ever was, over all that have this name.
    pub high: u64,
}

impl Bounds {
    /// A gauge of its own under a name that others may have too: each is held against the bound by itself, and the highest
    /// counts. The bound is the same wherever the name is.
    pub fn gauge(&self, name: &'static str, bound: u64) -> Gauge {
        let mark = self.named(name, bound, |named| named.mark.clone());
        Gauge { mark, now: Arc::default() }
    }

    /// The gauge of that name for the whole node.
    pub fn node_gauge(&self, name: &'static str, bound: u64) -> Gauge {
        self.named(name, bound, |named| named.shared.clone())
    }

    /// All bounds by name.
    pub fn table(&self) -> Vec<Bounded> {
        let tell = |(name, named): (&&'static str, &Named)| {
            let Mark { bound, high } = &*named.mark;
            Bounded { name, bound: *bound, high: high.load(Ordering::Relaxed) }
        };
        self.lock().iter().map(tell).collect()
    }

    fn named<V>(&self, name: &'static str, bound: u64, pick: impl FnOnce(&Named) -> V) -> V {
        let mut marks = self.lock();
        let named = marks.entry(name).or_insert_with(|| {
            let mark = Arc::new(Mark { bound, high: AtomicU64::new(0) });
            Named { shared: Gauge { mark: mark.clone(), now: Arc::default() }, mark }
        });
        assert_eq!(named.mark.bound, bound, "{name} has one bound");
        pick(named)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Named>> {
        self.marks.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Counts what one bounded thing holds. Clones count together.
#[derive(Debug, Clone)]
pub struct Gauge {
    mark: Arc<Mark>,
    now: Arc<AtomicU64>,
}

impl Gauge {
    /// Counts `more`, until what is returned is dropped.
    pub fn hold(&self, more: u64) -> Hold {
        self.add(more);
        Hold { gauge: self.clone(), held: more }
    }

    /// As [`hold`](Self::hold), if there is room for so much; else nothing is counted.
    #[must_use = "what is taken is given back when this is dropped"]
    pub fn take(&self, more: u64) -> Option<Taken<'_>> {
        let fits = |now: u64| now.checked_add(more).filter(|then| *then <= self.mark.bound);
        let before = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        self.note(before + more);
        Some(Taken { gauge: self, held: more })
    }

    /// Counts `more`, until it is [given back](Self::sub).
    pub fn add(&self, more: u64) {
        self.note(self.now.fetch_add(more, Ordering::Relaxed) + more);
    }

    /// Counts `less` no more.
    pub fn sub(&self, less: u64) {
        self.now.fetch_sub(less, Ordering::Relaxed);
    }

    /// Notes how much there is, for what counts itself.
    pub fn note(&self, now: u64) {
        // Seldom written, as many threads come by.
        if now > self.mark.high.load(Ordering::Relaxed) {
            self.mark.high.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// As [`note`](Self::note), of things that are counted.
    pub fn note_len(&self, now: usize) {
        self.note(now as u64);
    }

    /// The bound, and the most that there ever was.
    pub fn bound_and_high(&self) -> (u64, u64) {
        (self.mark.bound, self.mark.high.load(Ordering::Relaxed))
    }
}

/// What was [taken](Gauge::take), as long as this lives.
#[derive(Debug)]
pub struct Taken<'a> {
    gauge: &'a Gauge,
    held: u64,
}

impl Taken<'_> {
    /// Takes `more` besides, if there is room for it; whether it was.
    #[must_use = "what was not taken is not there"]
    pub fn grow(&mut self, more: u64) -> bool {
        let Some(mut taken) = self.gauge.take(more) else { return false };
        self.held += std::mem::take(&mut taken.held);
        true
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.gauge.sub(self.held);
    }
}

/// What a [`Gauge`] counts as long as this lives.
#[derive(Debug)]
pub struct Hold {
    gauge: Gauge,
    held: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gauge.sub(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_all_gauges_of_a_name_is_kept_and_those_of_the_node_count_together() {
        let bounds = Bounds::default();
        let (first, second) = (bounds.gauge("proposals", 8), bounds.gauge("proposals", 8));
        let held = [first.hold(3), first.hold(2), second.hold(4)];
        drop(held);
        drop(first.hold(1));
        let (one, other) = (bounds.node_gauge("bytes", 9), bounds.clone().node_gauge("bytes", 9));
        let _held = (one.hold(5), other.hold(5));
        let table = [Bounded { name: "bytes", bound: 9, high: 10 }, Bounded { name: "proposals", bound: 8, high: 5 }];
        assert_eq!(bounds.table(), table);
    }

    #[test]
    fn no_more_is_taken_than_the_bound_allows_and_what_was_refused_is_not_counted() {
        let bounds = Bounds::default();
        let gauge = bounds.node_gauge("requests", 4);
        let first = gauge.take(3);
        assert!(first.is_some() && gauge.take(2).is_none());
        let second = gauge.take(1);
        assert!(second.is_some() && gauge.take(1).is_none());
        drop(first);
        let mut third = gauge.take(1).expect("what was refused has been given back");
        assert!(!third.grow(3) && third.grow(2) && gauge.take(1).is_none(), "with the second there are four");
        drop(third);
        assert!(gauge.take(3).is_some(), "all of it has been given back");
        assert_eq!(bounds.table(), [Bounded { name: "requests", bound: 4, high: 4 }]);
    }
}
