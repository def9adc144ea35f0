//! Listening sockets.
//!
//! When the process is out of descriptors, `accept` fails and leaves the connection where it is, and no
//! new event will tell of it. So a spare descriptor is given up for a moment to accept and close one
//! connection, which tells its client the truth at once, and the listener is tried again after a pause.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use mio::Token;
use mio::net::{TcpListener, TcpStream};

use crate::config::Address;
use crate::types::Millis;

/// How long accepting pauses after an error.
const RETRY_AFTER: Millis = Millis(100);

/// Connections turned away at once when there are no descriptors.
const TURN_AWAY_COUNT: usize = 64;

/// Whom a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Purpose {
    /// Clients of every dialect, and peers that have no listener of their own.
    #[default]
    Main,
    /// Peers alone.
    Peers,
    /// Clients alone, who are shown a cluster.
    Cluster,
}

impl Purpose {
    /// What events of the listening socket are called.
    pub(super) fn token(self) -> Token {
        match self {
            Purpose::Main => Token(0),
            Purpose::Peers => Token(1),
            Purpose::Cluster => Token(2),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) purpose: Purpose,
    pub(super) socket: TcpListener,
    /// There may be a connection to accept.
    pub(super) ready: bool,
    /// After an error: try again then.
    pub(super) retry_at: Option<Millis>,
    spare: Option<File>,
}

impl Listener {
    /// Listens on the first of the address's IP addresses that can be listened on.
    pub(super) fn bind(address: &Address, purpose: Purpose) -> io::Result<Listener> {
        let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
        for address in (address.host(), address.port()).to_socket_addrs()? {
            result = TcpListener::bind(address);
            if result.is_ok() {
                break;
            }
        }
        Ok(Listener { purpose, socket: result?, ready: true, retry_at: None, spare: spare() })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether accepting is worth a try.
    pub(super) fn can_accept(&self, now: Millis) -> bool {
        self.ready && self.retry_at.is_none_or(|at| now >= at)
    }

    /// The next connection, or `None` if there is none for now.
    pub(super) fn accept(&mut self, now: Millis) -> Option<(TcpStream, SocketAddr)> {
        if !self.can_accept(now) {
            return None;
        }
        self.retry_at = None;
        if self.spare.is_none() {
            self.spare = spare();
        }
        loop {
            match self.socket.accept() {
                Ok(accepted) => return Some(accepted),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.ready = false,
                    // Only that one connection is gone.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => continue,
                    _ => {
                        log::warn!("accept failed, trying again in {RETRY_AFTER}: {error}");
                        self.turn_away();
                        self.retry_at = Some(now.plus(RETRY_AFTER));
                    }
                },
            }
            return None;
        }
    }

    /// Closes connections that wait, one after the other, by means of the spare descriptor.
    fn turn_away(&mut self) {
        for _ in 0..TURN_AWAY_COUNT {
            if self.spare.take().is_none() || self.socket.accept().is_err() {
                break;
            }
            self.spare = spare();
        }
        self.spare = self.spare.take().or_else(spare);
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}
