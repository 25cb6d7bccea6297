//! Picture: what became of requests over time. Above, their latencies, with what was done to the cluster as labelled
//! lines; below, over the same time, how many were answered, failed and late in each slot. Counts are drawn by the
//! logarithm of one more, so that a single failed request beside thousands of answers is seen.

use std::ops::Range;

use plotters::style::RGBColor;

use super::axis::Axis;
use super::canvas::{self, Anchor, CHAR_WIDTH, COLOURS, Canvas, Entry, GREY, INK, LINE_HEIGHT, Mark, Pen, Sample};
use super::model::{Event, Slot, Timeline};
use super::panel::{BELOW, Below, LEFT, Panel};
use super::text;

const WIDTH: i32 = 960;
const LEGEND_WIDTH: i32 = 160;
const TITLE_HEIGHT: i32 = 36;
const LATENCY_HEIGHT: i32 = 260;
const GAP: i32 = 24;
const COUNTS_HEIGHT: i32 = 150;
/// Labels of events above one another. Lines of events that find no place for their label are drawn without.
const EVENT_ROWS_MAX: usize = 10;
const EVENT_CHARS_MAX: usize = 60;

/// A latency of a slot in microseconds, by its name, and how it is drawn.
type Latency = (&'static str, fn(&Slot) -> f64, Pen);

const LATENCIES: [Latency; 3] = [
    ("p50", |slot| slot.p50_us, Pen { colour: COLOURS[0], width: 2, mark: Mark::Nothing }),
    ("p99", |slot| slot.p99_us, Pen { colour: COLOURS[3], width: 2, mark: Mark::Nothing }),
    ("max", |slot| slot.max_us, Pen { colour: INK, width: 1, mark: Mark::Nothing }),
];
const ANSWERED: Pen = Pen { colour: COLOURS[2], width: 2, mark: Mark::Nothing };
const LATE: Pen = Pen { colour: RGBColor(240, 196, 90), width: 1, mark: Mark::Nothing };
const FAILED: Pen = Pen { colour: RGBColor(192, 32, 32), width: 1, mark: Mark::Nothing };

/// Draws a time line.
pub fn draw(timeline: &Timeline) -> anyhow::Result<String> {
    let slots = &timeline.slots;
    let columns = LEFT + 8..WIDTH - LEGEND_WIDTH;
    let time = time_axis(timeline);
    let labels = labels(&timeline.events, &time, &columns);
    let rows = labels.iter().filter_map(|label| label.row).map(|row| row + 1).max().unwrap_or(0);
    let top = TITLE_HEIGHT + rows as i32 * LINE_HEIGHT + 4;
    let middle = top + LATENCY_HEIGHT + GAP;
    let bottom = middle + COUNTS_HEIGHT;
    let milliseconds = slots.iter().flat_map(|slot| LATENCIES.map(|(_, of, _)| of(slot) / 1_000.0));
    let latency = Axis::log("latency, ms", milliseconds);
    let counts = slots.iter().flat_map(|slot| [slot.answered, slot.failed, slot.late]);
    let counts = Axis::counts(&counts_name(slots), counts);

    canvas::draw((WIDTH as u32, (bottom + BELOW + 6) as u32), |on| {
        canvas::draw_title(on, &timeline.name)?;
        let above =
            Panel::new(on, (time.clone(), latency), (columns.clone(), top..top + LATENCY_HEIGHT), Below::Nothing)?;
        let below = Panel::new(on, (time, counts), (columns, middle..bottom), Below::Labels)?;
        draw_events(on, &labels, top, bottom)?;
        if slots.is_empty() {
            above.draw_nothing_measured()?;
        }
        let length = slot_length(slots);
        // A slot's figures are of all of it: a line's point stands in its middle.
        let points = |of: fn(&Slot) -> f64| slots.iter().map(move |slot| (slot.at_s + length / 2.0, of(slot)));
        // The highest line first: where they meet, the median is on top.
        for (_, of, pen) in LATENCIES.into_iter().rev() {
            above.draw_line(points(of).map(|(at, us)| (at, us / 1_000.0)), pen)?;
        }
        // Failed requests are late as well: theirs are the narrow bars in front of the wide ones.
        let bars = |of: fn(&Slot) -> u64, share: f64| {
            slots.iter().map(move |slot| (slot.at_s..slot.at_s + length * share, of(slot) as f64))
        };
        below.draw_bars(bars(|slot| slot.late, 0.9), LATE.colour)?;
        below.draw_bars(bars(|slot| slot.failed, 0.45), FAILED.colour)?;
        below.draw_line(points(|slot| slot.answered as f64), ANSWERED)?;
        draw_legends(on, top, middle)
    })
}

fn draw_legends(on: &Canvas, top: i32, middle: i32) -> anyhow::Result<()> {
    let left = WIDTH - LEGEND_WIDTH + 14;
    let entry = |text: &str, pen, sample| Entry { pen, sample, text: text.to_owned() };
    let latencies = LATENCIES.map(|(name, _, pen)| entry(name, pen, Sample::Line));
    canvas::draw_legend(on, (left, top), &latencies)?;
    let counts = [
        entry("answered", ANSWERED, Sample::Line),
        entry("late: over 10 ms", LATE, Sample::Bar),
        entry("failed", FAILED, Sample::Bar),
    ];
    canvas::draw_legend(on, (left, middle), &counts)
}

/// From the first to the end of the last slot, with all events.
fn time_axis(timeline: &Timeline) -> Axis {
    let length = slot_length(&timeline.slots);
    let slots = timeline.slots.iter().flat_map(|slot| [slot.at_s, slot.at_s + length]);
    let times = slots.chain(timeline.events.iter().map(|event| event.at_s)).filter(|at| at.is_finite());
    let (from, to) = times.fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), at| (at.min(from), at.max(to)));
    let (from, to) = if from <= to { (from, to) } else { (0.0, 1.0) };
    Axis::linear("seconds from the start", from, to)
}

