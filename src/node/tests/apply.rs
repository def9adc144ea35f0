//! Commands that one turn does not suffice for: applied piece by piece, seen whole, in order, and beside everything
//! else that a node does.

use super::*;

const KEY_COUNT: usize = 6_000;
/// What a turn may do for what was delivered, and for what clients read.
pub(super) const WORK: u64 = 256;

fn mset(value: &str) -> String {
    command("MSET", (0..KEY_COUNT).flat_map(|i| [name(i), value.to_owned()]))
}

fn del() -> String {
    command("DEL", (0..KEY_COUNT).map(name))
}

/// One node, with so many clients.
pub(super) fn one_node(clients: u32) -> Cluster {
    one_node_with(clients, WORK)
}

fn one_node_with(clients: u32, work: u64) -> Cluster {
    let mut cluster = Cluster::with(1, "", |settings| {
        (settings.applied_per_turn, settings.read_per_turn) = (work, work);
    });
    (1..=clients).for_each(|client| cluster.open(0, client));
    cluster
}

/// One turn, in which the disk has all that it was given before. Returns how much work the store has had in it.
pub(super) fn one_turn(cluster: &mut Cluster) -> u64 {
    let before = cluster.hosts[0].node.store().work();
    let host = &mut cluster.hosts[0];
    host.durable = host.submitted;
    host.node.handle(cluster.now, NodeInput::Persisted(host.submitted));
    cluster.turn(0);
    cluster.hosts[0].node.store().work() - before
}

/// Whoever reads sees all of a command or nothing, however he reads, and whoever does not read does not wait.
#[test]
fn a_large_write_is_applied_in_pieces_and_seen_whole() {
    let mut cluster = one_node(4);
    assert_eq!(cluster.ask(0, 1, &mset("old")), "+OK\r\n");
    cluster.say(0, 2, b"CONSISTENCY local\r\n");
    cluster.run();
    assert_eq!(cluster.hear(0, 2), "+OK\r\n");
    cluster.say(0, 1, mset("new").as_bytes());
    let read = command("MGET", [name(0), name(KEY_COUNT / 2), name(KEY_COUNT - 1)].into_iter());
    let (mut turns, mut heard, mut pongs) = (0, [String::new(), String::new()], 0);
    while cluster.hear(0, 1).is_empty() {
        // One reads what is there, one what was acknowledged; one does not read.
        cluster.say(0, 2, read.as_bytes());
        cluster.say(0, 3, read.as_bytes());
        cluster.say(0, 4, b"PING\r\n");
        let work = one_turn(&mut cluster);
        assert!(work < 4 * WORK, "{work} keys in a turn");
        pongs += usize::from(cluster.hear(0, 4) == "+PONG\r\n");
        heard[0] += &cluster.hear(0, 2);
        heard[1] += &cluster.hear(0, 3);
        turns += 1;
        assert!(turns < 1_000, "it is never done");
    }
    assert_eq!(pongs, turns, "in every turn");
    assert!(turns > KEY_COUNT / usize::try_from(WORK).unwrap(), "{turns} turns");
    cluster.run();
    let all = |value: &str| format!("*3\r\n{}", format!("$3\r\n{value}\r\n").repeat(3));
    for (client, mut heard) in (2..).zip(heard) {
        heard += &cluster.hear(0, client);
        let seen: Vec<&str> = heard.split_inclusive("*3\r\n").collect();
        assert_eq!(seen.len(), turns + 1);
        let before = heard.matches(&all("old")).count();
        assert_eq!(heard, all("old").repeat(before) + &all("new").repeat(turns - before), "client {client}");
    }
    assert!(!cluster.hosts[0].node.has_work());
}

