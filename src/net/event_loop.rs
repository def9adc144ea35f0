//! The event loop: one thread, one poll, one turn after the other.
//!
//! A turn is: wait; take in what has happened (durable records, signals, everything readable, peers
//! first); end the node's turn; hand its records to the log's thread; send. There is no other place where
//! the loop waits, and none where it sleeps.
//!
//! The poll is edge-triggered: a socket tells once that it can be read. So what a connection has left
//! when its share of a turn is used up goes into a queue, and while there is anything in the queues the
//! poll does not wait. Each connection takes its place at the end, so that every one has its turn.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};
use rustix::time::{ClockId, clock_gettime};
use signal_hook_mio::v1_0::Signals;

use crate::node::{Effects, Node, NodeInput};
use crate::protocol::{Message, Note, Refusal};
use crate::storage::{DataDir, LogWriter};
use crate::store::TurnClock;
use crate::types::{Lsn, Millis, Nanos, NodeId, Now, limits};

use super::clock::{Clock, Jitter};
use super::connection::{ConnectionKey, Connections, Role};
use super::error::RunError;
use super::keeper::KeeperThread;
use super::links::Link;
use super::listener::Listener;
use super::resolver::Resolver;
use super::shared::Shared;

/// Smaller ones are the listeners'.
pub(super) const WAKER: Token = Token(3);
pub(super) const SIGNALS: Token = Token(4);

/// Bytes read from a client in a turn.
pub(super) const CLIENT_READ_LEN: usize = 64 << 10;
/// Bytes read at once from a peer; a turn reads up to [`PEER_TURN_LEN`] of them.
pub(super) const PEER_READ_LEN: usize = 256 << 10;
pub(super) const PEER_TURN_LEN: usize = 1 << 20;
/// Unsent bytes that a link may always have.
const LINK_OUTPUT_MIN: usize = 64 << 20;

/// A sync that takes so long is a fault of the disk that peers should know of.
const DISK_PATIENCE: Millis = Millis(10_000);
/// At a stop: how long what is in flight may take, and how long handing over the lane may take.
const STOP_PATIENCE: Millis = Millis(3_000);
const HANDOVER_PATIENCE: Millis = Millis(1_000);
/// Errors that a peer or a client causes are logged at most so often.
const COMPLAIN_EVERY: Millis = Millis(1_000);

/// How a node ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// Everything is written, and the mark of a clean stop.
    Cleanly,
    /// A second signal came.
    AtOnce,
}

/// What the log's thread has to say besides what is durable.
pub(super) type DiskFailure = Arc<Mutex<Option<io::Error>>>;

/// What the parts of the start hand over.
pub(super) struct Parts {
    pub(super) poll: Poll,
    pub(super) waker: Arc<Waker>,
    pub(super) clock: Clock,
    pub(super) node: Node,
    pub(super) writer: LogWriter,
    pub(super) keeper: KeeperThread,
    pub(super) disk_failure: DiskFailure,
    pub(super) data_dir: DataDir,
    /// The one for peers alone is the first.
    pub(super) listeners: Vec<Listener>,
    pub(super) links: Vec<Link>,
    pub(super) signals: Option<Signals>,
    pub(super) shared: Arc<Shared>,
    pub(super) me: NodeId,
    pub(super) suspicion: Millis,
    pub(super) clients_max: usize,
    pub(super) value_len_max: usize,
    pub(super) connections_max: usize,
    pub(super) seed: u64,
}

/// How often the process' memory is looked at.
const MEMORY_EVERY: Millis = Millis(1_000);

/// Resident bytes of this process; 0 where the system does not tell.
fn resident_len() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// So much work is done before the clock is looked at: some fifty microseconds'.
const WORK_PER_LOOK: u64 = 64;

/// What a clock says.
fn read_clock(id: ClockId) -> Nanos {
    let length = Duration::try_from(clock_gettime(id)).unwrap_or_default();
    Nanos(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX))
}

/// What the monotonic clock says.
fn wall_time() -> Nanos {
    read_clock(ClockId::Monotonic)
}

