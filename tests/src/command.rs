//! The command line against a cluster.

use std::process::Stdio;

use anyhow::{Context, ensure};
use stoa::local_cluster::LocalCluster;
use tokio::process::Command;

use crate::wait::LIMIT;

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Finished {
    /// Itself if it succeeded.
    pub fn succeeded(self) -> anyhow::Result<Self> {
        ensure!(self.code == Some(0), "it ended with {:?}\n{}\n{}", self.code, self.out, self.err);
        Ok(self)
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {}\n{}", self.out, self.err))
    }
}

/// A command of the program under test, with the cluster's addresses and certificates, in a zone. It dies with its
/// handle.
pub fn command(cluster: &LocalCluster, zone: &str, args: &[&str]) -> Command {
    let seeds: Vec<String> = cluster.seeds().iter().map(ToString::to_string).collect();
    let mut command = Command::new(&cluster.options().program);
    command
        .args(args)
        .current_dir(cluster.dir())
        .env("STOA_SEEDS", seeds.join(","))
        .env("STOA_CERTS", cluster.certs())
        .env("STOA_ZONE", zone)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub async fn run(cluster: &LocalCluster, args: &[&str]) -> anyhow::Result<Finished> {
    finish(command(cluster, "a", args)).await.with_context(|| format!("stoa {}", args.join(" ")))
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> anyhow::Result<Finished> {
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.with_context(|| format!("it did not end within {LIMIT:?}"))??;
    Ok(Finished {
        code: output.status.code(),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}
