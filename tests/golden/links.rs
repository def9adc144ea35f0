//! The links between the nodes, and what scripts do to them.

use lanekv::protocol::{Input, Refusal, decode_hello, decode_refusal, encode_hello, encode_refusal};
use lanekv::wire::split_frame;

use super::text::first_word;
use super::{Link, Outcome, World, forgery};

/// Nothing that a healthy cluster does takes more rounds of messages than this without time passing.
const ROUNDS_MAX: usize = 1_000;

impl World {
    pub(super) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    pub(super) fn disconnect(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        let was_up = std::mem::take(&mut link.up);
        link.queue.clear();
        if was_up {
            self.turn(from, [Input::LinkDown(Self::id(to))]);
        }
    }

    /// The connection over which `from` sends to `to` breaks; what lies in it is lost.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.disconnect(from, to);
    }

    /// A new connection over which `from` sends to `to`: hello, answer, and it is up. The hello may be disguised.
    pub(crate) fn connect(&mut self, from: usize, to: usize, disguise: &[&str]) -> Outcome {
        let (Some(dialler), Some(listener)) = (&self.hosts[from].replica, &self.hosts[to].replica) else {
            return Err(format!("n{from} and n{to} do not both run"));
        };
        let (mut there, back) = (dialler.hello(Self::id(to)), listener.hello(Self::id(from)));
        forgery::disguise(&mut there, disguise)?;
        for hello in [&there, &back] {
            let mut bytes = Vec::new();
            encode_hello(&mut bytes, hello);
            let (kind, payload, _) = split_frame(&bytes, usize::MAX).expect("a frame");
            assert_eq!(decode_hello(kind, payload).as_ref(), Ok(hello), "a hello comes back as it was");
            self.coverage.hello();
        }
        if let Err(refusal) = listener.check_hello(&there) {
            self.refuse(to, from, refusal);
            return Ok(());
        }
        if let Err(refusal) = dialler.check_hello(&back) {
            self.refuse(from, to, refusal);
            return Ok(());
        }
        let link = self.link(from, to);
        link.up = true;
        link.queue.clear();
        self.turn(to, [Input::Greeted(Box::new(there))]);
        self.turn(from, [Input::Greeted(Box::new(back)), Input::LinkUp(Self::id(to))]);
        Ok(())
    }

    fn refuse(&mut self, by: usize, whom: usize, refusal: Refusal) {
        let mut bytes = Vec::new();
        encode_refusal(&mut bytes, &refusal);
        let (_, payload, _) = split_frame(&bytes, usize::MAX).expect("a frame");
        assert_eq!(decode_refusal(payload), Ok(refusal), "a refusal comes back as it was");
        self.coverage.refusal(&refusal);
        self.line("refuses", format!("n{by} refuses n{whom}: {refusal}"));
        self.turn(whom, [Input::RefusedBy { peer: Self::id(by), refusal }]);
    }

    /// Connects a node with all that run, both ways.
    pub(crate) fn connect_all(&mut self, node: usize) -> Outcome {
        for other in self.running() {
            // One that is refused stops, and reaches nobody else.
            if other != node && self.alive(node) {
                self.connect(node, other, &[])?;
            }
            if other != node && self.alive(node) {
                self.connect(other, node, &[])?;
            }
        }
        Ok(())
    }

    /// From now on messages of a kind are lost in a link, or no more.
    pub(crate) fn block(&mut self, from: usize, to: usize, kind: &str, blocked: bool) {
        let kinds = &mut self.link(from, to).blocked;
        if blocked {
            kinds.insert(kind.to_owned());
        } else {
            kinds.remove(kind);
        }
    }

    /// Bytes of a message that is not finished have come over a link.
    pub(crate) fn stir(&mut self, from: usize, to: usize) {
        self.turn(to, [Input::Stirring(Self::id(from))]);
    }

    /// What is sent over a link stays in it, or moves again.
    pub(crate) fn hold(&mut self, from: usize, to: usize, held: bool) {
        self.link(from, to).held = held;
    }

    /// A node does nothing for a while, or goes on.
    pub(crate) fn pause(&mut self, node: usize, paused: bool) {
        self.hosts[node].paused = paused;
        if !paused {
            self.turn(node, [Input::Tick]);
        }
    }

    /// Delivers the first message in a link, or the first of a kind, in a turn of its own.
    pub(crate) fn deliver(&mut self, from: usize, to: usize, kind: Option<&str>) -> Outcome {
        let queue = &mut self.link(from, to).queue;
        let place = queue.iter().position(|m| kind.is_none_or(|kind| first_word(m) == kind));
        let Some(message) = place.and_then(|place| queue.remove(place)) else {
            return Err(format!("n{from} -> n{to} has no {} to deliver", kind.unwrap_or("message")));
        };
        self.turn(to, [Input::Receive { from: Self::id(from), message }]);
        Ok(())
    }

    /// Loses whatever is in a link, or the first `count` of a kind.
    pub(crate) fn lose(&mut self, from: usize, to: usize, kind: Option<&str>, count: usize) -> Outcome {
        let queue = &mut self.link(from, to).queue;
        let before = queue.len();
        let mut lost = 0;
        queue.retain(|m| {
            let lose = lost < count && kind.is_none_or(|kind| first_word(m) == kind);
            lost += usize::from(lose);
            !lose
        });
        if let Some(kind) = kind
            && queue.len() == before
        {
            return Err(format!("n{from} -> n{to} has no {kind} to lose"));
        }
        Ok(())
    }

    /// Delivers everything that is not held, and what is sent in answer, until nothing moves.
    pub(crate) fn deliver_all(&mut self) -> Outcome {
        for _ in 0..ROUNDS_MAX {
            let moving: Vec<((usize, usize), usize)> = self
                .links
                .iter()
                .filter(|((_, to), link)| !link.held && !link.queue.is_empty() && !self.hosts[*to].paused)
                .map(|(ends, link)| (*ends, link.queue.len()))
                .collect();
            if moving.is_empty() {
                return Ok(());
            }
            for to in 0..self.hosts.len() {
                let mut inputs = Vec::new();
                for ((from, _), len) in moving.iter().filter(|((_, t), _)| *t == to) {
                    let queue = &mut self.link(*from, to).queue;
                    let from = Self::id(*from);
                    let len = queue.len().min(*len);
                    inputs.extend(queue.drain(..len).map(|message| Input::Receive { from, message }));
                }
                if !inputs.is_empty() {
                    self.turn(to, inputs);
                }
            }
        }
        Err("messages go round without end".to_owned())
    }
}
