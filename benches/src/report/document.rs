//! What is said of a run, and in which order: headings, tables, lists, pictures. `page` and `html` write it, each in
//! its own way.

use super::figures;
use super::model::{Report, Row};
use super::picture::Picture;
use super::table::{Cell, Table};
use super::verdict::Verdict;

/// One block of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Block<'a> {
    /// A heading of this level, 2 for the first one of a run.
    Heading(u8, String),
    /// A paragraph.
    Text(&'static str),
    /// A list of what is said about a bar.
    Points(Vec<Point>),
    /// A table.
    Table(Table),
    /// A picture.
    Picture(&'a Picture),
}

/// One point of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What kind of point it is. Being ours, it also keeps what follows from being taken for anything but text.
    pub label: &'static str,
    /// What it says.
    pub cell: Cell,
}

/// The document of a run.
pub fn document<'a>(report: &Report, pictures: &'a [Picture]) -> Vec<Block<'a>> {
    let mut blocks = vec![Block::Heading(2, title(report)), Block::Table(figures::facts_table(report))];
    if !report.rows.is_empty() {
        blocks.push(Block::Heading(3, "Bars".to_owned()));
        blocks.push(Block::Table(figures::bars_table(report)));
        report.rows.iter().for_each(|row| push_details(row, &mut blocks));
    }
    if !report.zones.is_empty() {
        blocks.push(Block::Heading(3, "Zones".to_owned()));
        blocks.push(Block::Table(figures::zones_table(report)));
    }
    if !report.runs.is_empty() {
        blocks.push(Block::Heading(3, "Runs".to_owned()));
        blocks.push(Block::Table(figures::runs_table(report)));
    }
    if !pictures.is_empty() {
        blocks.push(Block::Heading(3, "Pictures".to_owned()));
        blocks.extend(pictures.iter().map(Block::Picture));
    }
    let repeat = figures::repeat_table(report);
    if !repeat.rows.is_empty() {
        blocks.push(Block::Heading(3, "How to repeat it".to_owned()));
        blocks.push(Block::Text("Each command measures its bars anew, with whatever they are measured beside."));
        blocks.push(Block::Table(repeat));
    }
    blocks
}

/// The title of the whole.
pub fn title(report: &Report) -> String {
    match report.day.trim() {
        "" => "Figures".to_owned(),
        day => format!("Figures of {day}"),
    }
}

/// What the table of bars has no room for: the parts, if there are several; what bounds a bar that does not hold;
/// notes.
fn push_details(row: &Row, blocks: &mut Vec<Block<'_>>) {
    let mut points = Vec::new();
    if Verdict::of_row(row) == Verdict::No {
        let bounds = row.bound_by.iter().map(|name| Point { label: "bound by", cell: Cell::Code(name.clone()) });
        points.extend(bounds);
    }
    points.extend(row.notes.iter().map(|note| Point { label: "note", cell: Cell::Text(note.clone()) }));
    if row.parts.len() < 2 && points.is_empty() {
        return;
    }
    blocks.push(Block::Heading(4, format!("{}: {}", row.id, row.title)));
    if row.parts.len() > 1 {
        blocks.push(Block::Table(figures::parts_table(row)));
    }
    if !points.is_empty() {
        blocks.push(Block::Points(points));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Part;

    fn headings(report: &Report) -> Vec<String> {
        let blocks = document(report, &[]);
        blocks
            .into_iter()
            .filter_map(|block| if let Block::Heading(_, text) = block { Some(text) } else { None })
            .collect()
    }

    #[test]
    fn a_bar_has_details_if_there_is_more_to_say() {
        let row = |id: &str| Row { id: id.into(), title: "reads".into(), ..Row::default() };
        let bound_by = vec!["memcpy".to_owned()];
        let rows = vec![
            Row { parts: vec![Part::default()], holds: Some(true), ..row("P1") },
            Row { parts: vec![Part::default(); 2], ..row("P2") },
            Row { holds: Some(false), bound_by: bound_by.clone(), ..row("P3") },
            Row { holds: Some(true), bound_by, ..row("P4") },
            Row { holds: Some(true), notes: vec!["one core".into()], ..row("P5") },
        ];
        let report = Report { rows, day: "2026-11-27".into(), ..Report::default() };
        assert_eq!(headings(&report), ["Figures of 2026-11-27", "Bars", "P2: reads", "P3: reads", "P5: reads"]);
    }

    #[test]
    fn an_empty_report_is_its_facts() {
        assert_eq!(headings(&Report::default()), ["Figures"]);
    }
}
