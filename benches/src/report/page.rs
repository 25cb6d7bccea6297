//! The document as Markdown, and its place in `docs/benchmarks.md`. What people wrote there stays: the figures stand
//! between two lines, and nothing else is touched.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};

use super::document::{Block, document};
use super::model::Report;
use super::picture::{Picture, pictures};
use super::{text, write_file};

/// The line before the figures.
pub const BEGIN: &str = "<!-- figures: begin -->";
/// The line behind the figures.
pub const END: &str = "<!-- figures: end -->";
/// The directory of the pictures, beside the document. Its SVG files are ours: those that are no longer made are
/// removed.
pub const PICTURES_DIR: &str = "benchmarks";

/// The figures of a run as Markdown, for a document beside [`PICTURES_DIR`].
pub fn page(report: &Report, pictures: &[Picture]) -> String {
    let mut out =
        "<!-- Made by `stoa-bench report` from a run's JSON file: what is changed here is lost. -->\n".to_owned();
    for block in document(report, pictures) {
        out.push('\n');
        match block {
            Block::Heading(level, text) => {
                out += &format!("{} {}\n", "#".repeat(usize::from(level)), text::markdown(&text));
            }
            Block::Text(text) => out += &format!("{text}\n"),
            Block::Points(points) => {
                points.iter().for_each(|point| out += &format!("- {}: {}\n", point.label, point.cell.markdown()));
            }
            Block::Table(table) => out += &table.markdown(),
            Block::Picture(picture) => {
                out += &format!("![{}]({PICTURES_DIR}/{})\n", text::markdown(&picture.title), picture.file);
            }
        }
    }
    // What follows must not become part of a table.
    out.push('\n');
    out
}

