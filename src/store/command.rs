//! The table of all commands: what each is called, what it takes, and what runs it.
//!
//! Every dialect, the log, `HELP` and `COMMAND` go by this one table. A family of commands is one file below
//! `commands/`: a static slice of specs with the functions that check and run them beside it. A new command is
//! one more spec in its family; a new family is one more line in [`FAMILIES`].
//!
//! Names and codes are indexed at compile time, and the build fails if two commands share a name or a code.
//! **Codes are for ever**: they are what a batch in the log holds, so a code is never changed and never used
//! again.

use crate::types::{Reply, limits};

use super::commands::{
    bits, connection, counters, dump, expiry, keys, lcs, listing, locks, messages, ranges, scripts, session,
    strings, transaction, versions,
};
use super::error::{CommandError, excerpt};
use super::long_read::Task;
use super::under_way::Progress;
use super::{Applied, Limits, Store};

/// What a command needs to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Changes the store: multicast, then applied.
    Write,
    /// Looks at the store: from the store, or multicast too if the client wants ordered reads.
    Read,
    /// About the connection or the node: answered by the node, never multicast.
    Connection,
    /// Multicast like a write, but by nodes of their own accord: no client can name it.
    Internal,
}

/// Under which heading a command is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Whole keys, whatever their value is.
    Generic,
    /// Values that are strings of bytes.
    String,
    /// Values that are rows of bits.
    Bitmap,
    /// Locks with fencing tokens.
    Lock,
    /// Scripts of lock libraries.
    Scripting,
    /// Several commands as one.
    Transactions,
    /// Messages.
    Pubsub,
    /// Client sessions.
    Session,
    /// The connection.
    Connection,
    /// The node and the cluster.
    Server,
}

impl Group {
    /// The heading, as Redis names it where it has the same.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::Lock => "lock",
            Group::Scripting => "scripting",
            Group::Transactions => "transactions",
            Group::Pubsub => "pubsub",
            Group::Session => "session",
            Group::Connection => "connection",
            Group::Server => "server",
        }
    }
}

/// Which arguments are keys, counted as Redis does: the name is 0, a negative `last` counts from the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyPositions {
    /// The first key; 0: there are none.
    pub first: u8,
    /// The last key: -1 is the last argument.
    pub last: i8,
    /// From one key to the next.
    pub step: u8,
}

impl KeyPositions {
    /// No argument is a key.
    pub const NONE: KeyPositions = KeyPositions { first: 0, last: 0, step: 0 };
    /// The first argument is a key.
    pub const ONE: KeyPositions = KeyPositions { first: 1, last: 1, step: 1 };
    /// All arguments are keys.
    pub const ALL: KeyPositions = KeyPositions { first: 1, last: -1, step: 1 };
    /// Keys and values take turns.
    pub const PAIRS: KeyPositions = KeyPositions { first: 1, last: -1, step: 2 };

    /// Whether the argument at `index` is a key; without the name there are `count`, the first has index 0.
    pub fn is_key(self, index: usize, count: usize) -> bool {
        let (Some(first), step) = (usize::from(self.first).checked_sub(1), usize::from(self.step)) else {
            return false;
        };
        let last = match usize::try_from(self.last) {
            Ok(last) => last,
            Err(_) => (count + 1).saturating_sub(usize::from(self.last.unsigned_abs())),
        };
        index >= first && index < last && (index - first).is_multiple_of(step)
    }
}

/// What a command's function answers.
pub(crate) type Answer = Result<Reply, CommandError>;

