//! Nodes wired together without sockets: messages arrive at once unless a link is cut, records are
//! durable at once unless the disk is held. Only snapshots are in files, on disks in memory.

mod apply;
mod long;
mod pouring;
mod redis;
mod shares;
mod slow;
mod snapshots;

use super::patience::{OUTPUT_PATIENCE, READ_TIMEOUT, SWEEP_EVERY, TIMEOUT};
use super::*;
use crate::config::Config;
use crate::storage::MemoryDisk;
use crate::types::{DiskId, SessionId};
use crate::wire::batch::SessionSeq;
use crate::wire::client::{Response, WireReply, decode_response, encode_request};
use crate::wire::split_frame;

const SUSPICION: u64 = 300;
const CLIENT_TIMEOUT: u64 = 5_000;

struct Host {
    node: Node,
    effects: Effects,
    disk_held: bool,
    submitted: Lsn,
    durable: Lsn,
    closed: Vec<ClientKey>,
    stop_asked: bool,
    slept: Duration,
    keeper: Keeper<MemoryDisk>,
    files: MemoryDisk,
    /// The log is not needed before this record.
    truncated: Option<Lsn>,
}

struct Cluster {
    now: Now,
    hosts: Vec<Host>,
    messages: VecDeque<(NodeId, NodeId, Message)>,
    /// Nodes that no message reaches or leaves.
    cut: NodeSet,
    /// These messages get lost besides.
    lost: fn(&Message) -> bool,
    /// These take `way` to arrive, the others no time.
    slow: fn(&Message) -> bool,
    way: Millis,
    /// Those on their way, and when they arrive.
    later: VecDeque<(Millis, NodeId, NodeId, Message)>,
}

fn id(index: usize) -> NodeId {
    NodeId::new(u8::try_from(index).unwrap()).unwrap()
}

fn key(index: u32) -> ClientKey {
    ClientKey { index, generation: 1 }
}

impl Cluster {
    /// Founded, and all serve.
    fn new(count: usize) -> Cluster {
        let mut cluster = Cluster::unfounded(count);
        cluster.greet_all();
        cluster.pass(100);
        for host in &cluster.hosts {
            assert!(host.node.report().serving, "{:?}", host.node.report());
        }
        cluster
    }

    fn unfounded(count: usize) -> Cluster {
        Cluster::configured(count, "")
    }

    fn configured(count: usize, more: &str) -> Cluster {
        Cluster::with(count, more, |_| {})
    }

    fn with(count: usize, more: &str, adjust: impl Fn(&mut Settings)) -> Cluster {
        let file: String = (0..count).map(|i| format!("{i} 127.0.0.1:{}\n", 7100 + i)).collect();
        Cluster::adjusted(count, &(file + more), adjust)
    }

    fn of_file(count: usize, file: &str) -> Cluster {
        Cluster::adjusted(count, file, |_| {})
    }

    fn adjusted(count: usize, file: &str, adjust: impl Fn(&mut Settings)) -> Cluster {
        let config = Config::parse("test", file).unwrap();
        let now = Now { mono: Millis(1_000), wall: Millis(1_700_000_000_000) };
        let host = |i: usize| {
            let mut settings = Settings::new(&config, id(i), 7).unwrap();
            adjust(&mut settings);
            let mut replay = Replay::new(&settings.protocol);
            let mut group = RecordGroup::new();
            let incarnation = replay.begin(&mut group).unwrap();
            let disk = DiskId(100 + i as u64);
            let identity = Identity { disk, incarnation, boot: 1 + i as u64, joining: false };
            let durable = group.last_lsn().unwrap();
            let files = MemoryDisk::new();
            let keeper = Keeper::new(files.clone(), settings.store.clone(), 3);
            Host {
                node: Node::new(settings, identity, replay, 3, now),
                effects: Effects::default(),
                disk_held: false,
                submitted: durable,
                durable,
                closed: Vec::new(),
                stop_asked: false,
                slept: Duration::ZERO,
                keeper,
                files,
                truncated: None,
            }
        };
        let hosts = (0..count).map(host).collect();
        Cluster {
            now,
            hosts,
            messages: VecDeque::new(),
            cut: NodeSet::EMPTY,
            lost: |_| false,
            slow: |_| false,
            way: Millis(0),
            later: VecDeque::new(),
        }
    }

