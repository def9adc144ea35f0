//! `CLUSTER`: what a node tells clients that speak to a Redis Cluster.
//!
//! Every node here takes every key, so there is nothing to be redirected. But the cluster modes of client libraries
//! bring what plain ones lack: they know all nodes, spread their commands over them, and go to another when one fails.
//! So with `set cluster-view yes`, or at the listener that `cluster=HOST:PORT` opens, the slots are shared out evenly
//! among the voters that this node hears, and CLUSTER SLOTS says so. Nobody is ever told MOVED.
//!
//! Which of the two a connection came to decides what it is shown: a client that found one of the listeners for
//! cluster mode is sent to those of the other nodes.

use std::fmt::Write as _;

use crate::config::{Address, Config, Member};
use crate::store::{SLOT_COUNT, slot_of};
use crate::types::{NodeId, Reply};

use super::backend::Backend;
use super::commands::{is, unknown_subcommand, wrong_arity};

pub(super) const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";

/// Redis' nodes speak to each other on a port so much above that for clients; here clients only want a number.
const BUS_OFFSET: u32 = 10_000;

/// Where a client connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Endpoint {
    /// The address that all clients and programs use.
    #[default]
    Main,
    /// The listener for Redis clients in cluster mode.
    Cluster,
}

/// A member of the configuration file, as clients reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberAddress {
    /// Which.
    pub node: NodeId,
    /// Its host name or address.
    pub host: String,
    /// The port for clients.
    pub port: u16,
}

/// The members whom clients in cluster mode may be sent to, by the endpoint at which they ask.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterView {
    /// At the main address; empty if nobody is shown a cluster there.
    pub main: Vec<MemberAddress>,
    /// At the listener for cluster mode.
    pub cluster: Vec<MemberAddress>,
}

impl ClusterView {
    /// What clients of `config` are shown. A member without a listener for cluster mode is reached by those that
    /// need one at its main address, if a cluster is shown there.
    pub(super) fn new(config: &Config) -> ClusterView {
        let shows_main = config.settings.cluster_view;
        let of = |member: &Member, address: &Address| MemberAddress {
            node: member.id,
            host: address.host().to_owned(),
            port: address.port(),
        };
        let main = |member| shows_main.then(|| of(member, &member.address));
        let cluster = |member: &Member| member.cluster.as_ref().map(|address| of(member, address));
        let members = config.members();
        ClusterView {
            main: members.iter().filter_map(main).collect(),
            cluster: members.iter().filter_map(|member| cluster(member).or_else(|| main(member))).collect(),
        }
    }

    fn at(&self, endpoint: Endpoint) -> &[MemberAddress] {
        match endpoint {
            Endpoint::Main => &self.main,
            Endpoint::Cluster => &self.cluster,
        }
    }

    /// Whether clients at this endpoint are shown a cluster.
    pub(super) fn is_shown_at(&self, endpoint: Endpoint) -> bool {
        !self.at(endpoint).is_empty()
    }
}

/// A node with the slots that it is said to have.
struct Share<'a> {
    member: &'a MemberAddress,
    first: usize,
    last: usize,
}

fn bulk(text: impl AsRef<str>) -> Reply {
    Reply::bulk(text.as_ref().as_bytes())
}

fn integer(value: usize) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Forty hexadecimal digits that name a node in all answers.
fn name(backend: &Backend, node: NodeId) -> String {
    let cluster = backend.report().cluster.0;
    format!("{cluster:016x}{:016x}{:08x}", cluster.rotate_left(23), u32::from(node.get()) + 1)
}

/// The voters that are heard, each with its part of the slots, in the order of their numbers.
fn shares(backend: &Backend, endpoint: Endpoint) -> Vec<Share<'_>> {
    let report = backend.report();
    let live = report.voters.intersection(report.hears);
    let members: Vec<&MemberAddress> = backend
        .settings
        .cluster_view
        .at(endpoint)
        .iter()
        .filter(|member| live.contains(member.node))
        .collect();
    let count = members.len().max(1);
    let begin = |place: usize| SLOT_COUNT * place / count;
    let shares = members.iter().enumerate();
    shares.map(|(place, &member)| Share { member, first: begin(place), last: begin(place + 1) - 1 }).collect()
}

