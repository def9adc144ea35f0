//! Scripts of what two peers may say to the first node of three.

use super::*;

const RECEIVE: u8 = 10;
const TURN: u8 = 0;
const PERSIST: u8 = 1;
const LATER: u8 = 3;

pub(crate) fn node(id: u8) -> NodeId {
    NodeId::new(id).expect("below 64")
}

pub(crate) fn lanes(lanes: &[u64]) -> Vec<Timestamp> {
    lanes.iter().copied().map(Timestamp).collect()
}

/// The decision about a view of which three nodes vote and send; `incarnation` is the first node's in the next.
pub(crate) fn decision(view: u64, ends: &[u64], incarnation: u64) -> Decision {
    let voter = |id| Voter {
        node: node(id),
        disk: DiskId(100 + u64::from(id)),
        registered: ViewNumber(1),
        drops: 0,
        drops_at: Millis(0),
    };
    let sender =
        |id| Sender { node: node(id), incarnation: Incarnation(if id == 0 { incarnation } else { 1 }) };
    let next = View {
        number: ViewNumber(view + 1),
        cluster: ClusterId(77),
        format: View::FORMAT,
        voters: (0..3).map(voter).collect(),
        senders: (0..3).map(sender).collect(),
    };
    Decision { view: ViewNumber(view), value: Value { ends: lanes(ends), next } }
}

pub(crate) fn entry(view: u64, t: u64, id: u8, prev: u64) -> Arc<Entry> {
    let pair = OriginPair { registered: ViewNumber(1), incarnation: Incarnation(1) };
    Arc::new(Entry {
        view: ViewNumber(view),
        t: Timestamp(t),
        node: node(id),
        prev: Timestamp(prev),
        label: Label { origin: node(id), pair, seq: 1 },
        wall: Millis(1_700_000_000_000),
        batch: batch(&[(None, 1, &["k", "v"])]),
    })
}

/// A row whose lanes are received, frontier and accepted, each.
fn status(view: u64, clock: u64, rows: &[[u64; 3]], sealed: bool) -> Message {
    let row = |row: &[u64; 3]| LaneRow {
        received: Timestamp(row[0]),
        frontier: Timestamp(row[1]),
        accepted: Timestamp(row[2]),
    };
    Message::Status(Arc::new(Status {
        view: ViewNumber(view),
        incarnation: Incarnation(1),
        clock: Timestamp(clock),
        lanes: rows.iter().map(row).collect(),
        sealed,
        hears: NodeSet::from_bits(7),
        delivered: Position { view: ViewNumber(view), ..Position::default() },
        index: Index(0),
        digest: 0,
        wall: Millis(1_700_000_000_000),
        leaving: false,
        waiting: 0,
    }))
}

fn hello(from: u8, view: u64) -> Vec<u8> {
    let hello = Hello {
        protocol: Hello::PROTOCOL,
        from: node(from),
        to: node(0),
        disk: DiskId(100 + u64::from(from)),
        incarnation: Incarnation(1),
        boot: 6 + u64::from(from),
        cluster: ClusterId(if view == 0 { 0 } else { 77 }),
        members: 0,
        view: ViewNumber(view),
        remembered: None,
    };
    let mut out = Vec::new();
    encode_hello(&mut out, &hello);
    step((from - 1) << 4 | 7, &out[FRAME_HEADER_LEN..])
}

fn say(from: u8, message: &Message) -> Vec<u8> {
    let frame = message_frame(message);
    let (kind, payload, _) = split_frame(&frame, usize::MAX).expect("a frame");
    step((from - 1) << 4 | RECEIVE, &[&[kind], payload].concat())
}

fn turn() -> Vec<u8> {
    [step(TURN, &[]), step(PERSIST, &[])].concat()
}

fn later(millis: u16) -> Vec<u8> {
    step(LATER, &millis.to_le_bytes())
}

/// Both peers in view 1, as far as these rows say.
fn both(rows: &[[u64; 3]]) -> Vec<u8> {
    let clock = rows.iter().map(|row| row[1]).max().unwrap_or(0);
    [hello(1, 1), hello(2, 1), say(1, &status(1, clock, rows, false)), say(2, &status(1, clock, rows, false))]
        .concat()
}

