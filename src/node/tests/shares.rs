//! What one connection asks for, in whatever way it is wrapped up, is no more than its share of a turn. The work is
//! counted, not timed.

use super::apply::{WORK, one_turn};
use super::*;
use crate::node::pouring::POURED_PER_TURN;
use crate::node::queue::OUTPUT_LEN_SOFT;

/// More than replies that are arrays may be in a turn and whatever is sent just after it.
const POURED_MAX: usize = POURED_PER_TURN * 3 / 2;

fn one_node(clients: u32) -> Cluster {
    let mut cluster = super::apply::one_node(clients);
    cluster.run();
    cluster
}

fn fill(cluster: &mut Cluster, count: usize) {
    for begin in (0..count).step_by(1_000) {
        let pairs = (begin..begin + 1_000).flat_map(|i| [name(i), "x".to_owned()]);
        assert_eq!(cluster.ask(0, 1, &command("MSET", pairs)), "+OK\r\n");
    }
}

/// How many commands are begun when these bytes come, before the turn ends.
fn begun_with(cluster: &mut Cluster, bytes: &str) -> u64 {
    let begun = |cluster: &Cluster| cluster.hosts[0].node.backend.stats.commands;
    let before = begun(cluster);
    cluster.say(0, 1, bytes.as_bytes());
    begun(cluster) - before
}

/// What transactions ask about the node is paid for by the turn as well.
#[test]
fn a_row_of_transactions_asks_no_more_of_a_turn() {
    let mut cluster = one_node(1);
    let transaction = format!("MULTI\r\n{}EXEC\r\n", "COMMAND\r\n".repeat(6));
    let begun = begun_with(&mut cluster, &transaction.repeat(60));
    assert!((8..=24).contains(&begun), "{begun} commands");
    cluster.run();
    cluster.hear(0, 1);
    cluster.run();
    // What they ask and is answered when they are done is paid for by what was delivered.
    let mut cluster = one_node(1);
    let transaction = format!("MULTI\r\nSET a 1\r\n{}EXEC\r\n", "INFO\r\n".repeat(90));
    cluster.say(0, 1, transaction.repeat(5).as_bytes());
    let (mut most, mut turns) = (0, 0);
    while cluster.hosts[0].node.has_work() {
        most = most.max(one_turn(&mut cluster));
        turns += 1;
    }
    assert!(most > WORK && most < 2_000 && turns >= 5, "{most} in one of {turns} turns");
}

/// An answer can be much work and short.
#[test]
fn looking_for_channels_is_shared_out_over_turns() {
    const CHANNELS: usize = 20_000;
    let mut cluster = one_node(2);
    for begin in (0..CHANNELS).step_by(1_000) {
        cluster.ask(0, 2, &command("SUBSCRIBE", (begin..begin + 1_000).map(|i| format!("channel-{i}"))));
    }
    for question in ["PUBSUB CHANNELS x*\r\n", "MULTI\r\nPUBSUB CHANNELS x*\r\nEXEC\r\n"] {
        let begun = begun_with(&mut cluster, &question.repeat(150));
        assert!(begun <= 20, "{begun} commands");
        cluster.run();
        cluster.hear(0, 1);
    }
    cluster.ask(0, 1, "MULTI\r\n");
    cluster.ask(0, 1, &"PUBSUB CHANNELS x*\r\n".repeat(100));
    let reply = cluster.ask(0, 1, "EXEC\r\n");
    let answered = reply.matches("*0\r\n").count();
    assert!((1..=10).contains(&answered), "{answered} of 100");
}

