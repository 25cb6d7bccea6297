//! A cluster of real processes for a measurement, one node in each of three zones, and clients in its zones.
//!
//! Nodes are this same program (`stoa-bench node`), which is the node of `stoa node` with the ways between zones around what it
//! sends; where zones are together, messages go straight through.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use stoa::local_cluster::{LocalCluster, LocalClusterOptions, ZONES};
use stoa_client::Client;
use stoa_env::{Bounds, OsEntropy, QuicOptions, QuicTransport, RealClock};
use stoa_protocol::message::Caller;

use crate::counted::{Counted, Counts};
use crate::directed::Directed;
use crate::machine::Cores;
use crate::zones::{Delayed, ZonePlan};

/// How long forming the cluster may take; with a thousand partitions it is their elections.
const FORM_LIMIT: Duration = Duration::from_secs(120);

/// What clients of a measurement send through.
pub type BenchTransport = Counted<Directed<Delayed<QuicTransport>>>;

/// A client of a measurement.
pub type BenchClient = Client<BenchTransport>;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct FixtureOptions {
    /// Partitions of the default set.
    pub partitions: u64,
    /// How long a message between zones takes, one way, and at most how much more or less.
    pub way: (Duration, Duration),
    /// Further lines of each node's configuration.
    pub config: String,
}

impl FixtureOptions {
    /// Zones that are together.
    pub fn new(partitions: u64) -> Self {
        Self { partitions, way: Default::default(), config: String::new() }
    }

    /// Zones that are so far apart, one way, give or take a jitter.
    pub fn apart(self, way: Duration, jitter: Duration) -> Self {
        Self { way: (way, jitter), ..self }
    }
}

/// A cluster that runs.
pub struct Fixture {
    /// Its processes. Nodes are started by [`start_node`](Self::start_node), on the servers' core.
    pub cluster: LocalCluster,
    plan: ZonePlan,
    cores: Cores,
}

impl Fixture {
    /// Starts the nodes on the first core and moves this thread to the second.
    pub async fn start(options: FixtureOptions, cores: &Cores) -> anyhow::Result<Self> {
        let program: PathBuf = std::env::current_exe()?;
        let base = LocalClusterOptions::new("bench", program);
        let config = format!("{}{}", base.config, options.config);
        let mut cluster =
            LocalCluster::prepare(LocalClusterOptions { partitions: options.partitions, config, ..base })?;
        let mut plan = ZonePlan::together();
        plan.one_way_us = options.way.0.as_micros() as u64;
        plan.jitter_us = options.way.1.as_micros() as u64;
        for node in cluster.nodes() {
            plan.zones.insert(cluster.addr(node)?, cluster.zone(node)?.to_owned());
        }
        let file = cluster.dir().join("zones.json");
        plan.save(&file)?;
        cluster.set_node_args(["--zones".into(), file.into_os_string()]);
        cores.go_to_servers()?;
        let started = cluster.start_all(FORM_LIMIT).await;
        cores.go_to_load()?;
        started?;
        Ok(Self { cluster, plan, cores: cores.clone() })
    }

    /// Runs `measure` and stops the cluster; if it fails, the ends of the nodes' logs are printed.
    pub async fn with<R>(
        options: FixtureOptions,
        cores: &Cores,
        measure: impl AsyncFnOnce(&mut Fixture) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let mut fixture = Self::start(options, cores).await?;
        let result = measure(&mut fixture).await;
        if result.is_err() {
            eprintln!("{}", fixture.cluster.last_words());
        }
        fixture.cluster.stop().await;
        result
    }

    /// Starts a node again that was killed or has ended, on the core that it was on.
    pub fn start_node(&mut self, node: u64) -> anyhow::Result<()> {
        self.cores.go_to_servers()?;
        let started = self.cluster.start_node(node);
        self.cores.go_to_load()?;
        started
    }

    /// A client in a zone.
    pub async fn client(&self, zone: &str) -> anyhow::Result<BenchClient> {
        Ok(self.counted_client(zone).await?.0)
    }

    /// A client in a zone, and what it counts.
    pub async fn counted_client(&self, zone: &str) -> anyhow::Result<(BenchClient, Arc<Counts>)> {
        self.connect(zone, zone, None).await
    }

    /// A client in zone `here` that asks the replicas of zone `there` first.
    pub async fn client_of(&self, here: &str, there: &str) -> anyhow::Result<BenchClient> {
        Ok(self.connect(here, there, None).await?.0)
    }

    /// A client in a node's zone that asks this node alone.
    pub async fn client_of_node(&self, node: u64) -> anyhow::Result<BenchClient> {
        Ok(self.counted_client_of_node(node).await?.0)
    }

    /// A client in a node's zone that asks this node alone, and what it counts.
    pub async fn counted_client_of_node(&self, node: u64) -> anyhow::Result<(BenchClient, Arc<Counts>)> {
        let zone = self.cluster.zone(node)?;
        self.connect(zone, zone, Some(self.cluster.addr(node)?)).await
    }

    async fn connect(
        &self,
        here: &str,
        nearest: &str,
        only: Option<SocketAddr>,
    ) -> anyhow::Result<(BenchClient, Arc<Counts>)> {
        let bounds = Bounds::default();
        let options = QuicOptions { bounds: bounds.clone(), ..QuicOptions::default() };
        let quic = QuicTransport::client_only(self.cluster.client_credentials()?, options)?;
        let transport = Counted::new(Directed::new(Delayed::new(quic, self.plan.clone(), here)?, only));
        let counts = transport.counts();
        let caller = Caller { project: self.cluster.options().project.clone(), principal: String::new() };
        let (clock, entropy) = (Arc::new(RealClock), Arc::new(OsEntropy));
        let seeds = only.map_or_else(|| self.cluster.seeds(), |only| vec![only]);
        Ok((Client::counted(transport, seeds, nearest, caller, clock, entropy, bounds).await?, counts))
    }

    /// The node of a zone.
    pub fn node_in(&self, zone: &str) -> anyhow::Result<u64> {
        let nodes = self.cluster.nodes();
        let found = nodes.into_iter().find(|node| self.cluster.zone(*node).is_ok_and(|there| there == zone));
        found.with_context(|| format!("the cluster has no node in zone {zone}"))
    }

    /// The place of a node's zone among [`ZONES`].
    pub fn zone_index(&self, node: u64) -> anyhow::Result<usize> {
        let zone = self.cluster.zone(node)?;
        ZONES.iter().position(|known| *known == zone).with_context(|| format!("zone {zone} is none of {ZONES:?}"))
    }

    /// The numbers of all nodes' processes.
    pub fn processes(&self) -> anyhow::Result<Vec<u32>> {
        self.cluster.nodes().into_iter().map(|node| self.cluster.process_id(node)).collect()
    }
}
