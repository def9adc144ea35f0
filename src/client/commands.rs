//! What the client adds to the table of commands: which may be repeated, and how HELP shows them.
//!
//! The table itself is the store's ([`store::all`]), so a new command is known here as soon as it is there.
//! Only EXIT is the client's own.

use std::fmt::Write;

use crate::store::{self, Class, CommandSpec};

/// What makes the repetition of a command harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repetition {
    /// It changes data: repeated in the session, where it is applied once.
    InSession,
    /// It changes nothing that anybody could notice: repeated as it is.
    Harmless,
    /// It changes a connection or a node, or is not known here: never repeated once it may have arrived.
    Never,
}

/// One command, as completion, hints and HELP show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// Its name, in capitals.
    pub name: &'static str,
    /// Its arguments.
    pub usage: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The heading it is listed under.
    pub group: &'static str,
    /// The command that this is another name of.
    pub alias_of: Option<&'static str>,
}

/// The client's own commands; they are never sent.
const OWN: &[Command] = &[
    Command {
        name: "BACKUP",
        usage: "file",
        summary: "writes the whole store as it is at one index to a file",
        group: "client",
        alias_of: None,
    },
    Command { name: "EXIT", usage: "", summary: "leaves the client", group: "client", alias_of: None },
];

impl From<&'static CommandSpec> for Command {
    fn from(spec: &'static CommandSpec) -> Command {
        let CommandSpec { name, usage, summary, alias_of, .. } = *spec;
        Command { name, usage, summary, group: spec.group.name(), alias_of }
    }
}

/// Every command that can be typed, in the order of HELP.
pub fn all() -> impl Iterator<Item = Command> {
    store::all().map(Command::from).chain(OWN.iter().copied())
}

/// The command with this name, upper or lower case.
pub fn lookup(name: &[u8]) -> Option<Command> {
    let own = || OWN.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name));
    store::lookup(name).map(Command::from).or_else(|| own().copied())
}

/// What makes the repetition of the command with this name harmless.
pub fn repetition(name: &[u8]) -> Repetition {
    let Some(spec) = store::lookup(name) else { return Repetition::Never };
    match (spec.class, spec.alias_of.unwrap_or(spec.name)) {
        // A session cannot be opened in a session; one that nobody uses expires by itself.
        (_, "SESSION") => Repetition::Harmless,
        (Class::Write, _) => Repetition::InSession,
        (Class::Read, _) => Repetition::Harmless,
        (
            Class::Connection,
            "PING" | "ECHO" | "SELECT" | "HELP" | "COMMAND" | "INFO" | "TIME" | "ROLE" | "WAIT",
        ) => Repetition::Harmless,
        (Class::Connection | Class::Internal, _) => Repetition::Never,
    }
}

/// The text of HELP: all commands under their headings, or a line about the one named.
///
/// # Errors
/// The reply to the name of no command.
pub fn help(name: Option<&[u8]>) -> Result<String, String> {
    /// Where the sentences begin; a longer call has its own line.
    const CALL_WIDTH: usize = 34;
    let Some(name) = name else {
        let mut text = String::new();
        let mut groups: Vec<&str> = Vec::new();
        for group in all().map(|command| command.group) {
            if groups.contains(&group) {
                continue;
            }
            groups.push(group);
            line(&mut text, format_args!("{group}"));
            for command in all().filter(|command| command.group == group) {
                let mut call = command.call();
                if call.len() > CALL_WIDTH {
                    call = format!("{call}\n{:CALL_WIDTH$}  ", "");
                }
                line(&mut text, format_args!("  {call:CALL_WIDTH$}  {}", command.description()));
            }
        }
        return Ok(text);
    };
    match lookup(name) {
        Some(command) => Ok(format!("{}: {}\n", command.call(), command.description())),
        None => Err(format!("ERR there is no command '{}'", String::from_utf8_lossy(name).escape_debug())),
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a string takes everything");
}

impl Command {
    /// How it is called: the name and the arguments.
    fn call(&self) -> String {
        format!("{} {}", self.name, self.usage).trim_end().to_owned()
    }

    fn description(&self) -> String {
        match self.alias_of {
            Some(other) => format!("the same as {other}"),
            None => self.summary.to_owned(),
        }
    }

    /// The arguments one by one; what stands in brackets is one.
    pub fn parameters(&self) -> Vec<&'static str> {
        let mut parameters = Vec::new();
        let (mut start, mut depth) = (0, 0);
        for (at, character) in self.usage.char_indices() {
            match character {
                '[' => depth += 1,
                ']' => depth -= 1,
                ' ' if depth == 0 => {
                    parameters.push(&self.usage[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parameters.push(&self.usage[start..]);
        parameters.retain(|parameter| !parameter.is_empty());
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_repeated() {
        for (name, expected) in [
            ("put", Repetition::InSession),
            ("Set", Repetition::InSession),
            ("CAS", Repetition::InSession),
            ("FLUSHDB", Repetition::InSession),
            ("session", Repetition::Harmless),
            ("gEt", Repetition::Harmless),
            ("INFO", Repetition::Harmless),
            ("CLIENT", Repetition::Never),
            ("CONFIG", Repetition::Never),
            ("DEBUG", Repetition::Never),
            ("EXIT", Repetition::Never),
            ("unheard", Repetition::Never),
        ] {
            assert_eq!(repetition(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn help_names_all_or_one() {
        let text = help(None).expect("all");
        for command in all() {
            let start = format!("\n  {}", command.call());
            assert_eq!(
                text.matches(&format!("{start} ")).count() + text.matches(&format!("{start}\n")).count(),
                1
            );
        }
        assert!(
            text.starts_with("string\n  SET key value") && text.contains("\nclient\n  BACKUP file "),
            "{text}"
        );
        assert_eq!(text.matches("\nserver\n").count(), 1);
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        assert_eq!(help(Some(b"get")).as_deref(), Ok("GET key: answers the value of a key\n"));
        assert_eq!(
            help(Some(b"unlink")).as_deref(),
            Ok("UNLINK key [key ...] | key IFREV revision: the same as DEL\n")
        );
        assert_eq!(help(Some(b"no\npe")), Err("ERR there is no command 'no\\npe'".to_owned()));
    }

    #[test]
    fn brackets_hold_a_parameter_together() {
        let parameters = |name: &str| lookup(name.as_bytes()).expect("listed").parameters();
        assert_eq!(parameters("SET")[..4], ["key", "value", "[NX | XX]", "[GET]"]);
        assert_eq!(parameters("HELLO"), ["[2 | 3 [AUTH user password] [SETNAME name]]"]);
        assert_eq!(parameters("EXISTS"), ["key", "[key ...]"]);
        assert!(parameters("DBSIZE").is_empty());
    }
}