/// Whether it is the store that answers these arguments of CLUSTER.
pub(super) fn is_about_keys(arguments: &[&[u8]]) -> bool {
    matches!(arguments, [word, ..] if is(word, "COUNTKEYSINSLOT") || is(word, "GETKEYSINSLOT"))
}

/// Answers CLUSTER, but for what is about keys.
pub(super) fn cluster(backend: &Backend, endpoint: Endpoint, arguments: &[&[u8]]) -> Reply {
    let [subcommand, rest @ ..] = arguments else { return wrong_arity("cluster") };
    let of = |word: &str| is(subcommand, word);
    if !backend.settings.cluster_view.is_shown_at(endpoint) {
        return Reply::error(NO_CLUSTER);
    }
    match rest {
        [] if of("INFO") => Reply::Verbatim(info(backend, endpoint).into_bytes().into()),
        [] if of("MYID") => bulk(name(backend, backend.settings.protocol.me)),
        [] if of("SLOTS") => {
            Reply::Array(shares(backend, endpoint).iter().map(|share| slots(backend, share)).collect())
        }
        [] if of("SHARDS") => {
            Reply::Array(shares(backend, endpoint).iter().map(|share| shard(backend, share)).collect())
        }
        [] if of("NODES") => Reply::Verbatim(nodes(backend, endpoint).into_bytes().into()),
        [key] if of("KEYSLOT") => integer(slot_of(key)),
        _ => unknown_subcommand("CLUSTER", arguments),
    }
}

fn info(backend: &Backend, endpoint: Endpoint) -> String {
    let report = backend.report();
    let count = shares(backend, endpoint).len();
    let state = if report.serving { "ok" } else { "fail" };
    let mut text = String::new();
    for (name, value) in [
        ("cluster_state", state.to_owned()),
        ("cluster_slots_assigned", SLOT_COUNT.to_string()),
        ("cluster_slots_ok", SLOT_COUNT.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", "0".to_owned()),
        ("cluster_known_nodes", count.to_string()),
        ("cluster_size", count.to_string()),
        ("cluster_current_epoch", report.view.0.to_string()),
        ("cluster_my_epoch", report.view.0.to_string()),
    ] {
        let _ = write!(text, "{name}:{value}\r\n");
    }
    text
}

fn slots(backend: &Backend, share: &Share<'_>) -> Reply {
    let Share { member, first, last } = share;
    let node = vec![
        bulk(&member.host),
        Reply::Integer(i64::from(member.port)),
        bulk(name(backend, member.node)),
        Reply::Map(Vec::new()),
    ];
    Reply::Array(vec![integer(*first), integer(*last), Reply::Array(node)])
}

fn shard(backend: &Backend, share: &Share<'_>) -> Reply {
    let Share { member, first, last } = share;
    let index = backend.applied_index.0;
    let node = vec![
        bulk("id"),
        bulk(name(backend, member.node)),
        bulk("port"),
        Reply::Integer(i64::from(member.port)),
        bulk("ip"),
        bulk(&member.host),
        bulk("endpoint"),
        bulk(&member.host),
        bulk("role"),
        bulk("master"),
        bulk("replication-offset"),
        Reply::Integer(i64::try_from(index).unwrap_or(i64::MAX)),
        bulk("health"),
        bulk("online"),
    ];
    let range = Reply::Array(vec![integer(*first), integer(*last)]);
    Reply::Map(vec![bulk("slots"), range, bulk("nodes"), Reply::Array(vec![Reply::Map(node)])])
}

fn nodes(backend: &Backend, endpoint: Endpoint) -> String {
    let view = backend.report().view.0;
    let mut text = String::new();
    for Share { member, first, last } in shares(backend, endpoint) {
        let myself = if member.node == backend.settings.protocol.me { "myself," } else { "" };
        let (host, port) = (&member.host, member.port);
        let bus = u32::from(port) + BUS_OFFSET;
        let name = name(backend, member.node);
        let _ =
            writeln!(text, "{name} {host}:{port}@{bus} {myself}master - 0 0 {view} connected {first}-{last}");
    }
    text
}
