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
    /// Definitions that were new or grew, and were taken.
    pub definitions: u64,
    /// Definitions that were refused.
    pub refused_definitions: u64,
    /// Runs of loads.
    pub loads: u64,
    /// Of these, those that said that something was not loaded.
    pub loads_failed: u64,
    /// And those that were ended in the middle.
    pub loads_cut: u64,
    /// Rows that loads acknowledged.
    pub loaded_rows: u64,
    /// Rows of a group with a time to live that were acknowledged.
    pub aging_rows: u64,
    /// Reads of them.
    pub aging_reads: u64,
    /// Of these, those that showed one that had expired.
    pub expired_reads: u64,
}

impl ExtraCounts {
    /// Whether anything was done of a kind of work that a plan names.
    pub fn did(&self, work: &str) -> bool {
        match work {
            "partial rows" => self.partial_rows > 0,
            "mortal clients" => self.deaths > 0,
            "catalog changes" => self.definitions > 0,
            "rows that expire" => self.aging_rows > 0 && self.expired_reads > 0,
            _ => self.loaded_rows > 0,
        }
    }
}

impl std::ops::AddAssign for ExtraCounts {
    fn add_assign(&mut self, other: Self) {
        self.partial_rows += other.partial_rows;
        self.deaths += other.deaths;
        self.orphaned += other.orphaned;
        self.definitions += other.definitions;
        self.refused_definitions += other.refused_definitions;
        self.loads += other.loads;
        self.loads_failed += other.loads_failed;
        self.loads_cut += other.loads_cut;
        self.loaded_rows += other.loaded_rows;
        self.aging_rows += other.aging_rows;
        self.aging_reads += other.aging_reads;
        self.expired_reads += other.expired_reads;
    }
}

impl fmt::Display for ExtraCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partial_rows, deaths, orphaned, .. } = self;
        let Self { definitions, refused_definitions, loads, loads_failed, loads_cut, loaded_rows, .. } = self;
        let Self { aging_rows, aging_reads, expired_reads, .. } = self;
        write!(
            f,
            "{partial_rows} partial rows; {deaths} clients died with {orphaned} rows under way; {definitions} definitions \
             taken, {refused_definitions} refused; {loaded_rows} rows loaded in {loads} runs of loads, {loads_failed} failed, \
             {loads_cut} cut; {aging_rows} rows that expire, read {aging_reads} times, {expired_reads} when they had"
        )
    }
}
