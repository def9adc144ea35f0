//! Connections of clients in each of the three dialects, one command after the other, and what a reply tells.
//!
//! Every reply ends in one of four ways, see [`Fate`]. What a node answers over an unharmed connection must
//! be well formed: bytes that are no reply are a mistake of the node, not of the network, since clients do not go
//! through proxies.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::{CallError, Connection};
use crate::config::Address;
use crate::linearizability::{Command, Outcome};
use crate::wire::client::{Consistency, WireReply};

/// The longest bulk or line that a client here may be sent.
const REPLY_LEN_MAX: usize = 1 << 20;
const ARRAY_LEN_MAX: usize = 1 << 12;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// How a client talks to its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// The project's own frames.
    Binary,
    /// As Redis clients do.
    Resp,
    /// As at `nc`.
    Text,
}

impl Dialect {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dialect::Binary => "binary",
            Dialect::Resp => "redis",
            Dialect::Text => "text",
        }
    }
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It was applied, or at fault itself.
    Answered(Outcome),
    /// It was certainly not applied.
    Refused,
    /// It may have been applied, or still be.
    Unknown,
    /// The node did something that no node may do.
    Nonsense(String),
}

/// A connection to one node.
pub(crate) enum Link {
    Binary(Connection),
    Resp(BufReader<TcpStream>),
    Text(BufReader<TcpStream>),
}

impl Link {
    /// Connects; later calls wait `patience` for a reply.
    pub(crate) fn open(dialect: Dialect, address: SocketAddr, patience: Duration) -> io::Result<Link> {
        if dialect == Dialect::Binary {
            let address =
                Address::parse(&address.to_string()).map_err(|fault| io::Error::other(fault.to_string()))?;
            return Ok(Link::Binary(Connection::open(&address, CONNECT_TIMEOUT)?));
        }
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let reader = BufReader::new(stream);
        Ok(if dialect == Dialect::Resp { Link::Resp(reader) } else { Link::Text(reader) })
    }

    /// Sends commands, all at once, and says what became of each and when that was known. The binary dialect has one
    /// at a time. After anything but answers the connection is of no more use.
    pub(crate) fn call(
        &mut self,
        commands: &[Command],
        consistency: Consistency,
        patience: Duration,
    ) -> Vec<(Fate, Instant)> {
        let mut fates = Vec::new();
        if let Link::Binary(connection) = self {
            for command in commands {
                let whole = fates.iter().all(|(fate, _)| matches!(fate, Fate::Answered(_)));
                let fate = if whole {
                    call_binary(connection, command, consistency, patience)
                } else {
                    Fate::Refused
                };
                fates.push((fate, Instant::now()));
            }
            return fates;
        }
        let sent = self.send(commands);
        for command in commands {
            // Of a burst that did not leave whole, the first commands may have been taken.
            let fate = if sent.is_ok() { self.receive(command) } else { Fate::Unknown };
            fates.push((fate, Instant::now()));
        }
        fates
    }

    fn send(&mut self, commands: &[Command]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for command in commands {
            if let Link::Resp(_) = self {
                encode_resp(&mut bytes, &words(command));
            } else {
                bytes.extend(words(command).join(&b' '));
                bytes.push(b'\n');
            }
        }
        match self {
            Link::Binary(_) => Err(io::ErrorKind::Unsupported.into()),
            Link::Resp(reader) | Link::Text(reader) => reader.get_mut().write_all(&bytes),
        }
    }

    fn receive(&mut self, command: &Command) -> Fate {
        let reply = match self {
            Link::Binary(_) => Err(io::ErrorKind::Unsupported.into()),
            Link::Resp(reader) => read_resp(reader),
            Link::Text(reader) => read_line(reader).map(|line| text_reply(command, line)),
        };
        match reply {
            Ok(reply) => interpret(command, &reply),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Fate::Nonsense(error.to_string()),
            Err(_) => Fate::Unknown,
        }
    }

