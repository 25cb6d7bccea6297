//! What is measured: one list, for time and for instructions.

use std::path::Path;

use super::{apply, codec, log, reads, snapshot};

/// Operations of one kind, prepared from fixed seeds, so that they are the same in every run.
pub trait Work {
    /// Makes ready what the next `count` operations need, and drops what earlier ones left. Not measured.
    fn prepare(&mut self, _count: u64) {}

    /// The operations. Measured.
    fn run(&mut self, count: u64);
}

/// Work that needs nothing for each operation.
pub struct Repeat<F>(pub F);

impl<F: FnMut()> Work for Repeat<F> {
    fn run(&mut self, count: u64) {
        (0..count).for_each(|_| (self.0)());
    }
}

/// One thing that is measured.
pub struct Subject {
    /// Group and case, with one slash between them.
    pub name: &'static str,
    /// Rows of one operation, or entries of the log: what its figure is divided by, too.
    pub rows: u64,
    /// Operations that are counted under callgrind; `None` if they are not, because they wait for devices or for memory, of
    /// which instructions say nothing, or are not hot.
    pub counted: Option<u64>,
    /// Operations that may be prepared at once: their memory is held until the next are.
    pub at_once_max: u64,
    /// Makes the work. The path is a directory for its files.
    pub make: fn(&Path) -> Box<dyn Work>,
}

impl Subject {
    /// A subject that is timed alone.
    pub const fn new(name: &'static str, rows: u64, make: fn(&Path) -> Box<dyn Work>) -> Self {
        Self { name, rows, counted: None, at_once_max: u64::MAX, make }
    }

    /// The same, counted too.
    pub const fn counted(self, operations: u64) -> Self {
        Self { counted: Some(operations), ..self }
    }

    /// The same, prepared for so many operations at the most.
    pub const fn at_once(self, operations: u64) -> Self {
        Self { at_once_max: operations, ..self }
    }
}

/// All subjects, in the order in which they are printed.
pub fn all() -> Vec<Subject> {
    let lists = [reads::subjects(), apply::subjects(), codec::subjects(), log::subjects(), snapshot::subjects()];
    lists.into_iter().flatten().collect()
}

/// The subject of this name.
pub fn named(name: &str) -> Option<Subject> {
    all().into_iter().find(|subject| subject.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_a_group_and_a_case() {
        let mut names: Vec<_> = all().iter().map(|subject| subject.name).collect();
        assert!(names.iter().all(|name| name.split('/').count() == 2), "{names:?}");
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_counted_can_be_prepared_at_once() {
        assert!(all().iter().all(|subject| subject.counted.is_none_or(|count| count <= subject.at_once_max)));
    }
}
