//! Histories as text. A block begins with its verdict and a title; each line after it is an operation:
//!
//! ```text
//! bad: a read goes back in time
//! c1  0  1  SET x 1 -> OK
//! c2  2  3  GET x   -> nil
//! c1  4  -  SET x 2
//! ```
//!
//! Client, begin, end, command, outcome. `-` instead of an end: no answer. `nil` is a missing value, `""` an empty one.

use lanekv::linearizability::{Command, Operation, Outcome};

/// A history with what is right to say about it.
pub(crate) struct Case {
    pub(crate) title: String,
    pub(crate) good: bool,
    pub(crate) history: Vec<Operation>,
}

/// All blocks of a text; blank lines stand between them, lines with `#` do not count.
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    lines.split(|line| line.trim().is_empty()).filter(|block| !block.is_empty()).map(case).collect()
}

fn case(block: &[&str]) -> Case {
    let (verdict, title) = block[0].split_once(": ").unwrap_or_else(|| panic!("no verdict: {}", block[0]));
    let good = match verdict {
        "good" => true,
        "bad" => false,
        other => panic!("`{other}` is no verdict"),
    };
    Case { title: title.to_owned(), good, history: block[1..].iter().map(|line| operation(line)).collect() }
}

fn operation(line: &str) -> Operation {
    let (asked, answered) = match line.split_once("->") {
        Some((asked, answered)) => (asked, Some(answered)),
        None => (line, None),
    };
    let words: Vec<&str> = asked.split_whitespace().collect();
    let [client, begin, end, name, arguments @ ..] = words.as_slice() else {
        panic!("too short: {line}");
    };
    assert_eq!(*end == "-", answered.is_none(), "an end goes with an outcome: {line}");
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("`{word}` is no number: {line}"));
    let command = command(name, arguments);
    Operation {
        client: number(client.trim_start_matches('c')),
        begin: number(begin),
        end: if answered.is_some() { number(end) } else { 0 },
        outcome: answered.map(|text| outcome(&command, text)),
        command,
    }
}

fn bytes(word: &str) -> Vec<u8> {
    if word == "\"\"" { Vec::new() } else { word.as_bytes().to_vec() }
}

fn value(word: &str) -> Option<Vec<u8>> {
    (word != "nil").then(|| bytes(word))
}

fn command(name: &str, arguments: &[&str]) -> Command {
    let keys = || arguments.iter().map(|key| bytes(key)).collect();
    let pairs = || {
        let (pairs, rest) = arguments.as_chunks::<2>();
        assert!(rest.is_empty(), "{name} needs pairs");
        pairs.iter().map(|[key, value]| (bytes(key), bytes(value))).collect()
    };
    match (name, arguments) {
        ("GET" | "MGET", _) => Command::Get(keys()),
        ("SET", [key, value, "XX"]) => Command::SetIfPresent { key: bytes(key), value: bytes(value) },
        ("SET" | "MSET", _) => Command::Set(pairs()),
        ("SETNX" | "MSETNX", _) => Command::SetIfAbsent(pairs()),
        ("GETSET", [key, value]) => Command::GetSet { key: bytes(key), value: bytes(value) },
        ("CAS", [key, expected, new]) => {
            Command::CompareAndSet { key: bytes(key), expected: value(expected), new: bytes(new) }
        }
        ("INCR", [key]) => Command::Add { key: bytes(key), by: 1 },
        ("INCRBY", [key, by]) => Command::Add { key: bytes(key), by: by.parse().expect("a number") },
        ("APPEND", [key, tail]) => Command::Append { key: bytes(key), bytes: bytes(tail) },
        ("DEL", _) => Command::Delete(keys()),
        ("EXISTS", _) => Command::Exists(keys()),
        ("STRLEN", [key]) => Command::Length { key: bytes(key) },
        _ => panic!("no such command: {name} {arguments:?}"),
    }
}

/// Which kind of outcome a word is depends on the command, but for the errors.
fn outcome(command: &Command, text: &str) -> Outcome {
    let words: Vec<&str> = text.split_whitespace().collect();
    match (command, words.as_slice()) {
        (_, ["error"]) => Outcome::Failed,
        (Command::Get(_) | Command::GetSet { .. }, values) => {
            Outcome::Values(values.iter().map(|word| value(word)).collect())
        }
        (Command::Set(_), ["OK"]) => Outcome::Done,
        (Command::SetIfAbsent(_) | Command::SetIfPresent { .. } | Command::CompareAndSet { .. }, [flag]) => {
            Outcome::Flag(match *flag {
                "yes" => true,
                "no" => false,
                other => panic!("`{other}` is neither yes nor no"),
            })
        }
        (_, [number]) => Outcome::Integer(number.parse().unwrap_or_else(|_| panic!("no outcome: {text}"))),
        _ => panic!("no outcome: {text}"),
    }
}
