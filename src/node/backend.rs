//! What replies are made from: the store, the core's state, counters. Kept apart from the connections, so
//! that one can be written while the other is read.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use crate::protocol::{Identity, Intake, Replica, Report};
use crate::store::{Fund, Store, TurnClock, Watch};
use crate::types::{Index, Nanos, NodeSet, Now, Reply, ViewNumber};

use super::cluster_view::Endpoint;
use super::commands::Question;
use super::pouring::{POURING_TIME, PourFund};
use super::snapshots::Snapshots;
use super::subscribers::{KeyEvents, Subscribers};
use super::talk::Talk;
use super::{Settings, cluster_view, talk};

/// Redis' version that a client library may take this server for.
pub(super) const REDIS_VERSION: &str = "7.2.0";

/// Counts since the start, or since `CONFIG RESETSTAT`.
#[derive(Debug)]
pub(super) struct Stats {
    /// Commands received.
    pub(super) commands: u64,
    /// The same, by code.
    pub(super) by_code: Box<[u64; 256]>,
    /// Commands refused because the node could not take any.
    pub(super) refused: u64,
    /// Commands not answered in time.
    pub(super) timed_out: u64,
    /// Connections closed because the client was too slow.
    pub(super) cut: u64,
    /// Batches offered.
    pub(super) batches: u64,
    /// The longest turn of the loop.
    pub(super) longest_turn: Duration,
    /// The most processor time of a turn.
    pub(super) longest_turn_cpu_time: Duration,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            commands: 0,
            by_code: Box::new([0; 256]),
            refused: 0,
            timed_out: 0,
            cut: 0,
            batches: 0,
            longest_turn: Duration::ZERO,
            longest_turn_cpu_time: Duration::ZERO,
        }
    }
}

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) settings: Settings,
    pub(super) identity: Identity,
    pub(super) replica: Replica,
    pub(super) store: Store,
    /// The index of the last command in it.
    pub(super) applied_index: Index,
    /// A command is half done: what the store shows now never was.
    pub(super) torn: bool,
    /// Reads were held back in an earlier turn and come first.
    pub(super) reads_wait: bool,
    /// Work that may still be done in this turn for what was delivered.
    pub(super) write_fund: Fund,
    /// And for reads.
    pub(super) read_fund: Cell<Fund>,
    /// And for replies that are arrays to become bytes.
    pub(super) pour_fund: PourFund,
    /// How the time of this turn is measured, if it is.
    pub(super) turn_clock: Option<TurnClock>,
    /// And for answers about the node itself.
    pub(super) talk: Talk,
    /// Reads with this ticket or an earlier one may be executed.
    pub(super) ready_up_to: u64,
    /// Who is missing to found the cluster.
    pub(super) missing: NodeSet,
    pub(super) started: Now,
    /// When the current turn began.
    pub(super) now: Now,
    pub(super) stats: Stats,
    /// Resident memory of the process in bytes, as it was told last.
    pub(super) resident_len: u64,
    pub(super) snapshots: Snapshots,
    pub(super) client_count: usize,
    pub(super) opened_count: u64,
    pub(super) subscribers: Subscribers,
    /// `notify-keyspace-events` of this node.
    pub(super) key_events: KeyEvents,
    /// SHUTDOWN was given in this turn.
    pub(super) stop_wanted: bool,
    /// For how long DEBUG SLEEP was given in this turn.
    pub(super) sleep_wanted: Duration,
}

impl Backend {
    /// A new turn.
    pub(super) fn renew_funds(&mut self) {
        // Without any, nothing would ever be done.
        self.write_fund = Fund(self.settings.applied_per_turn.max(1));
        self.read_fund.set(Fund(self.settings.read_per_turn.max(1)));
        self.pour_fund = PourFund::of_turn();
        self.watch_pouring();
        self.talk = Talk::of_turn();
    }

    /// Whether no read may be executed now.
    pub(super) fn holds_reads(&self) -> bool {
        self.torn || self.reads_wait || self.read_fund.get().is_spent()
    }

