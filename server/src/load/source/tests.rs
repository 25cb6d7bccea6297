use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, ListBuilder, StringBuilder};
use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Int32Array,
    Int64Array, LargeStringArray, RecordBatch, StringArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt64Array,
};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use stoa_protocol::key::{KeyType, KeyValue, decode_key};
use stoa_protocol::limits::EVENT_FUTURE_US_MAX;
use stoa_protocol::storage::Storage;
use stoa_protocol::types::FeatureType;
use stoa_protocol::value::Value;
use tempfile::TempDir;

use super::*;
use crate::load::{BadRow, LoadRow, UnknownColumns};

const NOW: i64 = 1_600_000_000_000_000;

fn group(keys: &[(&str, KeyType)], features: &[(&str, &str)], event_time: Option<&str>) -> FeatureGroup {
    let features: Vec<_> = features.iter().map(|(name, ty)| (*name, FeatureType::parse(ty).unwrap())).collect();
    let mut group = FeatureGroup::simple(1, "g", keys, &features);
    group.event_time = event_time.map(str::to_owned);
    group
}

fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn read(path: &Path, group: &FeatureGroup, rows_per_chunk: usize) -> Result<(Vec<LoadRow>, Vec<BadRow>), LoadError> {
    let source = SourceFile::open(path, group, LoadOptions::new(NOW))?;
    let (mut rows, mut bad, mut first_row) = (Vec::new(), Vec::new(), 0);
    for chunk in source.chunks(rows_per_chunk)? {
        let chunk = chunk?;
        assert_eq!(chunk.first_row, first_row);
        assert!((1..=rows_per_chunk).contains(&chunk.len()));
        first_row += chunk.len() as u64;
        rows.extend(chunk.rows);
        bad.extend(chunk.bad);
    }
    assert!(source.rows_total().is_none_or(|total| total == first_row));
    Ok((rows, bad))
}

fn one_int(name: &str) -> FeatureGroup {
    group(&[("id", KeyType::Int64)], &[(name, "Int32")], None)
}

#[test]
fn a_row_whose_value_cannot_be_kept_in_its_storage_is_a_bad_row_and_the_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let features = [("share", "Float32"), ("taste", "FixedArray<Float32, 2>")];
    let mut group = group(&[("id", KeyType::Int64)], &features, None);
    (group.features[0].storage, group.features[1].storage) = (Some(Storage::Float16), Some(Storage::Int8Scaled));
    let lines = ["id,share,taste", "1,65504,\"[1, 2]\"", "2,65505,", "3,,\"[1, 3.40282347e38]\"", "4,NaN,"];
    let path = write(&dir, "x.csv", lines.join("\n"));
    let (rows, bad) = read(&path, &group, 10).unwrap();
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 5], "binary16 has a NaN");
    let told: Vec<_> = bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
    let [(3, share), (4, taste)] = told[..] else { panic!("{told:?}") };
    assert!(
        share.starts_with("column share: the value is 65505.0, and float16 keeps values of up to 65504.0"),
        "{share}"
    );
    assert!(taste.starts_with("column taste: item 1 is 3.4028235e38, and int8_scaled keeps"), "{taste}");
}