/// What nobody waits for any more is freed in pieces, however late that turns out.
#[test]
fn the_reply_for_a_client_that_left_is_freed_in_pieces() {
    const KEYS: usize = 10_000;
    for question in ["KEYS *\r\n", "MULTI\r\nKEYS *\r\nSET a b\r\nEXEC\r\n"] {
        let mut cluster = one_node(1);
        fill(&mut cluster, KEYS);
        cluster.ask(0, 1, "CONSISTENCY ordered\r\n");
        cluster.say(0, 1, question.as_bytes());
        for _ in 0..10 {
            one_turn(&mut cluster);
        }
        assert!(cluster.hosts[0].node.backend.torn, "on its way");
        cluster.hosts[0].node.client_gone(key(1));
        while cluster.hosts[0].node.backend.torn {
            one_turn(&mut cluster);
        }
        let mut turns = 0;
        while cluster.hosts[0].node.store().has_expired() {
            one_turn(&mut cluster);
            turns += 1;
        }
        assert!(turns >= KEYS / 512, "{turns} turns");
        cluster.run();
        assert!(!cluster.hosts[0].node.has_work());
    }
}

/// The elements of elements count as well.
#[test]
fn replies_in_replies_are_sent_in_pieces() {
    const READS: usize = 40;
    const KEYS: usize = 1_000;
    let mut cluster = one_node(1);
    let mget = command("MGET", (0..KEYS).map(|i| i.to_string()));
    cluster.ask(0, 1, "MULTI\r\n");
    assert_eq!(cluster.ask(0, 1, &mget.repeat(READS)), "+QUEUED\r\n".repeat(READS));
    cluster.say(0, 1, b"EXEC\r\n");
    let element = "$-1\r\n";
    let expected = format!("*{READS}\r\n") + &format!("*{KEYS}\r\n{}", element.repeat(KEYS)).repeat(READS);
    let (mut heard, mut most) = (String::new(), 0);
    while heard.len() < expected.len() {
        one_turn(&mut cluster);
        let news = cluster.hear(0, 1);
        most = most.max(news.len() / element.len());
        heard += &news;
    }
    assert_eq!(heard, expected);
    assert!(most <= 8_192 + 2 * KEYS, "{most} elements in a turn");
}

/// Whoever wants to know of other events does not make reads wait for the dead.
#[test]
fn the_dead_are_told_of_if_somebody_wants_to_know() {
    const KEYS: usize = 5_000;
    for (kinds, is_told) in [("KEg$", false), ("Ex", true)] {
        let mut cluster = one_node(3);
        assert_eq!(cluster.ask(0, 1, &format!("CONFIG SET notify-keyspace-events {kinds}\r\n")), "+OK\r\n");
        cluster.ask(0, 2, "PSUBSCRIBE __key*\r\n");
        for begin in (0..KEYS).step_by(500) {
            let sets = (begin..begin + 500).map(|i| format!("SET key-{i:05} x PX 1000\r\n"));
            cluster.ask(0, 1, &sets.collect::<String>());
        }
        cluster.hear(0, 2);
        cluster.now.mono = cluster.now.mono.plus(Millis(2_000));
        cluster.now.wall = cluster.now.wall.plus(Millis(2_000));
        cluster.say(0, 1, b"SET a b\r\n");
        let (mut turns, mut heard) = (0, String::new());
        while cluster.hear(0, 1).is_empty() {
            one_turn(&mut cluster);
            heard += &cluster.hear(0, 2);
            turns += 1;
        }
        assert_eq!(turns > KEYS / usize::try_from(WORK).unwrap(), is_told, "{kinds}: {turns} turns");
        assert_eq!(heard.matches("__keyevent@0__:expired").count(), if is_told { KEYS } else { 0 });
    }
}

/// A few long values are as much to send as very many short ones.
#[test]
fn long_values_are_sent_in_pieces() {
    const LEN: usize = 100 << 10;
    const READS: usize = 200;
    let mut cluster = one_node(1);
    assert_eq!(cluster.ask(0, 1, &command("SET", ["a".to_owned(), "v".repeat(LEN)].into_iter())), "+OK\r\n");
    cluster.say(0, 1, command("MGET", (0..READS).map(|_| "a".to_owned())).as_bytes());
    let expected = format!("*{READS}\r\n").len() + READS * (format!("${LEN}\r\n").len() + LEN + 2);
    let (mut heard, mut most) = (0, 0);
    while heard < expected {
        one_turn(&mut cluster);
        let news = cluster.hear(0, 1).len();
        most = most.max(news);
        heard += news;
    }
    assert!(heard == expected && most < 3 << 20, "{most} bytes in a turn");
}