/// The function behind a command. It gets arguments that [`CommandSpec::validate`] has let pass.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    Read(fn(&Store, &[&[u8]]) -> Answer),
    Write(fn(&mut Store, Applied, &[&[u8]]) -> Answer),
    /// Writes that may take long: begins, without having done anything yet.
    Pieces(fn(&[&[u8]]) -> Result<Progress, CommandError>),
    /// There is none here: the node's business.
    Node,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct CommandSpec {
    /// Its name, in upper case.
    pub name: &'static str,
    /// Its number in batches and logs, stable for ever; an alias has the number of what it stands for.
    pub code: u8,
    /// How many arguments it takes, the name included; negative: at least so many. Redis' convention.
    pub arity: i32,
    /// What it needs to be answered.
    pub class: Class,
    /// Which arguments are keys.
    pub keys: KeyPositions,
    /// The heading it is listed under.
    pub group: Group,
    /// Its arguments, as a manual shows them.
    pub usage: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The words that its first argument may be, each with the arity of the whole as in `arity`; none: anything.
    pub subcommands: &'static [(&'static str, i32)],
    /// The command that this is another name of.
    pub alias_of: Option<&'static str>,
    /// Refuses what arity and lengths let pass.
    pub(crate) check: fn(&[&[u8]]) -> Result<(), CommandError>,
    /// Answers it.
    pub(crate) run: Run,
    /// If it may take long.
    pub(crate) long: Option<Long>,
}

/// How a read that takes long is done in pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Long {
    /// When it does.
    pub(crate) when: When,
    /// Begins it; the arguments are right.
    pub(crate) begin: fn(&Store, &[&[u8]]) -> Task,
}

/// When a read takes long.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// With so many arguments or more.
    Arguments(usize),
    /// That shows when it is tried.
    Tried,
}

impl CommandSpec {
    /// How it is done in pieces, if with these arguments it takes long or may do so.
    pub(crate) fn long_with(&self, arguments: &[&[u8]]) -> Option<Long> {
        self.long.filter(|long| match long.when {
            When::Arguments(count) => arguments.len() >= count,
            When::Tried => true,
        })
    }

    /// Refuses whatever can be refused without looking at the store.
    pub(crate) fn validate(&self, arguments: &[&[u8]], value_len_max: usize) -> Result<(), CommandError> {
        self.check_arity(arguments)?;
        for (index, argument) in arguments.iter().enumerate() {
            if self.keys.is_key(index, arguments.len()) {
                if argument.len() > limits::KEY_LEN_MAX {
                    return Err(CommandError::KeyTooLong { len: argument.len() });
                }
            } else if argument.len() > value_len_max {
                return Err(CommandError::ValueTooLong);
            }
        }
        (self.check)(arguments)
    }

    /// Looks at the number of arguments, and at the subcommand.
    fn check_arity(&self, arguments: &[&[u8]]) -> Result<(), CommandError> {
        if !fits(self.arity, arguments.len()) {
            return Err(self.wrong_arity());
        }
        let Some(found) = arguments.first().filter(|_| !self.subcommands.is_empty()) else { return Ok(()) };
        match self.subcommands.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(found)) {
            None => {
                Err(CommandError::UnknownSubcommand { command: self.name, found: excerpt(found, 128).into() })
            }
            Some((_, arity)) if fits(*arity, arguments.len()) => Ok(()),
            Some((word, _)) => {
                let name = format!("{}|{word}", self.name).to_ascii_lowercase().into();
                Err(CommandError::WrongArity { name })
            }
        }
    }

    fn wrong_arity(&self) -> CommandError {
        CommandError::WrongArity { name: self.name.to_ascii_lowercase().into() }
    }
}

/// Whether so many arguments, the name not counted, are neither too few nor too many.
fn fits(arity: i32, count: usize) -> bool {
    let count = i64::try_from(count).unwrap_or(i64::MAX).saturating_add(1);
    let arity = i64::from(arity);
    if arity >= 0 { count == arity } else { count >= -arity }
}

/// For commands whose arguments need no look beyond their number and lengths.
pub(crate) fn no_check(_: &[&[u8]]) -> Result<(), CommandError> {
    Ok(())
}

/// Refuses a command before it is multicast: number of arguments, syntax, lengths, numbers. `arguments` are
/// without the name.
///
/// The same is checked once more when the command is applied, except that `limits.value_len_max` is a setting
/// of this node: a log's commands are held to [`limits::VALUE_LEN_CEILING`] on all nodes alike.
///
/// A command that is refused here was not applied and has not used up its number in a client session; one that is
/// refused when applied has.
///
/// # Errors
/// The reply for the client, in Redis' words.
pub fn check(spec: &CommandSpec, arguments: &[&[u8]], limits: &Limits) -> Result<(), Reply> {
    spec.validate(arguments, limits.value_len_max).map_err(Reply::from)
}

