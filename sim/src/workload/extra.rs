//! What clients have done besides whole rows and reads.

use std::fmt;

/// Counts of one run, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtraCounts {
    /// Rows of which some features were written, and that were acknowledged.
    pub partial_rows: u64,
    /// Clients that ended in the middle of their work.
    pub deaths: u64,
    /// Rows of whose write a dead client has not learned the outcome.
    pub orphaned: u64,
}

impl ExtraCounts {
    /// Whether anything was done of a kind of work that a plan names.
    pub fn did(&self, work: &str) -> bool {
        match work {
            "partial rows" => self.partial_rows > 0,
            _ => self.deaths > 0,
        }
    }
}

impl std::ops::AddAssign for ExtraCounts {
    fn add_assign(&mut self, other: Self) {
        self.partial_rows += other.partial_rows;
        self.deaths += other.deaths;
        self.orphaned += other.orphaned;
    }
}

impl fmt::Display for ExtraCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partial_rows, deaths, orphaned } = self;
        write!(f, "{partial_rows} partial rows; {deaths} clients died with {orphaned} rows under way")
    }
}