/// However many listen, and whatever they are told of: the messages of one publisher, those of a transaction, or keys
/// that have expired.
#[test]
fn messages_to_many_subscribers_are_shared_out_over_turns() {
    const SUBSCRIBERS: usize = 40;
    const MESSAGES: usize = 200;
    let mut cluster = one_node(3);
    cluster.ask(0, 1, "CONFIG SET notify-keyspace-events Ex\r\n");
    let subscribers = 10..10 + u32::try_from(SUBSCRIBERS).unwrap();
    for client in subscribers.clone() {
        cluster.open(0, client);
        cluster.ask(0, client, "SUBSCRIBE news __keyevent@0__:expired\r\n");
    }
    let publish: String = (0..MESSAGES).map(|i| format!("PUBLISH news {i:03}\r\n")).collect();
    let publish_all = format!("MULTI\r\n{publish}SET a b\r\nEXEC\r\n");
    let told = format!(":{SUBSCRIBERS}\r\n").repeat(MESSAGES);
    let replies_of_all = "+OK\r\n".to_owned()
        + &"+QUEUED\r\n".repeat(MESSAGES + 1)
        + &format!("*{}\r\n{told}+OK\r\n", MESSAGES + 1);
    let deadline = cluster.now.wall.0 + 10_000;
    let sets: String = (0..MESSAGES).map(|i| format!("SET {i:03} x PXAT {deadline}\r\n")).collect();
    cluster.ask(0, 1, &sets);
    for (asked, expected) in
        [(publish, told), (publish_all, replies_of_all), ("SET a c\r\n".into(), "+OK\r\n".into())]
    {
        if asked.starts_with("SET") {
            cluster.now.wall = cluster.now.wall.plus(Millis(20_000));
        }
        cluster.say(0, 1, asked.as_bytes());
        cluster.say(0, 2, b"CONSISTENCY local\r\n");
        let (mut heard, mut messages, mut turns) = (String::new(), vec![String::new(); SUBSCRIBERS], 0);
        while heard.len() < expected.len() {
            cluster.say(0, 3, b"PING\r\n");
            one_turn(&mut cluster);
            assert_eq!(cluster.hear(0, 3), "+PONG\r\n");
            heard += &cluster.hear(0, 1);
            let mut count = 0;
            for (client, messages) in subscribers.clone().zip(&mut messages) {
                let news = cluster.hear(0, client);
                count += news.matches("message").count();
                messages.push_str(&news);
            }
            assert!(count <= 2 * usize::try_from(WORK).unwrap() + SUBSCRIBERS, "{count} messages in a turn");
            turns += 1;
            assert!(turns < 1_000, "{heard}");
        }
        assert!(heard == expected && turns >= SUBSCRIBERS * MESSAGES / 1_000, "{turns} turns: {heard}");
        for messages in &messages {
            let numbers: Vec<&str> = messages.split("$3\r\n").skip(1).map(|rest| &rest[..3]).collect();
            assert_eq!(
                numbers,
                (0..MESSAGES).map(|i| format!("{i:03}")).collect::<Vec<_>>(),
                "each once, in order"
            );
        }
        cluster.run();
        assert!(!cluster.hosts[0].node.has_work());
    }
}

