//! `DEBUG`: what those who test a client or a cluster ask for.
//!
//! Most of Redis' subcommands look into the inside of a Redis, or break it on purpose; they are refused, each by the
//! reason. What is here: the digest of the state, samples of every type of reply, and a node that stands still.

use std::time::Duration;

use crate::store::CommandError;
use crate::types::Reply;

use super::backend::Backend;
use super::clients::Client;
use super::commands::{Outcome, Question, is, wrong_arity, wrong_subcommand};

/// The longest that a node can be made to stand still by one connection's turn: long enough to be taken for dead by
/// any suspicion time-out that is of use, short enough that a mistaken command is not an outage.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What Redis 7 knows and this server refuses, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("AOF-FLUSH-SLEEP", INSIDE),
    ("ASSERT", BREAKS),
    ("CHANGE-REPL-ID", "there are no replicas"),
    ("CLIENT-ENFORCE-REPLY-LIST", INSIDE),
    ("CLIENT-EVICTION", INSIDE),
    ("CONFIG-REWRITE-FORCE-ALL", "the configuration file is not written by a node"),
    ("CRASH-AND-RECOVER", BREAKS),
    ("DICT-RESIZING", INSIDE),
    ("DIGEST-VALUE", INSIDE),
    ("DROP-CLUSTER-PACKET-FILTER", INSIDE),
    ("ERROR", INSIDE),
    ("HTSTATS", INSIDE),
    ("HTSTATS-KEY", INSIDE),
    ("JMAP", INSIDE),
    ("LEAK", BREAKS),
    ("LISTPACK", INSIDE),
    ("LISTPACK-ENTRIES", INSIDE),
    ("LOADAOF", "a running node does not read its log again"),
    ("LOG", INSIDE),
    ("MALLCTL", INSIDE),
    ("MALLCTL-STR", INSIDE),
    ("OBJECT", "OBJECT ENCODING tells what a Redis would"),
    ("OOM", BREAKS),
    ("PANIC", BREAKS),
    ("PAUSE-CRON", INSIDE),
    ("POPULATE", "a node does not invent keys"),
    ("QUICKLIST", INSIDE),
    ("QUICKLIST-PACKED-THRESHOLD", INSIDE),
    ("RELOAD", "a running node does not read its log again"),
    ("REPLICATE", "there are no replicas"),
    ("REPLYBUFFER", INSIDE),
    ("RESTART", "a node is restarted by whoever runs its machine"),
    ("SDSLEN", INSIDE),
    ("SEGFAULT", BREAKS),
    ("SET-ACTIVE-EXPIRE", "what has expired is decided alike on all nodes"),
    ("SET-DISABLE-DENY-SCRIPTS", "there is no Lua"),
    ("STRINGMATCH-LEN", INSIDE),
    ("STRUCTSIZE", INSIDE),
    ("ZIPLIST", INSIDE),
];

const INSIDE: &str = "it is about the inside of a Redis";
const BREAKS: &str = "a node is not broken by a command";

const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DIGEST",
    "    Answer the index and the digest of this node's state.",
    "PROTOCOL <type>",
    "    Reply with a test value of the specified type. <type> can be: string,",
    "    integer, double, null, array, set, map, verbatim, true, false, bignum.",
    "SLEEP <seconds>",
    "    Stop the node for <seconds>, at most 60. Decimals allowed.",
    "HELP",
    "    Print this help.",
];

/// Answers DEBUG.
pub(super) fn debug(client: &Client, backend: &mut Backend, arguments: &[&[u8]]) -> Outcome {
    match arguments {
        [word] if is(word, "DIGEST") => return Outcome::Ask(Question::Digest),
        [word] if is(word, "HELP") => Reply::Array(HELP.iter().copied().map(Reply::Status).collect()),
        [word, kind] if is(word, "PROTOCOL") => protocol(kind),
        [word, seconds] if is(word, "SLEEP") => sleep(client, backend, seconds),
        [] => wrong_arity("debug"),
        [word, ..] => match REFUSED.iter().find(|(name, _)| is(word, name)) {
            Some((name, reason)) => Reply::error(format!("ERR DEBUG {name} is not served: {reason}")),
            None => wrong_subcommand("DEBUG", word),
        },
    }
    .into()
}

fn protocol(kind: &[u8]) -> Reply {
    let items = || (0..3).map(Reply::Integer).collect();
    let pairs = || (0..3).flat_map(|n| [Reply::Integer(n), Reply::Boolean(n == 1)]).collect();
    match () {
        () if is(kind, "STRING") => Reply::bulk(b"Hello World"),
        () if is(kind, "INTEGER") => Reply::Integer(12345),
        () if is(kind, "DOUBLE") => Reply::Double("3.141".into()),
        () if is(kind, "NULL") => Reply::Nil,
        () if is(kind, "ARRAY") => Reply::Array(items()),
        () if is(kind, "SET") => Reply::Set(items()),
        () if is(kind, "MAP") => Reply::Map(pairs()),
        () if is(kind, "VERBATIM") => Reply::Verbatim(b"This is a verbatim\nstring"[..].into()),
        () if is(kind, "TRUE") => Reply::Boolean(true),
        () if is(kind, "FALSE") => Reply::Boolean(false),
        () if is(kind, "BIGNUM") => Reply::BigNumber("1234567999999999999999999999999999999".into()),
        () => Reply::error(
            "ERR Wrong protocol type name. Please use one of the following: \
             string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
        ),
    }
}

/// Stops the whole loop, as a stalled machine would: nothing is answered, nobody is voted for, and the others go on
/// without this node. A fault for tests, so whoever is allowed to run it sits at the machine.
fn sleep(client: &Client, backend: &mut Backend, seconds: &[u8]) -> Reply {
    if !client.is_local() {
        return Reply::error("ERR DEBUG SLEEP is for clients on the node's own machine");
    }
    let seconds = str::from_utf8(seconds).ok().and_then(|text| text.parse().ok());
    let Some(length) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return CommandError::NotAFloat.into();
    };
    let total = backend.sleep_wanted.saturating_add(length);
    if total > SLEEP_MAX {
        return Reply::error(format!("ERR a node sleeps for at most {} seconds", SLEEP_MAX.as_secs()));
    }
    backend.sleep_wanted = total;
    Reply::OK
}