#[test]
fn a_csv_file_is_read_with_its_lines_and_its_bad_rows() {
    let dir = tempfile::tempdir().unwrap();
    let group = group(
        &[("id", KeyType::Int32), ("store", KeyType::String)],
        &[("units", "Int8"), ("share", "Float32"), ("note", "String"), ("doc", "Json")],
        Some("at"),
    );
    for end in ["\n", "\r\n"] {
        let lines = [
            "\u{feff}id,note,at,store,units,doc",
            "1,\"two\nlines, quoted\",2017-12-31T00:00:00Z,se,5,\"{\"\"a\"\": 1}\"",
            "2,,7,dk,,",
            ",x,7,se,1,",
            "3,x,7,,1,",
            "4,x,7,se,128,",
            "5,x,,se,1,",
            "6,x,7,se,1",
            "9999999999,x,7,se,1,",
            "7,x,9000000000000000,se,1,",
            "8,x,7,se,1,{",
            "9,x,1970-01-02,se,-128,[]",
        ];
        let path = write(&dir, "f.csv", lines.join(end) + end);
        let (rows, bad) = read(&path, &group, 3).unwrap();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 4, 13], "{end:?}");
        let key = decode_key(&group.entity.key_types(), &rows[0].key).unwrap();
        assert_eq!(key, [KeyValue::Int(1), "se".into()]);
        assert_eq!(rows[0].event_time, 1_514_678_400_000_000);
        let text = |text: &str| Value::String(text.into());
        assert_eq!(rows[0].values, [Value::Int(5), text("two\nlines, quoted"), text("{\"a\": 1}")]);
        assert_eq!(rows[1].values, [Value::Null, Value::Null, Value::Null]);
        assert_eq!(rows[2].event_time, 86_400_000_000);
        let wanted = [
            (5, "key column id: the key is null"),
            (6, "key column store: the key is null"),
            (7, "column units: 128 is out of the range of Int8"),
            (8, "column at: the event time is null"),
            (9, "5 fields where the header has 6"),
            (
                10,
                "key column 0 is Int32 (-2147483648 to 2147483647), and 9999999999 was given (the key columns are id, store)",
            ),
            (11, "the event time 9000000000000000 us is more than 5 minutes after"),
            (12, "column doc: not JSON"),
        ];
        assert_eq!(bad.len(), wanted.len(), "{bad:#?}");
        for (bad, (line, reason)) in bad.iter().zip(wanted) {
            assert!(bad.line == line && bad.reason.contains(reason), "{bad:?} should be {line} {reason}");
        }
    }
}

#[test]
fn lines_are_counted_over_blank_lines_and_to_a_file_without_a_last_line_feed() {
    let dir = tempfile::tempdir().unwrap();
    for (text, lines) in [
        ("id,a\n\n\n1,2\n\n3,4", vec![4, 6]),
        ("id,a\r\n\r\n1,2\r\n\r\n3,4", vec![3, 5]),
        ("\nid,a\n1,2\n\n", vec![3]),
        ("id,a\r\n1,\"2\"\r\n", vec![2]),
        ("id,a\n", vec![]),
    ] {
        let (rows, bad) = read(&write(&dir, "f.csv", text), &one_int("a"), 2).unwrap();
        assert_eq!((rows.iter().map(|row| row.line).collect::<Vec<_>>(), bad), (lines, vec![]), "{text:?}");
    }
}

#[test]
fn csv_bytes_that_are_no_text_and_values_that_are_too_long_make_bad_rows() {
    let dir = tempfile::tempdir().unwrap();
    let group = group(&[("id", KeyType::String)], &[("a", "String"), ("b", "FixedArray<Float32, 2>")], None);
    let mut text = b"id,a,b\nx,\xff,\n".to_vec();
    text.extend(
        format!("{},1,\ny,{},\nz,1,\"[1, 2, 3]\"\nok,1,\"[1, 2]\"\n", "k".repeat(1_025), "v".repeat(65_537)).bytes(),
    );
    let (rows, bad) = read(&write(&dir, "f.csv", text), &group, 100).unwrap();
    assert_eq!((rows.len(), rows[0].event_time), (1, NOW), "rows of a group without event time carry that of the load");
    let reasons: Vec<_> = bad.iter().map(|bad| bad.reason.as_str()).collect();
    assert!(reasons[0].contains("column a: not UTF-8 at byte 0"), "{reasons:?}");
    assert!(reasons[1].contains("limit of 1024"), "{reasons:?}");
    assert!(reasons[2].contains("65537 bytes is over the limit"), "{reasons:?}");
    assert!(reasons[3].contains("column b: "), "{reasons:?}");
}

#[test]
fn an_event_may_lie_five_minutes_ahead_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let group = group(&[("id", KeyType::Int64)], &[("a", "Int32")], Some("at"));
    let last = NOW + EVENT_FUTURE_US_MAX;
    let path = write(&dir, "f.csv", format!("id,a,at\n1,1,{last}\n2,1,{}\n", last + 1));
    let (rows, bad) = read(&path, &group, 100).unwrap();
    assert_eq!((rows.len(), bad[0].line), (1, 3));
}

#[test]
fn an_unclosed_quote_does_not_draw_in_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "f.csv", format!("id,a\n1,\"{}", "x".repeat(17 << 20)));
    let message = read(&path, &one_int("a"), 10).unwrap_err().to_string();
    assert!(message.contains("is a quote not closed?"), "{message}");
}

