//! `stoa demo`: what Stoa is for, in half a minute. A cluster of three zones with two nodes each, as real processes with
//! real sockets, certificates and files; real retail features; a ranking service's requests on a schedule that does not
//! wait for answers; one zone killed half way; and at the end the proof that nothing was lost and nothing was wrong.

mod report;
pub mod shop;
pub mod truth;
mod workload;
mod writers;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use stoa_client::Client;
use stoa_env::{Clock, QuicTransport, RealClock};
use stoa_protocol::{ClusterMap, PartitionId};

use crate::cli::say;
use crate::local_cluster::{Files, LocalCluster, LocalClusterOptions, ZONES};
use report::Report;
use shop::find_data;
use truth::Truth;
use workload::{Phases, Workload};
use writers::Writers;

/// The zone that is lost.
const LOST_ZONE: &str = "a";
/// How long forming the cluster may take.
const FORM_LIMIT: Duration = Duration::from_secs(60);
/// How long all replicas may take to be equal after the run.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Shows what Stoa is for.
#[derive(Debug, Args)]
pub struct DemoCommand {
    /// How long the ranking workload runs; the zone is killed half way.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(12..=3_600))]
    seconds: u64,
    /// Requests a second, on a schedule that does not wait for answers.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,
    /// Partitions of the cluster.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=256))]
    partitions: u64,
    /// The directory with the demo's catalog and data.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Keep the cluster's files, and say where they are.
    #[arg(long)]
    keep: bool,
}

impl DemoCommand {
    /// Runs the demo; exit status 1 if a read failed, a value differed or digests differ.
    pub async fn run(self) -> anyhow::Result<u8> {
        let data = find_data(self.data.as_deref())?;
        let mut cluster = LocalCluster::start(self.cluster()?, FORM_LIMIT).await?;
        let result = self.run_on(&mut cluster, &data).await;
        if result.is_err() {
            progress(&cluster.last_words());
        }
        cluster.stop().await;
        let report = result?;
        match self.json {
            true => say(&report.json().to_string())?,
            false => say(&report.table().to_string())?,
        }
        Ok(u8::from(!report.holds()))
    }

    fn cluster(&self) -> anyhow::Result<LocalClusterOptions> {
        Ok(LocalClusterOptions {
            nodes_per_zone: 2,
            partitions: self.partitions,
            files: if self.keep { Files::Keep } else { Files::Remove },
            ..LocalClusterOptions::new("demo", std::env::current_exe()?)
        })
    }

    async fn run_on(&self, cluster: &mut LocalCluster, data: &Path) -> anyhow::Result<Report> {
        let mut clients = Vec::new();
        for zone in ZONES {
            clients.push(cluster.client(zone).await?);
        }
        let admin = clients[0].clone();
        let map = admin.map();
        progress(&format!(
            "{} nodes in {} zones formed a cluster of {} partitions, each with a voter in every zone",
            map.nodes.len(),
            ZONES.len(),
            map.sets.iter().map(|set| set.partitions.len()).sum::<usize>()
        ));
        let mut report = Report::new(self.rate, self.seconds);
        let start = RealClock.boot();
        report.rows_loaded = shop::load_shop(&admin, data).await?;
        report.load_seconds = RealClock.boot().since(start).as_secs_f64();
        progress(&format!("{} rows loaded, {:.0} rows/s", report.rows_loaded, report.rows_per_s()));
        let truth = Arc::new(Truth::read(&admin, data).await?);
        let start = RealClock.boot();
        let half = Duration::from_secs(self.seconds) / 2;
        // The zone is away for at least the five seconds that are judged by themselves.
        let away = (Duration::from_secs(self.seconds) / 4).max(Duration::from_millis(5_500));
        let phases = Phases { start, loss: start.plus(half), back: start.plus(half + away) };
        let writers = Writers::start(&clients, truth.clone()).await?;
        let workload = Workload::start(&clients, truth.clone(), phases, self.rate, self.seconds).await?;
        progress(&format!(
            "{} requests/s: one household and 100 candidate products each, {} features a row",
            self.rate,
            truth.features()
        ));
        sleep_until(phases.loss).await;
        progress(&format!("zone {LOST_ZONE} is gone: kill -9 of its processes"));
        let killed = RealClock.boot();
        cluster.kill_zone(LOST_ZONE).await?;
        let gone = RealClock.boot();
        sleep_until(phases.back).await;
        progress(&format!("zone {LOST_ZONE} starts again"));
        cluster.start_zone(LOST_ZONE)?;
        workload.finish(&mut report).await?;
        let acknowledged = writers.finish(killed, gone, &mut report).await;
        settle(&admin, &map, &mut report).await;
        truth.compare_acknowledged(&clients, &acknowledged, &mut report).await?;
        Ok(report)
    }
}

/// Waits until all three replicas of every partition have equal digests at equal positions.
async fn settle(client: &Client<QuicTransport>, map: &ClusterMap, report: &mut Report) {
    let start = RealClock.boot();
    let mut open: Vec<PartitionId> = map.sets.iter().flat_map(|set| &set.partitions).map(|p| p.id).collect();
    report.partitions = open.len();
    let limit = Duration::from_secs(2);
    while !open.is_empty() && RealClock.boot().since(start) < SETTLE_LIMIT {
        let mut still = Vec::new();
        for id in open {
            let replicas = map.partition(id).map(|p| p.replicas.clone()).unwrap_or_default();
            let mut digests = Vec::new();
            for replica in &replicas {
                digests.push(client.digest(replica.node, id, limit).await.ok());
            }
            let equal = digests.iter().all(|d| d.is_some() && *d == digests[0]);
            match equal {
                true => report.digests.push((id, digests[0].clone().expect("all of them are there"))),
                false => still.push(id),
            }
        }
        open = still;
        if !open.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    report.digests_open = open;
    report.settled_ms = RealClock.boot().since(start).as_millis() as u64;
}

async fn sleep_until(when: stoa_env::BootTime) {
    tokio::time::sleep(when.since(RealClock.boot())).await;
}

/// Tells how far the demo is. Nobody reading on is no fault.
fn progress(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}
