//! Bytes: messages between nodes, the binary client dialect, and RESP, each with values of three lengths.
//!
//! Encoding appends to a buffer that is used again; decoding begins with the frame's checksum, as it does on a
//! connection. What a decoder allocates for its result is part of the figure.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use lanekv::dialect::{DecodeLimits, Decoded, Decoder};
use lanekv::protocol::{LaneRow, Message, Status, decode_message, encode_message};
use lanekv::types::{
    Entry, Incarnation, Index, Label, Millis, NodeSet, OriginPair, Position, Reply, SessionId, Timestamp,
    ViewNumber, limits,
};
use lanekv::wire::batch::SessionSeq;
use lanekv::wire::client::{Consistency, decode_request, decode_response, encode_request, encode_response};
use lanekv::wire::split_frame;

use common::VALUE_LENS;

fn main() {
    let mut criterion = common::criterion();
    append(&mut criterion);
    status(&mut criterion);
    request(&mut criterion);
    response(&mut criterion);
    resp(&mut criterion);
    criterion.final_summary();
}

/// An entry with one SET, as the first of its lane.
fn entry(value_len: usize) -> Entry {
    let view = ViewNumber(1);
    Entry {
        view,
        t: Timestamp(1 << 40),
        node: common::node(2),
        prev: Timestamp(1),
        label: Label {
            origin: common::node(2),
            pair: OriginPair { registered: view, incarnation: Incarnation(3) },
            seq: 1 << 30,
        },
        wall: Millis(1_700_000_000_000),
        batch: common::set_batch(1, value_len),
    }
}

fn row(lanes: u64) -> Status {
    Status {
        view: ViewNumber(1),
        incarnation: Incarnation(3),
        clock: Timestamp(1 << 40),
        lanes: (0..lanes)
            .map(|lane| LaneRow {
                received: Timestamp(lane),
                frontier: Timestamp(1 << 40),
                accepted: Timestamp(lane),
            })
            .collect(),
        sealed: false,
        hears: NodeSet::from_bits((1 << lanes) - 1),
        delivered: Position { view: ViewNumber(1), t: Timestamp(7), node: common::node(0) },
        index: Index(1 << 40),
        digest: u64::MAX,
        wall: Millis(1_700_000_000_000),
        leaving: false,
        waiting: 4,
    }
}

/// Measures both directions of one message.
fn message(criterion: &mut Criterion, kind: &str, size: &str, message: &Message) {
    let mut frame = Vec::new();
    encode_message(&mut frame, message);
    let mut group = criterion.benchmark_group(format!("codec/{kind}"));
    group.throughput(Throughput::Bytes(frame.len() as u64));
    let mut out = Vec::new();
    group.bench_function(BenchmarkId::new("encode", size), |bencher| {
        bencher.iter(|| {
            out.clear();
            encode_message(&mut out, black_box(message));
            out.len()
        });
    });
    group.bench_function(BenchmarkId::new("decode", size), |bencher| {
        bencher.iter(|| {
            let (kind, payload, _) = split_frame(black_box(&frame), limits::FRAME_LEN_MAX).expect("a frame");
            decode_message(kind, payload).expect("as it was encoded")
        });
    });
    group.finish();
}

fn append(criterion: &mut Criterion) {
    for (len, size) in VALUE_LENS {
        message(criterion, "append", size, &Message::Append(Arc::new(entry(len))));
    }
}

fn status(criterion: &mut Criterion) {
    for lanes in [3, 5, 9] {
        message(criterion, "status", &format!("{lanes}-lanes"), &Message::Status(Arc::new(row(lanes))));
    }
}

fn request(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/request");
    for (len, size) in VALUE_LENS {
        let (key, value) = (common::key(1), common::value(len));
        let arguments: [&[u8]; 3] = [b"SET", &key, &value];
        let session = Some(SessionSeq { session: SessionId(9), seq: 8, acked: 7 });
        let mut frame = Vec::new();
        encode_request(&mut frame, 1, Some(Consistency::Linearizable), session, &arguments);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("encode", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                let consistency = Some(Consistency::Linearizable);
                encode_request(&mut out, 1, consistency, session, black_box(&arguments));
                out.len()
            });
        });
        group.bench_function(BenchmarkId::new("decode", size), |bencher| {
            bencher.iter(|| {
                let (_, payload, _) = split_frame(black_box(&frame), limits::FRAME_LEN_MAX).expect("a frame");
                decode_request(payload).expect("as it was encoded").arguments.len()
            });
        });
    }
    group.finish();
}

fn response(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/response");
    for (len, size) in VALUE_LENS {
        let reply = Reply::bulk(&common::value(len));
        let mut frame = Vec::new();
        encode_response(&mut frame, 1, &reply);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("encode", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_response(&mut out, 1, black_box(&reply));
                out.len()
            });
        });
        group.bench_function(BenchmarkId::new("decode", size), |bencher| {
            bencher.iter(|| {
                let (_, payload, _) = split_frame(black_box(&frame), limits::FRAME_LEN_MAX).expect("a frame");
                decode_response(payload).expect("as it was encoded")
            });
        });
    }
    group.finish();
}

fn resp(criterion: &mut Criterion) {
    let limits = DecodeLimits::default();
    let mut group = criterion.benchmark_group("codec/resp-set");
    for (len, size) in VALUE_LENS {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"*3\r\n");
        for argument in [&b"SET"[..], &common::key(1), &common::value(len)] {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
        // Requests a second and not bytes: a value is passed over, not looked at.
        group.throughput(Throughput::Elements(1));
        let mut decoder = Decoder::new();
        group.bench_function(BenchmarkId::new("decode", size), |bencher| {
            bencher.iter(|| match decoder.decode(black_box(&bytes), &limits) {
                Decoded::Request { consumed, .. } => consumed,
                other => panic!("{other:?}"),
            });
        });
    }
    group.finish();
}