/// Each begins with how far the node is: 0 unfounded, 1 a sender of view 1, 2 restarted.
pub(crate) fn scripts() -> Vec<Vec<u8>> {
    let calm = [[0, 0, 0]; 3];
    let ballot = |round, id| Ballot { round, node: node(id), incarnation: Incarnation(1) };
    let view = ViewNumber(1);
    let value = |ends: &[u64]| Box::new(decision(1, ends, 1).value);
    let set = step(8, b"SET a 1\nGET a\n");
    let append = |t, id, prev| say(id, &Message::Append(entry(1, t, id, prev)));
    let prepare = Message::SealPrepare { view, ballot: ballot(1, 1), have: lanes(&[0, 0, 0]) };
    let promise = |round| Message::SealPromise {
        view,
        ballot: ballot(round, 0),
        promise: Box::new(Promise {
            last: lanes(&[0, 5, 0]),
            accepted: None,
            disk: DiskId(101),
            incarnation: Incarnation(1),
            hears: NodeSet::from_bits(3),
            entries: vec![entry(1, 5, 1, 0)],
        }),
    };
    let accept = |ends: &[u64], entries| Message::SealAccept {
        view,
        ballot: ballot(1, 1),
        value: value(ends),
        entries,
    };
    let label = |seq| Label {
        origin: node(2),
        pair: OriginPair { registered: ViewNumber(1), incarnation: Incarnation(1) },
        seq,
    };
    let nonce = |counter| Nonce { incarnation: Incarnation(1), counter };
    let answer = Message::ReadAnswer { nonce: nonce(1), view, sealed: false, accepted: lanes(&[1, 0, 0]) };
    let new_view = |id: u64, ends: &[u64]| Message::NewView { decisions: vec![decision(id, ends, 1)] };
    let rows = |own: u64, t: u64| [[own, own, own], [t, t, t], [t, t, 0]];
    let bodies: Vec<(u8, Vec<Vec<u8>>)> = vec![
        // An entry of a peer is chosen and delivered.
        (
            1,
            vec![
                both(&calm),
                append(5, 1, 0),
                turn(),
                say(1, &status(1, 9, &[[0, 9, 0], [5, 9, 5], [0, 9, 0]], false)),
                say(2, &status(1, 9, &[[0, 9, 0], [5, 5, 5], [0, 9, 0]], false)),
                turn(),
            ],
        ),
        // An entry of its own, and a read.
        (
            1,
            vec![
                both(&calm),
                set.clone(),
                turn(),
                say(1, &status(1, 1, &rows(1, 1), false)),
                say(2, &status(1, 1, &rows(1, 1), false)),
                turn(),
                say(1, &answer),
                turn(),
            ],
        ),
        // A peer seals.
        (
            1,
            vec![
                both(&calm),
                append(5, 1, 0),
                turn(),
                say(1, &prepare),
                turn(),
                say(1, &accept(&[0, 5, 0], vec![])),
                turn(),
                say(1, &new_view(1, &[0, 5, 0])),
                turn(),
            ],
        ),
        // It seals itself, because a sender is gone.
        (
            1,
            vec![
                both(&calm),
                turn(),
                step(0x14, &[]),
                later(20),
                say(1, &status(1, 0, &calm, false)),
                later(320),
                say(1, &status(1, 0, &calm, true)),
                turn(),
                say(1, &promise(1)),
                later(310),
                say(1, &Message::SealAccepted { view, ballot: ballot(1, 0) }),
                turn(),
            ],
        ),
        // A value comes with entries that it lacks.
        (
            1,
            vec![
                both(&calm),
                say(1, &prepare),
                turn(),
                say(1, &accept(&[0, 5, 0], vec![entry(1, 5, 1, 0)])),
                turn(),
                say(2, &new_view(1, &[0, 5, 0])),
                turn(),
                say(1, &Message::Append(entry(2, 9, 1, 0))),
                turn(),
            ],
        ),
        // Questions.
        (
            1,
            vec![
                both(&calm),
                append(5, 1, 0),
                append(8, 1, 5),
                say(2, &Message::Resend { view, lane: node(1), after: Timestamp(0) }),
                say(2, &Message::CatchUp { view, have: lanes(&[0, 5, 0]) }),
                say(2, &Message::ViewRequest { view: ViewNumber(0) }),
                say(1, &Message::ReadProbe { nonce: nonce(4) }),
                turn(),
            ],
        ),
        // Forwards.
        (
            1,
            vec![
                both(&calm),
                say(2, &Message::Forward { label: label(1), batch: batch(&[(None, 1, &["k", "v"])]) }),
                turn(),
                say(2, &Message::Refused { label: label(2) }),
                say(1, &status(1, 1, &rows(1, 1), false)),
                say(2, &status(1, 1, &rows(1, 1), false)),
                turn(),
            ],
        ),
        (
            2,
            vec![
                both(&calm),
                set.clone(),
                turn(),
                later(40),
                say(1, &Message::Refused { label: Label { origin: node(0), ..label(1) } }),
                turn(),
            ],
        ),
        // A restarted node asks for what it lacks.
        (
            2,
            vec![
                both(&[[0, 0, 0], [5, 9, 5], [0, 0, 0]]),
                turn(),
                append(5, 1, 0),
                turn(),
                say(2, &new_view(1, &[0, 7, 0])),
                turn(),
                say(1, &Message::Fill { entries: vec![entry(1, 7, 1, 5)] }),
                turn(),
            ],
        ),
        (
            2,
            vec![
                both(&calm),
                later(400),
                later(700),
                say(1, &Message::SealReject { view, ballot: ballot(1, 0), promised: ballot(3, 2) }),
                turn(),
            ],
        ),
        // Founding.
        (
            0,
            vec![
                hello(1, 0),
                hello(2, 0),
                say(1, &status(0, 0, &[], false)),
                say(2, &status(0, 0, &[], false)),
                turn(),
                later(20),
                turn(),
            ],
        ),
        (
            0,
            vec![
                hello(1, 0),
                say(1, &Message::SealPrepare { view: ViewNumber(0), ballot: ballot(1, 1), have: vec![] }),
                turn(),
                say(
                    1,
                    &Message::SealAccept {
                        view: ViewNumber(0),
                        ballot: ballot(1, 1),
                        value: Box::new(decision(0, &[], 1).value),
                        entries: vec![],
                    },
                ),
                turn(),
                say(1, &new_view(0, &[])),
                turn(),
            ],
        ),
        (
            0,
            vec![
                say(
                    1,
                    &Message::NewView {
                        decisions: vec![
                            decision(0, &[], 1),
                            decision(1, &[0, 0, 0], 1),
                            decision(2, &[0, 0, 0], 1),
                        ],
                    },
                ),
                say(2, &status(3, 0, &calm, false)),
                turn(),
            ],
        ),
        // Stop.
        (
            1,
            vec![
                both(&calm),
                step(9, &[]),
                turn(),
                set,
                turn(),
                step(4, &[]),
                step(5, &[]),
                step(6, &[]),
                later(1000),
                turn(),
            ],
        ),
    ];
    bodies.into_iter().map(|(how, steps)| [vec![how], steps.concat()].concat()).collect()
}
