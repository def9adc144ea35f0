//! What the modelled clients do: connect, ask, hear, ask again.

use crate::node::ClientKey;
use crate::wire::batch::SessionSeq;
use crate::wire::client::{WireReply, decode_response};
use crate::wire::split_frame;

use super::client::{Answer, Kind, Operation};
use super::host::Fate;
use super::sights::Sight;
use super::world::{Event, MS, World};

/// So long after the storm every command that a sound node is asked must be carried out in time: sealers that step in
/// wait longer with every ballot that has failed.
const CALM_US: u64 = 12_000 * MS;

impl World {
    /// A client acts in a while, and not before, whatever was planned.
    pub(super) fn client_later(&mut self, client: usize, delay: u64) {
        self.clients[client].turn += 1;
        let turn = self.clients[client].turn;
        self.at(self.now + delay, Event::Client { client, turn });
    }

    /// A client begins something new, or again what was not answered.
    pub(super) fn client(&mut self, client: usize) {
        if self.clients[client].operation.is_none() {
            if self.next_operation > self.plan.operations {
                return;
            }
            let id = self.next_operation;
            let keys = self.plan.keys;
            let kind = self.clients[client].choose(&self.plan, id, &mut self.asking);
            let key = self.asking.index(keys);
            self.next_operation += 1;
            let c = &mut self.clients[client];
            let session = match c.session {
                Some(session) if kind.writes() => {
                    c.seq += 1;
                    Some(SessionSeq { session, seq: c.seq, acked: c.seq - 1 })
                }
                _ => None,
            };
            let floor = self.checker.floor(&kind, key);
            let begin = self.now;
            c.operation =
                Some(Operation { id, kind, key, floor, begin, asked: begin, session, uncertain: false });
        }
        // Who leaves takes no new clients.
        let up: Vec<usize> = self.alive().filter(|node| !self.hosts[*node].leaving).collect();
        if up.is_empty() {
            return self.client_later(client, 50 * MS);
        }
        // A connection is kept for some time.
        let c = &self.clients[client];
        let keep = c.at.filter(|(node, boot)| self.hosts[*node].boot == *boot && up.contains(node));
        let keep = if self.asking.permille(self.plan.loyal) { keep } else { None };
        if keep.is_none() {
            self.connect(client, up);
        }
        let now = self.now;
        if let Some(operation) = &mut self.clients[client].operation {
            operation.asked = now;
        }
        let now_at = self.clients[client].at;
        let Some((node, _)) = now_at else { return };
        let now = self.clock(node);
        let c = &self.clients[client];
        let key = ClientKey { index: u32::try_from(client).expect("few clients"), generation: c.generation };
        let Some(operation) = &c.operation else { return };
        let bytes = operation.encode();
        let what = operation.clone();
        self.note(|| format!("client {client} asks n{node}: {what}"));
        if let Some(machine) = &mut self.hosts[node].machine {
            machine.node.client_bytes(now, key, &bytes);
        }
        self.wake_later(node);
    }

    pub(super) fn connect(&mut self, client: usize, up: Vec<usize>) {
        let key = |generation| ClientKey { index: u32::try_from(client).expect("few clients"), generation };
        if let Some((old, boot)) = self.clients[client].at
            && self.hosts[old].boot == boot
            && let Some(machine) = &mut self.hosts[old].machine
        {
            machine.node.client_gone(key(self.clients[client].generation));
        }
        let node = up[self.asking.index(up.len())];
        let now = self.clock(node);
        let c = &mut self.clients[client];
        c.generation += 1;
        c.seen.fill(0);
        c.at = Some((node, self.hosts[node].boot));
        let key = key(c.generation);
        if let Some(machine) = &mut self.hosts[node].machine {
            machine.node.client_open(now, key);
        }
    }

