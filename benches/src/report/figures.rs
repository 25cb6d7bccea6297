//! The tables of a run.

use serde_json::Value;

use super::model::{Part, Report, Row, Run, Side, ZoneRow};
use super::table::{Cell, Table};
use super::text;
use super::verdict::Verdict;

/// Facts of a machine that come first, in this order; the others follow by name.
const MACHINE_FIRST: [&str; 4] = ["commit", "cpu", "cores", "kernel"];

/// What ran, when, where.
pub fn facts_table(report: &Report) -> Table {
    let mut rows = vec![
        [Cell::Text("run".to_owned()), Cell::text(&report.run)],
        [Cell::Text("day".to_owned()), Cell::text(&report.day)],
        [Cell::Text("took".to_owned()), Cell::Text(text::duration(report.took_s))],
    ];
    let known = MACHINE_FIRST.iter().filter_map(|name| Some((*name, report.machine.get(name)?)));
    let others = report.machine.as_object().into_iter().flatten();
    let others = others.map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| !MACHINE_FIRST.contains(name));
    for (name, value) in known.chain(others) {
        let mut value = words(value);
        if name == "commit" && value.ends_with('+') {
            value += " (and changes that are in no commit)";
        }
        rows.push([Cell::Text(name.replace('_', " ")), Cell::text(&value)]);
    }
    let options = report.options.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let options: Vec<_> = options.map(|(name, value)| format!("{name} {}", words(value))).collect();
    if !options.is_empty() {
        rows.push([Cell::Text("options".to_owned()), Cell::Text(options.join(", "))]);
    }
    Table::new(["fact", "value"], rows)
}

/// A JSON value in a sentence: a string without its quotes, anything else as it is.
fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The bars, each with its worst part.
pub fn bars_table(report: &Report) -> Table {
    let row = |row: &Row| {
        [
            Cell::text(&row.id),
            Cell::text(&row.title),
            row.value.map_or(Cell::Missing, |value| Cell::figure(value, &row.unit)),
            Cell::text(&row.bar),
            side(row.ours.as_ref()),
            side(row.peer.as_ref()),
            Verdict::of_row(row).cell(),
        ]
    };
    Table::new(["id", "what", "value", "bar", "ours", "peer", "holds"], report.rows.iter().map(row))
}

/// All figures of one bar.
pub fn parts_table(row: &Row) -> Table {
    let part = |part: &Part| {
        [
            Cell::text(&part.name),
            Cell::figure(part.value, &part.unit),
            Cell::text(&part.bar),
            side(part.ours.as_ref()),
            side(part.peer.as_ref()),
            Verdict::of_part(part).cell(),
        ]
    };
    Table::new(["part", "value", "bar", "ours", "peer", "holds"], row.parts.iter().map(part))
}

fn side(side: Option<&Side>) -> Cell {
    let Some(side) = side else { return Cell::Missing };
    let figure = text::figure(side.value, &side.unit);
    // 0 is a single measurement, of which nobody knows how far others would lie from it.
    match side.spread {
        0.0 => Cell::Text(format!("{}: {figure}", side.name)),
        spread => Cell::Text(format!("{}: {figure}, spread {} %", side.name, text::number(spread * 100.0))),
    }
}

/// Latencies by zone.
pub fn zones_table(report: &Report) -> Table {
    let row = |row: &ZoneRow| {
        [
            Cell::text(&row.client),
            Cell::text(&row.replica),
            Cell::number(row.round_trip_us),
            Cell::number(row.p50_us),
            Cell::number(row.p99_us),
            Cell::number(row.p999_us),
        ]
    };
    let head = ["client in", "replica in", "round trip µs", "p50 µs", "p99 µs", "p99.9 µs"];
    Table::new(head, report.zones.iter().map(row))
}

/// The other runs.
pub fn runs_table(report: &Report) -> Table {
    let row = |run: &Run| {
        let more: Vec<_> = run.more.iter().map(|(name, value)| format!("{name} {}", text::number(*value))).collect();
        [
            Cell::text(&run.name),
            Cell::number(run.rate),
            Cell::number(run.rows_per_s),
            Cell::number(run.p50_us),
            Cell::number(run.p99_us),
            Cell::number(run.p999_us),
            Cell::count(run.answered),
            Cell::count(run.checked),
            Cell::count(run.failed),
            Cell::text(&more.join(", ")),
            Cell::text(&run.void.as_ref().map_or(String::new(), |why| format!("void: {why}"))),
        ]
    };
    let head = [
        "run",
        "requests/s",
        "rows/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "answered",
        "checked",
        "failed",
        "more",
        "void",
    ];
    Table::new(head, report.runs.iter().map(row))
}

