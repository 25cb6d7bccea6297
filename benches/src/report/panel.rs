//! Two axes, and what is drawn between them.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use super::axis::Axis;
use super::canvas::{self, Canvas, LINE_HEIGHT, Pen};

const GRID: RGBColor = RGBColor(225, 225, 225);
const TICK: i32 = 4;

/// Room for the labels and the name of the vertical axis.
pub const LEFT: i32 = 74;
/// Room for the labels and the name of the horizontal axis.
pub const BELOW: i32 = 44;

/// What stands below a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// The labels and the name of its horizontal axis, in [`BELOW`] pixels.
    Labels,
    /// Nothing, because another panel with the same axis is there.
    Nothing,
}

/// Two axes on a canvas.
pub struct Panel<'a, 'b> {
    canvas: &'a Canvas<'b>,
    x: Axis,
    y: Axis,
    /// Pixels between the axes, from left to right and from top to bottom.
    columns: Range<i32>,
    lines: Range<i32>,
}

impl<'a, 'b> Panel<'a, 'b> {
    /// Draws the axes. The pixels are those between them; labels take [`LEFT`] more, and what `below` says.
    pub fn new(
        canvas: &'a Canvas<'b>,
        (x, y): (Axis, Axis),
        (columns, lines): (Range<i32>, Range<i32>),
        below: Below,
    ) -> anyhow::Result<Self> {
        let panel = Self { canvas, x, y, columns, lines };
        panel.draw_axes(below)?;
        Ok(panel)
    }

    fn draw_axes(&self, below: Below) -> anyhow::Result<()> {
        let height = if below == Below::Labels { BELOW } else { 0 };
        let corner = (self.columns.start - LEFT, self.lines.start);
        let size = (self.columns.end - corner.0, self.lines.end + height - corner.1);
        let area = self.canvas.clone().shrink(corner, size);
        let mut chart = ChartBuilder::on(&area)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, height)
            .build_cartesian_2d(Ticks(self.x.clone()), Ticks(self.y.clone()))?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .axis_style(canvas::GREY)
            .label_style(canvas::label_font())
            .set_all_tick_mark_size(TICK)
            .x_desc(&self.x.name)
            .y_desc(&self.y.name)
            .draw()?;
        Ok(())
    }

    /// The column of a value of the horizontal axis.
    pub fn column(&self, x: f64) -> Option<i32> {
        let width = f64::from(self.columns.end - self.columns.start);
        Some(self.columns.start + (self.x.place(x)? * width).round() as i32)
    }

    /// The line of a value of the vertical axis.
    pub fn line(&self, y: f64) -> Option<i32> {
        let height = f64::from(self.lines.end - self.lines.start);
        Some(self.lines.end - (self.y.place(y)? * height).round() as i32)
    }

    /// Draws a line through points. Where one has no place on an axis, the line has a gap.
    pub fn draw_line(&self, points: impl Iterator<Item = (f64, f64)>, pen: Pen) -> anyhow::Result<()> {
        let mut run = Vec::new();
        for (x, y) in points {
            match (self.column(x), self.line(y)) {
                (Some(column), Some(line)) => run.push((column, line)),
                _ => canvas::draw_line(self.canvas, &std::mem::take(&mut run), pen)?,
            }
        }
        canvas::draw_line(self.canvas, &run, pen)
    }

    /// Draws bars, each from one value of the horizontal axis to another and up to a value of the vertical one, if that
    /// is above 0.
    pub fn draw_bars(&self, bars: impl Iterator<Item = (Range<f64>, f64)>, colour: RGBColor) -> anyhow::Result<()> {
        for (range, y) in bars.filter(|(_, y)| *y > 0.0) {
            if let (Some(from), Some(to), Some(line)) = (self.column(range.start), self.column(range.end), self.line(y))
            {
                canvas::draw_bar(self.canvas, (from, line), (to, self.lines.end), colour)?;
            }
        }
        Ok(())
    }

    /// Says in the middle that there is nothing to see.
    pub fn draw_nothing_measured(&self) -> anyhow::Result<()> {
        let middle =
            ((self.columns.start + self.columns.end) / 2, (self.lines.start + self.lines.end - LINE_HEIGHT) / 2);
        canvas::draw_text(self.canvas, "nothing was measured", middle, canvas::Anchor::Middle)
    }
}

/// An axis as Plotters wants it, over places from 0 to 1: Plotters' own scales know neither zero nor an empty range.
struct Ticks(Axis);

impl Ranged for Ticks {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * place).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.0.ticks.iter().map(|(place, _)| *place).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        0.0..1.0
    }
}

impl ValueFormatter<f64> for Ticks {
    fn format_ext(&self, place: &f64) -> String {
        let tick = self.0.ticks.iter().find(|(at, _)| at == place);
        tick.map_or_else(String::new, |(_, label)| label.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::canvas::{COLOURS, draw};

    #[test]
    fn what_is_beyond_an_axis_stands_at_its_end_and_zero_has_no_bar() {
        let svg = draw((400, 300), |on| {
            let axes = (Axis::linear("x, s", 0.0, 10.0), Axis::counts("y", [10].into_iter()));
            let panel = Panel::new(on, axes, (LEFT..390, 10..250), Below::Labels)?;
            assert_eq!([panel.column(-5.0), panel.column(50.0), panel.column(f64::NAN)], [Some(LEFT), Some(390), None]);
            assert_eq!([panel.line(0.0), panel.line(1e9), panel.line(-1.0)], [Some(250), Some(10), None]);
            panel.draw_bars([(0.0..1.0, 0.0), (2.0..2.0, 5.0), (f64::NAN..1.0, 5.0)].into_iter(), COLOURS[0])
        });
        let svg = svg.unwrap();
        assert!(svg.contains("x, s") && svg.contains(">\n10\n<"), "{svg}");
        assert_eq!(svg.matches("fill=\"#0072B2\"").count(), 1, "a bar without a width is seen, one of zero is not");
    }
}