#[test]
fn a_parquet_file_is_read_with_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let group = group(
        &[("id", KeyType::Int32), ("code", KeyType::String)],
        &[
            ("flag", "Bool"),
            ("wide", "Int64"),
            ("double", "Float64"),
            ("price", "Decimal128(4)"),
            ("day", "Date"),
            ("at_s", "Timestamp"),
            ("at_ns", "Timestamp"),
            ("name", "String"),
            ("color", "String"),
            ("raw", "Binary"),
            ("tags", "Array<String>"),
            ("embedding", "FixedArray<Float32, 2>"),
            ("listed", "FixedArray<Float32, 2>"),
            ("missing", "Int8"),
        ],
        Some("event"),
    );
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("a"), Some("")]);
    tags.append_null();
    let mut embedding = FixedSizeListBuilder::new(Float32Builder::new(), 2);
    embedding.values().append_slice(&[1.5, -2.5, 0.0, 0.0]);
    embedding.append(true);
    embedding.append(false);
    let mut listed = ListBuilder::new(Float32Builder::new());
    listed.append_value([Some(1.0), Some(2.0)]);
    listed.append_null();
    let color: DictionaryArray<Int8Type> = [Some("red"), None].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("tags", Arc::new(tags.finish())),
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("code", Arc::new(LargeStringArray::from(vec!["x", "y"]))),
        ("event", Arc::new(TimestampMillisecondArray::from(vec![5, 6]).with_timezone("UTC"))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("wide", Arc::new(Int32Array::from(vec![Some(-7), None]))),
        ("double", Arc::new(Float32Array::from(vec![Some(1.5), None]))),
        ("price", Arc::new(Decimal128Array::from(vec![Some(1_250), None]).with_precision_and_scale(10, 2).unwrap())),
        ("day", Arc::new(Date32Array::from(vec![Some(17_531), None]))),
        ("at_s", Arc::new(TimestampSecondArray::from(vec![Some(1), None]).with_timezone("+02:00"))),
        ("at_ns", Arc::new(TimestampNanosecondArray::from(vec![Some(1_999), None]))),
        ("name", Arc::new(StringArray::from(vec![Some(""), None]))),
        ("color", Arc::new(color)),
        ("raw", Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), None]))),
        ("embedding", Arc::new(embedding.finish())),
        ("listed", Arc::new(listed.finish())),
    ];
    let path = write(&dir, "f.PARQUET", parquet(columns));
    let (rows, bad) = read(&path, &group, 1).unwrap();
    assert_eq!(bad, []);
    assert_eq!((rows[0].line, rows[1].line, rows[1].event_time), (1, 2, 6_000));
    let text = |text: &str| Value::String(text.into());
    let wanted = vec![
        Value::Bool(true),
        Value::Int(-7),
        Value::Float64(1.5),
        Value::Decimal128(125_000),
        Value::Date(17_531),
        Value::Timestamp(1_000_000),
        Value::Timestamp(1),
        text(""),
        text("red"),
        Value::Binary(vec![0, 255]),
        Value::Array(vec![text("a"), text("")]),
        Value::FixedArray(vec![1.5, -2.5]),
        Value::FixedArray(vec![1.0, 2.0]),
    ];
    assert_eq!(rows[0].values, wanted);
    assert_eq!(rows[1].values, vec![Value::Null; 13]);
    let source = SourceFile::open(&path, &group, LoadOptions::new(NOW)).unwrap();
    assert_eq!(source.features(), (0..13).collect::<Vec<u16>>());
    assert_eq!(source.rows_total(), Some(2));
}

