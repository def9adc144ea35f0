//! A TCP proxy for one direction of a link: what one node dials to reach another.
//!
//! Nodes send frames on connections they made themselves, so the bytes from the dialling side are what the
//! link carries and the bytes back are the answer to its hello. A proxy can do to them what networks do:
//! break every connection (by an end of stream or by a reset), refuse, fall silent without a word, delay,
//! be slow, stop in the middle of a frame, and change a bit.
//!
//! Each connection has two threads, one for each direction. A thread reads a chunk, notes when it is due,
//! and writes what is due; while it waits for the next chunk it wakes for the one due next. What may be
//! written, and how fast, is asked of the link's [`Mode`] at each chunk, so a change of mode holds for bytes
//! already read. A broken connection discards them, as a network would.
//!
//! Left out on purpose: loss, duplication and reordering inside a connection. TCP does not let nodes see them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

const CHUNK_LEN: usize = 64 << 10;
/// So many bytes may be on their way over a delayed link; then nothing more is read.
const DELAYED_LEN_MAX: usize = 8 << 20;
/// How often a thread that cannot write looks whether it still should.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A slow link passes its share of bytes so often.
const SLOW_EVERY: Duration = Duration::from_millis(50);

/// What a link does with bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// They pass.
    Open,
    /// Connections are broken, new ones are closed at once.
    Cut,
    /// Connections stay and new ones are taken, but nothing passes.
    Silent,
    /// They arrive so much later.
    Delay(Duration),
    /// So many pass in a second.
    Slow(u32),
}

/// What happens once, to a byte on its way from the dialling side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accident {
    /// It and all after it are lost with the connection.
    Tear,
    /// This bit of it changes.
    Flip { bit: u8 },
}

/// What became of changed bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flips {
    /// How many bits were changed.
    pub made: u64,
    /// How many of them were followed by the end of their connection, by the receiver.
    pub noticed: u64,
    /// How many were on connections that ended in another way first.
    pub moot: u64,
    /// Since when the oldest connection is open whose receiver got a changed bit.
    pub open_since: Option<Instant>,
}

struct Connection {
    /// From the dialling node.
    inward: TcpStream,
    /// To the node that is dialled.
    outward: TcpStream,
    closing: AtomicBool,
    /// The connection's end is a reset.
    reset: AtomicBool,
    /// When a bit was first changed on it, and how many were since.
    flipped: Mutex<Option<(Instant, u64)>>,
}

struct State {
    mode: Mode,
    connections: BTreeMap<u64, Arc<Connection>>,
    next_id: u64,
    /// What happens to the byte that comes after so many more.
    accident: Option<(u64, Accident)>,
    flips: Flips,
}

struct Shared {
    to: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    passed: AtomicU64,
    stopped: AtomicBool,
}

