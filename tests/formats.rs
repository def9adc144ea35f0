//! `docs/formats.md` says what the code writes: kinds, shortest payloads, limits, and the example
//! byte for byte.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use lanekv::node::SnapshotJob;
use lanekv::protocol::{
    Ballot, Base, BaseParts, Decision, Hello, Message, Nonce, Promise, Record, Refusal, Status, Value, View,
    Voter, decode_refusal, encode_hello, encode_message, encode_record, encode_refusal,
};
use lanekv::storage::{Disk, DiskFile, MemoryDisk, SnapshotFront, SnapshotHeader};
use lanekv::store::{Applied, Limits, Store, lookup};
use lanekv::types::{
    Batch, ClusterId, DiskId, Entry, Incarnation, Index, Label, Lsn, Millis, NodeId, NodeSet, OriginPair,
    Position, SessionId, SnapshotId, Timestamp, ViewNumber, limits,
};
use lanekv::wire::FRAME_HEADER_LEN;
use lanekv::wire::batch::{BatchBuilder, BatchCommand, SessionSeq};
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
        genesis: 0,
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
    let id = SnapshotId { index: Index(1), digest: 1 };
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
        ("SnapshotOffer", Message::SnapshotOffer { forgotten: Position::default() }),
        ("SnapshotAsk", Message::SnapshotAsk { id: None, next: 0 }),
        ("SnapshotBlocks", Message::SnapshotBlocks { id, first: 0, blocks: Vec::new() }),
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
        joining: false,
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
    let place = frames.iter().position(|(name, _)| *name == "SnapshotOffer").expect("just encoded");
    frames.insert(place, ("Refusal", frame));
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
        ("Installed", Record::Installed { index: Index(1), position: Position::default() }),
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
        Refusal::InUse { registered: DiskId(u64::MAX) },
    ];
    for (code, refusal) in (1..).zip(refusals) {
        let mut frame = Vec::new();
        encode_refusal(&mut frame, &refusal);
        assert_eq!(frame[FRAME_HEADER_LEN], code);
        assert_eq!(decode_refusal(&frame[FRAME_HEADER_LEN..]), Ok(refusal));
        let row = document().lines().filter(|line| line.starts_with(&format!("| {code} | "))).count();
        assert!(row > 0, "no row for the refusal {code}");
    }
    assert!(decode_refusal(&[10; 9]).is_err() && decode_refusal(&[2, 64, 0, 0, 0, 0, 0, 0, 0]).is_err());
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

fn snapshot_of_nothing() -> Vec<u8> {
    let disk = MemoryDisk::new();
    let front = SnapshotFront { disk_id: DiskId(9), log_from: Lsn(3), incarnation: Incarnation(4) };
    let position = Position { view: VIEW, t: Timestamp(7), node: node(2) };
    let header = SnapshotHeader {
        cluster: ClusterId(1),
        index: Index(5),
        position,
        now: Millis(1_000),
        ..SnapshotHeader::default()
    };
    let job = SnapshotJob::new(&disk, front, header, Store::new(Limits::default(), 1).freeze());
    let file = job.expect("in memory").run(|_| ControlFlow::Continue(()));
    let file = file.expect("in memory").expect("not broken off").publish().expect("in memory");
    let mut bytes = vec![0; usize::try_from(file.len).expect("small")];
    let read = disk.open(&file.name).and_then(|file| file.read_at(0, &mut bytes));
    assert_eq!(read.expect("in memory"), bytes.len());
    bytes
}

#[test]
fn an_empty_snapshot_byte_by_byte() {
    let (document, written) = (document(), snapshot_of_nothing());
    let (_, example) = document.split_once("### A snapshot\n").expect("the heading is there");
    let (_, example) = example.split_once("```hex\n").expect("the example is there");
    let (example, _) = example.split_once("```").expect("the example ends");
    let lines: Vec<String> = written
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(example.trim_end(), lines.join("\n"), "as written:\n{}", lines.join("\n"));
}

