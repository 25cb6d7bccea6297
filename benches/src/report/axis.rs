//! Scales and their ticks. Any value has a place or none: one that is no number, or that a logarithm does not know, has
//! none, and one beyond an end stands at that end. An axis is never empty, whatever it was made from.

use super::text;

/// The least and the greatest value that a logarithmic axis shows; others stand at its ends. In milliseconds: a
/// nanosecond, and eleven days.
const LOG_MIN: f64 = 1e-6;
/// See [`LOG_MIN`].
const LOG_MAX: f64 = 1e9;
/// The greatest value of the other axes: whole numbers up to here differ in their labels.
const LINEAR_MAX: f64 = 1e12;
/// With more ticks than these, an axis is labelled at powers of ten alone.
const LABELS_MAX: usize = 9;

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    /// By the logarithm; only what is above 0 has a place.
    Log,
    /// By the logarithm of one more, so that 0 has a place and 1 can be told from it.
    LogFromZero,
}

impl Scale {
    /// A value's position, if it has one.
    fn position(self, value: f64) -> Option<f64> {
        let position = match self {
            Self::Linear => value,
            Self::Log if value > 0.0 => value.log10(),
            Self::LogFromZero if value >= 0.0 => (1.0 + value).log10(),
            _ => return None,
        };
        (!position.is_nan()).then_some(position)
    }
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it shows, with the unit.
    pub name: String,
    /// Positions that are labelled, ascending, each from 0 to 1.
    pub ticks: Vec<(f64, String)>,
    scale: Scale,
    start: f64,
    end: f64,
}

impl Axis {
    /// From one value to another, in equal steps.
    pub fn linear(name: &str, from: f64, to: f64) -> Self {
        let tame = |value: f64| if value.is_nan() { 0.0 } else { value.clamp(-LINEAR_MAX, LINEAR_MAX) };
        let (start, mut end) = (tame(from), tame(to));
        // Less than this cannot be told apart in labels.
        if end - start < 1e-6 * start.abs().max(1.0) {
            end = start + 1.0;
        }
        let step = step_above((end - start) / LABELS_MAX as f64);
        let decimals = usize::try_from(-(step.log10() + 1e-9).floor() as i64).unwrap_or_default();
        let ticks = ((start / step).ceil() as i64..=(end / step).floor() as i64).map(|n| {
            let value = n as f64 * step;
            (value, text::grouped(&format!("{value:.decimals$}")))
        });
        let ticks = ticks.collect();
        Self::new(name, Scale::Linear, (start, end), ticks)
    }

    /// Around these values, each power of ten as high as the others.
    pub fn log(name: &str, values: impl Iterator<Item = f64>) -> Self {
        let values = values.filter(|value| *value > 0.0).map(|value| value.clamp(LOG_MIN, LOG_MAX));
        let (least, greatest) = ends(values).unwrap_or((1.0, 10.0));
        let steps: Vec<f64> = (-6..=9).flat_map(steps_of).collect();
        let first = steps.iter().rposition(|step| *step <= least * (1.0 + 1e-9)).unwrap_or(0);
        let last = steps.iter().position(|step| *step >= greatest * (1.0 - 1e-9)).unwrap_or(steps.len() - 1);
        // A single value stands in the middle of what is around it.
        let (first, last) =
            if first < last { (first, last) } else { (first.saturating_sub(1), (last + 1).min(steps.len() - 1)) };
        Self::new(name, Scale::Log, (steps[first], steps[last]), labelled(&steps[first..=last]))
    }

    /// From 0 to the greatest of these counts, each power of ten as high as the others.
    pub fn counts(name: &str, values: impl Iterator<Item = u64>) -> Self {
        let greatest = values.max().unwrap_or_default().max(1) as f64;
        let steps: Vec<f64> = (0..=20).flat_map(steps_of).collect();
        let last = steps.iter().position(|step| *step >= greatest).unwrap_or(steps.len() - 1);
        let mut ticks = labelled(&steps[..=last]);
        ticks.insert(0, (0.0, "0".to_owned()));
        Self::new(name, Scale::LogFromZero, (0.0, steps[last]), ticks)
    }

