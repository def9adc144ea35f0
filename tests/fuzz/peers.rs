//! Scripts of what two peers may say to the first node of three.

use super::*;

// Codes of steps; the peer is in the upper half.
const TURN: u8 = 0;
const PERSIST: u8 = 1;
const LATER: u8 = 3;
const LINK_DOWN: u8 = 4;
const GREETED: u8 = 7;
const CLIENT: u8 = 8;
const LEAVE: u8 = 9;
const RECEIVE: u8 = 10;
const SNAPSHOT: u8 = 11;

/// How far the node is when a script begins.
const UNFOUNDED: u8 = 0;
const SENDER: u8 = 1;
const RESTARTED: u8 = 2;

const CALM: [[u64; 3]; 3] = [[0; 3]; 3];
const VIEW: ViewNumber = ViewNumber(1);

pub(crate) fn node(id: u8) -> NodeId {
    NodeId::new(id).expect("below 64")
}

pub(crate) fn lanes(lanes: &[u64]) -> Vec<Timestamp> {
    lanes.iter().copied().map(Timestamp).collect()
}

/// The decision about a view of which three nodes vote and send; `incarnation` is the first node's in the next.
pub(crate) fn decision(view: u64, ends: &[u64], incarnation: u64) -> Decision {
    decision_with(view, ends, incarnation, &[0, 1, 2])
}

/// The same with these senders; who is none was dropped once.
fn decision_with(view: u64, ends: &[u64], incarnation: u64, senders: &[u8]) -> Decision {
    let voter = |id: u8| Voter {
        node: node(id),
        disk: DiskId(100 + u64::from(id)),
        registered: ViewNumber(1),
        drops: u8::from(!senders.contains(&id)),
        drops_at: Millis(0),
    };
    let sender =
        |id| Sender { node: node(id), incarnation: Incarnation(if id == 0 { incarnation } else { 1 }) };
    let next = View {
        number: ViewNumber(view + 1),
        cluster: ClusterId(77),
        format: View::FORMAT,
        genesis: 0,
        voters: (0..3).map(voter).collect(),
        senders: senders.iter().copied().map(sender).collect(),
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

/// The same with another label.
fn relabelled(entry: &Entry, origin: u8, incarnation: u64, seq: u64) -> Arc<Entry> {
    Arc::new(Entry { label: label(origin, incarnation, seq), ..entry.clone() })
}

fn label(origin: u8, incarnation: u64, seq: u64) -> Label {
    let pair = OriginPair { registered: VIEW, incarnation: Incarnation(incarnation) };
    Label { origin: node(origin), pair, seq }
}

fn ballot(round: u64, id: u8) -> Ballot {
    Ballot { round, node: node(id), incarnation: Incarnation(1) }
}

/// A row whose lanes are received, frontier and accepted, each.
fn status(view: u64, clock: u64, rows: &[[u64; 3]], sealed: bool) -> Message {
    status_hearing(view, clock, rows, sealed, 7)
}

/// The same of a node that hears these.
fn status_hearing(view: u64, clock: u64, rows: &[[u64; 3]], sealed: bool, hears: u64) -> Message {
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
        hears: NodeSet::from_bits(hears),
        delivered: Position { view: ViewNumber(view), ..Position::default() },
        index: Index(0),
        digest: 0,
        wall: Millis(1_700_000_000_000),
        leaving: false,
        waiting: 0,
    }))
}

/// A script that is being written: each method is a step or two.
struct Script(Vec<u8>);

impl Script {
    fn new(how: u8) -> Script {
        Script(vec![how])
    }

    fn step(mut self, code: u8, payload: &[u8]) -> Script {
        self.0.extend(step(code, payload));
        self
    }

    fn say(self, from: u8, message: &Message) -> Script {
        let frame = message_frame(message);
        let (kind, payload, _) = split_frame(&frame, usize::MAX).expect("a frame");
        self.step((from - 1) << 4 | RECEIVE, &[&[kind], payload].concat())
    }

    /// Both peers say the same.
    fn both(self, message: &Message) -> Script {
        self.say(1, message).say(2, message)
    }