/// Whoever has a long reply to send shares a turn with all who have.
#[test]
fn many_long_replies_are_sent_a_little_of_each() {
    const CLIENTS: u32 = 100;
    const COUNT: usize = 4_000;
    let mut cluster = Cluster::with(1, "", |settings| settings.applied_per_turn = 1 << 30);
    let mget = command("MGET", (0..COUNT).map(|i| i.to_string()));
    for client in 1..=CLIENTS {
        cluster.open(0, client);
        assert_eq!(cluster.ask(0, client, "CONSISTENCY ordered\r\n"), "+OK\r\n");
    }
    (1..=CLIENTS).for_each(|client| cluster.say(0, client, mget.as_bytes()));
    let element = "$-1\r\n";
    let (mut turns, mut heard) = (0, 0);
    while heard < COUNT * CLIENTS as usize {
        one_turn(&mut cluster);
        let news: usize = (1..=CLIENTS).map(|client| cluster.hear(0, client).matches(element).count()).sum();
        assert!(news <= POURED_MAX, "{news} elements in a turn");
        heard += news;
        turns += 1;
        assert!(turns < 100, "{heard} elements");
    }
}

/// However many connections have long replies, and whatever is in these.
#[test]
fn crowds_with_long_replies_share_a_turn() {
    let mget = |count: usize| command("MGET", (0..count).map(|i| i.to_string()));
    let transaction = format!("MULTI\r\n{}EXEC\r\n", mget(1_000).repeat(4));
    for (clients, asked, count) in [(3_000, mget(1_100), 1_100), (100, transaction, 4_000)] {
        let mut cluster = Cluster::with(1, "", |settings| settings.applied_per_turn = 1 << 30);
        for client in 1..=clients {
            cluster.open(0, client);
            cluster.say(0, client, b"CONSISTENCY ordered\r\n");
        }
        cluster.run();
        (1..=clients).for_each(|client| drop(cluster.hear(0, client)));
        (1..=clients).for_each(|client| cluster.say(0, client, asked.as_bytes()));
        let element = "$-1\r\n";
        let (mut heard, mut most, mut turns) = (0, 0, 0);
        while heard < count * clients as usize {
            one_turn(&mut cluster);
            turns += 1;
            let news: usize =
                (1..=clients).map(|client| cluster.hear(0, client).matches(element).count()).sum();
            most = most.max(news);
            heard += news;
        }
        assert!(most <= POURED_MAX, "{most} elements in a turn, with {clients} clients");
        assert!(turns <= 2 * heard / POURED_PER_TURN, "{turns} turns, with {clients} clients");
    }
}

/// What a connection was allowed in a turn and did not use is not for another one.
#[test]
fn a_share_of_a_turn_is_not_saved_up() {
    const CLIENTS: u32 = 100;
    const COUNT: usize = 8_000;
    let mut cluster = Cluster::with(1, "", |settings| settings.applied_per_turn = 1 << 30);
    cluster.open(0, 1);
    let value = "v".repeat(200);
    cluster.ask(0, 1, &command("SET", ["key".to_owned(), value.clone()].into_iter()));
    let mget = command("MGET", (0..COUNT).map(|_| "key".to_owned()));
    for client in 1..=CLIENTS {
        cluster.open(0, client);
        // Alone, so each may do much; but none of them reads.
        cluster.say(0, client, format!("CONSISTENCY ordered\r\n{mget}").as_bytes());
        cluster.run();
    }
    // Now all of them read.
    let news: usize = (1..=CLIENTS).map(|client| cluster.hear(0, client).matches(&value).count()).sum();
    // A quarter of a megabyte each had been prepared.
    let prepared = CLIENTS as usize * (OUTPUT_LEN_SOFT / value.len());
    assert!(news <= prepared + POURED_MAX, "{news} elements in a turn, of which {prepared} were prepared");
}

