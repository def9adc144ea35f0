//! Real nodes: processes on loopback, with their data in a directory, and a proxy in every link.
//!
//! All nodes have a `nodes.conf` of their own. They agree on who is there and where clients go, which is what nodes
//! compare when they meet, and differ in the option `peer`, which says where the others are reached: for
//! each node, its own proxies. A node's own listener for peers is known to its proxies only.
//!
//! The cluster knows which of its processes should be running. One that ends without being asked to, or in another
//! way than it was asked to, is a complaint.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ports::{BLOCK_LEN, PortBlock};
use super::proxy::{Mode, Proxy};

/// How long a node may take to leave when asked.
const LEAVE_MAX: Duration = Duration::from_secs(20);
/// What a node's log must not contain.
const ALARMS: [&str; 2] = ["panicked at", "assertion"];

/// The most nodes there are ports for.
pub const NODES_MAX: usize = (BLOCK_LEN / 2) as usize;

struct Process {
    child: Child,
    lines: Receiver<String>,
    started: Instant,
    ready: bool,
    paused: bool,
    /// When it was asked to end.
    leaving: Option<Instant>,
}

struct Node {
    conf: PathBuf,
    data: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
    /// To be started when the process that is leaving has left.
    start_next: bool,
    starts: u64,
}

/// Something that a look at the processes found.
#[derive(Debug)]
pub(crate) enum Event {
    /// The node says that it serves; so long after it was started.
    Ready(usize, Duration),
    /// It has ended as it was asked to.
    Left(usize),
    /// It did something that it must not.
    Complaint(String),
}

/// A cluster of processes.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    /// `proxies[a][b]`: what node `a` dials to reach node `b`; `None` on the diagonal.
    proxies: Vec<Vec<Option<Proxy>>>,
    kvnode: PathBuf,
    _ports: PortBlock,
}

impl Cluster {
    /// Writes the configuration files into the directory and starts the proxies; no node yet.
    pub(crate) fn prepare(
        dir: &Path,
        kvnode: &Path,
        count: usize,
        client_timeout: Duration,
    ) -> io::Result<Cluster> {
        let ports = PortBlock::take()?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut proxies = Vec::new();
        for from in 0..count {
            let mut row = Vec::new();
            for to in 0..count {
                let peer = at(ports.port(count + to));
                row.push((from != to).then(|| Proxy::start(at(0), peer)).transpose()?);
            }
            proxies.push(row);
        }
        let mut nodes = Vec::new();
        for (id, row) in proxies.iter().enumerate() {
            let mut text = String::new();
            for (other, proxy) in row.iter().enumerate() {
                let own = at(ports.port(count + other));
                let peer = proxy.as_ref().map_or(own, Proxy::address);
                text.push_str(&format!("{other} {} peer={peer}\n", at(ports.port(other))));
            }
            text.push_str(&format!("set client-timeout {}ms\n", client_timeout.as_millis()));
            let conf = dir.join(format!("nodes-{id}.conf"));
            fs::write(&conf, text)?;
            nodes.push(Node {
                conf,
                data: dir.join(format!("node-{id}")),
                log: dir.join(format!("node-{id}.log")),
                address: at(ports.port(id)),
                process: None,
                start_next: false,
                starts: 0,
            });
        }
        Ok(Cluster { nodes, proxies, kvnode: kvnode.to_owned(), _ports: ports })
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients reach the nodes.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    pub(crate) fn proxy(&self, from: usize, to: usize) -> &Proxy {
        self.proxies[from][to].as_ref().expect("a link has two ends")
    }

    /// All proxies, with the nodes they are between.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = (usize, usize, &Proxy)> {
        let proxies = self.proxies.iter().flatten().enumerate();
        let nodes = self.len();
        proxies.filter_map(move |(at, proxy)| proxy.as_ref().map(|proxy| (at / nodes, at % nodes, proxy)))
    }

    /// How often processes were started.
    pub(crate) fn starts(&self) -> u64 {
        self.nodes.iter().map(|node| node.starts).sum()
    }

    /// Whether the node's process is there and neither paused nor leaving.
    pub(crate) fn is_up(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.is_some_and(|process| !process.paused && process.leaving.is_none())
    }

