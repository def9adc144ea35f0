//! What one connection asks for, in whatever way it is wrapped up, is no more than its share of a turn. The work is
//! counted, not timed.

use super::*;

/// What a turn may do for what was delivered, and for what clients read.
const WORK: u64 = 256;

fn one_node(clients: u32) -> Cluster {
    let mut cluster = Cluster::with(1, "", |settings| {
        (settings.applied_per_turn, settings.read_per_turn) = (WORK, WORK);
    });
    (1..=clients).for_each(|client| cluster.open(0, client));
    cluster.run();
    cluster
}

fn command(word: &str, arguments: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = std::iter::once(word.to_owned()).chain(arguments).collect();
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}

fn fill(cluster: &mut Cluster, count: usize) {
    for begin in (0..count).step_by(1_000) {
        let pairs = (begin..begin + 1_000).flat_map(|i| [format!("key-{i:05}"), "x".to_owned()]);
        assert_eq!(cluster.ask(0, 1, &command("MSET", pairs)), "+OK\r\n");
    }
}

/// One turn, in which the disk has all that it was given before. Returns how much work the store has had in it.
fn one_turn(cluster: &mut Cluster) -> u64 {
    let before = cluster.hosts[0].node.store().work();
    let host = &mut cluster.hosts[0];
    host.durable = host.submitted;
    host.node.handle(cluster.now, NodeInput::Persisted(host.submitted));
    cluster.turn(0);
    cluster.hosts[0].node.store().work() - before
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
