//! The clients: threads that ask, wait, and write down what they saw.
//!
//! There are four kinds. **Session** clients are [`crate::client::Client`]s: they know all nodes, repeat writes, and
//! should never be left without an outcome. The others stay with one node, in one dialect each, never repeat
//! anything, and have unknown outcomes whenever their node fails them; clients that speak as Redis clients do
//! send several commands at a time now and then. Besides them, one **watcher** for each node reads a number that
//! only grows with `CONSISTENCY local`, which may be behind but never go back on one connection.
//!
//! Besides the shared keys of [`super::keys`], clients have some to themselves: a ledger, where each key is set
//! once, and session clients a counter, to which each increment must be applied exactly once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, ClientError, Connection, Options};
use crate::config::Address;
use crate::linearizability::{Command, Operation, Outcome};
use crate::sim::Random;
use crate::wire::client::{Consistency, WireReply};

use super::dialects::{Dialect, Fate, Link, interpret, words};
use super::keys::{Keys, Keyspace, Use};

/// The number that all session clients add to.
pub(crate) const TALLY: &str = "tally";
/// How the name of a session client's own counter begins; the client's number follows.
pub(crate) const OWN: &str = "own.";
/// How the name of a key in a ledger begins.
pub(crate) const LEDGER: &str = "ledger.";

/// How long a session client goes on with one command: longer than any storm keeps a majority away.
const SESSION_DEADLINE: Duration = Duration::from_secs(15);
/// Pause after a refusal, or when nobody listens.
const REFUSED_PAUSE_MS: u64 = 20;
/// Most commands sent at a time.
const BURST_MAX: u64 = 5;
/// A key's last value, as far as a client remembers: for so many keys.
const MEMORY_LEN: usize = 64;

/// What all clients share.
pub(crate) struct Board {
    /// When time began; all times are microseconds since.
    begun: Instant,
    keys: Keyspace,
    stopped: AtomicBool,
    answered: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    /// How often [`TALLY`] may have been added to.
    tally_begun: AtomicU64,
    complaints: Mutex<Vec<String>>,
}

impl Board {
    pub(crate) fn new(begun: Instant) -> Board {
        Board {
            begun,
            keys: Keyspace::new(),
            stopped: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tally_begun: AtomicU64::new(0),
            complaints: Mutex::new(Vec::new()),
        }
    }

    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.micros(Instant::now())
    }

    /// Microseconds from the beginning to this instant.
    pub(crate) fn micros(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    /// Clients finish what they are at and ask no more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// How many operations were answered, got no answer, and were refused.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let [answered, unknown, refused] =
            [&self.answered, &self.unknown, &self.refused].map(|counter| counter.load(Ordering::Relaxed));
        (answered, unknown, refused)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Something happened that must not.
    pub(crate) fn complain(&self, text: String) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        // One mistake may show a thousand times.
        if complaints.len() < 100 {
            complaints.push(text);
        }
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Who a client is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Knows all nodes and repeats.
    Session,
    /// Stays with one.
    Plain {
        /// How it talks.
        dialect: Dialect,
        /// To whom.
        node: usize,
    },
}

impl Kind {
    /// The kind of the client with this number: every kind at every node, if there are enough clients.
    pub(crate) fn of(client: usize, nodes: usize) -> Kind {
        let node = (client + client / 4) % nodes;
        match client % 4 {
            0 => Kind::Session,
            1 => Kind::Plain { dialect: Dialect::Binary, node },
            2 => Kind::Plain { dialect: Dialect::Resp, node },
            _ => Kind::Plain { dialect: Dialect::Text, node },
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Session => f.write_str("session, all nodes"),
            Kind::Plain { dialect, node } => write!(f, "{}, node {node}", dialect.name()),
        }
    }
}

/// How a client reaches the cluster.
enum Voice {
    Session(Box<Client>),
    Plain { dialect: Dialect, address: SocketAddr, link: Option<Link> },
}

/// A client at work.
pub(crate) struct Worker<'a> {
    number: u64,
    board: &'a Board,
    random: Random,
    voice: Voice,
    /// How long a plain client waits for a reply.
    patience: Duration,
    /// Values it has seen or written last, for comparing.
    memory: BTreeMap<Vec<u8>, Vec<u8>>,
    /// For values and ledger keys that nobody else has.
    written: u64,
    history: Vec<Operation>,
}

