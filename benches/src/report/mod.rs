//! What a run of the harness found, as documents. Start reading at [`model`], what is in a run's JSON; then
//! [`document`], what is said of it and in which order, once for Markdown and HTML.
//!
//! | file | what is there |
//! |---|---|
//! | `model.rs` | a run, as its JSON file has it |
//! | `verdict.rs` | whether a bar holds, in words |
//! | `text.rs` | numbers for people; text of others made harmless |
//! | `table.rs` | one table, as Markdown, as HTML, for a terminal |
//! | `figures.rs` | the tables of a run |
//! | `canvas.rs` | an SVG's text, marks and legend |
//! | `axis.rs` | scales and their ticks, for any value |
//! | `panel.rs` | two axes and what is drawn between them |
//! | `curves.rs` | picture: throughput against latency |
//! | `timeline.rs` | picture: what became of requests over time |
//! | `picture.rs` | all pictures of a run, and their files |
//! | `document.rs` | headings, tables, pictures, in their order |
//! | `page.rs` | the document as Markdown, and its place in `docs/benchmarks.md` |
//! | `html.rs` | the document as one HTML file |
//! | `command.rs` | `stoa-bench report` |
//!
//! Everything is made from the JSON alone, without a clock and without chance: an equal file gives equal bytes.

pub mod axis;
pub mod canvas;
pub mod command;
pub mod curves;
pub mod document;
pub mod figures;
pub mod html;
pub mod model;
pub mod page;
pub mod panel;
pub mod picture;
pub mod table;
pub mod text;
pub mod timeline;
pub mod verdict;

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

pub use command::ReportCommand;
pub use figures::bars_table;
pub use html::html;
pub use model::Report;
pub use page::write_into;
pub use picture::pictures;

impl Report {
    /// Reads a run's JSON file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no report of a run", path.display()))
    }

    /// Writes the run's JSON file; an older one is replaced as a whole or not at all. JSON has no word for a figure
    /// that is not a number: it is written as `null`, the file stays, and the error says that it cannot be read again.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self).with_context(|| format!("making {}", path.display()))?;
        bytes.push(b'\n');
        write_file(path, &bytes)?;
        serde_json::from_slice::<Self>(&bytes).map(|_| ()).with_context(|| {
            format!("{} is written, but has a figure that is no finite number where one must be", path.display())
        })
    }
}

/// Writes a file: 1. its bytes into a temporary one beside it, synced; 2. that is renamed. Whoever reads sees the old
/// or the new, whole.
fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let write = || -> anyhow::Result<()> {
        // As any new file: what the process's mask leaves of it. A temporary file is else its owner's alone.
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::model::{Curve, CurvePoint, Row};
    use super::*;

    #[test]
    fn a_saved_report_is_loaded_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let row = Row { id: "P1".into(), value: Some(1.25), holds: Some(true), ..Row::default() };
        let report = Report { run: "bars".into(), took_s: 12.5, rows: vec![row], ..Report::default() };
        report.save(&path).unwrap();
        report.save(&path).unwrap();
        assert_eq!(Report::load(&path).unwrap(), report);
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.json");
        assert!(format!("{:#}", Report::load(&missing).unwrap_err()).contains("missing.json"));
        let broken = dir.path().join("broken.json");
        std::fs::write(&broken, "{}").unwrap();
        assert!(format!("{:#}", Report::load(&broken).unwrap_err()).contains("broken.json"));
        let nowhere = dir.path().join("no/such/dir.json");
        assert!(format!("{:#}", Report::default().save(&nowhere).unwrap_err()).contains("dir.json"));
    }

    #[test]
    fn a_figure_that_is_no_number_is_told_at_once_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let points = vec![CurvePoint { p50_us: f64::NAN, ..CurvePoint::default() }];
        let report = Report { curves: vec![Curve { name: "Stoa".into(), points }], ..Report::default() };
        assert!(format!("{:#}", report.save(&path).unwrap_err()).contains("no finite number"));
        assert!(std::fs::read_to_string(&path).unwrap().contains("Stoa"));
    }
}
