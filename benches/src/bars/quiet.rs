//! P8: what partitions cost that nobody reads or writes, how soon a quiet one takes a write, and how soon all do after a node's death.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::time::{Duration, Instant};

use stoa::local_cluster::ZONES;

use super::big::{node_a, resident_bytes, shape};
use super::kills::{WRITABLE_LIMIT, all_writable};
use super::plan::Plan;
use crate::cpu;
use crate::fixture::FixtureOptions;
use crate::load::histogram;
use crate::machine::Cores;
use crate::profile::profile;
use crate::scene::Scene;
use crate::writes::{Writes, versions};

/// Quiet partitions that are written to, one after the other.
const FIRST_WRITES: usize = 100;
/// How long they may take, all together.
const FIRST_WRITES_LIMIT: Duration = Duration::from_secs(60);
/// What is left alone first, so that what the load caused is over.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a quiet node is profiled.
const PROFILED: Duration = Duration::from_secs(5);
/// Partitions of the cluster that the memory is compared with.
const FEW: u64 = 4;

/// What was found.
#[derive(Debug)]
pub struct Quiet {
    /// Partitions.
    pub partitions: u64,
    /// The largest share of a core that a node's process took.
    pub core: f64,
    /// Bytes of a node, and of a node with few partitions; neither holds rows.
    pub bytes: (u64, u64),
    /// How many those few are.
    pub few: u64,
    /// The first write to a quiet partition: the 99th percentile.
    pub first_write_p99: Duration,
    /// Until every partition took a write after a node was killed; [`WRITABLE_LIMIT`] if not within that.
    pub writable: Duration,
    /// What a node spent its time on while nothing was asked.
    pub profile: Vec<String>,
}

/// Measures it.
pub async fn measure(plan: Plan, cores: &Cores) -> anyhow::Result<Quiet> {
    let (partitions, time) = plan.quiet();
    let rows = (shape(), plan.few_rows());
    let few = Scene::with_nothing(FixtureOptions::new(FEW), cores, rows, async |fixture, _| {
        tokio::time::sleep(SETTLE).await;
        resident_bytes(fixture.cluster.process_id(node_a(fixture)?)?)
    })
    .await?;
    // So many groups may not become whole: that is what is to be seen.
    Scene::with_nothing(FixtureOptions::new(partitions), cores, rows, async |fixture, scene| {
        tokio::time::sleep(SETTLE).await;
        let node = node_a(fixture)?;
        let bytes = (resident_bytes(fixture.cluster.process_id(node)?)?, few);
        let processes = fixture.processes()?;
        let cpu_of = || processes.iter().map(|id| cpu::of_process(*id)).collect::<anyhow::Result<Vec<_>>>();
        let before = cpu_of()?;
        tokio::time::sleep(time).await;
        let after = cpu_of()?;
        let profile = profile(fixture.cluster.process_id(node)?, PROFILED).await;
        let most = after.iter().zip(&before).map(|(after, before)| *after - *before).max().unwrap_or_default();
        let mut first = histogram();
        let versions = versions();
        let writing = Instant::now();
        for (_, ids) in scene.by_partition.parts().iter().take(FIRST_WRITES) {
            if writing.elapsed() > FIRST_WRITES_LIMIT {
                break;
            }
            let start = Instant::now();
            let version = versions.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as i64;
            let write = Writes::one(&scene.clients[0], &scene.by_partition, scene.shape, ids[0].into(), version);
            // One that is not taken counts with the time for which it was tried.
            let _not_taken = write.await;
            first.saturating_record(start.elapsed().as_nanos() as u64);
        }
        let lost = Instant::now();
        fixture.cluster.kill(&[node]).await?;
        let client = &scene.clients[1 % ZONES.len()];
        let writable = all_writable(client, &scene.by_partition, scene, &versions, lost).await;
        Ok(Quiet {
            partitions,
            core: most.as_secs_f64() / time.as_secs_f64(),
            bytes,
            few: FEW,
            profile,
            first_write_p99: Duration::from_nanos(first.value_at_quantile(0.99)),
            writable: writable.unwrap_or(WRITABLE_LIMIT),
        })
    })
    .await
}
