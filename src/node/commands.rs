//! Commands about the connection and the node: everything of class `Connection` in the store's table.
//!
//! None of them is multicast. Those that change how later commands are understood (`HELLO`,
//! `CONSISTENCY`, `QUIT` …) act as soon as they are decoded; what they answer, and what the others ask,
//! comes in its turn like any reply.

use crate::dialect::{ReplyStyle, RespVersion};
use crate::store::{self, CommandError, CommandSpec, is_known_sha, known_script};
use crate::types::{Index, Reply, SnapshotId, decimal};
use crate::wire::client::Consistency;

use super::backend::{Backend, REDIS_VERSION};
use super::client_command::{client_command, is_about_replies};
use super::clients::{Client, Replies};
use super::cluster_view::{Endpoint, NO_CLUSTER, is_about_keys};
use super::config_command::config;
use super::debug_command::debug;
use super::describe;
use super::queue::{Needs, Part, State, pack};
use super::snapshots::Later;
use super::subscribers::unsubscribe_all;
use super::talk::Talk;

/// What is asked of the node, to be answered when the commands before it are.
#[derive(Debug)]
pub(super) enum Question {
    /// INFO with these sections, asked at this endpoint.
    Info(Endpoint, Vec<Box<[u8]>>),
    /// The index and the digest of the store at one moment.
    Digest,
    /// ROLE.
    Role,
    /// TIME.
    Time,
    /// LASTSAVE.
    LastSave,
    /// CLUSTER with these arguments, asked at this endpoint.
    Cluster(Endpoint, Vec<Box<[u8]>>),
    /// How many other nodes are sure to hold what has been acknowledged.
    Holders,
}

/// What becomes of a command.
pub(super) enum Outcome {
    Reply(Reply),
    Ask(Question),
    /// The store answers it, as it is.
    Read,
    Later(Later),
    /// Nothing is answered.
    Silence,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Outcome {
        Outcome::Reply(reply)
    }
}

const LONGEST_NAME: usize = 512;

/// Carries out a command of class `Connection`; its number of arguments and its syntax are checked as far
/// as the table does that.
pub(super) fn carry_out(
    client: &mut Client,
    backend: &mut Backend,
    mut style: ReplyStyle,
    spec: &CommandSpec,
    arguments: &[&[u8]],
) {
    let (outcome, looks) = weighed_outcome(client, backend, &mut style, spec, arguments);
    match outcome {
        // Who wants no replies is not told that either.
        _ if client.replies != Replies::On && is_about_replies(spec, arguments) => {}
        Outcome::Reply(reply) => {
            backend.talk.pay(&reply, looks);
            client.queue.push_settled(style, reply);
        }
        Outcome::Silence => {}
        Outcome::Ask(question) => {
            client.queue.push(style, State::Ask(question));
        }
        Outcome::Read => {
            let (code, arguments) = (spec.code, pack(arguments));
            client.queue.push(style, State::Read { code, arguments, needs: Needs::Nothing });
        }
        Outcome::Later(later) => {
            let slot = client.queue.push(style, State::Later);
            backend.snapshots.ask(client.key, slot, later);
        }
    }
}

fn snapshot(arguments: &[&[u8]]) -> Outcome {
    match arguments {
        [word] if is(word, "BEGIN") => Outcome::Later(Later::Backup),
        [word, index, digest, block] if is(word, "READ") => {
            let index = number(index).and_then(|index| u64::try_from(index).ok()).map(Index);
            let digest = str::from_utf8(digest).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
            let block = number(block).and_then(|block| u32::try_from(block).ok());
            let (Some(index), Some(digest), Some(block)) = (index, digest, block) else {
                return Reply::from(CommandError::NotAnInteger).into();
            };
            Outcome::Later(Later::Block { id: SnapshotId { index, digest }, block })
        }
        _ => unknown_subcommand("SNAPSHOT", arguments).into(),
    }
}