/// A command and the shared keys that it is about, if any.
struct Draft {
    command: Command,
    keys: Option<Keys>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        number: usize,
        board: &'a Board,
        seed: u64,
        addresses: &[SocketAddr],
        client_timeout: Duration,
    ) -> Worker<'a> {
        let patience = client_timeout + Duration::from_secs(1);
        let voice = match Kind::of(number, addresses.len()) {
            Kind::Session => {
                let parsed = addresses.iter().filter_map(|address| Address::parse(&address.to_string()).ok());
                let options = Options {
                    reply_timeout: patience,
                    deadline: SESSION_DEADLINE,
                    first: Some(number),
                    ..Options::default()
                };
                Voice::Session(Box::new(Client::new(parsed, options)))
            }
            Kind::Plain { dialect, node } => Voice::Plain { dialect, address: addresses[node], link: None },
        };
        let number = number as u64;
        let random = Random::new(seed, 100 + number);
        let (memory, history) = (BTreeMap::new(), Vec::new());
        Worker { number, board, random, voice, patience, memory, written: 0, history }
    }

    /// Asks until told to stop, and returns what it saw.
    pub(crate) fn run(mut self) -> Vec<Operation> {
        while !self.board.is_stopped() {
            let drafts = self.drafts();
            let answered = self.execute(drafts);
            let pause = if answered { self.random.between(500, 4_000) } else { REFUSED_PAUSE_MS * 1_000 };
            thread::sleep(Duration::from_micros(pause));
        }
        self.history
    }

    /// What to ask next.
    fn drafts(&mut self) -> Vec<Draft> {
        let burst =
            matches!(self.voice, Voice::Plain { dialect: Dialect::Resp, .. }) && self.random.permille(200);
        let count = if burst { self.random.between(2, BURST_MAX) } else { 1 };
        (0..count).map(|_| self.draft()).collect()
    }

    fn draft(&mut self) -> Draft {
        if let Some(keys) = self.board.keys.take_replaced() {
            let command = self.read_of(keys.names());
            return Draft { command, keys: Some(keys) };
        }
        let own = |command| Draft { command, keys: None };
        let session = matches!(self.voice, Voice::Session(_));
        match self.random.below(100) {
            0..5 => {
                self.written += 1;
                let key = format!("{LEDGER}{}.{}", self.number, self.written).into_bytes();
                let value = self.value();
                own(Command::Set(vec![(key, value)]))
            }
            5..15 if session => {
                let key = format!("{OWN}{}", self.number).into_bytes();
                own(Command::Add { key, by: 1 })
            }
            15..20 if session => own(Command::Add { key: TALLY.into(), by: 1 }),
            _ => {
                let slot = self.random.index(self.board.keys.slots());
                let keys = self.board.keys.take(slot);
                let names = keys.names();
                let command = match keys.used_as {
                    Use::Register => self.register(names),
                    Use::Counter => self.counter(names),
                    Use::List => self.list(names),
                    Use::Pair => self.pair(names),
                };
                Draft { command, keys: Some(keys) }
            }
        }
    }

    /// A value that nobody else writes. It has no blanks, for the sake of text.
    fn value(&mut self) -> Vec<u8> {
        self.written += 1;
        format!("c{}-{}", self.number, self.written).into_bytes()
    }

    /// A read of all these keys; a text client reads one, since several values are several lines.
    fn read_of(&mut self, mut names: Vec<Vec<u8>>) -> Command {
        if matches!(self.voice, Voice::Plain { dialect: Dialect::Text, .. }) {
            let chosen = self.random.index(names.len());
            names = vec![names.swap_remove(chosen)];
        }
        Command::Get(names)
    }

    fn register(&mut self, names: Vec<Vec<u8>>) -> Command {
        let key = names[0].clone();
        let new = self.value();
        match self.random.below(100) {
            0..35 => Command::Get(names),
            35..55 => Command::Set(vec![(key, new)]),
            55..75 => {
                let known = self.memory.get(&key).cloned();
                let expected = Some(known.unwrap_or_else(|| b"unknown".to_vec()));
                Command::CompareAndSet { key, expected, new }
            }
            75..82 => Command::SetIfAbsent(vec![(key, new)]),
            82..86 => Command::SetIfPresent { key, value: new },
            86..92 => Command::GetSet { key, value: new },
            92..97 => Command::Delete(names),
            // Fails on a text, and counts from zero on a missing key.
            _ => Command::Add { key, by: 1 },
        }
    }

    fn counter(&mut self, mut names: Vec<Vec<u8>>) -> Command {
        if self.random.permille(400) {
            return Command::Get(names);
        }
        let by = i64::try_from(self.random.between(1, 5)).expect("a small number");
        Command::Add { key: names.swap_remove(0), by }
    }

    fn list(&mut self, mut names: Vec<Vec<u8>>) -> Command {
        if self.random.permille(400) {
            return Command::Get(names);
        }
        let mut bytes = self.value();
        bytes.push(b';');
        Command::Append { key: names.swap_remove(0), bytes }
    }

    fn pair(&mut self, names: Vec<Vec<u8>>) -> Command {
        let new = self.value();
        let one = names[self.random.index(names.len())].clone();
        match self.random.below(100) {
            0..40 => self.read_of(names),
            40..70 => Command::Set(names.into_iter().map(|name| (name, new.clone())).collect()),
            70..80 => Command::Delete(names),
            80..90 => Command::Set(vec![(one, new)]),
            _ => Command::Get(vec![one]),
        }
    }

    /// Sends these commands at once and notes what becomes of them. Says whether all were answered.
    fn execute(&mut self, drafts: Vec<Draft>) -> bool {
        let tallied = drafts.iter().any(|draft| *draft.command.keys()[0] == *TALLY.as_bytes());
        if tallied {
            self.board.tally_begun.fetch_add(1, Ordering::SeqCst);
        }
        let begin = self.board.now();
        // Ordered reads take another way through the cluster and are linearizable all the same.
        let ordered = self.random.permille(200);
        let consistency = if ordered { Consistency::Ordered } else { Consistency::Linearizable };
        let commands: Vec<Command> = drafts.iter().map(|draft| draft.command.clone()).collect();
        let patience = self.patience;
        let mut open = None;
        let fates = match &mut self.voice {
            Voice::Session(client) => {
                let ask = |command| (ask_session(client, command, consistency), Instant::now());
                commands.iter().map(ask).collect()
            }
            Voice::Plain { dialect, address, link } => {
                open = link.take().or_else(|| Link::open(*dialect, *address, patience).ok());
                match &mut open {
                    Some(open) => open.call(&commands, consistency, patience),
                    None => vec![(Fate::Refused, Instant::now()); commands.len()],
                }
            }
        };
        let mut good = true;
        for (draft, (fate, end)) in drafts.into_iter().zip(fates) {
            good &= self.note(draft, begin, self.board.micros(end), fate);
        }
        // After a refusal a node refuses what follows on that connection as well.
        if let Voice::Plain { link, .. } = &mut self.voice {
            *link = open.filter(|_| good);
        }
        good
    }

    /// Writes down what became of a command. Says whether it was answered.
    fn note(&mut self, draft: Draft, begin: u64, end: u64, fate: Fate) -> bool {
        let Draft { command, keys } = draft;
        let outcome = match fate {
            Fate::Answered(outcome) => {
                self.board.answered.fetch_add(1, Ordering::Relaxed);
                self.remember(&command, &outcome);
                Some(outcome)
            }
            Fate::Refused => {
                self.board.refused.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Fate::Unknown => None,
            Fate::Nonsense(text) => {
                self.board.complain(format!("client {} at {:.3} s: {text}", self.number, seconds(end)));
                None
            }
        };
        if outcome.is_none() {
            self.board.unknown.fetch_add(1, Ordering::Relaxed);
            if let Some(keys) = keys.filter(|_| !command.is_reader()) {
                self.board.keys.doubt(&keys);
            }
        }
        let answered = outcome.is_some();
        self.history.push(Operation { client: self.number, command, begin, end, outcome });
        answered
    }

    /// Keeps what is known of a register's value.
    fn remember(&mut self, command: &Command, outcome: &Outcome) {
        let (key, value) = match (command, outcome) {
            (Command::Get(keys), Outcome::Values(values)) => match (&keys[..], &values[..]) {
                ([key], [Some(value)]) => (key, value),
                _ => return,
            },
            (Command::Set(pairs), Outcome::Done) if pairs.len() == 1 => (&pairs[0].0, &pairs[0].1),
            (Command::CompareAndSet { key, new, .. }, Outcome::Flag(true)) => (key, new),
            (Command::GetSet { key, value }, _) => (key, value),
            _ => return,
        };
        if self.memory.len() >= MEMORY_LEN {
            self.memory.clear();
        }
        self.memory.insert(key.clone(), value.clone());
    }
}

