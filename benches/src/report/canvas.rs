//! An SVG's text, marks and legend. Positions are pixels from the upper left corner.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::text;

/// Colours of systems and lines, told apart with any eyes and on white (Okabe and Ito, "Color Universal Design", 2008).
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(170, 68, 153),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// The colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// The colour of what is beside the matter.
pub const GREY: RGBColor = RGBColor(130, 130, 130);
/// Height of a line of text.
pub const LINE_HEIGHT: i32 = 16;
/// The width of a character of [`draw_text`], about: an SVG's fonts are those of whoever looks at it.
pub const CHAR_WIDTH: f64 = 6.4;

const FONT_SIZE: f64 = 12.0;
const TITLE_SIZE: f64 = 15.0;
/// Plotters writes sizes of fonts divided by this.
const FONT_FACTOR: f64 = 1.24;
const LEGEND_CHARS_MAX: usize = 20;
const LEGEND_LINES_MAX: usize = 3;

/// Where an SVG is drawn.
pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws an SVG of this size, on white, so that it can be read on a dark page too.
pub fn draw(size: (u32, u32), on: impl FnOnce(&Canvas) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        canvas.fill(&WHITE)?;
        on(&canvas)?;
        canvas.present()?;
    }
    Ok(svg)
}

/// Where text stands beside its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
}

/// A font of this size.
pub fn font(size: f64) -> TextStyle<'static> {
    ("sans-serif", size * FONT_FACTOR).into_font().color(&INK)
}

/// The font of axes and labels.
pub fn label_font() -> TextStyle<'static> {
    font(FONT_SIZE)
}

/// Writes a line of text.
pub fn draw_text(canvas: &Canvas, text: &str, at: (i32, i32), anchor: Anchor) -> anyhow::Result<()> {
    let horizontal = match anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
    };
    let style = label_font().pos(Pos::new(horizontal, VPos::Center));
    Ok(canvas.draw_text(&text::one_line(text), &style, at)?)
}

/// Writes the title of the whole, cut to its width.
pub fn draw_title(canvas: &Canvas, title: &str) -> anyhow::Result<()> {
    let width = f64::from(canvas.dim_in_pixel().0);
    let chars_max = (width / (CHAR_WIDTH * TITLE_SIZE / FONT_SIZE)) as usize;
    let style = font(TITLE_SIZE).pos(Pos::new(HPos::Left, VPos::Center));
    Ok(canvas.draw_text(&text::shortened(title, chars_max), &style, (12, 18))?)
}

/// How the points of a line are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Not at all.
    Nothing,
    /// By circles.
    Circle,
    /// By triangles.
    Triangle,
    /// By crosses.
    Cross,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Pen {
    /// Its colour.
    pub colour: RGBColor,
    /// Its width.
    pub width: u32,
    /// Its points.
    pub mark: Mark,
}

/// Draws a line, or the mark of its only point.
pub fn draw_line(canvas: &Canvas, points: &[(i32, i32)], pen: Pen) -> anyhow::Result<()> {
    let style = pen.colour.stroke_width(pen.width);
    match points {
        [] => return Ok(()),
        // A line of one point is nothing to see.
        [only] if pen.mark == Mark::Nothing => canvas.draw(&Circle::new(*only, pen.width, pen.colour.filled()))?,
        [_] => {}
        _ => canvas.draw(&PathElement::new(points.to_vec(), style))?,
    }
    for at in points {
        match pen.mark {
            Mark::Nothing => break,
            Mark::Circle => canvas.draw(&Circle::new(*at, 3, pen.colour.filled()))?,
            Mark::Triangle => canvas.draw(&TriangleMarker::new(*at, 5, pen.colour.filled()))?,
            Mark::Cross => canvas.draw(&Cross::new(*at, 4, pen.colour.stroke_width(2)))?,
        }
    }
    Ok(())
}

/// Draws a filled rectangle between two corners, at least so wide that it is seen.
pub fn draw_bar(canvas: &Canvas, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> anyhow::Result<()> {
    let to = (to.0.max(from.0 + 2), to.1);
    Ok(canvas.draw(&Rectangle::new([from, to], colour.filled()))?)
}

/// One line of a legend.
#[derive(Debug, Clone)]
pub struct Entry {
    /// How what it names is drawn.
    pub pen: Pen,
    /// Whether it is drawn as lines or as bars.
    pub sample: Sample,
    /// What it is.
    pub text: String,
}

/// The picture in front of a legend's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A line with a mark.
    Line,
    /// A bar.
    Bar,
}

/// Draws a legend downwards from its upper left corner.
pub fn draw_legend(canvas: &Canvas, (left, top): (i32, i32), entries: &[Entry]) -> anyhow::Result<()> {
    let mut y = top + LINE_HEIGHT / 2;
    for Entry { pen, sample, text } in entries {
        match sample {
            Sample::Line => {
                draw_line(canvas, &[(left, y), (left + 24, y)], Pen { mark: Mark::Nothing, ..*pen })?;
                if pen.mark != Mark::Nothing {
                    draw_line(canvas, &[(left + 12, y)], *pen)?;
                }
            }
            Sample::Bar => draw_bar(canvas, (left + 8, y - 5), (left + 16, y + 5), pen.colour)?,
        }
        for line in text::wrapped(text, LEGEND_CHARS_MAX, LEGEND_LINES_MAX) {
            draw_text(canvas, &line, (left + 32, y), Anchor::Start)?;
            y += LINE_HEIGHT;
        }
        y += LINE_HEIGHT / 4;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_text() {
        let entry = Entry {
            pen: Pen { colour: INK, width: 1, mark: Mark::Cross },
            sample: Sample::Line,
            text: "</svg>\u{0}\u{1b}".into(),
        };
        let svg = draw((300, 200), |canvas| {
            draw_title(canvas, "<script>&\"")?;
            draw_legend(canvas, (10, 40), &[entry])
        });
        let svg = svg.unwrap();
        assert!(svg.contains("&lt;script&gt;&amp;&quot;") && svg.contains("&lt;/svg&gt;"), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert!(!svg.contains(|c: char| c.is_control() && c != '\n'), "no XML has other control characters");
    }

    #[test]
    fn the_ground_is_white() {
        let svg = draw((300, 200), |_| Ok(())).unwrap();
        assert!(svg.contains("<rect x=\"0\" y=\"0\" width=\"300\" height=\"200\""), "{svg}");
        assert!(svg.contains("fill=\"#FFFFFF\""), "{svg}");
    }
}
