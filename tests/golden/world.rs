//! A cluster of bare replicas on a table: every message, fsync and tick happens when a script says so.
//!
//! A link is a queue in one direction; whatever lies in it arrives when it is delivered, in any order the script
//! likes, since no rule depends on channels being FIFO. A disk is a list of records, of which so many are durable.
//! Everything that a replica puts out becomes a line.

mod forgery;
mod links;
mod snapshots;
mod text;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lanekv::protocol::{
    Delivery, Identity, Input, Intake, Message, OfferTicket, Output, ReadTicket, Record, Recovery, Replica,
    Settings, Verdict, decode_message, decode_record, encode_message, encode_record,
};
use lanekv::types::{DiskId, Incarnation, Index, Lsn, Millis, NodeId, Now};
use lanekv::wire::batch::BatchBuilder;
use lanekv::wire::split_frame;

use super::coverage::Coverage;
use snapshots::Snapshot;
use text::{first_word, report_line, words, words_of, written_out};

/// The suspicion time-out of every node, in milliseconds.
const SUSPICION_MS: u64 = 300;
/// The heartbeat of every node, in milliseconds.
const HEARTBEAT_MS: u64 = 50;
/// Time passes in steps of at least so many milliseconds.
const STEP_MS: u64 = 10;
/// Most bytes of delivered entries in memory, and most views, if the script does not say: more than any script has.
const PLENTY: usize = 1 << 30;
/// What the kinds of lines are called that a script sees only if it asks for them.
const QUIET_KINDS: [&str; 6] = ["time", "status", "heard", "lost", "read-probe", "read-answer"];

/// The words that say why a command cannot be carried out.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// One direction between two nodes.
#[derive(Debug, Default)]
struct Link {
    up: bool,
    held: bool,
    /// The kinds of messages that are lost in it.
    blocked: BTreeSet<String>,
    queue: VecDeque<Message>,
}

/// How much a node keeps of what it has delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// `Settings::history_len`.
    pub(crate) history_len: usize,
    /// `Settings::pinned_history_len`.
    pub(crate) pinned_history_len: usize,
    /// `Settings::views_kept`.
    pub(crate) views_kept: usize,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { history_len: PLENTY, pinned_history_len: PLENTY, views_kept: PLENTY }
    }
}

#[derive(Debug)]
struct Host {
    disk: DiskId,
    records: Vec<Record>,
    durable: usize,
    /// Those on its disk, the newest first.
    snapshots: Vec<Snapshot>,
    /// The script says when an fsync is done.
    manual: bool,
    replica: Option<Replica>,
    paused: bool,
    boot: u64,
    /// Its disk was made to take the place of another.
    joining: bool,
    tickets: u64,
    /// What was delivered, as far as it counts: by the snapshot that a start went on from, and since.
    applied: Vec<String>,
}

impl Host {
    /// Nothing runs, and nothing is on its disk.
    fn empty(disk: DiskId, manual: bool) -> Host {
        Host {
            disk,
            records: Vec::new(),
            durable: 0,
            snapshots: Vec::new(),
            manual,
            replica: None,
            paused: false,
            boot: 0,
            joining: false,
            tickets: 0,
            applied: Vec::new(),
        }
    }
}

/// The cluster and the lines it has produced.
#[derive(Debug)]
pub(crate) struct World {
    now: u64,
    hosts: Vec<Host>,
    /// Other processes and disks of these nodes, which stand still and are not connected.
    aside: BTreeMap<usize, Host>,
    links: BTreeMap<(usize, usize), Link>,
    hidden: BTreeSet<String>,
    lines: Vec<String>,
    boots: u64,
    /// What came up, but for the marks of the processes that still run.
    coverage: Coverage,
    /// A restarted node takes for durable what it only read back: the mistake that rule D forbids, which is made
    /// below the core.
    read_back_is_durable: bool,
    memory: Memory,
}

