//! Seeds: inputs that mean something, from the real encoders. `UPDATE_CORPUS=1` writes them to `fuzz/corpus`.

use std::sync::Arc;

use lanekv::protocol::{
    Ballot, Decision, Hello, LaneRow, Message, Nonce, Promise, Record, Sender, Status, Value, View, Voter,
    encode_hello, encode_message, encode_record, encode_refusal,
};
use lanekv::types::{
    Batch, ClusterId, DiskId, Entry, Incarnation, Index, Label, Millis, NodeId, NodeSet, OriginPair,
    Position, Reply, SessionId, Timestamp, ViewNumber,
};
use lanekv::wire::batch::{BatchBuilder, SessionSeq};
use lanekv::wire::client::{Consistency, encode_request, encode_response};
use lanekv::wire::{FRAME_HEADER_LEN, split_frame};

use super::bodies::{image, step};
use super::draw::Draw;

/// The seeds of a target.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "batch" => batches(),
        "client_payload" => client_payloads(),
        "config" => texts(&CONFIGS),
        "decimal" => texts(&["0", "-1", "9223372036854775807", "-9223372036854775808", "12345"]),
        "dialect" => dialects(),
        "glob" => texts(&[
            "\x03a*cabc",
            "\x05[d-a]b",
            "\x07h[a-d]?*hello",
            "\x05[^x]*abc",
            "\x06\\*a*b*\\*aab",
            "\x04*a*bxxaxxb",
            "\x05[]-a]]",
        ]),
        "identity" => identities(),
        "line" => texts(&["SET a \"b c\\x41\\n\"", "GET 'it\\'s'", "  a\tb  ", "a\"b c\"", "MSET k v l w"]),
        "log" => logs(),
        "node_client" => clients(),
        "node_peer" => peers::scripts(),
        "payload" => payloads(),
        "peer_stream" => streams(),
        "replay" => replays(),
        "snapshot" => snapshots(),
        other => panic!("no seeds for {other}"),
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const CONFIGS: [&str; 5] = [
    "0 127.0.0.1:7100\n1 127.0.0.1:7101 http=127.0.0.1:8101\n\
     2 [::1]:7102 peer=[::1]:9102 cluster=[::1]:6102\nset window 1MiB\n",
    "# a comment\r\n63 node-63.example.org:1\r\nset value-max 1GiB\r\nset sync never\r\n",
    "\u{feff}5 localhost:7100 peer=localhost:7200 # more\nset heartbeat 20ms\nset suspicion-timeout 200ms\n",
    "0 0.0.0.0:7100\n0 127.0.0.1:0\n1 x:y\nset colour red\nset sync\n",
    "1 a.:80\n2 A:80\n3 999.1.1.1:1\nset window 4MiB\nset client-timeout 5s\nset clients-max 100\n",
];

fn session(seq: u64) -> SessionSeq {
    SessionSeq { session: SessionId(1), seq, acked: seq.saturating_sub(1) }
}

/// A batch of commands given as code and arguments.
fn batch(commands: &[(Option<SessionSeq>, u8, &[&str])]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (session, code, arguments) in commands {
        builder.push(*session, *code, arguments);
    }
    builder.take()
}

fn batches() -> Vec<Vec<u8>> {
    let all: Vec<Batch> = vec![
        batch(&[]),
        batch(&[(None, 1, &["k", "v"]), (None, 2, &["k"]), (None, 3, &["k", "l"]), (None, 16, &[])]),
        batch(&[
            (None, 1, &["k", "41", "NX", "GET"]),
            (None, 5, &["k"]),
            (None, 7, &["k", "9"]),
            (None, 8, &["k", "-3"]),
        ]),
        batch(&[
            (None, 19, &["OPEN"]),
            (Some(session(1)), 1, &["k", "v"]),
            (Some(session(1)), 1, &["k", "v"]),
        ]),
        batch(&[
            (None, 13, &["a", "1", "b", "2"]),
            (None, 14, &["a", "b", "c"]),
            (None, 15, &["*"]),
            (None, 17, &[]),
        ]),
        batch(&[
            (None, 9, &["k", "tail"]),
            (None, 10, &["k"]),
            (None, 18, &["k", "tail", "x"]),
            (None, 200, &["?"]),
        ]),
        batch(&[
            (None, 19, &["OPEN"]),
            (Some(session(1)), 2, &["k"]),
            (Some(session(2)), 11, &["k", "v"]),
            (Some(session(9)), 12, &["k", "v"]),
        ]),
    ];
    all.iter().map(|batch| batch.bytes().to_vec()).collect()
}