/// View, lanes and origins of a header, from the rows of the table of parts; and what does not fit together.
#[test]
fn what_a_header_says_about_the_order() {
    let number = |n: u64| n.to_le_bytes();
    let voter = |id: u8| [&[id][..], &number(9), &number(1), &[0], &number(0)].concat();
    let sender = |id: u8| [&[id][..], &number(1)].concat();
    let view = |number_of: u64, cluster: u64, senders: &[u8]| {
        let count = |n: usize| u32::try_from(n).expect("few").to_le_bytes();
        let lists = [&count(3)[..], &[0, 1, 2].map(voter).concat(), &count(senders.len())].concat();
        let senders: Vec<u8> = senders.iter().flat_map(|id| sender(*id)).collect();
        [&number(number_of)[..], &number(cluster), &1_u32.to_le_bytes(), &number(0), &lists, &senders]
            .concat()
    };
    let lanes = |a: u64, b: u64| [&2_u32.to_le_bytes()[..], &number(a), &number(b)].concat();
    let origin = |id: u8, seq: u64| [&[id][..], &number(1), &number(1), &number(seq)].concat();
    let origins =
        |all: &[Vec<u8>]| [&u32::try_from(all.len()).expect("few").to_le_bytes()[..], &all.concat()].concat();
    let sound = BaseParts {
        view: view(1, 6, &[0, 2]),
        lanes: lanes(5, 7),
        origins: origins(&[origin(0, 3), origin(2, u64::MAX - 1)]),
    };
    let at = |t, id| Position { view: VIEW, t: Timestamp(t), node: node(id) };
    let read = |index, position, parts: &BaseParts| {
        Base::from_parts(ClusterId(6), Index(index), position, Millis(1), 2, parts)
    };
    let base = read(4, at(7, 2), &sound).expect("sound");
    assert_eq!((base.parts(), &base.lanes), (sound.clone(), &vec![Timestamp(5), Timestamp(7)]));
    let begun = BaseParts { lanes: lanes(0, 0), ..sound.clone() };
    assert!(read(0, at(0, 0), &begun).is_ok(), "a view of which nothing is delivered");
    for (index, position, parts) in [
        (4, at(8, 2), sound.clone()),
        (4, at(7, 1), sound.clone()),
        (4, at(5, 0), sound.clone()),
        (4, at(0, 0), sound.clone()),
        (4, at(7, 0), BaseParts { lanes: lanes(7, 7), ..sound.clone() }),
        (4, Position { view: ViewNumber(2), ..at(7, 2) }, sound.clone()),
        (
            4,
            at(limits::CLOCK_MAX + 1, 2),
            BaseParts { lanes: lanes(5, limits::CLOCK_MAX + 1), ..sound.clone() },
        ),
        (limits::INDEX_MAX + 1, at(7, 2), sound.clone()),
        (4, at(7, 2), BaseParts { view: view(1, 5, &[0, 2]), ..sound.clone() }),
        (4, at(7, 2), BaseParts { view: view(1, 6, &[0, 1, 2]), ..sound.clone() }),
        (4, at(7, 3), BaseParts { view: view(1, 6, &[0, 3]), ..sound.clone() }),
        (0, at(0, 0), BaseParts { view: view(1, 6, &[]), lanes: vec![0; 4], ..sound.clone() }),
        (4, at(7, 2), BaseParts { origins: origins(&[origin(2, 3), origin(0, 3)]), ..sound.clone() }),
        (4, at(7, 2), BaseParts { origins: origins(&[origin(2, u64::MAX)]), ..sound.clone() }),
    ] {
        assert!(read(index, position, &parts).is_err(), "{index} {position} {parts:?}");
    }
}

/// Length and kind of each block behind the first 64 bytes.
#[test]
fn kinds_and_shortest_payloads_of_blocks() {
    let written = snapshot_of_nothing();
    let (mut rest, mut blocks) = (&written[64..], Vec::new());
    while !rest.is_empty() {
        let len = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        blocks.push((rest[12], len));
        rest = &rest[16 + len..];
    }
    // The body is an End; a longer one may leave a single byte to its last block.
    blocks[1].1 -= 16;
    let said = kinds(&document(), "### Kinds of blocks\n");
    let names: Vec<&str> = said.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["Header", "Body", "Footer"]);
    assert_eq!(said.iter().map(|(kind, _, least)| (*kind, *least)).collect::<Vec<_>>(), blocks);
}

#[test]
fn kinds_and_shortest_items_of_images() {
    let mut store = Store::new(Limits::default(), 1);
    let set = lookup(b"SET").expect("a command").code;
    let open = lookup(b"SESSION").expect("a command").code;
    let place = SessionSeq { session: SessionId(1), seq: 1, acked: 0 };
    for (index, session, code, arguments) in [
        (1, None, open, &[&b"OPEN"[..]][..]),
        (2, None, set, &[b"", b""]),
        (3, Some(place), set, &[b"a", b"1", b"XX"]),
    ] {
        let at = Applied { index: Index(index), now: Millis(1) };
        store.apply(at, &BatchCommand { session, code, arguments: arguments.to_vec() }, true);
    }
    let encode = |store: &Store| {
        let (mut encoder, mut image) = (store.freeze().into_encoder(), Vec::new());
        while encoder.next_chunk(&mut image, 10) {}
        image
    };
    let image = encode(&store);
    let items = [(5, "Time", 9), (1, "Key", 17), (2, "Session", 33), (3, "Reply", 14), (0, "End", 17)];
    let (mut at, mut written) = (0, Vec::new());
    for (kind, name, least) in items {
        assert_eq!(image[at], kind, "{name}");
        written.push((kind, name.to_owned(), least));
        at += least;
    }
    assert_eq!(image.len(), at);
    let (at, expire) = (Applied { index: Index(4), now: Millis(1) }, lookup(b"PEXPIRE").expect("a command"));
    let arguments: Vec<&[u8]> = vec![b"", b"1"];
    store.apply(at, &BatchCommand { session: None, code: expire.code, arguments }, true);
    let longer = encode(&store);
    assert_eq!((longer[9], longer.len() - image.len()), (4, 8), "a deadline is eight bytes more");
    written.push((4, "Mortal".to_owned(), 17 + 8));
    written.sort_unstable();
    assert_eq!(kinds(&document(), "### Image\n"), written);
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
        format!("| blocks of one message | {} |", limits::SNAPSHOT_BLOCK_COUNT_MAX),
        format!("| block of a snapshot | {} KiB |", limits::SNAPSHOT_BLOCK_LEN_MAX >> 10),
    ] {
        assert!(document.contains(&row), "{row}");
    }
    assert_eq!(limits::FRAME_LEN_MAX, 286_261_248);
    assert_eq!((limits::BATCH_COUNT_MAX, limits::ARGUMENT_COUNT_MAX), (65_536, 65_536));
}
