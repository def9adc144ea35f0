//! Machines on which the same work takes longer: the parts of a turn end when their time is up, and everybody gets on.

use std::cell::Cell;

use super::apply::one_turn;
use super::long::{KEY_COUNT, filled};
use super::*;
use crate::store::TurnClock;
use crate::types::Nanos;

/// After so much work the clock is looked at.
const LOOK_EVERY: u64 = 16;
/// So much time passes until it is looked at again, as a rule.
const STEP: Nanos = Nanos::of_micros(500);
/// What a turn does in the time that it has, with what is done at a stroke: copying what a long read shares, for
/// instance. By its funds it could do ten times as much.
const WORK_MAX: u64 = 320;

thread_local! {
    static TIME: Cell<Nanos> = const { Cell::new(Nanos(0)) };
    /// How much of it passes.
    static PACE: Cell<Nanos> = const { Cell::new(STEP) };
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

fn read() -> Nanos {
    LOOKS.set(LOOKS.get() + 1);
    let now = TIME.get().plus(PACE.get());
    TIME.set(now);
    now
}

fn never() -> Nanos {
    Nanos(0)
}

fn begin_turn(cluster: &mut Cluster, cpu: fn() -> Nanos) {
    let clock = TurnClock { wall: read, cpu, begun: (read(), cpu()), look_every: LOOK_EVERY };
    cluster.hosts[0].node.begin_turn(clock);
}

/// A turn of a slow machine. Returns how much work the store has had in it.
fn slow_turn(cluster: &mut Cluster) -> u64 {
    begin_turn(cluster, read);
    one_turn(cluster)
}

fn names(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(name)
}

#[test]
fn writes_and_a_long_read_go_on_side_by_side_in_short_turns() {
    let mut cluster = filled();
    (3..=5).for_each(|client| cluster.open(0, client));
    cluster.say(0, 1, command("MSET", names(0..3_000).flat_map(|name| [name, "new".to_owned()])).as_bytes());
    cluster.say(0, 2, b"KEYS *\r\n");
    cluster.say(0, 3, command("DEL", names(3_000..6_000)).as_bytes());
    cluster.say(0, 4, command("MGET", names(0..2_000)).as_bytes());
    let (mut heard, mut turns) = (vec![String::new(); 5], 0);
    let mut ends = [0; 5];
    while ends[1..].contains(&0) {
        cluster.say(0, 5, b"PING\r\n");
        let work = slow_turn(&mut cluster);
        assert!(work <= WORK_MAX, "{work} looks at keys in turn {turns}");
        assert_eq!(cluster.hear(0, 5), "+PONG\r\n", "turn {turns}");
        turns += 1;
        assert!(turns < 5_000, "it is never done: {ends:?}");
        for client in 1..=4 {
            let heard = &mut heard[client as usize];
            *heard += &cluster.hear(0, client);
            let is_done = match client {
                1 => heard == "+OK\r\n",
                2 => heard.lines().count() > 2 * KEY_COUNT - 12_000,
                3 => heard == ":3000\r\n",
                _ => heard.lines().count() == 4_001,
            };
            if is_done && ends[client as usize] == 0 {
                ends[client as usize] = turns;
            }
        }
    }
    assert!(ends[1] > 6_000 / WORK_MAX && ends[3] > ends[1] + 6_000 / WORK_MAX, "{ends:?}");
    while cluster.hosts[0].node.has_work() {
        slow_turn(&mut cluster);
        (1..=4).for_each(|client| drop(cluster.hear(0, client)));
    }
    assert_eq!(cluster.ask(0, 5, "DBSIZE\r\n"), format!(":{}\r\n", KEY_COUNT - 3_000));
}

/// Turns until the first client has heard so many lines.
fn turns_until_heard(cluster: &mut Cluster, lines: usize) -> usize {
    let (mut heard, mut turns) = (String::new(), 0);
    while heard.matches('\n').count() < lines {
        slow_turn(cluster);
        heard += &cluster.hear(0, 1);
        turns += 1;
        assert!(turns < 5_000, "it is never done: {} bytes", heard.len());
    }
    turns
}

#[test]
fn a_long_read_and_long_replies_end_in_each_turn_when_their_time_is_up() {
    let mut cluster = filled();
    // In a millisecond the clock is looked at twice.
    const LOOKS_PER_TURN: usize = 2 * 64;
    cluster.say(0, 1, b"KEYS none\r\n");
    let turns = turns_until_heard(&mut cluster, 1);
    assert!(turns > KEY_COUNT / LOOKS_PER_TURN, "{turns} turns of looking");

    cluster.say(0, 1, b"KEYS *\r\n");
    while cluster.hosts[0].node.clients.get(key(1)).unwrap().queue.long_counts().1 == 0 {
        slow_turn(&mut cluster);
    }
    // What has been found has a quarter of a turn's fund at once.
    let turns = turns_until_heard(&mut cluster, 2 * KEY_COUNT + 1);
    assert!(turns > KEY_COUNT / 2 / 64, "{turns} turns of replies");
    assert!(!cluster.hosts[0].node.has_work());
}

/// Memory is given back in pieces too, and writes that go on without end do not keep it from being given back.
#[test]
fn freeing_keeps_up_with_removing_when_its_time_is_up() {
    const PAIR: std::ops::Range<usize> = 0..300;
    let mut cluster = filled();
    cluster.say(0, 1, b"FLUSHALL\r\n");
    let mut replies = 2;
    let mut turn = |cluster: &mut Cluster, writes: bool| {
        replies += cluster.hear(0, 2).lines().count();
        if writes && replies == 2 {
            replies = 0;
            let pairs = PAIR.flat_map(|i| [name(i), "w".to_owned()]);
            cluster.say(0, 2, (command("MSET", pairs) + &command("DEL", names(PAIR))).as_bytes());
        }
        let work = slow_turn(cluster);
        assert!(work <= WORK_MAX, "{work} looks at keys");
    };
    for _ in 0..KEY_COUNT / 100 {
        turn(&mut cluster, true);
    }
    assert!(cluster.hosts[0].node.store().has_expired(), "as many keys in a turn take too long");
    for _ in 0..KEY_COUNT / 10 {
        turn(&mut cluster, true);
    }
    let mut turns = 0;
    while cluster.hosts[0].node.has_work() {
        turn(&mut cluster, false);
        turns += 1;
    }
    assert!(turns < 50, "{turns} turns of freeing are left");
    assert_eq!(cluster.ask(0, 1, "DBSIZE\r\n"), "+OK\r\n:0\r\n");
}

/// Who had no processor has not been slow.
#[test]
fn time_without_a_processor_does_not_count() {
    let mut cluster = filled();
    cluster.say(0, 1, command("MSET", names(0..900).flat_map(|name| [name, "new".to_owned()])).as_bytes());
    begin_turn(&mut cluster, never);
    one_turn(&mut cluster);
    begin_turn(&mut cluster, never);
    let work = one_turn(&mut cluster);
    assert!(work > 1_800, "{work}");
    assert_eq!(cluster.hear(0, 1), "+OK\r\n");
}

/// Keys that expire as fast as they are written are freed as fast, too.
#[test]
fn freeing_keeps_up_with_expiry() {
    const TURNS: u64 = 400;
    const DEPTH: usize = 300;
    let mut cluster = Cluster::new(1);
    (1..=4).for_each(|client| cluster.open(0, client));
    cluster.run();
    // A look at a key takes a microsecond, as it should.
    PACE.set(Nanos::of_micros(LOOK_EVERY));
    let (mut written, mut unanswered) = (0, [0; 4]);
    for turn in 0..TURNS {
        if turn % 2 == 0 {
            cluster.now.mono = cluster.now.mono.plus(Millis(1));
            cluster.now.wall = cluster.now.wall.plus(Millis(1));
        }
        for (client, unanswered) in (1..).zip(&mut unanswered) {
            *unanswered -= cluster.hear(0, client).matches("+OK").count();
            if *unanswered < DEPTH / 2 {
                let names = (written..written + DEPTH).map(name);
                let sets = names.map(|name| {
                    command("SET", [name, "v".to_owned(), "PX".to_owned(), "3".to_owned()].into_iter())
                });
                cluster.say(0, client, sets.collect::<String>().as_bytes());
                written += DEPTH;
                *unanswered += DEPTH;
            }
        }
        slow_turn(&mut cluster);
    }
    PACE.set(Nanos(0));
    while !cluster.hosts[0].node.deliveries.is_empty() || unanswered != [0; 4] {
        slow_turn(&mut cluster);
        for (client, unanswered) in (1..).zip(&mut unanswered) {
            *unanswered -= cluster.hear(0, client).matches("+OK").count();
        }
    }
    cluster.now.mono = cluster.now.mono.plus(Millis(100));
    cluster.now.wall = cluster.now.wall.plus(Millis(100));
    let mut turns = 0;
    slow_turn(&mut cluster);
    while cluster.hosts[0].node.store().has_expired() {
        slow_turn(&mut cluster);
        turns += 1;
    }
    assert!(turns < 12, "of {written} keys, {turns} turns of freeing are left");
}

/// Above a bound all that waits is applied, and each command of it at a stroke, however late it is.
#[test]
fn a_crowded_line_is_not_applied_key_by_key() {
    const MIB: usize = 1 << 20;
    const PAIRS: usize = 4_000;
    let works = Cell::new(1);
    let mut cluster = Cluster::with(3, "", |settings| {
        settings.applied_per_turn = works.replace(u64::MAX);
    });
    cluster.greet_all();
    cluster.pass(100);
    (1..=70).for_each(|client| cluster.open(1, client));
    let pairs = (0..PAIRS).flat_map(|i| [name(i), "x".to_owned()]);
    cluster.say(1, 1, command("MSET", pairs).as_bytes());
    let value = "v".repeat(MIB);
    let mut most = (0, 0);
    for client in 2..=70 {
        cluster.say(1, client, command("SET", [name(client as usize), value.clone()].into_iter()).as_bytes());
        for _ in 0..4 {
            PACE.set(Nanos(0));
            begin_turn(&mut cluster, read);
            let (looks, (_, len)) = (LOOKS.get(), cluster.hosts[0].node.deliveries.size());
            cluster.step_all();
            most = most.max((len, LOOKS.get() - looks));
        }
    }
    let (len, looks) = most;
    assert!(len > 60 * MIB && cluster.hosts[0].node.deliveries.size().1 < len, "{len} bytes");
    assert!(looks < PAIRS as u64 / LOOK_EVERY, "{looks} looks at the clock");
}

/// What the allocator has to do is done in small portions, or whoever is the next to want a large piece waits for it.
#[test]
fn the_allocator_is_made_to_tidy_up_after_each_turn_that_writes() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    for value in ["old", "new", "newer"] {
        assert_eq!(cluster.ask(0, 1, &format!("SET key {value}\r\n")), "+OK\r\n");
        cluster.pass(1);
        one_turn(&mut cluster);
        assert!(!cluster.hosts[0].node.store().is_untidy(), "{value}");
    }
}
