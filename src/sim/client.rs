//! Modelled clients: what they ask, what they know, and what they find out.
//!
//! Writes of the first kind leave a trace from which their place in the total order can be read: APPEND
//! adds a token of its own to a list and answers with the list's length, INCR answers with the count. So
//! real time, exactly once and the safety of reads are checked from the replies alone, at any length.
//! Writes of the second kind are every other command on a few registers; their history is searched for a
//! linearization when all is over.

use std::fmt;

use crate::linearizability::{Command, Outcome};
use crate::types::SessionId;
use crate::wire::batch::SessionSeq;
use crate::wire::client::{Consistency, WireReply, encode_request};

use super::plan::{Plan, Workload};
use super::random::Random;

/// Bytes of a token.
pub(crate) const TOKEN_LEN: usize = 8;

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Opens a session.
    Open,
    /// Adds a token to a list.
    Append,
    /// Adds one to a counter.
    Incr,
    /// Reads a list.
    Get(Consistency),
    /// A command on registers, for the history.
    Register(Command, Option<Consistency>),
    /// Any command at all, for the nodes' agreement.
    Any(Vec<Vec<u8>>),
}

impl Kind {
    /// Whether it may change something.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Kind::Append | Kind::Incr | Kind::Any(_) => true,
            Kind::Register(command, _) => !command.is_reader(),
            Kind::Open | Kind::Get(_) => false,
        }
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) key: usize,
    /// What was known to anybody when it began, in the key's count.
    pub(crate) floor: u64,
    /// When it was asked for the first time.
    pub(crate) begin: u64,
    /// When it was asked last.
    pub(crate) asked: u64,
    pub(crate) session: Option<SessionSeq>,
    /// An earlier attempt may have been applied.
    pub(crate) uncertain: bool,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) sessions: bool,
    pub(crate) session: Option<SessionId>,
    pub(crate) seq: u64,
    /// Where its operation runs: the node and the process.
    pub(crate) at: Option<(usize, u64)>,
    pub(crate) generation: u32,
    /// Counts what was planned for it; only the latest plan is carried out.
    pub(crate) turn: u64,
    pub(crate) operation: Option<Operation>,
    /// What it has seen on its present connection, by key: local reads never go back.
    pub(crate) seen: Vec<u64>,
}

impl Client {
    pub(crate) fn new(sessions: bool, keys: usize) -> Client {
        Client {
            sessions,
            session: None,
            seq: 0,
            at: None,
            generation: 0,
            turn: 0,
            operation: None,
            seen: vec![0; keys],
        }
    }

    /// Chooses what to ask next; `id` makes values that nobody else writes.
    pub(crate) fn choose(&self, plan: &Plan, id: u64, random: &mut Random) -> Kind {
        if self.sessions && self.session.is_none() {
            return Kind::Open;
        }
        let keys = plan.registers;
        if plan.workload == Workload::Everything {
            return Kind::Any(any_command(keys, id, random));
        }
        if random.permille(plan.reads) {
            return Kind::Get(Consistency::Linearizable);
        }
        match random.below(100) {
            0..30 => Kind::Append,
            30..40 => Kind::Incr,
            40..50 => Kind::Get(Consistency::Linearizable),
            50..55 => Kind::Get(Consistency::Ordered),
            55..60 => Kind::Get(Consistency::Local),
            _ => {
                let command = register_command(keys, id, random);
                let consistency = [Consistency::Linearizable, Consistency::Ordered][random.index(2)];
                let consistency = command.is_reader().then_some(consistency);
                Kind::Register(command, consistency)
            }
        }
    }
}

fn register(random: &mut Random, keys: usize) -> Vec<u8> {
    format!("register{}", random.index(keys)).into_bytes()
}

/// Values are few, so that conditions are met now and then, and mostly numbers, so that they can be added to.
fn value(random: &mut Random, id: u64) -> Vec<u8> {
    match random.below(4) {
        0 => format!("v{id}").into_bytes(),
        _ => random.below(5).to_string().into_bytes(),
    }
}