    fn hello(self, from: u8, view: u64) -> Script {
        let hello = Hello {
            protocol: Hello::PROTOCOL,
            from: node(from),
            to: node(0),
            disk: DiskId(100 + u64::from(from)),
            incarnation: Incarnation(1),
            boot: 6 + u64::from(from),
            joining: false,
            cluster: ClusterId(if view == 0 { 0 } else { 77 }),
            members: 0,
            view: ViewNumber(view),
            remembered: None,
        };
        let mut out = Vec::new();
        encode_hello(&mut out, &hello);
        self.step((from - 1) << 4 | GREETED, &out[FRAME_HEADER_LEN..])
    }

    /// Both peers are in view 1, as far as these rows say.
    fn met(self, rows: &[[u64; 3]]) -> Script {
        let clock = rows.iter().map(|row| row[1]).max().unwrap_or(0);
        self.hello(1, 1).hello(2, 1).both(&status(1, clock, rows, false))
    }

    fn append(self, from: u8, entry: &Arc<Entry>) -> Script {
        self.say(from, &Message::Append(Arc::clone(entry)))
    }

    /// Sends a whole snapshot: the next view of this decision, and what is delivered in it.
    fn snapshot(self, from: u8, last: &Decision, position: (u64, u8), lanes: &[u64]) -> Script {
        let number = |n: u64| n.to_le_bytes();
        let list = |len: usize| u32::try_from(len).expect("short").to_le_bytes();
        let blob = |bytes: &[u8]| [&list(bytes.len())[..], bytes].concat();
        let mut decision = Vec::new();
        encode_record(&mut decision, &Record::Decision(last.clone()));
        let view = &decision[8 + 4 + 8 * last.value.ends.len()..];
        let stamps: Vec<u8> = lanes.iter().flat_map(|t| number(*t)).collect();
        let lanes = [&list(lanes.len())[..], &stamps].concat();
        let origins = [&list(1)[..], &[1], &[number(1), number(1), number(4)].concat()].concat();
        let (t, id) = position;
        let payload = [
            &list(1)[..],
            &[number(77), number(4), number(last.view.0 + 1), number(t)].concat(),
            &[id],
            &[number(1_700_000_000_000), number(1), number(0), number(0), number(0)].concat(),
            &blob(view),
            &blob(&lanes),
            &blob(&origins),
        ];
        // Taken, verified, published, installed.
        self.step((from - 1) << 4 | SNAPSHOT, &payload.concat()).turn().turn().turn()
    }

    fn turn(self) -> Script {
        self.step(TURN, &[]).step(PERSIST, &[])
    }

    fn later(self, millis: u16) -> Script {
        self.step(LATER, &millis.to_le_bytes())
    }

    fn client(self, text: &str) -> Script {
        self.step(CLIENT, text.as_bytes())
    }
}

/// Everything that peers say in a calm, in a seal, while catching up, at the founding.
pub(crate) fn scripts() -> Vec<Vec<u8>> {
    let all = [order(), seals(), questions(), forwards(), views(), snapshots(), lies()];
    all.into_iter().flatten().map(|script| script.0).collect()
}

fn order() -> Vec<Script> {
    // All that the first node has up to `t`, the others nothing.
    let own = |t: u64| status(1, t, &[[t, t, t], [0, t, 0], [0, t, 0]], false);
    let answer = Message::ReadAnswer {
        nonce: Nonce { incarnation: Incarnation(1), counter: 1 },
        view: VIEW,
        sealed: false,
        accepted: lanes(&[1, 0, 0]),
    };
    vec![
        Script::new(SENDER)
            .met(&CALM)
            .append(1, &entry(1, 5, 1, 0))
            .turn()
            .both(&status(1, 9, &[[0, 9, 0], [5, 9, 5], [0, 9, 0]], false))
            .turn(),
        Script::new(SENDER)
            .met(&CALM)
            .client("SET a 1\nGET a\n")
            .turn()
            .both(&own(1))
            .turn()
            .say(1, &answer)
            .turn(),
        // Three lanes merged.
        Script::new(SENDER)
            .met(&CALM)
            .append(2, &entry(1, 8, 2, 0))
            .client("SET a 1\n")
            .turn()
            .append(1, &entry(1, 6, 1, 0))
            .both(&status(1, 9, &[[9, 9, 9], [6, 9, 6], [8, 9, 8]], false))
            .turn()
            .append(1, &entry(1, 12, 1, 6))
            .client("GET a\n")
            .turn()
            .both(&status(1, 12, &[[9, 12, 9], [12, 12, 12], [8, 12, 8]], false))
            .turn(),
        Script::new(SENDER).met(&CALM).step(LEAVE, &[]).turn().client("SET a 1\n").later(1000).turn(),
    ]
}

