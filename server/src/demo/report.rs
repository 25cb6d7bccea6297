//! What the demo found, for people and for programs.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use hdrhistogram::Histogram;
use stoa_protocol::PartitionId;
use stoa_protocol::message::DigestAnswer;

/// Latencies of one phase, microseconds from schedule to answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct PhaseReport {
    /// Requests.
    pub count: u64,
    /// Half of them were faster.
    pub p50: u64,
    /// 99 of 100 were faster.
    pub p99: u64,
    /// 999 of 1000 were faster.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

impl PhaseReport {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// What the demo found.
#[derive(Debug, Default)]
pub struct Report {
    rate: u64,
    seconds: u64,
    /// Rows loaded from the files.
    pub rows_loaded: u64,
    /// How long that took.
    pub load_seconds: f64,
    /// Requests of the workload.
    pub reads_total: u64,
    /// Requests that erred, came after their deadline, or had an unavailable value.
    pub reads_failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// The whole run.
    pub whole: PhaseReport,
    /// Before, during and after the loss.
    pub phases: [PhaseReport; 3],
    /// Share of the requests in the 5 s after the loss that were complete within 10 ms of their schedule.
    pub good_share: f64,
    /// Second requests sent because a first one was slow.
    pub hedges: u64,
    /// Values compared with the files.
    pub values_checked: u64,
    /// Values that differ.
    pub values_wrong: u64,
    /// Writes acknowledged during the run.
    pub writes_acknowledged: u64,
    /// Writes that failed for good.
    pub writes_failed: u64,
    /// From the kill until every partition had acknowledged a write sent after it; `None` if one never did.
    pub writes_resumed_ms: Option<u64>,
    /// Partitions.
    pub partitions: usize,
    /// Partitions whose replicas are equal.
    pub digests: Vec<(PartitionId, DigestAnswer)>,
    /// Partitions whose replicas are not.
    pub digests_open: Vec<PartitionId>,
    /// How long it took until all were.
    pub settled_ms: u64,
}

impl Report {
    /// An empty report of a run.
    pub fn new(rate: u64, seconds: u64) -> Self {
        Self { rate, seconds, ..Self::default() }
    }

    /// Rows loaded a second.
    pub fn rows_per_s(&self) -> f64 {
        self.rows_loaded as f64 / self.load_seconds.max(1e-9)
    }

    fn digests_equal(&self) -> bool {
        self.digests_open.is_empty() && self.digests.len() == self.partitions && self.partitions > 0
    }

    /// Whether every promise of the demo was kept.
    pub fn holds(&self) -> bool {
        self.reads_total > 0
            && self.reads_failed == 0
            && self.values_checked > 0
            && self.values_wrong == 0
            && self.digests_equal()
            && self.writes_resumed_ms.is_some()
    }

    /// One JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "rate_per_s": self.rate,
            "seconds": self.seconds,
            "rows_loaded": self.rows_loaded,
            "rows_per_s": self.rows_per_s().round(),
            "reads_total": self.reads_total,
            "reads_failed": self.reads_failed,
            "failures": self.failures,
            "p50_us": self.whole.p50,
            "p99_us": self.whole.p99,
            "p999_us": self.whole.p999,
            "max_us": self.whole.max,
            "p99_us_before_zone_loss": self.phases[0].p99,
            "p99_us_during_zone_loss": self.phases[1].p99,
            "p99_us_after_zone_loss": self.phases[2].p99,
            "complete_within_10ms_share_during_zone_loss": self.good_share,
            "hedges": self.hedges,
            "writes_acknowledged": self.writes_acknowledged,
            "writes_failed": self.writes_failed,
            "writes_resumed_ms": self.writes_resumed_ms,
            "digests_equal": self.digests_equal(),
            "digests_settled_ms": self.settled_ms,
            "values_checked": self.values_checked,
            "values_wrong": self.values_wrong,
        })
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut latencies = Table::new();
        latencies.load_style(UTF8_FULL_CONDENSED).set_header([
            "ranking requests",
            "count",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
        ]);
        let ms = |us: u64| format!("{:.2}", us as f64 / 1_000.0);
        let names = ["before the loss", "one zone gone", "after its return"];
        for (name, phase) in names.iter().zip(&self.phases).chain([(&"whole run", &self.whole)]) {
            latencies.add_row([
                (*name).to_owned(),
                phase.count.to_string(),
                ms(phase.p50),
                ms(phase.p99),
                ms(phase.p999),
                ms(phase.max),
            ]);
        }
        let mut facts = Table::new();
        facts.load_style(UTF8_FULL_CONDENSED);
        let resumed = self.writes_resumed_ms.map_or("never".into(), |ms| format!("{ms} ms after the loss"));
        let rows = self.digests.iter().map(|(_, d)| d.rows).sum::<u64>();
        let digests = match self.digests_equal() {
            true => format!(
                "equal on all replicas of {} partitions ({rows} rows), {} ms after the run",
                self.partitions, self.settled_ms
            ),
            false => format!(
                "differ or are missing in partitions {:?}",
                self.digests_open.iter().map(|p| p.0).collect::<Vec<_>>()
            ),
        };
        facts.add_row(["rows loaded", &format!("{} at {:.0} rows/s", self.rows_loaded, self.rows_per_s())]);
        facts.add_row(["requests failed", &format!("{} of {}", self.reads_failed, self.reads_total)]);
        facts
            .add_row(["complete within 10 ms in the 5 s after the loss", &format!("{:.2} %", self.good_share * 100.0)]);
        facts.add_row([
            "values compared with the files",
            &format!("{}, {} wrong", self.values_checked, self.values_wrong),
        ]);
        facts.add_row(["writes", &format!("{} acknowledged, {} failed", self.writes_acknowledged, self.writes_failed)]);
        facts.add_row(["every partition took writes again", &resumed]);
        facts.add_row(["digests", &digests]);
        let mut out = format!("{latencies}\n{facts}");
        self.failures.iter().for_each(|failure| out += &format!("\nfailed {failure}"));
        out
    }
}
