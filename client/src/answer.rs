//! What a read gives back: columns in view order. The bytes stay where the nodes' answers put them; a row finds its
//! place through its entity.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stoa_protocol::position::PartitionPosition;
use stoa_protocol::read::{RowStatus, SectionHead, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, BlockLayout, SectionRows, parse_answer};
use stoa_protocol::widen::{widen, widens};
use stoa_protocol::{FeatureType, LogIndex, Position, Value};

use crate::multi_get::ReadStats;
use crate::plan::ViewPlan;
use crate::split::Split;

/// What became of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueStatus {
    /// There is a value.
    Present,
    /// The entity has a row, without a value for this feature.
    Null,
    /// The group has no row for the entity.
    NotFound,
    /// The row is older than its group's time to live. A value may be there all the same.
    Expired,
    /// The replica that answered may be behind further than [`ReadOptions::level`](crate::ReadOptions) allows. Whatever it
    /// has is there all the same: a value, or none.
    Stale,
    /// No replica answered within the deadline.
    Unavailable,
}

/// The answer to [`View::get`](crate::View::get).
///
/// The rows of a group may come from partitions that are at different schema versions of it, while a new one spreads; each
/// row is of one of them ([`ViewAnswer::schema_version`]). Where a feature was widened since the view was opened, the column
/// has the widest type that an answer has it in, and values of partitions that are behind are widened here: a column has one
/// type.
pub struct ViewAnswer {
    plan: Arc<ViewPlan>,
    split: Split,
    sections: Vec<Option<SectionRows>>,
    /// The types of each group's columns, where some are wider than the plan's.
    widened: Option<Vec<Vec<FeatureType>>>,
    rows: usize,
    stats: ReadStats,
}

/// One column of an answer.
#[derive(Clone, Copy)]
pub struct Column<'a> {
    answer: &'a ViewAnswer,
    at: usize,
}

impl ViewAnswer {
    pub(crate) fn new(
        plan: Arc<ViewPlan>,
        split: Split,
        mut sections: Vec<Option<SectionRows>>,
        rows: usize,
        stats: ReadStats,
    ) -> Self {
        assert_eq!(sections.len(), split.sections.len());
        let widened = widen_all(&plan, &split, &mut sections);
        Self { plan, split, sections, widened, rows, stats }
    }

