//! One row of a chunk: where its parts lie.

use stoa_protocol::limits::VALUE_BYTES_MAX;
use stoa_protocol::widen::narrowest;
use stoa_protocol::{DecodeError, FeatureGroupId, Reader, Wire};

use crate::arena::ArenaRef;
use crate::digest;
use crate::lane_plan::LanePlan;
use crate::row::RowBuffer;
use xxhash_rust::xxh3::xxh3_128;

/// One row; the layout is that of docs/storage-snapshot.md.
#[derive(Clone, Copy)]
pub(crate) struct ColdRow<'a> {
    payload: &'a [u8],
    /// Behind the key.
    at: usize,
    features: usize,
    /// Its canonical key.
    pub key: &'a [u8],
}

/// What every row has.
struct Head {
    event_time: i64,
    sequence: u64,
    /// The partition time of the deletion, of a tombstone.
    tombstone: Option<i64>,
}

impl<'a> ColdRow<'a> {
    /// The row that begins at a byte of a payload.
    pub fn new(payload: &'a [u8], at: usize, features: usize) -> Result<Self, DecodeError> {
        let mut input = Reader::new(payload.get(at..).unwrap_or_default());
        let length = usize::from(u16::get(&mut input)?);
        let key = input.take(length, "a key")?;
        Ok(Self { payload, at: at + 2 + length, features, key })
    }

    /// The bytes of a value that [`ColdRow::lay_out`] gave a reference to.
    pub fn value(&self, reference: ArenaRef) -> &'a [u8] {
        let at = reference.0 as u32 as usize;
        self.payload.get(at..at + reference.len()).unwrap_or_default()
    }

    /// Whether it is a tombstone.
    pub fn is_tombstone(&self) -> bool {
        self.payload.get(self.at + 16).is_some_and(|flag| *flag != 0)
    }

    fn head(&self, input: &mut Reader<'_>) -> Result<Head, DecodeError> {
        let (event_time, sequence) = (i64::get(input)?, u64::get(input)?);
        let tombstone = match u8::get(input)? {
            1 => Some(i64::get(input)?),
            0 => None,
            other => return Err(DecodeError::invalid("a row's flags", other, "0 or 1")),
        };
        Ok(Head { event_time, sequence, tombstone })
    }

    /// Goes through the values that are present, and the nulls that were written and hide a default: place, where they begin in
    /// the payload, bytes. The plan is that of the definition which the row was written under.
    fn walk(
        &self,
        plan: &LanePlan,
        begin: impl FnOnce(&Head),
        mut visit: impl FnMut(usize, usize, Option<&'a [u8]>),
    ) -> Result<(), DecodeError> {
        let rest = self.payload.get(self.at..).unwrap_or_default();
        let mut input = Reader::new(rest);
        let head = self.head(&mut input)?;
        begin(&head);
        if head.tombstone.is_some() {
            return Ok(());
        }
        let validity = input.take(self.features.div_ceil(8), "validity")?;
        let nulls = input.take(plan.defaults.len().div_ceil(8), "written nulls")?;
        let mut null_bits = (0..).map(|bit: usize| nulls[bit / 8] >> (bit % 8) & 1 == 1);
        for (feature, place) in plan.features[..self.features].iter().enumerate() {
            let null = place.null.is_some() && null_bits.next() == Some(true);
            if validity[feature / 8] >> (feature % 8) & 1 == 0 {
                if null {
                    visit(feature, self.at + rest.len() - input.left(), None);
                }
                continue;
            }
            if null {
                return Err(DecodeError::invalid("a written null", "a value", "a null"));
            }
            let bytes = match place.variable {
                false => place.width,
                true => input.count(1, "a value")?,
            };
            if place.variable && bytes > VALUE_BYTES_MAX {
                return Err(DecodeError::invalid("a value's length", bytes, VALUE_BYTES_MAX));
            }
            let at = self.at + rest.len() - input.left();
            visit(feature, at, Some(input.take(bytes, "a value")?));
        }
        Ok(())
    }

    /// Makes `out` this row, but for its key. Values of variable width are references whose length is right and whose lower half
    /// says where they begin: [`ColdRow::value`] knows what to make of one, the arena does not.
    pub fn lay_out(&self, plan: &LanePlan, out: &mut RowBuffer) -> Result<(), DecodeError> {
        out.clear(plan);
        let mut stamp_us = None;
        let mut event = (0, 0);
        let begin = |head: &Head| (event, stamp_us) = ((head.event_time, head.sequence), head.tombstone);
        self.walk(plan, begin, |feature, at, bytes| match bytes {
            Some(bytes) if plan.features[feature].variable => {
                let here = if bytes.is_empty() { 0 } else { (bytes.len() as u64) << 32 | at as u64 };
                out.set_value(plan, feature, Some(&here.to_le_bytes()));
            }
            fixed_or_null => out.set_value(plan, feature, fixed_or_null),
        })?;
        out.set_event(event.0, event.1);
        if let Some(stamp_us) = stamp_us {
            out.set_tombstone(plan, stamp_us);
        }
        Ok(())
    }

    /// The digest of the row, as [`row_digest`](crate::digest::row_digest) has it of the same row in its lanes; and the bytes of
    /// its values of variable width.
    pub fn digest(
        &self,
        group: FeatureGroupId,
        plan: &LanePlan,
        scratch: &mut Vec<u8>,
    ) -> Result<(u128, usize), DecodeError> {
        let (mut variable, out) = (0, std::cell::RefCell::new(scratch));
        let begin = |head: &Head| {
            let event = (head.event_time, head.sequence);
            digest::put_head(group, self.key, event, head.tombstone, &mut out.borrow_mut());
        };
        self.walk(plan, begin, |feature, _, bytes| {
            let (place, mut out) = (&plan.features[feature], out.borrow_mut());
            let Some(bytes) = bytes else { return digest::put_null(feature, &mut out) };
            variable += if place.variable { bytes.len() } else { 0 };
            match plan.earlier(feature).and_then(|earlier| narrowest(place.ty, earlier.types.iter().copied(), bytes)) {
                Some(narrow) => digest::put_value(feature, &narrow, &mut out),
                None => digest::put_value(feature, bytes, &mut out),
            }
        })?;
        Ok((xxh3_128(&out.borrow()), variable))
    }
}