impl World {
    /// So many nodes with empty disks, none of them running.
    pub(crate) fn new(count: usize, manual: bool, read_back_is_durable: bool, memory: Memory) -> World {
        let host = |node| Host::empty(DiskId(0xd150 + node as u64), manual);
        World {
            now: 1_000,
            hosts: (0..count).map(host).collect(),
            aside: BTreeMap::new(),
            links: BTreeMap::new(),
            hidden: QUIET_KINDS.iter().map(|kind| (*kind).to_owned()).collect(),
            lines: Vec::new(),
            boots: 0,
            coverage: Coverage::default(),
            read_back_is_durable,
            memory,
        }
    }

    /// The lines since the last call; a broken promise is one, whatever the script claims.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.extend(self.disagreement());
        lines
    }

    /// What came up so far.
    pub(crate) fn coverage(&self) -> Coverage {
        let mut coverage = self.coverage.clone();
        self.hosts.iter().filter_map(|host| host.replica.as_ref()).for_each(|r| coverage.marks(r.marks()));
        coverage
    }

    /// Everybody delivers from the first entry or a snapshot on, so of two nodes one has a prefix of the other.
    fn disagreement(&self) -> Option<String> {
        let longest = self.running().into_iter().max_by_key(|node| self.hosts[*node].applied.len())?;
        let all = &self.hosts[longest].applied;
        let other = self.running().into_iter().find(|node| !all.starts_with(&self.hosts[*node].applied))?;
        Some(format!("AGREEMENT IS BROKEN between n{longest} and n{other}"))
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Makes lines of a kind visible or not.
    pub(crate) fn show(&mut self, kind: &str, visible: bool) {
        if visible {
            self.hidden.remove(kind);
        } else {
            self.hidden.insert(kind.to_owned());
        }
    }

    fn line(&mut self, kind: &str, text: String) {
        if self.hidden.contains(kind) {
            return;
        }
        let time = if self.hidden.contains("time") { String::new() } else { format!("{}ms ", self.now) };
        self.lines.push(time + &text);
    }

    fn id(node: usize) -> NodeId {
        NodeId::new(u8::try_from(node).expect("a handful of nodes")).expect("a handful of nodes")
    }

    fn clock(&self) -> Now {
        Now { mono: Millis(self.now), wall: Millis(1_000_000 + self.now) }
    }

    fn settings(&self, node: usize) -> Settings {
        Settings {
            me: Self::id(node),
            members: (0..self.hosts.len()).map(Self::id).collect(),
            member_hash: 1,
            suspicion: Millis(SUSPICION_MS),
            heartbeat: Millis(HEARTBEAT_MS),
            fill_len: 1 << 20,
            window: 1 << 20,
            history_len: self.memory.history_len,
            views_kept: self.memory.views_kept,
            pinned_history_len: self.memory.pinned_history_len,
            seed: 0x601d + node as u64,
        }
    }

    fn alive(&self, node: usize) -> bool {
        self.hosts[node].replica.is_some()
    }

    fn running(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|node| self.alive(*node)).collect()
    }

    // ---- processes and disks ----

    /// Starts a process from what its disk has, the newest snapshot and the log from where that says; nobody is
    /// connected to it yet.
    pub(crate) fn start(&mut self, node: usize) -> Outcome {
        if self.alive(node) {
            return Err(format!("n{node} is running"));
        }
        let settings = self.settings(node);
        self.boots += 1;
        let boot = self.boots;
        let now = self.clock();
        let host = &mut self.hosts[node];
        if !self.read_back_is_durable {
            host.durable = host.records.len();
        }
        let newest = host.snapshots.first();
        let mut recovery = newest.map_or_else(|| Recovery::new(&settings), |s| s.recovery(&settings));
        let read = host.records.iter().zip(1..).skip(newest.map_or(0, Snapshot::skipped));
        let read = read.map(|(record, lsn)| recovery.push(Lsn(lsn), record.clone()));
        if let Err(error) = read.collect::<Result<(), _>>() {
            self.line("starts", format!("n{node} does not start: {error}"));
            return Ok(());
        }
        let incarnation = Incarnation(recovery.last_incarnation().0 + 1);
        let start = Record::Start { incarnation };
        host.records.push(start.clone());
        if host.durable + 1 == host.records.len() {
            host.durable += 1;
        }
        recovery.push(Lsn(host.records.len() as u64), start).map_err(|error| error.to_string())?;
        host.boot = boot;
        host.tickets = 0;
        host.applied = newest.map(|s| s.applied.clone()).unwrap_or_default();
        let from = newest.map(Snapshot::origin).unwrap_or_default();
        host.paused = false;
        let identity = Identity { disk: host.disk, incarnation, boot, joining: host.joining };
        host.replica = Some(Replica::new(settings, identity, recovery, now));
        self.line("starts", format!("n{node} starts incarnation={incarnation}{from}"));
        self.turn(node, [Input::Tick]);
        Ok(())
    }

    /// Ends a process. Its unsynced records are lost unless `kept` (only the process died, not the machine); its
    /// peers notice unless `silent`.
    pub(crate) fn crash(&mut self, node: usize, kept: bool, silent: bool) -> Outcome {
        let Some(replica) = self.hosts[node].replica.take() else {
            return Err(format!("n{node} is not running"));
        };
        self.coverage.marks(replica.marks());
        let host = &mut self.hosts[node];
        if !kept {
            host.records.truncate(host.durable);
        }
        self.part(node, silent, false);
        Ok(())
    }

    /// Nothing comes from a node any more, but for what is on its way, if that is `kept`, and nothing reaches it; its
    /// peers notice unless `silent`.
    fn part(&mut self, node: usize, silent: bool, kept: bool) {
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            if kept {
                self.link(node, other).up = false;
            } else {
                self.links.remove(&(node, other));
            }
            if silent {
                self.link(other, node).queue.clear();
            } else {
                self.disconnect(other, node);
            }
        }
    }

    /// A node's process stands still, disk and all, and another one of the same number takes its place: the one that
    /// was put aside before, or one yet to be started, on an empty disk that is to be rebuilt. What it has sent still
    /// arrives if it is `kept`.
    pub(crate) fn swap(&mut self, node: usize, silent: bool, kept: bool) {
        self.part(node, silent, kept);
        let Host { disk, manual, .. } = self.hosts[node];
        let other = self
            .aside
            .remove(&node)
            .unwrap_or_else(|| Host { joining: true, ..Host::empty(DiskId(disk.0 + 0x1_0000), manual) });
        self.aside.insert(node, std::mem::replace(&mut self.hosts[node], other));
        // It finds its connections broken.
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.turn(node, [Input::LinkDown(Self::id(other))]);
        }
    }

    /// The disk is replaced by an empty one.
    pub(crate) fn wipe(&mut self, node: usize, joining: bool) -> Outcome {
        if self.alive(node) {
            return Err(format!("n{node} is running"));
        }
        let host = &mut self.hosts[node];
        host.disk = DiskId(host.disk.0 + 0x1_0000);
        host.joining = joining;
        host.records.clear();
        host.snapshots.clear();
        host.durable = 0;
        Ok(())
    }

    /// The last records of a log that were durable are lost all the same.
    pub(crate) fn damage(&mut self, node: usize, count: usize) -> Outcome {
        let host = &mut self.hosts[node];
        if host.replica.is_some() || count > host.records.len() {
            return Err(format!("n{node} is running or has fewer records"));
        }
        let len = host.records.len() - count;
        host.records.truncate(len);
        host.durable = len;
        Ok(())
    }

    /// Whether the script says when an fsync is done.
    pub(crate) fn set_manual(&mut self, node: usize, manual: bool) {
        self.hosts[node].manual = manual;
        if !manual {
            self.persist(node, usize::MAX);
        }
    }

    /// An fsync covers the next `count` records.
    pub(crate) fn persist(&mut self, node: usize, count: usize) {
        let host = &mut self.hosts[node];
        let len = host.records.len().min(host.durable.saturating_add(count));
        if host.replica.is_some() && len > host.durable {
            host.durable = len;
            self.turn(node, [Input::Persisted(Lsn(len as u64))]);
        }
    }

    // ---- turns ----

    /// One turn of a node's loop; on an automatic disk the fsync follows at once.
    fn turn(&mut self, node: usize, inputs: impl IntoIterator<Item = Input>) {
        self.turn_once(node, inputs);
        while !self.hosts[node].manual && self.hosts[node].durable < self.hosts[node].records.len() {
            let host = &mut self.hosts[node];
            if host.replica.is_none() {
                return;
            }
            host.durable = host.records.len();
            let lsn = Lsn(host.durable as u64);
            self.turn_once(node, [Input::Persisted(lsn)]);
        }
    }

    fn turn_once(&mut self, node: usize, inputs: impl IntoIterator<Item = Input>) {
        let now = self.clock();
        let Some(replica) = &mut self.hosts[node].replica else { return };
        let mut out = Vec::new();
        for input in inputs {
            if let Input::Receive { message, .. } = &input {
                self.coverage.message(message);
            }
            replica.handle(now, input, &mut out);
        }
        replica.end_turn(now, &mut out);
        for output in out {
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Persist { lsn, record } => {
                let mut payload = Vec::new();
                let kind = encode_record(&mut payload, &record);
                assert_eq!(
                    decode_record(kind, &payload).as_ref(),
                    Ok(&record),
                    "a record comes back as it was"
                );
                self.line(&first_word(&record), format!("n{node} persists {record}"));
                let host = &mut self.hosts[node];
                host.records.push(record);
                assert_eq!(lsn, Lsn(host.records.len() as u64), "log sequence numbers follow one another");
            }
            Output::Send { to, message } => {
                let mut bytes = Vec::new();
                encode_message(&mut bytes, &message);
                let (kind, payload, _) = split_frame(&bytes, usize::MAX).expect("a frame");
                assert_eq!(
                    decode_message(kind, payload).as_ref(),
                    Ok(&message),
                    "a message comes back as it was"
                );
                let kind = first_word(&message);
                let words = if self.hidden.contains(&kind) { String::new() } else { words_of(&message) };
                for to in to.iter() {
                    self.line(&kind, format!("n{node} -> {to} {message}{words}"));
                    let link = self.link(node, to.index());
                    if link.up && !link.blocked.contains(&kind) {
                        link.queue.push_back(message.clone());
                    }
                }
            }
            Output::Deliver(delivery) => self.note_delivery(node, &delivery),
            Output::ReadReady(ticket) => {
                let seen = self.hosts[node].applied.join(" ");
                self.line("answers", format!("n{node} answers read {} having applied [{seen}]", ticket.0));
            }
            Output::Behind { peer, .. } => {
                self.line("behind", format!("n{node} is behind: what it lacks is in a snapshot of {peer}"));
            }
            Output::Overtaken(ticket) => {
                self.line("overtaken", format!("n{node} has its offer {} overtaken", ticket.0));
            }
            Output::Note(note) => self.line(&first_word(&note), format!("n{node} note {note}")),
            Output::Halt(reason) => {
                self.line("halts", format!("n{node} halts: {reason}"));
                self.crash(node, true, false).expect("it was running");
            }
        }
    }

    fn note_delivery(&mut self, node: usize, delivery: &Delivery) {
        let words = words(&delivery.entry.batch);
        let verdict = match delivery.verdict {
            Verdict::Applied => format!("index={}", delivery.first),
            Verdict::Repeated => "repeated".to_owned(),
            Verdict::TooEarly => "too early".to_owned(),
        };
        let ticket = delivery.ticket.map(|t| format!(" (its offer {})", t.0)).unwrap_or_default();
        let at = delivery.entry.position();
        self.line("delivers", format!("n{node} delivers {at} {words} {verdict}{ticket}"));
        if delivery.first != Index(0) {
            self.hosts[node].applied.push(words);
        }
    }

    // ---- time and clients ----

    /// So many milliseconds pass at once; then every node looks at its clock.
    pub(crate) fn tick(&mut self, ms: u64) {
        self.now += ms;
        for node in 0..self.hosts.len() {
            if !self.hosts[node].paused {
                self.turn(node, [Input::Tick]);
            }
        }
    }

    /// Time passes and messages travel. Every node gets its turn when it wants one.
    pub(crate) fn run(&mut self, ms: u64) -> Outcome {
        let end = self.now + ms;
        while self.now < end {
            let awake = self.hosts.iter().filter(|host| !host.paused);
            let wanted = awake.filter_map(|host| host.replica.as_ref()?.deadline()).min();
            let next = wanted.map_or(end, |at| at.0.max(self.now + STEP_MS)).min(end);
            self.tick(next - self.now);
            self.deliver_all()?;
        }
        Ok(())
    }

    /// Founds the cluster without a word: every node starts, says hello to every other, and enters view 1.
    pub(crate) fn found(&mut self) -> Outcome {
        let manual: Vec<bool> = self.hosts.iter().map(|host| host.manual).collect();
        for node in 0..self.hosts.len() {
            self.hosts[node].manual = false;
            self.start(node)?;
            self.connect_all(node)?;
        }
        self.deliver_all()?;
        // The statuses that are due anyway do not disturb what follows.
        self.run(2 * HEARTBEAT_MS)?;
        for (host, manual) in self.hosts.iter_mut().zip(manual) {
            host.manual = manual;
        }
        let founded = |host: &Host| host.replica.as_ref().is_some_and(|r| r.report(self.clock()).serving);
        if !self.hosts.iter().all(founded) {
            return Err("the cluster is not founded".to_owned());
        }
        self.lines.clear();
        Ok(())
    }

    /// Clients of a node hand it one batch for each word, in one turn.
    pub(crate) fn offer(&mut self, node: usize, batches: &[&str]) -> Outcome {
        let now = self.clock();
        let host = &mut self.hosts[node];
        let Some(replica) = &host.replica else { return Err(format!("n{node} is not running")) };
        let intake = replica.intake(now);
        if intake != Intake::Open {
            let why = format!("n{node} takes nothing from clients: {intake:?}");
            self.line("takes", why);
            return Ok(());
        }
        let mut inputs = Vec::new();
        for words in batches {
            let mut batch = BatchBuilder::new();
            batch.push(None, 0, &[written_out(words)]);
            host.tickets += 1;
            inputs.push(Input::Offer { ticket: OfferTicket(host.tickets), batch: batch.take() });
        }
        self.turn(node, inputs);
        Ok(())
    }

    /// A client of a node reads.
    pub(crate) fn read(&mut self, node: usize) -> Outcome {
        if !self.alive(node) {
            return Err(format!("n{node} is not running"));
        }
        self.hosts[node].tickets += 1;
        let ticket = ReadTicket(self.hosts[node].tickets);
        self.turn(node, [Input::Read(ticket)]);
        Ok(())
    }

    /// A node is told something by the machine it runs on.
    pub(crate) fn tell(&mut self, node: usize, input: Input) {
        self.turn(node, [input]);
    }

    /// Says where a node stands.
    pub(crate) fn report(&mut self, node: usize) {
        let now = self.clock();
        let text = match &self.hosts[node].replica {
            Some(replica) => report_line(&replica.report(now), &self.hosts[node].applied),
            None => "stopped".to_owned(),
        };
        self.lines.push(format!("n{node} is {text}"));
    }

    /// Says what a node's disk would give back after a power failure.
    pub(crate) fn log(&mut self, node: usize) {
        let host = &self.hosts[node];
        let lines = host.records.iter().enumerate().map(|(i, record)| {
            let state = if i < host.durable { "" } else { " (not durable)" };
            format!("n{node} log {} {record}{state}", i + 1)
        });
        self.lines.extend(lines);
    }

    /// Says what lies in a link.
    pub(crate) fn queue(&mut self, from: usize, to: usize) {
        let texts: Vec<String> = self.link(from, to).queue.iter().map(ToString::to_string).collect();
        self.lines.extend(texts.into_iter().map(|text| format!("n{from} => n{to} {text}")));
    }

    /// Says of each view of a node's log how the next one was decided: who votes with how many drops counted.
    pub(crate) fn probation(&mut self, node: usize) {
        let last = self.hosts[node].records.iter().rev().find_map(|record| match record {
            Record::Decision(decision) => Some(decision.value.next.clone()),
            _ => None,
        });
        let Some(view) = last else { return };
        let drops: Vec<String> = view.voters.iter().map(|v| format!("{}:{}", v.node, v.drops)).collect();
        self.lines.push(format!("n{node} has in {} drops {}", view.number, drops.join(" ")));
    }
}
