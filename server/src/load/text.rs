//! Values as text, for CSV and for defaults in definitions.
//!
//! ```text
//! Bool         true, false, 1, 0 (true and false in any case)
//! integers     digits, with a sign or without
//! floats       3, 3.5, 1e-7, NaN, inf, -inf
//! Decimal128   digits with at most `scale` of them after the point
//! Date         2017-12-31
//! Timestamp    2017-12-31T23:59:59Z, with a fraction (cut to microseconds) or an offset; without an offset it is UTC; a
//!              blank may stand for the T; or an integer, microseconds since 1970-01-01T00:00:00Z
//! String, Json as they are
//! Binary       hexadecimal digits, two a byte
//! arrays       JSON: [1, 2, 3], ["a", "b"]
//! ```
//!
//! **An empty field is null**, for every type: a CSV reader cannot tell `""` from nothing. A String that must be empty
//! rather than null needs Parquet.

use serde_json::Value as Json;
use stoa_protocol::key::{KeyType, KeyValue};
use stoa_protocol::types::{FeatureType, ItemType};
use stoa_protocol::value::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// The value of a field; why it is none in words.
pub(crate) fn parse_value(ty: FeatureType, text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let wrong = || format!("{} is not a value of type {ty}", shorten(text));
    Ok(match ty {
        FeatureType::Bool => Value::Bool(parse_bool(text).ok_or_else(wrong)?),
        FeatureType::Int8 | FeatureType::Int16 | FeatureType::Int32 | FeatureType::Int64 => {
            Value::Int(text.parse().map_err(|_| wrong())?)
        }
        FeatureType::Float32 => Value::Float32(text.parse().map_err(|_| wrong())?),
        FeatureType::Float64 => Value::Float64(text.parse().map_err(|_| wrong())?),
        FeatureType::Decimal128 { scale } => Value::Decimal128(parse_decimal(text, scale).ok_or_else(wrong)?),
        FeatureType::Date => Value::Date(parse_date(text).ok_or_else(wrong)?),
        FeatureType::Timestamp => Value::Timestamp(parse_timestamp(text).ok_or_else(wrong)?),
        FeatureType::String | FeatureType::Json => Value::String(text.to_owned()),
        FeatureType::Binary => Value::Binary(parse_hex(text).ok_or_else(wrong)?),
        FeatureType::Array(item) => {
            let items: Vec<Json> = serde_json::from_str(text).map_err(|_| wrong())?;
            let items: Option<Vec<Value>> = items.iter().map(|json| item_of(item, json)).collect();
            Value::Array(items.ok_or_else(wrong)?)
        }
        FeatureType::FixedArray { .. } => Value::FixedArray(serde_json::from_str(text).map_err(|_| wrong())?),
    })
}

/// The value of a key column's field.
pub(super) fn parse_key(ty: KeyType, text: &str) -> Result<KeyValue, String> {
    if text.is_empty() {
        return Err("the key is null".into());
    }
    let wrong = || format!("{} is not a key of type {ty}", shorten(text));
    Ok(match ty {
        KeyType::Bool => KeyValue::Bool(parse_bool(text).ok_or_else(wrong)?),
        KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64 => {
            KeyValue::Int(text.parse().map_err(|_| wrong())?)
        }
        KeyType::Date => KeyValue::Date(parse_date(text).ok_or_else(wrong)?),
        KeyType::Timestamp => KeyValue::Timestamp(parse_timestamp(text).ok_or_else(wrong)?),
        KeyType::String => KeyValue::String(text.to_owned()),
        KeyType::Binary => KeyValue::Binary(parse_hex(text).ok_or_else(wrong)?),
    })
}

/// The event time of a field: a timestamp, or a date, which means its first moment in UTC.
pub(super) fn parse_event_time(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Err("the event time is null".into());
    }
    parse_timestamp(text)
        .or_else(|| parse_date(text).map(|days| i64::from(days) * DAY_US))
        .ok_or_else(|| format!("{} is not an event time, such as 2017-12-31T23:59:59Z", shorten(text)))
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Microseconds since 1970-01-01T00:00:00Z.
fn parse_timestamp(text: &str) -> Option<i64> {
    if let Ok(us) = text.parse() {
        return Some(us);
    }
    // Two liberties over RFC 3339: a blank for the T, and no offset, which is taken for UTC.
    let mut text = text.to_owned();
    if text.as_bytes().get(10) == Some(&b' ') {
        text.replace_range(10..11, "T");
    }
    let clock = text.get(11..)?;
    if !clock.ends_with(['Z', 'z']) && !clock.contains(['+', '-']) {
        text.push('Z');
    }
    let instant = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    i64::try_from(instant.unix_timestamp_nanos().div_euclid(1_000)).ok()
}

/// Days since 1970-01-01.
fn parse_date(text: &str) -> Option<i32> {
    if text.len() != 10 {
        return None;
    }
    let midnight = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).ok()?;
    i32::try_from(midnight.unix_timestamp().div_euclid(24 * 3_600)).ok()
}