/// Puts the figures of a run into a document, between the lines [`BEGIN`] and [`END`], and its pictures beside it.
///
/// Steps: 1. the document is read, and must have both lines; 2. pictures are written; 3. the document is; 4. pictures
/// of older runs are removed. Whenever this stops, the document's pictures are there.
pub fn write_into(doc: &Path, report: &Report) -> anyhow::Result<()> {
    let old = std::fs::read_to_string(doc).with_context(|| format!("reading {}", doc.display()))?;
    let place = place_of_figures(&old).with_context(|| format!("{} has no place for the figures", doc.display()))?;
    let pictures = pictures(report).context("drawing the pictures")?;
    let dir = doc.with_file_name(PICTURES_DIR);
    if !pictures.is_empty() {
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    for picture in &pictures {
        write_file(&dir.join(&picture.file), picture.svg.as_bytes())?;
    }
    let new = [&old[..place.start], &page(report, &pictures), &old[place.end..]].concat();
    write_file(doc, new.as_bytes())?;
    remove_others(&dir, &pictures).with_context(|| format!("removing older pictures of {}", dir.display()))
}

/// The bytes between the two lines.
fn place_of_figures(doc: &str) -> anyhow::Result<Range<usize>> {
    let begin = only_line(doc, BEGIN)?;
    let end = only_line(doc, END)?;
    if end.start < begin.end {
        bail!("the line {END} is before {BEGIN}: it must be behind it");
    }
    Ok(begin.end..end.start)
}

/// The bytes of the only line that says this.
fn only_line(doc: &str, says: &str) -> anyhow::Result<Range<usize>> {
    let mut at = 0;
    let mut found = None;
    for line in doc.split_inclusive('\n') {
        if line.trim() == says && found.replace(at..at + line.len()).is_some() {
            bail!("the line {says} is there twice: one of them must go");
        }
        at += line.len();
    }
    found.with_context(|| {
        format!("the line {says} is missing: write {BEGIN} and below it {END} where they are to stand")
    })
}

fn remove_others(dir: &Path, pictures: &[Picture]) -> anyhow::Result<()> {
    let made: BTreeSet<&str> = pictures.iter().map(|picture| picture.file.as_str()).collect();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let ours = Path::new(&name).extension().is_some_and(|extension| extension == "svg");
        if ours && entry.file_type()?.is_file() && !name.to_str().is_some_and(|name| made.contains(name)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{Curve, Part, Row, Run, Side, Timeline, ZoneRow};

    fn report() -> Report {
        let side = |name: &str| Some(Side { name: name.into(), value: 3.0, unit: "µs".into(), spread: 0.0 });
        let part =
            |name: &str, holds| Part { name: name.into(), value: 2.0, unit: "x".into(), holds, ..Part::default() };
        let row = Row {
            id: "P1".into(),
            title: "a view called <script>".into(),
            holds: Some(false),
            ours: side("Stoa"),
            peer: side("Redis | 7"),
            parts: vec![part("point", Some(true)), part("vectors", Some(false))],
            bound_by: vec!["core::ptr::copy<T>".into()],
            notes: vec![format!("first\n{END}\nlast")],
            repeat: "stoa-bench bars --only P1".into(),
            ..Row::default()
        };
        Report {
            day: "2026-11-27".into(),
            rows: vec![row],
            curves: vec![Curve { name: "Stoa".into(), ..Curve::default() }],
            timelines: vec![Timeline { name: "loss [of] b".into(), ..Timeline::default() }],
            zones: vec![ZoneRow { client: "a".into(), replica: "b".into(), ..ZoneRow::default() }],
            runs: vec![Run { name: "vectors".into(), void: Some("wrong".into()), ..Run::default() }],
            ..Report::default()
        }
    }

    #[test]
    fn a_page_has_everything_and_all_of_it_as_text() {
        let report = report();
        let page = page(&report, &pictures(&report).unwrap());
        for line in [
            "## Figures of 2026-11-27",
            "| P1 | a view called \\<script> | – | – | Stoa: 3 µs | Redis \\| 7: 3 µs | **no** |",
            "#### P1: a view called \\<script>",
            "| vectors | 2 x | – | – | – | **no** |",
            "- bound by: `core::ptr::copy<T>`",
            "- note: first \\<!-- figures: end --> last",
            "### Zones",
            "### Runs",
            "![Latency against throughput](benchmarks/latency.svg)",
            "![loss \\[of\\] b](benchmarks/timeline-loss-of-b.svg)",
            "| P1 | `stoa-bench bars --only P1` |",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} in {page}");
        }
        assert!(page.contains("void: wrong"));
    }

    #[test]
    fn what_people_wrote_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let doc = dir.path().join("benchmarks.md");
        let (before, after) = ("# Benchmarks\r\n\nBy hand.\n", "\n## Also by hand\n\nno line end");
        std::fs::write(&doc, format!("{before}{BEGIN}\nold figures\n{END}\n{after}")).unwrap();
        write_into(&doc, &report()).unwrap();
        let first = std::fs::read_to_string(&doc).unwrap();
        assert!(
            first.starts_with(&format!("{before}{BEGIN}\n")) && first.ends_with(&format!("{END}\n{after}")),
            "{first}"
        );
        assert!(first.contains("## Figures of 2026-11-27") && !first.contains("old figures"));
        write_into(&doc, &report()).unwrap();
        assert_eq!(std::fs::read_to_string(&doc).unwrap(), first, "equal reports give equal bytes");
    }

    #[test]
    fn pictures_of_older_runs_go_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let doc = dir.path().join("benchmarks.md");
        std::fs::write(&doc, format!("{BEGIN}\n{END}\n")).unwrap();
        let pictures = dir.path().join(PICTURES_DIR);
        std::fs::create_dir(&pictures).unwrap();
        std::fs::write(pictures.join("timeline-old.svg"), "").unwrap();
        std::fs::write(pictures.join("notes.txt"), "").unwrap();
        write_into(&doc, &report()).unwrap();
        let files = || {
            let entries = std::fs::read_dir(&pictures).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        assert_eq!(files(), ["latency.svg", "notes.txt", "timeline-loss-of-b.svg"].map(str::to_owned).into());
        write_into(&doc, &Report::default()).unwrap();
        assert_eq!(files(), ["notes.txt".to_owned()].into());
    }

    #[test]
    fn without_its_lines_a_document_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let doc = dir.path().join("benchmarks.md");
        let cases = [
            ("by hand\n".to_owned(), format!("the line {BEGIN} is missing")),
            (format!("{BEGIN}\n"), format!("the line {END} is missing")),
            (format!("{END}\n{BEGIN}\n"), "is before".to_owned()),
            (format!("{BEGIN}\n{BEGIN}\n{END}\n"), "is there twice".to_owned()),
            (format!("text {BEGIN}\n{END}\n"), format!("the line {BEGIN} is missing")),
        ];
        for (text, expected) in cases {
            std::fs::write(&doc, &text).unwrap();
            let error = format!("{:#}", write_into(&doc, &report()).unwrap_err());
            assert!(error.contains(&expected) && error.contains("benchmarks.md"), "{error}");
            assert_eq!(std::fs::read_to_string(&doc).unwrap(), text);
            assert!(!dir.path().join(PICTURES_DIR).exists(), "nothing is written");
        }
    }
}