/// Looks at the number of arguments and the subcommand only: what Redis does before it queues a command for `EXEC`.
///
/// # Errors
/// The reply for the client.
pub fn check_arity(spec: &CommandSpec, arguments: &[&[u8]]) -> Result<(), Reply> {
    spec.check_arity(arguments).map_err(Reply::from)
}

/// The reply to a command that does not exist. `arguments` are without the name.
pub fn unknown_command(name: &[u8], arguments: &[&[u8]]) -> Reply {
    const EXCERPT_LEN_MAX: usize = 128;
    let mut listed = String::new();
    for argument in arguments {
        if listed.len() >= EXCERPT_LEN_MAX {
            break;
        }
        let room = EXCERPT_LEN_MAX - listed.len();
        listed.push('\'');
        listed.push_str(&excerpt(argument, room));
        listed.push_str("' ");
    }
    let name = excerpt(name, EXCERPT_LEN_MAX).into();
    CommandError::UnknownCommand { name, arguments: listed.into() }.into()
}

/// All families, in the order in which they are listed.
static FAMILIES: [&[CommandSpec]; 16] = [
    &strings::COMMANDS,
    &ranges::COMMANDS,
    &counters::COMMANDS,
    &bits::COMMANDS,
    &lcs::COMMANDS,
    &keys::COMMANDS,
    &versions::COMMANDS,
    &expiry::COMMANDS,
    &listing::COMMANDS,
    &dump::COMMANDS,
    &locks::COMMANDS,
    &scripts::COMMANDS,
    &messages::COMMANDS,
    &transaction::COMMANDS,
    &session::COMMANDS,
    &connection::COMMANDS,
];

/// All commands that clients can give, aliases too, family by family.
pub fn all() -> impl Iterator<Item = &'static CommandSpec> {
    FAMILIES.iter().copied().flatten().filter(|spec| spec.class != Class::Internal)
}

/// The command with this name, in upper or lower case.
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    let mut bucket = name_hash(name) % BUCKET_COUNT;
    while let Some(place) = INDEX.names[bucket] {
        let spec = place.spec();
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        bucket = (bucket + 1) % BUCKET_COUNT;
    }
    None
}

/// The command with this code; never an alias.
pub fn by_code(code: u8) -> Option<&'static CommandSpec> {
    INDEX.codes[usize::from(code)].map(Place::spec)
}

/// Where in [`FAMILIES`] a spec is.
#[derive(Clone, Copy)]
struct Place {
    family: u8,
    member: u8,
}

impl Place {
    fn spec(self) -> &'static CommandSpec {
        &FAMILIES[usize::from(self.family)][usize::from(self.member)]
    }
}

/// Open addressing with linear probing: several times the number of commands, so that probes are short and an
/// empty bucket always ends them.
const BUCKET_COUNT: usize = 1024;

struct CommandIndex {
    names: [Option<Place>; BUCKET_COUNT],
    codes: [Option<Place>; 256],
}

static INDEX: CommandIndex = build_index();