/// Replies that are not long can be many.
#[test]
fn a_row_of_short_arrays_is_no_more_than_a_share() {
    const READS: usize = 500;
    const COUNT: usize = 1_000;
    let mut cluster = Cluster::with(1, "", |settings| {
        (settings.applied_per_turn, settings.read_per_turn) = (1 << 30, 1 << 30);
    });
    cluster.open(0, 1);
    let mget = command("MGET", (0..COUNT).map(|i| i.to_string()));
    // Its client does not read.
    cluster.say(0, 1, (mget + "ECHO z\r\n").repeat(READS).as_bytes());
    cluster.run();
    // And now it does, as fast as its socket takes it: so `net` sends.
    let element = "$-1\r\n";
    let prepared = OUTPUT_LEN_SOFT / element.len();
    let mut heard = cluster.hear(0, 1);
    let news = heard.matches(element).count();
    assert!(news <= prepared + POURED_MAX, "{news} elements in a turn, of which {prepared} were prepared");
    while cluster.hosts[0].node.has_work() {
        one_turn(&mut cluster);
        let news = cluster.hear(0, 1);
        assert!(news.matches(element).count() <= POURED_MAX, "{} bytes in a turn", news.len());
        heard += &news;
    }
    let mut expected = format!("*{COUNT}\r\n{}", element.repeat(COUNT));
    expected.push_str("$1\r\nz\r\n");
    assert!(heard == expected.repeat(READS), "all of it, and in its order");
}

/// Two nodes tell of keys all the time, one in the smallest pieces and one at a stroke; the third changes its mind
/// between the pieces.
#[test]
fn whoever_tells_of_keys_the_state_and_the_events_are_the_same() {
    let funds = std::cell::Cell::new(0);
    let mut cluster = Cluster::with(3, "", |settings| {
        settings.applied_per_turn = [1, u64::MAX, 30][funds.replace(funds.get() + 1) % 3];
    });
    cluster.greet_all();
    cluster.pass(100);
    for index in 0..3 {
        (1..=3).for_each(|client| cluster.open(index, client));
        cluster.ask(index, 2, "CONFIG SET notify-keyspace-events KEA\r\n");
        cluster.ask(index, 3, "PSUBSCRIBE __key* x*\r\n");
        cluster.hear(index, 3);
    }
    let (mut told, mut changes) = ([String::new(), String::new()], 0);
    for round in 0..12_u64 {
        for index in 0..3 {
            let deadline = cluster.now.wall.0 + 20 + round % 3;
            let sets: String =
                (0..40).map(|i| format!("SET {{t}}{} {round} PXAT {deadline}\r\n", (i * 7) % 50)).collect();
            let transaction =
                "MULTI\r\nRANDOMKEY\r\nSCAN 0\r\nSET a b PX 10\r\nPUBLISH x y\r\nKEYS *\r\nEXEC\r\n";
            cluster.say(index, 1, (sets + transaction + "DEL {t}3 {t}4 {t}5\r\n").as_bytes());
        }
        let step = Millis(12 * (round % 5));
        (cluster.now.mono, cluster.now.wall) = (cluster.now.mono.plus(step), cluster.now.wall.plus(step));
        // One more entry, before which many of them die.
        cluster.say(0, 2, b"SET b c\r\n");
        for _ in 0..40 {
            cluster.step_all();
            let kinds = ["KEA", "", "Ex", "Kg"][changes % 4];
            changes += 1;
            cluster.say(2, 2, command("CONFIG", words(&["SET", "notify-keyspace-events", kinds])).as_bytes());
        }
        cluster.run();
        let digests = [0, 1, 2].map(|index| {
            let store = cluster.hosts[index].node.store();
            assert_eq!(store.digest(), store.digest_recomputed());
            store.digest()
        });
        assert_eq!(digests, [digests[0]; 3], "round {round}");
        for index in 0..3 {
            assert!(!cluster.hear(index, 1).contains("-ERR"));
            cluster.hear(index, 2);
            let news = cluster.hear(index, 3);
            told.get_mut(index).into_iter().for_each(|told| told.push_str(&news));
        }
    }
    assert!(told[0] == told[1], "the same events in the same order");
    assert!(
        told[0].matches("__keyevent@0__:expired").count() > 200,
        "{} keys have expired",
        told[0].matches("__keyevent@0__:expired").count()
    );
}

fn words<'a>(words: &'a [&str]) -> impl Iterator<Item = String> + use<'a> {
    words.iter().map(|word| (*word).to_owned())
}