    /// Whether every node serves.
    pub(crate) fn all_ready(&self) -> bool {
        let ready = |node: &Node| node.process.as_ref().is_some_and(|process| process.ready);
        (0..self.len()).all(|node| self.is_up(node)) && self.nodes.iter().all(ready)
    }

    /// Whether no node runs.
    pub(crate) fn all_gone(&self) -> bool {
        self.nodes.iter().all(|node| node.process.is_none())
    }

    /// Starts a node that does not run, or as soon as it has left.
    pub(crate) fn start(&mut self, id: usize) -> io::Result<()> {
        let kvnode = self.kvnode.clone();
        let node = &mut self.nodes[id];
        if let Some(process) = &node.process {
            node.start_next = process.leaving.is_some();
            return Ok(());
        }
        node.start_next = false;
        let log = File::options().create(true).append(true).open(&node.log)?;
        let mut command = Command::new(kvnode);
        command.arg(id.to_string()).arg(&node.conf).arg("--data-dir").arg(&node.data);
        command.env("RUST_BACKTRACE", "1");
        // Ctrl-C ends the storm, not the nodes.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn()?;
        let (send, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let started = Instant::now();
        node.starts += 1;
        node.process = Some(Process { child, lines, started, ready: false, paused: false, leaving: None });
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        node.start_next = false;
        if let Some(mut process) = node.process.take() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    /// SIGTERM.
    pub(crate) fn term(&mut self, id: usize) {
        if let Some(process) = &mut self.nodes[id].process {
            process.leaving = Some(Instant::now());
            process.signal(Signal::TERM);
        }
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, id: usize) {
        if let Some(process) = &mut self.nodes[id].process {
            process.paused = true;
            process.signal(Signal::STOP);
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, id: usize) {
        if let Some(process) = &mut self.nodes[id].process {
            process.paused = false;
            process.signal(Signal::CONT);
        }
    }

    /// Sees to it that every process runs and every link is open.
    pub(crate) fn heal(&mut self) -> io::Result<()> {
        for (_, _, proxy) in self.proxies() {
            proxy.set(Mode::Open);
        }
        (0..self.len()).try_for_each(|node| {
            self.resume(node);
            self.start(node)
        })
    }

    /// Looks what the processes have been doing.
    pub(crate) fn look(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        for id in 0..self.len() {
            let node = &mut self.nodes[id];
            let Some(process) = &mut node.process else { continue };
            for line in process.lines.try_iter() {
                if line.starts_with(&format!("ready node={id} ")) && !process.ready {
                    process.ready = true;
                    events.push(Event::Ready(id, process.started.elapsed()));
                } else {
                    events.push(Event::Complaint(format!("node {id} printed {line:?}")));
                }
            }
            let status = process.child.try_wait()?;
            let late = process.leaving.is_some_and(|since| since.elapsed() > LEAVE_MAX);
            let asked = process.leaving.is_some();
            match status {
                None if late => {
                    events.push(Event::Complaint(format!("node {id} did not leave within {LEAVE_MAX:?}")));
                    let _ = process.child.kill();
                    let _ = process.child.wait();
                }
                None => continue,
                Some(status) if asked && status.success() => events.push(Event::Left(id)),
                Some(status) => events.push(Event::Complaint(ended(id, status, &node.log))),
            }
            // One that ended by itself would only do so again.
            let again = node.start_next;
            node.process = None;
            if again {
                self.start(id)?;
            }
        }
        Ok(events)
    }

    /// What the logs have that no log should.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let mut alarms = Vec::new();
        for (id, node) in self.nodes.iter().enumerate() {
            let bytes = fs::read(&node.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let found = text.lines().filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)));
            alarms.extend(found.take(5).map(|line| format!("log of node {id}: {line}")));
        }
        alarms
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL as well.
        for node in 0..self.len() {
            self.kill(node);
        }
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        // It may have ended by itself; then the next look finds out.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

/// That a node has ended and should not have, with its last words.
fn ended(id: usize, status: ExitStatus, log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(8)..].join("\n    ");
    format!("node {id} ended by itself, {status}; its last words:\n    {last}")
}
