//! `stoa-bench widths`: what a read costs by the width of lanes, as a partition grows.
//!
//! A lane is one array over all rows, and the columns of a group are packed into lanes of up to so many bytes. For each width
//! there is one partition, which grows to each of the sizes, and at each of them it is read: 100 random rows a time, whole
//! (hash, probe, gather, validity, event time, reader protocol). Beside it stands a copy of whole rows, each touched before, from one
//! plain array.

use anyhow::{Context as _, ensure};
use clap::Args;
use stoa_protocol::LogIndex;
use stoa_store::{Command, Partition, PartitionReader, StoreOptions};

use crate::layouts::{Layout, Near};
use crate::rows::{Ask, Floats, Picks};
use crate::store::{READ_ROWS, Timing, bytes_a_row, fill, in_turn, time_reads, visit};

/// Measures reads by the width of lanes.
#[derive(Debug, Args)]
pub struct WidthsBench {
    /// Rows at which a partition is read, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000, 20_000_000])]
    rows: Vec<u64>,
    /// Features of a row, Float32 each.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(4..=1_024))]
    features: u16,
    /// Widths of lanes, bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 16, 32, 64, 128, 256, 512])]
    widths: Vec<usize>,
    /// Reads of 100 rows in each repetition.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    reads: u64,
    /// Repetitions; medians are printed.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    repetitions: u64,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// What was measured of one width at one size.
struct Figure {
    width: usize,
    rows: u64,
    bytes_per_row: f64,
    /// Nanoseconds of a row, by [`WidthsBench::selections`].
    gather: Vec<f64>,
    /// The same of a copy of a whole row, which was touched before, from an array of as many.
    copy: f64,
}

impl WidthsBench {
    /// Runs it and prints the figures.
    pub fn run(&self) -> anyhow::Result<()> {
        ensure!(!self.rows.is_empty() && self.rows.is_sorted(), "--rows {:?} are not ascending sizes", self.rows);
        ensure!(self.rows[0] >= READ_ROWS as u64, "--rows {}: a read asks for {READ_ROWS} rows", self.rows[0]);
        let floats = Floats::new(usize::from(self.features));
        let plain = Layout::of_rows(usize::from(self.features));
        let mut figures = Vec::new();
        for &width in &self.widths {
            let options = StoreOptions { index_seed: 7, lane_bytes_max: width, ..StoreOptions::default() };
            let (mut partition, reader) = Partition::new(options);
            partition.apply(LogIndex(1), &Command::Define(floats.group.clone()));
            let mut there = 0;
            for &rows in &self.rows {
                fill(&floats, &mut partition, there..rows, 1);
                there = rows;
                let selections = self.selections();
                let time = |at: usize| {
                    let (floats, reader, features) = (&floats, &reader, &selections[at].1);
                    move |seed| self.time(floats, reader, rows, features, seed)
                };
                let features = usize::from(self.features);
                let plain = plain.plain(rows, features).context("memory for a plain array")?;
                let visit_both = || {
                    visit(&floats, &reader, rows);
                    plain.visit();
                };
                let mut copy = |seed| Ok(plain.time(features, Near::Touched, self.reads, seed));
                let timings: [Timing<'_>; 5] = [&mut time(0), &mut time(1), &mut time(2), &mut time(3), &mut copy];
                let [gather @ .., copy] = in_turn(self.repetitions, visit_both, timings).map_err(anyhow::Error::msg)?;
                let (bytes_per_row, gather) = (bytes_a_row(&partition), gather.to_vec());
                figures.push(Figure { width, rows, bytes_per_row, gather, copy });
            }
            eprintln!("lanes of {width} bytes: done");
        }
        match self.json {
            true => println!("{}", self.to_json(&figures)),
            false => print!("{}", self.tables(&figures)),
        }
        Ok(())
    }

    /// What is asked for, and what it is called.
    fn selections(&self) -> [(String, Vec<u16>); 4] {
        let count = self.features;
        [
            ("3 together".to_owned(), vec![0, 1, 2]),
            ("3 apart".to_owned(), vec![0, count / 2, count - 1]),
            (format!("{} together", count / 2), (0..count / 2).collect()),
            (format!("all {count}"), (0..count).collect()),
        ]
    }

    fn asks(&self, floats: &Floats, rows: u64, features: &[u16], seed: u64) -> Vec<(Vec<u64>, Ask)> {
        let mut picks = Picks::new(seed, rows);
        let ask = |_| {
            let ids = picks.distinct(READ_ROWS);
            let ask = floats.ask_features(&ids, features.to_vec());
            (ids, ask)
        };
        (0..self.reads).map(ask).collect()
    }

    /// Nanoseconds of a row.
    fn time(
        &self,
        floats: &Floats,
        reader: &PartitionReader,
        rows: u64,
        features: &[u16],
        seed: u64,
    ) -> Result<f64, String> {
        time_reads(reader, &self.asks(floats, rows, features, seed))
    }

    fn to_json(&self, figures: &[Figure]) -> serde_json::Value {
        let of = |figure: &Figure| {
            let names = self.selections().into_iter().map(|(name, _)| name);
            let gather: serde_json::Map<_, _> =
                names.zip(&figure.gather).map(|(name, &ns)| (name, ns.into())).collect();
            serde_json::json!({
                "lane_bytes_max": figure.width,
                "rows": figure.rows,
                "bytes_per_row": figure.bytes_per_row,
                "gather_ns_per_row": gather,
                "copy_ns_per_row": figure.copy,
            })
        };
        serde_json::json!({
            "features": self.features,
            "reads": self.reads,
            "repetitions": self.repetitions,
            "figures": figures.iter().map(of).collect::<Vec<_>>(),
        })
    }

    fn tables(&self, figures: &[Figure]) -> String {
        let mut out = String::new();
        for &rows in &self.rows {
            out += &format!("{rows} rows x {} Float32, ns a row of a read of {READ_ROWS}\n", self.features);
            out += "| lanes up to |";
            self.selections().iter().for_each(|(name, _)| out += &format!(" {name} |"));
            out += " touched copy of whole rows | bytes a row |\n|---|---|---|---|---|---|---|\n";
            for figure in figures.iter().filter(|figure| figure.rows == rows) {
                out += &format!("| {} |", figure.width);
                figure.gather.iter().for_each(|ns| out += &format!(" {ns:.1} |"));
                out += &format!(" {:.1} | {:.1} |\n", figure.copy, figure.bytes_per_row);
            }
        }
        out
    }
}
