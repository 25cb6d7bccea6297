//! Why a file cannot be loaded. All of these are for the user to mend; none is worth a retry. Each message is whole, with the
//! operating system's reason in it, so no error names a source beside it: it would be told twice.

use std::path::PathBuf;

/// Why a file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The operating system refuses the file.
    #[error("{path}: the file cannot be read: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// The file is of no kind that can be loaded.
    #[error("{path}: the extension is {extension:?}; a feature file ends in .parquet or .csv")]
    Extension {
        /// The file.
        path: PathBuf,
        /// What its name ends in.
        extension: String,
    },
    /// The file is empty, cut off, damaged, or not what its extension says.
    #[error("{path}: not a whole {kind} file: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Parquet or CSV.
        kind: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The file is not the one that was opened.
    #[error("{path}: the file was changed while it was loaded; load it again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A column that every row needs is missing.
    #[error("{path}: {what} {column} is missing; the columns of the file are {found}")]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// Key column or event time column.
        what: &'static str,
        /// The column.
        column: String,
        /// The columns of the file.
        found: String,
    },
    /// The file has columns that the group does not know.
    #[error("{path}: {group} has no columns {columns}; it has {known}. Rename them, or load with --ignore-unknown")]
    UnknownColumns {
        /// The file.
        path: PathBuf,
        /// The group.
        group: String,
        /// The unknown columns.
        columns: String,
        /// The columns of the group.
        known: String,
    },
    /// The file has none of the group's features.
    #[error("{path}: the file has no feature of {group}; its features are {known}")]
    NoFeatures {
        /// The file.
        path: PathBuf,
        /// The group.
        group: String,
        /// The features of the group.
        known: String,
    },
    /// A column that the load needs stands in the file twice.
    #[error("{path}: the column {column} stands in the file twice; keep one")]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A column's type does not hold the values of its feature.
    #[error("{path}: column {column} is {found}, and {wanted} is wanted; it may be {allowed}")]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type in the file.
        found: String,
        /// The feature's or key column's type.
        wanted: String,
        /// The file types that would do.
        allowed: String,
    },
    /// A thread of the load panicked: the rest of the file was not read.
    #[error("the thread that was to {what} stopped by a fault of this program; what it was reading may be damaged")]
    Stopped {
        /// What it did.
        what: &'static str,
    },
    /// The operating system gives no thread.
    #[error("no thread could be started to read the file: {reason}")]
    Thread {
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// Rows cannot be sent to partitions.
    #[error("{group} lies in partition set {wanted}, and the set given is {given} with {partitions} partitions")]
    Partitions {
        /// The group.
        group: String,
        /// Its partition set.
        wanted: u64,
        /// The set given.
        given: u64,
        /// Partitions of the set given.
        partitions: usize,
    },
}