/// Passes connections on until told otherwise, or dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    /// Listens at `from` and connects to `to`.
    ///
    /// # Errors
    /// The address cannot be bound, or there are no threads left.
    pub fn start(from: SocketAddr, to: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind(from)?;
        let address = listener.local_addr()?;
        let state = State {
            mode: Mode::Open,
            connections: BTreeMap::new(),
            next_id: 0,
            accident: None,
            flips: Flips::default(),
        };
        let shared = Arc::new(Shared {
            to,
            state: Mutex::new(state),
            changed: Condvar::new(),
            passed: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for inward in listener.incoming() {
                if of_thread.stopped.load(Ordering::SeqCst) {
                    break;
                }
                match inward {
                    Ok(inward) => of_thread.connect(inward),
                    // No descriptors, or the dialling side has gone already.
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        })?;
        Ok(Proxy { shared, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the link does this with bytes.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        state.mode = mode;
        if mode == Mode::Cut {
            state.accident = None;
            Shared::break_all(&mut state, false);
        }
        self.shared.changed.notify_all();
    }

    /// Breaks every connection and refuses new ones.
    pub fn cut(&self) {
        self.set(Mode::Cut);
    }

    /// Lets nothing pass any more, without a word.
    pub fn silence(&self) {
        self.set(Mode::Silent);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.set(Mode::Open);
    }

    /// Breaks every connection by a reset; new ones are taken.
    pub fn reset(&self) {
        Shared::break_all(&mut self.shared.lock(), true);
        self.shared.changed.notify_all();
    }

    /// Passes so many more bytes, then breaks the connection of the next one; new ones are taken.
    pub fn tear_after(&self, bytes: u64) {
        self.shared.lock().accident = Some((bytes, Accident::Tear));
    }

    /// Passes so many more bytes, then changes this bit of the next one.
    pub fn flip_after(&self, bytes: u64, bit: u8) {
        self.shared.lock().accident = Some((bytes, Accident::Flip { bit: bit % 8 }));
    }

    /// Bytes that went through so far, in both directions.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// What became of changed bits so far.
    pub fn flips(&self) -> Flips {
        let state = self.shared.lock();
        let since = |connection: &Arc<Connection>| lock(&connection.flipped).map(|(since, _)| since);
        Flips { open_since: state.connections.values().filter_map(since).min(), ..state.flips }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.cut();
        // The listening thread waits for a connection.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// Nothing panics with these locks held; if a thread did, the bytes it left are still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which way bytes go through a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

/// How a pump ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its source has no more bytes, or reading failed.
    Source,
    /// Its sink takes no more bytes.
    Sink,
    /// The link was broken.
    Broken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn break_all(state: &mut State, reset: bool) {
        for connection in state.connections.values() {
            connection.close(reset);
        }
    }

    fn connect(self: &Arc<Shared>, inward: TcpStream) {
        if self.lock().mode == Mode::Cut {
            return;
        }
        let Ok(outward) = TcpStream::connect_timeout(&self.to, Duration::from_secs(1)) else { return };
        for stream in [&inward, &outward] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_write_timeout(Some(LOOK_EVERY));
        }
        let connection = Arc::new(Connection {
            inward,
            outward,
            closing: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            flipped: Mutex::new(None),
        });
        let id = {
            let mut state = self.lock();
            // Between the look above and here the link may have been cut.
            if state.mode == Mode::Cut {
                return;
            }
            let id = state.next_id;
            state.next_id += 1;
            state.connections.insert(id, Arc::clone(&connection));
            id
        };
        for direction in [Direction::Forward, Direction::Back] {
            let (shared, connection_of_thread) = (Arc::clone(self), Arc::clone(&connection));
            let pump = move || {
                let ended = Pump::new(&shared, &connection_of_thread, direction).run();
                shared.ended(id, &connection_of_thread, direction, ended);
            };
            if thread::Builder::new().name("pump".to_owned()).spawn(pump).is_err() {
                self.ended(id, &connection, direction, Ended::Broken);
            }
        }
    }

    /// One direction has ended: so does the connection.
    fn ended(&self, id: u64, connection: &Connection, direction: Direction, ended: Ended) {
        let mut state = self.lock();
        if state.connections.remove(&id).is_some()
            && let Some((_, bits)) = *lock(&connection.flipped)
        {
            // The receiver of frames has closed if its side had no more bytes, or took none.
            let by_receiver = matches!(
                (direction, ended),
                (Direction::Back, Ended::Source) | (Direction::Forward, Ended::Sink)
            );
            if by_receiver && !connection.closing.load(Ordering::SeqCst) {
                state.flips.noticed += bits;
            } else {
                state.flips.moot += bits;
            }
        }
        drop(state);
        connection.close(connection.reset.load(Ordering::SeqCst));
    }

    /// Waits until bytes may pass and says how many of these `len`; `None`: the connection is broken.
    fn permit(&self, connection: &Connection, len: usize) -> Option<usize> {
        let mut state = self.lock();
        let mut paced = false;
        loop {
            if connection.closing.load(Ordering::SeqCst) {
                return None;
            }
            match state.mode {
                Mode::Cut => return None,
                Mode::Open | Mode::Delay(_) => return Some(len),
                Mode::Silent => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Mode::Slow(rate) if paced => {
                    let share = u64::from(rate) * u64::try_from(SLOW_EVERY.as_millis()).unwrap_or(1) / 1_000;
                    return Some(len.min(usize::try_from(share).unwrap_or(usize::MAX).max(1)));
                }
                Mode::Slow(_) => {
                    state = self
                        .changed
                        .wait_timeout(state, SLOW_EVERY)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    paced = true;
                }
            }
        }
    }

    /// Counts these bytes, about to pass forward. Says how many pass before the connection is torn.
    fn accident(&self, connection: &Connection, bytes: &mut [u8]) -> Option<usize> {
        let mut state = self.lock();
        let (left, accident) = state.accident?;
        let len = bytes.len() as u64;
        if left >= len {
            state.accident = Some((left - len, accident));
            return None;
        }
        state.accident = None;
        let at = usize::try_from(left).expect("below a length");
        match accident {
            Accident::Tear => Some(at),
            Accident::Flip { bit } => {
                bytes[at] ^= 1 << bit;
                state.flips.made += 1;
                lock(&connection.flipped).get_or_insert_with(|| (Instant::now(), 0)).1 += 1;
                None
            }
        }
    }

    fn delay(&self) -> Duration {
        match self.lock().mode {
            Mode::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

impl Connection {
    /// Ends both sides. Without bytes to the contrary, closing a socket ends its stream; after a linger time
    /// of zero it is a reset. Shutting down the reading side wakes the threads and sends nothing.
    fn close(&self, reset: bool) {
        self.closing.store(true, Ordering::SeqCst);
        if reset {
            self.reset.store(true, Ordering::SeqCst);
            for stream in [&self.inward, &self.outward] {
                let _ = set_socket_linger(stream, Some(Duration::ZERO));
                let _ = stream.shutdown(Shutdown::Read);
            }
        } else {
            let _ = self.inward.shutdown(Shutdown::Both);
            let _ = self.outward.shutdown(Shutdown::Both);
        }
    }
}

/// One direction of a connection.
struct Pump<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    direction: Direction,
    source: &'a TcpStream,
    sink: &'a TcpStream,
    /// What was read and is not due yet.
    delayed: VecDeque<(Instant, Vec<u8>)>,
    delayed_len: usize,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, connection: &'a Connection, direction: Direction) -> Pump<'a> {
        let (source, sink) = match direction {
            Direction::Forward => (&connection.inward, &connection.outward),
            Direction::Back => (&connection.outward, &connection.inward),
        };
        Pump { shared, connection, direction, source, sink, delayed: VecDeque::new(), delayed_len: 0 }
    }

    fn run(&mut self) -> Ended {
        let mut buffer = vec![0; CHUNK_LEN];
        let mut patience = None;
        loop {
            while let Some((due, _)) = self.delayed.front() {
                let now = Instant::now();
                if *due > now {
                    if self.delayed_len < DELAYED_LEN_MAX {
                        break;
                    }
                    thread::sleep(*due - now);
                }
                let (_, mut chunk) = self.delayed.pop_front().expect("just looked at");
                self.delayed_len -= chunk.len();
                if let Err(ended) = self.pass(&mut chunk) {
                    return ended;
                }
            }
            let left = |(due, _): &(Instant, Vec<u8>)| due.saturating_duration_since(Instant::now());
            // A socket takes zero for "for ever".
            let wanted = self.delayed.front().map(|first| left(first).max(Duration::from_micros(100)));
            if wanted != patience {
                let _ = self.source.set_read_timeout(wanted);
                patience = wanted;
            }
            match (&mut &*self.source).read(&mut buffer) {
                Ok(0) => return self.finish(),
                Ok(len) => {
                    let delay = self.shared.delay();
                    if delay.is_zero() && self.delayed.is_empty() {
                        if let Err(ended) = self.pass(&mut buffer[..len]) {
                            return ended;
                        }
                    } else {
                        // Bytes never overtake each other.
                        let after = self.delayed.back().map(|(due, _)| *due);
                        let due = (Instant::now() + delay).max(after.unwrap_or_else(Instant::now));
                        self.delayed.push_back((due, buffer[..len].to_vec()));
                        self.delayed_len += len;
                    }
                }
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ended::Source,
            }
        }
    }

    /// The source has ended in good order: what is under way still arrives.
    fn finish(&mut self) -> Ended {
        while let Some((due, mut chunk)) = self.delayed.pop_front() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if let Err(ended) = self.pass(&mut chunk) {
                return ended;
            }
        }
        Ended::Source
    }

    /// Passes these bytes as the link's mode allows.
    fn pass(&self, bytes: &mut [u8]) -> Result<(), Ended> {
        let mut at = 0;
        while at < bytes.len() {
            let len = self.shared.permit(self.connection, bytes.len() - at).ok_or(Ended::Broken)?;
            let piece = &mut bytes[at..at + len];
            at += len;
            let torn = match self.direction {
                Direction::Forward => self.shared.accident(self.connection, piece),
                Direction::Back => None,
            };
            let piece = &piece[..torn.unwrap_or(len)];
            self.write(piece)?;
            self.shared.passed.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if torn.is_some() {
                return Err(Ended::Broken);
            }
        }
        Ok(())
    }

    fn write(&self, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            match (&mut &*self.sink).write(bytes) {
                Ok(0) => return Err(Ended::Sink),
                Ok(len) => bytes = &bytes[len..],
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {
                    if self.connection.closing.load(Ordering::SeqCst) {
                        return Err(Ended::Broken);
                    }
                }
                Err(_) => return Err(Ended::Sink),
            }
        }
        Ok(())
    }
}

/// A socket's time-out has two names, depending on the system.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
