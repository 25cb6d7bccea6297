//! What the caller of a load decides.

/// What to do with file columns that the group does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownColumns {
    /// Refuse the file: a misspelt column would leave its feature as it was, unnoticed.
    #[default]
    Refuse,
    /// Read the file without them.
    Ignore,
}

/// What the caller of a load decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// The time of the load, microseconds since 1970-01-01T00:00:00Z: the event time of rows of a group that has none,
    /// and what event times are held against. A load that is resumed must have the time of its first run.
    pub load_time_us: i64,
    /// What to do with file columns that the group does not know.
    pub unknown_columns: UnknownColumns,
}

impl LoadOptions {
    /// Refuses unknown columns.
    pub fn new(load_time_us: i64) -> Self {
        Self { load_time_us, unknown_columns: UnknownColumns::Refuse }
    }
}
