//! Two of three nodes are killed: no write is acknowledged any more, each ends by itself within its deadline and says that
//! there is no quorum, reads go on from the node that is left, and when the others are back, writes go on by themselves.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stoa::local_cluster::ZONES;
use stoa_client::{Client, OnLostAnswer, WriteError, WriterOptions};
use stoa_env::QuicTransport;
use stoa_protocol::{ErrorClass, ErrorCode};
use stoa_tests::direct::{Direct, DirectError};
use stoa_tests::items::{GROUP, define, partition_of, position, read, rows, writer};
use stoa_tests::replicas::{equal_digests, leader, partitions, serves};
use stoa_tests::start;
use stoa_tests::wait::{LIMIT, until};

const PARTITIONS: u64 = 4;
const ITEMS: std::ops::Range<i64> = 0..100;
/// The deadline of writes that cannot be taken.
const DEADLINE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_node_of_three_nothing_is_acknowledged_and_reads_go_on() -> anyhow::Result<()> {
    let mut cluster = start("two_killed", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let admin = cluster.client(ZONES[0]).await?;
    define(&admin).await?;
    let written = position(&admin, &writer(&admin).await?.write_rows(&rows(ITEMS, 1)).await?)?;
    // All have all: from now on any node can answer for itself.
    equal_digests(&admin).await?;

    // The one that is left leads a partition, and must notice that it does no more.
    let partition = partitions(&admin).pop_first().context("a cluster has a partition")?;
    let left = leader(&admin, partition).await?;
    let client = cluster.client(cluster.zone(left)?).await?;
    let group = client.group(GROUP).await?;
    let definition = group.definition().clone();
    let item = ITEMS.map(|item| Ok((item, partition_of(&client, &definition, item)?)));
    let item = item.collect::<anyhow::Result<Vec<_>>>()?.into_iter().find(|(_, of)| *of == partition);
    let (item, _) = item.context("every partition has an item")?;
    let killed: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != left).collect();
    cluster.kill(&killed).await?;

    let options =
        WriterOptions { deadline: DEADLINE, on_lost_answer: OnLostAnswer::Resend, ..WriterOptions::default() };
    let refused = group.writer(&["units", "note"], options)?;
    let results = tokio::time::timeout(LIMIT, refused.write_rows(&rows(ITEMS, 2))).await;
    for batch in results.context("a write did not end")?? {
        match batch.result {
            Err(error @ (WriteError::NotTaken { .. } | WriteError::OutcomeUnknown { .. })) => {
                ensure!(error.class() == ErrorClass::Retry, "{error}");
            }
            Err(error) => bail!("{}: {error}", batch.partition),
            Ok(_) => bail!("partition {}: a batch was acknowledged by one node of three", batch.partition),
        }
    }
    let direct = Direct::to(&cluster, &client, left)?;
    until("a leader that says that it has no quorum", async || {
        match direct.write(&definition, partition, item, 3, DEADLINE).await {
            Err(DirectError::Refused(error)) if error.code == ErrorCode::NoQuorum => Ok(()),
            other => bail!("node {left}, which led partition {partition}, says {other:?}"),
        }
    })
    .await?;
    // Of the rows of the second writing none may show: without a quorum nothing is committed.
    everything_is_read(&client, None, 1).await?;
    everything_is_read(&client, Some(&written), 1).await?;

    for node in &killed {
        cluster.start_node(*node)?;
    }
    let written = position(&client, &writer(&client).await?.write_rows(&rows(ITEMS, 4)).await?)?;
    for node in cluster.nodes() {
        serves(&cluster, &client, node).await?;
    }
    equal_digests(&client).await?;
    for zone in ZONES {
        everything_is_read(&cluster.client(zone).await?, Some(&written), 4).await?;
    }
    Ok(())
}

async fn everything_is_read(
    client: &Client<QuicTransport>,
    at_least: Option<&stoa_protocol::Position>,
    units: i64,
) -> anyhow::Result<()> {
    let found = read(client, &ITEMS.collect::<Vec<_>>(), at_least).await?;
    let wrong: Vec<_> = found.iter().filter(|(_, found)| **found != units).collect();
    ensure!(wrong.is_empty(), "{units} were wanted everywhere: {wrong:?}");
    Ok(())
}
