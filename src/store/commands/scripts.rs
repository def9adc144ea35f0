//! `EVAL` and `EVALSHA` of scripts that lock libraries send: known by their SHA-1, and done here as what they mean.
//!
//! There is no Lua in this server. Any other script is refused in the words with which Redis says that it does not
//! know one.

use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run};
use crate::store::error::CommandError;
use crate::store::sha1::sha1_hex;
use crate::store::{Applied, EventClass, Store};
use crate::types::{Millis, Reply};

use super::{WRITE, is, parse_integer};

const EVAL: CommandSpec = CommandSpec {
    name: "EVAL",
    code: 60,
    arity: -3,
    keys: KeyPositions::NONE,
    group: Group::Scripting,
    usage: "script numkeys [key ...] [argument ...]",
    summary: "does what a script of a well-known lock library means; others are refused",
    check: check_eval,
    run: Run::Write(eval),
    ..WRITE
};

pub(crate) static COMMANDS: [CommandSpec; 3] = [
    EVAL,
    CommandSpec {
        name: "EVALSHA",
        code: 61,
        usage: "sha1 numkeys [key ...] [argument ...]",
        check: check_evalsha,
        run: Run::Write(evalsha),
        ..EVAL
    },
    CommandSpec {
        name: "SCRIPT",
        code: 240,
        arity: -2,
        subcommands: &[("LOAD", 3), ("EXISTS", -3), ("FLUSH", -2)],
        class: Class::Connection,
        usage: "LOAD script | EXISTS sha1 [sha1 ...] | FLUSH",
        summary: "tells which scripts are known",
        check: super::no_check,
        run: Run::Node,
        ..EVAL
    },
];

/// What a script means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Script {
    /// Deletes those keys that have the value, answers how many.
    Release,
    /// Adds to the time to live of a key that has the value, or replaces it.
    Extend,
    /// Sets the time to live of a key that has the value.
    Reacquire,
    /// Sets all keys for some time, if none exists.
    AcquireAll,
    /// Sets all keys anew for some time, if all have the value.
    ExtendAll,
}

/// The scripts of redis-py's `Lock`, of node's redlock 4 and 5, and the ones in Redis' own documentation.
const KNOWN: [(&str, Script); 14] = [
    ("c3f8721cbb97f72bc19e972846bd7aaf91901658", Script::Release),
    ("a4e8783852e6b949f9ef3a97212805108459a890", Script::Extend),
    ("1cac51482acf5858da00f6d685d68f886cd6b6b2", Script::Reacquire),
    ("96da70f7716f27d278a5218544df37fd8b0a5e4c", Script::AcquireAll),
    ("aed6f382e410db8ba7926d4e5e9aab410bf2a78a", Script::ExtendAll),
    ("e4612211c9f8f51c257e26e056b0a654b3187242", Script::Release),
    ("e5a322e2634ef59a516e8ea150cb085afafee684", Script::AcquireAll),
    ("ce46f80993d5dac20dd066eb301a4e37994bdbed", Script::ExtendAll),
    ("0f0f23b9048b36752b5be114f357ba083449f908", Script::Release),
    ("647c65a442733a1aa440f99908d249d13b4d6c4a", Script::Release),
    ("b70c2384248f88e6b75b9f89241a180f856ad852", Script::Release),
    ("cf0e94b2e9ffc7e04395cf88f7583fc309985910", Script::Release),
    ("36e94d1c6e02fcefaa7ee5d79eee614dbac55f10", Script::Reacquire),
    ("a7aba3bc5d6e99b3003da8b9d80a63b9f4092ecf", Script::Reacquire),
];

/// The SHA-1 of a script, if it is a known one.
pub fn known_script(script: &[u8]) -> Option<String> {
    let sha = sha1_hex(script);
    is_known_sha(sha.as_bytes()).then_some(sha)
}

/// Whether this is the SHA-1 of a known script.
pub fn is_known_sha(sha: &[u8]) -> bool {
    find(sha).is_some()
}

fn find(sha: &[u8]) -> Option<Script> {
    KNOWN.iter().find(|(known, _)| is(sha, known)).map(|(_, script)| *script)
}

/// A script with its keys and arguments.
struct Call<'a> {
    script: Script,
    keys: &'a [&'a [u8]],
    arguments: &'a [&'a [u8]],
}

