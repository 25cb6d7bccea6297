//! `stoa-bench bars`: P1 to P11 of the design, each beside its bar, in one run on this machine.
//!
//! | file | duty |
//! |---|---|
//! | `plan.rs` | how large the runs are |
//! | `depth.rs` | one partition in memory as it grows: P3, P9, half of P5 |
//! | `big.rs`, `restart.rs` | the cluster with the most rows: P1, P4, P5, P7 |
//! | `peers.rs` | Redis and echoes, for P1 and P4 |
//! | `apart.rs` | zones that are apart: P2, P10, P11, a slow replica |
//! | `kills.rs` | P6 |
//! | `quiet.rs` | P8 |
//! | `judge.rs`, `parts.rs` | figures become rows of the table; nothing is measured there |
//!
//! A part of the run that fails voids its rows, and the others go on.

mod apart;
mod big;
mod depth;
mod judge;
mod kills;
mod parts;
mod peers;
mod plan;
mod quiet;
mod restart;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use crate::load::wrong_values;
use crate::machine::{self, Cores};
use crate::process::{interruptible, say, step};
use crate::report::figures::bars_table;
use crate::report::model::{Report, Row};
use crate::workloads;
pub use depth::DepthBench;
use plan::Plan;

/// The bars, what each is, and its bar.
const BARS: [(&str, &str); 11] = [
    ("P1", "100 rows x 48 Float32, uniform keys, one node on one core"),
    ("P2", "open loop, three zones apart, one goes silent half way"),
    ("P3", "bytes a row, 48 Float32 with an Int64 key, under writes with a snapshot"),
    ("P4", "rows of 48 features a second, durable"),
    ("P5", "p99 of reads of 100 rows beside writes"),
    ("P6", "20 losses of a node that leads many partitions"),
    ("P7", "kill -9 under load; until 1,000 random keys are right and no older than 1 s"),
    ("P8", "1,000 quiet partitions in one process"),
    ("P9", "cost of a key read at 20 M rows"),
    ("P10", "an acknowledged write is read in all zones"),
    ("P11", "a rolling restart and the loss of a zone"),
];

/// Measures P1 to P11 and prints them beside their bars.
#[derive(Debug, Args)]
pub struct BarsCommand {
    /// Write all figures there, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// These alone, such as `P1,P4`; what is measured with them is judged, too.
    #[arg(long, value_delimiter = ',', value_parser = parse_id)]
    only: Vec<String>,
    /// Below 1: smaller runs, to see whether all works; every row is void then.
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    scale: f64,
}

fn parse_id(text: &str) -> Result<String, String> {
    let id = text.to_uppercase();
    let known: Vec<&str> = BARS.iter().map(|(id, _)| *id).collect();
    if known.contains(&id.as_str()) { Ok(id) } else { Err(format!("there are {}", known.join(", "))) }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if scale > 0.0 && scale <= 1.0 { Ok(scale) } else { Err("it must be above 0 and at most 1".to_owned()) }
}

impl BarsCommand {
    /// Runs it. The exit status says whether everything could be run, not whether the bars hold.
    #[allow(clippy::disallowed_methods)] // a measurement is in true time
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (cores, start) = (Cores::of_this_process()?, Instant::now());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut report = Report {
            run: "bars".to_owned(),
            machine: machine::describe(&cores),
            options: json!({"scale": self.scale, "only": self.only, "optimised": !cfg!(debug_assertions)}),
            day: machine::today(),
            ..Report::default()
        };
        if let Some(file) = &self.json {
            // Now, and not in half an hour.
            report.save(file)?;
        }
        runtime.block_on(interruptible(async {
            self.measure(&cores, &mut report).await;
            Ok(())
        }))?;
        report.rows.sort_by_key(|row| BARS.iter().position(|(id, _)| *id == row.id));
        self.void_by_options(&cores, &mut report.rows);
        report.took_s = start.elapsed().as_secs_f64();
        if let Some(file) = &self.json {
            report.save(file)?;
        }
        say(&bars_table(&report).terminal());
        if wrong_values() > 0 {
            say(&format!("{} values were wrong", wrong_values()));
        }
        let broken = wrong_values() > 0 || report.rows.iter().any(|row| row.parts.is_empty());
        Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn wants(&self, ids: &[&str]) -> bool {
        self.only.is_empty() || ids.iter().any(|id| self.only.iter().any(|only| only == id))
    }