/// How long this thread has had a processor.
fn thread_cpu_time() -> Nanos {
    read_clock(ClockId::ThreadCPUTime)
}

/// How far the log is.
#[derive(Debug)]
struct LogProgress {
    submitted: Lsn,
    durable: Lsn,
    /// Since when nothing that waits has become durable.
    waiting_since: Option<Millis>,
    is_slow: bool,
}

#[derive(Debug)]
struct Stopping {
    since: Millis,
}

/// The loop and everything it owns.
pub(super) struct EventLoop {
    pub(super) poll: Poll,
    pub(super) clock: Clock,
    pub(super) node: Node,
    effects: Effects,
    /// When the process' memory is looked at next.
    memory_due: Millis,
    writer: LogWriter,
    keeper: KeeperThread,
    disk_failure: DiskFailure,
    /// Holds the lock on the directory.
    _data_dir: DataDir,
    log: LogProgress,
    pub(super) connections: Connections,
    pub(super) listeners: Vec<Listener>,
    pub(super) links: Vec<Link>,
    /// More unsent bytes than this, and a link is cut: some for the usual traffic, and the largest command
    /// twice. It has to have room for that, or the command would never arrive.
    pub(super) link_output_max: usize,
    /// The connection that each peer sends on, with the number of the process that made it.
    pub(super) incoming: Vec<Option<(ConnectionKey, u64)>>,
    /// Accepted connections, the oldest first; only those count that have not said anything yet.
    pub(super) fresh: VecDeque<ConnectionKey>,
    /// Accepted connections that begin like a peer's, with the time by which the hello must be there.
    pub(super) greeting: VecDeque<(ConnectionKey, Millis)>,
    /// Connections to read that are no clients'.
    pub(super) peer_queue: VecDeque<ConnectionKey>,
    /// Clients to read, as soon as the node takes commands.
    pub(super) client_queue: VecDeque<ConnectionKey>,
    /// Connections that can be written to again.
    pub(super) flush_queue: Vec<ConnectionKey>,
    /// Sockets are read into this.
    pub(super) scratch: Vec<u8>,
    pub(super) resolver: Resolver,
    pub(super) jitter: Jitter,
    signals: Option<Signals>,
    has_signal: bool,
    shared: Arc<Shared>,
    pub(super) me: NodeId,
    pub(super) suspicion: Millis,
    pub(super) clients_max: usize,
    /// Clients, peers, and connections that have not said what they are.
    pub(super) connections_max: usize,
    pub(super) client_count: usize,
    stopping: Option<Stopping>,
    stop_at_once: bool,
    is_ready: bool,
    last_turn: Millis,
    /// Processor time of this thread at the end of the last turn.
    cpu_time: Nanos,
    complained_at: Millis,
    suppressed: u64,
}

impl EventLoop {
    pub(super) fn new(parts: Parts) -> EventLoop {
        let now = parts.clock.now().mono;
        let durable = parts.writer.reported();
        EventLoop {
            poll: parts.poll,
            clock: parts.clock,
            node: parts.node,
            effects: Effects::default(),
            memory_due: Millis(0),
            writer: parts.writer,
            keeper: parts.keeper,
            disk_failure: parts.disk_failure,
            _data_dir: parts.data_dir,
            log: LogProgress { submitted: durable, durable, waiting_since: None, is_slow: false },
            connections: Connections::default(),
            listeners: parts.listeners,
            links: parts.links,
            incoming: vec![None; usize::from(NodeId::COUNT_MAX)],
            fresh: VecDeque::new(),
            greeting: VecDeque::new(),
            peer_queue: VecDeque::new(),
            client_queue: VecDeque::new(),
            flush_queue: Vec::new(),
            scratch: vec![0; PEER_READ_LEN],
            resolver: Resolver::new(parts.waker),
            jitter: Jitter::new(parts.seed),
            signals: parts.signals,
            has_signal: false,
            shared: parts.shared,
            me: parts.me,
            suspicion: parts.suspicion,
            clients_max: parts.clients_max,
            link_output_max: LINK_OUTPUT_MIN + 2 * (parts.value_len_max + 2 * limits::COMMAND_LEN_SLACK),
            connections_max: parts.connections_max,
            client_count: 0,
            stopping: None,
            stop_at_once: false,
            is_ready: false,
            last_turn: now,
            cpu_time: thread_cpu_time(),
            complained_at: Millis(0),
            suppressed: 0,
        }
    }