fn request(session: Option<SessionSeq>, consistency: Option<Consistency>, words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_request(&mut out, 9, consistency, session, words);
    out
}

fn client_payloads() -> Vec<Vec<u8>> {
    let requests = [
        request(None, None, &["GET", "key"]),
        request(Some(session(2)), Some(Consistency::Ordered), &["SET", "key", "value", "NX"]),
        request(None, Some(Consistency::Local), &["MGET", "a", "b", ""]),
    ];
    let nested = Reply::Array(vec![
        Reply::Array(vec![]),
        Reply::Integer(-1),
        Reply::Array(vec![Reply::bulk(b"\0\xff"), Reply::Nil]),
        Reply::error("ERR no"),
    ]);
    let replies =
        [Reply::Nil, Reply::OK, Reply::bulk(b"value"), Reply::Integer(7), Reply::error("NOQUORUM x"), nested];
    let responses = replies.iter().map(|reply| {
        let mut out = Vec::new();
        encode_response(&mut out, 5, reply);
        out
    });
    let framed = requests.into_iter().map(|frame| (0, frame)).chain(responses.map(|frame| (1, frame)));
    framed.map(|(way, frame)| [&[way], &frame[FRAME_HEADER_LEN..]].concat()).collect()
}

const SESSIONS: [&str; 8] = [
    "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    "SET a \"x y\"\nGET a\r\nMSET b 1 c 2\nKEYS *\nDBSIZE\n\n",
    "*1\r\n$4\r\nPING\r\n*0\r\n*-1\r\nINCR n\r\nINCRBY n 5\r\nAPPEND n x\r\nSTRLEN n\n",
    "HELLO 3\r\nCLIENT SETNAME x\r\nCOMMAND DOCS GET\r\nINFO\r\nHELP\nROLE\r\nTIME\r\n",
    "SESSION OPEN\nCAS a 1 2\nGETSET a 3\nSETNX a 4\nDEL a b\nEXISTS a\nFLUSHALL\nQUIT\n",
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "*2\r\n$3\r\nGET\r\n$268435456\r\nab",
    "CONSISTENCY local\nGET a\nCONSISTENCY ordered\nGET a\nWAIT 0 0\nnonsense 'a\n",
];

fn dialects() -> Vec<Vec<u8>> {
    let mut frames = request(None, None, &["SET", "a", "1"]);
    frames.extend(request(Some(session(1)), Some(Consistency::Ordered), &["GET", "a"]));
    let mut mixed = frames.clone();
    mixed.extend_from_slice(b"GET a\n*2\r\n$3\r\nDEL\r\n$1\r\na\r\n");
    let mut all: Vec<Vec<u8>> = SESSIONS.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.extend([frames, mixed]);
    all.iter()
        .zip([0, 1, 2, 3].into_iter().cycle())
        .map(|(bytes, choice)| [&[choice], bytes.as_slice()].concat())
        .collect()
}

fn clients() -> Vec<Vec<u8>> {
    let say = |client: u8, text: &str| step(client << 4 | 8, text.as_bytes());
    let (turn, held) = (step(4, &[]), step(5, &[]));
    let later = step(6, &[0x58, 2]);
    let mut all: Vec<Vec<u8>> = SESSIONS.iter().map(|text| [say(0, text), turn.clone()].concat()).collect();
    let frame = request(None, Some(Consistency::Ordered), &["GET", "a"]);
    all.push(
        [
            say(0, "SET a 1\n"),
            say(1, "GET a\r\n"),
            held.clone(),
            say(0, "SET a 2\n"),
            turn.clone(),
            step(1, &[]),
        ]
        .concat(),
    );
    all.push(
        [
            step(8, &frame[..20]),
            turn.clone(),
            step(8, &frame[20..]),
            held.clone(),
            step(2, &[]),
            turn.clone(),
        ]
        .concat(),
    );
    all.push(
        [
            say(2, "*2\r\n$3\r\nGE"),
            later.clone(),
            turn.clone(),
            say(2, "T\r\n$1\r\na\r\n"),
            later,
            turn.clone(),
        ]
        .concat(),
    );
    all.push(
        [
            say(0, "SESSION OPEN\n"),
            turn.clone(),
            step(8, &request(Some(session(1)), None, &["INCR", "n"])),
            turn,
        ]
        .concat(),
    );
    all
}

