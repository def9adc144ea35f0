//! Commands about the connection or the node. They are listed here, so that every command is in one table; the
//! node answers them, and they are never multicast.

use crate::store::command::{Class, CommandSpec, Group, KeyPositions, Run, no_check};
use crate::store::error::CommandError;

/// What they have in common.
const NODE: CommandSpec = CommandSpec {
    name: "",
    code: 0,
    arity: 1,
    class: Class::Connection,
    keys: KeyPositions::NONE,
    group: Group::Connection,
    usage: "",
    summary: "",
    alias_of: None,
    check: no_check,
    run: Run::Node,
};

pub(crate) static COMMANDS: [CommandSpec; 19] = [
    CommandSpec {
        name: "PING",
        code: 200,
        arity: -1,
        usage: "[message]",
        summary: "answers PONG, or the message",
        check: check_ping,
        ..NODE
    },
    CommandSpec {
        name: "ECHO",
        code: 201,
        arity: 2,
        usage: "message",
        summary: "answers the message",
        ..NODE
    },
    CommandSpec {
        name: "QUIT",
        code: 202,
        arity: -1,
        summary: "answers OK and closes the connection",
        ..NODE
    },
    CommandSpec {
        name: "CONSISTENCY",
        code: 203,
        arity: -1,
        usage: "[linearizable | ordered | local]",
        summary: "sets how fresh the reads of this connection are, or tells it",
        check: check_consistency,
        ..NODE
    },
    CommandSpec {
        name: "READONLY",
        code: 204,
        summary: "reads of this connection may be stale, as with CONSISTENCY local",
        ..NODE
    },
    CommandSpec {
        name: "READWRITE",
        code: 205,
        summary: "reads of this connection are linearizable again",
        ..NODE
    },
    CommandSpec {
        name: "SELECT",
        code: 206,
        arity: 2,
        usage: "index",
        summary: "chooses a database; there is only 0",
        check: check_select,
        ..NODE
    },
    CommandSpec {
        name: "HELLO",
        code: 207,
        arity: -1,
        usage: "[2 | 3 [AUTH user password] [SETNAME name]]",
        summary: "chooses RESP2 or RESP3 and answers what this server is",
        ..NODE
    },
    CommandSpec { name: "RESET", code: 208, summary: "puts the connection back to how it began", ..NODE },
    CommandSpec {
        name: "AUTH",
        code: 209,
        arity: -2,
        usage: "[user] password",
        summary: "says who the client is",
        ..NODE
    },
    CommandSpec {
        name: "CLIENT",
        code: 210,
        arity: -2,
        usage: "subcommand [argument ...]",
        summary: "about the connections of clients",
        ..NODE
    },
    CommandSpec {
        name: "HELP",
        code: 220,
        arity: -1,
        group: Group::Server,
        usage: "[command]",
        summary: "lists the commands, or explains one",
        ..NODE
    },
    CommandSpec {
        name: "COMMAND",
        code: 221,
        arity: -1,
        group: Group::Server,
        usage: "[subcommand [argument ...]]",
        summary: "describes the commands to client libraries",
        ..NODE
    },
    CommandSpec {
        name: "INFO",
        code: 222,
        arity: -1,
        group: Group::Server,
        usage: "[section ...]",
        summary: "answers what state the node is in",
        ..NODE
    },
    CommandSpec {
        name: "DEBUG",
        code: 223,
        arity: -2,
        group: Group::Server,
        usage: "subcommand [argument ...]",
        summary: "for those who look for faults in the node",
        ..NODE
    },
    CommandSpec {
        name: "TIME",
        code: 224,
        group: Group::Server,
        summary: "answers the node's time: seconds since 1970, microseconds",
        ..NODE
    },
    CommandSpec {
        name: "ROLE",
        code: 225,
        group: Group::Server,
        summary: "answers which part the node plays in replication",
        ..NODE
    },
    CommandSpec {
        name: "WAIT",
        code: 226,
        arity: 3,
        group: Group::Server,
        usage: "replicas timeout",
        summary: "answers how many other nodes hold this connection's writes",
        ..NODE
    },
    CommandSpec {
        name: "CONFIG",
        code: 227,
        arity: -2,
        group: Group::Server,
        usage: "subcommand [argument ...]",
        summary: "shows and changes settings",
        ..NODE
    },
];

fn check_ping(arguments: &[&[u8]]) -> Result<(), CommandError> {
    if arguments.len() > 1 {
        return Err(CommandError::WrongArity { name: "ping".into() });
    }
    Ok(())
}

fn check_select(arguments: &[&[u8]]) -> Result<(), CommandError> {
    arguments.iter().try_for_each(|index| super::check_database(index))
}

fn check_consistency(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let levels = [&b"linearizable"[..], b"ordered", b"local"];
    if arguments.len() > 1 {
        return Err(CommandError::WrongArity { name: "consistency".into() });
    }
    let is_level = |argument: &&[u8]| levels.iter().any(|level| level.eq_ignore_ascii_case(argument));
    if arguments.iter().all(is_level) { Ok(()) } else { Err(CommandError::Syntax) }
}