/// What is held back has its turn between two large commands, not after all of them.
#[test]
fn reads_are_not_held_up_by_a_row_of_large_writes() {
    const ROW: usize = 10;
    let mut cluster = one_node(2);
    cluster.ask(0, 1, &mset("x"));
    cluster.say(0, 2, b"CONSISTENCY local\r\n");
    cluster.say(0, 1, (0..ROW).map(|i| mset(&i.to_string())).collect::<String>().as_bytes());
    cluster.run();
    cluster.hear(0, 2);
    cluster.hear(0, 1);
    cluster.say(0, 1, (0..ROW).map(|i| mset(&i.to_string())).collect::<String>().as_bytes());
    let (mut answered, mut seen) = (0, Vec::new());
    let read = command("GET", [name(KEY_COUNT - 1)].into_iter());
    cluster.say(0, 2, read.as_bytes());
    for _ in 0..10_000 {
        one_turn(&mut cluster);
        answered += cluster.hear(0, 1).matches("+OK").count();
        let heard = cluster.hear(0, 2);
        if !heard.is_empty() {
            seen.push(heard);
            cluster.say(0, 2, read.as_bytes());
        }
        if answered == ROW {
            break;
        }
    }
    assert_eq!(answered, ROW);
    seen.dedup();
    assert!(seen.len() >= ROW, "every state in between is seen: {seen:?}");
}

/// A transaction is one step however much is in it, and its replies are those of one that is done at a stroke.
#[test]
fn a_large_transaction_is_applied_in_pieces() {
    let mut cluster = one_node(2);
    cluster.ask(0, 1, &mset("x"));
    cluster.say(
        0,
        1,
        ["MULTI\r\n", &del(), "DBSIZE\r\n", &mset("y"), "KEYS key-0000?\r\n", "EXEC\r\n"].concat().as_bytes(),
    );
    cluster.say(0, 2, b"CONSISTENCY local\r\n");
    let (mut turns, mut heard, mut most) = (0, String::new(), 0);
    while !heard.contains("+OK\r\n*10") {
        cluster.say(0, 2, b"DBSIZE\r\n");
        most = most.max(one_turn(&mut cluster));
        heard += &cluster.hear(0, 1);
        turns += 1;
        assert!(turns < 2_000, "{heard}");
    }
    let keys: String = (0..10).map(|i| format!("$9\r\n{}\r\n", name(i))).collect();
    let queued = "+QUEUED\r\n".repeat(4);
    assert_eq!(heard, format!("+OK\r\n{queued}*4\r\n:{KEY_COUNT}\r\n:0\r\n+OK\r\n*10\r\n{keys}"));
    assert!(most < 4 * WORK, "{most} keys in a turn");
    cluster.run();
    let sizes = cluster.hear(0, 2);
    assert_eq!(sizes, format!("+OK\r\n{}", format!(":{KEY_COUNT}\r\n").repeat(turns)));
}

/// Many costly reads of one pipeline, and a write behind them that must not be seen by them.
#[test]
fn a_pipeline_of_costly_reads_is_shared_out_over_turns() {
    const READS: usize = 200;
    let mut cluster = one_node(2);
    cluster.ask(0, 1, &command("SET", ["a".repeat(20_000), "v".to_owned()].into_iter()));
    let scan = command(
        "SCAN",
        ["0", "COUNT", "16000", "MATCH"]
            .map(str::to_owned)
            .into_iter()
            .chain(["*".to_owned() + &"a".repeat(8) + "b"]),
    );
    let once = {
        let before = cluster.hosts[0].node.store().work();
        cluster.ask(0, 1, &scan);
        cluster.hosts[0].node.store().work() - before
    };
    for ending in ["", "SET z 1\r\n"] {
        cluster.say(0, 1, (scan.repeat(READS) + ending).as_bytes());
        let (mut turns, mut heard, mut most) = (0, String::new(), 0);
        while heard.matches("*2\r\n").count() < READS
            || !heard.ends_with(if ending.is_empty() { "" } else { "+OK\r\n" })
        {
            cluster.say(0, 2, b"PING\r\n");
            most = most.max(one_turn(&mut cluster));
            assert_eq!(cluster.hear(0, 2), "+PONG\r\n");
            heard += &cluster.hear(0, 1);
            turns += 1;
            assert!(turns < 10_000);
        }
        assert!(most <= 2 * (WORK + once), "{most} keys in a turn, a read takes {once}");
        assert!(
            turns as u64 >= READS as u64 * once / (2 * (WORK + once)),
            "{turns} turns of reads of {once}"
        );
        cluster.run();
    }
}