/// The commands, each once, with the bars that it measures.
pub fn repeat_table(report: &Report) -> Table {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in report.rows.iter().filter(|row| !row.repeat.trim().is_empty()) {
        match commands.iter_mut().find(|(command, _)| *command == row.repeat) {
            Some((_, ids)) => ids.push(&row.id),
            None => commands.push((&row.repeat, vec![&row.id])),
        }
    }
    let rows = commands.into_iter().map(|(command, ids)| [Cell::Text(ids.join(", ")), Cell::Code(command.to_owned())]);
    Table::new(["bars", "command"], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bars_show_what_holds_what_does_not_and_what_says_nothing() {
        let row = |id: &str| Row { id: id.into(), title: "reads".into(), ..Row::default() };
        let ours = Side { name: "Stoa".into(), value: 1_234.0, unit: "µs".into(), spread: 0.041 };
        let peer = Side { spread: 0.0, name: "Redis".into(), ..ours.clone() };
        let holds = Row {
            value: Some(1.0),
            unit: "x".into(),
            holds: Some(true),
            ours: Some(ours),
            peer: Some(peer),
            ..row("P1")
        };
        let fails = Row { value: Some(f64::NAN), holds: Some(false), ..row("P2") };
        let void = Row { void: Some("a | b".into()), ..row("P3") };
        let missing = Row { not_measurable: Some("one core".into()), ..row("P4") };
        let report = Report { rows: vec![holds, fails, void, missing], ..Report::default() };
        let lines: Vec<_> = bars_table(&report).markdown().lines().skip(2).map(str::to_owned).collect();
        assert_eq!(lines[0], "| P1 | reads | 1 x | – | Stoa: 1,230 µs, spread 4.10 % | Redis: 1,230 µs | yes |");
        assert_eq!(lines[1], "| P2 | reads | not a number | – | – | – | **no** |");
        assert_eq!(lines[2], "| P3 | reads | – | – | – | – | void: a \\| b |");
        assert_eq!(lines[3], "| P4 | reads | – | – | – | – | not measurable: one core |");
        assert!(bars_table(&report).terminal().contains("NO"));
    }

    #[test]
    fn facts_of_any_machine_are_listed() {
        let machine = json!({"zebra_count": 1, "kernel": "6.1", "commit": "abc+", "cpu": "<b>"});
        let options = json!({"seconds": 5, "zipf": null});
        let report = Report { machine, options, took_s: 3_600.0, ..Report::default() };
        let text = facts_table(&report).markdown();
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(
            at("| commit | abc+ (and changes") < at("| cpu | \\<b> |") && at("| kernel |") < at("| zebra count | 1 |")
        );
        assert!(text.contains("| took | 1 h 0 min 0 s |") && text.contains("| options | seconds 5 |"));
        assert!(facts_table(&Report::default()).markdown().contains("| took | 0 s |"));
    }

    #[test]
    fn a_command_that_measures_several_bars_stands_once() {
        let row = |id: &str, repeat: &str| Row { id: id.into(), repeat: repeat.into(), ..Row::default() };
        let rows = vec![row("P1", "run a"), row("P2", "run b | c"), row("P3", "run a"), row("P4", "")];
        let text = repeat_table(&Report { rows, ..Report::default() }).markdown();
        assert!(text.ends_with("| P1, P3 | `run a` |\n| P2 | `run b \\| c` |\n"), "{text}");
    }

    #[test]
    fn latencies_of_closed_loops_are_missing_not_zero() {
        let run = Run { name: "peak".into(), answered: 12_345, ..Run::default() };
        let text = runs_table(&Report { runs: vec![run], ..Report::default() }).markdown();
        assert!(text.contains("| peak | 0 | 0 | – | – | – | 12,345 | 0 | 0 | – | – |"), "{text}");
    }
}
