//! The priority queue of the core: lanes of several senders merged by timestamp.
//!
//! A replica that is no sender itself holds the entries of all lanes, durable and not yet known to
//! be chosen. What is measured is the turn that learns from the senders' Status that all of them
//! are: votes are counted, and the whole backlog is delivered in the order of positions. One
//! element is one entry, with a batch of one short command.
//!
//! The lanes interleave in three ways: `turns`, one entry each in turn; `runs`, stretches of up to
//! 64 entries of one sender; `random`.

mod common;

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Throughput};
use lanekv::protocol::{
    Decision, Input, LaneRow, Message, Output, Record, Recovery, Replica, Sender, Status, Value, View, Voter,
};
use lanekv::types::{
    ClusterId, DiskId, Entry, Incarnation, Index, Label, Lsn, Millis, NodeSet, Now, OriginPair, Position,
    Timestamp, ViewNumber,
};

use common::SplitMix;
use common::cluster::{identity, settings};

const ENTRY_COUNT: u64 = 4096;
const VIEW: ViewNumber = ViewNumber(1);
const NOW: Now = Now { mono: Millis(1_000), wall: Millis(1_700_000_000_000) };

#[derive(Clone, Copy)]
enum Interleaving {
    Turns,
    Runs,
    Random,
}

fn main() {
    let mut criterion = common::criterion();
    for (name, interleaving) in
        [("turns", Interleaving::Turns), ("runs", Interleaving::Runs), ("random", Interleaving::Random)]
    {
        let mut group = criterion.benchmark_group(format!("queue/{name}"));
        group.throughput(Throughput::Elements(ENTRY_COUNT));
        for senders in [1, 3, 5, 9] {
            let (replica, rows) = backlog(senders, interleaving);
            let input = || (replica.clone(), rows.clone(), Vec::with_capacity(2 * ENTRY_COUNT as usize));
            let size = if senders == 1 { "1-sender".to_owned() } else { format!("{senders}-senders") };
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter_batched(
                    input,
                    |(mut replica, rows, mut out)| {
                        drain(&mut replica, rows, &mut out);
                        (replica, out)
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// The turn that is measured.
fn drain(replica: &mut Replica, rows: Vec<Input>, out: &mut Vec<Output>) {
    for row in rows {
        replica.handle(NOW, row, out);
    }
    replica.end_turn(NOW, out);
}

/// Node 0, passive in a view of which nodes 1 to `senders` are the senders, with entries of all of
/// them; and the rows with which the senders tell that they hold all of it.
fn backlog(senders: usize, interleaving: Interleaving) -> (Replica, Vec<Input>) {
    let count = senders + 1;
    let mut replica = replica_of(0, count, 2);
    let mut out = Vec::new();
    for me in 1..count {
        // Only of processes that have said hello is it known for which disk they speak.
        let hello = replica_of(me, count, 1).hello(common::node(0));
        replica.handle(NOW, Input::Greeted(Box::new(hello)), &mut out);
    }
    let mut tails = vec![0; senders];
    let mut random = SplitMix(7);
    let (mut run_of, mut run_left) = (0, 0);
    let mut seqs = vec![0; senders];
    for t in 1..=ENTRY_COUNT {
        let lane = match interleaving {
            Interleaving::Turns => usize::try_from(t).expect("small") % senders,
            Interleaving::Random => random.below(senders),
            Interleaving::Runs => {
                if run_left == 0 {
                    (run_of, run_left) = (random.below(senders), 1 + random.below(64));
                }
                run_left -= 1;
                run_of
            }
        };
        seqs[lane] += 1;
        let from = common::node(lane + 1);
        let pair = OriginPair { registered: VIEW, incarnation: Incarnation(1) };
        let entry = Entry {
            view: VIEW,
            t: Timestamp(t),
            node: from,
            prev: Timestamp(tails[lane]),
            label: Label { origin: from, pair, seq: seqs[lane] },
            wall: NOW.wall,
            batch: common::set_batch(1, 16),
        };
        tails[lane] = t;
        let message = Message::Append(Arc::new(entry));
        replica.handle(NOW, Input::Receive { from, message }, &mut out);
    }
    let written = out.iter().filter_map(|output| match output {
        Output::Persist { lsn, .. } => Some(*lsn),
        _ => None,
    });
    let last = written.max().expect("entries are written");
    replica.handle(NOW, Input::Persisted(last), &mut out);
    replica.end_turn(NOW, &mut out);
    assert_eq!(deliveries(&out), 0, "nothing is known to be chosen yet");
    let rows: Vec<Input> = (0..senders).map(|lane| row(lane, &tails, count)).collect();

    let (mut trial, mut out) = (replica.clone(), Vec::new());
    drain(&mut trial, rows.clone(), &mut out);
    assert_eq!(deliveries(&out), ENTRY_COUNT, "all of it can be delivered");
    (replica, rows)
}

fn deliveries(out: &[Output]) -> u64 {
    out.iter().filter(|output| matches!(output, Output::Deliver(_))).count() as u64
}

/// A node that knows of the view, in its first incarnation, which the view names if it is a sender in it; or started
/// again after it was decided, and therefore no sender.
fn replica_of(me: usize, count: usize, incarnation: u64) -> Replica {
    let voter = |me: usize| Voter {
        node: common::node(me),
        disk: DiskId(me as u64 + 1),
        registered: VIEW,
        drops: 0,
        drops_at: Millis(0),
    };
    let next = View {
        number: VIEW,
        cluster: ClusterId(1),
        format: View::FORMAT,
        genesis: 0,
        voters: (0..count).map(voter).collect(),
        senders: (1..count)
            .map(|me| Sender { node: common::node(me), incarnation: Incarnation(1) })
            .collect(),
    };
    let decision = Decision { view: ViewNumber(0), value: Value { ends: Vec::new(), next } };
    let mut recovery = Recovery::new(&settings(me, count));
    let starts = (1..=incarnation).map(|number| Record::Start { incarnation: Incarnation(number) });
    let mut records: Vec<Record> = starts.collect();
    records.insert(1, Record::Decision(decision));
    for (lsn, record) in (1..).zip(records) {
        recovery.push(Lsn(lsn), record).expect("a log may look like this");
    }
    Replica::new(settings(me, count), identity(me, incarnation), recovery, NOW)
}

/// What the sender of a lane says when all entries are durable everywhere.
fn row(lane: usize, tails: &[u64], count: usize) -> Input {
    let status = Status {
        view: VIEW,
        incarnation: Incarnation(1),
        clock: Timestamp(ENTRY_COUNT),
        lanes: (0..tails.len())
            .map(|other| LaneRow {
                received: Timestamp(tails[other]),
                frontier: Timestamp(if other == lane { ENTRY_COUNT } else { tails[other] }),
                accepted: Timestamp(tails[other]),
            })
            .collect(),
        sealed: false,
        hears: (0..count).map(common::node).collect::<NodeSet>(),
        delivered: Position { view: VIEW, ..Position::default() },
        index: Index(0),
        digest: 0,
        wall: NOW.wall,
        leaving: false,
        waiting: 0,
    };
    Input::Receive { from: common::node(lane + 1), message: Message::Status(Arc::new(status)) }
}
