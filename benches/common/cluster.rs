//! Replicas wired together in one thread: what one sends the others receive at once, what one
//! writes is durable at once. No bytes, no disk, no network: what remains is what the protocol
//! itself costs.
//!
//! The cluster is founded as a real one is, by hellos and the seal of view 0; nothing of the
//! protocol is done here.

use lanekv::protocol::{
    Identity, Input, Intake, Message, OfferTicket, Output, Record, Recovery, Replica, Settings, Verdict,
};
use lanekv::types::{Batch, DiskId, Incarnation, Lsn, Millis, NodeId, NodeSet, Now};

use super::node;

/// The settings of node `me` of so many.
pub(crate) fn settings(me: usize, count: usize) -> Settings {
    Settings {
        me: node(me),
        members: (0..count).map(node).collect(),
        member_hash: 1,
        suspicion: Millis(300),
        heartbeat: Millis(50),
        fill_len: lanekv::types::limits::FILL_LEN_SOFT,
        history_len: 32 << 20,
        pinned_history_len: 512 << 20,
        views_kept: 256,
        window: 64 << 20,
        seed: 1,
    }
}

/// The process that runs as node `me`.
pub(crate) fn identity(me: usize, incarnation: u64) -> Identity {
    let number = me as u64 + 1;
    Identity { disk: DiskId(number), incarnation: Incarnation(incarnation), boot: number, joining: false }
}

struct Host {
    replica: Replica,
    inbox: Vec<Input>,
    written: Lsn,
    /// Commands delivered that count.
    delivered: u64,
    offers: u64,
}

/// All nodes of a cluster.
pub(crate) struct Cluster {
    now: Now,
    hosts: Vec<Host>,
    /// Used again and again.
    outputs: Vec<Output>,
    mail: Vec<(NodeSet, Message)>,
}

impl Cluster {
    /// A cluster of so many nodes, founded, each of them a sender.
    pub(crate) fn founded(count: usize) -> Cluster {
        let now = Now { mono: Millis(1_000), wall: Millis(1_700_000_000_000) };
        let host = |me: usize| {
            let mut recovery = Recovery::new(&settings(me, count));
            let start = Record::Start { incarnation: Incarnation(1) };
            recovery.push(Lsn(1), start).expect("a log may begin like this");
            Host {
                replica: Replica::new(settings(me, count), identity(me, 1), recovery, now),
                inbox: Vec::new(),
                written: Lsn(1),
                delivered: 0,
                offers: 0,
            }
        };
        let hosts = (0..count).map(host).collect();
        let mut cluster = Cluster { now, hosts, outputs: Vec::new(), mail: Vec::new() };
        cluster.connect();
        for _ in 0..10_000 {
            for index in 0..count {
                cluster.turn(index, None);
            }
            cluster.now.mono = cluster.now.mono.plus(Millis(1));
            if cluster.is_ready() {
                return cluster;
            }
        }
        panic!("the cluster cannot be founded");
    }

    fn is_ready(&self) -> bool {
        self.hosts.iter().all(|host| {
            let report = host.replica.report(self.now);
            report.serving && report.senders.len() == self.hosts.len()
        })
    }

    fn connect(&mut self) {
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| to != from) {
                let hello = self.hosts[from].replica.hello(node(to));
                let host = &mut self.hosts[to];
                host.replica.check_hello(&hello).expect("members know each other");
                host.inbox.push(Input::Greeted(Box::new(hello)));
                host.inbox.push(Input::LinkUp(node(from)));
            }
        }
    }

    /// The first `senders` nodes offer `entries` batches in turn, one in each turn of theirs as
    /// under load; returns when every node has delivered all of them.
    ///
    /// # Panics
    /// If that does not come about.
    pub(crate) fn multicast(&mut self, batch: &Batch, entries: u64, senders: usize) {
        let commands = entries * u64::from(batch.count());
        let goals: Vec<u64> = self.hosts.iter().map(|host| host.delivered + commands).collect();
        let mut left = entries;
        let mut rounds_without_delivery = 0;
        loop {
            let before = self.delivered();
            for index in 0..self.hosts.len() {
                let offer = (index < senders && left > 0).then(|| batch.clone());
                left -= u64::from(offer.is_some());
                self.turn(index, offer);
            }
            if self.hosts.iter().zip(&goals).all(|(host, goal)| host.delivered == *goal) {
                return;
            }
            rounds_without_delivery = if self.delivered() > before { 0 } else { rounds_without_delivery + 1 };
            assert!(rounds_without_delivery < 100, "nothing is delivered any more");
        }
    }

    /// Panics unless all nodes have delivered the same entries in the same order.
    pub(crate) fn check_agreement(&self) {
        let digests = self.hosts.iter().map(|host| {
            let report = host.replica.report(self.now);
            (report.index, report.digest)
        });
        let digests: Vec<_> = digests.collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    }

    fn delivered(&self) -> u64 {
        self.hosts.iter().map(|host| host.delivered).sum()
    }

    /// One turn of a node's loop.
    fn turn(&mut self, index: usize, offer: Option<Batch>) {
        let (now, host, out) = (self.now, &mut self.hosts[index], &mut self.outputs);
        for input in host.inbox.drain(..) {
            host.replica.handle(now, input, out);
        }
        host.carry_out(now, out, &mut self.mail);
        if let Some(batch) = offer {
            assert_eq!(host.replica.intake(now), Intake::Open, "a calm cluster takes commands");
            host.offers += 1;
            host.replica.handle(now, Input::Offer { ticket: OfferTicket(host.offers), batch }, out);
        }
        host.replica.end_turn(now, out);
        host.carry_out(now, out, &mut self.mail);
        let from = node(index);
        for (to, message) in self.mail.drain(..) {
            for to in to.iter() {
                self.hosts[NodeId::index(to)].inbox.push(Input::Receive { from, message: message.clone() });
            }
        }
    }
}

impl Host {
    /// Does what the core says; what it has written is durable at once.
    fn carry_out(&mut self, now: Now, out: &mut Vec<Output>, mail: &mut Vec<(NodeSet, Message)>) {
        while !out.is_empty() {
            let durable = self.written;
            for output in out.drain(..) {
                match output {
                    Output::Persist { lsn, .. } => self.written = lsn,
                    Output::Send { to, message } => mail.push((to, message)),
                    Output::Deliver(delivery) => {
                        if delivery.verdict == Verdict::Applied {
                            self.delivered += u64::from(delivery.entry.batch.count());
                        }
                    }
                    Output::ReadReady(_) | Output::Note(_) | Output::Overtaken(_) | Output::Behind { .. } => {
                    }
                    Output::Halt(reason) => panic!("{reason}"),
                }
            }
            if self.written > durable {
                self.replica.handle(now, Input::Persisted(self.written), out);
            }
        }
    }
}
