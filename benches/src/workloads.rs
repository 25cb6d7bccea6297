//! Every workload through the public client, against clusters of local processes: its peak by a closed loop, its latencies by an
//! open one at half of that. `stoa-bench workloads` prints them; `smoke` runs each for a second and looks at the answers alone.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use stoa::local_cluster::ZONES;
use stoa_client::ReadOptions;

use crate::fixture::{BenchTransport, Fixture, FixtureOptions};
use crate::load::{Pace, Schedule, Service, Summary, closed_loop, open_loop};
use crate::machine::{self, Cores};
use crate::measure::{Measured, closed, micros, open};
use crate::process::{interruptible, say};
use crate::ranking::Ranking;
use crate::report::figures::runs_table;
use crate::report::model::{Report, Run};
use crate::rows::Zipf;
use crate::scene::{Scene, parse_time};
use crate::workload::{Keys, Reads, Shape, Workload};
use crate::writes::{PreparedWrites, Writes, versions};
use crate::ycsb::{self, Ycsb};

/// Rows of a request, in the workload `batch`.
const BATCHES: [usize; 6] = [1, 10, 100, 250, 500, 1_000];
/// Requests under way at once.
const CALLERS: usize = 32;
/// Writes under way at once, and rows of each, where all that can be written is written.
const WRITERS: usize = 16;
const WRITE_ROWS: usize = 1_000;
/// How long an answer may take before it has failed: long, since what is slow here is slow, and not missing.
const DEADLINE: Duration = Duration::from_secs(20);
/// Shares of reads in the workloads of YCSB, in percent.
const YCSB: [(&str, u64); 3] = [("A", 50), ("B", 95), ("C", 100)];
/// A second cluster of rows of 500 features has so many times fewer of them.
const WIDE_DIVISOR: u64 = 10;

/// Sizes.
#[derive(Debug, Clone, Copy, Args)]
pub struct Sizes {
    /// Rows of a cluster; of the widest workload a tenth of them.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(5_000..=50_000_000))]
    pub rows: u64,
    /// How long each workload is measured in each of its two loops.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Partitions of the cluster.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub partitions: u64,
    /// How long a message between zones takes, one way, give or take a tenth: zones are emulated so far apart.
    #[arg(long, default_value = "0.5ms", value_parser = parse_time)]
    pub one_way: Duration,
}

