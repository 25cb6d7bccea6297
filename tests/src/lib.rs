//! End to end: real processes, sockets, certificates and files. Each file under `tests/` is a scenario; this library has
//! what they share.
//!
//! It must never know how the product does something, only what a user sees: the command line, the client, the files.
//! Nothing here waits for a time; everything polls a condition, with a limit that a busy machine does not reach.
//!
//! | file | what |
//! |---|---|
//! | `command.rs` | the command line against a cluster |
//! | `items.rs` | rows that say of themselves what they are |
//! | `replicas.rs` | digests, leaders, files: what a cluster holds |
//! | `wait.rs` | polling |

pub mod command;
pub mod items;
pub mod replicas;
pub mod wait;

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
