//! `protocol::row_block`: the answer to a read, looked at wherever it can be.

use stoa_protocol::limits::{GROUP_FEATURES_MAX, READ_SECTIONS_MAX};
use stoa_protocol::read::{RowStatus, SectionHead, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, BlockLayout, SectionRows, parse_answer};
use stoa_protocol::{ErrorBody, ErrorCode, FeatureType, LogIndex, Width, Wire};

use super::Seed;
use crate::round_trip;

/// The body of an answer.
pub fn run(data: &[u8]) {
    let Some(sections) = round_trip::taken(parse_answer(data.to_vec().into())) else { return };
    for section in &sections {
        match section {
            Ok(rows) => walk(rows, data.len()),
            Err(error) => assert_eq!(ErrorBody::from_bytes(&error.to_bytes()).as_ref(), Ok(error)),
        }
    }
}

/// Looks at every value of a section: as many rows as there are bytes, since sections may share them.
fn walk(rows: &SectionRows, bytes: usize) {
    assert!(rows.types().len() <= GROUP_FEATURES_MAX && usize::from(rows.head.block) < READ_SECTIONS_MAX);
    // A row has 9 bytes at least.
    assert!(rows.rows() <= bytes / 9);
    for row in 0..rows.rows() {
        let status = rows.status(row);
        assert_eq!(RowStatus::from_number(status as u8), Ok(status));
        let _ = rows.event_time(row);
        for (column, ty) in rows.types().enumerate() {
            let Some(value) = rows.value(column, row) else { continue };
            match ty.width() {
                Width::Fixed(width) => assert_eq!(value.len(), width),
                Width::Variable => assert!(value.len() <= bytes),
            }
            // Reads the first and the last byte, so that a wrong place is noticed.
            std::hint::black_box((value.first(), value.last()));
        }
    }
}

/// An answer of two blocks, an empty one, and a refusal.
pub fn seeds() -> Vec<Seed> {
    let types = [FeatureType::Int32, FeatureType::String, FeatureType::Bool, FeatureType::FixedArray { items: 2 }];
    let layout = BlockLayout::packed(types.into_iter());
    let mut answer = AnswerWriter::default();
    let (first, mut block) = answer.block(&layout, 3);
    block.set_status(0, RowStatus::Found, 7);
    block.set_value(0, 0, &5i32.to_le_bytes());
    block.set_value(0, 1, b"ab");
    block.set_status(1, RowStatus::Expired, -1);
    block.set_value(1, 3, &[1; 8]);
    block.finish();
    let (second, block) = answer.block(&layout, 0);
    block.finish();
    let failed = SectionResult::Failed(ErrorBody::new(ErrorCode::NotReady, "replaying"));
    let head = |block, first_row, rows| {
        let (applied, age) = (LogIndex(9), Some(std::time::Duration::from_micros(5)));
        SectionResult::Rows(SectionHead {
            schema_version: 3,
            applied,
            incarnation: 1,
            age,
            stale: true,
            block,
            first_row,
            rows,
        })
    };
    let rows = answer.finish(&[head(first, 1, 2), failed.clone(), head(first, 0, 1), head(second, 0, 0)]).into_body();
    vec![
        ("rows", rows),
        ("empty", AnswerWriter::default().finish(&[]).into_body()),
        ("refused", AnswerWriter::default().finish(&[failed]).into_body()),
    ]
}