fn identities() -> Vec<Vec<u8>> {
    let preamble =
        |magic: &[u8; 8], version: u32| [magic.as_slice(), &version.to_le_bytes(), &[0; 4]].concat();
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let identity =
        |node, disk| [&[2], preamble(b"lanekvID", 1).as_slice(), &numbers(&[node, disk]), &[0; 4]].concat();
    let marker = |mode: u8, boot: &str| {
        let boot_len = u32::try_from(boot.len()).expect("short").to_le_bytes();
        let head = [&[3], preamble(b"lanekvSY", 1).as_slice(), &[mode]].concat();
        [head.as_slice(), &numbers(&[50]), &boot_len, boot.as_bytes(), &[0; 4]].concat()
    };
    let newer = [&[2], preamble(b"lanekvID", 2).as_slice(), &[0; 20]].concat();
    vec![
        identity(2, 77),
        identity(63, u64::MAX),
        newer,
        marker(0, ""),
        marker(1, "boot-0"),
        marker(2, "boot-1"),
    ]
}

fn logs() -> Vec<Vec<u8>> {
    let at = |file: u8, offset: u16, more: &[u8]| [&[file], offset.to_le_bytes().as_slice(), more].concat();
    let mut all = Vec::new();
    for which in 0..4 {
        let file = u8::from(which == 3);
        for steps in [
            vec![step(0, &at(file, 520, &[1]))],
            vec![step(0, &at(file, 570, &[128])), step(0, &at(file, 512, &[1]))],
            vec![step(2, &at(file, 600, &[]))],
            vec![step(1, &at(file, 544, &[7; 9])), step(3, &at(file, 512, &[]))],
            vec![step(1, &at(file, 40, &[2])), step(4, &at(file, 0, &[])), step(7, &at(file, 0, &[9; 40]))],
            vec![step(5, &at(file, 0, &[])), step(6, &at(0, 3, &[]))],
        ] {
            all.push([&[which], steps.concat().as_slice()].concat());
        }
    }
    all
}

fn message_frame(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(&mut out, message);
    out
}

fn payloads() -> Vec<Vec<u8>> {
    let draw = &mut Draw::new(11);
    let mut all = Vec::new();
    let strip = |family: u8, frame: Vec<u8>| {
        let (kind, payload, _) = split_frame(&frame, usize::MAX).expect("a frame");
        [&[family, kind], payload].concat()
    };
    for _ in 0..2 {
        for kind in 0..Draw::MESSAGE_KINDS {
            all.push(strip(0, message_frame(&short(draw, |draw| draw.message(kind), message_frame))));
        }
        for kind in 0..Draw::RECORD_KINDS {
            let record = short(draw, |draw| draw.record(kind), |record| record_payload(record).1);
            let (kind, payload) = record_payload(&record);
            all.push([&[1, kind], payload.as_slice()].concat());
        }
        let mut hello = Vec::new();
        encode_hello(&mut hello, &draw.hello());
        all.push(strip(2, hello));
    }
    for kind in 0..Draw::REFUSAL_KINDS {
        let mut refusal = Vec::new();
        encode_refusal(&mut refusal, &draw.refusal(kind));
        all.push(strip(3, refusal));
    }
    all
}

/// Draws until a value has few bytes.
fn short<T>(draw: &mut Draw, mut value: impl FnMut(&mut Draw) -> T, bytes: impl Fn(&T) -> Vec<u8>) -> T {
    loop {
        let value = value(draw);
        if bytes(&value).len() < 400 {
            return value;
        }
    }
}

fn streams() -> Vec<Vec<u8>> {
    let draw = &mut Draw::new(12);
    let mut all = Vec::new();
    for kind in 0..Draw::MESSAGE_KINDS {
        let mut stream = Vec::new();
        encode_hello(&mut stream, &draw.hello());
        stream.truncate(stream.len().min(400));
        for kind in [kind, kind + 5] {
            let message = short(draw, |draw| draw.message(kind % Draw::MESSAGE_KINDS), message_frame);
            stream.extend(message_frame(&message));
        }
        all.push(stream);
    }
    let mut refusal = Vec::new();
    encode_refusal(&mut refusal, &draw.refusal(5));
    all.push(refusal);
    all
}

