//! A small RESP2 client, enough to pipeline commands and to check every byte of the replies.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::PATIENCE;

/// A reply in RESP2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Resp {
    Status(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Resp>),
}

impl Resp {
    pub(crate) fn ok() -> Resp {
        Resp::Status("OK".into())
    }

    pub(crate) fn bulk(bytes: impl AsRef<[u8]>) -> Resp {
        Resp::Bulk(bytes.as_ref().to_vec())
    }

    /// The text of a status or bulk.
    pub(crate) fn text(&self) -> String {
        match self {
            Resp::Status(text) => text.clone(),
            Resp::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Resp::Error(_))
    }
}

/// A command as an array of bulk strings.
pub(crate) fn encode_command<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// One connection that speaks RESP2.
pub(crate) struct RespClient {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl RespClient {
    pub(crate) fn connect(address: &str) -> RespClient {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub(crate) fn try_connect(address: &str) -> std::io::Result<RespClient> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(RespClient { reader: BufReader::new(stream.try_clone()?), stream })
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("not zero");
    }

    /// The socket, for tests that send what is no command.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> std::io::Result<()> {
        self.stream.write_all(&encode_command(arguments))
    }

    /// Sends these bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> std::io::Result<Resp> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().unwrap_or_else(|_| panic!("no number: {line:?}"));
        Ok(match kind {
            "+" => Resp::Status(rest.into()),
            "-" => Resp::Error(rest.into()),
            ":" => Resp::Integer(number()),
            "$" if rest == "-1" => Resp::Nil,
            "$" => {
                let len = usize::try_from(number()).expect("a length");
                let mut bytes = vec![0; len + 2];
                self.reader.read_exact(&mut bytes)?;
                assert_eq!(bytes.split_off(len), b"\r\n", "end of a bulk");
                Resp::Bulk(bytes)
            }
            "*" if rest == "-1" => Resp::Nil,
            "*" => {
                let count = number();
                Resp::Array((0..count).map(|_| self.reply()).collect::<std::io::Result<_>>()?)
            }
            _ => panic!("no RESP2 reply: {line:?}"),
        })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let text = text.strip_suffix("\r\n").unwrap_or_else(|| panic!("no CR LF after {text:?}"));
        assert!(!text.is_empty(), "an empty line is no reply");
        Ok(text.to_owned())
    }

    pub(crate) fn try_ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> std::io::Result<Resp> {
        self.send(arguments)?;
        self.reply()
    }

    /// Sends one command and waits for its reply.
    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Resp {
        self.try_ask(arguments).unwrap_or_else(|error| {
            let name = arguments.first().map(|name| String::from_utf8_lossy(name.as_ref()).into_owned());
            panic!("{name:?}: {error}")
        })
    }
}