#[test]
fn values_of_a_parquet_file_that_do_not_fit_make_bad_rows() {
    let dir = tempfile::tempdir().unwrap();
    let group = group(
        &[("id", KeyType::Int8)],
        &[("at", "Timestamp"), ("f", "FixedArray<Float32, 2>"), ("price", "Decimal128(38)")],
        Some("event"),
    );
    let mut lists = ListBuilder::new(Float32Builder::new());
    for length in [2, 2, 2, 2, 1, 2, 2] {
        lists.append_value(vec![Some(1.0); length]);
    }
    lists.append_value([Some(1.0), None]);
    let prices = Decimal128Array::from(vec![0, 0, 0, 0, 0, 0, 10, 0]).with_precision_and_scale(2, 0).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "id",
            Arc::new(UInt64Array::from(vec![
                Some(1),
                Some(200),
                None,
                Some(u64::MAX),
                Some(2),
                Some(3),
                Some(4),
                Some(5),
            ])),
        ),
        ("at", Arc::new(TimestampSecondArray::from(vec![0, 0, 0, 0, 0, i64::MAX, 0, 0]))),
        (
            "event",
            Arc::new(Date32Array::from(vec![Some(1), Some(1), Some(1), Some(1), Some(1), Some(1), Some(1), None])),
        ),
        ("f", Arc::new(lists.finish())),
        ("price", Arc::new(prices)),
    ];
    let (rows, bad) = read(&write(&dir, "f.parquet", parquet(columns)), &group, 100).unwrap();
    assert_eq!((rows.len(), rows[0].event_time), (1, 86_400_000_000));
    let wanted = [
        (2, "and 200 was given"),
        (3, "key column id: the key is null"),
        (4, "key column id: the value is out of range"),
        (5, "column f: "),
        (6, "column at: the value is out of range"),
        (7, "column price: the value is out of range"),
        (8, "column event: the event time is null"),
    ];
    assert_eq!(bad.len(), wanted.len(), "{bad:#?}");
    for (bad, (line, reason)) in bad.iter().zip(wanted) {
        assert!(bad.line == line && bad.reason.contains(reason), "{bad:?} should be {line} {reason}");
    }
}

/// Most damage to a Parquet file reads as other values. A file that has checksums (Spark writes them) must be held to
/// them; the writer of the `parquet` crate writes none, so this one comes from elsewhere.
#[test]
fn a_flipped_bit_under_a_checksum_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let group = group(&[("id", KeyType::Int64)], &[("a", "Int64")], None);
    let whole = include_bytes!("../../../../tests/fixtures/page_checksums.parquet");
    let (rows, bad) = read(&write(&dir, "whole.parquet", whole), &group, 100).unwrap();
    assert_eq!((rows.len(), bad.len()), (4, 0));
    assert_eq!(rows[1].values, [Value::Int(0x1122_3344_5566_7788)]);
    let marker = 0x1122_3344_5566_7788_u64.to_le_bytes();
    let at = whole.windows(8).position(|bytes| bytes == marker).unwrap();
    for bit in [0, 13, 62] {
        let mut flipped = whole.to_vec();
        flipped[at + bit / 8] ^= 1 << (bit % 8);
        match read(&write(&dir, "flipped.parquet", flipped), &group, 100) {
            Err(LoadError::Damaged { why, .. }) => assert!(why.contains("CRC"), "{why}"),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn a_column_of_another_type_is_refused_before_any_row_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let path = write(&dir, "f.parquet", parquet(vec![("id", ids.clone()), ("a", ids.clone())]));
    for (ty, wanted) in [
        ("Int32", "column a is Int64, and Int32 is wanted; it may be Int8 to Int32, UInt8 or UInt16"),
        ("Float64", "column a is Int64, and Float64 is wanted"),
        ("String", "it may be Utf8"),
        ("Timestamp", "a timestamp of any unit"),
        ("Array<Int64>", "a list of Int8 to Int64"),
        ("FixedArray<Float32, 3>", "FixedSizeList of 3 Float32"),
    ] {
        let group = group(&[("id", KeyType::Int64)], &[("a", ty)], None);
        let message = SourceFile::open(&path, &group, LoadOptions::new(NOW)).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
    let keyed = group(&[("id", KeyType::String)], &[("a", "Int64")], None);
    let message = SourceFile::open(&path, &keyed, LoadOptions::new(NOW)).unwrap_err().to_string();
    assert!(message.contains("column id is Int64, and a key of type String is wanted"), "{message}");
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["now"]));
    let path = write(&dir, "t.parquet", parquet(vec![("id", ids.clone()), ("a", ids), ("at", texts)]));
    let timed = group(&[("id", KeyType::Int64)], &[("a", "Int64")], Some("at"));
    let message = SourceFile::open(&path, &timed, LoadOptions::new(NOW)).unwrap_err().to_string();
    assert!(message.contains("column at is Utf8, and an event time is wanted"), "{message}");
}

