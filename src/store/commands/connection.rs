//! Commands about the connection or the node. They are listed here, so that every command is in one table; the
//! node answers them, and they are never multicast.

use crate::store::command::{Class, CommandSpec, Group, KeyPositions, Long, Run, When, no_check};
use crate::store::error::CommandError;

use super::listing::begin_slot;

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
    subcommands: &[],
    alias_of: None,
    check: no_check,
    run: Run::Node,
    long: None,
};

pub(crate) static COMMANDS: [CommandSpec; 41] = [
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
        subcommands: &[
            ("ID", 2),
            ("GETNAME", 2),
            ("SETNAME", 3),
            ("SETINFO", 4),
            ("INFO", 2),
            ("LIST", -2),
            ("KILL", -3),
            ("REPLY", 3),
            ("NO-EVICT", 3),
            ("NO-TOUCH", 3),
            ("TRACKING", -3),
            ("GETREDIR", 2),
            ("COUNT", 2),
        ],
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
        subcommands: &[("COUNT", 2), ("INFO", -2), ("DOCS", -2), ("LIST", -2), ("GETKEYS", -4)],
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
        summary: "DIGEST, PROTOCOL, SLEEP: for those who test a node or a client",
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
        subcommands: &[("GET", -3), ("SET", -4), ("RESETSTAT", 2), ("REWRITE", 2)],
        group: Group::Server,
        usage: "subcommand [argument ...]",
        summary: "shows and changes settings",
        ..NODE
    },
    CommandSpec {
        name: "SNAPSHOT",
        code: 250,
        arity: -2,
        group: Group::Server,
        usage: "BEGIN | READ index digest block",
        summary: "takes a snapshot, or hands out a block of it; for programs such as kvclient",
        ..NODE
    },
    CommandSpec {
        name: "SUBSCRIBE",
        code: 211,
        arity: -2,
        group: Group::Pubsub,
        usage: "channel [channel ...]",
        summary: "from now on brings all messages of these channels",
        ..NODE
    },
    CommandSpec {
        name: "UNSUBSCRIBE",
        code: 212,
        arity: -1,
        group: Group::Pubsub,
        usage: "[channel ...]",
        summary: "no more messages of these channels, or of any",
        ..NODE
    },
    CommandSpec {
        name: "PSUBSCRIBE",
        code: 213,
        arity: -2,
        group: Group::Pubsub,
        usage: "pattern [pattern ...]",
        summary: "from now on brings all messages of channels that fit",
        ..NODE
    },
    CommandSpec {
        name: "PUNSUBSCRIBE",
        code: 214,
        arity: -1,
        group: Group::Pubsub,
        usage: "[pattern ...]",
        summary: "no more messages by these patterns, or by any",
        ..NODE
    },
    CommandSpec {
        name: "PUBSUB",
        code: 215,
        arity: -2,
        subcommands: &[
            ("CHANNELS", -2),
            ("NUMSUB", -2),
            ("NUMPAT", 2),
            ("SHARDCHANNELS", -2),
            ("SHARDNUMSUB", -2),
        ],
        group: Group::Pubsub,
        usage: "CHANNELS [pattern] | NUMSUB [channel ...] | NUMPAT",
        summary: "tells who subscribes at this node",
        ..NODE
    },
    CommandSpec {
        name: "MULTI",
        code: 216,
        group: Group::Transactions,
        summary: "begins a transaction",
        ..NODE
    },
    CommandSpec {
        name: "EXEC",
        code: 217,
        group: Group::Transactions,
        summary: "carries out the commands since MULTI with nothing between",
        ..NODE
    },
    CommandSpec {
        name: "DISCARD",
        code: 218,
        group: Group::Transactions,
        summary: "forgets the commands since MULTI",
        ..NODE
    },
    CommandSpec {
        name: "WATCH",
        code: 219,
        arity: -2,
        group: Group::Transactions,
        usage: "key [key ...]",
        summary: "the next EXEC does nothing if one of these keys was written",
        keys: KeyPositions::ALL,
        ..NODE
    },
    CommandSpec {
        name: "UNWATCH",
        code: 228,
        group: Group::Transactions,
        summary: "forgets what is watched",
        ..NODE
    },
    CommandSpec {
        name: "CLUSTER",
        code: 229,
        arity: -2,
        subcommands: &[
            ("INFO", 2),
            ("MYID", 2),
            ("SLOTS", 2),
            ("SHARDS", 2),
            ("NODES", 2),
            ("KEYSLOT", 3),
            ("COUNTKEYSINSLOT", 3),
            ("GETKEYSINSLOT", 4),
        ],
        group: Group::Server,
        usage: "subcommand [argument ...]",
        summary: "the nodes, as clients of a Redis Cluster want to know them",
        // Those that ask for keys; the others are never asked here.
        long: Some(Long { when: When::Tried, begin: begin_slot }),
        ..NODE
    },
    CommandSpec {
        name: "LASTSAVE",
        code: 230,
        group: Group::Server,
        summary: "answers since when what was acknowledged is on disk: always, so the present second",
        ..NODE
    },
    CommandSpec {
        name: "SAVE",
        code: 231,
        group: Group::Server,
        summary: "does nothing: what was acknowledged is on disk",
        ..NODE
    },
    CommandSpec {
        name: "BGSAVE",
        code: 232,
        arity: -1,
        group: Group::Server,
        usage: "[SCHEDULE]",
        summary: "does nothing: what was acknowledged is on disk",
        ..NODE
    },
    CommandSpec {
        name: "SLOWLOG",
        code: 233,
        arity: -2,
        subcommands: &[("GET", -2), ("LEN", 2), ("RESET", 2)],
        group: Group::Server,
        usage: "GET [count] | LEN | RESET",
        summary: "answers that there are no slow commands",
        ..NODE
    },
    CommandSpec {
        name: "LATENCY",
        code: 234,
        arity: -2,
        subcommands: &[("LATEST", 2), ("HISTORY", 3), ("RESET", -2)],
        group: Group::Server,
        usage: "subcommand [argument ...]",
        summary: "answers that nothing was measured",
        ..NODE
    },
    CommandSpec {
        name: "ASKING",
        code: 235,
        group: Group::Server,
        summary: "does nothing: every node takes every key",
        ..NODE
    },
    CommandSpec {
        name: "FUNCTION",
        code: 236,
        arity: -2,
        subcommands: &[("FLUSH", -2), ("LIST", -2)],
        group: Group::Scripting,
        usage: "FLUSH | LIST",
        summary: "there are no functions",
        ..NODE
    },
    CommandSpec {
        name: "MOVE",
        code: 237,
        arity: 3,
        group: Group::Generic,
        usage: "key 0",
        summary: "there is only one database",
        keys: KeyPositions::ONE,
        check: check_move,
        ..NODE
    },
    CommandSpec {
        name: "SWAPDB",
        code: 238,
        arity: 3,
        group: Group::Server,
        usage: "0 0",
        summary: "there is only one database",
        check: check_swapdb,
        ..NODE
    },
    CommandSpec {
        name: "SHUTDOWN",
        code: 239,
        arity: -1,
        group: Group::Server,
        usage: "[NOSAVE | SAVE] [NOW] [FORCE] | ABORT",
        summary: "stops this node, as SIGTERM does; for clients on its own machine",
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

fn check_move(arguments: &[&[u8]]) -> Result<(), CommandError> {
    arguments.iter().skip(1).try_for_each(|index| super::check_database(index))?;
    Err(CommandError::SameKey)
}

fn check_swapdb(arguments: &[&[u8]]) -> Result<(), CommandError> {
    for (index, second) in arguments.iter().zip([false, true]) {
        let number = super::parse_integer(index).ok().and_then(|number| i32::try_from(number).ok());
        number.ok_or(CommandError::SwapIndex { second })?;
    }
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