    fn new(name: &str, scale: Scale, (from, to): (f64, f64), values: Vec<(f64, String)>) -> Self {
        let start = scale.position(from).expect("an axis starts at a value of its scale");
        let end = scale.position(to).expect("an axis ends at a value of its scale");
        assert!(start < end, "axis {name:?} is empty: from {from} to {to}");
        let mut axis = Self { name: name.to_owned(), ticks: Vec::new(), scale, start, end };
        axis.ticks = values.into_iter().filter_map(|(value, label)| Some((axis.place(value)?, label))).collect();
        axis
    }

    /// Where a value stands, from 0 to 1; `None` if it is none that can be shown.
    pub fn place(&self, value: f64) -> Option<f64> {
        let position = self.scale.position(value)?;
        Some(((position - self.start) / (self.end - self.start)).clamp(0.0, 1.0))
    }
}

/// The steps 1, 2 and 5 of a power of ten.
fn steps_of(power: i32) -> [f64; 3] {
    [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power))
}

/// The least step of 1, 2 or 5 times a power of ten that is not less than this.
fn step_above(value: f64) -> f64 {
    let power = value.log10().floor() as i32;
    let steps = steps_of(power).into_iter().chain(steps_of(power + 1));
    steps.into_iter().find(|step| *step >= value).expect("ten times a power of ten is above what it was taken from")
}

/// The least and the greatest of what is a number.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let values = values.filter(|value| !value.is_nan());
    values.fold(None, |ends, value| match ends {
        None => Some((value, value)),
        Some((least, greatest)) => Some((value.min(least), value.max(greatest))),
    })
}

/// Labels of ascending steps of 1, 2 and 5: of all, or of the powers of ten if there were too many.
fn labelled(steps: &[f64]) -> Vec<(f64, String)> {
    let is_power = |value: f64| (value.log10() - value.log10().round()).abs() < 1e-9;
    let few = steps.len() <= LABELS_MAX;
    let label = |value: f64| match value {
        _ if value >= 1e15 => format!("{value:e}"),
        _ if value >= 1.0 => text::grouped(&format!("{value:.0}")),
        _ => format!("{value:.6}").trim_end_matches('0').to_owned(),
    };
    steps.iter().filter(|step| few || is_power(**step)).map(|step| (*step, label(*step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Axis::linear("x", 0.0, 42_000.0))[..3], ["0", "5,000", "10,000"]);
        assert_eq!(labels(&Axis::linear("x", 0.3, 1.0)), ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]);
        assert_eq!(labels(&Axis::log("y", [0.3, 7.0].into_iter())), ["0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(labels(&Axis::log("y", [0.001, 3_000.0].into_iter()))[..4], ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(&Axis::counts("n", [0, 1_000].into_iter())), ["0", "1", "10", "100", "1,000"]);
    }

    #[test]
    fn no_axis_is_empty_and_no_value_is_beyond_it() {
        let odd = [0.0, -0.0, -1.0, 1e-300, 1e300, 5e-324, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];
        for one in odd {
            for other in odd {
                let axes = [
                    Axis::linear("x", one, other),
                    Axis::log("y", [one, other].into_iter()),
                    Axis::counts("n", [one as u64, other as u64].into_iter()),
                ];
                for axis in axes {
                    assert!(axis.ticks.len() < 30, "{axis:?}");
                    for place in odd.iter().filter_map(|value| axis.place(*value)) {
                        assert!((0.0..=1.0).contains(&place), "{axis:?} puts a value at {place}");
                    }
                }
            }
        }
        assert!(!Axis::log("y", std::iter::empty()).ticks.is_empty());
        assert!(!Axis::counts("n", std::iter::empty()).ticks.is_empty());
    }

    #[test]
    fn zero_has_no_place_on_a_logarithm_and_one_where_it_is_counted() {
        assert_eq!(Axis::log("y", [0.0, 1.0].into_iter()).place(0.0), None);
        assert_eq!(Axis::counts("n", [5].into_iter()).place(0.0), Some(0.0));
        assert_eq!(Axis::linear("x", 0.0, 1.0).place(f64::NAN), None);
        assert_eq!(Axis::linear("x", 0.0, 1.0).place(f64::INFINITY), Some(1.0));
    }
}
