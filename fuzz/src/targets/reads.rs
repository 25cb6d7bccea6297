//! A foreign read of a partition: what it answers is what the partition holds.

use std::cell::LazyCell;

use stoa_protocol::key::{KeyBlock, check_key};
use stoa_protocol::limits::READ_ROWS_MAX;
use stoa_protocol::read::{Projection, ReadLevel, ReadRequest, RowStatus, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, SectionRows, parse_answer};
use stoa_protocol::{ErrorCode, FeatureGroup, LogIndex, Wire};
use stoa_store::{Partition, PartitionReader, SectionSource, StoreOptions, read_sections};

use super::{Seed, requests};
use crate::{round_trip, sample};

thread_local! {
    static SAMPLE: LazyCell<(Partition, PartitionReader)> =
        LazyCell::new(|| sample::partition(StoreOptions { index_seed: 5, incarnation: 1, ..StoreOptions::default() }));
}

/// A request, as its caller sends it.
pub fn run(data: &[u8]) {
    let Some(request) = round_trip::taken(ReadRequest::from_bytes(data)) else { return };
    // A section may name the same keys as another: few bytes can ask for many rows.
    if request.sections.iter().map(|section| section.keys as usize).sum::<usize>() > READ_ROWS_MAX {
        return;
    }
    SAMPLE.with(|sample| {
        let (partition, reader) = &**sample;
        for (place, projection) in request.projections.iter().enumerate() {
            let sections = request.sections.iter().filter(|section| usize::from(section.projection) == place);
            let sources: Vec<_> = sections
                .map(|section| SectionSource {
                    reader,
                    at_least: section.at_least,
                    time_us: reader.time_us(),
                    keys: request.keys.range(section.first_key as usize, section.keys as usize),
                })
                .collect();
            let mut answer = AnswerWriter::default();
            let heads = read_sections(projection, &sources, &mut answer);
            assert_eq!(heads.len(), sources.len());
            let results: Vec<_> =
                heads.into_iter().map(|head| head.map_or_else(SectionResult::Failed, SectionResult::Rows)).collect();
            let answer = parse_answer(answer.finish(&results).into_body().into()).expect("what was just written");
            for (source, rows) in sources.iter().zip(answer) {
                match rows {
                    Ok(rows) => check_rows(partition, projection, source, &rows),
                    Err(error) => check_refusal(partition, projection, source, error.code),
                }
            }
        }
    });
}

fn definition<'a>(partition: &'a Partition, projection: &Projection) -> Option<&'a FeatureGroup> {
    partition.group(projection.group).filter(|group| group.schema_version >= projection.schema_version)
}

fn has_features(group: &FeatureGroup, projection: &Projection) -> bool {
    let is_live = |feature: &u16| group.features.get(usize::from(*feature)).is_some_and(|feature| !feature.dropped);
    projection.features.iter().all(is_live)
}

/// The rows are those that each key has by itself, by all features.
fn check_rows(partition: &Partition, projection: &Projection, source: &SectionSource<'_>, rows: &SectionRows) {
    let group = definition(partition, projection).expect("a section is answered by a group");
    assert!(has_features(group, projection) && source.at_least <= rows.head.applied);
    assert_eq!((rows.rows(), rows.head.applied), (source.keys.len(), partition.applied()));
    assert!(rows.types().eq(projection.features.iter().map(|feature| group.features[usize::from(*feature)].ty)));
    let live: Vec<u16> = group.live_features().map(|(place, _)| place).collect();
    let all = Projection { features: live.clone(), ..projection.clone() };
    for (row, key) in source.keys.iter().enumerate() {
        assert_eq!(check_key(&group.entity.key_types(), key), Ok(()));
        let mut block = KeyBlock::new();
        block.push(key);
        let alone = source.reader.read(&all, &block, LogIndex(0)).expect("a key of the right types is looked for");
        assert_eq!((rows.status(row), rows.event_time(row)), (alone.status(0), alone.event_time(0)));
        for (column, feature) in projection.features.iter().enumerate() {
            let value = rows.value(column, row);
            assert_eq!(value, alone.value(live.binary_search(feature).expect("it is live"), 0));
            assert!(value.is_none() || rows.status(row) == RowStatus::Found);
        }
    }
}

fn check_refusal(partition: &Partition, projection: &Projection, source: &SectionSource<'_>, code: ErrorCode) {
    let group = definition(partition, projection);
    match code {
        ErrorCode::NotCaughtUp => assert!(source.at_least > partition.applied()),
        ErrorCode::SchemaNotReady => assert!(group.is_none()),
        ErrorCode::NotFound => assert!(group.is_some_and(|group| !has_features(group, projection))),
        ErrorCode::BadKey => {
            let types = group.expect("it was found").entity.key_types();
            assert!(source.keys.iter().any(|key| check_key(&types, key).is_err()));
        }
        other => panic!("{other:?}"),
    }
}

/// Reads of both groups.
pub fn seeds() -> Vec<Seed> {
    let product = requests::read_request(ReadLevel::default());
    let visitor = sample::visitor();
    let mut keys = KeyBlock::new();
    (1..7).for_each(|number| keys.push(&sample::key(&visitor, number)));
    let projection = Projection { group: visitor.id, schema_version: 1, features: (0..18).rev().collect() };
    let section = |first_key, keys| stoa_protocol::read::ReadSection {
        at_least: LogIndex(0),
        first_key,
        keys,
        ..product.sections[0]
    };
    let visitor = ReadRequest {
        level: ReadLevel::default(),
        projections: vec![projection],
        keys,
        sections: vec![section(0, 6), section(2, 1)],
    };
    vec![("product", product.to_bytes()), ("visitor", visitor.to_bytes())]
}