/// Who has waited comes before who comes now, however many come.
#[test]
fn reads_that_were_held_back_come_first() {
    let mut cluster = one_node(2);
    cluster.ask(0, 1, &mset("x"));
    for client in [1, 2] {
        assert_eq!(cluster.ask(0, client, "CONSISTENCY local\r\n"), "+OK\r\n");
    }
    // Each takes more than a turn has.
    let scan = command("SCAN", ["0", "COUNT", "1000"].map(str::to_owned).into_iter());
    cluster.say(0, 1, scan.repeat(3).as_bytes());
    let (mut answered, mut turns) = (0, 0);
    while answered < 3 {
        cluster.say(0, 2, scan.as_bytes());
        one_turn(&mut cluster);
        answered += cluster.hear(0, 1).matches("*2\r\n").count();
        turns += 1;
        assert!(turns < 20, "{answered} of 3 answered");
    }
}

/// Nodes with different funds, one of which is behind all the time, end where the others do; a snapshot that is taken
/// meanwhile has the state and the index of one moment.
#[test]
fn nodes_of_different_patience_agree() {
    let funds = std::cell::Cell::new(0);
    let mut cluster = Cluster::with(3, "", |settings| {
        funds.set(funds.get() + 1);
        settings.applied_per_turn = [0, 100, u64::MAX][funds.get() % 3];
        settings.read_per_turn = [u64::MAX, 0, 100][funds.get() % 3];
    });
    cluster.greet_all();
    cluster.pass(100);
    for index in 0..3 {
        cluster.open(index, 1);
        cluster.open(index, 2);
    }
    let few = |value: &str| command("MSET", (0..40).flat_map(|i| [name(i), value.to_owned()]));
    for round in 0..20 {
        for index in 0..3 {
            let text =
                few(&format!("{round}-{index}")) + "INCR n\r\nDEL key-00003 key-00005 key-00007\r\nGET n\r\n";
            cluster.say(index, 1, text.as_bytes());
        }
        if round % 5 == 3 {
            cluster.say(round % 3, 2, b"SAVE\r\n");
        }
        for _ in 0..round {
            cluster.step_all();
        }
    }
    cluster.run();
    let told: Vec<String> = (0..3)
        .map(|index| {
            let heard = cluster.hear(index, 1);
            assert_eq!(heard.matches("+OK").count(), 20, "{heard}");
            cluster.ask(index, 1, "DEBUG DIGEST\r\n")
        })
        .collect();
    assert!(told[1..].iter().all(|t| *t == told[0]), "{told:?}");
    let saved = (0..3).map(|index| cluster.hear(index, 2).matches("+OK").count()).sum::<usize>();
    assert_eq!(saved, 4);
    cluster.hosts.iter().for_each(|host| assert!(host.node.report().serving));
}

/// When more waits than may wait, a turn does all there is to do: the loop takes in nothing more meanwhile.
#[test]
fn what_waits_to_be_applied_is_bounded() {
    let mut cluster = one_node_with(1, 8);
    let large = "v".repeat(4 << 20);
    let more = 70 / 4;
    // The first takes many turns; those behind it are few keys and many bytes.
    let mut text = mset("x");
    (0..more).for_each(|i| text += &command("SET", [format!("large-{i}"), large.clone()].into_iter()));
    cluster.say(0, 1, text.as_bytes());
    for _ in 0..3 {
        one_turn(&mut cluster);
    }
    let turns = (0..)
        .take_while(|_| cluster.hosts[0].node.has_work().then(|| one_turn(&mut cluster)).is_some())
        .count();
    assert_eq!(cluster.hear(0, 1).matches("+OK").count(), more + 1);
    assert!(turns < KEY_COUNT / 16, "{turns} turns");
}

