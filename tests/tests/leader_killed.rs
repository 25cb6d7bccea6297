//! The node that leads a partition is killed: writes go on in every partition, reads in every zone, and when the node is
//! back, all replicas are equal.

use anyhow::ensure;
use stoa::local_cluster::ZONES;
use stoa_client::Client;
use stoa_env::QuicTransport;
use stoa_protocol::Position;
use stoa_tests::items::{define, position, read, rows, writer};
use stoa_tests::replicas::{self, equal_digests, leader, partitions, serves};
use stoa_tests::start;

const PARTITIONS: u64 = 4;
const ITEMS: std::ops::Range<i64> = 0..200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_a_partition_is_killed_and_comes_back() -> anyhow::Result<()> {
    let mut cluster = start("leader_killed", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let mut clients = Vec::new();
    for zone in ZONES {
        clients.push(cluster.client(zone).await?);
    }
    define(&clients[0]).await?;
    let written = write_all(&clients[0], 1).await?;
    everybody_reads(&clients, 1, &written).await?;

    let partition = partitions(&clients[0]).pop_first().expect("a cluster has a partition");
    let killed = leader(&clients[0], partition).await?;
    cluster.kill(&[killed]).await?;
    let written = write_all(&clients[1], 2).await?;
    everybody_reads(&clients, 2, &written).await?;
    let written = write_all(&clients[2], 3).await?;
    everybody_reads(&clients, 3, &written).await?;

    cluster.start_node(killed)?;
    serves(&cluster, &clients[0], killed).await?;
    let digests = equal_digests(&clients[0]).await?;
    ensure!(replicas::rows(&digests) == ITEMS.count() as u64, "{digests:?}");
    everybody_reads(&clients, 3, &written).await
}

/// Writes every item; each partition must have taken its part.
async fn write_all(client: &Client<QuicTransport>, units: i64) -> anyhow::Result<Position> {
    let results = writer(client).await?.write_rows(&rows(ITEMS, units)).await?;
    let written = position(client, &results)?;
    let taken = written.parts().iter().map(|part| part.partition).collect();
    ensure!(partitions(client) == taken, "the items lie in {taken:?} alone");
    Ok(written)
}

/// A client of every zone must find what was written, its own zone's node lost or not.
async fn everybody_reads(clients: &[Client<QuicTransport>], units: i64, written: &Position) -> anyhow::Result<()> {
    let items: Vec<i64> = ITEMS.collect();
    for (client, zone) in clients.iter().zip(ZONES) {
        let found = read(client, &items, Some(written)).await?;
        let wrong: Vec<_> = found.iter().filter(|(_, found)| **found != units).collect();
        ensure!(wrong.is_empty(), "zone {zone} should read {units} everywhere, and reads {wrong:?}");
    }
    Ok(())
}