#[test]
fn files_that_are_no_feature_files_are_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let group = one_int("a");
    let good = parquet(vec![("id", Arc::new(Int64Array::from(vec![1]))), ("a", Arc::new(Int32Array::from(vec![1])))]);
    let cases = [
        ("f.json", b"{}".to_vec(), "the extension is \"json\"; a feature file ends in"),
        ("f", b"id,a\n".to_vec(), "the extension is \"\""),
        ("f.parquet", Vec::new(), "not a whole Parquet file: it is empty"),
        ("f.csv", Vec::new(), "not a whole CSV file: it is empty"),
        ("f.csv", b"\n\n".to_vec(), "its first line should name the columns"),
        ("f.csv", b"id,\xff\n".to_vec(), "the name of column 2 is not UTF-8"),
        ("f.csv", b"id,b\n".to_vec(), "test/g@1 has no columns b; it has id, a"),
        ("f.parquet", b"id,a\n1,2\n".to_vec(), "not a whole Parquet file"),
        ("f.parquet", good[..good.len() - 1].to_vec(), "not a whole Parquet file"),
        ("f.parquet", good[..good.len() / 2].to_vec(), "not a whole Parquet file"),
    ];
    for (name, bytes, wanted) in cases {
        let path = write(&dir, name, bytes);
        let message = SourceFile::open(&path, &group, LoadOptions::new(NOW)).unwrap_err().to_string();
        assert!(message.starts_with(path.to_str().unwrap()) && message.contains(wanted), "{message}\n{wanted}");
    }
    let missing = SourceFile::open(dir.path().join("no.csv"), &group, LoadOptions::new(NOW)).unwrap_err();
    assert!(missing.to_string().contains("no.csv: the file cannot be read"), "{missing}");
    std::fs::create_dir(dir.path().join("d.csv")).unwrap();
    assert!(SourceFile::open(dir.path().join("d.csv"), &group, LoadOptions::new(NOW)).is_err());
}

#[test]
fn unknown_columns_may_be_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "f.csv", "x,id,a\n?,1,2\n");
    let options = LoadOptions { unknown_columns: UnknownColumns::Ignore, ..LoadOptions::new(NOW) };
    let source = SourceFile::open(&path, &one_int("a"), options).unwrap();
    assert_eq!(source.ignored_columns(), ["x"]);
    let chunk = source.chunks(10).unwrap().next().unwrap().unwrap();
    assert_eq!(chunk.rows[0].values, [Value::Int(2)]);
}

#[test]
fn a_file_that_changes_under_way_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "f.csv", "id,a\n1,2\n");
    let source = SourceFile::open(&path, &one_int("a"), LoadOptions::new(NOW)).unwrap();
    let digest = source.digest().unwrap();
    assert_eq!(digest, xxhash_rust::xxh3::xxh3_128(b"id,a\n1,2\n"));
    assert_eq!(source.chunks(10).unwrap().count(), 1);
    write(&dir, "f.csv", "id,a\n1,2\n3,4\n");
    assert!(matches!(source.chunks(10), Err(LoadError::Changed { .. })));
    assert!(matches!(source.digest(), Err(LoadError::Changed { .. })));
}

fn small_parquet() -> (Vec<u8>, FeatureGroup) {
    let mut tags = ListBuilder::new(StringBuilder::new());
    (0..50).for_each(|n| tags.append_value([Some(format!("t{n}")), Some("u".into())]));
    let bytes = parquet(vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..50))),
        ("a", Arc::new(Int32Array::from_iter((0..50).map(|n| (n % 3 > 0).then_some(n))))),
        ("s", Arc::new(StringArray::from_iter_values((0..50).map(|n| format!("text {n}"))))),
        ("tags", Arc::new(tags.finish())),
    ]);
    let features = [("a", "Int32"), ("s", "String"), ("tags", "Array<String>")];
    (bytes, group(&[("id", KeyType::Int64)], &features, None))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_damaged_parquet_file_gives_rows_or_an_error_and_never_a_panic(
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..4),
        flips_at_end in prop::collection::vec((0usize..600, 0u8..8), 0..3),
    ) {
        let (mut bytes, group) = small_parquet();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        // The footer is where most of the structure is.
        for (back, bit) in flips_at_end {
            let at = bytes.len() - 1 - back.min(bytes.len() - 1);
            bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "f.parquet", bytes);
        if let Ok((rows, _)) = read(&path, &group, 7) {
            prop_assert!(rows.iter().all(|row| row.values.len() == 3));
        }
    }
}
