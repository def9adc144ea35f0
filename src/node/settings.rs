//! What a node is told once.

use crate::config::Config;
use crate::types::{Millis, NodeId, limits};
use crate::{dialect, protocol, store};

use super::cluster_view::{ClusterView, Endpoint};

/// For peers that are heard and have not delivered it yet, so many times more is kept in memory.
const PINNED_TIMES: usize = 16;
/// Ended views whose decisions are kept in memory.
const VIEWS_KEPT: usize = 256;

/// Work that a turn may do for what was delivered, counted as in [`store::Fund`]: two or three milliseconds of writes
/// among ten million keys, next to none of which is in the processor's cache.
const APPLIED_PER_TURN: u64 = 2048;
/// The same for what clients read.
const READ_PER_TURN: u64 = 768;

/// What a node is told once, at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the core.
    pub protocol: protocol::Settings,
    /// A command not delivered after so long is answered `TIMEOUT`.
    pub client_timeout: Millis,
    /// Most connections of clients; the caller enforces it.
    pub clients_max: usize,
    /// After so many bytes of log a snapshot is taken; later if the last one is more than twice as long.
    pub snapshot_log_len: u64,
    /// How much work a turn may do for what was delivered, counted as in [`store::Fund`].
    pub applied_per_turn: u64,
    /// The same for what clients read.
    pub read_per_turn: u64,
    /// For the store.
    pub store: store::Limits,
    /// For the dialects.
    pub dialect: dialect::DecodeLimits,
    /// Where CLUSTER answers as if the nodes shared the slots among them, and with which addresses.
    pub cluster_view: ClusterView,
    /// The port that clients connect to, for INFO.
    pub port: u16,
    /// The port for clients in cluster mode; `None` if they have none of their own.
    pub cluster_port: Option<u16>,
    /// The process, for INFO; zero if there is none.
    pub process_id: u32,
}

impl Settings {
    /// The settings of one member of a configuration; `None` if it is not in it.
    pub fn new(config: &Config, me: NodeId, seed: u64) -> Option<Settings> {
        let member = config.member(me)?;
        let set = &config.settings;
        Some(Settings {
            protocol: protocol::Settings {
                me,
                members: config.members().iter().map(|member| member.id).collect(),
                member_hash: config.member_hash(),
                suspicion: set.suspicion_timeout,
                heartbeat: set.heartbeat,
                window: set.window_len,
                fill_len: limits::FILL_LEN_SOFT,
                history_len: set.history_len,
                pinned_history_len: set.history_len.max(1 << 20).saturating_mul(PINNED_TIMES),
                views_kept: VIEWS_KEPT,
                seed,
            },
            client_timeout: set.client_timeout,
            clients_max: set.clients_max,
            snapshot_log_len: set.snapshot_log_len as u64,
            applied_per_turn: APPLIED_PER_TURN,
            read_per_turn: READ_PER_TURN,
            store: store::Limits { value_len_max: set.value_len_max, ..store::Limits::default() },
            dialect: dialect::DecodeLimits {
                bulk_len_max: set.value_len_max.max(limits::KEY_LEN_MAX),
                command_len_max: (set.value_len_max + limits::COMMAND_LEN_SLACK).min(limits::COMMAND_LEN_MAX),
                ..dialect::DecodeLimits::default()
            },
            cluster_view: ClusterView::new(config),
            port: member.address.port(),
            cluster_port: member.cluster.as_ref().map(|address| address.port()),
            process_id: 0,
        })
    }

    /// The port that a client connected to.
    pub(super) fn port_at(&self, endpoint: Endpoint) -> u16 {
        match endpoint {
            Endpoint::Main => self.port,
            Endpoint::Cluster => self.cluster_port.unwrap_or(self.port),
        }
    }

    /// What clients there are told about the kind of server, as Redis names it.
    pub(super) fn mode_at(&self, endpoint: Endpoint) -> &'static str {
        if self.cluster_view.is_shown_at(endpoint) { "cluster" } else { "standalone" }
    }
}
