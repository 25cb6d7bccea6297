//! One table, as Markdown, as HTML, for a terminal.

use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement};

use super::text;

/// Columns of a terminal that a table fills at most. Wider than the usual 80, which would break most cells of the bars.
const TERMINAL_WIDTH: u16 = 150;

/// What stands in a cell, or in a point of a list. Its text is as it came: each way of writing it escapes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Text.
    Text(String),
    /// Text that must not be overlooked.
    Strong(String),
    /// Text as it is typed.
    Code(String),
    /// A figure; a column of figures is aligned to the right.
    Number(String),
    /// There is nothing to say.
    Missing,
}

impl Cell {
    /// A number and its unit.
    pub fn figure(value: f64, unit: &str) -> Self {
        Self::Number(text::figure(value, unit))
    }

    /// A number, if there is one.
    pub fn number(value: impl Into<Option<f64>>) -> Self {
        value.into().map_or(Self::Missing, |value| Self::Number(text::number(value)))
    }

    /// A count, with all its digits.
    pub fn count(value: u64) -> Self {
        Self::Number(text::count(value))
    }

    /// Text, if there is any.
    pub fn text(text: &str) -> Self {
        if text.trim().is_empty() { Self::Missing } else { Self::Text(text.to_owned()) }
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        match self {
            Self::Text(text) | Self::Number(text) => text::markdown(text),
            Self::Strong(text) => format!("**{}**", text::markdown(text)),
            Self::Code(text) => text::markdown_code(text),
            Self::Missing => "–".to_owned(),
        }
    }

    /// As HTML.
    pub fn html(&self) -> String {
        match self {
            Self::Text(text) | Self::Number(text) => text::html(text),
            Self::Strong(text) => format!("<strong>{}</strong>", text::html(text)),
            Self::Code(text) => format!("<code>{}</code>", text::html(text)),
            Self::Missing => "–".to_owned(),
        }
    }

    /// For a terminal, where capitals stand for strong text.
    fn terminal(&self) -> String {
        match self {
            Self::Text(text) | Self::Number(text) | Self::Code(text) => text::one_line(text),
            Self::Strong(text) => text::one_line(text).to_uppercase(),
            Self::Missing => "–".to_owned(),
        }
    }
}

/// A table: every row has a cell for every column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The names of the columns.
    pub head: Vec<&'static str>,
    /// The rows, top to bottom.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table of these rows.
    pub fn new<const N: usize>(head: [&'static str; N], rows: impl IntoIterator<Item = [Cell; N]>) -> Self {
        Self { head: head.to_vec(), rows: rows.into_iter().map(Vec::from).collect() }
    }

    /// As Markdown, each row a line.
    pub fn markdown(&self) -> String {
        let mut out = format!("| {} |\n|", self.head.join(" | "));
        (0..self.head.len()).for_each(|column| out += if self.is_numeric(column) { "---:|" } else { "---|" });
        out.push('\n');
        for row in &self.rows {
            let cells = row.iter().map(|cell| match cell {
                Cell::Code(_) => cell.markdown().replace('|', "\\|"),
                _ => cell.markdown(),
            });
            out += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        }
        out
    }

    /// As HTML.
    pub fn html(&self) -> String {
        let class = |column| if self.is_numeric(column) { " class=\"number\"" } else { "" };
        let mut out = "<div class=\"table\"><table>\n<thead><tr>".to_owned();
        for (column, name) in self.head.iter().enumerate() {
            let _ = write!(out, "<th{}>{}</th>", class(column), text::html(name));
        }
        out += "</tr></thead>\n<tbody>\n";
        for row in &self.rows {
            out += "<tr>";
            for (column, cell) in row.iter().enumerate() {
                let _ = write!(out, "<td{}>{}</td>", class(column), cell.html());
            }
            out += "</tr>\n";
        }
        out + "</tbody></table></div>\n"
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(TERMINAL_WIDTH)
            .set_header(&self.head);
        for row in &self.rows {
            table.add_row(row.iter().map(Cell::terminal));
        }
        for column in (0..self.head.len()).filter(|column| self.is_numeric(*column)) {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|row| row.get(column));
        let all = cells.clone().all(|cell| matches!(cell, Cell::Number(_) | Cell::Missing));
        all && cells.any(|cell| matches!(cell, Cell::Number(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new(
            ["what", "value", "command"],
            [
                [Cell::Text("a | b <script>".into()), Cell::figure(1_234.0, "µs"), Cell::Code("x | y".into())],
                [Cell::Strong("no".into()), Cell::Missing, Cell::text("")],
            ],
        )
    }

    #[test]
    fn markdown_escapes_bars_and_aligns_numbers() {
        assert_eq!(
            table().markdown(),
            "| what | value | command |\n|---|---:|---|\n\
             | a \\| b \\<script> | 1,230 µs | `x \\| y` |\n| **no** | – | – |\n"
        );
    }

    #[test]
    fn html_escapes_tags() {
        let html = table().html();
        assert!(html.contains("<td>a | b &lt;script&gt;</td><td class=\"number\">1,230 µs</td><td><code>x | y</code>"));
        assert!(html.contains("<td><strong>no</strong></td>"));
    }

    #[test]
    fn a_terminal_sees_strong_text_in_capitals() {
        let text = table().terminal();
        assert!(text.contains("NO") && text.contains("1,230 µs") && text.contains("<script>"), "{text}");
    }

    #[test]
    fn a_table_without_rows_is_its_head() {
        let table = Table::new(["a", "b"], []);
        assert_eq!(table.markdown(), "| a | b |\n|---|---|\n");
        assert!(table.terminal().contains('a'));
    }
}