fn seals() -> Vec<Script> {
    let value = |ends: &[u64]| Box::new(decision(1, ends, 1).value);
    let prepare = Message::SealPrepare { view: VIEW, ballot: ballot(1, 1), have: lanes(&[0, 0, 0]) };
    let accept =
        |entries| Message::SealAccept { view: VIEW, ballot: ballot(1, 1), value: value(&[0, 5, 0]), entries };
    let decided = |ends: &[u64]| Message::NewView { decisions: vec![decision(1, ends, 1)] };
    let promise = |last: &[u64], entries| Message::SealPromise {
        view: VIEW,
        ballot: ballot(1, 0),
        promise: Box::new(Promise {
            last: lanes(last),
            accepted: None,
            disk: DiskId(101),
            incarnation: Incarnation(1),
            hears: NodeSet::from_bits(3),
            entries,
        }),
    };
    let deaf = |sealed| status_hearing(1, 0, &CALM, sealed, 3);
    // The third node is gone, the first seals.
    let sealing = || {
        Script::new(SENDER)
            .met(&CALM)
            .turn()
            .step(1 << 4 | LINK_DOWN, &[])
            .later(20)
            .say(1, &deaf(false))
            .turn()
    };
    let accepted = Message::SealAccepted { view: VIEW, ballot: ballot(1, 0) };
    vec![
        Script::new(SENDER)
            .met(&CALM)
            .append(1, &entry(1, 5, 1, 0))
            .turn()
            .say(1, &prepare)
            .turn()
            .say(1, &accept(vec![]))
            .turn()
            .say(1, &decided(&[0, 5, 0]))
            .turn(),
        // The value comes with entries that are missing here.
        Script::new(SENDER)
            .met(&CALM)
            .say(1, &prepare)
            .turn()
            .say(1, &accept(vec![entry(1, 5, 1, 0)]))
            .turn()
            .say(2, &decided(&[0, 5, 0]))
            .turn()
            .append(1, &entry(2, 9, 1, 0))
            .turn(),
        sealing().say(1, &promise(&[0, 0, 0], vec![])).later(310).say(1, &accepted).turn(),
        sealing()
            .say(1, &promise(&[0, 5, 0], vec![]))
            .later(310)
            .say(1, &Message::Fill { entries: vec![entry(1, 5, 1, 0)] })
            .turn()
            .say(1, &accepted)
            .turn(),
        sealing()
            .say(1, &Message::SealReject { view: VIEW, ballot: ballot(1, 0), promised: ballot(3, 2) })
            .later(900),
        // An own batch is void and offered again.
        Script::new(SENDER)
            .met(&CALM)
            .client("SET a 1\n")
            .turn()
            .say(1, &decided(&[0, 0, 0]))
            .turn()
            .both(&status(2, 2, &[[2, 2, 2], [0, 2, 0], [0, 2, 0]], false))
            .turn(),
    ]
}

fn questions() -> Vec<Script> {
    let resend = Message::Resend { view: VIEW, lane: node(1), after: Timestamp(0) };
    let catch_up = Message::CatchUp { view: VIEW, have: lanes(&[0, 5, 0]) };
    let probe = Message::ReadProbe { nonce: Nonce { incarnation: Incarnation(1), counter: 4 } };
    vec![
        Script::new(SENDER)
            .met(&CALM)
            .append(1, &entry(1, 5, 1, 0))
            .append(1, &entry(1, 8, 1, 5))
            .say(2, &resend)
            .say(2, &catch_up)
            .say(2, &Message::ViewRequest { view: ViewNumber(0) })
            .say(1, &probe)
            .turn(),
        Script::new(RESTARTED)
            .met(&[[0, 0, 0], [5, 9, 5], [0, 0, 0]])
            .turn()
            .append(1, &entry(1, 5, 1, 0))
            .turn()
            .say(2, &Message::NewView { decisions: vec![decision(1, &[0, 7, 0], 1)] })
            .turn()
            .say(1, &Message::Fill { entries: vec![entry(1, 7, 1, 5)] })
            .turn(),
    ]
}

