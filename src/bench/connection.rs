//! A socket, its buffers, and what is under way on it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::dialect::{Answer, Dialect, Taken};
use super::workload::{Command, Operation};

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// `None` is what a connection begins with.
    pub(super) operation: Option<Operation>,
    /// When it was sent, or was due if that is earlier; nanoseconds of the run.
    pub(super) since: u64,
    answered: bool,
}

impl Pending {
    /// A request that nobody has answered.
    pub(super) fn of(operation: Option<Operation>, since: u64) -> Pending {
        Pending { operation, since, answered: false }
    }
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(super) enum Broken {
    /// It ended.
    Lost(String),
    /// What came is not of the dialect.
    Nonsense(String),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// The handshake of TCP is done.
    pub(super) established: bool,
    dialect: Dialect,
    /// The beginning of a reply that has not come completely.
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    pending: VecDeque<Pending>,
    first_seq: u64,
    /// Those of `pending` that have not been answered.
    pub(super) under_way: usize,
}

impl Connection {
    /// Begins to connect.
    pub(super) fn open(
        address: SocketAddr,
        dialect: Dialect,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Connection> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection {
            stream,
            established: false,
            dialect,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            pending: VecDeque::new(),
            first_seq: 0,
            under_way: 0,
        })
    }

    /// Whether the handshake is done by now. What the dialect begins with is queued then.
    pub(super) fn establish(&mut self, now: u64) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        self.stream.set_nodelay(true)?;
        self.established = true;
        if self.dialect.greet(&mut self.output) {
            self.push(None, now);
        }
        Ok(true)
    }

    /// Queues a request; [`Connection::flush`] sends it.
    pub(super) fn submit(&mut self, command: &Command, since: u64) {
        let seq = self.first_seq + self.pending.len() as u64;
        self.dialect.encode(seq, command, &mut self.output);
        self.push(Some(command.operation), since);
    }

    fn push(&mut self, operation: Option<Operation>, since: u64) {
        self.pending.push_back(Pending::of(operation, since));
        self.under_way += 1;
    }

    /// Writes as much as the kernel takes.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Lost(error.to_string())),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what has come and hands over what was answered. With `to_the_end` it reads until there is nothing
    /// more; otherwise a read that did not fill the buffer is taken for the last one.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        to_the_end: bool,
        mut answered: impl FnMut(Pending, Answer),
    ) -> Result<(), Broken> {
        loop {
            let len = match self.stream.read(buffer) {
                Ok(0) => return Err(Broken::Lost("closed by the server".to_owned())),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Lost(error.to_string())),
            };
            if self.input.is_empty() {
                let used = self.take_replies(&buffer[..len], &mut answered)?;
                self.input.extend_from_slice(&buffer[used..len]);
            } else {
                let mut input = std::mem::take(&mut self.input);
                input.extend_from_slice(&buffer[..len]);
                let used = self.take_replies(&input, &mut answered)?;
                input.drain(..used);
                self.input = input;
            }
            if len < buffer.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Takes all complete replies; returns how many bytes they had.
    fn take_replies(
        &mut self,
        bytes: &[u8],
        answered: &mut impl FnMut(Pending, Answer),
    ) -> Result<usize, Broken> {
        let mut used = 0;
        while used < bytes.len() {
            match self.dialect.take(&bytes[used..], &mut self.output).map_err(Broken::Nonsense)? {
                Taken::Incomplete => break,
                Taken::Passed(len) => used += len,
                Taken::Reply { len, seq, answer } => {
                    used += len;
                    let index = seq.checked_sub(self.first_seq).and_then(|index| usize::try_from(index).ok());
                    let pending = index.and_then(|index| self.pending.get_mut(index));
                    let Some(pending) = pending.filter(|pending| !pending.answered) else {
                        return Err(Broken::Nonsense("what was not asked".to_owned()));
                    };
                    pending.answered = true;
                    self.under_way -= 1;
                    answered(*pending, answer);
                    while self.pending.front().is_some_and(|pending| pending.answered) {
                        self.pending.pop_front();
                        self.first_seq += 1;
                    }
                }
            }
        }
        Ok(used)
    }

    /// What will not be answered any more, now that the connection is lost.
    pub(super) fn abandoned(&self) -> impl Iterator<Item = Pending> + '_ {
        self.pending.iter().copied().filter(|pending| !pending.answered)
    }
}
