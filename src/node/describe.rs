//! `COMMAND`: the table of commands, as client libraries and `redis-cli` want to have it.

use crate::store::{self, Class, CommandError, CommandSpec, Group, StepBudget, glob_fits};
use crate::types::Reply;

use super::commands::{is, unknown_subcommand, wrong_arity};

pub(super) fn command(arguments: &[&[u8]]) -> Reply {
    let [subcommand, rest @ ..] = arguments else {
        return Reply::Array(store::all().map(describe).collect());
    };
    let of = |word: &str| is(subcommand, word);
    match rest {
        [] if of("COUNT") => Reply::Integer(i64::try_from(store::all().count()).unwrap_or(i64::MAX)),
        [] if of("INFO") => Reply::Array(store::all().map(describe).collect()),
        names if of("INFO") => {
            let named = |name: &&[u8]| store::lookup(name).map_or(Reply::Nil, describe);
            Reply::Array(names.iter().map(named).collect())
        }
        names if of("DOCS") => {
            let named: Vec<&CommandSpec> = match names {
                [] => store::all().collect(),
                names => names.iter().filter_map(|name| store::lookup(name)).collect(),
            };
            Reply::Map(named.into_iter().flat_map(|spec| [name_of(spec), docs(spec)]).collect())
        }
        [] if of("LIST") => Reply::Array(store::all().map(name_of).collect()),
        [filter, kind, value] if of("LIST") && is(filter, "FILTERBY") => list(kind, value),
        _ if of("LIST") => CommandError::Syntax.into(),
        [name, arguments @ ..] if of("GETKEYS") => keys(name, arguments),
        [] if of("GETKEYS") => wrong_arity("command|getkeys"),
        _ if of("COUNT") => wrong_arity("command|count"),
        _ => unknown_subcommand("COMMAND", arguments),
    }
}

fn name_of(spec: &CommandSpec) -> Reply {
    Reply::bulk(spec.name.to_ascii_lowercase().as_bytes())
}

fn words(words: &[&'static str]) -> Vec<Reply> {
    words.iter().map(|word| Reply::Status(word)).collect()
}

/// The ten fields that Redis 7 tells of a command.
fn describe(spec: &CommandSpec) -> Reply {
    let flags: &[&'static str] = match (spec.class, spec.group) {
        (_, Group::Scripting) => &["noscript", "movablekeys"],
        (_, Group::Pubsub) => &["pubsub", "loading", "stale", "fast"],
        (Class::Write | Class::Internal, _) => &["write", "denyoom"],
        (Class::Read, _) => &["readonly"],
        (Class::Connection, _) => &["noscript", "loading", "stale", "fast"],
    };
    let mut categories: Vec<&'static str> = match spec.class {
        Class::Write | Class::Internal => vec!["@write"],
        Class::Read => vec!["@read"],
        Class::Connection => vec![],
    };
    categories.push(match spec.group {
        Group::Generic | Group::Lock => "@keyspace",
        Group::String => "@string",
        Group::Bitmap => "@bitmap",
        Group::Scripting => "@scripting",
        Group::Transactions => "@transaction",
        Group::Pubsub => "@pubsub",
        Group::Session | Group::Connection => "@connection",
        Group::Server => "@admin",
    });
    Reply::Array(vec![
        name_of(spec),
        Reply::Integer(i64::from(spec.arity)),
        Reply::Set(words(flags)),
        Reply::Integer(i64::from(spec.keys.first)),
        Reply::Integer(i64::from(spec.keys.last)),
        Reply::Integer(i64::from(spec.keys.step)),
        Reply::Set(words(&categories)),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
    ])
}

/// What `redis-cli` makes its hints of.
fn docs(spec: &CommandSpec) -> Reply {
    let text = |text: &str| Reply::bulk(text.as_bytes());
    let mut fields = vec![
        text("summary"),
        text(spec.summary),
        text("since"),
        text("1.0.0"),
        text("group"),
        text(spec.group.name()),
    ];
    let arguments: Vec<Reply> = parts_of(spec.usage).into_iter().map(argument).collect();
    if !arguments.is_empty() {
        fields.extend([text("arguments"), Reply::Array(arguments)]);
    }
    Reply::Map(fields)
}

