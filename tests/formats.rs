//! `docs/formats.md` says what the code writes: kinds, shortest payloads, limits, and the example
//! byte for byte.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lanekv::protocol::{
    Ballot, Decision, Hello, Message, Nonce, Promise, Record, Refusal, Status, Value, View, Voter,
    decode_refusal, encode_hello, encode_message, encode_record, encode_refusal,
};
use lanekv::types::{
    Batch, ClusterId, DiskId, Entry, Incarnation, Index, Label, Millis, NodeId, NodeSet, OriginPair,
    Position, Timestamp, ViewNumber, limits,
};
use lanekv::wire::FRAME_HEADER_LEN;
use lanekv::wire::batch::BatchBuilder;
use lanekv::wire::client::{KIND_REQUEST, KIND_RESPONSE};

const VIEW: ViewNumber = ViewNumber(1);

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md");
    fs::read_to_string(path).expect("the document is there")
}

/// The rows of the first table after this heading: kind, name, shortest payload.
fn kinds(document: &str, heading: &str) -> Vec<(u8, String, usize)> {
    let (_, section) = document.split_once(heading).expect("the heading is there");
    let rows = section.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [kind, name, _, least] = cells[..] else { panic!("four columns: {row}") };
            let kind = match kind.strip_prefix("0x") {
                Some(digits) => u8::from_str_radix(digits, 16),
                None => kind.parse(),
            };
            (kind.expect("a kind"), name.to_owned(), least.parse().expect("a length"))
        })
        .collect()
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).expect("below 64")
}

fn label(seq: u64) -> Label {
    Label { origin: node(2), pair: OriginPair { registered: VIEW, incarnation: Incarnation(1) }, seq }
}

fn entry(batch: Batch) -> Arc<Entry> {
    Arc::new(Entry {
        view: VIEW,
        t: Timestamp(7),
        node: node(2),
        prev: Timestamp(5),
        label: label(3),
        wall: Millis(1_000),
        batch,
    })
}

fn empty_batch() -> Batch {
    BatchBuilder::new().take()
}

/// The shortest value: one voter, no lanes.
fn value() -> Value {
    let voter = Voter { node: node(0), disk: DiskId(1), registered: VIEW, drops: 0, drops_at: Millis(0) };
    let next = View {
        number: VIEW,
        cluster: ClusterId(1),
        format: View::FORMAT,
        voters: vec![voter],
        senders: Vec::new(),
    };
    Value { ends: Vec::new(), next }
}

fn status() -> Status {
    Status {
        view: VIEW,
        incarnation: Incarnation(1),
        clock: Timestamp(1),
        lanes: Vec::new(),
        sealed: false,
        hears: NodeSet::EMPTY,
        delivered: Position::default(),
        index: Index(0),
        digest: 0,
        wall: Millis(0),
        leaving: false,
        waiting: 0,
    }
}

/// The shortest of each message, under its name in the document.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let (view, ballot) = (VIEW, Ballot::default());
    let nonce = Nonce { incarnation: Incarnation(1), counter: 1 };
    let promise = Promise {
        last: Vec::new(),
        accepted: None,
        disk: DiskId(1),
        incarnation: Incarnation(1),
        hears: NodeSet::EMPTY,
        entries: Vec::new(),
    };
    let all = vec![
        ("Append", Message::Append(entry(empty_batch()))),
        ("Status", Message::Status(Arc::new(status()))),
        ("Resend", Message::Resend { view, lane: node(1), after: Timestamp(1) }),
        ("CatchUp", Message::CatchUp { view, have: Vec::new() }),
        ("Fill", Message::Fill { entries: Vec::new() }),
        ("SealPrepare", Message::SealPrepare { view, ballot, have: Vec::new() }),
        ("SealPromise", Message::SealPromise { view, ballot, promise: Box::new(promise) }),
        ("SealReject", Message::SealReject { view, ballot, promised: ballot }),
        ("SealAccept", Message::SealAccept { view, ballot, value: Box::new(value()), entries: Vec::new() }),
        ("SealAccepted", Message::SealAccepted { view, ballot }),
        ("NewView", Message::NewView { decisions: Vec::new() }),
        ("ViewRequest", Message::ViewRequest { view }),
        ("Forward", Message::Forward { label: label(1), batch: empty_batch() }),
        ("Refused", Message::Refused { label: label(1) }),
        ("ReadProbe", Message::ReadProbe { nonce }),
        ("ReadAnswer", Message::ReadAnswer { nonce, view, sealed: false, accepted: Vec::new() }),
    ];
    let encode = |(name, message): (&'static str, Message)| {
        let mut frame = Vec::new();
        encode_message(&mut frame, &message);
        (name, frame)
    };
    let mut frames: Vec<_> = all.into_iter().map(encode).collect();
    let hello = Hello {
        protocol: Hello::PROTOCOL,
        from: node(0),
        to: node(1),
        disk: DiskId(1),
        incarnation: Incarnation(1),
        boot: 1,
        cluster: ClusterId(0),
        members: 1,
        view: ViewNumber(0),
        remembered: None,
    };
    let mut frame = Vec::new();
    encode_hello(&mut frame, &hello);
    frames.insert(0, ("Hello", frame));
    let mut frame = Vec::new();
    encode_refusal(&mut frame, &Refusal::NotMember);
    frames.push(("Refusal", frame));
    frames
}