fn forwards() -> Vec<Script> {
    let forward = Message::Forward { label: label(2, 1, 1), batch: batch(&[(None, 1, &["k", "v"])]) };
    let relayed = relabelled(&entry(1, 5, 1, 0), 0, 2, 1);
    vec![
        Script::new(SENDER)
            .met(&CALM)
            .say(2, &forward)
            .turn()
            .say(2, &Message::Refused { label: label(2, 1, 2) })
            .both(&status(1, 1, &[[1, 1, 1], [0, 1, 0], [0, 1, 0]], false))
            .turn(),
        Script::new(RESTARTED)
            .met(&CALM)
            .client("SET a 1\n")
            .turn()
            .later(40)
            .say(1, &Message::Refused { label: label(0, 2, 1) })
            .turn(),
        // Its batch comes back in a sender's lane.
        Script::new(RESTARTED)
            .met(&CALM)
            .client("SET a 1\nGET a\n")
            .turn()
            .append(1, &relayed)
            .turn()
            .both(&status(1, 9, &[[0, 9, 0], [5, 9, 5], [0, 9, 0]], false))
            .turn(),
    ]
}

fn views() -> Vec<Script> {
    let new_view = |decisions: &[Decision]| Message::NewView { decisions: decisions.to_vec() };
    let founded = decision(0, &[], 1);
    let first = Message::SealPrepare { view: ViewNumber(0), ballot: ballot(1, 1), have: vec![] };
    let accept = Message::SealAccept {
        view: ViewNumber(0),
        ballot: ballot(1, 1),
        value: Box::new(founded.value.clone()),
        entries: vec![],
    };
    let chain = [founded.clone(), decision(1, &[0, 0, 0], 1), decision(2, &[0, 0, 0], 1)];
    // Passive for a second, then promoted.
    let alone = [[0, 0, 0]];
    let passive =
        |how| Script::new(how).hello(1, 0).hello(2, 0).say(1, &new_view(&[decision_with(0, &[], 1, &[1])]));
    let hearing = |script: Script| script.both(&status(1, 0, &alone, false)).later(250);
    vec![
        Script::new(UNFOUNDED)
            .hello(1, 0)
            .hello(2, 0)
            .both(&status(0, 0, &[], false))
            .turn()
            .later(20)
            .turn(),
        Script::new(UNFOUNDED)
            .hello(1, 0)
            .say(1, &first)
            .turn()
            .say(1, &accept)
            .turn()
            .say(1, &new_view(&chain[..1]))
            .turn(),
        Script::new(UNFOUNDED).say(1, &new_view(&chain)).say(2, &status(3, 0, &CALM, false)).turn(),
        hearing(hearing(hearing(hearing(hearing(passive(UNFOUNDED)))))).turn(),
        hearing(passive(UNFOUNDED).append(1, &entry(1, 5, 1, 0))).turn(),
    ]
}