    fn greet_all(&mut self) {
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| to != from) {
                let hello = self.hosts[from].node.hello(id(to));
                self.hosts[to].node.check_hello(&hello).unwrap();
                self.hosts[to].node.handle(self.now, NodeInput::Greeted(Box::new(hello)));
                self.hosts[to].node.handle(self.now, NodeInput::LinkUp(id(from)));
            }
        }
        self.run();
    }

    /// Turns of all nodes until nothing more happens at this time.
    fn run(&mut self) {
        for _ in 0..10_000 {
            if self.step_all() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// A turn of each node, then what they sent and wrote arrives; whether nothing is left to do.
    fn step_all(&mut self) -> bool {
        for index in 0..self.hosts.len() {
            self.turn(index);
        }
        let mono = self.now.mono;
        let (slow, mut waiting): (Vec<_>, Vec<_>) =
            self.messages.drain(..).partition(|(.., message)| (self.slow)(message));
        self.later
            .extend(slow.into_iter().map(|(from, to, message)| (mono.plus(self.way), from, to, message)));
        let arrived = self.later.iter().take_while(|(due, ..)| *due <= mono).count();
        waiting.extend(self.later.drain(..arrived).map(|(_, from, to, message)| (from, to, message)));
        let mut quiet = waiting.is_empty();
        for (from, to, message) in waiting {
            if !self.cut.contains(from) && !self.cut.contains(to) && !(self.lost)(&message) {
                let input = NodeInput::Receive { from, message };
                self.hosts[to.index()].node.handle(self.now, input);
            }
        }
        for host in &mut self.hosts {
            if !host.disk_held && host.durable < host.submitted {
                host.durable = host.submitted;
                host.node.handle(self.now, NodeInput::Persisted(host.submitted));
                quiet = false;
            }
            quiet &= !host.node.has_work() && !host.keeper.has_work();
        }
        quiet
    }

    fn turn(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        host.effects.clear();
        host.node.run_backlog(self.now);
        host.node.end_turn(self.now, &mut host.effects);
        assert_eq!(host.effects.halt, None);
        if let Some(last) = host.effects.records.last_lsn() {
            host.submitted = last;
        }
        host.truncated = host.truncated.max(host.effects.truncate);
        for task in host.effects.tasks.drain(..) {
            host.keeper.submit(task);
        }
        if let Some(done) = host.keeper.step().expect("a sound disk") {
            host.node.keeper_done(self.now, done);
        }
        for (to, message) in host.effects.sends.drain(..) {
            self.messages.extend(to.iter().map(|to| (id(index), to, message.clone())));
        }
        host.stop_asked |= host.effects.stop;
        host.slept += host.effects.sleep.unwrap_or_default();
        for key in host.effects.closing.drain(..) {
            host.node.client_gone(key);
            host.closed.push(key);
        }
    }

    /// Lets time pass, turn by turn.
    fn pass(&mut self, millis: u64) {
        let end = self.now.mono.plus(Millis(millis));
        while self.now.mono < end {
            let due = self.hosts.iter().filter_map(|host| host.node.deadline());
            let due = due.chain(self.later.front().map(|(due, ..)| *due)).min();
            let next = due.unwrap_or(end).max(self.now.mono.plus(Millis(1))).min(end);
            self.now.wall = self.now.wall.plus(next.since(self.now.mono));
            self.now.mono = next;
            self.run();
        }
    }

    fn open(&mut self, index: usize, client: u32) {
        self.hosts[index].node.client_open(self.now, key(client));
    }

    fn say(&mut self, index: usize, client: u32, bytes: &[u8]) {
        self.hosts[index].node.client_bytes(self.now, key(client), bytes);
    }

    /// Everything that the client has been sent and not read.
    fn hear(&mut self, index: usize, client: u32) -> String {
        let mut heard = Vec::new();
        let node = &mut self.hosts[index].node;
        loop {
            let output = node.client_output(key(client)).to_vec();
            if output.is_empty() {
                return String::from_utf8(heard).unwrap();
            }
            node.client_sent(self.now, key(client), output.len());
            heard.extend(output);
        }
    }

    fn ask(&mut self, index: usize, client: u32, bytes: &str) -> String {
        self.say(index, client, bytes.as_bytes());
        self.run();
        self.hear(index, client)
    }

    /// The same for a long reply, of which more comes when some is read.
    fn ask_much(&mut self, index: usize, client: u32, bytes: &str) -> String {
        let mut heard = self.ask(index, client, bytes);
        loop {
            self.run();
            let more = self.hear(index, client);
            if more.is_empty() {
                return heard;
            }
            heard += &more;
        }
    }

    fn request(&mut self, index: usize, client: u32, place: Option<SessionSeq>, words: &[&str]) -> WireReply {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, 9, None, place, words);
        self.say(index, client, &bytes);
        self.run();
        let node = &mut self.hosts[index].node;
        let output = node.client_output(key(client)).to_vec();
        let (_, payload, len) = split_frame(&output, 1 << 20).expect("a whole response");
        assert_eq!(len, output.len());
        node.client_sent(self.now, key(client), len);
        let Response { id: 9, reply } = decode_response(payload).unwrap() else { panic!("another id") };
        reply
    }
}

