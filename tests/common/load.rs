//! Writers that go on through crashes and remember what was acknowledged, and when.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Cluster, Resp, RespClient};

/// Which nodes the test has taken down. Odd: down. A writer forgives errors only if the number of its node
/// changed while its command was under way.
struct Board {
    numbers: Mutex<Vec<u64>>,
    changed: Condvar,
    stopped: AtomicBool,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.numbers.lock().expect("no thread panics with it")
    }

    fn number(&self, node: usize) -> u64 {
        self.lock()[node]
    }

    /// Waits until the node is up and returns its number; `None` when the load is being stopped.
    fn wait_up(&self, node: usize) -> Option<u64> {
        let mut numbers = self.lock();
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return None;
            }
            if numbers[node].is_multiple_of(2) {
                return Some(numbers[node]);
            }
            numbers = self.changed.wait(numbers).expect("no thread panics with it");
        }
    }
}

/// Clients that write without a pause, spread over the nodes of a cluster.
pub(crate) struct Load {
    board: Arc<Board>,
    writers: Vec<JoinHandle<Written>>,
    nodes: usize,
}

/// What one writer did.
struct Written {
    writer: usize,
    node: usize,
    acknowledged: Vec<u64>,
    completed: Vec<Instant>,
    complaints: Vec<String>,
    unanswered: usize,
}

/// What all writers together did.
pub(crate) struct Outcome {
    /// The keys whose SET was answered with OK.
    pub(crate) acknowledged: Vec<String>,
    /// Per node, when a write was completed there, in order.
    pub(crate) completed: Vec<Vec<Instant>>,
    /// Errors at nodes that were up all the time.
    pub(crate) complaints: Vec<String>,
    /// Writes at killed nodes of which nobody knows.
    pub(crate) unanswered: usize,
}

fn key_of(writer: usize, seq: u64) -> String {
    format!("w{writer}:{seq}")
}

fn value_of(key: &str) -> String {
    format!("value of {key}")
}

impl Load {
    /// Starts so many writers; writer `i` writes at node `i` modulo the number of nodes. Nodes that do not run
    /// count as down.
    pub(crate) fn start(cluster: &Cluster, writers: usize) -> Load {
        Self::start_named(cluster, 0, writers)
    }