    /// Asks a Redis connection something that is no command of the model.
    pub(crate) fn ask(&mut self, words: &[&[u8]]) -> io::Result<WireReply> {
        let Link::Resp(reader) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut bytes = Vec::new();
        encode_resp(&mut bytes, words);
        reader.get_mut().write_all(&bytes)?;
        read_resp(reader)
    }
}

fn call_binary(
    connection: &mut Connection,
    command: &Command,
    consistency: Consistency,
    patience: Duration,
) -> Fate {
    match connection.call(consistency, None, &words(command), patience, Instant::now() + patience) {
        Ok(reply) => interpret(command, &reply),
        Err(CallError::NotSent(_)) => Fate::Refused,
        Err(CallError::Lost(_) | CallError::TimedOut(_)) => Fate::Unknown,
        Err(error) => Fate::Nonsense(error.to_string()),
    }
}

/// A command as it is typed: the name and the arguments.
pub(crate) fn words(command: &Command) -> Vec<Vec<u8>> {
    let list = |name: &str, keys: &[Vec<u8>]| {
        std::iter::once(name.as_bytes().to_vec()).chain(keys.iter().cloned()).collect::<Vec<_>>()
    };
    let pairs = |name: &str, pairs: &[(Vec<u8>, Vec<u8>)]| {
        let flat = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
        std::iter::once(name.as_bytes().to_vec()).chain(flat).collect::<Vec<_>>()
    };
    let plain = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
    match command {
        Command::Get(keys) => list(if keys.len() == 1 { "GET" } else { "MGET" }, keys),
        Command::Delete(keys) => list("DEL", keys),
        Command::Exists(keys) => list("EXISTS", keys),
        Command::Set(all) => pairs(if all.len() == 1 { "SET" } else { "MSET" }, all),
        Command::SetIfAbsent(all) => pairs(if all.len() == 1 { "SETNX" } else { "MSETNX" }, all),
        Command::SetIfPresent { key, value } => plain(&[b"SET", key, value, b"XX"]),
        Command::GetSet { key, value } => plain(&[b"GETSET", key, value]),
        Command::CompareAndSet { key, expected: Some(expected), new } => plain(&[b"CAS", key, expected, new]),
        Command::CompareAndSet { key, expected: None, new } => plain(&[b"SET", key, new, b"NX"]),
        Command::Add { key, by } => plain(&[b"INCRBY", key, by.to_string().as_bytes()]),
        Command::Append { key, bytes } => plain(&[b"APPEND", key, bytes]),
        Command::Length { key } => plain(&[b"STRLEN", key]),
    }
}

/// What a reply says about a command.
pub(crate) fn interpret(command: &Command, reply: &WireReply) -> Fate {
    if let WireReply::Error(text) = reply {
        return match text.split(' ').next().unwrap_or_default() {
            "NOQUORUM" | "BUSY" | "LOADING" => Fate::Refused,
            "TIMEOUT" => Fate::Unknown,
            "ERR" if matches!(command, Command::Add { .. }) && text.contains("not an integer") => {
                Fate::Answered(Outcome::Failed)
            }
            _ => Fate::Nonsense(format!("unexpected error for {command}: {text:?}")),
        };
    }
    let value = |reply: &WireReply| match reply {
        WireReply::Nil => Some(None),
        WireReply::Bulk(bytes) => Some(Some(bytes.clone())),
        _ => None,
    };
    let ok = || matches!(reply, WireReply::Status(text) if text == "OK");
    let outcome = match command {
        Command::Get(keys) if keys.len() > 1 => match reply {
            WireReply::Array(items) if items.len() == keys.len() => {
                items.iter().map(value).collect::<Option<Vec<_>>>().map(Outcome::Values)
            }
            _ => None,
        },
        Command::Get(_) | Command::GetSet { .. } => value(reply).map(|value| Outcome::Values(vec![value])),
        Command::Set(_) => ok().then_some(Outcome::Done),
        Command::SetIfAbsent(_) => match reply {
            WireReply::Integer(set @ (0 | 1)) => Some(Outcome::Flag(*set == 1)),
            _ => None,
        },
        Command::SetIfPresent { .. } | Command::CompareAndSet { .. } => match reply {
            WireReply::Nil => Some(Outcome::Flag(false)),
            _ => ok().then_some(Outcome::Flag(true)),
        },
        Command::Add { .. }
        | Command::Append { .. }
        | Command::Delete(_)
        | Command::Exists(_)
        | Command::Length { .. } => match reply {
            WireReply::Integer(number) => Some(Outcome::Integer(*number)),
            _ => None,
        },
    };
    outcome.map_or_else(|| Fate::Nonsense(format!("{command} was answered {reply:?}")), Fate::Answered)
}

