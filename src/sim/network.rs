//! The network: streams of bytes in one direction each, in order, that may be late, stand still, or break and
//! lose what is on its way, as with TCP.
//!
//! What a node sends to a peer in one turn is one segment. It arrives whole, or in pieces where the plan
//! says so, and the receiver puts frames together again as a real node does.

use std::collections::VecDeque;

use crate::node::NodeInput;
use crate::protocol::{Message, Refusal, decode_hello, decode_message, encode_hello, encode_message};
use crate::types::{NodeSet, limits};
use crate::wire::{FrameError, split_frame};

use super::host::Fate;
use super::sights::Sight;
use super::world::{Event, MS, SUSPICION_MS, Trace, World};

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// The connection over which `from` sends to `to`; 0 if there is none.
    pub(super) connection: u64,
    /// Nothing arrives before this.
    pub(super) stalled_until: u64,
    /// Broken for good.
    pub(super) dead: bool,
    /// Bytes that it carries in a millisecond, until then.
    pub(super) slow: (u64, u64),
    /// When the last bytes on the way arrive: what is sent later arrives later.
    pub(super) last_arrival: u64,
    /// On the way, in order; each has an event that takes the first of them out.
    way: VecDeque<Vec<u8>>,
    /// A bit of what is on the way is wrong.
    tainted: bool,
    /// Nothing more goes out: it breaks behind what is on its way.
    closing: bool,
    /// What `from` has said in this turn.
    outgoing: Vec<u8>,
    /// What has arrived of an unfinished frame.
    incoming: Vec<u8>,
}

