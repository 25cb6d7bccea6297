//! A cluster with rows in it: what most measurements begin with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use stoa::local_cluster::ZONES;
use stoa_client::ReadOptions;

use crate::cpu;
use crate::fixture::{BenchClient, BenchTransport, Fixture, FixtureOptions};
use crate::health::{Behind, wait_until};
use crate::machine::{Cores, Place};
use crate::rows::Picks;
use crate::workload::{Keys, Reads, Shape};
use crate::writes::{Load, RowsByPartition};

/// How long the zones may take to have all rows that were loaded.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Rows that are looked for in each zone after the load.
const LOOKED_FOR: usize = 1_000;
/// After writes the nodes are looked at so often, for so long each time, until they take less than this share of a core.
const QUIET_LOOKS: usize = 40;
const QUIET_LOOK: Duration = Duration::from_secs(1);
const QUIET_SHARE: f64 = 0.6;
/// How long a read that nobody times may take.
const PATIENT: Duration = Duration::from_secs(10);

/// Rows of one shape in a cluster.
pub struct Scene {
    /// What they look like.
    pub shape: Shape,
    /// How many there are.
    pub rows: u64,
    /// Where they lie.
    pub by_partition: Arc<RowsByPartition>,
    /// A client in each zone, in the order of [`ZONES`].
    pub clients: Vec<BenchClient>,
    /// How long the load took.
    pub load_time: Duration,
}

impl Scene {
    /// Starts a cluster, loads it, waits until it is whole, and measures on it; the nodes may use all cores while they are
    /// loaded.
    pub async fn with<R>(
        options: FixtureOptions,
        cores: &Cores,
        (shape, rows): (Shape, u64),
        measure: impl AsyncFnOnce(&mut Fixture, &Scene) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let measure = async |fixture: &mut Fixture| {
            let mut scene = Self::open(fixture, shape, rows).await?;
            scene.load(fixture, cores).await?;
            wait_until(fixture, Behind::Nothing, SETTLE_LIMIT).await.context("after the load")?;
            scene.wait_until_quiet(fixture).await?;
            scene.settle().await?;
            measure(fixture, &scene).await
        };
        Fixture::with(options, cores, measure).await
    }

    /// Starts a cluster and measures on it, with no rows in it, and whether it is whole or not.
    pub async fn with_nothing<R>(
        options: FixtureOptions,
        cores: &Cores,
        (shape, rows): (Shape, u64),
        measure: impl AsyncFnOnce(&mut Fixture, &Scene) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let measure = async |fixture: &mut Fixture| {
            let scene = Self::open(fixture, shape, rows).await?;
            measure(fixture, &scene).await
        };
        Fixture::with(options, cores, measure).await
    }

    /// Waits until the nodes have done what writes left them to do, such as snapshots: until they take less than a core
    /// together, or the time is over, as it is where heartbeats alone take as much.
    pub async fn wait_until_quiet(&self, fixture: &Fixture) -> anyhow::Result<()> {
        quiet(&fixture.processes()?).await
    }

    /// Clients, and the definitions of the rows.
    async fn open(fixture: &Fixture, shape: Shape, rows: u64) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for zone in ZONES {
            clients.push(fixture.client(zone).await?);
        }
        shape.define(&clients[0]).await?;
        let by_partition = Arc::new(RowsByPartition::of(&clients[0], rows).await?);
        Ok(Self { shape, rows, by_partition, clients, load_time: Duration::ZERO })
    }

    #[allow(clippy::disallowed_methods)] // a measurement is in true time
    async fn load(&mut self, fixture: &Fixture, cores: &Cores) -> anyhow::Result<()> {
        let nodes = fixture.processes()?;
        nodes.iter().try_for_each(|node| cores.place(*node, Place::All))?;
        let start = Instant::now();
        Load::run(&self.clients[0], self.by_partition.clone(), self.shape).await?;
        self.load_time = start.elapsed();
        nodes.iter().try_for_each(|node| cores.place(*node, Place::First))
    }

    /// Reads of the rows through the client of a zone.
    pub async fn reads(&self, zone: usize, keys: Keys, options: ReadOptions) -> anyhow::Result<Reads<BenchTransport>> {
        Reads::new(&self.clients[zone], self.shape, keys, options).await
    }

    /// Waits until every zone has what was loaded: some rows of all partitions, by its own replica or by another's.
    #[allow(clippy::disallowed_methods)] // a measurement is in true time
    async fn settle(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let options = ReadOptions { deadline: PATIENT, ..ReadOptions::default() };
        let ids: Vec<u64> = Picks::new(11, self.rows).take(LOOKED_FOR).collect();
        for (zone, name) in ZONES.iter().enumerate() {
            let reads = self.reads(zone, Keys::Uniform(self.rows), options.clone()).await?;
            loop {
                let answer = reads.get(&ids).await.map_err(|error| anyhow::anyhow!("{error}"))?;
                match self.shape.compare(&ids, &answer) {
                    Ok(()) => break,
                    Err(what) => ensure!(start.elapsed() < SETTLE_LIMIT, "zone {name} has not all rows: {what}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Rows a second, as they were loaded.
    pub fn load_rate(&self) -> f64 {
        self.rows as f64 / self.load_time.as_secs_f64()
    }
}

async fn quiet(nodes: &[u32]) -> anyhow::Result<()> {
    let all = || nodes.iter().map(|node| cpu::of_process(*node)).sum::<anyhow::Result<Duration>>();
    for _ in 0..QUIET_LOOKS {
        let before = all()?;
        tokio::time::sleep(QUIET_LOOK).await;
        if all()? - before < QUIET_LOOK.mul_f64(QUIET_SHARE) {
            break;
        }
    }
    Ok(())
}

/// Parses times such as `500us` or `0.5ms`.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let split = units.iter().find_map(|(unit, s)| Some((text.strip_suffix(unit)?, s)));
    let parsed = split.context("no unit").and_then(|(number, s)| Ok(number.trim().parse::<f64>()? * s));
    match parsed {
        Ok(seconds) if (0.0..60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{text:?} is no time below a minute; write it as 500us, 0.5ms or 1s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bad_ones_are_told_what_would_be_right() {
        assert_eq!(parse_time("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(parse_time("0.5ms"), Ok(Duration::from_micros(500)));
        assert_eq!(parse_time("1s"), Ok(Duration::from_secs(1)));
        for bad in ["5", "ms", "-1ms", "99s", "NaNs"] {
            assert!(parse_time(bad).is_err_and(|why| why.contains("write it as")), "{bad}");
        }
    }
}
