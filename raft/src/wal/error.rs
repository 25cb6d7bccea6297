//! What can go wrong with the log, by what the caller must do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::WalIdentity;

/// An error of the write-ahead log. [`WalError::class`] says what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// Retry: the queue holds as many bytes as it may.
    #[error("the log's queue holds {queued} of at most {limit} bytes; propose again when it has drained")]
    Busy {
        /// Bytes waiting.
        queued: u64,
        /// The bound.
        limit: u64,
    },
    /// Retry: the device is full, only the reserve is left, and that is kept for votes.
    #[error("the log's device is full; entries are refused until {wanted} bytes can be reserved again")]
    Full {
        /// The size of the reserve that must be writable before entries are taken again.
        wanted: u64,
    },
    /// Retry: the log's files hold as many bytes as they may; groups must take snapshots and purge.
    #[error(
        "the log's segments hold {live} of at most {limit} bytes; snapshot and purge the groups that pin the oldest"
    )]
    Overgrown {
        /// Bytes in segment files.
        live: u64,
        /// The bound.
        limit: u64,
    },
    /// Reject: the call is larger than the log takes.
    #[error("{what} has {bytes} bytes, more than the {limit} the log takes")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// Reject: the log holds as many groups as it may.
    #[error("group {group} would be one more than the {limit} groups the log takes; forget one first")]
    TooManyGroups {
        /// The group.
        group: u64,
        /// The bound.
        limit: u64,
    },
    /// Reject: the entries do not follow the group's last one.
    #[error("group {group} appends entry {got} where {expected} must come next; truncate or purge first")]
    Gap {
        /// The group.
        group: u64,
        /// The index that must come next.
        expected: u64,
        /// The index that came.
        got: u64,
    },
    /// Reject: the group's part of the log is damaged; it must be forgotten, and rebuilt from its peers.
    #[error("group {group} is suspect since the log was opened; forget it and rebuild it under a new replica id")]
    Suspect {
        /// The group.
        group: u64,
    },
    /// Reject: the options contradict each other.
    #[error("the log's options are wrong: {0}")]
    Options(&'static str),
    /// Stop: the log was closed.
    #[error("the log is closed")]
    Closed,
    /// Stop: an append or a sync failed. What is on the device is unknown until the log is opened again.
    #[error("the log ended at {doing}: {source}; restart the node, which reads it anew")]
    Failed {
        /// What it was doing.
        doing: &'static str,
        /// The device's answer.
        source: Arc<io::Error>,
    },
    /// Stop: a file could not be read, written or listed while the log was opened.
    #[error("opening the log: {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The device's answer.
        source: Arc<io::Error>,
    },
    /// Stop: the files belong to another cluster or node.
    #[error("{}: the log belongs to {found}, this is {expected}; give this node its own data directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: WalIdentity,
        /// Who opens it.
        expected: WalIdentity,
    },
    /// Stop: the files were written by a later version.
    #[error("{}: the log has format {found}, this program reads {supported}; run the version that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
}

/// What the caller of the log must do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalErrorClass {
    /// Try again later; nothing was accepted.
    Retry,
    /// The call is wrong; nothing was accepted.
    Reject,
    /// The log is of no use any more in this process.
    Stop,
}

impl WalError {
    /// What the caller must do.
    pub fn class(&self) -> WalErrorClass {
        match self {
            Self::Busy { .. } | Self::Full { .. } | Self::Overgrown { .. } => WalErrorClass::Retry,
            Self::TooLarge { .. }
            | Self::TooManyGroups { .. }
            | Self::Gap { .. }
            | Self::Suspect { .. }
            | Self::Options(_) => WalErrorClass::Reject,
            Self::Closed | Self::Failed { .. } | Self::Io { .. } | Self::Foreign { .. } | Self::Version { .. } => {
                WalErrorClass::Stop
            }
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source: Arc::new(source) }
    }

    pub(super) fn failed(doing: &'static str, source: io::Error) -> Self {
        Self::Failed { doing, source: Arc::new(source) }
    }
}

/// Whether an error says that the device has no room, which passes.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