    /// Runs until the node is asked to stop or must.
    pub(super) fn run(mut self) -> Result<Ended, RunError> {
        let mut events = Events::with_capacity(1024);
        loop {
            let now = self.wait(&mut events)?;
            let begun = Instant::now();
            self.node.begin_turn(self.turn_clock());
            self.take_progress(now)?;
            self.read_peers(now);
            self.node.run_backlog(now);
            self.read_clients(now);
            self.accept(now);
            self.run_links(now);
            self.end_turn(now)?;
            let cpu_time = thread_cpu_time();
            self.node.note_turn(begun.elapsed(), Duration::from_nanos(cpu_time.since(self.cpu_time).0));
            self.cpu_time = cpu_time;
            if now.mono >= self.memory_due {
                self.memory_due = now.mono.plus(MEMORY_EVERY);
                self.node.note_memory(resident_len());
            }
            if self.stop_at_once {
                // The thread of the log may be stuck in the kernel; the log does without its end.
                std::mem::forget(self.writer);
                std::mem::forget(self.keeper);
                return Ok(Ended::AtOnce);
            }
            if self.has_stopped(now) {
                self.writer.stop().map_err(RunError::Disk)?;
                return Ok(Ended::Cleanly);
            }
        }
    }

    /// How the time of a turn is measured that begins now.
    fn turn_clock(&self) -> TurnClock {
        let begun = (wall_time(), self.cpu_time);
        TurnClock { wall: wall_time, cpu: thread_cpu_time, begun, look_every: WORK_PER_LOOK }
    }

    /// Waits for something to happen and notes it.
    fn wait(&mut self, events: &mut Events) -> Result<Now, RunError> {
        let timeout = self.timeout(self.clock.now().mono);
        self.poll_once(events, Some(timeout))?;
        let mut now = self.clock.now();
        // After a pause of the process or the machine, peers seem silent whose messages wait in the sockets.
        // What has arrived must be seen before anybody is suspected.
        if now.mono.since(self.last_turn) > self.suspicion {
            self.poll_once(events, Some(Duration::ZERO))?;
            now = self.clock.now();
        }
        self.last_turn = now.mono;
        Ok(now)
    }