impl World {
    pub(super) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let n = self.hosts.len();
        &mut self.links[from * n + to]
    }

    fn delay(&mut self) -> u64 {
        let most = self.plan.delay_us;
        self.net.between(20, most)
    }

    pub(super) fn send(&mut self, from: usize, to: NodeSet, message: &Message) {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        encode_message(&mut bytes, message);
        for to in to.iter() {
            let to = to.index();
            let n = self.hosts.len();
            let link = &mut self.links[from * n + to];
            if link.connection == 0 || link.closing {
                continue;
            }
            if link.outgoing.capacity() == 0 {
                link.outgoing = self.spare.pop().unwrap_or_default();
            }
            link.outgoing.extend_from_slice(&bytes);
            if self.trace == Trace::Everything || !matches!(message, Message::Status(_)) {
                self.note(|| format!("n{from} -> n{to} {message}"));
            }
            if !is_rare(message) || self.storm_over {
                continue;
            }
            // Who has decided, and cannot tell most of the others, is the most interesting of all.
            let often = if matches!(message, Message::NewView { .. }) { 4 } else { 1 };
            if self.faults.permille((self.plan.faults.seal_stall * often).min(700)) {
                self.see(Sight::SealStalled);
                let long = self.faults.between(20 * MS, 1_500 * MS);
                self.hold(from, to, long);
            }
            if self.faults.permille(self.plan.faults.seal_cut) {
                self.note(|| format!("the connection n{from} -> n{to} breaks under it"));
                self.see(Sight::CutInFrame);
                let lost = self.faults.index(bytes.len()) + 1;
                let link = self.link(from, to);
                let keep = link.outgoing.len() - lost;
                link.outgoing.truncate(keep);
                self.ship(from, to);
                let link = self.link(from, to);
                link.closing = true;
                let (when, connection) = (link.last_arrival + 1, link.connection);
                self.at(when, Event::Break { from, to, connection });
            }
        }
        self.scratch = bytes;
    }

    /// Sends what was said in the turn that ends.
    pub(super) fn flush(&mut self, from: usize) {
        for to in 0..self.hosts.len() {
            self.ship(from, to);
        }
    }

    fn ship(&mut self, from: usize, to: usize) {
        if self.link(from, to).outgoing.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.link(from, to).outgoing);
        if !self.storm_over && self.faults.permille(self.plan.faults.flip) {
            let at = self.faults.index(bytes.len());
            let bit = self.faults.below(8);
            bytes[at] ^= 1 << bit;
            self.link(from, to).tainted = true;
            self.note(|| format!("bit {bit} of byte {at} of {} from n{from} to n{to} is wrong", bytes.len()));
            self.see(Sight::BitOnTheWay);
        }
        let delay = self.delay();
        let now = self.now;
        let link = self.link(from, to);
        let mut when = (now + delay).max(link.stalled_until).max(link.last_arrival + 1);
        let connection = link.connection;
        if link.slow.1 > now {
            when += bytes.len() as u64 * MS / link.slow.0;
        }
        while self.plan.pieces && bytes.len() > 1 && self.net.permille(500) {
            let rest = bytes.split_off(1 + self.net.index(bytes.len() - 1));
            self.link(from, to).way.push_back(bytes);
            self.at(when, Event::Arrive { from, to, connection });
            when += 1 + self.net.below(300);
            bytes = rest;
        }
        let link = self.link(from, to);
        link.last_arrival = when;
        link.way.push_back(bytes);
        self.at(when, Event::Arrive { from, to, connection });
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, connection: u64) {
        let now = self.now;
        let link = self.link(from, to);
        if link.connection != connection {
            return;
        }
        if link.dead || link.stalled_until > now {
            let again = if link.dead { now + 1_000 * MS } else { link.stalled_until };
            link.last_arrival = link.last_arrival.max(again);
            return self.at(again, Event::Arrive { from, to, connection });
        }
        let Some(bytes) = link.way.pop_front() else { return };
        if self.hosts[to].machine.is_none() {
            return;
        }
        let link = self.link(from, to);
        let mut whole = std::mem::take(&mut link.incoming);
        if whole.is_empty() {
            whole = bytes;
        } else {
            whole.extend_from_slice(&bytes);
        }
        let mut rest = &whole[..];
        let sender = Self::node(from);
        let mut broken = None;
        while !rest.is_empty() {
            match split_frame(rest, limits::FRAME_LEN_MAX) {
                Ok((kind, payload, len)) => {
                    match decode_message(kind, payload) {
                        Ok(message) => {
                            self.hosts[to].inbox.push(NodeInput::Receive { from: sender, message });
                        }
                        Err(error) => {
                            broken = Some(error.to_string());
                            break;
                        }
                    }
                    rest = &rest[len..];
                }
                Err(FrameError::Incomplete { .. }) => {
                    self.see(Sight::PartOfFrame);
                    self.hosts[to].inbox.push(NodeInput::Stirring(sender));
                    break;
                }
                Err(error) => {
                    broken = Some(error.to_string());
                    break;
                }
            }
        }
        if let Some(error) = broken {
            self.note(|| format!("n{to} closes the connection from n{from}: {error}"));
            self.see(Sight::BadFrame);
            if !self.link(from, to).tainted {
                self.checker.broken(format!("n{to} cannot read what n{from} says: {error}"));
            }
            self.cut(from, to);
        } else {
            let keep = rest.len();
            if keep > 0 {
                whole.drain(..whole.len() - keep);
                self.link(from, to).incoming = whole;
            } else {
                whole.clear();
                self.spare.push(whole);
            }
        }
        self.wake_later(to);
    }

    /// Nothing goes from one to the other any more; what is on its way is lost.
    pub(super) fn disconnect(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.connection = 0;
        link.way.clear();
        link.tainted = false;
        link.closing = false;
        link.outgoing.clear();
        link.incoming.clear();
    }

    /// The connection over which `from` sends breaks; it is dialled again.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.disconnect(from, to);
        let boot = self.hosts[from].boot;
        let delay = self.delay();
        if self.hosts[from].machine.is_some() {
            self.at(self.now + delay, Event::Dial { from, to, boot });
        }
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
        let now = self.now;
        let link = self.link(from, to);
        if link.connection != 0 {
            return;
        }
        let there = link.dead || link.stalled_until > now;
        let back = self.link(to, from);
        let silent = there || back.dead || back.stalled_until > now || self.hosts[to].paused_until > now;
        let refused = self.hosts[to].machine.is_none();
        if silent || refused {
            // Refused at once, or no answer within the time-out.
            self.give(from, NodeInput::LinkDown(Self::node(to)));
            let wait = if silent { SUSPICION_MS * MS } else { 50 * MS };
            let boot = self.hosts[from].boot;
            let jitter = self.net.below(50 * MS);
            return self.at(now + wait + jitter, Event::Dial { from, to, boot });
        }
        let (Some(dialler), Some(listener)) = (&self.hosts[from].machine, &self.hosts[to].machine) else {
            return;
        };
        let (from_id, to_id) = (Self::node(from), Self::node(to));
        let there = dialler.node.hello(to_id);
        let back = listener.node.hello(from_id);
        let mut bytes = Vec::new();
        encode_hello(&mut bytes, &there);
        let (kind, payload, _) = split_frame(&bytes, usize::MAX).expect("a frame");
        assert_eq!(decode_hello(kind, payload).as_ref(), Ok(&there), "a hello comes back as it was");
        // Either side may refuse the other, and says so.
        let by_listener = listener.node.check_hello(&there).err();
        let by_dialler = dialler.node.check_hello(&back).err();
        for (refused, by, refusal) in [(from, to_id, by_listener), (to, from_id, by_dialler)] {
            let Some(refusal) = refusal else { continue };
            self.see(Sight::HelloRefused);
            let doubtful = self.hosts.iter().any(|host| host.fate == Fate::Doubtful);
            // The process before the one that is rebuilt is not known to be gone yet.
            let passes = matches!(refusal, Refusal::InUse { .. });
            if passes {
                self.see(Sight::RebuildWaits);
            } else if !doubtful {
                return self.checker.stuck(format!("{by} refuses n{refused}: {refusal}"));
            }
            self.note(|| format!("{by} refuses n{refused}: {refusal}"));
            self.give(refused, NodeInput::RefusedBy { peer: by, refusal });
            let boot = self.hosts[from].boot;
            return self.at(now + SUSPICION_MS * MS, Event::Dial { from, to, boot });
        }
        let connection = self.next_connection;
        self.next_connection += 1;
        self.disconnect(from, to);
        self.link(from, to).connection = connection;
        self.give(to, NodeInput::Greeted(Box::new(there)));
        self.give(from, NodeInput::Greeted(Box::new(back)));
        self.give(from, NodeInput::LinkUp(to_id));
    }
}

/// Whether a message belongs to a seal or to what comes after a failure.
fn is_rare(message: &Message) -> bool {
    matches!(
        message,
        Message::SealPrepare { .. }
            | Message::SealPromise { .. }
            | Message::SealAccept { .. }
            | Message::SealAccepted { .. }
            | Message::NewView { .. }
            | Message::Fill { .. }
            | Message::Forward { .. }
    )
}
