//! `stoa-bench report`: documents and pictures of a run, from its JSON file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Report, bars_table, html, pictures, write_file, write_into};

/// Prints the bars of a run, and writes documents of it.
#[derive(Debug, Args)]
pub struct ReportCommand {
    /// The JSON file of a run.
    file: PathBuf,
    /// Put the figures into this Markdown document, between its lines `<!-- figures: begin -->` and `<!-- figures: end
    /// -->`, and their pictures into the directory `benchmarks` beside it, whose other SVG files are removed.
    #[arg(long, value_name = "DOC")]
    doc: Option<PathBuf>,
    /// Write a single HTML file with everything in it.
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
}

impl ReportCommand {
    /// Runs it. Bars that do not hold are no failure of a report: exit status 0.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let report = Report::load(&self.file)?;
        if let Some(doc) = &self.doc {
            write_into(doc, &report)?;
        }
        if let Some(out) = &self.html {
            write_file(out, html(&report, &pictures(&report)?).as_bytes())?;
        }
        println!("{}", bars_table(&report).terminal());
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_made_from_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run.json");
        Report { day: "2026-11-27".into(), ..Report::default() }.save(&file).unwrap();
        let out = dir.path().join("out.html");
        let command = ReportCommand { file, doc: None, html: Some(out.clone()) };
        command.run().unwrap();
        assert!(std::fs::read_to_string(out).unwrap().contains("Figures of 2026-11-27"));
        let missing = ReportCommand { doc: Some(dir.path().join("none.md")), ..command };
        assert!(format!("{:#}", missing.run().unwrap_err()).contains("none.md"));
    }
}