    /// The same with writers numbered from `first` on, so that their keys are new.
    pub(crate) fn start_named(cluster: &Cluster, first: usize, writers: usize) -> Load {
        let nodes = cluster.len();
        let board = Arc::new(Board {
            numbers: Mutex::new((0..nodes).map(|node| u64::from(!cluster.is_started(node))).collect()),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let writers = (first..first + writers)
            .map(|writer| {
                let node = writer % nodes;
                let address = cluster.address(node).to_owned();
                let board = Arc::clone(&board);
                std::thread::spawn(move || write_until_stopped(writer, node, &address, &board))
            })
            .collect();
        Load { board, writers, nodes }
    }

    /// To be called before a node is taken down.
    pub(crate) fn goes_down(&self, node: usize) {
        let mut numbers = self.board.lock();
        assert!(numbers[node].is_multiple_of(2), "node {node} is down already");
        numbers[node] += 1;
    }

    /// To be called when a node serves again.
    pub(crate) fn is_back(&self, node: usize) {
        let mut numbers = self.board.lock();
        assert!(!numbers[node].is_multiple_of(2), "node {node} is up already");
        numbers[node] += 1;
        self.board.changed.notify_all();
    }

    /// Lets every writer finish its command, then gathers what they did.
    pub(crate) fn stop(self) -> Outcome {
        {
            let _numbers = self.board.lock();
            self.board.stopped.store(true, Ordering::SeqCst);
            self.board.changed.notify_all();
        }
        let mut outcome = Outcome {
            acknowledged: Vec::new(),
            completed: vec![Vec::new(); self.nodes],
            complaints: Vec::new(),
            unanswered: 0,
        };
        for writer in self.writers {
            let written = writer.join().expect("writers do not panic");
            let keys = written.acknowledged.iter().map(|seq| key_of(written.writer, *seq));
            outcome.acknowledged.extend(keys);
            outcome.completed[written.node].extend(written.completed);
            outcome.complaints.extend(written.complaints);
            outcome.unanswered += written.unanswered;
        }
        for completed in &mut outcome.completed {
            completed.sort();
        }
        outcome
    }
}

fn write_until_stopped(writer: usize, node: usize, address: &str, board: &Board) -> Written {
    let mut written = Written {
        writer,
        node,
        acknowledged: Vec::new(),
        completed: Vec::new(),
        complaints: Vec::new(),
        unanswered: 0,
    };
    let mut seq = 0;
    while let Some(number) = board.wait_up(node) {
        let mut forgive = |what: &dyn fmt::Display| {
            if board.number(node) == number {
                written.complaints.push(format!("writer {writer} at node {node}: {what}"));
                // Not to fill the memory with the same complaint.
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        let mut client = match RespClient::try_connect(address) {
            Ok(client) => client,
            Err(error) => {
                forgive(&error);
                continue;
            }
        };
        while !board.stopped.load(Ordering::SeqCst) {
            let key = key_of(writer, seq);
            let reply = client.try_ask(&["SET", &key, &value_of(&key)]);
            if reply.as_ref().is_ok_and(|reply| *reply == Resp::ok()) {
                written.acknowledged.push(seq);
                written.completed.push(Instant::now());
                seq += 1;
                continue;
            }
            seq += 1;
            written.unanswered += 1;
            match reply {
                Ok(reply) => forgive(&format!("{reply:?}")),
                Err(error) => forgive(&error),
            }
            break;
        }
    }
    written
}

impl Outcome {
    /// Asserts that these nodes have every acknowledged write.
    pub(crate) fn assert_kept(&self, cluster: &Cluster, nodes: &[usize]) {
        for node in nodes {
            let mut client = cluster.resp(*node);
            for keys in self.acknowledged.chunks(500) {
                let mut arguments = vec!["MGET".to_owned()];
                arguments.extend_from_slice(keys);
                let Resp::Array(values) = client.ask(&arguments) else { panic!("MGET answers an array") };
                assert_eq!(values.len(), keys.len());
                for (key, value) in keys.iter().zip(values) {
                    let wanted = Resp::bulk(value_of(key));
                    assert_eq!(value, wanted, "acknowledged write of {key} is lost at node {node}");
                }
            }
        }
    }

    /// Asserts that no client of a node that was up saw an error.
    pub(crate) fn assert_no_complaints(&self) {
        let some = &self.complaints[..self.complaints.len().min(20)];
        assert!(some.is_empty(), "{} errors at nodes that were up, such as {some:#?}", self.complaints.len());
    }

    /// The longest time without a completed write at one of these nodes that touches this span.
    pub(crate) fn longest_gap(&self, nodes: &[usize], from: Instant, to: Instant) -> Duration {
        nodes.iter().map(|node| longest_gap(&self.completed[*node], from, to)).max().unwrap_or_default()
    }
}

/// The longest time between two neighbouring instants that touches the span; instants in order.
pub(crate) fn longest_gap(instants: &[Instant], from: Instant, to: Instant) -> Duration {
    // Before the first and after the last there is no write to measure from: the span's own ends count.
    let first = instants.partition_point(|instant| *instant < from);
    let mut last = if first > 0 { instants[first - 1] } else { from };
    let mut longest = Duration::ZERO;
    for instant in &instants[first..] {
        longest = longest.max(*instant - last);
        last = *instant;
        if last >= to {
            return longest;
        }
    }
    longest.max(to.saturating_duration_since(last))
}

/// The middle one; of an even number the upper of the two in the middle.
pub(crate) fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