    pub(super) fn read_replies(&mut self, node: usize, key: ClientKey) {
        let now = self.clock(node);
        let Some(machine) = &mut self.hosts[node].machine else { return };
        let bytes = machine.take_output(now, key);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (_, payload, len) = split_frame(rest, usize::MAX).expect("replies are frames");
            let response = decode_response(payload).expect("replies can be decoded");
            rest = &rest[len..];
            let client = usize::try_from(key.index).expect("few clients");
            let c = &self.clients[client];
            let current = c.generation == key.generation && c.at.is_some_and(|(at, _)| at == node);
            if current && c.operation.as_ref().is_some_and(|o| o.id == response.id) {
                self.answer(node, client, response.reply);
            }
        }
    }

    pub(super) fn answer(&mut self, node: usize, client: usize, reply: WireReply) {
        let Some(operation) = self.clients[client].operation.clone() else { return };
        let answer = Answer::new(&operation.kind, reply);
        self.note(|| format!("client {client} hears from n{node}: {answer} to #{}", operation.id));
        if matches!(answer, Answer::Refused | Answer::Unknown)
            && self.storm_over
            && operation.asked > self.calm_since + CALM_US
            && self.hosts[node].fate == Fate::Sound
            && !self.hosts[node].leaving
        {
            let waited = (self.now - operation.asked) / MS;
            let what = format!("n{node}: {answer} to {operation} after {waited} ms, long after the storm");
            self.checker.stuck(what);
        }
        match answer {
            Answer::Session(id) => {
                self.clients[client].session = Some(id);
                self.clients[client].seq = 0;
            }
            Answer::Refused => return self.retry(client, false),
            Answer::Unknown => return self.retry(client, true),
            Answer::Expired => {
                // The nodes' wall clocks differ by minutes, and jump: with another median time went on faster than
                // this client could speak. Nobody knows what became of the command.
                self.see(Sight::SessionExpired);
                self.clients[client].session = None;
                if let Some(operation) = &mut self.clients[client].operation {
                    operation.session = None;
                }
                return self.retry(client, true);
            }
            Answer::Something => {}
            Answer::Wrong(what) => self.checker.broken(format!("n{node} answers {operation} with {what}")),
            Answer::Outcome(outcome) => {
                if let Kind::Register(command, _) = operation.kind {
                    self.history.add(client, command, operation.begin, self.now, Some(outcome));
                }
            }
            Answer::Count(_) | Answer::List(_) => {
                let seen = &mut self.clients[client].seen[operation.key];
                self.checker.answered(Self::node(node), &operation, &answer, seen);
            }
        }
        self.clients[client].operation = None;
        self.answered += 1;
        self.digest = self.digest.wrapping_mul(31).wrapping_add(operation.id ^ self.now << 20);
        let think = self.asking.between(100, self.plan.think_us);
        self.client_later(client, think);
    }

    /// An operation was refused, or its fate is not known: with a session it is repeated, without one only if it was
    /// certainly not applied.
    pub(super) fn retry(&mut self, client: usize, unknown: bool) {
        let c = &mut self.clients[client];
        let Some(operation) = &mut c.operation else { return };
        operation.uncertain |= unknown;
        if operation.uncertain
            && operation.kind.writes()
            && operation.session.is_none()
            && let Some(operation) = c.operation.take()
        {
            self.checker.given_up(&operation);
            if let Kind::Register(command, _) = operation.kind {
                self.history.add(client, command, operation.begin, self.now, None);
            }
        }
        if !self.asking.permille(300) {
            // Somewhere else.
            self.drop_connection(client);
        }
        let delay = self.asking.between(MS, 100 * MS);
        self.client_later(client, delay);
    }

    pub(super) fn drop_connection(&mut self, client: usize) {
        let c = &mut self.clients[client];
        let key = ClientKey { index: u32::try_from(client).expect("few clients"), generation: c.generation };
        if let Some((node, boot)) = c.at.take()
            && self.hosts[node].boot == boot
            && let Some(machine) = &mut self.hosts[node].machine
        {
            machine.node.client_gone(key);
        }
    }
}
