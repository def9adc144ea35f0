//! What the client has to know about commands: which may be repeated, and what to say about them.

/// What a repetition of a command would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Changes data: goes through the session, which makes repetitions harmless.
    Write,
    /// Changes nothing: repeated freely.
    Read,
    /// Changes a connection or a node, or is not known here: never repeated once it may have arrived.
    Other,
}

/// One command, as completion, hints and HELP show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// Its name, in capitals.
    pub name: &'static str,
    /// Its arguments.
    pub usage: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// What a repetition would do.
    pub class: Class,
}

const fn write(name: &'static str, usage: &'static str, summary: &'static str) -> Command {
    Command { name, usage, summary, class: Class::Write }
}

const fn read(name: &'static str, usage: &'static str, summary: &'static str) -> Command {
    Command { name, usage, summary, class: Class::Read }
}

const fn other(name: &'static str, usage: &'static str, summary: &'static str) -> Command {
    Command { name, usage, summary, class: Class::Other }
}

/// Every command known to the client, by name.
pub const COMMANDS: &[Command] = &[
    write("APPEND", "key value", "Append to a value; the reply is its new length"),
    write("CAS", "key expected new", "Set a value if it is still the expected one; Not Found otherwise"),
    other("CONSISTENCY", "linearizable|ordered|local", "How fresh the reads that follow have to be"),
    read("DBSIZE", "", "Number of keys"),
    write("DECR", "key", "Subtract one"),
    write("DECRBY", "key decrement", "Subtract a number"),
    write("DEL", "key [key ...]", "Remove keys; the reply is how many there were"),
    read("ECHO", "message", "The message"),
    read("EXISTS", "key [key ...]", "How many of the keys exist"),
    other("EXIT", "", "Leave"),
    write("FLUSHALL", "", "Remove all keys"),
    write("FLUSHDB", "", "Remove all keys"),
    read("GET", "key", "The value of a key"),
    write("GETSET", "key value", "Set a value; the reply is the old one"),
    other("HELP", "[command]", "What commands there are"),
    write("INCR", "key", "Add one"),
    write("INCRBY", "key increment", "Add a number"),
    read("INFO", "[section ...]", "State of the node"),
    read("KEYS", "pattern", "The keys that match a pattern"),
    read("MGET", "key [key ...]", "The values of several keys"),
    write("MSET", "key value [key value ...]", "Set several values at once"),
    read("PING", "[message]", "Whether the node answers"),
    write("PUT", "key value [NX|XX] [GET]", "Set a value; the same as SET"),
    other("READONLY", "", "Local reads from now on"),
    other("READWRITE", "", "Linearizable reads from now on"),
    read("ROLE", "", "The node's part in the cluster"),
    write("SET", "key value [NX|XX] [GET]", "Set a value"),
    write("SETNX", "key value", "Set a value if the key is missing"),
    read("STRLEN", "key", "Length of a value"),
    read("TIME", "", "The node's clock: seconds and microseconds"),
];

/// The command with this name, upper or lower case.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name))
}

/// What a repetition of the command would do.
pub fn class(name: &[u8]) -> Class {
    lookup(name).map_or(Class::Other, |command| command.class)
}

/// Whether the command changes data.
pub fn is_write(name: &[u8]) -> bool {
    class(name) == Class::Write
}

/// The text of HELP: all commands, or the one named.
pub fn help(name: Option<&[u8]>) -> Result<String, String> {
    let line = |command: &Command| {
        let call = format!("{} {}", command.name, command.usage);
        format!("{:<38} {}\n", call.trim_end(), command.summary)
    };
    match name {
        None => Ok(COMMANDS.iter().map(line).collect()),
        Some(name) => match lookup(name) {
            Some(command) => Ok(line(command)),
            None => Err(format!("ERR unknown command '{}'", String::from_utf8_lossy(name))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found_in_any_case() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        assert!(is_write(b"put") && is_write(b"Set") && is_write(b"CAS"));
        assert!(!is_write(b"GET") && !is_write(b"nothing"));
        assert_eq!(class(b"nothing"), Class::Other);
        assert_eq!(class(b"gEt"), Class::Read);
    }

    #[test]
    fn help_names_all_or_one() {
        assert_eq!(help(None).expect("all").lines().count(), COMMANDS.len());
        assert!(help(Some(b"get")).expect("known").starts_with("GET key  "));
        assert_eq!(help(Some(b"nope")), Err("ERR unknown command 'nope'".to_owned()));
    }
}