fn register_command(keys: usize, id: u64, random: &mut Random) -> Command {
    // Commands on several keys make one search of several, so there are none where keys and clients are many.
    let several = |random: &mut Random| if keys <= 4 && random.permille(150) { keys } else { 1 };
    match random.below(20) {
        0..7 => Command::Get((0..several(random)).map(|_| register(random, keys)).collect()),
        7..10 => {
            let count = several(random);
            Command::Set((0..count).map(|_| (register(random, keys), value(random, id))).collect())
        }
        10 => Command::SetIfAbsent(vec![(register(random, keys), value(random, id))]),
        11 => Command::SetIfPresent { key: register(random, keys), value: value(random, id) },
        12 => Command::GetSet { key: register(random, keys), value: value(random, id) },
        13..15 => Command::CompareAndSet {
            key: register(random, keys),
            expected: Some(value(random, id)),
            new: value(random, id),
        },
        15..17 => Command::Add { key: register(random, keys), by: [1, -1, 3, 100][random.index(4)] },
        17 => Command::Append { key: register(random, keys), bytes: b"0".to_vec() },
        18 => Command::Delete((0..several(random)).map(|_| register(random, keys)).collect()),
        _ if random.permille(500) => Command::Exists(vec![register(random, keys)]),
        _ => Command::Length { key: register(random, keys) },
    }
}

/// Every command of the store, with arguments that are right most of the time.
fn any_command(keys: usize, id: u64, random: &mut Random) -> Vec<Vec<u8>> {
    let text = |words: &str| words.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    match random.below(12) {
        0 => text("KEYS *"),
        1 => text("DBSIZE"),
        2 if random.permille(300) => text("FLUSHALL"),
        3 => text("KEYS reg*[0-1]"),
        4 => text("NOSUCH command"),
        5 => text("SET a"),
        6 => vec![b"APPEND".to_vec(), register(random, keys), vec![b'x'; 200]],
        7 => vec![b"DECR".to_vec(), register(random, keys)],
        8 => vec![b"GET".to_vec(), register(random, keys)],
        _ => arguments(&register_command(keys, id, random)),
    }
}

/// A command as the store takes it.
pub(crate) fn arguments(command: &Command) -> Vec<Vec<u8>> {
    let named = |name: &str, rest: Vec<Vec<u8>>| {
        let mut all = vec![name.as_bytes().to_vec()];
        all.extend(rest);
        all
    };
    let flat =
        |pairs: &[(Vec<u8>, Vec<u8>)]| pairs.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect();
    match command {
        Command::Get(all) => named(if all.len() == 1 { "GET" } else { "MGET" }, all.clone()),
        Command::Set(all) => named(if all.len() == 1 { "SET" } else { "MSET" }, flat(all)),
        Command::SetIfAbsent(all) => named("SETNX", flat(all)),
        Command::SetIfPresent { key, value } => {
            named("SET", vec![key.clone(), value.clone(), b"XX".to_vec()])
        }
        Command::GetSet { key, value } => named("GETSET", vec![key.clone(), value.clone()]),
        Command::CompareAndSet { key, expected, new } => {
            named("CAS", vec![key.clone(), expected.clone().unwrap_or_default(), new.clone()])
        }
        Command::Add { key, by } => named("INCRBY", vec![key.clone(), by.to_string().into_bytes()]),
        Command::Append { key, bytes } => named("APPEND", vec![key.clone(), bytes.clone()]),
        Command::Delete(all) => named("DEL", all.clone()),
        Command::Exists(all) => named("EXISTS", all.clone()),
        Command::Length { key } => named("STRLEN", vec![key.clone()]),
    }
}

/// What a reply means for a command; `None` if it can never be its answer.
fn outcome(command: &Command, reply: &WireReply) -> Option<Outcome> {
    let optional = |reply: &WireReply| match reply {
        WireReply::Nil => Some(None),
        WireReply::Bulk(bytes) => Some(Some(bytes.clone())),
        _ => None,
    };
    match (command, reply) {
        (Command::Get(keys), reply) if keys.len() == 1 => Some(Outcome::Values(vec![optional(reply)?])),
        (Command::Get(_), WireReply::Array(all)) => {
            Some(Outcome::Values(all.iter().map(optional).collect::<Option<_>>()?))
        }
        (Command::GetSet { .. }, reply) => Some(Outcome::Values(vec![optional(reply)?])),
        (Command::Set(_), WireReply::Status(ok)) if ok == "OK" => Some(Outcome::Done),
        (Command::SetIfAbsent(_), WireReply::Integer(n)) => Some(Outcome::Flag(*n == 1)),
        (Command::SetIfPresent { .. } | Command::CompareAndSet { .. }, WireReply::Status(ok))
            if ok == "OK" =>
        {
            Some(Outcome::Flag(true))
        }
        (Command::SetIfPresent { .. } | Command::CompareAndSet { .. }, WireReply::Nil) => {
            Some(Outcome::Flag(false))
        }
        (Command::Add { .. }, WireReply::Error(_)) => Some(Outcome::Failed),
        (
            Command::Add { .. }
            | Command::Append { .. }
            | Command::Delete(_)
            | Command::Exists(_)
            | Command::Length { .. },
            WireReply::Integer(n),
        ) => Some(Outcome::Integer(*n)),
        _ => None,
    }
}

