//! Appends to the node's write-ahead log, until they are durable, in files of a directory that can be chosen.
//!
//! `together` is how many entries wait at once, as those of many groups do: one sync is for all of them. Without sync it is the
//! same log over a disk whose sync does nothing: what is left are the log's own work and the writes to the file. Caller and
//! writer share one thread; the disk has its own, as in a node.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stoa_env::{Disk, RealClock, RealDisk};
use stoa_raft::wal::{Wal, WalIdentity, WalOptions};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::subject::{Subject, Work};
use super::table::{BATCH_ROWS, FEATURES, Table};
use super::unsynced::Unsynced;

/// The group that appends.
const GROUP: u64 = 2;
/// Entries that wait at once.
const TOGETHER: u64 = 64;
/// Entries since the last purge after which the next purge is made: far below what the log may hold.
const PURGE_ENTRIES: u64 = 512;

/// One entry at a time and many, of one row and of a batch, with sync and without.
pub fn subjects() -> Vec<Subject> {
    vec![
        Subject::new("log/row-synced", 1, |dir| synced(dir, 1, 1)),
        Subject::new("log/row-unsynced", 1, |dir| unsynced(dir, 1, 1)).at_once(PURGE_ENTRIES),
        Subject::new("log/64-rows-synced", TOGETHER, |dir| synced(dir, 1, TOGETHER)),
        Subject::new("log/64-rows-unsynced", TOGETHER, |dir| unsynced(dir, 1, TOGETHER)).at_once(PURGE_ENTRIES),
        Subject::new("log/batch-synced", BATCH_ROWS, |dir| synced(dir, BATCH_ROWS, 1)),
        Subject::new("log/batch-unsynced", BATCH_ROWS, |dir| unsynced(dir, BATCH_ROWS, 1)).at_once(PURGE_ENTRIES),
    ]
}

struct Append {
    // Dropped first: the writer ends before its files go.
    wal: Wal,
    runtime: Runtime,
    _files: TempDir,
    entry: Bytes,
    together: u64,
    next: u64,
    purged: u64,
}

fn synced(dir: &Path, rows: u64, together: u64) -> Box<dyn Work> {
    Append::boxed(dir, rows, together, |disk| disk)
}

fn unsynced(dir: &Path, rows: u64, together: u64) -> Box<dyn Work> {
    Append::boxed(dir, rows, together, Unsynced)
}

impl Append {
    fn boxed<D: Disk>(dir: &Path, rows: u64, together: u64, disk: impl FnOnce(RealDisk) -> D) -> Box<dyn Work> {
        let files = tempfile::tempdir_in(dir).expect("a directory can be made where the user says");
        let disk = disk(RealDisk::new(files.path()).expect("the directory was just made"));
        let runtime = Builder::new_current_thread().enable_all().build().expect("the system has a thread and a poll");
        // Without the reserve for a full device: it is written once, at the start.
        let options = WalOptions { reserve_bytes: 0, ..WalOptions::default() };
        let identity = WalIdentity { cluster: 1, node: 1 };
        let open = Wal::open(disk, "wal".into(), identity, options, Arc::new(RealClock));
        let (wal, _) = runtime.block_on(open).expect("a log can be begun in an empty directory");
        let entry = Table::empty(FEATURES).write(0..rows, 0).encode();
        Box::new(Self { wal, runtime, _files: files, entry, together, next: 1, purged: 0 })
    }
}

/// Puts entries in at once; what it returns ends when the last is durable, as entries become so in their order.
fn append(wal: &Wal, first: u64, entry: &Bytes, together: u64) -> oneshot::Receiver<()> {
    let (durable, wait) = oneshot::channel();
    let mut durable = Some(durable);
    for index in first..first + together {
        let room = wal.admit(entry.len()).expect("the log has room for what is purged so often");
        let durable = durable.take_if(|_| index + 1 == first + together);
        let done = move |result: Result<(), _>| {
            result.expect("the device takes what is appended");
            drop(room);
            durable.map(|durable| durable.send(()));
        };
        wal.append(GROUP, vec![(index, entry.clone())], done).expect("the entries follow one another");
    }
    wait
}

impl Work for Append {
    fn prepare(&mut self, _count: u64) {
        let last = self.next - 1;
        if last >= self.purged + PURGE_ENTRIES {
            let purge = self.wal.purge(GROUP, last, Bytes::from_static(b"log id"));
            self.runtime.block_on(purge).expect("the log goes on");
            self.purged = last;
        }
    }

    fn run(&mut self, count: u64) {
        let Self { wal, runtime, entry, together, next, .. } = self;
        runtime.block_on(async {
            for _ in 0..count {
                append(wal, *next, entry, *together).await.expect("the log goes on");
                *next += *together;
            }
        });
    }
}