fn name(i: usize) -> String {
    format!("key-{i:05}")
}

/// A command in RESP.
fn command(word: &str, arguments: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = std::iter::once(word.to_owned()).chain(arguments).collect();
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}

#[test]
fn pipelined_commands_of_a_turn_share_a_batch_and_are_answered_in_order() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    let batches = cluster.hosts[0].node.backend.stats.batches;
    cluster.say(0, 1, b"GET a\nSET a 1\nGET a\nPING\nfoo\nSET a 2\nGET a\nDBSIZE\n");
    // Nothing is answered before the read at the front is, although PING could be.
    assert_eq!(cluster.hear(0, 1), "");
    cluster.run();
    let unknown = "ERR unknown command 'foo', with args beginning with: \n";
    assert_eq!(cluster.hear(0, 1), format!("Not Found\nOK\n1\nPONG\n{unknown}OK\n2\n1\n"));
    assert_eq!(cluster.hosts[0].node.backend.stats.batches, batches + 1);
    cluster.open(2, 1);
    assert_eq!(cluster.ask(2, 1, "GET a\n"), "2\n");
}

#[test]
fn a_read_waits_for_its_majority_and_never_sees_a_later_write() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    cluster.cut = NodeSet::only(id(1)).with(id(2));
    assert_eq!(cluster.ask(0, 1, "GET a\n"), "", "no majority can be asked");
    assert_eq!(cluster.ask(0, 1, "SET a 1\n"), "");
    cluster.cut = NodeSet::EMPTY;
    cluster.pass(100);
    assert_eq!(cluster.hear(0, 1), "Not Found\nOK\n");
}

#[test]
fn another_clients_write_is_seen_by_a_read_that_follows_its_reply() {
    let mut cluster = Cluster::new(3);
    for index in 0..3 {
        cluster.open(index, 1);
    }
    for round in 0..30 {
        let (writer, reader) = (round % 3, (round + 1) % 3);
        assert_eq!(cluster.ask(writer, 1, &format!("SET k {round}\n")), "OK\n");
        assert_eq!(cluster.ask(reader, 1, "GET k\n"), format!("{round}\n"));
    }
}