/// FNV-1a of the name in upper case. Only as many bytes count as the longest name could have.
const fn name_hash(name: &[u8]) -> usize {
    const NAME_LEN_MAX: usize = 32;
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() && i < NAME_LEN_MAX {
        hash = (hash ^ name[i].to_ascii_uppercase() as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 16)) as usize
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

const fn build_index() -> CommandIndex {
    let mut index = CommandIndex { names: [None; BUCKET_COUNT], codes: [None; 256] };
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut member = 0;
        while member < FAMILIES[family].len() {
            let spec = &FAMILIES[family][member];
            assert!(family < 256 && member < 256, "a place is two bytes");
            #[expect(clippy::cast_possible_truncation, reason = "just compared")]
            let place = Place { family: family as u8, member: member as u8 };
            match (spec.class, spec.run) {
                (Class::Read, Run::Read(_))
                | (Class::Write | Class::Internal, Run::Write(_) | Run::Pieces(_))
                | (Class::Connection, Run::Node) => {}
                _ => panic!("a command's class does not fit its function"),
            }
            if spec.alias_of.is_none() {
                assert!(index.codes[spec.code as usize].is_none(), "two commands share a code");
                index.codes[spec.code as usize] = Some(place);
            }
            if matches!(spec.class, Class::Internal) {
                member += 1;
                continue;
            }
            let mut bucket = name_hash(spec.name.as_bytes()) % BUCKET_COUNT;
            while let Some(other) = index.names[bucket] {
                let other = FAMILIES[other.family as usize][other.member as usize].name;
                assert!(!equal(other.as_bytes(), spec.name.as_bytes()), "two commands share a name");
                bucket = (bucket + 1) % BUCKET_COUNT;
            }
            index.names[bucket] = Some(place);
            count += 1;
            member += 1;
        }
        family += 1;
    }
    assert!(count <= BUCKET_COUNT / 4, "the name index is too small");
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_nothing_else_is() {
        for spec in all() {
            let found = lookup(spec.name.as_bytes()).expect("listed");
            assert_eq!(found.name, spec.name);
            let found = lookup(spec.name.to_ascii_lowercase().as_bytes()).expect("listed");
            assert_eq!(found.name, spec.name);
            assert!(spec.name.bytes().all(|b| b.is_ascii_uppercase()), "{}", spec.name);
            assert!(spec.name.len() <= 32 && !spec.summary.ends_with('.') && spec.arity != 0);
        }
        for name in [b"".as_slice(), b"SE", b"SETT", b"\xff", &[b'x'; 100_000]] {
            assert!(lookup(name).is_none());
        }
    }

    /// A log written by any released version must mean the same for ever: this list only grows.
    #[test]
    fn codes_never_change() {
        let frozen = [
            (1, "SET"),
            (2, "GET"),
            (3, "DEL"),
            (4, "EXISTS"),
            (5, "INCR"),
            (6, "DECR"),
            (7, "INCRBY"),
            (8, "DECRBY"),
            (9, "APPEND"),
            (10, "STRLEN"),
            (11, "GETSET"),
            (12, "SETNX"),
            (13, "MSET"),
            (14, "MGET"),
            (15, "KEYS"),
            (16, "DBSIZE"),
            (17, "FLUSHALL"),
            (18, "CAS"),
            (19, "SESSION"),
            (20, "MSETNX"),
            (21, "GETDEL"),
            (22, "GETEX"),
            (23, "SETEX"),
            (24, "PSETEX"),
            (25, "INCRBYFLOAT"),
            (26, "GETRANGE"),
            (27, "SETRANGE"),
            (28, "LCS"),
            (29, "SETBIT"),
            (30, "GETBIT"),
            (31, "BITCOUNT"),
            (32, "BITPOS"),
            (33, "BITOP"),
            (35, "TYPE"),
            (36, "SCAN"),
            (37, "RANDOMKEY"),
            (38, "RENAME"),
            (39, "RENAMENX"),
            (40, "COPY"),
            (41, "EXPIRE"),
            (42, "PEXPIRE"),
            (43, "EXPIREAT"),
            (44, "PEXPIREAT"),
            (45, "TTL"),
            (46, "PTTL"),
            (47, "EXPIRETIME"),
            (48, "PEXPIRETIME"),
            (49, "PERSIST"),
            (50, "OBJECT"),
            (51, "DUMP"),
            (52, "RESTORE"),
            (53, "GETREV"),
            (54, "DELEX"),
            (55, "DELIFEQ"),
            (56, "DIGEST"),
            (57, "LOCK"),
            (58, "RENEW"),
            (59, "UNLOCK"),
            (60, "EVAL"),
            (61, "EVALSHA"),
            (62, "PUBLISH"),
            (65, "MEMORY"),
        ];
        for (code, name) in [(63, "TICK"), (64, "TRANSACTION")] {
            assert_eq!(by_code(code).map(|spec| (spec.name, spec.class)), Some((name, Class::Internal)));
            assert!(lookup(name.as_bytes()).is_none(), "{name} is not for clients");
        }
        for (code, name) in frozen {
            assert_eq!(by_code(code).map(|spec| spec.name), Some(name));
        }
        let logged = all().filter(|s| s.class != Class::Connection && s.alias_of.is_none());
        assert_eq!(logged.count(), frozen.len(), "a new command belongs into this list");
        for spec in all() {
            let canonical = by_code(spec.code).expect("every code is indexed");
            assert_eq!(canonical.name, spec.alias_of.unwrap_or(spec.name));
        }
    }

    #[test]
    fn keys_are_told_from_values() {
        let keys = |positions: KeyPositions, count: usize| {
            (0..count).filter(|&i| positions.is_key(i, count)).collect::<Vec<_>>()
        };
        assert_eq!(keys(KeyPositions::NONE, 3), [0; 0]);
        assert_eq!(keys(KeyPositions::ONE, 3), [0]);
        assert_eq!(keys(KeyPositions::ALL, 3), [0, 1, 2]);
        assert_eq!(keys(KeyPositions::PAIRS, 4), [0, 2]);
        assert_eq!(keys(KeyPositions { first: 2, last: -2, step: 1 }, 4), [1, 2]);
    }

    fn refusal(line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let limits = Limits { value_len_max: 20, ..Limits::default() };
        match lookup(words[0]) {
            None => match unknown_command(words[0], &words[1..]) {
                Reply::Error(text) => text.into(),
                other => panic!("{other:?}"),
            },
            Some(spec) => match check(spec, &words[1..], &limits) {
                Err(Reply::Error(text)) => text.into(),
                other => format!("{other:?}"),
            },
        }
    }

    #[test]
    fn commands_are_refused_in_redis_words() {
        for (line, words) in [
            ("get", "ERR wrong number of arguments for 'get' command"),
            ("GET a b", "ERR wrong number of arguments for 'get' command"),
            ("PUT a", "ERR wrong number of arguments for 'put' command"),
            ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
            ("SET a 1 NX XX", "ERR syntax error"),
            ("SET a 1 FOO", "ERR syntax error"),
            ("FLUSHALL NOW", "ERR syntax error"),
            ("INCRBY a 1.5", "ERR value is not an integer or out of range"),
            ("INCRBY a 9223372036854775808", "ERR value is not an integer or out of range"),
            ("DECRBY a -9223372036854775808", "ERR decrement would overflow"),
            ("SET a 123456789012345678901", "ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
            ("SESSION SHUT", "ERR unknown subcommand 'SHUT'. Try SESSION HELP."),
            ("SESSION OPEN x", "ERR wrong number of arguments for 'session|open' command"),
            ("PING a b", "ERR wrong number of arguments for 'ping' command"),
            ("foo", "ERR unknown command 'foo', with args beginning with: "),
            ("foo bar baz", "ERR unknown command 'foo', with args beginning with: 'bar' 'baz' "),
            ("SET a 1 nx get", "Ok(())"),
            ("KEYS *", "Ok(())"),
        ] {
            assert_eq!(refusal(line), words, "{line}");
        }
        let long = vec![b'k'; limits::KEY_LEN_MAX + 1];
        let get = lookup(b"GET").expect("listed");
        let mget = lookup(b"MGET").expect("listed");
        assert_eq!(check(get, &[&long[1..]], &Limits::default()), Ok(()));
        assert!(check(mget, &[b"a", &long], &Limits::default()).is_err());
    }

    #[test]
    fn an_unknown_command_is_quoted_on_one_short_line() {
        let long = [b'x'; 1000];
        let Reply::Error(text) = unknown_command(b"a\r\nb\xff", &[b"c\nd", &long, b"never"]) else {
            panic!("no error")
        };
        assert!(text.starts_with("ERR unknown command 'a  b\u{fffd}', with args beginning with: 'c d' 'xxx"));
        assert!(text.len() < 250 && !text.contains("never") && !text.contains(['\r', '\n']));
    }
}