/// Carries a command out as part of a transaction, which may say so much about the node.
pub(super) fn carry_out_part(
    client: &mut Client,
    backend: &mut Backend,
    mut style: ReplyStyle,
    spec: &CommandSpec,
    arguments: &[&[u8]],
    talk: &mut Talk,
) -> Part {
    if let Some(refusal) = talk.refusal() {
        return Part::Ready(refusal);
    }
    if let Err(reply) = store::check(spec, arguments, &backend.settings.store) {
        return Part::Ready(reply);
    }
    let (outcome, looks) = weighed_outcome(client, backend, &mut style, spec, arguments);
    match outcome {
        Outcome::Reply(reply) => {
            talk.pay(&reply, looks);
            Part::Ready(reply)
        }
        Outcome::Ask(question) => {
            talk.pay_question();
            Part::Ask(question)
        }
        Outcome::Read | Outcome::Later(_) | Outcome::Silence => {
            Part::Ready(Reply::error("ERR Command not allowed inside a transaction"))
        }
    }
}

/// What becomes of a command, and the work of looking for that.
fn weighed_outcome(
    client: &mut Client,
    backend: &mut Backend,
    style: &mut ReplyStyle,
    spec: &CommandSpec,
    arguments: &[&[u8]],
) -> (Outcome, u64) {
    let before = backend.store.work();
    let outcome = outcome(client, backend, style, spec, arguments);
    (outcome, backend.store.work().wrapping_sub(before))
}

fn outcome(
    client: &mut Client,
    backend: &mut Backend,
    style: &mut ReplyStyle,
    spec: &CommandSpec,
    arguments: &[&[u8]],
) -> Outcome {
    match spec.name {
        "PING" if *style == ReplyStyle::Resp2 && !client.subscriptions.is_empty() => {
            let message = arguments.first().copied().unwrap_or_default();
            Reply::Array(vec![Reply::bulk(b"pong"), Reply::bulk(message)]).into()
        }
        "PING" => match arguments {
            [] => Reply::Status("PONG").into(),
            [message, ..] => Reply::bulk(message).into(),
        },
        "ECHO" => Reply::bulk(arguments[0]).into(),
        "QUIT" => {
            client.ended = true;
            Reply::OK.into()
        }
        "CONSISTENCY" => consistency(client, arguments).into(),
        "READONLY" => {
            client.consistency = Consistency::Local;
            Reply::OK.into()
        }
        "READWRITE" => {
            client.consistency = Consistency::Linearizable;
            Reply::OK.into()
        }
        // What the check lets through; there is nothing to be done.
        "SELECT" | "SWAPDB" => Reply::OK.into(),
        "SAVE" => Outcome::Later(Later::Save),
        "ASKING" if !backend.settings.cluster_view.is_shown_at(client.endpoint) => {
            Reply::error(NO_CLUSTER).into()
        }
        "ASKING" => Reply::OK.into(),
        "BGSAVE" => {
            backend.snapshots.want_now();
            Reply::Status("Background saving started").into()
        }
        "LASTSAVE" => Outcome::Ask(Question::LastSave),
        "HELLO" => hello(client, backend, style, arguments).into(),
        "RESET" => {
            client.consistency = Consistency::default();
            client.name = Box::default();
            client.transaction = None;
            client.replies = Replies::On;
            client.queue.unwatch();
            unsubscribe_all(client, backend);
            set_resp(client, style, RespVersion::Resp2);
            Reply::Status("RESET").into()
        }
        "AUTH" => auth(arguments).into(),
        "CLIENT" => client_command(client, backend, arguments).into(),
        "UNWATCH" => Reply::OK.into(),
        "HELP" => help(arguments).into(),
        "COMMAND" => describe::command(arguments).into(),
        "INFO" => Outcome::Ask(Question::Info(client.endpoint, owned(arguments))),
        "DEBUG" => debug(client, backend, arguments),
        "TIME" => Outcome::Ask(Question::Time),
        "ROLE" => Outcome::Ask(Question::Role),
        "WAIT" => wait(arguments),
        "CONFIG" => config(backend, client.endpoint, arguments).into(),
        "SNAPSHOT" => snapshot(arguments),
        "CLUSTER"
            if is_about_keys(arguments) && backend.settings.cluster_view.is_shown_at(client.endpoint) =>
        {
            Outcome::Read
        }
        "CLUSTER" => Outcome::Ask(Question::Cluster(client.endpoint, owned(arguments))),
        "PUBSUB" => pubsub(backend, arguments).into(),
        "SCRIPT" => script(arguments).into(),
        "FUNCTION" => function(arguments).into(),
        "SLOWLOG" => match arguments {
            [word, count] if is(word, "GET") && number(count).is_none_or(|count| count < -1) => {
                Reply::error("ERR count should be greater than or equal to -1").into()
            }
            [word, _, _, ..] if is(word, "GET") => wrong_subcommand("SLOWLOG", word).into(),
            [word, ..] if is(word, "GET") => Reply::Array(Vec::new()).into(),
            [word] if is(word, "LEN") => Reply::Integer(0).into(),
            [word] if is(word, "RESET") => Reply::OK.into(),
            _ => unknown_subcommand("SLOWLOG", arguments).into(),
        },
        "LATENCY" => match arguments {
            [word] if is(word, "LATEST") => Reply::Array(Vec::new()).into(),
            [word, _] if is(word, "HISTORY") => Reply::Array(Vec::new()).into(),
            [word, ..] if is(word, "RESET") => Reply::Integer(0).into(),
            _ => unknown_subcommand("LATENCY", arguments).into(),
        },
        "SHUTDOWN" => shutdown(client, backend, *style, arguments),
        name => Reply::error(format!("ERR '{name}' is not served by this node")).into(),
    }
}