#[test]
fn kinds_and_shortest_payloads_of_messages() {
    let written: Vec<(u8, String, usize)> = messages()
        .into_iter()
        .map(|(name, frame)| (frame[1], name.to_owned(), frame.len() - FRAME_HEADER_LEN))
        .collect();
    assert_eq!(kinds(&document(), "### Kinds\n"), written);
}

#[test]
fn kinds_and_shortest_payloads_of_records() {
    let ballot = Ballot::default();
    let (view, frozen) = (VIEW, Vec::new());
    let records = [
        ("Start", Record::Start { incarnation: Incarnation(1) }),
        ("Entry", Record::Entry(entry(empty_batch()))),
        ("Fill", Record::Fill(entry(empty_batch()))),
        ("Promise", Record::Promise { view, ballot, frozen: frozen.clone() }),
        ("Accept", Record::Accept { view, ballot, frozen, value: Box::new(value()) }),
        ("Decision", Record::Decision(Decision { view, value: value() })),
    ];
    let written = records.map(|(name, record)| {
        let mut payload = Vec::new();
        (encode_record(&mut payload, &record), name.to_owned(), payload.len())
    });
    assert_eq!(kinds(&document(), "### Payloads\n"), written);
}

#[test]
fn refusals_keep_their_detail() {
    let refusals = [
        Refusal::Protocol { found: u16::MAX },
        Refusal::WrongNode { meant: node(63) },
        Refusal::NotMember,
        Refusal::OtherCluster { found: ClusterId(u64::MAX) },
        Refusal::OtherMembers,
        Refusal::OtherDisk { registered: DiskId(u64::MAX) },
        Refusal::OldIncarnation { seen: Incarnation(u64::MAX) },
        Refusal::Clone,
    ];
    for (code, refusal) in (1..).zip(refusals) {
        let mut frame = Vec::new();
        encode_refusal(&mut frame, &refusal);
        assert_eq!(frame[FRAME_HEADER_LEN], code);
        assert_eq!(decode_refusal(&frame[FRAME_HEADER_LEN..]), Ok(refusal));
        let row = document().lines().filter(|line| line.starts_with(&format!("| {code} | "))).count();
        assert!(row > 0, "no row for the refusal {code}");
    }
    assert!(decode_refusal(&[9; 9]).is_err() && decode_refusal(&[2, 64, 0, 0, 0, 0, 0, 0, 0]).is_err());
}

#[test]
fn the_kinds_of_the_client_dialect() {
    let document = document();
    for sentence in
        [format!("Request, kind `{KIND_REQUEST:#x}`"), format!("Response, kind `{KIND_RESPONSE:#x}`")]
    {
        assert!(document.contains(&sentence), "{sentence}");
    }
}

#[test]
fn the_example() {
    let document = document();
    let (_, example) = document.split_once("```hex\n").expect("the example is there");
    let (example, _) = example.split_once("```").expect("the example ends");
    let bytes: Vec<u8> =
        example.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect();
    let mut builder = BatchBuilder::new();
    builder.push(None, 1, &[b"a", b"1"]);
    let mut frame = Vec::new();
    encode_message(&mut frame, &Message::Append(entry(builder.take())));
    assert_eq!(bytes, frame, "as written: {frame:02x?}");
}

#[test]
fn the_limits() {
    let mib = |len: usize| {
        assert_eq!(len % (1 << 20), 0);
        format!("{} MiB", len >> 20)
    };
    let document = document();
    for row in [
        format!("of a log record | {} (286,261,248 bytes) |", mib(limits::FRAME_LEN_MAX)),
        format!("exchange is done | {} KiB |", limits::HELLO_LEN_MAX >> 10),
        format!("| batch | {}, 65,536 commands |", mib(limits::BATCH_LEN_MAX)),
        format!(
            "| 65,536, together {}, each {} |",
            mib(limits::COMMAND_LEN_MAX),
            mib(limits::VALUE_LEN_CEILING)
        ),
        format!("senders of a view | {} |", limits::MEMBER_COUNT_MAX),
        format!("| entries of one message | {} |", limits::FILL_COUNT_MAX),
        format!("| decisions of one message | {} |", limits::DECISION_COUNT_MAX),
    ] {
        assert!(document.contains(&row), "{row}");
    }
    assert_eq!(limits::FRAME_LEN_MAX, 286_261_248);
    assert_eq!((limits::BATCH_COUNT_MAX, limits::ARGUMENT_COUNT_MAX), (65_536, 65_536));
}
