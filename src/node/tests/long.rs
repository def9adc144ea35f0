//! Commands that are much work: no turn does more than its share of it. The work is counted, not timed.

use super::*;

pub(super) const KEY_COUNT: usize = 20_000;
/// What it takes to look at all slots, without their keys.
const SLOTS_WORK: usize = crate::store::SLOT_COUNT / 8;
const READ_PER_TURN: u64 = 1024;
/// Slots and keys that a turn looks at, and some of the last slot.
const LOOKED_AT_MAX: usize = READ_PER_TURN as usize + 200;
/// What a turn may add to a client's output.
pub(super) const OUTPUT_MAX: usize = 256 << 10;

fn resp(words: &[String]) -> Vec<u8> {
    command(&words[0], words[1..].iter().cloned()).into_bytes()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// One node, whose turns have a fund of [`READ_PER_TURN`] for reads.
fn one_node() -> Cluster {
    let mut cluster = Cluster::with(1, "", |settings| settings.read_per_turn = READ_PER_TURN);
    cluster.pass(100);
    cluster
}

/// Gives it many keys, and two clients.
fn fill(mut cluster: Cluster, name: fn(usize) -> String) -> Cluster {
    cluster.open(0, 1);
    cluster.open(0, 2);
    for begin in (0..KEY_COUNT).step_by(500) {
        let pairs = (begin..begin + 500).flat_map(|i| [name(i), i.to_string()]);
        assert_eq!(cluster.ask(0, 1, &command("MSET", pairs)), "+OK\r\n");
    }
    cluster
}

/// The same with many keys, and two clients.
pub(super) fn filled() -> Cluster {
    fill(one_node(), name)
}

/// The same where clients are shown a cluster, with all keys under one hash tag.
fn filled_slot() -> Cluster {
    let adjust = |settings: &mut Settings| settings.read_per_turn = READ_PER_TURN;
    let mut cluster = Cluster::with(1, "set cluster-view yes\n", adjust);
    cluster.pass(100);
    fill(cluster, tagged)
}

fn tagged(i: usize) -> String {
    format!("{{t}}{i:05}")
}

/// One turn, after which the disk has all that it was given.
pub(super) fn one_turn(cluster: &mut Cluster) {
    cluster.turn(0);
    let host = &mut cluster.hosts[0];
    host.durable = host.submitted;
    host.node.handle(cluster.now, NodeInput::Persisted(host.submitted));
}

/// However many questions about the node stand in a pipeline: turns answer some of them, and somebody else's as well.
#[test]
fn questions_about_the_node_are_shared_out_over_turns() {
    let mut cluster = one_node();
    for client in 1..=3 {
        cluster.open(0, client);
    }
    for (question, per_turn) in [("COMMAND", 3), ("COMMAND DOCS", 3), ("CONFIG GET *", 200), ("INFO", 200)] {
        let len = cluster.ask(0, 1, &format!("{question}\r\n")).len();
        let all = format!("{question}\r\n").repeat(4 * per_turn);
        cluster.say(0, 1, all.as_bytes());
        cluster.say(0, 2, all.as_bytes());
        let (mut heard, mut turns) = ([0; 2], 0);
        while heard.iter().sum::<usize>() < 7 * per_turn * len {
            cluster.say(0, 3, b"PING\r\n");
            one_turn(&mut cluster);
            one_turn(&mut cluster);
            one_turn(&mut cluster);
            assert_eq!(cluster.hear(0, 3), "+PONG\r\n", "{question}: nobody waits for ever");
            let news = [1, 2].map(|client| cluster.hear(0, client).len());
            heard = [heard[0] + news[0], heard[1] + news[1]];
            turns += 1;
            // What was answered in one turn may be turned into bytes in another.
            assert!(
                heard.iter().sum::<usize>() <= 4 * per_turn * len * turns,
                "{question}: {heard:?} bytes of {len} each"
            );
            assert!(turns < 100, "{question}: {heard:?}");
        }
        cluster.run();
        cluster.hear(0, 1);
        cluster.hear(0, 2);
    }
}

/// A transaction answers at a stroke, so there is a limit to what it asks about the node.
#[test]
fn a_transaction_asks_so_much_about_the_node() {
    const COUNT: usize = 5_000;
    let mut cluster = one_node();
    cluster.open(0, 1);
    for (question, least, most) in [("INFO", 50, 200), ("COMMAND", 2, 10), ("PING", COUNT, COUNT)] {
        for write in ["", "SET a 1\r\n"] {
            cluster.ask(0, 1, "MULTI\r\n");
            cluster.say(0, 1, format!("{question}\r\n").repeat(COUNT).as_bytes());
            cluster.run();
            assert_eq!(cluster.hear(0, 1), "+QUEUED\r\n".repeat(COUNT));
            let reply = cluster.ask_much(0, 1, &format!("{write}EXEC\r\n"));
            let refused = reply.matches("-ERR the transaction asks too much about the node").count();
            assert!((least..=most).contains(&(COUNT - refused)), "{question}: {refused} refused");
            assert_eq!(reply.ends_with("+OK\r\n"), !write.is_empty());
        }
    }
}

/// Turns until the client has so many bytes: how many, and the bytes. Another client is served in each of them.
pub(super) fn listen(cluster: &mut Cluster, len: usize) -> (usize, Vec<u8>) {
    let mut heard = Vec::new();
    for turns in 1..1_000 {
        cluster.say(0, 2, b"LLEN\r\n");
        one_turn(cluster);
        assert!(cluster.hear(0, 2).starts_with("-ERR unknown"), "others are answered in every turn");
        let node = &mut cluster.hosts[0].node;
        let output = node.client_output(key(1)).to_vec();
        assert!(output.len() <= OUTPUT_MAX + 64, "{} bytes in a turn", output.len());
        node.client_sent(cluster.now, key(1), output.len());
        heard.extend(output);
        if heard.len() >= len {
            return (turns, heard);
        }
    }
    panic!("only {} of {len} bytes", heard.len());
}

/// Turns until the client has so many bytes; how many turns, and what it heard. The other client is served meanwhile.
fn turns_until(cluster: &mut Cluster, len: usize) -> (usize, String) {
    let (turns, heard) = listen(cluster, len);
    (turns, String::from_utf8(heard).unwrap())
}

fn array(elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<String> = elements.map(|e| format!("${}\r\n{e}\r\n", e.len())).collect();
    format!("*{}\r\n{}", elements.len(), elements.concat())
}

#[test]
fn keys_are_found_in_pieces_and_are_those_of_one_moment() {
    let mut cluster = filled();
    let mut bytes = resp(&words("KEYS *"));
    // What follows on the connection is carried out meanwhile, but not seen, and answered afterwards.
    bytes.extend(resp(&words("SET late 1")));
    bytes.extend(resp(&words("DEL key-00000")));
    bytes.extend(resp(&words("DBSIZE")));
    cluster.say(0, 1, &bytes);
    let expected = array((0..KEY_COUNT).map(name)) + &format!("+OK\r\n:1\r\n:{KEY_COUNT}\r\n");
    let (turns, heard) = turns_until(&mut cluster, expected.len());
    assert_eq!(heard, expected);
    // Looked at, merged, and turned into bytes.
    let work = (KEY_COUNT + SLOTS_WORK) / LOOKED_AT_MAX + KEY_COUNT / LOOKED_AT_MAX + KEY_COUNT / 8192;
    assert!((work..work + 20).contains(&turns), "{turns} turns for the work of {work}");
    cluster.run();
    assert!(!cluster.hosts[0].node.has_work());
}

#[test]
fn many_values_are_read_in_pieces() {
    let mut cluster = filled();
    let mut mget = words("MGET");
    mget.extend((0..KEY_COUNT).map(name));
    cluster.say(0, 1, &resp(&mget));
    let expected = array((0..KEY_COUNT).map(|i| i.to_string()));
    let (turns, heard) = turns_until(&mut cluster, expected.len());
    assert_eq!(heard, expected);
    assert!(turns > KEY_COUNT / LOOKED_AT_MAX + KEY_COUNT / 8192, "{turns} turns");
    let mut exists = words("EXISTS missing");
    exists.extend((0..KEY_COUNT).map(name));
    cluster.say(0, 1, &resp(&exists));
    let expected = format!(":{KEY_COUNT}\r\n");
    let (turns, heard) = turns_until(&mut cluster, expected.len());
    assert_eq!(heard, expected);
    assert!(turns > KEY_COUNT / LOOKED_AT_MAX, "{turns} turns");
}

/// Freed is what nobody can see; how long it takes shows in the number of turns.
#[test]
fn what_was_taken_away_is_freed_in_pieces() {
    let freed_in = |cluster: &mut Cluster| {
        let mut turns = 0;
        while cluster.hosts[0].node.store().has_expired() {
            one_turn(cluster);
            turns += 1;
        }
        turns
    };
    let mut cluster = filled();
    let mut del = words("DEL");
    del.extend((0..KEY_COUNT / 2).map(name));
    cluster.say(0, 1, &resp(&del));
    let expected = format!(":{}\r\n", KEY_COUNT / 2);
    assert_eq!(turns_until(&mut cluster, expected.len()).1, expected);
    let turns = freed_in(&mut cluster);
    assert!(turns < 4, "freeing keeps up with removing: {turns} turns");
    cluster.say(0, 1, &resp(&words("FLUSHALL")));
    for _ in 0..3 {
        one_turn(&mut cluster);
    }
    assert_eq!(cluster.hear(0, 1), "+OK\r\n");
    let turns = freed_in(&mut cluster);
    assert!((20..80).contains(&turns), "{turns} turns");
}

#[test]
fn a_client_that_leaves_during_a_long_read_leaves_nothing_to_do() {
    for turns in [2, 20, 45, 55] {
        let mut cluster = filled();
        cluster.say(0, 1, &resp(&words("KEYS *")));
        for _ in 0..turns {
            one_turn(&mut cluster);
        }
        cluster.hosts[0].node.client_gone(key(1));
        assert!(cluster.hosts[0].node.store().has_expired(), "what it held is freed in pieces");
        cluster.run();
        assert!(!cluster.hosts[0].node.has_work());
    }
}

/// How many long reads of each client have begun.
fn frozen(cluster: &Cluster, clients: u32) -> Vec<usize> {
    let node = &cluster.hosts[0].node;
    (1..=clients).map(|client| node.clients.get(key(client)).unwrap().queue.long_counts().0).collect()
}

/// Nobody's read is begun while another one is being done, so no more than one state is kept.
#[test]
fn the_first_in_line_is_frozen_and_no_other() {
    const CLIENTS: u32 = 6;
    let mut cluster = filled();
    (3..=CLIENTS).for_each(|client| cluster.open(0, client));
    for client in 1..=CLIENTS {
        // The last one has a write behind its read, which the read must not see.
        let more = if client == CLIENTS { resp(&words("SET key-000-late 1")) } else { Vec::new() };
        cluster.say(0, client, &[resp(&words("KEYS key-000*")), more].concat());
    }
    let mut order = Vec::new();
    for turn in 1..400 {
        one_turn(&mut cluster);
        let frozen = frozen(&cluster, CLIENTS);
        let (forced, in_line) = frozen.split_last().unwrap();
        assert!(in_line.iter().sum::<usize>() <= 1 && *forced <= 1, "{frozen:?} in turn {turn}");
        for client in 1..=CLIENTS {
            let heard = cluster.hear(0, client);
            if !heard.is_empty() {
                let is_late = heard.contains("late");
                assert_eq!(is_late, client < CLIENTS && client > 1, "client {client} hears {}", heard.len());
                order.push((client, turn));
            }
        }
    }
    let (clients, turns): (Vec<u32>, Vec<usize>) = order.into_iter().unzip();
    assert_eq!(clients, (1..=CLIENTS).collect::<Vec<_>>());
    let each = turns.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(
        each.clone().all(|turns| (20..28).contains(&turns)),
        "each has the whole of its turns: {turns:?}"
    );
    assert!(!cluster.hosts[0].node.has_work());
}

/// It holds up nobody, and no more than one answer is prepared for it.
#[test]
fn a_client_that_does_not_read_has_one_long_reply_prepared() {
    const READS: usize = 8;
    let mut cluster = filled();
    cluster.say(0, 1, &resp(&words("KEYS *")).repeat(READS));
    cluster.say(0, 2, &resp(&words("KEYS key-00*")));
    let expected = array((0..1_000).map(name));
    let mut heard = String::new();
    for turn in 1..400 {
        one_turn(&mut cluster);
        if heard.is_empty() {
            heard = cluster.hear(0, 2);
            assert!(heard.is_empty() || turn < 150, "the other one is answered in turn {turn}");
        }
    }
    assert_eq!(heard, expected);
    let node = &cluster.hosts[0].node;
    assert!(!node.has_work(), "nothing goes on until it reads");
    let queue = &node.clients.get(key(1)).unwrap().queue;
    assert_eq!((queue.unanswered(), queue.long_counts()), (READS - 1, (0, 1)));
    let expected = array((0..KEY_COUNT).map(name)).repeat(READS);
    let (_, heard) = turns_until(&mut cluster, expected.len());
    assert_eq!(heard, expected);
}

#[test]
fn a_client_that_leaves_while_it_is_first_in_line_lets_the_next_one_pass() {
    for turns in 1..8 {
        let mut cluster = filled();
        cluster.say(0, 1, &resp(&words("KEYS *")));
        cluster.say(0, 2, &resp(&words("KEYS key-0000?")));
        (0..turns).for_each(|_| one_turn(&mut cluster));
        cluster.hosts[0].node.client_gone(key(1));
        cluster.run();
        assert_eq!(cluster.hear(0, 2), array((0..10).map(name)));
        assert!(!cluster.hosts[0].node.has_work());
    }
}

/// A single key can be much work: a step of the pattern counts, as a key does.
#[test]
fn a_costly_pattern_is_compared_in_pieces() {
    const STEPS_PER_TURN: usize = 1024 * 64;
    let mut cluster = one_node();
    cluster.open(0, 1);
    cluster.open(0, 2);
    cluster.say(0, 1, &resp(&["SET".to_owned(), "a".repeat(30_000), "v".to_owned()]));
    cluster.run();
    assert_eq!(cluster.hear(0, 1), "+OK\r\n");
    cluster.say(0, 1, &resp(&words(&format!("KEYS *{}b", "a".repeat(300)))));
    let expected = array(std::iter::empty());
    let (turns, heard) = turns_until(&mut cluster, expected.len());
    assert_eq!(heard, expected);
    let work = (30_000 - 300) * 300 / STEPS_PER_TURN + SLOTS_WORK / 1024;
    assert!((work..work + 10).contains(&turns), "{turns} turns for the work of {work}");
}

/// What looks at whole slots has no more of a turn than others, if one has all the keys.
#[test]
fn a_slot_with_very_many_keys_is_read_in_pieces() {
    let mut cluster = filled_slot();
    let slot = crate::store::slot_of(b"{t}");
    let all = array((0..KEY_COUNT).map(tagged));
    let next = (slot + 1).to_string();
    let scanned = format!("*2\r\n${}\r\n{next}\r\n{all}", next.len());
    let looks = KEY_COUNT / LOOKED_AT_MAX;
    for level in ["linearizable", "local", "ordered"] {
        let ok = "+OK\r\n";
        for (command, expected, work) in [
            ("SCAN 0".to_owned(), scanned.clone(), 2 * looks),
            (
                format!("SCAN {slot} MATCH *9 COUNT 9 TYPE list"),
                scanned[..scanned.len() - all.len()].to_owned() + "*0\r\n",
                looks,
            ),
            (format!("CLUSTER GETKEYSINSLOT {slot} 99999"), all.clone(), 2 * looks),
            (format!("CLUSTER GETKEYSINSLOT {slot} 2"), array((0..2).map(tagged)), looks),
            (format!("CLUSTER COUNTKEYSINSLOT {slot}"), format!(":{KEY_COUNT}\r\n"), 0),
        ] {
            let asked = [format!("CONSISTENCY {level}"), command.clone()].map(|line| resp(&words(&line)));
            cluster.say(0, 1, &asked.concat());
            let (turns, heard) = turns_until(&mut cluster, ok.len() + expected.len());
            assert!(heard == ok.to_owned() + &expected, "{level} {command}");
            // What is applied has three times as much of a turn.
            let is_applied = level == "ordered" && command.starts_with("SCAN");
            let work = if is_applied { work / 3 } else { work };
            assert!((work..work + 20).contains(&turns), "{level} {command}: {turns} turns instead of {work}");
        }
        cluster.say(0, 1, &resp(&words("RANDOMKEY")));
        let (turns, heard) = turns_until(&mut cluster, 14);
        assert!(heard.starts_with("$8\r\n{t}") && turns > looks / 3, "{level}: {heard} in {turns} turns");
    }
    cluster.run();
    assert!(!cluster.hosts[0].node.has_work());
}

/// The replies of a transaction are long ones as well, however deep the keys are in them.
#[test]
fn what_a_transaction_lists_is_sent_in_pieces() {
    let mut cluster = filled_slot();
    let slot = crate::store::slot_of(b"{t}");
    let all = array((0..KEY_COUNT).map(tagged));
    let next = (slot + 1).to_string();
    let transaction: Vec<u8> = [
        "MULTI".to_owned(),
        format!("SCAN {slot}"),
        "SET {t}00000 new".to_owned(),
        "KEYS *".to_owned(),
        format!("CLUSTER COUNTKEYSINSLOT {slot}"),
        "EXEC".to_owned(),
    ]
    .iter()
    .flat_map(|line| resp(&words(line)))
    .collect();
    let refused = "-ERR Command not allowed inside a transaction\r\n";
    let expected = "+OK\r\n".to_owned()
        + &"+QUEUED\r\n".repeat(4)
        + &format!("*4\r\n*2\r\n${}\r\n{next}\r\n{all}+OK\r\n{all}{refused}", next.len());
    cluster.say(0, 1, &transaction);
    let (turns, heard) = turns_until(&mut cluster, expected.len());
    assert!(heard == expected, "{}", &heard[..200]);
    assert!(turns > 2 * KEY_COUNT / 8192, "{turns} turns");
    cluster.run();
    assert!(!cluster.hosts[0].node.has_work());
    // Whoever leaves in the middle of it leaves nothing that is freed at a stroke.
    cluster.say(0, 1, &transaction);
    while cluster.hear(0, 1).len() < 1_000 {
        one_turn(&mut cluster);
    }
    one_turn(&mut cluster);
    cluster.hosts[0].node.client_gone(key(1));
    let mut turns = 0;
    while cluster.hosts[0].node.store().has_expired() {
        one_turn(&mut cluster);
        turns += 1;
    }
    assert!(turns > KEY_COUNT / 512, "{turns} turns");
    assert!(!cluster.hosts[0].node.has_work());
}