    /// Reads something in the store, and has the turn's fund for reads pay for it.
    pub(super) fn pay<T>(&self, read: impl FnOnce() -> T) -> T {
        let mut fund = self.read_fund.get();
        let before = self.store.work();
        let result = read();
        fund.spend(self.store.work().wrapping_sub(before));
        self.read_fund.set(fund);
        result
    }

    /// The same with a fund for what is delivered, which is spent too when the time for that is up.
    pub(super) fn pay_from<T>(&self, fund: &mut Fund, read: impl FnOnce() -> T) -> T {
        let before = self.store.work();
        let result = read();
        self.store.charge(fund, before);
        result
    }

    /// From now on the time that replies take to become bytes is measured.
    pub(super) fn watch_pouring(&mut self) {
        let watch = self.watch(POURING_TIME);
        self.pour_fund.set_watch(watch);
    }

    /// A watch for a part of the turn that begins now.
    pub(super) fn watch(&self, length: Nanos) -> Watch {
        Watch::new(self.turn_clock, length)
    }

    /// Answers a question from the present state. What that costs counts as work of the store, for who asks is answered
    /// from the fund for reads.
    pub(super) fn answer(&self, question: &Question) -> Reply {
        let reply = self.answer_for_nothing(question);
        self.store.count_work(talk::work_of(&reply));
        reply
    }

    fn answer_for_nothing(&self, question: &Question) -> Reply {
        match question {
            Question::Info(endpoint, sections) => {
                Reply::Verbatim(self.info(*endpoint, sections).into_bytes().into())
            }
            Question::Digest => {
                let index = self.applied_index;
                Reply::bulk(format!("{index} {:016x}", self.store.digest()).as_bytes())
            }
            Question::Role => Reply::Array(vec![
                Reply::bulk(b"master"),
                Reply::Integer(i64::try_from(self.applied_index.0).unwrap_or(i64::MAX)),
                Reply::Array(Vec::new()),
            ]),
            Question::Time => {
                let wall = self.now.wall.0;
                Reply::Array(vec![
                    Reply::bulk((wall / 1000).to_string().as_bytes()),
                    Reply::bulk((wall % 1000 * 1000).to_string().as_bytes()),
                ])
            }
            Question::LastSave => {
                let at = self.snapshots.taken_at.max(self.started.wall);
                Reply::Integer(i64::try_from(at.0 / 1000).unwrap_or(i64::MAX))
            }
            Question::Cluster(endpoint, arguments) => {
                let arguments: Vec<&[u8]> = arguments.iter().map(|argument| &**argument).collect();
                cluster_view::cluster(self, *endpoint, &arguments)
            }
            // What has been acknowledged is held durably by a majority of the voters.
            Question::Holders => {
                let others = self.report().voters.len() / 2;
                Reply::Integer(i64::try_from(others).unwrap_or(i64::MAX))
            }
        }
    }

    /// Whether commands of clients may be offered. While a snapshot is on its way to this node they would wait for it.
    pub(super) fn intake(&self) -> Intake {
        match self.replica.intake(self.now) {
            Intake::Open if self.snapshots.coming().is_some() => Intake::Loading,
            intake => intake,
        }
    }

    /// Where the core stands, and whether this node serves.
    pub(super) fn report(&self) -> Report {
        let report = self.replica.report(self.now);
        Report { serving: report.serving && self.snapshots.coming().is_none(), ..report }
    }

    /// Why commands are refused; `rest` says what has not been done.
    pub(super) fn refusal(&self, intake: Intake, rest: &str) -> Reply {
        match intake {
            Intake::NoQuorum => {
                return Reply::error(format!("NOQUORUM this node hears no majority of the voters; {rest}"));
            }
            Intake::Full => return Reply::error(format!("BUSY too many commands wait for delivery; {rest}")),
            Intake::Open | Intake::Loading => {}
        }
        if self.report().view == ViewNumber(0) {
            let missing = self.missing;
            if missing.is_empty() {
                return Reply::error(format!("LOADING the cluster is not founded yet; {rest}"));
            }
            return Reply::error(format!(
                "LOADING the cluster is not founded yet, it waits for nodes {missing}; {rest}"
            ));
        }
        Reply::error(format!("LOADING this node is catching up with the cluster; {rest}"))
    }