#[test]
fn without_a_majority_commands_wait_and_are_then_refused() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    cluster.cut = NodeSet::only(id(0));
    cluster.pass(SUSPICION + 50);
    let since = cluster.now.mono;
    cluster.say(0, 1, b"SET a 1\nGET a\n");
    cluster.run();
    assert_eq!(cluster.hear(0, 1), "");
    cluster.pass(2 * SUSPICION + 50);
    let heard = cluster.hear(0, 1);
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines.len(), 2, "{heard:?} after {}", cluster.now.mono.since(since));
    assert!(lines[0].starts_with("NOQUORUM ") && lines[0].ends_with("not multicast"), "{heard}");
    assert!(lines[1].starts_with("NOQUORUM ") && lines[1].ends_with("nothing was read"), "{heard}");
    // From now on at once.
    assert!(cluster.ask(0, 1, "SET a 1\n").starts_with("NOQUORUM "));
    // A snapshot needs nobody else.
    cluster.say(0, 1, b"SAVE\n");
    cluster.pass(100);
    assert_eq!(cluster.hear(0, 1), "OK\n");
    assert!(cluster.ask(0, 1, "GET a\n").starts_with("NOQUORUM "));
    // A stale read is still to be had.
    assert_eq!(cluster.ask(0, 1, "CONSISTENCY local\nGET a\nCONSISTENCY\n"), "OK\nNot Found\nlocal\n");
    cluster.cut = NodeSet::EMPTY;
    cluster.pass(2_000);
    assert_eq!(cluster.ask(0, 1, "READWRITE\nSET a 2\nGET a\n"), "OK\nOK\n2\n");
}

#[test]
fn a_read_does_not_rely_on_a_write_that_was_refused() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    cluster.open(1, 1);
    cluster.cut = NodeSet::only(id(0));
    cluster.pass(SUSPICION + 50);
    cluster.say(0, 1, b"SET a 1\n");
    cluster.pass(2 * SUSPICION + 50);
    assert!(cluster.hear(0, 1).starts_with("NOQUORUM "));
    cluster.cut = NodeSet::EMPTY;
    cluster.pass(2_000);
    // Not noticed yet that nobody can be reached: what another node does now must not be missed.
    cluster.cut = NodeSet::only(id(0));
    assert_eq!(cluster.ask(0, 1, "GET a\n"), "");
    cluster.say(1, 1, b"SET a 2\n");
    cluster.pass(2 * SUSPICION);
    assert_eq!(cluster.hear(1, 1), "OK\n");
    cluster.cut = NodeSet::EMPTY;
    cluster.pass(2_000);
    let heard = cluster.hear(0, 1);
    assert!(heard == "2\n" || heard.starts_with("NOQUORUM "), "{heard}");
}

/// It may be founded in a moment; after so long it is not said to be any more.
#[test]
fn save_waits_for_the_cluster_to_be_founded_but_not_for_ever() {
    for is_founded in [false, true] {
        let mut cluster = Cluster::unfounded(3);
        cluster.open(0, 1);
        cluster.say(0, 1, b"SAVE\nPING\n");
        cluster.run();
        assert_eq!(cluster.hear(0, 1), "");
        let due = cluster.hosts[0].node.deadline().expect("somebody waits");
        assert!(due <= cluster.now.mono.plus(Millis(2 * SUSPICION)), "{due:?}");
        if is_founded {
            cluster.greet_all();
        }
        cluster.pass(2 * SUSPICION + 50);
        let heard = cluster.hear(0, 1);
        match heard.strip_suffix("PONG\n") {
            Some(saved) if is_founded => assert_eq!(saved, "OK\n"),
            Some(refused) => {
                assert!(refused.starts_with("LOADING the cluster is not founded yet"), "{refused}")
            }
            None => panic!("{heard:?}"),
        }
        let refused = cluster.hosts[0].node.backend.stats.refused;
        assert_eq!(refused, u64::from(!is_founded));
    }
}

#[test]
fn a_cluster_that_is_not_founded_says_whom_it_waits_for() {
    let mut cluster = Cluster::unfounded(3);
    cluster.open(0, 1);
    cluster.pass(2 * SUSPICION + 50);
    let heard = cluster.ask(0, 1, "SET a 1\n");
    assert!(heard.starts_with("LOADING the cluster is not founded yet, it waits for nodes {1,2}"), "{heard}");
    assert_eq!(cluster.ask(0, 1, "PING\n"), "PONG\n");
    for command in ["SAVE\n", "SNAPSHOT BEGIN\n"] {
        let heard = cluster.ask(0, 1, command);
        assert!(heard.starts_with("LOADING ") && heard.ends_with("; no snapshot was taken\n"), "{heard}");
    }
    assert_eq!(cluster.ask(0, 1, "BGSAVE\n"), "Background saving started\n");
    cluster.greet_all();
    cluster.pass(100);
    assert_eq!(cluster.ask(0, 1, "SET a 1\n"), "OK\n");
}