fn snapshots() -> Vec<Script> {
    let founded = decision(0, &[], 1);
    let later = decision(2, &[0, 0, 0], 1);
    let prepare = Message::SealPrepare { view: VIEW, ballot: ballot(1, 1), have: lanes(&[0, 5, 0]) };
    let ended = Message::NewView { decisions: vec![decision(1, &[0, 9, 0], 1)] };
    let offer = Message::SnapshotOffer { forgotten: Position { view: VIEW, t: Timestamp(5), node: node(1) } };
    let ask = Message::SnapshotAsk { id: None, next: 0 };
    let known = || Script::new(SENDER).met(&CALM);
    vec![
        known()
            .append(2, &entry(1, 8, 2, 0))
            .turn()
            .snapshot(1, &founded, (5, 1), &[0, 5, 0])
            .append(1, &entry(1, 9, 1, 5))
            .turn()
            .both(&status(1, 9, &[[0, 9, 0], [9, 9, 9], [8, 9, 8]], false))
            .turn(),
        known().client("SET a 1\n").turn().snapshot(1, &later, (7, 2), &[0, 5, 7]).client("SET a 2\n").turn(),
        Script::new(UNFOUNDED).hello(1, 3).snapshot(1, &later, (0, 0), &[0, 0, 0]).turn(),
        Script::new(RESTARTED).met(&CALM).say(1, &prepare).turn().snapshot(1, &founded, (5, 1), &[0, 5, 0]),
        known().say(1, &ended).turn().snapshot(2, &founded, (5, 1), &[0, 5, 0]).turn(),
        known().say(1, &offer).turn().both(&ask).turn().step(1 << 4 | LINK_DOWN, &[]).later(900).turn(),
        // An entry that should have been in it; then more than is decided, and an own entry that never was.
        known()
            .snapshot(1, &founded, (5, 1), &[0, 5, 0])
            .append(2, &entry(1, 3, 2, 0))
            .turn()
            .both(&status(1, 9, &[[0, 9, 0], [5, 9, 5], [3, 9, 3]], false))
            .turn(),
        known().say(1, &ended).turn().snapshot(2, &founded, (12, 1), &[0, 12, 0]),
        // One that ends where its lane has no entry.
        known().append(1, &entry(1, 6, 1, 0)).snapshot(1, &founded, (5, 1), &[0, 5, 0]),
        known().snapshot(1, &founded, (5, 0), &[5, 0, 0]).client("SET a 1\n").turn(),
    ]
}

/// What no honest peer says. Each of these once stopped the node.
fn lies() -> Vec<Script> {
    let rows = |received: u64| status(1, 9, &[[received, 9, received], [0, 9, 0], [8, 9, 8]], false);
    let delivered = || {
        let begun = Script::new(SENDER).met(&CALM).client("SET a 1\n").turn().append(2, &entry(1, 8, 2, 0));
        begun.turn().both(&rows(1)).turn()
    };
    let value = decision(1, &[5, 0, 8], 1).value;
    let ahead = Message::SealAccept {
        view: VIEW,
        ballot: ballot(1, 1),
        value: Box::new(value),
        entries: vec![entry(1, 5, 0, 1)],
    };
    let mut dropped = decision_with(0, &[], 1, &[1]);
    dropped.value.next.voters[0].drops = u8::MAX;
    dropped.value.next.voters[0].drops_at = Millis(u64::MAX);
    let mut again = decision(1, &[1, 0, 8], 1);
    again.value.next.voters[0].registered = ViewNumber(2);
    let mut old = relabelled(&entry(2, 11, 1, 0), 0, 1, 1);
    Arc::make_mut(&mut old).label.pair.registered = ViewNumber(2);
    let forged = Message::Forward { label: label(0, 1, 1), batch: batch(&[(None, 1, &["k", "v"])]) };
    let alone = status(1, 0, &[[0, 0, 0]], false);
    vec![
        // An entry that its lane's frontier has passed.
        delivered()
            .append(1, &entry(1, 5, 1, 0))
            .turn()
            .both(&status(1, 9, &[[1, 9, 1], [5, 9, 5], [8, 9, 8]], false))
            .turn(),
        // An entry of the node's own lane that the node never made.
        delivered().say(1, &ahead).turn().both(&rows(9)).turn(),
        // A batch of the node's own that it never made.
        Script::new(SENDER).met(&CALM).say(2, &forged).turn().both(&status(
            1,
            1,
            &[[1; 3], [0, 1, 0], [0, 1, 0]],
            false,
        )),
        // The node's disk is registered anew, so that its labels begin again.
        delivered()
            .client("SET a 2\n")
            .turn()
            .say(1, &Message::NewView { decisions: vec![again] })
            .append(1, &old)
            .both(&status(2, 20, &[[0, 20, 0], [11, 20, 11], [0, 20, 0]], false))
            .turn(),
        // More faults than are ever counted.
        Script::new(UNFOUNDED)
            .hello(1, 0)
            .hello(2, 0)
            .say(1, &Message::NewView { decisions: vec![dropped] })
            .both(&alone)
            .later(250)
            .both(&alone)
            .later(250)
            .both(&alone)
            .later(250),
    ]
}
