//! Whole nodes without sockets and disks: from the bytes of clients to the bytes of replies.
//!
//! One iteration is a round of commands, so many at each node, until all replies are there: decoding, the batch, the
//! core, records and checksums of the log's group, the store, replies. What one node sends the others receive at
//! once; what it writes is durable at once. All nodes run in one thread: the figure for three nodes is what one core
//! needs for the work of all three. The difference to `multicast` is what the rest of a node costs, that to
//! `curves` what the kernel does.

mod common;

use criterion::{BenchmarkId, Criterion, Throughput};
use lanekv::config::Config;
use lanekv::node::{ClientKey, Effects, Node, NodeInput, Replay, Settings};
use lanekv::protocol::{Identity, Message};
use lanekv::storage::RecordGroup;
use lanekv::types::{DiskId, Lsn, Millis, NodeId, Now};

use common::node;

/// Commands at each node in a round, and over how many connections.
const ROUNDS: [(usize, usize); 3] = [(1, 1), (16, 16), (256, 64)];
const KEY_COUNT: usize = 10_000;
const VALUE_LEN: usize = 64;
/// Keys that are written in a round beforehand.
const FILL_COUNT: usize = 500;

struct Host {
    node: Node,
    effects: Effects,
    durable: Lsn,
    /// Bytes of replies so far.
    replied: usize,
}

struct Cluster {
    now: Now,
    hosts: Vec<Host>,
    messages: Vec<(usize, NodeId, Message)>,
}

fn main() {
    let mut criterion = common::criterion();
    for (name, is_read) in [("set", false), ("get", true)] {
        for nodes in [1, 3, 5] {
            measure(&mut criterion, name, is_read, nodes);
        }
    }
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, name: &str, is_read: bool, nodes: usize) {
    let words = if nodes == 1 { "1-node".to_owned() } else { format!("{nodes}-nodes") };
    let mut group = criterion.benchmark_group(format!("node/{name}-{words}"));
    for (commands, connections) in ROUNDS {
        group.throughput(Throughput::Elements((commands * nodes) as u64));
        group.bench_function(BenchmarkId::from_parameter(commands), |bencher| {
            let mut cluster = Cluster::founded(nodes, connections);
            let requests: Vec<Vec<u8>> = (0..KEY_COUNT).map(|number| request(is_read, number)).collect();
            // So that reads find something, and all replies have the length of the first.
            let writes: Vec<Vec<u8>> = (0..KEY_COUNT).map(|number| request(false, number)).collect();
            for writes in writes.chunks(FILL_COUNT) {
                cluster.round(writes, writes.len(), connections, Some(writes.len() * b"+OK\r\n".len()));
            }
            let mut number = 0;
            let reply_len = cluster.round(&requests[..1], 1, connections, None);
            bencher.iter(|| {
                number = (number + commands) % (KEY_COUNT - commands);
                let wanted = commands * reply_len;
                cluster.round(&requests[number..number + commands], commands, connections, Some(wanted))
            });
        });
    }
    group.finish();
}

fn request(is_read: bool, number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (key, value) = (common::key(number), common::value(VALUE_LEN));
    let words: &[&[u8]] = if is_read { &[b"GET", &key] } else { &[b"SET", &key, &value] };
    bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn client(connection: usize) -> ClientKey {
    ClientKey { index: u32::try_from(connection).expect("few"), generation: 1 }
}

impl Cluster {
    fn founded(count: usize, connections: usize) -> Cluster {
        let file: String = (0..count).map(|i| format!("{i} 127.0.0.1:{}\n", 7100 + i)).collect();
        let config = Config::parse("bench", &file).expect("a good configuration");
        let now = Now { mono: Millis(1_000), wall: Millis(1_700_000_000_000) };
        let host = |i: usize| {
            let settings = Settings::new(&config, node(i), 7).expect("a member");
            let mut replay = Replay::new(&settings.protocol);
            let mut group = RecordGroup::new();
            let incarnation = replay.begin(&mut group).expect("an empty log");
            let identity =
                Identity { disk: DiskId(100 + i as u64), incarnation, boot: 1 + i as u64, joining: false };
            let durable = group.last_lsn().expect("the record of the start");
            let node = Node::new(settings, identity, replay, 3, now);
            Host { node, effects: Effects::default(), durable, replied: 0 }
        };
        let hosts = (0..count).map(host).collect();
        let mut cluster = Cluster { now, hosts, messages: Vec::new() };
        for from in 0..count {
            for to in (0..count).filter(|&to| to != from) {
                let hello = cluster.hosts[from].node.hello(node(to));
                let host = &mut cluster.hosts[to].node;
                host.check_hello(&hello).expect("members know each other");
                host.handle(now, NodeInput::Greeted(Box::new(hello)));
                host.handle(now, NodeInput::LinkUp(node(from)));
            }
        }
        for _ in 0..10_000 {
            cluster.turns();
            cluster.now.mono = cluster.now.mono.plus(Millis(1));
            if cluster.hosts.iter().all(|host| host.node.report().serving && host.node.report().sender) {
                break;
            }
        }
        for host in &mut cluster.hosts {
            assert!(host.node.report().sender, "the cluster cannot be founded");
            for connection in 0..connections {
                host.node.client_open(now, client(connection));
            }
        }
        cluster
    }

    /// So many commands at each node, until each node has replied with so many bytes, or with anything; returns how
    /// many bytes node 0 has replied with.
    fn round(
        &mut self,
        requests: &[Vec<u8>],
        count: usize,
        connections: usize,
        wanted: Option<usize>,
    ) -> usize {
        for host in &mut self.hosts {
            host.replied = 0;
            for (number, request) in requests.iter().enumerate().take(count) {
                host.node.client_bytes(self.now, client(number % connections), request);
            }
        }
        for _ in 0..1_000 {
            self.turns();
            if self.hosts.iter().all(|host| host.replied >= wanted.unwrap_or(1)) {
                return self.hosts[0].replied;
            }
        }
        panic!("replies are missing");
    }

    /// A turn of every node, and what is sent and written in it.
    fn turns(&mut self) {
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.effects.clear();
            host.node.run_backlog(self.now);
            host.node.end_turn(self.now, &mut host.effects);
            assert_eq!(host.effects.halt, None);
            for (to, message) in host.effects.sends.drain(..) {
                self.messages.extend(to.iter().map(|to| (index, to, message.clone())));
            }
            for key in &host.effects.written {
                let len = host.node.client_output(*key).len();
                host.replied += len;
                host.node.client_sent(self.now, *key, len);
            }
            if let Some(last) = host.effects.records.last_lsn() {
                host.durable = last;
                host.node.handle(self.now, NodeInput::Persisted(last));
            }
        }
        for (from, to, message) in self.messages.drain(..) {
            self.hosts[to.index()].node.handle(self.now, NodeInput::Receive { from: node(from), message });
        }
    }
}
