//! Commands about the connection and the node: everything of class `Connection` in the store's table.
//!
//! None of them is multicast. Those that change how later commands are understood (`HELLO`,
//! `CONSISTENCY`, `QUIT` …) act as soon as they are decoded; what they answer, and what the others ask,
//! comes in its turn like any reply.

use crate::dialect::{ReplyStyle, RespVersion, encode};
use crate::store::{self, Class, CommandError, CommandSpec};
use crate::types::Reply;
use crate::wire::client::Consistency;

use super::backend::{Backend, REDIS_VERSION, Stats};
use super::clients::Client;
use super::queue::State;

/// What is asked of the node, to be answered when the commands before it are.
#[derive(Debug)]
pub(super) enum Question {
    /// INFO with these sections.
    Info(Vec<Box<[u8]>>),
    /// The index and the digest of the store at one moment.
    Digest,
    /// ROLE.
    Role,
    /// TIME.
    Time,
    /// How many other nodes are sure to hold what has been acknowledged.
    Holders,
}

/// What becomes of a command.
enum Outcome {
    Reply(Reply),
    Ask(Question),
    Encoded(Box<[u8]>),
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
    style: ReplyStyle,
    spec: &CommandSpec,
    arguments: &[&[u8]],
) {
    let mut style = style;
    let outcome = match spec.alias_of.unwrap_or(spec.name) {
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
        // Only 0 gets through the check.
        "SELECT" => Reply::OK.into(),
        "HELLO" => hello(client, &mut style, arguments),
        "RESET" => {
            client.consistency = Consistency::default();
            client.name = Box::default();
            set_resp(client, &mut style, RespVersion::Resp2);
            Reply::Status("RESET").into()
        }
        "AUTH" => auth(arguments).into(),
        "CLIENT" => client_command(client, backend, arguments).into(),
        "HELP" => help(arguments).into(),
        "COMMAND" => command(arguments).into(),
        "INFO" => Outcome::Ask(Question::Info(arguments.iter().map(|&a| Box::from(a)).collect())),
        "DEBUG" => match arguments {
            [word] if word.eq_ignore_ascii_case(b"DIGEST") => Outcome::Ask(Question::Digest),
            _ => unknown_subcommand("DEBUG", arguments).into(),
        },
        "TIME" => Outcome::Ask(Question::Time),
        "ROLE" => Outcome::Ask(Question::Role),
        "WAIT" => wait(arguments),
        "CONFIG" => config(backend, arguments).into(),
        name => Reply::error(format!("ERR '{name}' is not served by this node")).into(),
    };
    match outcome {
        Outcome::Reply(reply) => client.queue.push_settled(style, reply),
        Outcome::Ask(question) => {
            client.queue.push(style, State::Ask(question));
        }
        Outcome::Encoded(bytes) => {
            client.queue.push(style, State::Encoded(bytes));
        }
    }
}

fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The first bytes of an argument, fit for an error's line.
fn excerpt(argument: &[u8]) -> String {
    let text = String::from_utf8_lossy(&argument[..argument.len().min(128)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn unknown_subcommand(command: &'static str, arguments: &[&[u8]]) -> Reply {
    let found = excerpt(arguments.first().copied().unwrap_or_default()).into();
    CommandError::UnknownSubcommand { command, found }.into()
}

fn wrong_arity(name: &str) -> Reply {
    CommandError::WrongArity { name: name.into() }.into()
}

fn number(argument: &[u8]) -> Option<i64> {
    std::str::from_utf8(argument).ok()?.parse().ok()
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
fn take_name(client: &mut Client, name: &[u8]) -> Result<(), Reply> {
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

fn resp_number(version: RespVersion) -> i64 {
    match version {
        RespVersion::Resp2 => 2,
        RespVersion::Resp3 => 3,
    }
}

fn hello(client: &mut Client, style: &mut ReplyStyle, arguments: &[&[u8]]) -> Outcome {
    let mut rest = arguments;
    let mut version = client.resp;
    if let [wanted, options @ ..] = rest {
        match number(wanted) {
            Some(2) => version = RespVersion::Resp2,
            Some(3) => version = RespVersion::Resp3,
            Some(_) => return Reply::error("NOPROTO unsupported protocol version").into(),
            None => {
                return Reply::error("ERR Protocol version is not an integer or out of range").into();
            }
        }
        rest = options;
    }
    let mut name = None;
    while let [option, values @ ..] = rest {
        rest = match values {
            [user, _, after @ ..] if is(option, "AUTH") => {
                if *user != b"default" {
                    return Reply::error(WRONG_PASSWORD).into();
                }
                after
            }
            [wanted, after @ ..] if is(option, "SETNAME") => {
                name = Some(*wanted);
                after
            }
            _ => {
                let option = excerpt(option);
                return Reply::error(format!("ERR Syntax error in HELLO option '{option}'")).into();
            }
        };
    }
    if let Some(name) = name
        && let Err(refusal) = take_name(client, name)
    {
        return refusal.into();
    }
    set_resp(client, style, version);
    let text = |text: &str| Reply::bulk(text.as_bytes());
    let fields = vec![
        text("server"),
        text("redis"),
        text("version"),
        text(REDIS_VERSION),
        text("proto"),
        Reply::Integer(resp_number(version)),
        text("id"),
        Reply::Integer(i64::try_from(client.id).unwrap_or(i64::MAX)),
        text("mode"),
        text("standalone"),
        text("role"),
        text("master"),
        text("modules"),
        Reply::Array(Vec::new()),
    ];
    if *style != ReplyStyle::Resp3 {
        return Reply::Array(fields).into();
    }
    // The one reply that is a map.
    let mut bytes = format!("%{}\r\n", fields.len() / 2).into_bytes();
    for field in &fields {
        encode(&mut bytes, *style, field);
    }
    Outcome::Encoded(bytes.into_boxed_slice())
}

fn client_command(client: &mut Client, backend: &Backend, arguments: &[&[u8]]) -> Reply {
    let [subcommand, rest @ ..] = arguments else {
        return wrong_arity("client");
    };
    let of = |words: &[&str]| words.iter().any(|word| is(subcommand, word));
    match rest {
        [] if of(&["ID"]) => Reply::Integer(i64::try_from(client.id).unwrap_or(i64::MAX)),
        [] if of(&["GETNAME"]) && client.name.is_empty() => Reply::Nil,
        [] if of(&["GETNAME"]) => Reply::bulk(&client.name),
        [] if of(&["INFO"]) => {
            let name = String::from_utf8_lossy(&client.name);
            let (id, resp) = (client.id, resp_number(client.resp));
            Reply::bulk(format!("id={id} name={name} db=0 resp={resp}\n").as_bytes())
        }
        [name] if of(&["SETNAME"]) => take_name(client, name).err().unwrap_or(Reply::OK),
        [_, _] if of(&["SETINFO"]) => Reply::OK,
        [word] if of(&["NO-EVICT", "NO-TOUCH"]) && (is(word, "ON") || is(word, "OFF")) => Reply::OK,
        [word] if of(&["REPLY"]) && is(word, "ON") => Reply::OK,
        [] if of(&["COUNT"]) => Reply::Integer(i64::try_from(backend.client_count).unwrap_or(i64::MAX)),
        _ if of(&["ID", "GETNAME", "SETNAME", "SETINFO", "NO-EVICT", "NO-TOUCH"]) => {
            let name = excerpt(subcommand).to_ascii_lowercase();
            wrong_arity(&format!("client|{name}"))
        }
        _ => unknown_subcommand("CLIENT", arguments),
    }
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

/// What `COMMAND` tells of one command: the first six fields, which is what clients look at.
fn describe(spec: &CommandSpec) -> Reply {
    let flags: &[&'static str] = match spec.class {
        Class::Write | Class::Internal => &["write"],
        Class::Read => &["readonly"],
        Class::Connection => &["loading", "stale", "fast"],
    };
    Reply::Array(vec![
        Reply::bulk(spec.name.to_ascii_lowercase().as_bytes()),
        Reply::Integer(i64::from(spec.arity)),
        Reply::Array(flags.iter().map(|flag| Reply::Status(flag)).collect()),
        Reply::Integer(i64::from(spec.keys.first)),
        Reply::Integer(i64::from(spec.keys.last)),
        Reply::Integer(i64::from(spec.keys.step)),
    ])
}

fn command(arguments: &[&[u8]]) -> Reply {
    match arguments {
        [] => Reply::Array(store::all().map(describe).collect()),
        [word] if is(word, "COUNT") => {
            Reply::Integer(i64::try_from(store::all().count()).unwrap_or(i64::MAX))
        }
        [word] if is(word, "LIST") => Reply::Array(
            store::all().map(|spec| Reply::bulk(spec.name.to_ascii_lowercase().as_bytes())).collect(),
        ),
        [word] if is(word, "INFO") => Reply::Array(store::all().map(describe).collect()),
        [word, names @ ..] if is(word, "INFO") => {
            Reply::Array(names.iter().map(|name| store::lookup(name).map_or(Reply::Nil, describe)).collect())
        }
        _ => unknown_subcommand("COMMAND", arguments),
    }
}

fn wait(arguments: &[&[u8]]) -> Outcome {
    match (number(arguments[0]), number(arguments[1])) {
        (Some(_), Some(0..)) => Outcome::Ask(Question::Holders),
        (Some(_), Some(_)) => Reply::error("ERR timeout is negative").into(),
        (None, _) => Reply::from(CommandError::NotAnInteger).into(),
        (_, None) => Reply::error("ERR timeout is not an integer or out of range").into(),
    }
}

fn config(backend: &mut Backend, arguments: &[&[u8]]) -> Reply {
    let [subcommand, rest @ ..] = arguments else {
        return wrong_arity("config");
    };
    match rest {
        [_, ..] if is(subcommand, "GET") => {
            let settings = [
                ("save", String::new()),
                ("appendonly", "yes".to_owned()),
                ("databases", "1".to_owned()),
                ("maxmemory", "0".to_owned()),
                ("maxmemory-policy", "noeviction".to_owned()),
                ("maxclients", backend.settings.clients_max.to_string()),
                ("notify-keyspace-events", String::new()),
                ("proto-max-bulk-len", backend.settings.store.value_len_max.to_string()),
                ("timeout", "0".to_owned()),
            ];
            let mut found = Vec::new();
            for (name, value) in settings {
                if rest.iter().any(|pattern| *pattern == b"*" || is(pattern, name)) {
                    found.push(Reply::bulk(name.as_bytes()));
                    found.push(Reply::bulk(value.as_bytes()));
                }
            }
            Reply::Array(found)
        }
        [] if is(subcommand, "RESETSTAT") => {
            backend.stats = Stats::default();
            Reply::OK
        }
        [name, _, ..] if is(subcommand, "SET") => {
            let name = excerpt(name);
            Reply::error(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"))
        }
        _ => unknown_subcommand("CONFIG", arguments),
    }
}
