//! `stoa-bench against CLUSTER --view VIEW`: loads a cluster that lives, with a view and keys of its user, shows what comes of it
//! while it runs, and writes the same picture as one HTML file.
//!
//! | file | duty |
//! |---|---|
//! | `keys.rs` | which keys are asked for: ranges, lists, or rows of a CSV file |
//! | `service.rs` | one read of the view |
//! | `live.rs` | a line for each second, as the run goes on |
//!
//! It knows no truth to compare answers with: it counts those that are complete, and rows that are found.

mod keys;
mod live;
mod service;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use stoa::cli::Connect;
use stoa_client::ReadOptions;
use stoa_env::JoinSet;

use crate::load::{Pace, Schedule, Summary, open_loop_watched};
use crate::machine::{self, Cores};
use crate::measure::micros;
use crate::process::say;
use crate::report::model::{Curve, CurvePoint, Event, Report, Run, Slot, Timeline};
use crate::report::{figures::runs_table, html, pictures};
use keys::Keys;
use live::Live;
use service::ViewReads;

/// Rates of one run.
const RATES_MAX: usize = 20;

/// Loads a live cluster with one of its views.
#[derive(Debug, Args)]
pub struct AgainstCommand {
    /// Nodes to make first contact with, IP:PORT, divided by commas; any of them will do.
    #[arg(value_name = "CLUSTER", required = true, value_delimiter = ',')]
    seeds: Vec<SocketAddr>,
    /// The view, PROJECT/NAME@VERSION.
    #[arg(long)]
    view: String,
    /// A key column and its values: NAME=FROM..TO for whole numbers (TO is not among them), NAME=VALUE,VALUE,… for any type.
    /// Once for each column.
    #[arg(long = "key", value_name = "NAME=VALUES", conflicts_with = "keys")]
    key: Vec<String>,
    /// A CSV file instead, whose head names the key columns: each of its rows is one combination of them.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Key columns of which a request has one value for all of its rows, such as that of the person who waits.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    one: Vec<String>,
    /// Rows of a request.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rows: u16,
    /// Requests a second, on a schedule that does not wait for answers; several, divided by commas, one after the other.
    #[arg(long, default_value = "100", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Vec<u32>,
    /// How long each rate lasts, after a warm-up of a fifth of it.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=14_400))]
    seconds: u64,
    /// After so many milliseconds an answer that is not there is partial, and counts as failed.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    deadline_ms: u64,
    /// Write the report there, one HTML file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the figures there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The zone that this program runs in: replicas there are read first.
    #[arg(long, env = "STOA_ZONE", default_value = "")]
    zone: String,
    /// The directory with ca.pem, client-PRINCIPAL.pem and client-PRINCIPAL.key.
    #[arg(long, env = "STOA_CERTS", default_value = "certs")]
    certs: PathBuf,
    /// The principal whose certificate is used.
    #[arg(long, env = "STOA_PRINCIPAL", default_value = "admin")]
    principal: String,
    /// The project on whose behalf it asks.
    #[arg(long, env = "STOA_PROJECT", default_value = "")]
    project: String,
}

impl AgainstCommand {
    /// Runs it. Exit status 1 if nothing was answered.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(self.rate.len() <= RATES_MAX, "--rate has {} rates; give up to {RATES_MAX}", self.rate.len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let report = runtime.block_on(self.measure())?;
        if let Some(file) = &self.json {
            report.save(file)?;
        }
        if let Some(file) = &self.html {
            std::fs::write(file, html(&report, &pictures(&report)?))
                .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        }
        say(&runs_table(&report).terminal());
        let nothing = report.runs.iter().any(|run| run.answered == 0);
        Ok(if nothing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    #[allow(clippy::disallowed_methods)] // a measurement is in true time
    async fn measure(&self) -> anyhow::Result<Report> {
        let connect = Connect {
            seeds: self.seeds.clone(),
            zone: self.zone.clone(),
            certs: self.certs.clone(),
            principal: self.principal.clone(),
            project: self.project.clone(),
        };
        let client = connect.client().await?;
        let view = client.view(&self.view).await?;
        let keys = match &self.keys {
            Some(file) => Keys::from_csv(&view.plan().keys, file, &self.one)?,
            None => Keys::from_arguments(&view.plan().keys, &self.key, &self.one)?,
        };
        let options = ReadOptions { deadline: Duration::from_millis(self.deadline_ms), ..ReadOptions::default() };
        let reads = Arc::new(ViewReads::new(view, keys, usize::from(self.rows), options));
        let start = Instant::now();
        let mut report = Report {
            run: "against".to_owned(),
            machine: machine::describe(&Cores::of_this_process()?),
            options: json!({
                "view": self.view, "rows": self.rows, "rates": self.rate, "seconds": self.seconds,
                "deadline_ms": self.deadline_ms, "zone": self.zone, "optimised": !cfg!(debug_assertions),
            }),
            day: machine::today(),
            ..Report::default()
        };
        let (mut points, mut slots, mut events) = (Vec::new(), Vec::new(), Vec::new());
        let mut live = Live::start(self.rate.len());
        // An operator who has seen enough still wants the report.
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut interrupts = JoinSet::new();
        interrupts.spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                let _already_over = stop.send(true);
            }
        });
        for rate in &self.rate {
            if *stopped.borrow() {
                break;
            }
            let measured = Duration::from_secs(self.seconds);
            let schedule = Schedule { rate: *rate, warm_up: measured / 5, measured };
            live.begin(*rate);
            let found =
                open_loop_watched(reads.clone(), schedule, Pace::Exact, stopped.clone(), |due, latency, answered| {
                    live.take(due, latency, answered);
                });
            let found = found.await;
            live.end();
            let at_s = slots.last().map_or(0.0, |slot: &Slot| slot.at_s + live::SLOT.as_secs_f64());
            events.push(Event { at_s, what: format!("{rate} requests/s") });
            slots.extend(live.slots().into_iter().map(|slot| Slot { at_s: slot.at_s + at_s, ..slot }));
            points.push(point(*rate, &found));
            report.runs.push(self.run_of(*rate, &found, &reads));
        }
        report.curves.push(Curve { name: self.view.clone(), points });
        report.timelines.push(Timeline { name: self.view.clone(), events, slots });
        report.took_s = start.elapsed().as_secs_f64();
        Ok(report)
    }

    fn run_of(&self, rate: u32, found: &Summary, reads: &ViewReads<stoa_env::QuicTransport>) -> Run {
        let mut run = Run {
            rate: found.rate,
            rows_per_s: found.rate * f64::from(self.rows),
            p50_us: Some(micros(found.p50)),
            p99_us: Some(micros(found.p99)),
            p999_us: Some(micros(found.p999)),
            answered: found.answered,
            checked: found.checked,
            failed: found.failed + found.dropped,
            void: (found.answered == 0).then(|| found.first_failure.clone().unwrap_or("nothing was answered".into())),
            ..Run::named(&format!("{} at {rate} requests/s", self.view))
        };
        let counts = reads.take_counts();
        run.more.insert("rows_found_percent".to_owned(), counts.found_percent());
        run.more.insert("hedges".to_owned(), counts.hedges as f64);
        run.more.insert("age_max_ms".to_owned(), counts.age_max.as_secs_f64() * 1e3);
        run
    }
}

fn point(rate: u32, found: &Summary) -> CurvePoint {
    CurvePoint {
        rate: rate.into(),
        answered: found.rate,
        p50_us: micros(found.p50),
        p99_us: micros(found.p99),
        p999_us: micros(found.p999),
    }
}
