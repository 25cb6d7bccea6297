//! Picture: throughput against latency, of one system or of several. Points are joined in the order of the rates that
//! were asked for: beyond its peak a system answers less, and its line turns back.

use super::axis::Axis;
use super::canvas::{self, COLOURS, Entry, INK, Mark, Pen, Sample};
use super::model::{Curve, CurvePoint};
use super::panel::{BELOW, Below, LEFT, Panel};

const SIZE: (i32, i32) = (960, 480);
const TOP: i32 = 44;
const LEGEND_WIDTH: i32 = 190;

/// A latency of a point in microseconds, by its name, and how it is drawn.
type Quantile = (&'static str, fn(&CurvePoint) -> f64, Mark);

const QUANTILES: [Quantile; 3] = [
    ("p50", |point| point.p50_us, Mark::Circle),
    ("p99", |point| point.p99_us, Mark::Triangle),
    ("p99.9", |point| point.p999_us, Mark::Cross),
];

/// As many systems as there are colours, at most: more cannot be told apart.
pub const CURVES_MAX: usize = COLOURS.len();

/// Draws curves of at most [`CURVES_MAX`] systems.
pub fn draw(title: &str, curves: &[Curve]) -> anyhow::Result<String> {
    assert!(curves.len() <= CURVES_MAX, "{} curves, of which {CURVES_MAX} can be told apart", curves.len());
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let answered_max = points().map(|point| point.answered).filter(|rate| rate.is_finite()).fold(0.0, f64::max);
    let latencies = points().flat_map(|point| QUANTILES.map(|(_, of, _)| of(point) / 1_000.0));
    let x = Axis::linear("answered requests/s", 0.0, answered_max * 1.03);
    let y = Axis::log("latency from when a request was due, ms", latencies);
    canvas::draw((SIZE.0 as u32, SIZE.1 as u32), |on| {
        canvas::draw_title(on, title)?;
        let columns = LEFT + 8..SIZE.0 - LEGEND_WIDTH;
        let panel = Panel::new(on, (x, y), (columns, TOP..SIZE.1 - BELOW - 6), Below::Labels)?;
        if points().next().is_none() {
            panel.draw_nothing_measured()?;
        }
        for (curve, colour) in curves.iter().zip(COLOURS) {
            for (_, of, mark) in QUANTILES {
                let points = curve.points.iter().map(|point| (point.answered, of(point) / 1_000.0));
                panel.draw_line(points, Pen { colour, width: 2, mark })?;
            }
        }
        canvas::draw_legend(on, (SIZE.0 - LEGEND_WIDTH + 14, TOP), &legend(curves))
    })
}

/// The systems by colour, then the quantiles by mark.
fn legend(curves: &[Curve]) -> Vec<Entry> {
    let systems = curves.iter().zip(COLOURS).map(|(curve, colour)| Entry {
        pen: Pen { colour, width: 3, mark: Mark::Nothing },
        sample: Sample::Line,
        text: curve.name.clone(),
    });
    let quantiles = QUANTILES.into_iter().map(|(name, _, mark)| Entry {
        pen: Pen { colour: INK, width: 1, mark },
        sample: Sample::Line,
        text: name.to_owned(),
    });
    systems.chain(quantiles).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(answered: f64, us: f64) -> CurvePoint {
        CurvePoint { rate: answered, answered, p50_us: us, p99_us: us * 2.0, p999_us: us * 5.0 }
    }

    #[test]
    fn equal_curves_give_equal_bytes() {
        let curves = [Curve { name: "Stoa".into(), points: vec![point(1_000.0, 300.0), point(2_000.0, 450.0)] }];
        assert_eq!(draw("latency", &curves).unwrap(), draw("latency", &curves).unwrap());
    }

    #[test]
    fn axes_are_named_with_their_units() {
        let svg = draw("latency", &[Curve { name: "Stoa".into(), points: vec![point(1_000.0, 300.0)] }]).unwrap();
        for text in ["answered requests/s", "ms", "Stoa", "p50", "p99", "p99.9"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }

    #[test]
    fn empty_curves_and_odd_values_are_drawn() {
        draw("", &[]).unwrap();
        assert!(draw("", &[Curve::default()]).unwrap().contains("nothing was measured"));
        let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE];
        let points: Vec<_> = odd.iter().flat_map(|rate| odd.iter().map(|us| point(*rate, *us))).collect();
        let svg = draw("odd", &[Curve { name: String::new(), points }]).unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