/// What is asked of the node within a transaction is about whole commands too, with commands of the store beside it
/// or without.
#[test]
fn a_transaction_does_not_tell_of_half_a_command() {
    let mut cluster = one_node(3);
    cluster.say(0, 1, mset("x").as_bytes());
    let (mut turns, mut heard) = (0, [String::new(), String::new()]);
    while cluster.hear(0, 1).is_empty() {
        for (client, inner) in [(2, "INFO keyspace\r\n"), (3, "INFO keyspace\r\nDBSIZE\r\n")] {
            cluster.say(0, client, format!("MULTI\r\n{inner}EXEC\r\n").as_bytes());
        }
        one_turn(&mut cluster);
        (2..).zip(&mut heard).for_each(|(client, heard)| *heard += &cluster.hear(0, client));
        turns += 1;
        assert!(turns < 1_000, "it is never done");
    }
    cluster.run();
    for (client, mut heard) in (2..).zip(heard) {
        heard += &cluster.hear(0, client);
        assert_eq!(heard.matches("# Keyspace").count(), turns, "client {client}");
        let told: Vec<&str> =
            heard.split("keys=").skip(1).map(|rest| rest.split(',').next().unwrap_or_default()).collect();
        assert!(!told.is_empty() && told.iter().all(|count| *count == KEY_COUNT.to_string()), "{told:?}");
    }
}

/// A read that takes long begins between two large commands as well.
#[test]
fn long_reads_begin_between_large_writes() {
    const ROW: usize = 10;
    let mut cluster = one_node(2);
    cluster.ask(0, 1, &mset("x"));
    cluster.say(0, 2, b"CONSISTENCY local\r\n");
    cluster.run();
    cluster.hear(0, 2);
    cluster.say(0, 1, (0..ROW).map(|i| mset(&i.to_string())).collect::<String>().as_bytes());
    one_turn(&mut cluster);
    cluster.say(0, 2, b"KEYS key-0000?\r\n");
    let (mut answered, mut heard) = (0, String::new());
    while answered < ROW && heard.is_empty() {
        one_turn(&mut cluster);
        answered += cluster.hear(0, 1).matches("+OK").count();
        heard += &cluster.hear(0, 2);
    }
    assert!(answered <= 4, "{answered} of {ROW} came first");
    cluster.run();
    heard += &cluster.hear(0, 2);
    assert!(heard.starts_with("*10\r\n"), "{heard}");
}

/// The index that a client is told with the digest is that of the state which it is of.
#[test]
fn a_digest_behind_a_write_has_the_index_of_that() {
    let mut cluster = one_node(2);
    for text in ["SET a 1\r\nDEBUG DIGEST\r\n", "SET a 2\r\nMULTI\r\nDEBUG DIGEST\r\nEXEC\r\n"] {
        let told = cluster.ask(0, 1, text);
        let digest = cluster.ask(0, 2, "DEBUG DIGEST\r\n");
        assert!(told.ends_with(&digest), "{told:?} {digest:?}");
    }
}

/// While much waits to be applied, every place tells how far the state is, and not how far the order is.
#[test]
fn one_index_is_told_everywhere() {
    let mut cluster = one_node_with(2, 8);
    let writes: String = (0..200).map(|i| format!("SET {} x\r\n", name(i))).collect();
    cluster.say(0, 1, writes.as_bytes());
    let mut behind = 0;
    while cluster.hosts[0].node.has_work() || cluster.hear(0, 1).is_empty() {
        cluster.say(0, 2, b"MULTI\r\nDEBUG DIGEST\r\nROLE\r\nINFO replication\r\nINFO lanes\r\nEXEC\r\n");
        one_turn(&mut cluster);
        let heard = cluster.hear(0, 2);
        let Some((_, told)) = heard.split_once("*4\r\n$") else { continue };
        let number = |at: &str| -> u64 {
            let (_, rest) = told.split_once(at).unwrap_or_else(|| panic!("no {at} in {told}"));
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or_else(|_| panic!("no number behind {at} in {told}"))
        };
        let index = number("\r\n");
        behind += usize::from(index < cluster.hosts[0].node.report().index.0);
        let told = ["master\r\n:", "master_repl_offset:", "\nindex:"].map(number);
        assert_eq!(told, [index; 3]);
    }
    assert!(behind > 5, "{behind}");
}

