//! Zones are cut from each other, in network namespaces: one zone from both others, in both directions or in one, and two
//! zones from each other while the third reaches both. Whoever is in the minority acknowledges nothing, the majority takes
//! writes, leaders stay where they can, and after the end of each cut all replicas are equal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stoa::local_cluster::{LocalCluster, LocalClusterOptions, ZONES};
use stoa_client::Client;
use stoa_env::QuicTransport;
use stoa_protocol::{FeatureGroup, PartitionId};
use stoa_tests::direct::Direct;
use stoa_tests::items::{GROUP, define, partition_of};
use stoa_tests::ledger::Ledger;
use stoa_tests::replicas::{leader, partitions, serves, terms};
use stoa_tests::wait::LIMIT;
use stoa_tests::zones::{ZoneNetwork, impossible};

const PARTITIONS: u64 = 4;
/// Batches that every partition acknowledges in each stage.
const BATCHES: u64 = 5;
/// Batches during which the leaders must stay, while two zones do not see each other: many times an election's wait.
const CALM_BATCHES: u64 = 500;
/// How far terms may rise meanwhile: a busy machine may lose a leader once.
const CALM_TERMS: u64 = 2;
/// Items that are written to the cut leader; those of the writers lie below.
const FIRST_DIRECT: i64 = 1_000;
/// Writes to the cut leader.
const DIRECT: usize = 5;
/// How long the cut leader is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all stages need.
struct Stage {
    network: ZoneNetwork,
    cluster: LocalCluster,
    client: Client<QuicTransport>,
    group: FeatureGroup,
    ledger: Arc<Ledger>,
    next_item: i64,
}

#[test]
fn zones_are_cut_from_each_other_and_joined_again() -> anyhow::Result<()> {
    if let Some(why) = impossible() {
        return stoa_tests::skip(&why);
    }
    let network = ZoneNetwork::new()?;
    network.enter()?;
    // One thread: a namespace is a thread's own, and sockets belong to that of the thread that makes them.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(all(network))
}

async fn all(network: ZoneNetwork) -> anyhow::Result<()> {
    let options = LocalClusterOptions {
        partitions: PARTITIONS,
        places: network.places(),
        ..LocalClusterOptions::new("cut_zones", env!("CARGO_BIN_EXE_stoa-under-test"))
    };
    let cluster = LocalCluster::start(options, LIMIT).await?;
    let mut clients = Vec::new();
    for zone in ZONES {
        clients.push(cluster.client(zone).await?);
    }
    define(&clients[0]).await?;
    let ledger = Arc::new(Ledger::default());
    let writers = ledger.start_writers(&clients);
    let client = clients.swap_remove(0);
    let group = client.group(GROUP).await?.definition().clone();
    let mut stage = Stage { network, cluster, client, group, ledger, next_item: FIRST_DIRECT };
    stage.progress(BATCHES).await?;
    stage.one_zone_is_cut("in both directions", |network, zone, other| network.cut(zone, other)).await?;
    stage.one_zone_is_cut("outward", |network, zone, other| network.cut_way(zone, other)).await?;
    stage.one_zone_is_cut("inward", |network, zone, other| network.cut_way(other, zone)).await?;
    stage.two_zones_do_not_see_each_other().await?;
    writers.abort_all();
    stage.ledger.judge(&stage.cluster).await
}

impl Stage {
    async fn progress(&self, batches: u64) -> anyhow::Result<()> {
        self.ledger.progress(&partitions(&self.client), batches).await
    }

    /// The zone of a leader is cut from both others.
    async fn one_zone_is_cut(
        &mut self,
        how: &str,
        cut: impl Fn(&ZoneNetwork, &str, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let partition = partitions(&self.client).pop_first().context("a cluster has a partition")?;
        let node = leader(&self.client, partition).await?;
        let zone = self.cluster.zone(node)?.to_owned();
        let direct = Direct::to(&self.cluster, &self.client, node)?;
        direct.connect().await?;
        for other in ZONES.into_iter().filter(|other| *other != zone) {
            cut(&self.network, &zone, other)?;
        }
        println!("zone {zone}, whose node leads partition {partition}, is cut {how}");
        // The leader can be reached, and reaches no quorum.
        for _ in 0..DIRECT {
            let item = self.item_of(partition)?;
            self.ledger.attempt(item, 1);
            match direct.write(&self.group, partition, item, 1, PATIENCE).await {
                Ok(answer) => bail!("node {node} is alone and acknowledges item {item}: {answer:?}"),
                Err(error) if error.excludes_it() => self.ledger.exclude(item),
                Err(_) => {}
            }
        }
        self.progress(BATCHES).await?;
        let now = leader(&self.client, partition).await?;
        ensure!(now != node, "node {node} still leads partition {partition} with the highest term");
        self.heal().await
    }

    async fn heal(&self) -> anyhow::Result<()> {
        self.network.heal()?;
        for node in self.cluster.nodes() {
            serves(&self.cluster, &self.client, node).await?;
        }
        self.progress(BATCHES).await
    }

    /// The first and the last zone are cut from each other; the one between them sees both.
    async fn two_zones_do_not_see_each_other(&self) -> anyhow::Result<()> {
        self.network.cut(ZONES[0], ZONES[2])?;
        self.progress(BATCHES).await?;
        // Leaders that were lost by the cut have been elected anew by now.
        let before = terms(&self.client).await?;
        self.progress(CALM_BATCHES).await?;
        let after = terms(&self.client).await?;
        println!("terms before and after {CALM_BATCHES} batches with two zones cut: {before:?} {after:?}");
        for (partition, term) in &after {
            let risen = term - before.get(partition).copied().unwrap_or(0);
            ensure!(risen <= CALM_TERMS, "partition {partition}: its term has risen by {risen}");
        }
        self.heal().await
    }

    /// A new item of a partition.
    fn item_of(&mut self, partition: PartitionId) -> anyhow::Result<i64> {
        loop {
            self.next_item += 1;
            if partition_of(&self.client, &self.group, self.next_item)? == partition {
                return Ok(self.next_item);
            }
        }
    }
}
