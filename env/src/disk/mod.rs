//! Files of a node's data directory. The trait has no buffering and no cleverness: what it says is what the log and the
//! snapshots rely on.
//!
//! - `append` hands bytes to the operating system: they survive the process, not the machine.
//! - `sync` makes all bytes appended before the call durable, or fails; after a failure nobody may believe any byte of
//!   that file that was not durable before (the kernel may have dropped the pages and forgotten the error).
//! - A created, linked, renamed or removed name is durable only after `sync_dir` of its directory.

mod real;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use real::RealDisk;

/// A directory tree on a device. Paths are relative to the root given to the implementation; `..` is refused.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// A read-only view of a whole file, valid while it lives.
    type Map: AsRef<[u8]> + Send + Sync + 'static;

    /// Creates a new empty file for appending; fails with `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> impl Future<Output = io::Result<Self::File>> + Send;
    /// Opens an existing file for appending at its end.
    fn open(&self, path: &Path) -> impl Future<Output = io::Result<Self::File>> + Send;
    /// Maps an existing file for reading. The caller promises that nobody truncates it while the map lives.
    fn map(&self, path: &Path) -> impl Future<Output = io::Result<Self::Map>> + Send;
    /// Reads a whole file; fails with `InvalidData` if it is longer than `limit` bytes.
    fn read(&self, path: &Path, limit: usize) -> impl Future<Output = io::Result<Bytes>> + Send;
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> impl Future<Output = io::Result<Vec<PathBuf>>> + Send;
    /// Creates a directory and its parents; an existing one is fine.
    fn create_dir(&self, dir: &Path) -> impl Future<Output = io::Result<()>> + Send;
    /// Gives the file at `from` a second name; fails with `AlreadyExists` if the name is taken. It is one file: what is appended to
    /// it, and what is damaged of it, both names show; it goes when both are removed.
    fn link(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + Send;
    /// Renames within the tree, replacing an existing target atomically.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + Send;
    /// Removes a file, or a directory with all it holds.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> impl Future<Output = io::Result<()>> + Send;
}

/// A file opened for appending by one owner.
#[allow(clippy::len_without_is_empty)] // nobody asks whether a file is empty, and asking is fallible here
pub trait DiskFile: Send + 'static {
    /// Appends all bytes, or fails; after a failure the file's end is unknown until `len` is asked.
    fn append(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes every byte appended so far durable (`fdatasync`: data and size).
    fn sync(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> impl Future<Output = io::Result<()>> + Send;
    /// The file's length in bytes.
    fn len(&mut self) -> impl Future<Output = io::Result<u64>> + Send;
}
