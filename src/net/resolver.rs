//! Host names to IP addresses, without making the event loop wait.
//!
//! Numeric addresses never come here. A name is looked up at the start, and again whenever connecting
//! fails; each time in a thread that lives as long as the question.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;

use crate::config::Address;
use crate::types::NodeId;

type Answer = (NodeId, Vec<SocketAddr>);

/// Looks names up.
#[derive(Debug)]
pub(super) struct Resolver {
    waker: Arc<Waker>,
    sender: Sender<Answer>,
    receiver: Receiver<Answer>,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>) -> Resolver {
        let (sender, receiver) = channel();
        Resolver { waker, sender, receiver }
    }

    /// The socket address, if no name has to be looked up.
    pub(super) fn numeric(address: &Address) -> Option<SocketAddr> {
        let ip: IpAddr = address.host().parse().ok()?;
        Some(SocketAddr::new(ip, address.port()))
    }

    /// Asks for a peer's addresses; the loop is woken when [`Resolver::answers`] has them. An empty
    /// answer: there are none.
    pub(super) fn ask(&self, peer: NodeId, address: &Address) {
        let (host, port) = (address.host().to_owned(), address.port());
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let look_up = move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            // The loop may have ended meanwhile; then nobody is interested.
            if sender.send((peer, found)).is_ok() {
                let _ = waker.wake();
            }
        };
        if std::thread::Builder::new().name("resolver".to_owned()).spawn(look_up).is_err() {
            let _ = self.sender.send((peer, Vec::new()));
            let _ = self.waker.wake();
        }
    }

    /// Answers that have come.
    pub(super) fn answers(&self) -> impl Iterator<Item = Answer> {
        self.receiver.try_iter()
    }
}