    /// Number of rows, those asked for.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, in view order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = Column<'_>> {
        (0..self.plan.columns.len()).map(|at| Column { answer: self, at })
    }

    /// A column by its name in the view.
    pub fn column(&self, name: &str) -> Option<Column<'_>> {
        let at = self.plan.columns.iter().position(|column| column.name == name)?;
        Some(Column { answer: self, at })
    }

    /// The full names of the groups that were read; their places are the `group` of [`ViewAnswer::event_time`].
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        self.plan.groups.iter().map(|group| group.name.as_str())
    }

    /// The event time of a row in a group, microseconds since 1970-01-01T00:00:00Z; `None` if there is no row, or no
    /// answer. Panics beyond the ends.
    pub fn event_time(&self, row: usize, group: usize) -> Option<i64> {
        let (section, at) = self.section(row, group)?;
        (section.status(at) != RowStatus::NotFound).then(|| section.event_time(at))
    }

    /// The schema version of the group that a row's values are of: the one that the view was opened with, or a later one.
    /// `None` if there is no answer. Panics beyond the ends.
    pub fn schema_version(&self, row: usize, group: usize) -> Option<u32> {
        Some(self.section(row, group)?.0.head.schema_version)
    }

    /// Whether every section was answered: no value is `Unavailable`.
    pub fn is_complete(&self) -> bool {
        self.sections.iter().all(Option::is_some)
    }

    /// How far a row of a group may be behind: everything that was acknowledged this long before the replica read it is in
    /// it, as the replica's own clock says; the way of the answer comes on top. `None` if the replica does not know, or did
    /// not answer. Panics beyond the ends.
    pub fn age(&self, row: usize, group: usize) -> Option<Duration> {
        self.section(row, group)?.0.head.age
    }

    /// The largest age of all rows; `None` if one is not known, or a section was not answered.
    pub fn age_max(&self) -> Option<Duration> {
        let ages = self.sections.iter().map(|section| section.as_ref()?.head.age);
        ages.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).unwrap_or(Some(Duration::ZERO))
    }

    /// Whether any row may be further behind than the read allows: its values are `Stale`.
    pub fn is_stale(&self) -> bool {
        self.sections.iter().flatten().any(|section| section.head.stale)
    }

    /// How far the answer reaches: all rows of a partition are at least as new as its place here. Partitions that did
    /// not answer, in whole or in part, are missing.
    pub fn position(&self) -> Position {
        self.fold_positions(|a, b| a.min(b), true)
    }

    /// The newest place that any row was read at, for each partition: a later read `at_least` here sees nothing older
    /// than this answer has shown, which is what a session with monotonic reads wants.
    pub fn newest_position(&self) -> Position {
        self.fold_positions(|a, b| a.max(b), false)
    }

    /// What the read took.
    pub fn stats(&self) -> ReadStats {
        self.stats
    }

    fn fold_positions(&self, fold: impl Fn(LogIndex, LogIndex) -> LogIndex, whole: bool) -> Position {
        let mut places: BTreeMap<_, Option<LogIndex>> = BTreeMap::new();
        for (at, answer) in self.sections.iter().enumerate() {
            let asked = &self.split.sections[at];
            let group = &self.plan.groups[asked.group];
            let set = self.plan.entities[group.entity].set;
            let Some(answer) = answer else {
                if whole {
                    places.iter_mut().filter(|((_, p, _), _)| *p == asked.partition).for_each(|(_, i)| *i = None);
                    places.insert((set, asked.partition, u32::MAX), None);
                }
                continue;
            };
            let place =
                places.entry((set, asked.partition, answer.head.incarnation)).or_insert(Some(answer.head.applied));
            *place = place.map(|index| fold(index, answer.head.applied));
        }
        let mut position = Position::new();
        for ((set, partition, incarnation), index) in &places {
            let missing = whole && places.contains_key(&(*set, *partition, u32::MAX));
            if let Some(index) = index.filter(|_| !missing) {
                position.raise(PartitionPosition {
                    set: *set,
                    incarnation: *incarnation,
                    partition: *partition,
                    index,
                });
            }
        }
        position
    }

    fn section(&self, row: usize, group: usize) -> Option<(&SectionRows, usize)> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let (section, at) = self.split.place(&self.plan, group, row);
        self.sections[section].as_ref().map(|answer| (answer, at))
    }
}

/// Brings columns that are of several types to the widest; gives the types if there are others than the plan's.
fn widen_all(plan: &ViewPlan, split: &Split, sections: &mut [Option<SectionRows>]) -> Option<Vec<Vec<FeatureType>>> {
    let group_of = |at: usize| split.sections[at].group;
    let is_newer = |(at, section): (usize, &Option<SectionRows>)| {
        section.as_ref().is_some_and(|rows| rows.head.schema_version > plan.groups[group_of(at)].schema_version)
    };
    if !sections.iter().enumerate().any(is_newer) {
        return None; // nearly always
    }
    let mut types: Vec<Vec<FeatureType>> = plan.groups.iter().map(|group| group.types.clone()).collect();
    for (at, rows) in sections.iter().enumerate().filter_map(|(at, rows)| Some((at, rows.as_ref()?))) {
        for (widest, ty) in types[group_of(at)].iter_mut().zip(rows.types()) {
            if widens(*widest, ty) {
                *widest = ty;
            }
        }
    }
    for (at, section) in sections.iter_mut().enumerate() {
        let wanted = &types[group_of(at)];
        if let Some(rows) = section.as_mut().filter(|rows| !rows.types().eq(wanted.iter().copied())) {
            *rows = widen_section(rows, wanted);
        }
    }
    Some(types)
}

/// The rows of a section with columns of these types, to which its own widen.
fn widen_section(rows: &SectionRows, types: &[FeatureType]) -> SectionRows {
    let layout = BlockLayout::packed(types.iter().copied());
    let mut answer = AnswerWriter::new(1);
    let (number, mut block) = answer.block(&layout, rows.rows());
    for row in 0..rows.rows() {
        block.set_status(row, rows.status(row), rows.event_time(row));
        for (column, (from, to)) in rows.types().zip(types).enumerate() {
            match rows.value(column, row) {
                Some(value) if from == *to => block.set_value(row, column, value),
                Some(value) => block.set_value(row, column, &widen(from, *to, value)),
                None => {}
            }
        }
    }
    block.finish();
    let head = SectionHead { block: number, first_row: 0, ..rows.head };
    let parsed = parse_answer(answer.finish(&[SectionResult::Rows(head)]).into_body().into());
    parsed.expect("what was just written").remove(0).expect("it was written as rows")
}