/// Seconds, of microseconds.
pub(crate) fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

fn ask_session(client: &mut Client, command: &Command, consistency: Consistency) -> Fate {
    let set = [b"CONSISTENCY".to_vec(), consistency.name().into()];
    // Answered by the client itself.
    let _ = client.execute(&set);
    match client.execute(&words(command)) {
        Ok(reply) => interpret(command, &reply),
        Err(ClientError::NoNode { .. }) => Fate::Refused,
        Err(ClientError::OutcomeUnknown { .. }) => Fate::Unknown,
        Err(error) => Fate::Nonsense(error.to_string()),
    }
}

/// Reads the tally of one node, as the node has it, until told to stop. Returns how often it was answered.
pub(crate) fn watch(node: usize, address: SocketAddr, board: &Board) -> u64 {
    let patience = Duration::from_secs(1);
    let mut reads = 0;
    let Ok(parsed) = Address::parse(&address.to_string()) else { return 0 };
    while !board.is_stopped() {
        let mut last = 0;
        if let Ok(mut connection) = Connection::open(&parsed, patience) {
            let command = [b"GET".as_slice(), TALLY.as_bytes()].map(<[u8]>::to_vec);
            while !board.is_stopped() {
                let deadline = Instant::now() + patience;
                let reply = connection.call(Consistency::Local, None, &command, patience, deadline);
                let text = match reply {
                    Ok(WireReply::Nil) => "0".to_owned(),
                    Ok(WireReply::Bulk(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
                    _ => break,
                };
                let begun = board.tally_begun.load(Ordering::SeqCst);
                let at = seconds(board.now());
                match text.parse::<u64>() {
                    Ok(number) if (last..=begun).contains(&number) => last = number,
                    _ => {
                        board.complain(format!(
                            "at {at:.3} s a local read at node {node} found {text:?} after {last}, and {begun} \
                             were ever added"
                        ));
                        break;
                    }
                }
                reads += 1;
                thread::sleep(Duration::from_millis(10));
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    reads
}