fn owned(arguments: &[&[u8]]) -> Vec<Box<[u8]>> {
    arguments.iter().map(|argument| Box::from(*argument)).collect()
}

pub(super) fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The first bytes of an argument, fit for an error's line.
pub(super) fn excerpt(argument: &[u8]) -> String {
    store::excerpt(argument, 128).replace(['\r', '\n'], " ")
}

pub(super) fn unknown_subcommand(command: &'static str, arguments: &[&[u8]]) -> Reply {
    let found = excerpt(arguments.first().copied().unwrap_or_default()).into();
    CommandError::UnknownSubcommand { command, found }.into()
}

/// What Redis says where a subcommand itself finds that it has too many arguments.
pub(super) fn wrong_subcommand(command: &str, word: &[u8]) -> Reply {
    let word = excerpt(word);
    Reply::error(format!(
        "ERR unknown subcommand or wrong number of arguments for '{word}'. Try {command} HELP."
    ))
}

pub(super) fn wrong_arity(name: &str) -> Reply {
    CommandError::WrongArity { name: name.into() }.into()
}

pub(super) fn number(argument: &[u8]) -> Option<i64> {
    decimal::parse(argument)
}

fn consistency(client: &mut Client, arguments: &[&[u8]]) -> Reply {
    let levels = [
        ("linearizable", Consistency::Linearizable),
        ("ordered", Consistency::Ordered),
        ("local", Consistency::Local),
    ];
    let Some(&wanted) = arguments.first() else {
        let (name, _) = levels[levels.iter().position(|(_, l)| *l == client.consistency).unwrap_or(0)];
        return Reply::Status(name);
    };
    match levels.iter().find(|(name, _)| is(wanted, name)) {
        Some((_, level)) => {
            client.consistency = *level;
            Reply::OK
        }
        None => CommandError::Syntax.into(),
    }
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// There are no passwords: the user `default` needs none, and nobody else exists.
fn auth(arguments: &[&[u8]]) -> Reply {
    match arguments {
        [_] => Reply::error(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ),
        [user, _] if *user == b"default" => Reply::OK,
        [_, _] => Reply::error(WRONG_PASSWORD),
        _ => CommandError::Syntax.into(),
    }
}

/// Takes a client's name: printable, without blanks, as Redis wants it.
pub(super) fn take_name(client: &mut Client, name: &[u8]) -> Result<(), Reply> {
    if name.len() > LONGEST_NAME || !name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Err(Reply::error("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    client.name = Box::from(name);
    Ok(())
}

/// Switches the connection, and the reply to the command that asks for it already.
fn set_resp(client: &mut Client, style: &mut ReplyStyle, version: RespVersion) {
    client.resp = version;
    if let ReplyStyle::Resp2 | ReplyStyle::Resp3 = style {
        *style = match version {
            RespVersion::Resp2 => ReplyStyle::Resp2,
            RespVersion::Resp3 => ReplyStyle::Resp3,
        };
    }
}

pub(super) fn resp_number(version: RespVersion) -> i64 {
    match version {
        RespVersion::Resp2 => 2,
        RespVersion::Resp3 => 3,
    }
}

fn hello(client: &mut Client, backend: &Backend, style: &mut ReplyStyle, arguments: &[&[u8]]) -> Reply {
    let mut rest = arguments;
    let mut version = client.resp;
    if let [wanted, options @ ..] = rest {
        match number(wanted) {
            Some(2) => version = RespVersion::Resp2,
            Some(3) => version = RespVersion::Resp3,
            Some(_) => return Reply::error("NOPROTO unsupported protocol version"),
            None => {
                return Reply::error("ERR Protocol version is not an integer or out of range");
            }
        }
        rest = options;
    }
    let mut name = None;
    while let [option, values @ ..] = rest {
        rest = match values {
            [user, _, after @ ..] if is(option, "AUTH") => {
                if *user != b"default" {
                    return Reply::error(WRONG_PASSWORD);
                }
                after
            }
            [wanted, after @ ..] if is(option, "SETNAME") => {
                name = Some(*wanted);
                after
            }
            _ => {
                let option = excerpt(option);
                return Reply::error(format!("ERR Syntax error in HELLO option '{option}'"));
            }
        };
    }
    if let Some(name) = name
        && let Err(refusal) = take_name(client, name)
    {
        return refusal;
    }
    set_resp(client, style, version);
    let text = |text: &str| Reply::bulk(text.as_bytes());
    Reply::Map(vec![
        text("server"),
        text("redis"),
        text("version"),
        text(REDIS_VERSION),
        text("proto"),
        Reply::Integer(resp_number(version)),
        text("id"),
        Reply::Integer(i64::try_from(client.id).unwrap_or(i64::MAX)),
        text("mode"),
        text(backend.settings.mode_at(client.endpoint)),
        text("role"),
        text("master"),
        text("modules"),
        Reply::Array(Vec::new()),
    ])
}

fn help(arguments: &[&[u8]]) -> Reply {
    let mut text = String::new();
    match arguments {
        [] => {
            for spec in store::all() {
                text.push_str(spec.name);
                if !spec.usage.is_empty() {
                    text.push(' ');
                    text.push_str(spec.usage);
                }
                text.push('\n');
            }
            text.push_str("HELP command explains one");
        }
        [name, ..] => match store::lookup(name) {
            None => return Reply::error(format!("ERR there is no command '{}'", excerpt(name))),
            Some(spec) => {
                let gap = if spec.usage.is_empty() { "" } else { " " };
                text = format!("{}{gap}{}: {}", spec.name, spec.usage, spec.summary);
            }
        },
    }
    Reply::bulk(text.as_bytes())
}

fn wait(arguments: &[&[u8]]) -> Outcome {
    match (number(arguments[0]), number(arguments[1])) {
        (Some(_), Some(0..)) => Outcome::Ask(Question::Holders),
        (Some(_), Some(_)) => Reply::error("ERR timeout is negative").into(),
        (None, _) => Reply::from(CommandError::NotAnInteger).into(),
        (_, None) => Reply::error("ERR timeout is not an integer or out of range").into(),
    }
}

/// There is no Lua: only the scripts of well-known lock libraries have a meaning here.
fn script(arguments: &[&[u8]]) -> Reply {
    match arguments {
        [word, text] if is(word, "LOAD") => match known_script(text) {
            Some(sha) => Reply::bulk(sha.as_bytes()),
            None => CommandError::NoInterpreter.into(),
        },
        [word, shas @ ..] if is(word, "EXISTS") && !shas.is_empty() => {
            Reply::Array(shas.iter().map(|sha| Reply::Integer(i64::from(is_known_sha(sha)))).collect())
        }
        [word] if is(word, "FLUSH") => Reply::OK,
        [word, how] if is(word, "FLUSH") && (is(how, "SYNC") || is(how, "ASYNC")) => Reply::OK,
        [word, ..] if is(word, "FLUSH") => Reply::error("ERR SCRIPT FLUSH only support SYNC|ASYNC option"),
        [word, ..] if is(word, "LOAD") => wrong_arity("script|load"),
        [word, ..] if is(word, "EXISTS") => wrong_arity("script|exists"),
        _ => unknown_subcommand("SCRIPT", arguments),
    }
}

/// There are no functions; test suites begin with removing them all.
fn function(arguments: &[&[u8]]) -> Reply {
    match arguments {
        [word] if is(word, "FLUSH") => Reply::OK,
        [word, how] if is(word, "FLUSH") && (is(how, "SYNC") || is(how, "ASYNC")) => Reply::OK,
        [word, _] if is(word, "FLUSH") => Reply::error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"),
        [word, ..] if is(word, "FLUSH") => wrong_subcommand("FUNCTION", word),
        [word, options @ ..] if is(word, "LIST") => {
            let mut rest = options;
            while let [option, after @ ..] = rest {
                rest = match after {
                    after if is(option, "WITHCODE") => after,
                    [_, after @ ..] if is(option, "LIBRARYNAME") => after,
                    [] if is(option, "LIBRARYNAME") => {
                        return Reply::error("ERR library name argument was not given");
                    }
                    _ => return Reply::error(format!("ERR Unknown argument {}", excerpt(option))),
                };
            }
            Reply::Array(Vec::new())
        }
        _ => unknown_subcommand("FUNCTION", arguments),
    }
}

fn pubsub(backend: &Backend, arguments: &[&[u8]]) -> Reply {
    let count = |count: usize| Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX));
    let subscribers = &backend.subscribers;
    match arguments {
        [word] if is(word, "CHANNELS") => subscribers.channels(None, |work| backend.store.count_work(work)),
        [word, pattern] if is(word, "CHANNELS") => {
            subscribers.channels(Some(pattern), |work| backend.store.count_work(work))
        }
        [word, channels @ ..] if is(word, "NUMSUB") => {
            let pairs = channels.iter().flat_map(|name| [Reply::bulk(name), count(subscribers.count(name))]);
            Reply::Array(pairs.collect())
        }
        [word] if is(word, "NUMPAT") => count(subscribers.pattern_count()),
        [word, _, _, ..] if is(word, "CHANNELS") || is(word, "SHARDCHANNELS") => {
            wrong_subcommand("PUBSUB", word)
        }
        // Nobody subscribes to those.
        [word, ..] if is(word, "SHARDCHANNELS") => Reply::Array(Vec::new()),
        [word, channels @ ..] if is(word, "SHARDNUMSUB") => {
            Reply::Array(channels.iter().flat_map(|name| [Reply::bulk(name), Reply::Integer(0)]).collect())
        }
        _ => unknown_subcommand("PUBSUB", arguments),
    }
}

/// A node is stopped by whoever runs its machine: by a signal, or by a client there. As in Redis, only an error is
/// answered; whoever stopped the node sees its connection end with the process. Programs that would try the next node
/// then are told.
fn shutdown(client: &mut Client, backend: &mut Backend, style: ReplyStyle, options: &[&[u8]]) -> Outcome {
    let given = |word: &str| options.iter().any(|option| is(option, word));
    let is_known =
        |option: &&[u8]| ["NOSAVE", "SAVE", "NOW", "FORCE", "ABORT"].iter().any(|word| is(option, word));
    if !options.iter().all(is_known)
        || (given("SAVE") && given("NOSAVE"))
        || (given("ABORT") && options.len() > 1)
    {
        return Reply::from(CommandError::Syntax).into();
    }
    if given("ABORT") {
        return Reply::error("ERR No shutdown in progress.").into();
    }
    if !client.is_local() {
        return Reply::error("ERR SHUTDOWN is for clients on the node's own machine; SIGTERM does the same")
            .into();
    }
    // What was acknowledged is durable, so there is nothing to choose between saving and not.
    backend.stop_wanted = true;
    client.ended = true;
    client.awaits_stop = true;
    match style {
        ReplyStyle::Text | ReplyStyle::Binary { .. } => Reply::OK.into(),
        _ => Outcome::Silence,
    }
}