fn record_payload(record: &Record) -> (u8, Vec<u8>) {
    let mut payload = Vec::new();
    let kind = encode_record(&mut payload, record);
    (kind, payload)
}

fn replays() -> Vec<Vec<u8>> {
    let start = |incarnation| Record::Start { incarnation: Incarnation(incarnation) };
    let founded = || Record::Decision(peers::decision(0, &[], 1));
    let entry = |t, node, prev| Record::Entry(peers::entry(1, t, node, prev));
    let ballot = |round| Ballot { round, node: peers::node(1), incarnation: Incarnation(1) };
    let promise = |round, frozen: &[u64]| Record::Promise {
        view: ViewNumber(1),
        ballot: ballot(round),
        frozen: peers::lanes(frozen),
    };
    let accept = |round, frozen: &[u64], ends: &[u64]| Record::Accept {
        view: ViewNumber(1),
        ballot: ballot(round),
        frozen: peers::lanes(frozen),
        value: Box::new(peers::decision(1, ends, 2).value),
    };
    let logs = [
        vec![start(1)],
        vec![start(1), founded(), entry(3, 0, 0), entry(5, 1, 0), entry(6, 0, 3), start(2), entry(9, 2, 0)],
        vec![start(1), founded(), entry(3, 1, 0), promise(1, &[0, 3, 0]), promise(2, &[0, 3, 0]), start(2)],
        vec![start(1), founded(), entry(3, 1, 0), accept(1, &[0, 3, 0], &[0, 3, 0]), start(4)],
        vec![
            start(1),
            founded(),
            entry(3, 1, 0),
            promise(1, &[0, 3, 0]),
            Record::Fill(peers::entry(1, 7, 1, 3)),
            Record::Decision(peers::decision(1, &[0, 7, 0], 2)),
            Record::Entry(peers::entry(2, 9, 0, 0)),
            start(2),
        ],
        // What no node writes; the first two once stopped it.
        vec![start(1), founded(), promise(1, &[0, 0, 0]), entry(3, 0, 0)],
        vec![start(u64::MAX)],
        vec![start(1), Record::Promise { view: ViewNumber(0), ballot: ballot(u64::MAX), frozen: Vec::new() }],
        vec![
            start(1),
            Record::Promise { view: ViewNumber(0), ballot: ballot(1), frozen: Vec::new() },
            founded(),
        ],
    ];
    let script = |log: &Vec<Record>| {
        log.iter().map(record_payload).flat_map(|(kind, payload)| step(kind, &payload)).collect()
    };
    logs.iter().map(script).collect()
}

#[path = "peers.rs"]
mod peers;

/// Images behind a zero; behind other numbers what happens to a file.
fn snapshots() -> Vec<Vec<u8>> {
    let harm = |which: u8, steps: &[Vec<u8>]| [&[which][..], &steps.concat()].concat();
    let seal = || step(5, &[]);
    vec![
        [&[0][..], &image(3)].concat(),
        [&[0][..], &image(600)].concat(),
        harm(1, &[]),
        harm(2, &[]),
        // The first byte of the state's digest, sealed; the rest of the header; the number of keys.
        harm(1, &[step(0, &[125, 0, 1]), seal()]),
        harm(1, &[step(0, &[84, 0, 1]), seal()]),
        harm(1, &[step(0, &[133, 0, 1]), seal()]),
        // A length in the body, a kind of item, and the end of the file.
        harm(1, &[step(0x80, &[60, 0, 1]), seal()]),
        harm(1, &[step(0x80, &[70, 0, 255])]),
        harm(2, &[step(2, &[0xff, 0xff])]),
        // What the footer says: length, blocks, digest.
        harm(1, &[step(0x80, &[20, 0, 1]), seal()]),
        harm(2, &[step(0x80, &[12, 0, 1]), seal()]),
        harm(1, &[step(0x80, &[8, 0, 1])]),
        harm(1, &[step(0x82, &[36, 0]), seal()]),
        harm(1, &[step(3, &[0, 0, 1, 2, 3])]),
        harm(1, &[step(4, &[80, 0, 1, 2, 3, 4]), seal()]),
        harm(2, &[step(0, &[200, 0, 4])]),
    ]
}
