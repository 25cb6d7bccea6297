//! What a run of the harness found, as it is written to its JSON file. Documents and pictures are made from this alone, so that
//! a file of another day or another machine gives the same page.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was run: `bars`, `smoke`, `against`.
    pub run: String,
    /// The machine, its kernel, the commit, as [`machine::describe`](crate::machine::describe) says.
    pub machine: serde_json::Value,
    /// The options of the run.
    pub options: serde_json::Value,
    /// The day of the run, `2026-11-27`.
    pub day: String,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// The bars, in their order.
    pub rows: Vec<Row>,
    /// Throughput against latency.
    pub curves: Vec<Curve>,
    /// What became of requests over time.
    pub timelines: Vec<Timeline>,
    /// Latencies by the zone of the client and of the replica.
    pub zones: Vec<ZoneRow>,
    /// Other measured runs.
    pub runs: Vec<Run>,
}

/// One of the figures that must hold, beside its bar.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `P1` to `P11`.
    pub id: String,
    /// What is measured.
    pub title: String,
    /// The value of the part that is farthest from its bar; `None` if nothing was measured.
    pub value: Option<f64>,
    /// Its unit; `x` for a ratio.
    pub unit: String,
    /// Its bar in words, such as `<= 1.5 x a quinn echo of the same bytes`.
    pub bar: String,
    /// Whether all parts hold; `None` if the row is void or cannot be measured.
    pub holds: Option<bool>,
    /// Why the figures stand for nothing, if they do not.
    pub void: Option<String>,
    /// What is missing for it to be measured, if something is.
    pub not_measurable: Option<String>,
    /// Our side of the ratio, and what it is measured beside.
    pub ours: Option<Side>,
    /// See `ours`; `None` where the bar is no ratio.
    pub peer: Option<Side>,
    /// Every figure of this bar.
    pub parts: Vec<Part>,
    /// The command that repeats it.
    pub repeat: String,
    /// What bounds a figure that does not hold: the functions that a profile names most often.
    pub bound_by: Vec<String>,
    /// What a reader must know to read the figures rightly.
    pub notes: Vec<String>,
}

/// One side of a ratio.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Whose figure it is, such as `Stoa` or `Redis MGET`.
    pub name: String,
    /// The median.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// Greatest less least, by the median; 0 for a single measurement.
    pub spread: f64,
}

/// One figure of a bar.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit; `x` for a ratio.
    pub unit: String,
    /// The bar in words.
    pub bar: String,
    /// The bar's number.
    pub limit: f64,
    /// Whether the value is within it; `None` if the part is void.
    pub holds: Option<bool>,
    /// Why the value stands for nothing, if it does not.
    pub void: Option<String>,
    /// Both sides.
    pub ours: Option<Side>,
    /// See `ours`.
    pub peer: Option<Side>,
}

/// Throughput against latency, of one system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Of what.
    pub name: String,
    /// By rate, ascending.
    pub points: Vec<CurvePoint>,
}

/// One rate of a curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Requests a second that were due.
    pub rate: f64,
    /// Complete answers a second.
    pub answered: f64,
    /// Microseconds from when a request was due.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub p999_us: f64,
}

/// What became of requests over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Of what.
    pub name: String,
    /// What was done to the cluster, by time.
    pub events: Vec<Event>,
    /// By time, without gaps.
    pub slots: Vec<Slot>,
}

/// Something that was done to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds from the start.
    pub at_s: f64,
    /// What.
    pub what: String,
}

/// The requests that were due in one slot of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Its start, in seconds from the start of the run.
    pub at_s: f64,
    /// Complete answers.
    pub answered: u64,
    /// Requests without one.
    pub failed: u64,
    /// Complete answers, or none, later than 10 ms from when they were due.
    pub late: u64,
    /// Microseconds from when a request was due.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub max_us: f64,
}

/// Latencies of reads from one zone to another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ZoneRow {
    /// Where the client is.
    pub client: String,
    /// Where the replica is.
    pub replica: String,
    /// A message there and back, measured: the median, in microseconds.
    pub round_trip_us: f64,
    /// Microseconds of whole reads.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub p999_us: f64,
}

/// One measured run of a workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The workload, and against what.
    pub name: String,
    /// Complete answers a second.
    pub rate: f64,
    /// Rows a second, read or written.
    pub rows_per_s: f64,
    /// Microseconds; `None` for closed loops, whose callers hide stalls.
    pub p50_us: Option<f64>,
    /// See `p50_us`.
    pub p99_us: Option<f64>,
    /// See `p50_us`.
    pub p999_us: Option<f64>,
    /// Complete answers.
    pub answered: u64,
    /// Answers whose values were compared with what was written.
    pub checked: u64,
    /// Requests without a complete answer.
    pub failed: u64,
    /// Why the figures stand for nothing, if they do not.
    pub void: Option<String>,
    /// Further figures by name, such as CPU time of a request.
    pub more: std::collections::BTreeMap<String, f64>,
}

impl Run {
    /// One without figures yet.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}