    /// The text of INFO for a client at this endpoint; all sections if none is named.
    fn info(&self, endpoint: Endpoint, wanted: &[Box<[u8]>]) -> String {
        type Section = (&'static str, fn(&Backend, Endpoint, &mut String));
        const SECTIONS: [Section; 9] = [
            ("Server", Backend::info_server),
            ("Clients", Backend::info_clients),
            ("Memory", Backend::info_memory),
            ("Persistence", Backend::info_persistence),
            ("Stats", Backend::info_stats),
            ("Replication", Backend::info_replication),
            ("Lanes", Backend::info_lanes),
            ("Cluster", Backend::info_cluster),
            ("Keyspace", Backend::info_keyspace),
        ];
        let is_wanted = |name: &str| {
            wanted.is_empty()
                || wanted.iter().any(|w| {
                    [name, "all", "default", "everything"]
                        .iter()
                        .any(|word| word.as_bytes().eq_ignore_ascii_case(w))
                })
        };
        let mut text = String::new();
        for (name, write) in SECTIONS {
            if is_wanted(name) {
                let gap = if text.is_empty() { "" } else { "\r\n" };
                let _ = write!(text, "{gap}# {name}\r\n");
                write(self, endpoint, &mut text);
            }
        }
        let named = |word: &[u8]| wanted.iter().any(|w| w.eq_ignore_ascii_case(word));
        if named(b"commandstats") || named(b"all") || named(b"everything") {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            let _ = write!(text, "{gap}# Commandstats\r\n");
            self.info_commands(&mut text);
        }
        text
    }

    fn info_server(&self, endpoint: Endpoint, text: &mut String) {
        let uptime = self.now.mono.since(self.started.mono).0 / 1000;
        line(text, "redis_version", REDIS_VERSION);
        line(text, "redis_mode", self.settings.mode_at(endpoint));
        line(text, "lanekv_version", env!("CARGO_PKG_VERSION"));
        line(text, "process_id", self.settings.process_id);
        line(text, "run_id", format_args!("{:016x}{}", self.identity.boot, self.identity.disk));
        line(text, "tcp_port", self.settings.port_at(endpoint));
        line(text, "uptime_in_seconds", uptime);
        line(text, "uptime_in_days", uptime / 86_400);
    }

    fn info_clients(&self, _: Endpoint, text: &mut String) {
        line(text, "connected_clients", self.client_count);
        line(text, "maxclients", self.settings.clients_max);
        line(text, "blocked_clients", 0);
    }

    fn info_memory(&self, _: Endpoint, text: &mut String) {
        let (used, peak) = self.store.memory_len();
        let resident = self.resident_len;
        line(text, "used_memory", used);
        line(text, "used_memory_human", human(used as u64));
        line(text, "used_memory_rss", resident);
        line(text, "used_memory_rss_human", human(resident));
        line(text, "used_memory_peak", peak);
        line(text, "used_memory_peak_human", human(peak as u64));
        line(text, "maxmemory", 0);
        line(text, "maxmemory_human", human(0));
        line(text, "maxmemory_policy", "noeviction");
    }

    fn info_persistence(&self, _: Endpoint, text: &mut String) {
        let snapshots = &self.snapshots;
        let newest = snapshots.newest();
        line(text, "loading", u8::from(!self.report().serving));
        line(text, "aof_enabled", 1);
        line(text, "rdb_bgsave_in_progress", u8::from(snapshots.is_taking()));
        line(text, "rdb_last_save_time", snapshots.taken_at.0 / 1000);
        line(text, "snapshots_taken", snapshots.taken_count);
        line(text, "snapshots_failed", snapshots.failed_count);
        line(text, "snapshots_installed", snapshots.installed_count);
        line(text, "snapshot_blocks_served", snapshots.served_blocks);
        line(text, "snapshot_index", newest.map_or(0, |newest| newest.id.index.0));
        line(text, "snapshot_bytes", newest.map_or(0, |newest| newest.len));
        match snapshots.coming() {
            Some((from, len)) => {
                line(text, "snapshot_from", from.get());
                line(text, "snapshot_received_bytes", len);
            }
            None => line(text, "snapshot_from", ""),
        }
    }

    fn info_stats(&self, _: Endpoint, text: &mut String) {
        line(text, "total_connections_received", self.opened_count);
        line(text, "total_commands_processed", self.stats.commands);
        line(text, "refused_commands", self.stats.refused);
        line(text, "timed_out_commands", self.stats.timed_out);
        line(text, "cut_connections", self.stats.cut);
        line(text, "offered_batches", self.stats.batches);
        line(text, "longest_turn_us", self.stats.longest_turn.as_micros());
        line(text, "longest_turn_cpu_us", self.stats.longest_turn_cpu_time.as_micros());
        line(text, "expired_keys", self.store.expired_count());
        line(text, "evicted_keys", 0);
        line(text, "pubsub_patterns", self.subscribers.pattern_count());
        line(text, "client_sessions", self.store.session_count());
    }

    fn info_replication(&self, _: Endpoint, text: &mut String) {
        let report = self.report();
        line(text, "role", "master");
        line(text, "connected_slaves", 0);
        line(text, "master_replid", format_args!("{}", report.cluster));
        line(text, "master_repl_offset", self.applied_index);
    }

    fn info_lanes(&self, _: Endpoint, text: &mut String) {
        let report = self.report();
        line(text, "node", self.settings.protocol.me.get());
        line(text, "incarnation", self.identity.incarnation);
        line(text, "cluster", report.cluster);
        line(text, "view", report.view.0);
        line(text, "voters", numbers(report.voters));
        line(text, "senders", numbers(report.senders));
        line(text, "sender", u8::from(report.sender));
        line(text, "sealed", u8::from(report.sealed));
        line(text, "hears", numbers(report.hears));
        line(text, "joining", u8::from(report.joining));
        line(text, "serving", u8::from(report.serving));
        line(text, "delivered", report.delivered);
        line(text, "index", self.applied_index);
        line(text, "digest", format_args!("{:016x}", report.digest));
        line(text, "state_digest", format_args!("{:016x}", self.store.digest()));
        line(text, "waiting_bytes", report.waiting_bytes);
    }

    fn info_cluster(&self, endpoint: Endpoint, text: &mut String) {
        line(text, "cluster_enabled", u8::from(self.settings.cluster_view.is_shown_at(endpoint)));
    }

    fn info_keyspace(&self, _: Endpoint, text: &mut String) {
        let keys = self.store.key_count();
        let mortal = self.store.mortal_key_count();
        if keys > 0 {
            line(text, "db0", format_args!("keys={keys},expires={mortal},avg_ttl=0"));
        }
    }

    fn info_commands(&self, text: &mut String) {
        for spec in crate::store::all() {
            let calls = self.stats.by_code[usize::from(spec.code)];
            if calls > 0 && spec.alias_of.is_none() {
                let name = spec.name.to_ascii_lowercase();
                let _ = write!(text, "cmdstat_{name}:calls={calls}\r\n");
            }
        }
    }
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(text, "{name}:{value}\r\n");
}

/// As Redis writes bytes for people: `512B`, `1.50K`, `2.00M`.
fn human(len: u64) -> String {
    let mut scaled = len as f64;
    for unit in ["B", "K", "M", "G", "T"] {
        if scaled < 1024.0 || unit == "T" {
            return if unit == "B" { format!("{len}B") } else { format!("{scaled:.2}{unit}") };
        }
        scaled /= 1024.0;
    }
    unreachable!("the last unit takes all")
}

/// `0,1,2`.
fn numbers(nodes: NodeSet) -> String {
    let mut text = String::new();
    for node in nodes.iter() {
        let gap = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{gap}{}", node.get());
    }
    text
}