/// Measures every workload.
#[derive(Debug, Args)]
pub struct WorkloadsCommand {
    #[command(flatten)]
    sizes: Sizes,
    /// Write all figures there, as JSON.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

impl WorkloadsCommand {
    /// Runs it. Exit status 1 if a workload is void.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let cores = Cores::of_this_process()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let runs = runtime.block_on(interruptible(measure(self.sizes, &cores)))?;
        let report = Report {
            run: "workloads".to_owned(),
            machine: machine::describe(&cores),
            options: json!({
                "rows": self.sizes.rows, "seconds": self.sizes.seconds, "partitions": self.sizes.partitions,
                "one_way_us": self.sizes.one_way.as_micros() as u64, "optimised": !cfg!(debug_assertions),
            }),
            day: machine::today(),
            runs,
            ..Report::default()
        };
        if let Some(file) = &self.json {
            report.save(file)?;
        }
        say(&runs_table(&report).terminal());
        let void = report.runs.iter().any(|run| run.void.is_some());
        Ok(if void { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Measures every workload.
pub async fn measure(sizes: Sizes, cores: &Cores) -> anyhow::Result<Vec<Run>> {
    let options = || FixtureOptions::new(sizes.partitions).apart(sizes.one_way, sizes.one_way / 10);
    let rows = sizes.rows;
    let vectors = (Workload::Vectors.shape(0), rows);
    let mut runs = Scene::with(options(), cores, vectors, async |f, scene| narrow(sizes, f, scene).await).await?;
    for (workload, rows) in [(Workload::Wide, rows / WIDE_DIVISOR), (Workload::Embeddings, rows)] {
        let shape = workload.shape(0);
        let run = Scene::with(options(), cores, (shape, rows), async |fixture, scene| {
            let name = format!("{workload:?}").to_lowercase();
            reads(sizes, fixture, scene, &name, shape, Keys::Uniform(scene.rows)).await
        });
        runs.push(run.await?);
    }
    let ycsb = Scene::with(options(), cores, (ycsb::SHAPE, rows), async |f, scene| ycsb_all(sizes, f, scene).await);
    runs.extend(ycsb.await?);
    let ranking = Fixture::with(options(), cores, async |fixture| {
        let client = fixture.client(ZONES[0]).await?;
        let options = ReadOptions { deadline: DEADLINE, ..ReadOptions::default() };
        let ranking = Arc::new(Ranking::load(&client, None, options).await?);
        both(sizes, fixture, "ranking", ranking, crate::ranking::PRODUCTS).await
    });
    runs.push(ranking.await?);
    Ok(runs)
}

/// What is read and written of rows of 48 features.
async fn narrow(sizes: Sizes, fixture: &Fixture, scene: &Scene) -> anyhow::Result<Vec<Run>> {
    let (uniform, mut runs) = (Keys::Uniform(scene.rows), Vec::new());
    let zipf = Keys::Zipf(Zipf::new(scene.rows, ycsb::THETA));
    runs.push(reads(sizes, fixture, scene, "vectors", scene.shape, uniform).await?);
    runs.push(reads(sizes, fixture, scene, "vectors, Zipf keys", scene.shape, zipf).await?);
    runs.push(reads(sizes, fixture, scene, "point", Workload::Point.shape(0), uniform).await?);
    for batch in BATCHES {
        let shape = Workload::Batch.shape(batch);
        runs.push(reads(sizes, fixture, scene, &format!("batch of {batch}"), shape, uniform).await?);
    }
    let versions = versions();
    let time = Duration::from_secs(sizes.seconds);
    let writes = Writes::new(&scene.clients[0], scene.by_partition.clone(), scene.shape, WRITE_ROWS, versions.clone());
    let ingest = closed_loop(Arc::new(writes), WRITERS, time / 5, time).await;
    runs.push(run_of(&format!("ingest, batches of {WRITE_ROWS}"), &ingest, WRITE_ROWS, Loop::Closed));
    let service = Arc::new(service(scene, scene.shape, uniform).await?);
    let schedule = Schedule { rate: 200, warm_up: time / 5, measured: time };
    // Made before: the reads would wait for their making.
    let writes = PreparedWrites::new(&scene.clients[0], &scene.by_partition, scene.shape, WRITE_ROWS, &versions);
    let ingest = closed_loop(Arc::new(writes), WRITERS, time / 5, time);
    let (read, written) = tokio::join!(open_loop(service, schedule, Pace::Timer), ingest);
    runs.push(run_of("vectors beside full ingest", &read, scene.shape.rows, Loop::Open));
    runs.push(run_of("ingest beside vectors", &written, WRITE_ROWS, Loop::Closed));
    Ok(runs)
}

async fn service(scene: &Scene, shape: Shape, keys: Keys) -> anyhow::Result<Reads<BenchTransport>> {
    let options = ReadOptions { deadline: DEADLINE, ..ReadOptions::default() };
    Reads::new(&scene.clients[0], shape, keys, options).await
}

async fn reads(
    sizes: Sizes,
    fixture: &Fixture,
    scene: &Scene,
    name: &str,
    shape: Shape,
    keys: Keys,
) -> anyhow::Result<Run> {
    both(sizes, fixture, name, Arc::new(service(scene, shape, keys).await?), shape.rows).await
}

async fn ycsb_all(sizes: Sizes, fixture: &Fixture, scene: &Scene) -> anyhow::Result<Vec<Run>> {
    let (zipf, versions, mut runs) = (Zipf::new(scene.rows, ycsb::THETA), versions(), Vec::new());
    for (name, read_percent) in YCSB {
        let service = Ycsb {
            reads: service(scene, scene.shape, Keys::Zipf(zipf)).await?,
            client: scene.clients[0].clone(),
            rows: scene.by_partition.clone(),
            zipf,
            read_percent,
            versions: versions.clone(),
        };
        let name = format!("YCSB {name}, {read_percent} % reads");
        runs.push(both(sizes, fixture, &name, Arc::new(service), 1).await?);
    }
    Ok(runs)
}

/// The peak by a closed loop, the latencies at half of it by an open one.
async fn both<S: Service>(
    sizes: Sizes,
    fixture: &Fixture,
    name: &str,
    service: Arc<S>,
    rows: usize,
) -> anyhow::Result<Run> {
    let time = Duration::from_secs(sizes.seconds);
    let server = fixture.cluster.process_id(fixture.node_in(ZONES[0])?)?;
    let peak: Measured = closed(service.clone(), CALLERS, time, &[server]).await?;
    let rate = (peak.summary.rate / 2.0).max(1.0) as u32;
    let calm = open(service, Schedule { rate, warm_up: time / 5, measured: time }, &[server]).await?;
    let mut run = run_of(name, &calm.summary, rows, Loop::Open);
    run.rate = peak.summary.rate;
    run.rows_per_s = peak.summary.rate * rows as f64;
    run.void = run.void.or(reason(&peak.summary));
    run.more.insert("nearest_node_us_per_request".to_owned(), peak.server_us());
    run.more.insert("nearest_node_share_of_core".to_owned(), peak.server);
    run.more.insert("client_share_of_core".to_owned(), peak.client);
    Ok(run)
}

/// How requests came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loop {
    /// By a schedule.
    Open,
    /// Each when one before it had ended: latencies would hide stalls.
    Closed,
}

fn run_of(name: &str, summary: &Summary, rows: usize, of_loop: Loop) -> Run {
    let time = |of: Duration| (of_loop == Loop::Open).then(|| micros(of));
    Run {
        rate: summary.rate,
        rows_per_s: summary.rate * rows as f64,
        p50_us: time(summary.p50),
        p99_us: time(summary.p99),
        p999_us: time(summary.p999),
        answered: summary.answered,
        checked: summary.checked,
        failed: summary.failed + summary.dropped,
        void: reason(summary),
        ..Run::named(name)
    }
}

/// Why the figures stand for nothing, if they do not: nothing fails in a cluster that nobody disturbs.
pub fn reason(summary: &Summary) -> Option<String> {
    let failures = summary.failed + summary.dropped;
    let why = || format!("{failures} failed: {}", summary.first_failure.as_deref().unwrap_or("never sent"));
    summary.void.clone().or_else(|| (failures > 0).then(why))
}