/// All accessors panic for a row beyond the end.
impl<'a> Column<'a> {
    /// Its name in the view.
    pub fn name(&self) -> &'a str {
        &self.answer.plan.columns[self.at].name
    }

    /// Its type: that of the view's plan, or a wider one, if the feature was widened since the view was opened.
    pub fn ty(&self) -> FeatureType {
        let plan = &self.answer.plan.columns[self.at];
        self.answer.widened.as_ref().map_or(plan.ty, |types| types[plan.group][plan.place])
    }

    /// The place of its group in [`ViewAnswer::groups`].
    pub fn group(&self) -> usize {
        self.answer.plan.columns[self.at].group
    }

    /// What became of a row's value.
    pub fn status(&self, row: usize) -> ValueStatus {
        let Some((section, column, at)) = self.find(row) else { return ValueStatus::Unavailable };
        match section.status(at) {
            _ if section.head.stale => ValueStatus::Stale,
            RowStatus::Found if section.value(column, at).is_some() => ValueStatus::Present,
            RowStatus::Found => ValueStatus::Null,
            RowStatus::NotFound => ValueStatus::NotFound,
            RowStatus::Expired => ValueStatus::Expired,
        }
    }

    /// The little-endian bytes of a row's value, if one is there.
    pub fn value(&self, row: usize) -> Option<&'a [u8]> {
        let (section, column, at) = self.find(row)?;
        if section.status(at) == RowStatus::NotFound { None } else { section.value(column, at) }
    }

    /// A Float32.
    pub fn f32(&self, row: usize) -> Option<f32> {
        let bytes = self.value_of(row, |ty| ty == FeatureType::Float32)?;
        Some(f32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// A Float32 or Float64.
    pub fn f64(&self, row: usize) -> Option<f64> {
        match self.ty() {
            FeatureType::Float64 => Some(f64::from_le_bytes(self.value(row)?.try_into().ok()?)),
            _ => self.f32(row).map(f64::from),
        }
    }

    /// An integer of any width, a Date in days, or a Timestamp in microseconds.
    pub fn i64(&self, row: usize) -> Option<i64> {
        use FeatureType as T;
        let bytes = self.value(row)?;
        match self.ty() {
            T::Int8 => Some(i64::from(i8::from_le_bytes(bytes.try_into().ok()?))),
            T::Int16 => Some(i64::from(i16::from_le_bytes(bytes.try_into().ok()?))),
            T::Int32 | T::Date => Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
            T::Int64 | T::Timestamp => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// A Bool.
    pub fn bool(&self, row: usize) -> Option<bool> {
        self.value_of(row, |ty| ty == FeatureType::Bool).map(|bytes| bytes == [1])
    }

    /// The text of a String or Json.
    pub fn str(&self, row: usize) -> Option<&'a str> {
        let bytes = self.value_of(row, |ty| matches!(ty, FeatureType::String | FeatureType::Json))?;
        std::str::from_utf8(bytes).ok()
    }

    /// The items of a FixedArray of Float32.
    pub fn f32_array(&self, row: usize) -> Option<impl ExactSizeIterator<Item = f32> + 'a> {
        let bytes = self.value_of(row, |ty| matches!(ty, FeatureType::FixedArray { .. }))?;
        Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four"))))
    }

    /// The value by itself, `Null` if none is there.
    pub fn to_value(&self, row: usize) -> Value {
        let value = self.value(row).map(|bytes| Value::decode(self.ty(), bytes));
        value.map_or(Value::Null, |value| value.expect("answers are checked when they come"))
    }

    fn value_of(&self, row: usize, wanted: impl Fn(FeatureType) -> bool) -> Option<&'a [u8]> {
        if wanted(self.ty()) { self.value(row) } else { None }
    }

    fn find(&self, row: usize) -> Option<(&'a SectionRows, usize, usize)> {
        let plan = &self.answer.plan.columns[self.at];
        let (section, at) = self.answer.section(row, plan.group)?;
        Some((section, plan.place, at))
    }
}