impl Operation {
    pub(crate) fn token(&self) -> [u8; TOKEN_LEN] {
        let mut token = *b"#0000000";
        let digits = format!("{:07}", self.id);
        token[1..].copy_from_slice(&digits.as_bytes()[..7]);
        token
    }

    /// The words of the command, and at which level it is to be read.
    fn words(&self) -> (Vec<Vec<u8>>, Option<Consistency>) {
        let list = || format!("list{}", self.key).into_bytes();
        let counter = || format!("counter{}", self.key).into_bytes();
        match &self.kind {
            Kind::Open => (vec![b"SESSION".to_vec(), b"OPEN".to_vec()], None),
            Kind::Append => (vec![b"APPEND".to_vec(), list(), self.token().to_vec()], None),
            Kind::Incr => (vec![b"INCR".to_vec(), counter()], None),
            Kind::Get(wanted) => (vec![b"GET".to_vec(), list()], Some(*wanted)),
            Kind::Register(command, wanted) => (arguments(command), *wanted),
            Kind::Any(arguments) => (arguments.clone(), None),
        }
    }

    /// The request's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (words, consistency) = self.words();
        encode_request(&mut bytes, self.id, consistency, self.session, &words);
        bytes
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.id)?;
        let (words, consistency) = self.words();
        for word in words {
            write!(f, " {}", word.escape_ascii())?;
        }
        match consistency {
            Some(Consistency::Ordered) => write!(f, " (ordered)")?,
            Some(Consistency::Local) => write!(f, " (local)")?,
            Some(Consistency::Linearizable) | None => {}
        }
        if let Some(session) = self.session {
            write!(f, " in session {} as {}", session.session.0, session.seq)?;
        }
        if self.uncertain { write!(f, ", again") } else { Ok(()) }
    }
}

/// What a reply means for the operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It was applied; a list has this length now, or a counter this value.
    Count(u64),
    /// The content of a list.
    List(Vec<u8>),
    /// What a register command came to.
    Outcome(Outcome),
    /// A session is open.
    Session(SessionId),
    /// Some answer or other.
    Something,
    /// It was not applied and may be asked again.
    Refused,
    /// Nobody knows.
    Unknown,
    /// The session is not open any more.
    Expired,
    /// Nothing that should ever be said.
    Wrong(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Count(count) => write!(f, "{count}"),
            Answer::List(bytes) => write!(f, "{} tokens", bytes.len() / TOKEN_LEN),
            Answer::Outcome(outcome) => write!(f, "{outcome}"),
            Answer::Session(id) => write!(f, "session {}", id.0),
            Answer::Something => f.write_str("an answer"),
            Answer::Refused => f.write_str("a refusal"),
            Answer::Unknown => f.write_str("a time-out"),
            Answer::Expired => f.write_str("that the session has expired"),
            Answer::Wrong(what) => f.write_str(what),
        }
    }
}

impl Answer {
    pub(crate) fn new(kind: &Kind, reply: WireReply) -> Answer {
        if let WireReply::Error(text) = &reply {
            match text.split(' ').next() {
                Some("NOQUORUM" | "BUSY" | "LOADING") => return Answer::Refused,
                Some("TIMEOUT") => return Answer::Unknown,
                _ if text.starts_with("ERR session expired") => return Answer::Expired,
                _ => {}
            }
        }
        let count = |n: i64, unit: usize| match u64::try_from(n) {
            Ok(n) => Answer::Count(n / unit as u64),
            Err(_) => Answer::Wrong(format!("count {n}")),
        };
        match (kind, reply) {
            (Kind::Any(_), _) => Answer::Something,
            (Kind::Open, WireReply::Integer(id)) => match u64::try_from(id) {
                Ok(id) => Answer::Session(SessionId(id)),
                Err(_) => Answer::Wrong(format!("session {id}")),
            },
            (Kind::Append, WireReply::Integer(n)) => count(n, TOKEN_LEN),
            (Kind::Incr, WireReply::Integer(n)) => count(n, 1),
            (Kind::Get(_), WireReply::Bulk(bytes)) => Answer::List(bytes),
            (Kind::Get(_), WireReply::Nil) => Answer::List(Vec::new()),
            (Kind::Register(command, _), reply) => {
                let wrong = || Answer::Wrong(format!("{reply:?}"));
                outcome(command, &reply).map_or_else(wrong, Answer::Outcome)
            }
            (_, reply) => Answer::Wrong(format!("{reply:?}")),
        }
    }
}