#[test]
fn a_session_command_does_not_overtake_a_refused_one() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    let WireReply::Integer(session) = cluster.request(0, 1, None, &["SESSION", "OPEN"]) else { panic!() };
    let session = SessionId(u64::try_from(session).unwrap());
    let place = |seq| Some(SessionSeq { session, seq, acked: 0 });
    let ok = WireReply::Status("OK".into());
    let refused = |reply| matches!(reply, WireReply::Error(text) if text.starts_with("NOQUORUM "));
    assert_eq!(cluster.request(0, 1, place(1), &["SET", "a", "1"]), ok);
    cluster.cut = NodeSet::only(id(0));
    cluster.pass(4 * SUSPICION);
    assert!(refused(cluster.request(0, 1, place(2), &["SET", "a", "2"])));
    cluster.cut = NodeSet::EMPTY;
    cluster.pass(2_000);
    assert!(refused(cluster.request(0, 1, place(3), &["SET", "a", "3"])));
    assert_eq!(cluster.request(0, 1, None, &["SET", "b", "1"]), ok);
    assert_eq!(cluster.request(0, 1, place(2), &["SET", "a", "2"]), ok);
    assert_eq!(cluster.request(0, 1, place(3), &["SET", "a", "3"]), ok);
    // Repeated: answered from the table, applied once.
    assert_eq!(cluster.request(0, 1, place(2), &["SET", "a", "2"]), ok);
    assert_eq!(cluster.request(0, 1, None, &["GET", "a"]), WireReply::Bulk(b"3".to_vec()));
}

#[test]
fn what_is_not_delivered_in_time_is_answered_timeout_once() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    assert_eq!(cluster.ask(0, 1, "SET a 1\n"), "OK\n");
    cluster.hosts[0].disk_held = true;
    assert_eq!(cluster.ask(0, 1, "INCR a\nGET a\nPING\n"), "");
    cluster.pass(CLIENT_TIMEOUT + 10);
    let heard = cluster.hear(0, 1);
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines.len(), 3, "{heard}");
    assert_eq!(lines[..], [TIMEOUT, READ_TIMEOUT, "PONG"]);
    assert_eq!(cluster.ask(0, 1, "INCR a\n"), "");
    cluster.hosts[0].disk_held = false;
    cluster.run();
    assert_eq!(cluster.hear(0, 1), "3\n", "the first one was applied, and its reply was thrown away");
}

#[test]
fn when_the_window_is_full_clients_wait_and_are_told_busy_in_the_end() {
    let mut cluster = Cluster::configured(1, "set window 64KiB\nset client-timeout 1s\n");
    cluster.pass(100);
    cluster.open(0, 1);
    cluster.open(0, 2);
    let value = "v".repeat(60_000);
    cluster.hosts[0].disk_held = true;
    cluster.say(0, 1, format!("SET a {value}\nSET b {value}\n").as_bytes());
    cluster.run();
    assert!(!cluster.hosts[0].node.takes_commands());
    assert_eq!(cluster.ask(0, 2, "PING\n"), "", "its bytes are not even looked at");
    cluster.hosts[0].disk_held = false;
    cluster.run();
    assert_eq!(cluster.hear(0, 1), "OK\nOK\n");
    assert_eq!(cluster.hear(0, 2), "PONG\n");
    // It cannot be for ever.
    cluster.hosts[0].disk_held = true;
    cluster.say(0, 1, format!("SET a {value}\nSET b {value}\n").as_bytes());
    cluster.run();
    cluster.say(0, 2, b"SET c 1\nGET c\n");
    cluster.pass(1_100);
    assert!(cluster.hear(0, 1).starts_with("TIMEOUT "));
    let busy = "BUSY too many commands wait for delivery";
    assert_eq!(
        cluster.hear(0, 2),
        format!("{busy}; the command was not multicast\n{busy}; nothing was read\n")
    );
    cluster.hosts[0].disk_held = false;
    cluster.run();
    assert_eq!(cluster.ask(0, 2, "GET c\nSET c 2\nGET c\n"), "Not Found\nOK\n2\n");
}