/// Seconds from one slot to the next; 0 if there is no telling.
fn slot_length(slots: &[Slot]) -> f64 {
    let length = slots.get(1).map_or(0.0, |second| second.at_s - slots[0].at_s);
    if length.is_finite() { length.max(0.0) } else { 0.0 }
}

fn counts_name(slots: &[Slot]) -> String {
    match slot_length(slots) {
        0.0 => "requests a slot".to_owned(),
        1.0 => "requests a second".to_owned(),
        length => format!("requests in {} s", text::trimmed(&text::number(length))),
    }
}

/// An event's line, and its label above the panels.
#[derive(Debug, PartialEq)]
struct Label {
    column: i32,
    /// From the panels upwards; `None` if there is no room for the text.
    row: Option<usize>,
    text: String,
}

/// Finds a row for each label, which begins right of its line. From right to left: a label goes above all those whose
/// lines it would cross otherwise, and so above their text too.
fn labels(events: &[Event], time: &Axis, columns: &Range<i32>) -> Vec<Label> {
    let width = f64::from(columns.end - columns.start);
    let mut labels: Vec<Label> = Vec::new();
    for event in events {
        let Some(place) = time.place(event.at_s) else { continue };
        let column = columns.start + (place * width).round() as i32;
        let text = format!("{}: {}", text::figure(event.at_s, "s"), event.what);
        let room = (f64::from(WIDTH - column - 12) / CHAR_WIDTH) as usize;
        labels.push(Label { column, row: None, text: text::shortened(&text, room.min(EVENT_CHARS_MAX)) });
    }
    labels.sort_by_key(|label| label.column);
    for at in (0..labels.len()).rev() {
        let end = labels[at].column + 12 + (labels[at].text.chars().count() as f64 * CHAR_WIDTH) as i32;
        let crossed = labels[at + 1..].iter().take_while(|other| other.column < end);
        let row = crossed.filter_map(|other| other.row).max().map_or(0, |row| row + 1);
        labels[at].row = (row < EVENT_ROWS_MAX).then_some(row);
    }
    labels
}