impl<'a> Call<'a> {
    fn new(arguments: &'a [&'a [u8]], is_sha: bool) -> Result<Call<'a>, CommandError> {
        let [script, count, rest @ ..] = arguments else { return Err(CommandError::Syntax) };
        if is_sha && script.len() != 40 {
            return Err(CommandError::NoScript);
        }
        let count = parse_integer(count)?;
        let count = usize::try_from(count).map_err(|_| CommandError::NegativeKeyCount)?;
        if count > rest.len() {
            return Err(CommandError::TooManyKeys);
        }
        let found = if is_sha { find(script) } else { find(sha1_hex(script).as_bytes()) };
        let script =
            found.ok_or(if is_sha { CommandError::NoScript } else { CommandError::NoInterpreter })?;
        let (keys, arguments) = rest.split_at(count);
        if keys.iter().any(|key| key.len() > crate::types::limits::KEY_LEN_MAX) {
            return Err(CommandError::KeyTooLong {
                len: keys.iter().map(|key| key.len()).max().unwrap_or(0),
            });
        }
        let (keys_min, arguments_min) = match script {
            Script::Release => (1, 1),
            Script::Extend => (1, 3),
            Script::Reacquire | Script::AcquireAll | Script::ExtendAll => (1, 2),
        };
        if keys.len() < keys_min || arguments.len() < arguments_min {
            return Err(CommandError::Syntax);
        }
        if script != Script::Release {
            parse_integer(arguments[1])?;
        }
        Ok(Call { script, keys, arguments })
    }

    fn run(&self, store: &mut Store, at: Applied) -> Answer {
        let value = self.arguments[0];
        let has_value = |store: &Store, key: &[u8]| store.keys.value(key).is_some_and(|v| v == value);
        let count = i64::try_from(self.keys.len()).unwrap_or(i64::MAX);
        Ok(Reply::Integer(match self.script {
            Script::Release => {
                let mut released = 0;
                for key in self.keys {
                    if has_value(store, key) {
                        store.keys.remove(key);
                        store.note(EventClass::Generic, "del", key);
                        released += 1;
                    }
                }
                released
            }
            Script::Extend | Script::Reacquire => {
                let key = self.keys[0];
                if !has_value(store, key) {
                    return Ok(Reply::Integer(0));
                }
                let old = store.keys.get(key).and_then(|item| item.deadline());
                let adds = self.script == Script::Extend && self.arguments[2] == b"0";
                let base = match (self.script, old) {
                    (Script::Extend, None) => return Ok(Reply::Integer(0)),
                    (_, Some(old)) if adds => old,
                    _ => at.now,
                };
                let deadline = later(base, parse_integer(self.arguments[1])?, "pexpire")?;
                store.keys.set_until(key, value, at.index, Some(deadline));
                store.note(EventClass::Generic, "expire", key);
                1
            }
            Script::AcquireAll if self.keys.iter().any(|key| store.keys.get(key).is_some()) => 0,
            Script::ExtendAll if !self.keys.iter().all(|key| has_value(store, key)) => 0,
            Script::AcquireAll | Script::ExtendAll => {
                let ttl = parse_integer(self.arguments[1])?;
                if ttl <= 0 {
                    return Err(CommandError::InvalidExpireTime { command: "set" });
                }
                let deadline = later(at.now, ttl, "set")?;
                for key in self.keys {
                    store.keys.set_until(key, value, at.index, Some(deadline));
                    store.note(EventClass::String, "set", key);
                    store.note(EventClass::Generic, "expire", key);
                }
                count
            }
        }))
    }
}

/// The moment so many milliseconds later, or earlier.
fn later(base: Millis, millis: i64, command: &'static str) -> Result<Millis, CommandError> {
    // Before the beginning of time is as good as any moment that has passed.
    let time = i64::try_from(base.0).ok().and_then(|base| base.checked_add(millis));
    let time = time.ok_or(CommandError::InvalidExpireTime { command })?;
    Ok(Millis(u64::try_from(time).unwrap_or(0)))
}

fn check_eval(arguments: &[&[u8]]) -> Result<(), CommandError> {
    Call::new(arguments, false).map(|_| ())
}

fn eval(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    Call::new(arguments, false)?.run(store, at)
}

fn check_evalsha(arguments: &[&[u8]]) -> Result<(), CommandError> {
    Call::new(arguments, true).map(|_| ())
}

fn evalsha(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    Call::new(arguments, true)?.run(store, at)
}