/// Who goes away, or is told that it took too long, while a command is half done, takes nobody else's reply along.
#[test]
fn replies_stay_in_order_whoever_gives_up() {
    let mut cluster = one_node(4);
    cluster.ask(0, 1, &mset("x"));
    let timeout = cluster.hosts[0].node.backend.settings.client_timeout;
    cluster.say(0, 1, (mset("y") + &mset("z") + "GET key-00000\r\n").as_bytes());
    cluster.say(0, 2, b"INCR n\r\n");
    cluster.say(0, 3, b"INCR n\r\nGET n\r\n");
    for _ in 0..3 {
        one_turn(&mut cluster);
    }
    assert!(cluster.hosts[0].node.backend.torn);
    cluster.say(0, 4, b"INCR n\r\n");
    one_turn(&mut cluster);
    cluster.hosts[0].node.client_gone(key(2));
    cluster.now.mono = cluster.now.mono.plus(timeout).plus(Millis(1));
    one_turn(&mut cluster);
    assert!(cluster.hosts[0].node.backend.torn);
    let late = cluster.hear(0, 4);
    assert!(late.starts_with("-"), "{late}");
    cluster.run();
    let heard = [1, 3, 4].map(|client| cluster.hear(0, client));
    assert_eq!(heard[0], "+OK\r\n+OK\r\n$1\r\nz\r\n");
    assert_eq!(heard[1], ":2\r\n$1\r\n2\r\n");
    assert_eq!(heard[2], "");
    assert_eq!(cluster.ask(0, 4, "GET n\r\n"), "$1\r\n3\r\n");
    assert!(!cluster.hosts[0].node.has_work() && cluster.hosts[0].node.deliveries.is_empty());
}

/// An entry that waits takes room, however small its batch is.
#[test]
fn small_entries_that_wait_are_counted_too() {
    let mut cluster = one_node(1);
    cluster.say(0, 1, mset("x").as_bytes());
    while !cluster.hosts[0].node.backend.torn {
        one_turn(&mut cluster);
    }
    let (alone, large) = cluster.hosts[0].node.deliveries.size();
    assert_eq!(alone, 1);
    let mut small = 0;
    while cluster.hosts[0].node.backend.torn {
        let (count, len) = cluster.hosts[0].node.deliveries.size();
        small = count - alone;
        assert!(len - large >= small * 200, "{small} small ones are taken for {} bytes", len - large);
        cluster.say(0, 1, b"INCR n\r\n");
        one_turn(&mut cluster);
    }
    assert!(small > 20, "{small} have waited");
    cluster.run();
    assert_eq!(cluster.hosts[0].node.deliveries.size(), (0, 0));
}

/// Who has only to wait for his turn is not told that it took too long.
#[test]
fn reads_that_are_ready_are_not_given_up() {
    const READS: usize = 30;
    let mut cluster = one_node_with(2, 1);
    assert_eq!(cluster.ask(0, 1, "SET a 1\r\n"), "+OK\r\n");
    cluster.say(0, 2, "GET a\r\n".repeat(READS).as_bytes());
    for _ in 0..3 {
        one_turn(&mut cluster);
    }
    // One more, which may be executed when all of this is applied.
    cluster.say(0, 1, mset("x").as_bytes());
    for _ in 0..3 {
        one_turn(&mut cluster);
    }
    cluster.say(0, 2, b"GET a\r\n");
    for _ in 0..3 {
        one_turn(&mut cluster);
    }
    cluster.now.mono = cluster.now.mono.plus(Millis(CLIENT_TIMEOUT));
    cluster.run();
    let heard = cluster.hear(0, 2);
    assert_eq!(heard, format!("{}-{READ_TIMEOUT}\r\n", "$1\r\n1\r\n".repeat(READS)));
}
