//! The document as one HTML file, which needs nothing beside it: pictures and style are in it, and it loads nothing.

use super::document::{Block, document, title};
use super::model::Report;
use super::picture::Picture;
use super::text;

/// Wide tables scroll by themselves, so that the page does not.
const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1, h2, h3, h4 { line-height: 1.2; margin: 2rem 0 0.75rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { border: 1px solid #8886; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
th { background: #8882; }
.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
td strong { color: #d33; }
figure { margin: 1.5rem 0; }
figcaption { color: #777; font-size: 14px; }
svg { height: auto; max-width: 100%; }
";

/// The figures of a run as a whole HTML file.
pub fn html(report: &Report, pictures: &[Picture]) -> String {
    let title = text::html(&format!("Stoa: {}", title(report)));
    // The policy is a second lock: what a name might yet smuggle in would be neither run nor loaded.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    for block in document(report, pictures) {
        match block {
            // The first heading of a run is that of the file.
            Block::Heading(level, text) => {
                let level = level.saturating_sub(1).max(1);
                out += &format!("<h{level}>{}</h{level}>\n", text::html(&text));
            }
            Block::Text(text) => out += &format!("<p>{}</p>\n", text::html(text)),
            Block::Points(points) => {
                out += "<ul>\n";
                points.iter().for_each(|point| out += &format!("<li>{}: {}</li>\n", point.label, point.cell.html()));
                out += "</ul>\n";
            }
            Block::Table(table) => out += &table.html(),
            Block::Picture(Picture { title, svg, .. }) => {
                out += &format!("<figure>\n{svg}<figcaption>{}</figcaption>\n</figure>\n", text::html(title));
            }
        }
    }
    out + "</body>\n</html>\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::model::{Curve, Event, Part, Row, Run, Side, Timeline, ZoneRow};
    use crate::report::pictures;

    const NAME: &str = "<script>alert('x')</script>";

    /// Has the name wherever one can come from outside.
    fn named() -> Report {
        let name = || NAME.to_owned();
        let side = || Some(Side { name: name(), unit: name(), ..Side::default() });
        let part =
            Part { name: name(), unit: name(), bar: name(), void: Some(name()), ours: side(), ..Part::default() };
        let row = Row {
            id: name(),
            title: name(),
            bar: name(),
            void: None,
            holds: Some(false),
            not_measurable: None,
            ours: side(),
            peer: side(),
            parts: vec![part; 2],
            repeat: name(),
            bound_by: vec![name()],
            notes: vec![name()],
            ..Row::default()
        };
        let void = Row { void: Some(name()), ..Row::default() };
        let missing = Row { not_measurable: Some(name()), ..Row::default() };
        let event = Event { at_s: 0.5, what: name() };
        Report {
            run: name(),
            machine: json!({ NAME: NAME }),
            options: json!({ NAME: { NAME: [NAME] } }),
            day: name(),
            took_s: 1.0,
            rows: vec![row, void, missing],
            curves: vec![Curve { name: name(), ..Curve::default() }],
            timelines: vec![Timeline { name: name(), events: vec![event], ..Timeline::default() }],
            zones: vec![ZoneRow { client: name(), replica: name(), ..ZoneRow::default() }],
            runs: vec![Run { name: name(), void: Some(name()), more: [(name(), 1.0)].into(), ..Run::default() }],
        }
    }

    #[test]
    fn a_view_called_script_is_text() {
        let report = named();
        let html = html(&report, &pictures(&report).unwrap());
        assert!(!html.to_lowercase().contains("<script"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
    }

    #[test]
    fn the_file_needs_nothing_beside_it() {
        let report = named();
        let html = html(&report, &pictures(&report).unwrap());
        let without_names = html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for loads in ["http:", "https:", "src=", "href=", "url(", "@import"] {
            assert!(!without_names.contains(loads), "{loads} in {html}");
        }
        assert_eq!(html.matches("<svg").count(), 2);
    }

    #[test]
    fn verdicts_are_those_of_the_page() {
        let row = |id: &str| Row { id: id.into(), ..Row::default() };
        let rows = vec![
            Row { holds: Some(true), ..row("P1") },
            Row { holds: Some(false), ..row("P2") },
            Row { void: Some("wrong".into()), ..row("P3") },
            Row { not_measurable: Some("one core".into()), ..row("P4") },
        ];
        let html = html(&Report { rows, ..Report::default() }, &[]);
        for cell in ["yes", "<strong>no</strong>", "void: wrong", "not measurable: one core"] {
            assert!(html.contains(&format!("<td>{cell}</td>")), "{cell} in {html}");
        }
    }
}