    async fn measure(&self, cores: &Cores, report: &mut Report) {
        let plan = Plan { scale: self.scale };
        let (mut depth, mut why) = (None, "it was not asked for".to_owned());
        if self.wants(&["P3", "P5", "P9"]) {
            step(&format!("one partition in memory, up to {} rows", plan.depth_rows()));
            depth = self.keep(report, &["P3", "P9"], depth::run_apart(plan.depth_rows()).await, &mut why);
        }
        let mut big = None;
        if self.wants(&["P1", "P4", "P5", "P7"]) {
            step(&format!("a cluster of {} rows", plan.rows()));
            big = self.keep(report, &["P1", "P4", "P7"], big::measure(plan, cores).await, &mut why);
        }
        if let Some(big) = big.as_ref().filter(|_| self.wants(&["P1", "P4"])) {
            step("the peers");
            let peers = peers::measure(plan, cores, big.bytes).await;
            report.rows.extend([judge::p1(big, &peers), judge::p4(big, &peers)]);
            report.curves.push(big.curve.clone());
            report.curves.extend(peers.mget.ok().map(|(_, curve)| curve));
        }
        if let Some(big) = big.as_ref().filter(|_| self.wants(&["P7"])) {
            report.rows.push(judge::p7(big));
        }
        if let Some(depth) = &depth {
            report.rows.extend([judge::p3(depth, big.as_ref().map(|big| big.node_bytes_per_row)), judge::p9(depth)]);
        }
        if self.wants(&["P5"]) {
            report.rows.push(judge::p5(depth.as_ref(), big.as_ref(), &why));
        }
        self.save_so_far(cores, report);
        if self.wants(&["P2", "P10", "P11"]) {
            step("zones that are apart");
            if let Some(apart) = self.keep(report, &["P2", "P10", "P11"], apart::measure(plan, cores).await, &mut why) {
                report.rows.extend([judge::p2(&apart), judge::p10(&apart), judge::p11(&apart)]);
                report.timelines.extend(apart.timelines);
                report.zones.extend(apart.zones);
                report.runs.extend(apart.slow);
            }
        }
        self.save_so_far(cores, report);
        if self.wants(&["P6"]) {
            step(&format!("{} losses of a node", plan.kills()));
            let kills = self.keep(report, &["P6"], kills::measure(plan, cores).await, &mut why);
            report.rows.extend(kills.map(|kills| judge::p6(&kills)));
        }
        self.save_so_far(cores, report);
        if self.wants(&["P8"]) {
            step(&format!("{} quiet partitions", plan.quiet().0));
            let quiet = self.keep(report, &["P8"], quiet::measure(plan, cores).await, &mut why);
            report.rows.extend(quiet.map(|quiet| judge::p8(&quiet)));
        }
        if self.only.is_empty() {
            step("every workload");
            match workloads::measure(plan.workloads(), cores).await {
                Ok(runs) => report.runs.extend(runs),
                Err(error) => step(&format!("failed: {error:#}")),
            }
        }
    }

    /// Writes what there is by now: a run that is ended early has measured something, too. Its rows are judged as those of a
    /// whole one are.
    fn save_so_far(&self, cores: &Cores, report: &Report) {
        let Some(file) = &self.json else { return };
        let mut so_far = report.clone();
        self.void_by_options(cores, &mut so_far.rows);
        if let Err(error) = so_far.save(file) {
            step(&format!("the figures could not be written: {error:#}"));
        }
    }

    /// What was measured; or rows that are void, for the reason why it could not be.
    fn keep<T>(&self, report: &mut Report, ids: &[&str], measured: anyhow::Result<T>, why: &mut String) -> Option<T> {
        let error = match measured {
            Ok(measured) => return Some(measured),
            Err(error) => format!("{error:#}"),
        };
        step(&format!("failed: {error}"));
        error.clone_into(why);
        for (id, title) in BARS.iter().filter(|(id, _)| ids.contains(id) && self.wants(&[id])) {
            report.rows.push(parts::void_row(id, title, &error));
        }
        None
    }

    /// Reasons that are not in the measurements.
    fn void_by_options(&self, cores: &Cores, rows: &mut [Row]) {
        let mut why = Vec::new();
        if self.scale < 1.0 {
            why.push(format!("measured at scale {}, which is no scale of the bars", self.scale));
        }
        if cfg!(debug_assertions) {
            why.push("the program is not optimised: run it with --release".to_owned());
        }
        if !cores.are_apart() {
            why.push("servers and load share the only core".to_owned());
        }
        if machine::temporary_files_are_in_memory() {
            for row in rows.iter_mut().filter(|row| ["P4", "P7"].contains(&row.id.as_str())) {
                row.holds = None;
                row.void = Some("temporary files are in memory, where a sync costs nothing: set TMPDIR".to_owned());
            }
        }
        if !why.is_empty() {
            for row in rows.iter_mut() {
                row.holds = None;
                row.void.get_or_insert(why.join("; "));
                for part in &mut row.parts {
                    part.holds = None;
                    part.void.get_or_insert(why.join("; "));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_known_in_either_case_and_others_are_told_which_there_are() {
        let ids: BTreeSet<&str> = BARS.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), 11);
        assert_eq!(parse_id("p4"), Ok("P4".to_owned()));
        assert!(parse_id("P12").is_err_and(|why| why.contains("P11")));
    }

    #[test]
    fn a_run_at_another_scale_judges_nothing() {
        let command = BarsCommand { json: None, only: Vec::new(), scale: 0.01 };
        let mut rows = vec![Row { id: "P1".into(), holds: Some(true), ..Row::default() }];
        command.void_by_options(&Cores::of_this_process().unwrap(), &mut rows);
        assert_eq!(rows[0].holds, None);
        assert!(rows[0].void.as_ref().is_some_and(|why| why.contains("scale 0.01")));
    }

    #[test]
    fn what_is_saved_of_a_run_that_goes_on_is_judged_by_its_options_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bars.json");
        let command = BarsCommand { json: Some(file.clone()), only: Vec::new(), scale: 0.01 };
        let row = Row { id: "P1".into(), holds: Some(true), ..Row::default() };
        let report = Report { rows: vec![row], ..Report::default() };
        command.save_so_far(&Cores::of_this_process().unwrap(), &report);
        assert_eq!(Report::load(&file).unwrap().rows[0].holds, None);
        assert_eq!(report.rows[0].holds, Some(true), "the run itself goes on with what it has");
    }
}
