//! Nobody reads what a node says: its standard error is a pipe that has been full since before it started. It serves, and
//! it ends when it is asked to.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use stoa::local_cluster::{LocalCluster, LocalClusterOptions, Place, ZONES};
use stoa_tests::items::define;
use stoa_tests::ledger::Ledger;
use stoa_tests::replicas::{partitions, serves};
use stoa_tests::wait::LIMIT;

const PARTITIONS: u64 = 4;
/// The zone whose node is not read, and the node.
const UNREAD: (&str, u64) = (ZONES[2], 3);
/// Batches that every partition must take.
const BATCHES: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_standard_error_nobody_reads_serves_and_ends() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("unread");
    let _full = full_pipe(&pipe)?;
    // It says all that it can say, so that no part of it gets by without a word.
    let path = pipe.to_str().context("the path is UTF-8")?;
    let script = format!("STOA_LOG=trace exec \"$@\" 2>'{path}'");
    let launch = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let options = LocalClusterOptions {
        partitions: PARTITIONS,
        places: [(UNREAD.0.to_owned(), Place { launch, ..Place::default() })].into(),
        ..LocalClusterOptions::new("blocked_stderr", env!("CARGO_BIN_EXE_stoa-under-test"))
    };
    let mut cluster = LocalCluster::start(options, LIMIT).await?;
    let client = cluster.client(UNREAD.0).await?;
    define(&client).await?;
    serves(&cluster, &client, UNREAD.1).await?;
    // With one of the others gone, nothing is acknowledged without it.
    cluster.kill(&[1]).await?;
    let ledger = Arc::new(Ledger::default());
    let writers = ledger.start_writers(std::slice::from_ref(&client));
    ledger.progress(&partitions(&client), BATCHES).await?;
    writers.abort_all();
    cluster.start_node(1)?;
    ledger.judge(&cluster).await?;
    let status = cluster.terminate(UNREAD.1, LIMIT).await?;
    ensure!(status.success(), "it was asked to end, and ended with {status}");
    Ok(())
}

/// A named pipe without room for one byte more, for as long as the file is held.
fn full_pipe(path: &Path) -> anyhow::Result<std::fs::File> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let mut options = std::fs::File::options();
    let mut pipe = options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    loop {
        // One by one: a larger piece may not fit where a smaller one would.
        match pipe.write(b"x") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(pipe),
            Err(error) => bail!(error),
        }
    }
}
