//! A client that does what `nc` does: lines out, lines in.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// One connection that speaks the text dialect.
pub(crate) struct TextClient {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl TextClient {
    pub(crate) fn connect(address: &str) -> TextClient {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub(crate) fn try_connect(address: &str) -> std::io::Result<TextClient> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(TextClient { reader: BufReader::new(stream.try_clone()?), stream })
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("not zero");
    }

    /// Sends these bytes as they are.
    pub(crate) fn send(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes())
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        assert_eq!(line.pop(), Some(b'\n'), "half a line: {:?}", String::from_utf8_lossy(&line));
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Sends one command and waits for its one-line reply.
    pub(crate) fn try_ask(&mut self, command: &str) -> std::io::Result<String> {
        self.send(&format!("{command}\n"))?;
        self.line()
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Shuts the sending side down and reads until the node closes: what `nc -N` does.
    pub(crate) fn finish(mut self) -> String {
        self.stream.shutdown(Shutdown::Write).expect("connected");
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).expect("the node closes in time");
        String::from_utf8_lossy(&rest).into_owned()
    }
}
