//! Whether a bar holds, in words.

use super::model::{Part, Row};
use super::table::Cell;

/// What is to be said of a bar or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// The figures stand for nothing, for this reason, whatever they are.
    Void(&'a str),
    /// There are no figures, for this reason.
    NotMeasurable(&'a str),
    /// The run does not say.
    NotJudged,
}

impl<'a> Verdict<'a> {
    /// Of a bar. A reason against its figures outweighs them.
    pub fn of_row(row: &'a Row) -> Self {
        Self::of(row.void.as_deref(), row.not_measurable.as_deref(), row.holds)
    }

    /// Of a part.
    pub fn of_part(part: &'a Part) -> Self {
        Self::of(part.void.as_deref(), None, part.holds)
    }

    fn of(void: Option<&'a str>, not_measurable: Option<&'a str>, holds: Option<bool>) -> Self {
        match (void, not_measurable, holds) {
            (Some(why), _, _) => Self::Void(why),
            (None, Some(why), _) => Self::NotMeasurable(why),
            (None, None, Some(true)) => Self::Yes,
            (None, None, Some(false)) => Self::No,
            (None, None, None) => Self::NotJudged,
        }
    }

    /// For the last column of a table.
    pub fn cell(&self) -> Cell {
        match self {
            Self::Yes => Cell::Text("yes".to_owned()),
            Self::No => Cell::Strong("no".to_owned()),
            Self::Void(why) => Cell::Text(format!("void: {why}")),
            Self::NotMeasurable(why) => Cell::Text(format!("not measurable: {why}")),
            Self::NotJudged => Cell::Text("not judged".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_against_the_figures_outweighs_them() {
        let void = Row { holds: Some(true), void: Some("wrong values".into()), ..Row::default() };
        assert_eq!(Verdict::of_row(&void).cell().markdown(), "void: wrong values");
        let missing = Row { not_measurable: Some("one zone".into()), ..Row::default() };
        assert_eq!(Verdict::of_row(&missing).cell().markdown(), "not measurable: one zone");
    }

    #[test]
    fn a_bar_that_does_not_hold_is_not_overlooked() {
        let failing = Row { holds: Some(false), ..Row::default() };
        assert_eq!(Verdict::of_row(&failing).cell().markdown(), "**no**");
        let holding = Part { holds: Some(true), ..Part::default() };
        assert_eq!(Verdict::of_part(&holding).cell().markdown(), "yes");
        assert_eq!(Verdict::of_row(&Row::default()), Verdict::NotJudged);
    }
}
