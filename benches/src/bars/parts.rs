//! Rows of the table, made of parts that are each beside their bar. No measurement: figures come in as arguments.

use crate::report::model::{Part, Row, Side};

/// Which way a bar bounds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// The value must not be greater.
    AtMost,
    /// The value must be less.
    Below,
    /// The value must not be less.
    AtLeast,
}

/// One figure by itself.
pub fn side(name: &str, value: f64, unit: &str) -> Side {
    Side { name: name.to_owned(), value, unit: unit.to_owned(), spread: 0.0 }
}

/// A value beside its bar; `of` says what the bar is measured by, such as ` x a quinn echo`.
pub fn part(name: &str, value: f64, unit: &str, (bar, limit, of): (Bar, f64, &str)) -> Part {
    let (sign, within) = match bar {
        Bar::AtMost => ("<=", value <= limit),
        Bar::Below => ("<", value < limit),
        Bar::AtLeast => (">=", value >= limit),
    };
    // What cannot be compared has not been measured.
    let holds = (value.is_finite()).then_some(within);
    Part {
        name: name.to_owned(),
        // JSON has no other number for it.
        value: if value.is_finite() { value } else { 0.0 },
        unit: unit.to_owned(),
        // Without the last digits of a product of decimals, and with all of a share such as 99.999.
        bar: format!("{sign} {} {of}", (limit * 1e6).round() / 1e6),
        limit,
        holds,
        void: holds.is_none().then(|| "nothing was measured".to_owned()),
        ours: None,
        peer: None,
    }
}

/// The ratio of two figures beside its bar.
pub fn ratio(name: &str, ours: Side, peer: Side, bar: (Bar, f64, &str)) -> Part {
    Part { ours: Some(ours.clone()), peer: Some(peer.clone()), ..part(name, ours.value / peer.value, "x", bar) }
}

/// The part, void for this reason, if there is one.
pub fn void_if(part: Part, reason: Option<String>) -> Part {
    match reason {
        Some(reason) => Part { holds: None, void: Some(reason), ..part },
        None => part,
    }
}

/// A row of these parts. Its value is that of the part that is farthest from its bar on the wrong side, or nearest to it on the
/// right one; it holds if all parts hold, does not if one does not, and is void if one is and no other fails.
pub fn row(id: &str, title: &str, repeat: &str, parts: Vec<Part>) -> Row {
    // One that fails is worse than one that holds, however far it is from its bar.
    let distance = |part: &Part| {
        let over = if part.bar.starts_with('<') { part.value / part.limit } else { part.limit / part.value };
        let over = if part.value == part.limit { 1.0 } else { over };
        (part.holds == Some(false), if over.is_finite() { over } else { f64::MAX })
    };
    let judged = parts.iter().filter(|part| part.holds.is_some());
    let by_distance = |a: &&Part, b: &&Part| {
        let (a, b) = (distance(a), distance(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    };
    let measured = parts.iter().any(|part| part.holds.is_some());
    let worst = judged.max_by(by_distance).or(parts.first()).cloned().unwrap_or_default();
    let failed = parts.iter().any(|part| part.holds == Some(false));
    let void = parts.iter().find_map(|part| part.void.as_ref().map(|why| format!("{}: {why}", part.name)));
    Row {
        id: id.to_owned(),
        title: title.to_owned(),
        value: measured.then_some(worst.value),
        unit: worst.unit,
        bar: worst.bar,
        holds: if failed { Some(false) } else { void.is_none().then_some(true) },
        void: if failed { None } else { void },
        not_measurable: None,
        ours: worst.ours,
        peer: worst.peer,
        parts,
        repeat: repeat.to_owned(),
        bound_by: Vec::new(),
        notes: Vec::new(),
    }
}

/// A row that is void as a whole.
pub fn void_row(id: &str, title: &str, why: &str) -> Row {
    Row { value: None, holds: None, void: Some(why.to_owned()), ..row(id, title, "", Vec::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_most(name: &str, value: f64) -> Part {
        part(name, value, "x", (Bar::AtMost, 2.0, "x"))
    }

    #[test]
    fn the_worst_part_is_the_rows_value_and_one_that_fails_fails_the_row() {
        let fast = part("rate", 9.0, "x", (Bar::AtLeast, 3.0, "x"));
        let all = row("P1", "reads", "", vec![at_most("a", 1.0), at_most("b", 5.0), fast.clone()]);
        assert_eq!((all.value, all.holds, all.bar.as_str()), (Some(5.0), Some(false), "<= 2 x"));
        let all = row("P1", "reads", "", vec![at_most("a", 1.0), fast]);
        assert_eq!((all.value, all.holds), (Some(1.0), Some(true)));
    }

    #[test]
    fn a_void_part_voids_a_row_that_would_hold_and_not_one_that_fails() {
        let idle = || void_if(at_most("rate", 1.0), Some("the server was idle".into()));
        let all = row("P1", "reads", "", vec![at_most("a", 1.0), idle()]);
        assert_eq!((all.holds, all.void.as_deref()), (None, Some("rate: the server was idle")));
        let all = row("P1", "reads", "", vec![at_most("a", 5.0), idle()]);
        assert_eq!((all.holds, all.void), (Some(false), None));
    }

    #[test]
    fn a_part_that_fails_is_the_rows_value_before_one_that_holds_at_its_limit() {
        let none = part("failed", 0.0, "reads", (Bar::AtMost, 0.0, "failed"));
        let slow = part("longest", 1.6, "s", (Bar::AtMost, 1.5, "s"));
        let all = row("P6", "", "", vec![none, slow]);
        assert_eq!((all.value, all.unit.as_str(), all.holds), (Some(1.6), "s", Some(false)));
        assert_eq!(part("p", 1.0, "ms", (Bar::Below, 1.0, "ms")).holds, Some(false));
    }

    #[test]
    fn a_ratio_to_nothing_is_void_and_no_success() {
        let all = ratio("r", side("Stoa", 1.0, "us"), side("echo", 0.0, "us"), (Bar::AtLeast, 3.0, "x"));
        assert_eq!(all.holds, None);
        assert!(all.void.is_some());
        assert_eq!(row("P1", "", "", vec![all]).holds, None);
    }
}
