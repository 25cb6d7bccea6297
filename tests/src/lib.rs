//! End to end: real processes, sockets, certificates and files. Each file under `tests/` is a scenario; this library has
//! what they share.
//!
//! It must never know how the product does something, only what a user sees: the command line, the client, the files.
//! Nothing here waits for a time; everything polls a condition, with a limit that a busy machine does not reach.
//!
//! | file | what |
//! |---|---|
//! | `attack.rs` | connections that mean no good |
//! | `command.rs` | the command line against a cluster |
//! | `direct.rs` | one request to one node, past the client |
//! | `items.rs` | rows that say of themselves what they are |
//! | `ledger.rs` | writers, what they were promised, and the judgement |
//! | `replicas.rs` | digests, leaders, files: what a cluster holds |
//! | `small_disk.rs` | disks that a test can fill |
//! | `wait.rs` | polling |
//! | `zones.rs` | zones as network namespaces, and cuts between them |

pub mod attack;
pub mod command;
pub mod direct;
pub mod items;
pub mod ledger;
pub mod replicas;
pub mod small_disk;
pub mod wait;
pub mod zones;

use std::io::Write;
use std::path::PathBuf;

use stoa::local_cluster::{LocalCluster, LocalClusterOptions};

use wait::LIMIT;

/// Three nodes in three zones, formed. Few partitions: a busy machine has to carry them all.
pub async fn start(name: &str, program: &str, partitions: u64) -> anyhow::Result<LocalCluster> {
    let options = LocalClusterOptions { partitions, ..LocalClusterOptions::new(name, program) };
    LocalCluster::start(options, LIMIT).await
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// Says why a test does nothing here, past the test harness, which would keep what a passing test prints to itself.
///
/// # Errors
/// If standard error cannot be written to.
pub fn skip(why: &str) -> anyhow::Result<()> {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    Ok(writeln!(std::io::stderr(), "skipped, {name}: {why}")?)
}