/// The unscaled integer of a decimal number.
fn parse_decimal(text: &str, scale: u8) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let zeros = usize::from(scale).checked_sub(fraction.len())?;
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', zeros)) {
        let digit = byte.is_ascii_digit().then(|| i128::from(byte - b'0'))?;
        // Built up on its own side of zero, so that the smallest value does not overflow.
        let digit = if negative { -digit } else { digit };
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    Some(value)
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn item_of(item: ItemType, json: &Json) -> Option<Value> {
    Some(match (item, json) {
        (ItemType::Bool, Json::Bool(v)) => Value::Bool(*v),
        (ItemType::Int8 | ItemType::Int16 | ItemType::Int32 | ItemType::Int64, json) => Value::Int(json.as_i64()?),
        (ItemType::Float32, json) => Value::Float32(json.as_f64()? as f32),
        (ItemType::Float64, json) => Value::Float64(json.as_f64()?),
        (ItemType::Date, Json::String(text)) => Value::Date(parse_date(text)?),
        (ItemType::Timestamp, Json::String(text)) => Value::Timestamp(parse_timestamp(text)?),
        (ItemType::Timestamp, json) => Value::Timestamp(json.as_i64()?),
        (ItemType::String, Json::String(text)) => Value::String(text.clone()),
        _ => return None,
    })
}

/// A field for a message, not more of it than anybody reads.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ty: &str, text: &str) -> Result<Value, String> {
        parse_value(FeatureType::parse(ty).unwrap(), text)
    }

    #[test]
    fn values_of_every_type_are_read() {
        let cases = [
            ("Bool", "TRUE", Value::Bool(true)),
            ("Bool", "0", Value::Bool(false)),
            ("Int8", "-128", Value::Int(-128)),
            ("Int64", "9223372036854775807", Value::Int(i64::MAX)),
            ("Float32", "1e-7", Value::Float32(1e-7)),
            ("Float64", "-inf", Value::Float64(f64::NEG_INFINITY)),
            ("Decimal128(2)", "12.5", Value::Decimal128(1_250)),
            ("Decimal128(2)", "-0.05", Value::Decimal128(-5)),
            ("Decimal128(0)", "-170141183460469231731687303715884105728", Value::Decimal128(i128::MIN)),
            ("Date", "1969-12-31", Value::Date(-1)),
            ("Date", "2017-12-31", Value::Date(17_531)),
            ("Timestamp", "2017-12-31T00:00:00Z", Value::Timestamp(1_514_678_400_000_000)),
            ("Timestamp", "2017-12-31 01:00:00.5+01:00", Value::Timestamp(1_514_678_400_500_000)),
            ("Timestamp", "2017-12-31T00:00:00.123456789", Value::Timestamp(1_514_678_400_123_456)),
            ("Timestamp", "1969-12-31T23:59:59.9999999Z", Value::Timestamp(-1)),
            ("Timestamp", "-7", Value::Timestamp(-7)),
            ("String", " é", Value::String(" é".into())),
            ("Binary", "00fF", Value::Binary(vec![0, 255])),
            ("Array<Int16>", "[1, -2]", Value::Array(vec![Value::Int(1), Value::Int(-2)])),
            ("Array<String>", "[\"a\"]", Value::Array(vec![Value::String("a".into())])),
            ("Array<Date>", "[\"1970-01-02\"]", Value::Array(vec![Value::Date(1)])),
            ("FixedArray<Float32, 2>", "[1, 2.5]", Value::FixedArray(vec![1.0, 2.5])),
            ("String", "", Value::Null),
            ("Int8", "", Value::Null),
        ];
        for (ty, text, wanted) in cases {
            assert_eq!(value(ty, text), Ok(wanted), "{ty} {text}");
        }
    }

    #[test]
    fn what_is_no_value_is_told_with_its_type() {
        for (ty, text) in [
            ("Bool", "yes"),
            ("Int32", "12.0"),
            ("Int64", "9223372036854775808"),
            ("Float32", "1,5"),
            ("Decimal128(2)", "1.234"),
            ("Decimal128(2)", "."),
            ("Decimal128(38)", "10"),
            ("Date", "2017-2-1"),
            ("Date", "2017-02-29"),
            ("Date", "17-02-28"),
            ("Timestamp", "2017-12-31"),
            ("Timestamp", "2017-12-31T25:00:00Z"),
            ("Timestamp", "yesterday é"),
            ("Binary", "0"),
            ("Binary", "0é"),
            ("Array<Int16>", "1,2"),
            ("Array<Int16>", "[1.5]"),
            ("Array<Int16>", "[null]"),
            ("FixedArray<Float32, 2>", "[\"a\"]"),
        ] {
            let message = value(ty, text).unwrap_err();
            assert!(message.contains(&format!("is not a value of type {ty}")), "{ty} {text}: {message}");
        }
    }

    #[test]
    fn event_times_may_be_dates_and_keys_may_not_be_null() {
        assert_eq!(parse_event_time("1970-01-02"), Ok(DAY_US));
        assert_eq!(parse_event_time("5"), Ok(5));
        assert!(parse_event_time("").unwrap_err().contains("null"));
        assert!(parse_event_time("soon").unwrap_err().contains("not an event time"));
        assert!(parse_key(KeyType::Int8, "").unwrap_err().contains("null"));
        assert!(parse_key(KeyType::Date, "x").unwrap_err().contains("not a key of type Date"));
        assert_eq!(parse_key(KeyType::Binary, "0a"), Ok(KeyValue::Binary(vec![10])));
    }
}