/// The text dialect does not say what kind of reply a line is: the command does.
fn text_reply(command: &Command, line: Vec<u8>) -> WireReply {
    let text = String::from_utf8_lossy(&line);
    let code = text.split(' ').next().unwrap_or_default();
    if text.contains(' ') && code.len() > 2 && code.bytes().all(|b| b.is_ascii_uppercase()) {
        return WireReply::Error(text.into_owned());
    }
    if text == "Not Found" {
        return WireReply::Nil;
    }
    match command {
        Command::Get(_) | Command::GetSet { .. } => WireReply::Bulk(line),
        _ => match text.parse() {
            Ok(number) => WireReply::Integer(number),
            Err(_) => WireReply::Status(text.into_owned()),
        },
    }
}

fn encode_resp<A: AsRef<[u8]>>(out: &mut Vec<u8>, words: &[A]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        let word = word.as_ref();
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn invalid(what: &str, line: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: \"{}\"", line.escape_ascii()))
}

/// A line without its end. One that breaks off is the end of the stream.
fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.by_ref().take(REPLY_LEN_MAX as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ if line.len() + 1 >= REPLY_LEN_MAX => Err(invalid("line without end", &line[..40])),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A reply of RESP2: what these clients ask is answered with arrays of plain values at most.
fn read_resp(reader: &mut BufReader<TcpStream>) -> io::Result<WireReply> {
    match read_resp_item(reader)? {
        Item::Reply(reply) => Ok(reply),
        Item::Array(len) => {
            let mut items = Vec::with_capacity(len);
            for _ in 0..len {
                match read_resp_item(reader)? {
                    Item::Reply(reply) => items.push(reply),
                    Item::Array(_) => return Err(invalid("array in an array", b"*")),
                }
            }
            Ok(WireReply::Array(items))
        }
    }
}

enum Item {
    Reply(WireReply),
    Array(usize),
}

fn read_resp_item(reader: &mut BufReader<TcpStream>) -> io::Result<Item> {
    let line = read_line(reader)?;
    let Some(line) = line.strip_suffix(b"\r") else { return Err(invalid("no CR LF", &line)) };
    let Some((kind, rest)) = line.split_first() else { return Err(invalid("empty line", line)) };
    let text = String::from_utf8_lossy(rest).into_owned();
    let number = || text.parse::<i64>().map_err(|_| invalid("no number", line));
    let len = |max: usize| match number()? {
        -1 => Ok(None),
        len => match usize::try_from(len) {
            Ok(len) if len <= max => Ok(Some(len)),
            _ => Err(invalid("no length", line)),
        },
    };
    Ok(Item::Reply(match kind {
        b'+' => WireReply::Status(text),
        b'-' => WireReply::Error(text),
        b':' => WireReply::Integer(number()?),
        b'$' => match len(REPLY_LEN_MAX)? {
            None => WireReply::Nil,
            Some(len) => {
                let mut bytes = vec![0; len + 2];
                reader.read_exact(&mut bytes)?;
                if !bytes.ends_with(b"\r\n") {
                    return Err(invalid("no CR LF after a bulk", &bytes[len..]));
                }
                bytes.truncate(len);
                WireReply::Bulk(bytes)
            }
        },
        b'*' => return Ok(len(ARRAY_LEN_MAX)?.map_or(Item::Reply(WireReply::Nil), Item::Array)),
        _ => return Err(invalid("no reply", line)),
    }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn key() -> Vec<u8> {
        b"k".to_vec()
    }

    #[test]
    fn replies_mean_what_the_commands_make_of_them() {
        let get = Command::Get(vec![key()]);
        let set = Command::Set(vec![(key(), b"v".to_vec())]);
        let add = Command::Add { key: key(), by: 1 };
        let cas = Command::CompareAndSet { key: key(), expected: Some(key()), new: key() };
        let error = |text: &str| WireReply::Error(text.to_owned());
        let ok = WireReply::Status("OK".to_owned());
        let answered = Fate::Answered;
        assert_eq!(interpret(&get, &WireReply::Nil), answered(Outcome::Values(vec![None])));
        assert_eq!(interpret(&set, &ok), answered(Outcome::Done));
        assert_eq!(interpret(&cas, &ok), answered(Outcome::Flag(true)));
        assert_eq!(interpret(&cas, &WireReply::Nil), answered(Outcome::Flag(false)));
        assert_eq!(interpret(&add, &WireReply::Integer(-3)), answered(Outcome::Integer(-3)));
        let text = "ERR value is not an integer or out of range";
        assert_eq!(interpret(&add, &error(text)), answered(Outcome::Failed));
        assert!(matches!(interpret(&get, &error(text)), Fate::Nonsense(_)));
        assert!(matches!(interpret(&set, &WireReply::Integer(1)), Fate::Nonsense(_)));
        for code in ["NOQUORUM no", "BUSY x", "LOADING x"] {
            assert_eq!(interpret(&set, &error(code)), Fate::Refused);
        }
        assert_eq!(interpret(&set, &error("TIMEOUT x")), Fate::Unknown);
    }

    #[test]
    fn lines_of_text_are_replies() {
        let get = Command::Get(vec![key()]);
        let add = Command::Add { key: key(), by: 1 };
        let line = |command: &Command, text: &str| text_reply(command, text.as_bytes().to_vec());
        assert_eq!(line(&get, "12"), WireReply::Bulk(b"12".to_vec()));
        assert_eq!(line(&add, "12"), WireReply::Integer(12));
        assert_eq!(line(&get, "Not Found"), WireReply::Nil);
        assert_eq!(line(&add, "TIMEOUT too late"), WireReply::Error("TIMEOUT too late".to_owned()));
        assert_eq!(line(&Command::Set(vec![]), "OK"), WireReply::Status("OK".to_owned()));
    }

    /// What a Redis connection makes of these bytes of a node that then goes away.
    fn resp(bytes: &'static [u8]) -> io::Result<WireReply> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let node = std::thread::spawn(move || listener.accept().unwrap().0.write_all(bytes));
        let mut reader = BufReader::new(TcpStream::connect(address).unwrap());
        reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        let reply = read_resp(&mut reader);
        node.join().unwrap().unwrap();
        reply
    }

    #[test]
    fn resp_is_read_whole_or_not_at_all() {
        let array = vec![WireReply::Bulk(b"a\r\n".to_vec()), WireReply::Nil, WireReply::Integer(-7)];
        assert_eq!(resp(b"*3\r\n$3\r\na\r\n\r\n$-1\r\n:-7\r\n").unwrap(), WireReply::Array(array));
        assert_eq!(resp(b"-ERR x\r\n").unwrap(), WireReply::Error("ERR x".to_owned()));
        for broken in [b"$3\r\nab".as_slice(), b"", b"+O", b"*2\r\n:1\r\n"] {
            assert_eq!(resp(broken).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{broken:?}");
        }
        for wrong in [
            b"hello\r\n".as_slice(),
            b"$99999999\r\n",
            b"$1\r\nabc\r\n",
            b":x\r\n",
            b"*1\r\n*0\r\n",
            b"+OK\n",
        ] {
            assert_eq!(resp(wrong).unwrap_err().kind(), io::ErrorKind::InvalidData, "{wrong:?}");
        }
    }
}