/// Cuts a usage where a bracket begins or ends, or a blank stands outside of brackets.
fn parts_of(usage: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, byte) in usage.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 => {
                parts.push(&usage[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&usage[start..]);
    parts.retain(|part| !part.is_empty() && *part != "|");
    parts
}

fn argument(part: &str) -> Reply {
    let text = |text: &str| Reply::bulk(text.as_bytes());
    let inner = part.strip_prefix('[').and_then(|part| part.strip_suffix(']'));
    let name = inner.unwrap_or(part);
    let mut fields = vec![text("name"), text(name), text("type"), text("string")];
    fields.extend([text("display_text"), text(name)]);
    if inner.is_some() {
        fields.extend([text("flags"), Reply::Set(words(&["optional"]))]);
    }
    Reply::Map(fields)
}

fn list(kind: &[u8], value: &[u8]) -> Reply {
    let all = store::all();
    let chosen: Vec<&CommandSpec> = match () {
        () if is(kind, "PATTERN") => {
            // Some milliseconds; the names are short.
            let mut budget = StepBudget::FOR_NAMES;
            let pattern = value.to_ascii_lowercase();
            let mut chosen = Vec::new();
            for spec in all {
                match glob_fits(&pattern, spec.name.to_ascii_lowercase().as_bytes(), &mut budget) {
                    Ok(true) => chosen.push(spec),
                    Ok(false) => {}
                    Err(error) => return error.into(),
                }
            }
            chosen
        }
        () if is(kind, "ACLCAT") => {
            let is_of = |spec: &&CommandSpec| match spec.class {
                Class::Write | Class::Internal => is(value, "write"),
                Class::Read => is(value, "read"),
                Class::Connection => is(value, "connection"),
            };
            all.filter(is_of).collect()
        }
        () if is(kind, "MODULE") => Vec::new(),
        () => return CommandError::Syntax.into(),
    };
    Reply::Array(chosen.into_iter().map(name_of).collect())
}

fn keys(name: &[u8], arguments: &[&[u8]]) -> Reply {
    let Some(spec) = store::lookup(name) else {
        return Reply::error("ERR Invalid command specified");
    };
    let counts_its_keys = matches!(spec.name, "EVAL" | "EVALSHA");
    if spec.keys.first == 0 && !counts_its_keys {
        return Reply::error("ERR The command has no key arguments");
    }
    if store::check_arity(spec, arguments).is_err() {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    if counts_its_keys {
        // A number that does not fit is no error here, it will be one when the command is given.
        let after = &arguments[2..];
        let number = std::str::from_utf8(arguments[1]).ok().and_then(|number| number.parse().ok());
        let number = number.filter(|number| *number <= after.len()).unwrap_or(0);
        return Reply::Array(after[..number].iter().map(|key| Reply::bulk(key)).collect());
    }
    let count = arguments.len();
    let is_key = |(at, _): &(usize, &&[u8])| spec.keys.is_key(*at, count);
    Reply::Array(arguments.iter().enumerate().filter(is_key).map(|(_, key)| Reply::bulk(key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_is_cut_into_its_arguments() {
        assert_eq!(parts_of("key [NX | XX [GT]] [GET]"), ["key", "[NX | XX [GT]]", "[GET]"]);
        assert_eq!(parts_of(""), [""; 0]);
    }

    #[test]
    fn keys_are_found() {
        let found = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            match command(&words) {
                Reply::Array(keys) => format!("{}", keys.len()),
                Reply::Error(text) => text.into(),
                other => panic!("{other:?}"),
            }
        };
        for (line, answer) in [
            ("GETKEYS MSET a 1 b 2", "2"),
            ("GETKEYS BITOP AND d a b", "3"),
            ("GETKEYS EVAL x 2 a b c", "2"),
            ("GETKEYS EVAL x 2 a", "0"),
            ("GETKEYS EVALSHA x -1 a", "0"),
            ("GETKEYS EVAL x", "ERR Invalid number of arguments specified for command"),
            ("GETKEYS DBSIZE x", "ERR The command has no key arguments"),
            ("GETKEYS PING x", "ERR The command has no key arguments"),
            ("GETKEYS GET", "ERR Invalid number of arguments specified for command"),
        ] {
            assert_eq!(found(line), answer, "{line}");
        }
    }
}