#[test]
fn after_the_end_of_input_all_replies_come_and_then_the_end() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    cluster.hosts[0].disk_held = true;
    cluster.say(0, 1, b"SET a 1\nGET a\nGET a");
    cluster.hosts[0].node.client_eof(cluster.now, key(1));
    cluster.run();
    assert_eq!(cluster.hosts[0].closed, []);
    cluster.hosts[0].disk_held = false;
    cluster.run();
    assert_eq!(cluster.hosts[0].closed, [], "not before the output is sent");
    assert_eq!(cluster.hear(0, 1), "OK\n1\n");
    cluster.run();
    assert_eq!(cluster.hosts[0].closed, [key(1)]);
}

#[test]
fn nothing_after_quit_or_a_protocol_error_is_carried_out() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    assert_eq!(cluster.ask(0, 1, "SET a 1\nQUIT\nSET a 2\n"), "OK\nOK\n");
    cluster.open(0, 2);
    let heard = cluster.ask(0, 2, "GET a\r\n*1\r\n!\r\nSET a 3\r\n");
    assert_eq!(heard, "$1\r\n1\r\n-ERR Protocol error: expected '$', got '!'\r\n");
    cluster.run();
    assert_eq!(cluster.hosts[0].closed, [key(1), key(2)]);
    cluster.open(0, 3);
    assert_eq!(cluster.ask(0, 3, "GET a\n"), "1\n");
}

#[test]
fn hello_switches_all_later_replies_of_the_segment() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    let heard = cluster.ask(0, 1, "GET a\r\nHELLO 3\r\nGET a\r\nHELLO 4\r\nRESET\r\nGET a\r\n");
    let (before, after) = heard.split_once("%7\r\n").expect("a map");
    assert_eq!(before, "$-1\r\n");
    let end = "*0\r\n_\r\n-NOPROTO unsupported protocol version\r\n+RESET\r\n$-1\r\n";
    assert!(after.ends_with(end), "{after}");
}

#[test]
fn a_long_pipeline_is_taken_in_portions_and_answered_completely() {
    let mut cluster = Cluster::new(3);
    cluster.open(1, 1);
    cluster.hosts.iter_mut().for_each(|host| host.disk_held = true);
    let (mut sent, mut expected) = (String::new(), String::new());
    for i in 0..5_000 {
        sent.push_str(&format!("SET k {i}\nGET k\n"));
        expected.push_str(&format!("OK\n{i}\n"));
    }
    for piece in sent.as_bytes().chunks(10_000) {
        cluster.say(1, 1, piece);
    }
    cluster.run();
    let client = cluster.hosts[1].node.clients.get(key(1)).expect("open");
    assert!(client.queue.unanswered() <= queue::UNANSWERED_MAX);
    assert!(!cluster.hosts[1].node.wants_read(key(1)));
    cluster.hosts.iter_mut().for_each(|host| host.disk_held = false);
    let mut heard = String::new();
    for _ in 0..200 {
        cluster.run();
        heard.push_str(&cluster.hear(1, 1));
    }
    assert!(heard == expected, "{} of {} bytes", heard.len(), expected.len());
    assert!(cluster.hosts[1].node.wants_read(key(1)));
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_output_and_is_cut_in_the_end() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    cluster.open(0, 2);
    let value = "v".repeat(100_000);
    assert_eq!(
        cluster.ask(0, 1, &format!("SET big {value}\n")),
        "-ERR Protocol error: too big inline request\r\n"
    );
    cluster.open(0, 3);
    let set = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n{value}\r\n", value.len());
    assert_eq!(cluster.ask(0, 3, &set), "+OK\r\n");
    cluster.say(0, 3, "GET big\n".repeat(3_000).as_bytes());
    cluster.run();
    let unsent = cluster.hosts[0].node.client_output(key(3)).len();
    assert!(unsent < queue::OUTPUT_LEN_SOFT + value.len() + 100, "{unsent}");
    assert_eq!(cluster.ask(0, 2, "PING\n"), "PONG\n");
    cluster.pass(OUTPUT_PATIENCE.0 + SWEEP_EVERY.0 + 10);
    assert_eq!(cluster.hosts[0].closed, [key(1), key(3)]);
    assert_eq!(cluster.ask(0, 2, "PING\n"), "PONG\n");
}

