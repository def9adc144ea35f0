//! `SESSION`: the beginning of a client session.

use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run};
use crate::store::error::{CommandError, excerpt};
use crate::store::{Applied, Store};
use crate::types::Reply;

pub(crate) static COMMANDS: [CommandSpec; 1] = [CommandSpec {
    name: "SESSION",
    code: 19,
    arity: -2,
    class: Class::Write,
    keys: KeyPositions::NONE,
    group: Group::Session,
    usage: "OPEN",
    summary: "opens a session, in which a repeated write is applied once, and answers its number",
    subcommands: &[],
    alias_of: None,
    check: check_session,
    run: Run::Write(session),
    long: None,
}];

fn check_session(arguments: &[&[u8]]) -> Result<(), CommandError> {
    match arguments {
        [subcommand, rest @ ..] if subcommand.eq_ignore_ascii_case(b"OPEN") => {
            if rest.is_empty() {
                Ok(())
            } else {
                Err(CommandError::WrongArity { name: "session|open".into() })
            }
        }
        [subcommand, ..] => Err(CommandError::UnknownSubcommand {
            command: "SESSION",
            found: excerpt(subcommand, 128).into(),
        }),
        [] => Err(CommandError::Syntax),
    }
}

fn session(store: &mut Store, at: Applied, _: &[&[u8]]) -> Answer {
    let id = store.sessions.open(at.index, at.now, &store.limits);
    Ok(Reply::Integer(i64::try_from(id.0).unwrap_or(i64::MAX)))
}
