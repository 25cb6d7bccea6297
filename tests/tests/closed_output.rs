//! Nobody reads what a command prints (`stoa status | head -1`): it ends in order, and does not panic.

use std::process::Stdio;

use anyhow::ensure;
use stoa::local_cluster::ZONES;
use stoa_tests::command::command;
use stoa_tests::items::{VIEW, catalog, define};
use stoa_tests::replicas::serves;
use stoa_tests::start;
use stoa_tests::wait::LIMIT;

const PARTITIONS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_output_nobody_reads_ends_in_order() -> anyhow::Result<()> {
    let cluster = start("closed_output", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    for node in cluster.nodes() {
        serves(&cluster, &client, node).await?;
    }
    let file = cluster.dir().join("items.csv");
    std::fs::write(&file, "item_id,event_time,units\n1,2023-11-14T22:13:20Z,1\n")?;
    let (file, catalog) = (file.display().to_string(), catalog().display().to_string());
    let commands: [&[&str]; 7] = [
        &["status"],
        &["status", "--json"],
        &["get", VIEW, "item_id=1,2", "--deadline-ms", "20000"],
        &["get", VIEW, "item_id=1,2", "--deadline-ms", "20000", "--json"],
        &["apply", "-f", &catalog],
        &["load", "shop/item_stock@1", &file],
        &["load", "shop/item_stock@1", &file, "--json"],
    ];
    for args in commands {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = command(&cluster, ZONES[0], args);
        command.stdout(Stdio::from(writer));
        // Not `output`, which would read after all.
        let output = tokio::time::timeout(LIMIT, command.spawn()?.wait_with_output()).await??;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(0) && said.is_empty(), "stoa {args:?}: {}: {said}", output.status);
    }
    Ok(())
}
