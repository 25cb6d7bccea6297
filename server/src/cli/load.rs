//! `stoa load`: a file into a feature group.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use stoa_env::{Clock, RealClock};

use super::{Connect, say};
use crate::load::{
    LoadFailure, LoadReport, LoadRequest, OnBad, Progress, UnknownColumns, default_name, file_time_us, load,
};

/// Loads a Parquet or CSV file, columns by name, in batches that are applied whole and once. The same command run again
/// goes on where the first was interrupted.
#[derive(Debug, Args)]
pub struct LoadCommand {
    /// The group, PROJECT/NAME@VERSION.
    group: String,
    /// The file; .parquet or .csv.
    file: PathBuf,
    /// The load's name. The same name, file and options go on with a load; another name loads again.
    #[arg(long)]
    name: Option<String>,
    /// What to do with rows that cannot be written.
    #[arg(long, value_enum, default_value = "abort")]
    on_bad: OnBadArg,
    /// Pass over columns that the group has not, instead of refusing the file.
    #[arg(long)]
    ignore_unknown: bool,
    /// Rows of a batch.
    #[arg(long, default_value_t = 1_000)]
    rows_per_batch: usize,
    /// The time of the load, microseconds since 1970: the event time of rows without one. By default, when the file was
    /// last changed.
    #[arg(long)]
    at: Option<i64>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnBadArg {
    /// Write the others, and report them.
    Skip,
    /// Write nothing.
    Abort,
}

struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{msg:9} {wide_bar} {human_pos}/{human_len} rows {per_sec} {eta}");
        bar.set_style(style.expect("the template is a constant that parses"));
        Self(bar)
    }

    fn show(&self, what: &'static str, rows: u64, total: Option<u64>) {
        self.0.set_message(what);
        self.0.set_length(total.unwrap_or(rows));
        self.0.set_position(rows);
    }
}

impl Progress for Bar {
    fn checked(&self, rows: u64, total: Option<u64>) {
        self.show("checking", rows, total);
    }
    fn acknowledged(&self, rows: u64, total: Option<u64>) {
        self.show("loading", rows, total);
    }
}

impl LoadCommand {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<u8> {
        let client = self.connect.client().await?;
        let group = client.group(&self.group).await?;
        let now_us = RealClock.wall().0;
        let request = LoadRequest {
            group: self.group.clone(),
            name: self.name.clone().unwrap_or_else(|| default_name(&self.file, group.definition())),
            at_us: self.at.unwrap_or_else(|| file_time_us(&self.file, now_us)),
            file: self.file,
            on_bad: match self.on_bad {
                OnBadArg::Skip => OnBad::Skip,
                OnBadArg::Abort => OnBad::Abort,
            },
            unknown_columns: if self.ignore_unknown { UnknownColumns::Ignore } else { UnknownColumns::Refuse },
            rows_per_batch: self.rows_per_batch,
        };
        let start = RealClock.boot();
        let bar = Arc::new(Bar::new());
        let result = load(&client, &request, bar.clone()).await;
        bar.0.finish_and_clear();
        let seconds = RealClock.boot().since(start).as_secs_f64();
        let (report, error) = match result {
            Ok(report) => (report, None),
            Err(failure) => match failure.report() {
                Some(report) => (report.clone(), Some(failure)),
                None => return Err(failure.into()),
            },
        };
        let error_text = error.as_ref().map(LoadFailure::to_string);
        match self.json {
            true => say(&json(&report, seconds, error_text.as_deref()).to_string())?,
            false => say(&text(&report, seconds))?,
        }
        match error {
            Some(error) => Err(error.into()),
            None => Ok(0),
        }
    }
}

fn text(report: &LoadReport, seconds: f64) -> String {
    let mut lines = Vec::new();
    for bad in &report.bad {
        lines.push(format!("line {}: {}", bad.line, bad.reason));
    }
    let more = report.rows_bad - report.bad.len() as u64;
    if more > 0 {
        lines.push(format!("… and {more} more bad rows"));
    }
    if !report.ignored_columns.is_empty() {
        lines.push(format!("columns not read: {}", report.ignored_columns.join(", ")));
    }
    lines.push(format!(
        "{} rows read, {} acknowledged ({} before this run), {} bad, {} older than what was there; {:.1} s, {:.0} rows/s",
        report.rows_read,
        report.rows_acknowledged,
        report.rows_before,
        report.rows_bad,
        report.rows_older,
        seconds,
        rows_per_s(report, seconds)
    ));
    for (partition, done) in &report.acknowledged {
        lines.push(format!(
            "  partition {partition}: batches 1 to {} acknowledged ({} before this run), {} rows between lines {} and {}",
            done.batches, done.batches_before, done.rows, done.first_line, done.last_line
        ));
    }
    lines.join("\n")
}

/// Of this run: what an earlier one had written took no time.
fn rows_per_s(report: &LoadReport, seconds: f64) -> f64 {
    (report.rows_acknowledged - report.rows_before) as f64 / seconds.max(1e-9)
}

fn json(report: &LoadReport, seconds: f64, error: Option<&str>) -> serde_json::Value {
    serde_json::json!({
        "rows_read": report.rows_read,
        "rows_acknowledged": report.rows_acknowledged,
        "rows_bad": report.rows_bad,
        "rows_older": report.rows_older,
        "seconds": seconds,
        "rows_before": report.rows_before,
        "rows_per_s": rows_per_s(report, seconds),
        "ignored_columns": report.ignored_columns,
        "bad": report.bad.iter().map(|b| serde_json::json!({"line": b.line, "reason": b.reason})).collect::<Vec<_>>(),
        "acknowledged": report.acknowledged.iter().map(|(p, a)| (p.to_string(), serde_json::json!(a)))
            .collect::<serde_json::Map<_, _>>(),
        "error": error,
    })
}
