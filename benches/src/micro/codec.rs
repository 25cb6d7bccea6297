//! Bytes of the wire: a request of 100 keys and 48 features, its answer, a batch of 1,000 rows, and the frame around them.
//!
//! Each as its user does it: the node decodes the request, the client takes the answer apart where it lies; the store has
//! written it in the form of the wire (see `gather`). Checksums of frames are CRC-32 by the processor's own instructions, so that a long frame costs few of them.

use std::hint::black_box;

use bytes::Bytes;
use stoa_protocol::frame::{FrameHeader, decode_frame, encode_frame};
use stoa_protocol::message::{Caller, Kind, decode_request, encode_request};
use stoa_protocol::read::ReadRequest;
use stoa_protocol::row_block::parse_answer;
use stoa_protocol::{ClusterId, MapVersion, RowBatch, RowBatchBuilder, Value};

use super::subject::{Repeat, Subject, Work};
use super::table::{BATCH_ROWS, FEATURES, SMALL_ROWS, Table};
use crate::rows::{Floats, Picks, value};

/// Keys of the request.
const KEYS: usize = 100;

/// Requests, answers, batches and frames, in both directions.
pub fn subjects() -> Vec<Subject> {
    let keys = KEYS as u64;
    vec![
        Subject::new("codec/request-encode", keys, |_| request_encode()).counted(2_048),
        Subject::new("codec/request-decode", keys, |_| request_decode()).counted(2_048),
        Subject::new("codec/answer-parse", keys, |_| answer_parse()).counted(2_048),
        Subject::new("codec/batch-encode", BATCH_ROWS, |_| batch_encode()).counted(16),
        Subject::new("codec/batch-decode", BATCH_ROWS, |_| batch_decode()).counted(128),
        Subject::new("codec/frame-encode", 1, |_| frame_encode(Vec::new())).counted(2_048),
        Subject::new("codec/frame-decode", 1, |_| frame_decode(&[])).counted(2_048),
        Subject::new("codec/answer-frame-encode", 1, |_| frame_encode(answer())).counted(512),
        Subject::new("codec/answer-frame-decode", 1, |_| frame_decode(&answer())).counted(512),
    ]
}

fn repeat(operation: impl FnMut() + 'static) -> Box<dyn Work> {
    Box::new(Repeat(operation))
}

fn caller() -> Caller {
    Caller { project: "shop".into(), principal: String::new() }
}

fn request(floats: &Floats) -> ReadRequest {
    let ids = Picks::new(1, SMALL_ROWS).distinct(KEYS);
    floats.ask(&ids, FEATURES).request()
}

/// As the store writes it: it has no other form.
fn answer() -> Vec<u8> {
    let table = Table::filled(FEATURES, SMALL_ROWS);
    table.floats.ask(&Picks::new(1, SMALL_ROWS).distinct(KEYS), FEATURES).answer(&table.reader).into_body()
}

fn request_encode() -> Box<dyn Work> {
    let (caller, request) = (caller(), request(&Floats::new(FEATURES)));
    repeat(move || {
        black_box(encode_request(black_box(&caller), black_box(&request)));
    })
}

fn request_decode() -> Box<dyn Work> {
    let bytes = encode_request(&caller(), &request(&Floats::new(FEATURES)));
    repeat(move || {
        let request = decode_request::<ReadRequest>(black_box(&bytes));
        black_box(request.expect("what was encoded can be decoded"));
    })
}

fn answer_parse() -> Box<dyn Work> {
    let bytes = Bytes::from(answer());
    repeat(move || {
        let sections = parse_answer(black_box(bytes.clone())).expect("what was encoded can be parsed");
        assert!(black_box(sections).iter().all(Result::is_ok), "the section of the benchmark was answered");
    })
}

/// From values, row by row, as a writer does.
fn batch_encode() -> Box<dyn Work> {
    let floats = Floats::new(FEATURES);
    let features: Vec<u16> = (0..FEATURES as u16).collect();
    let keys = floats.batch(0..BATCH_ROWS, 0);
    let values = |id| features.iter().map(move |&at| Value::Float32(value(id, at, 0))).collect();
    let rows: Vec<Vec<Value>> = (0..BATCH_ROWS).map(values).collect();
    repeat(move || {
        let mut builder = RowBatchBuilder::new(&floats.group, &features);
        for (row, values) in rows.iter().enumerate() {
            builder.upsert(keys.key(row), 0, 0, black_box(values)).expect("the values are of the group's types");
        }
        black_box(builder.finish().expect("a batch of the benchmark has rows"));
    })
}

fn batch_decode() -> Box<dyn Work> {
    let bytes = Floats::new(FEATURES).batch(0..BATCH_ROWS, 0).bytes().clone();
    repeat(move || {
        black_box(RowBatch::parse(black_box(bytes.clone())).expect("what was encoded can be parsed"));
    })
}

fn header() -> FrameHeader {
    let (cluster, map_version) = (ClusterId(1 << 100), MapVersion(9));
    FrameHeader { kind: Kind::Read as u16, request_id: 1 << 40, cluster, map_version, remaining_us: 50_000 }
}

fn frame_encode(body: Vec<u8>) -> Box<dyn Work> {
    let header = header();
    repeat(move || {
        black_box(encode_frame(black_box(&header), black_box(&body)));
    })
}

fn frame_decode(body: &[u8]) -> Box<dyn Work> {
    let bytes = encode_frame(&header(), body);
    repeat(move || {
        black_box(decode_frame(black_box(&bytes)).expect("what was encoded can be decoded"));
    })
}