#[test]
fn a_command_that_is_never_finished_is_cut() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    cluster.open(0, 2);
    for i in 0..40 {
        // One byte a second does not help; whole commands do.
        cluster.say(0, 1, b"x");
        assert_eq!(cluster.ask(0, 2, "PING\nPI"), "PONG\n", "{i}");
        assert_eq!(cluster.ask(0, 2, "NG\n"), "PONG\n", "{i}");
        cluster.pass(1_000);
    }
    assert_eq!(cluster.hosts[0].closed, [key(1)]);
}

#[test]
fn a_reply_does_not_reach_the_next_client_in_the_same_place() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    cluster.hosts[0].disk_held = true;
    assert_eq!(cluster.ask(0, 1, "SET a 1\nGET a\n"), "");
    cluster.hosts[0].node.client_gone(key(1));
    let next = ClientKey { index: 1, generation: 2 };
    cluster.hosts[0].node.client_open(cluster.now, next);
    cluster.hosts[0].disk_held = false;
    cluster.run();
    assert_eq!(cluster.hosts[0].node.client_output(next), b"");
    cluster.hosts[0].node.client_bytes(cluster.now, next, b"GET a\n");
    cluster.run();
    assert_eq!(cluster.hosts[0].node.client_output(next), b"1\n", "it was applied all the same");
}

#[test]
fn any_pieces_and_any_moments_give_the_same_replies() {
    let script = "SET a 1\nGET a\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nINCR a\nCONSISTENCY ordered\nGET a\nINCR a\n\
                  CONSISTENCY local\nGET a\nDEL a\nGET a\nREADWRITE\nGET a\nMSET a 1 b 2\nMGET a b c\n";
    let expected = "OK\n$1\r\n1\r\n$1\r\n1\r\n2\nOK\n2\n3\nOK\n3\n1\nNot Found\nOK\nNot Found\nOK\n\
                    1) 1\n2) 2\n3) Not Found\n";
    let mut random = 1u64;
    for _ in 0..200 {
        let mut cluster = Cluster::new(1);
        cluster.open(0, 1);
        let mut rest = script.as_bytes();
        let mut heard = String::new();
        while !rest.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = ((random >> 33) as usize % 40 + 1).min(rest.len());
            cluster.say(0, 1, &rest[..len]);
            rest = &rest[len..];
            cluster.hosts[0].disk_held = random >> 62 == 0;
            match random >> 60 & 3 {
                0 => {}
                1 => cluster.turn(0),
                _ => cluster.run(),
            }
            heard.push_str(&cluster.hear(0, 1));
        }
        cluster.hosts[0].disk_held = false;
        cluster.run();
        heard.push_str(&cluster.hear(0, 1));
        assert_eq!(heard, expected);
    }
}

#[test]
fn index_and_digest_agree_on_all_nodes() {
    let mut cluster = Cluster::new(3);
    for index in 0..3 {
        cluster.open(index, 1);
    }
    for i in 0..100 {
        cluster.say(i % 3, 1, format!("SET k{} {i}\nINCR n\n", i % 7).as_bytes());
    }
    cluster.run();
    let told: Vec<String> = (0..3)
        .map(|index| {
            cluster.hear(index, 1);
            cluster.ask(index, 1, "DEBUG DIGEST\n")
        })
        .collect();
    assert!(told[0].starts_with("200 "), "{told:?}");
    assert!(told[1..].iter().all(|t| *t == told[0]), "{told:?}");
    let info = cluster.ask(0, 1, "INFO lanes\n");
    assert!(info.starts_with("# Lanes\r\n") && info.contains("\r\nsenders:0,1,2\r\n"), "{info}");
    assert!(!info.contains("# Server"));
}