fn draw_events(on: &Canvas, labels: &[Label], top: i32, bottom: i32) -> anyhow::Result<()> {
    for label in labels {
        let mut from = top;
        if let Some(row) = label.row {
            from = top - 4 - row as i32 * LINE_HEIGHT - LINE_HEIGHT / 2;
            canvas::draw_text(on, &label.text, (label.column + 5, from), Anchor::Start)?;
            from -= LINE_HEIGHT / 2 - 2;
        }
        let pen = Pen { colour: GREY, width: 1, mark: Mark::Nothing };
        canvas::draw_line(on, &[(label.column, from), (label.column, bottom)], pen)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_s: f64, what: &str) -> Event {
        Event { at_s, what: what.into() }
    }

    fn slot(at_s: f64, answered: u64, us: f64) -> Slot {
        Slot {
            at_s,
            answered,
            failed: answered / 100,
            late: answered / 50,
            p50_us: us,
            p99_us: us * 3.0,
            max_us: us * 9.0,
        }
    }

    #[test]
    fn equal_time_lines_give_equal_bytes_with_named_axes() {
        let slots = (0..20).map(|n| slot(f64::from(n) * 0.5, 1_000, 300.0)).collect();
        let timeline = Timeline { name: "loss".into(), events: vec![event(3.0, "zone b is lost")], slots };
        let svg = draw(&timeline).unwrap();
        assert_eq!(svg, draw(&timeline).unwrap());
        for text in ["loss", "3 s: zone b is lost", "latency, ms", "requests in 0.5 s", "seconds from the start"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }

    #[test]
    fn no_label_crosses_another_ones_line() {
        let columns = 80..810;
        let time = Axis::linear("s", 0.0, 60.0);
        let events: Vec<_> = (0..30).map(|n| event(f64::from(n * n % 61), "node 3 of zone b is killed")).collect();
        let labels = labels(&events, &time, &columns);
        for (at, label) in labels.iter().enumerate() {
            let Some(row) = label.row else { continue };
            let end = label.column + (label.text.chars().count() as f64 * CHAR_WIDTH) as i32;
            let crossed = labels[at + 1..].iter().filter(|other| other.column < end);
            crossed.filter_map(|other| other.row).for_each(|other| assert!(other < row));
            assert!(end <= WIDTH, "a label leaves the picture");
        }
        assert!(labels.iter().any(|label| label.row.is_none()), "some have no room");
    }

    #[test]
    fn empty_time_lines_and_odd_values_are_drawn() {
        assert!(draw(&Timeline::default()).unwrap().contains("nothing was measured"));
        draw(&Timeline { slots: vec![slot(0.0, 0, 0.0)], ..Timeline::default() }).unwrap();
        let same = vec![slot(5.0, 10, 300.0); 3];
        draw(&Timeline { slots: same, events: vec![event(5.0, ""), event(5.0, "b")], ..Timeline::default() }).unwrap();
        let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];
        let slots = odd.iter().flat_map(|at| odd.iter().map(|us| slot(*at, u64::MAX, *us))).collect();
        let events = odd.iter().map(|at| event(*at, "odd")).collect();
        let svg = draw(&Timeline { name: String::new(), events, slots }).unwrap();
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn a_slot_without_requests_is_a_gap() {
        let slots =
            vec![slot(0.0, 9, 300.0), slot(1.0, 9, 300.0), slot(2.0, 0, 0.0), slot(3.0, 9, 300.0), slot(4.0, 9, 300.0)];
        let svg = draw(&Timeline { slots, ..Timeline::default() }).unwrap();
        let medians = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains("stroke=\"#0072B2\""));
        assert_eq!(medians.count(), 3, "two runs of slots, and the legend's sample");
    }
}