    fn poll_once(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<(), RunError> {
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => return Err(RunError::System { what: "cannot wait for events", source }),
        }
        for event in events.iter() {
            match event.token() {
                // What it is about is looked at in every turn.
                WAKER => {}
                SIGNALS => self.has_signal = true,
                token => {
                    if let Some(key) = ConnectionKey::from_token(token) {
                        self.note_event(key, event);
                    } else if let Some(listener) =
                        self.listeners.iter_mut().find(|listener| listener.purpose.token() == token)
                    {
                        listener.ready = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn note_event(&mut self, key: ConnectionKey, event: &Event) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let read_closed = event.is_read_closed() || event.is_error();
        if event.is_writable() || event.is_write_closed() {
            let was_blocked = !connection.writable;
            connection.writable = true;
            if was_blocked || matches!(connection.role, Role::Link(_)) {
                self.flush_queue.push(key);
            }
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if event.is_readable() || read_closed {
            connection.readable = true;
            connection.read_closed |= read_closed;
            self.queue_read(key);
        }
    }

    /// Puts a connection that may have something to read where it will be read.
    pub(super) fn queue_read(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.readable && !connection.queued {
            connection.queued = true;
            match connection.role {
                Role::Client => self.client_queue.push_back(key),
                _ => self.peer_queue.push_back(key),
            }
        }
    }

    /// How long the poll may wait.
    fn timeout(&mut self, now: Millis) -> Duration {
        let clients = self.node.takes_commands() && !self.client_queue.is_empty();
        if clients || !self.peer_queue.is_empty() || self.node.has_work() || self.can_accept(now) {
            return Duration::ZERO;
        }
        let disk = self.log.waiting_since.filter(|_| !self.log.is_slow).map(|at| at.plus(DISK_PATIENCE));
        let stop = self.stopping.as_ref().map(|stopping| {
            let handover = stopping.since.plus(HANDOVER_PATIENCE);
            if now < handover { handover } else { stopping.since.plus(STOP_PATIENCE) }
        });
        let deadline = [
            self.node.deadline(),
            self.links_deadline(),
            self.accept_deadline(),
            self.greeting.front().map(|(_, at)| *at),
            disk,
            stop,
        ]
        .into_iter()
        .flatten()
        .min();
        // Nothing can be due before a minute has passed without being among the above.
        Duration::from_millis(deadline.map_or(60_000, |at| at.since(now).0).min(60_000))
    }

    /// Takes in what other threads and signals have to say.
    fn take_progress(&mut self, now: Now) -> Result<(), RunError> {
        let failure = self.disk_failure.lock().expect("nothing panics while it holds this lock").take();
        if let Some(error) = failure {
            return Err(RunError::Disk(error));
        }
        let durable = self.writer.reported();
        if durable > self.log.durable {
            self.log.durable = durable;
            self.log.waiting_since = (durable < self.log.submitted).then_some(now.mono);
            if std::mem::take(&mut self.log.is_slow) {
                log::warn!("the disk answers again");
                self.node.handle(now, NodeInput::DiskSlow(false));
            }
            self.node.handle(now, NodeInput::Persisted(durable));
        }
        for done in self.keeper.done() {
            match done {
                Ok(done) => self.node.keeper_done(now, done),
                Err(error) => return Err(RunError::Snapshots(error)),
            }
        }
        let patience_over = self.log.waiting_since.is_some_and(|at| now.mono.since(at) >= DISK_PATIENCE);
        if patience_over && !self.log.is_slow {
            self.log.is_slow = true;
            log::warn!("the disk has not answered for {DISK_PATIENCE}");
            self.node.handle(now, NodeInput::DiskSlow(true));
        }
        let mut asked = usize::from(self.shared.stop.load(Ordering::Acquire) && self.stopping.is_none());
        if std::mem::take(&mut self.has_signal)
            && let Some(signals) = &mut self.signals
        {
            asked += signals.pending().count();
        }
        for _ in 0..asked {
            if self.stopping.is_some() {
                log::warn!("asked to stop again: stopping at once");
                self.stop_at_once = true;
            } else {
                self.begin_stop(now);
            }
        }
        let answers: Vec<_> = self.resolver.answers().collect();
        for (peer, addresses) in answers {
            self.resolved(peer, addresses);
        }
        Ok(())
    }

    fn begin_stop(&mut self, now: Now) {
        log::info!("stopping");
        self.stopping = Some(Stopping { since: now.mono });
        self.node.handle(now, NodeInput::Leave);
    }

    fn end_turn(&mut self, now: Now) -> Result<(), RunError> {
        self.effects.clear();
        self.node.end_turn(now, &mut self.effects);
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(length) = effects.sleep.take() {
            log::warn!("standing still, as a client has asked milliseconds={}", length.as_millis());
            std::thread::sleep(length);
        }
        if effects.stop && !self.is_stopping() {
            log::warn!("a client has asked that this node stop");
            self.begin_stop(now);
        }
        for note in effects.notes.drain(..) {
            self.log_note(now, &note);
        }
        for line in effects.lines.drain(..) {
            log::info!("{line}");
        }
        if let Some(reason) = effects.halt.take() {
            return Err(RunError::Halted(reason));
        }
        for task in effects.tasks.drain(..) {
            self.keeper.submit(task);
        }
        if let Some(lsn) = effects.truncate.take() {
            self.writer.truncate_before(lsn);
        }
        for (to, message) in &effects.sends {
            self.send(*to, message);
        }
        // The way of an entry of this node is longest over the other nodes' disks, so it leaves before this node's
        // own log is woken, which takes the processor. What came from others and is to be voted for goes the other
        // way round: its vote waits for the log. Neither order promises anything: a record counts when it is durable.
        let has_entry = effects.sends.iter().any(|(_, message)| matches!(message, Message::Append(_)));
        if has_entry {
            self.flush_links(now);
            self.submit(now, &mut effects);
            self.flush_clients(now, &effects.written);
        } else {
            self.submit(now, &mut effects);
            // A lone client does not wait for what is sent to the other nodes, and they do not for a crowd of clients.
            if effects.written.len() <= self.links.len() {
                self.flush_clients(now, &effects.written);
                self.flush_links(now);
            } else {
                self.flush_links(now);
                self.flush_clients(now, &effects.written);
            }
        }
        effects.sends.clear();
        for key in effects.closing.drain(..) {
            self.close_client(key.into());
        }
        for &key in &effects.resumed {
            self.queue_read(key.into());
        }
        self.effects = effects;
        if let Some(refusal) = self.refused_by_most() {
            return Err(RunError::Refused { refusal });
        }
        self.look_whether_ready();
        Ok(())
    }

    /// Gives the records of the turn to the log's thread.
    fn submit(&mut self, now: Now, effects: &mut Effects) {
        if let Some(last) = effects.records.last_lsn() {
            let records = std::mem::replace(&mut effects.records, self.writer.recycle());
            self.writer.submit(records);
            self.log.submitted = last;
            self.log.waiting_since.get_or_insert(now.mono);
        }
    }

    fn log_note(&mut self, now: Now, note: &Note) {
        match note {
            Note::Ignored { .. } => self.complain(now.mono, || note.to_string()),
            Note::Lost(_) => log::warn!("{note}"),
            _ => log::info!("{note}"),
        }
    }

    /// Logs something that a peer or a client did wrong, unless that happens all the time.
    pub(super) fn complain(&mut self, now: Millis, text: impl FnOnce() -> String) {
        if now.since(self.complained_at) < COMPLAIN_EVERY {
            self.suppressed += 1;
            return;
        }
        let text = text();
        match std::mem::take(&mut self.suppressed) {
            0 => log::warn!("{text}"),
            count => log::warn!("{text} (suppressed={count})"),
        }
        self.complained_at = now;
    }

    fn look_whether_ready(&mut self) {
        if self.is_ready {
            return;
        }
        let report = self.node.report();
        if report.serving {
            self.is_ready = true;
            self.shared.set_ready(self.me, report.view);
        }
    }

    /// Whether the node has been asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether everything that a stop waits for is done.
    fn has_stopped(&mut self, now: Now) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let waited = now.mono.since(stopping.since);
        if waited >= STOP_PATIENCE {
            log::warn!("stopping with commands unanswered");
            return true;
        }
        if self.node.has_unanswered() {
            return false;
        }
        // Others go on without a pause if the lane is sealed before this process ends.
        let report = self.node.report();
        let alone = report.voters.without(self.me).intersection(report.hears).is_empty();
        !report.sender || alone || waited >= HANDOVER_PATIENCE
    }

    /// Whether most others say that this node does not belong to them, and what they say.
    fn refused_by_most(&self) -> Option<Refusal> {
        let of = |wanted: fn(&Refusal) -> bool| {
            let refusing = self.links.iter().filter_map(|link| link.refusal.as_ref()).filter(|r| wanted(r));
            let mut count = 0;
            let last = refusing.inspect(|_| count += 1).last().copied();
            last.filter(|_| count * 2 > self.links.len())
        };
        of(|refusal| matches!(refusal, Refusal::NotMember))
            .or_else(|| of(|refusal| matches!(refusal, Refusal::OtherCluster { .. })))
    }

    /// The link to this peer.
    pub(super) fn link_index(&self, peer: NodeId) -> Option<usize> {
        self.links.iter().position(|link| link.peer == peer)
    }
}
