//! From a configuration and a directory to a loop that can run.
//!
//! In this order: the lock on the directory, its identity, the snapshot, the log, the record of this start made
//! durable, damaged snapshots set aside. Only then are there sockets: nothing may be said by an incarnation that the
//! disk does not know.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::{Interest, Poll, Registry, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::config::{Config, Member, SyncPolicy};
use crate::node::{DamagedSnapshot, Keeper, Node, Replay, ReplayError, Restored, Settings, restore};
use crate::protocol::Identity;
use crate::storage;
use crate::storage::{
    DataDir, Disk, FileDisk, Log, LogOptions, LogWriter, OpenError, RecordGroup, SyncMode,
    remove_unfinished_snapshots, stored_bytes,
};
use crate::types::{DiskId, Lsn, NodeId};
use crate::wire::DecodeError;

use super::NodeOptions;
use super::clock::{Clock, random};
use super::error::StartError;
use super::event_loop::{DiskFailure, EventLoop, Parts, SIGNALS, WAKER};
use super::keeper::KeeperThread;
use super::links::Link;
use super::listener::{Listener, Purpose};
use super::resolver::Resolver;
use super::shared::Shared;

/// Replaying longer than this is worth a line, and another one each time as long.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Connections beyond the limit of clients: those of peers, and those that have not said what they are.
const EXTRA_CONNECTIONS: usize = 128;
/// Descriptors that are no connections.
const FILES_KEPT: usize = 24;

/// Whom a node listens to besides its clients and peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Control {
    /// Signals; it prints the line that says it is ready.
    Process,
    /// A handle in the same process.
    Handle,
}

/// A loop, ready to run.
pub(super) struct Started {
    pub(super) event_loop: EventLoop,
    pub(super) shared: Arc<Shared>,
    pub(super) waker: Arc<Waker>,
}

pub(super) fn start(options: NodeOptions, control: Control) -> Result<Started, StartError> {
    let NodeOptions { id, config, data_dir, rebuild } = options;
    config.settings.check().map_err(StartError::Settings)?;
    let seed = random();
    let mut settings = Settings::new(&config, id, seed).ok_or(StartError::NotMember { id })?;
    settings.process_id = std::process::id();
    let mut connections_max = settings.clients_max + EXTRA_CONNECTIONS;
    if control == Control::Process {
        (settings.clients_max, connections_max) = allowed_connections(settings.clients_max);
    }
    let clock = Clock::new();
    let directory = DataDir::open(&data_dir, id, rebuild, || DiskId(random()))?;
    remove_unfinished_snapshots(directory.disk())
        .map_err(|source| OpenError::Io { path: data_dir.clone(), source })?;
    let mode = sync_mode(&config);
    let (log, replay, identity) = open_log(&directory, mode, &settings)?;

    let poll = Poll::new().map_err(system("cannot make an event queue"))?;
    let registry = poll.registry();
    let waker = Arc::new(Waker::new(registry, WAKER).map_err(system("cannot make an event queue's waker"))?);
    let member = config.member(id).ok_or(StartError::NotMember { id })?;
    let listeners = listeners(member, registry)?;
    let signals = match control {
        Control::Handle => None,
        Control::Process => {
            let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(system("cannot catch signals"))?;
            registry
                .register(&mut signals, SIGNALS, Interest::READABLE)
                .map_err(system("cannot watch signals"))?;
            Some(signals)
        }
    };
    let main = listeners.iter().find(|listener| listener.purpose == Purpose::Main);
    let address = main
        .expect("every member has an address")
        .local_address()
        .map_err(system("cannot tell the listening address"))?;
    let shared = Arc::new(Shared::new(address, control == Control::Process));
    let (writer, disk_failure) = spawn_writer(log, Arc::clone(&waker))?;
    let keeper = Keeper::new(directory.disk().clone(), settings.store.clone(), random());
    let keeper = KeeperThread::spawn(keeper, Arc::clone(&waker))
        .map_err(system("cannot start the thread for snapshots"))?;

    let suspicion = settings.protocol.suspicion;
    let clients_max = settings.clients_max;
    let value_len_max = settings.store.value_len_max;
    let node = Node::new(settings, identity, replay, random(), clock.now());
    let event_loop = EventLoop::new(Parts {
        poll,
        waker: Arc::clone(&waker),
        clock,
        node,
        writer,
        keeper,
        disk_failure,
        data_dir: directory,
        listeners,
        links: links(&config, id),
        signals,
        shared: Arc::clone(&shared),
        me: id,
        suspicion,
        clients_max,
        value_len_max,
        connections_max,
        seed,
    });
    Ok(Started { event_loop, shared, waker })
}

/// The sockets that this member listens on.
fn listeners(member: &Member, registry: &Registry) -> Result<Vec<Listener>, StartError> {
    let addresses = [
        (member.peer.as_ref(), Purpose::Peers),
        (Some(&member.address), Purpose::Main),
        (member.cluster.as_ref(), Purpose::Cluster),
    ];
    let mut listeners = Vec::new();
    for (address, purpose) in addresses {
        let Some(address) = address else { continue };
        let mut listener = Listener::bind(address, purpose)
            .map_err(|source| StartError::Bind { address: address.clone(), source })?;
        registry
            .register(&mut listener.socket, purpose.token(), Interest::READABLE)
            .map_err(system("cannot watch a listening socket"))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

fn sync_mode(config: &Config) -> SyncMode {
    match config.settings.sync {
        SyncPolicy::Always => SyncMode::Always,
        SyncPolicy::Interval => SyncMode::Interval(config.settings.sync_interval),
        SyncPolicy::Never => SyncMode::Never,
    }
}

/// Opens the log, replays it, and makes durable that this start has begun.
fn open_log(
    directory: &DataDir,
    mode: SyncMode,
    settings: &Settings,
) -> Result<(Log<FileDisk>, Replay, Identity), StartError> {
    let disk = directory.disk();
    let (mut replay, damaged) = load_state(directory, settings)?;
    let options = LogOptions {
        sync: mode,
        segment_len: segment_len(settings),
        needed: replay.needed(),
        ..LogOptions::new(directory.identity(), random())
    };
    let mut progress = ReplayProgress::new(disk);
    let mut failure: Option<ReplayError> = None;
    let opened = Log::open(disk, options, |lsn, kind, payload| {
        progress.record(lsn, payload.len());
        replay.push(lsn, kind, payload).map_err(|error| {
            let reason = match &error {
                ReplayError::Record { error, .. } => error.clone(),
                ReplayError::Contradiction { lsn, .. } => {
                    DecodeError::Invalid { what: "record after those before it", found: lsn.0 }
                }
            };
            failure = Some(error);
            reason
        })
    });
    let (mut log, recovered) = match (opened, failure) {
        // The storage can only say where; what is wrong with the record is known here.
        (Err(OpenError::BadRecord { .. }), Some(error @ ReplayError::Contradiction { .. })) => {
            return Err(error.into());
        }
        (opened, _) => opened?,
    };
    if recovered.torn_bytes > 0 {
        log::warn!("log ended in the middle of a write torn_bytes={}", recovered.torn_bytes);
    }
    let mut group = RecordGroup::new();
    let incarnation = replay.begin(&mut group)?;
    log.append(&mut group).and_then(|()| log.sync()).map_err(StartError::Disk)?;
    for snapshot in damaged {
        let path = disk.path(&snapshot.name);
        let aside =
            snapshot.set_aside(disk).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        log::warn!("{} is set aside as {aside}", path.display());
    }
    let identity = directory.identity();
    log::info!(
        "starting node={} disk={} incarnation={incarnation} records={} clean={}",
        identity.node.get(),
        identity.disk_id,
        recovered.last,
        recovered.clean
    );
    let storage::Identity { disk_id: disk, joining, .. } = identity;
    Ok((log, replay, Identity { disk, incarnation, boot: random(), joining }))
}

/// Segments are removed as a whole, so they are shorter than what is removed at a time.
fn segment_len(settings: &Settings) -> u64 {
    (settings.snapshot_log_len / 4).clamp(1 << 20, 64 << 20)
}

/// Loads the newest snapshot that is sound; the newer ones, which are not, come with it.
fn load_state(
    directory: &DataDir,
    settings: &Settings,
) -> Result<(Replay, Vec<DamagedSnapshot>), StartError> {
    let begun = Instant::now();
    let mut told = begun;
    let (disk, disk_id) = (directory.disk(), directory.identity().disk_id);
    let tell = |done: u64, len: u64| {
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            log::info!(
                "loading the snapshot read_mib={} of_mib={} seconds={}",
                done >> 20,
                len >> 20,
                begun.elapsed().as_secs()
            );
        }
    };
    let restored = restore(disk, disk_id, &settings.protocol, &settings.store, random(), tell)?;
    let Restored { replay, snapshot, damaged } = restored;
    for DamagedSnapshot { failure, .. } in &damaged {
        log::error!("{failure}");
    }
    if let Some((keys, len)) = snapshot {
        log::info!(
            "loaded the snapshot keys={keys} bytes={len} milliseconds={}",
            begun.elapsed().as_millis()
        );
    }
    Ok((replay, damaged))
}

/// Tells how far a long replay is.
struct ReplayProgress {
    begun: Instant,
    told: Instant,
    bytes: u64,
    total: u64,
}

impl ReplayProgress {
    fn new(disk: &FileDisk) -> ReplayProgress {
        let now = Instant::now();
        ReplayProgress { begun: now, told: now, bytes: 0, total: stored_bytes(disk).unwrap_or(0) }
    }

    fn record(&mut self, lsn: Lsn, len: usize) {
        self.bytes += len as u64;
        if lsn.0.is_multiple_of(1024) && self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            let (read, total) = (self.bytes >> 20, self.total >> 20);
            log::info!(
                "replaying the log records={lsn} read_mib={read} of_mib={total} seconds={}",
                self.begun.elapsed().as_secs()
            );
        }
    }
}

fn spawn_writer(log: Log<FileDisk>, waker: Arc<Waker>) -> Result<(LogWriter, DiskFailure), StartError> {
    let failure: DiskFailure = Arc::new(Mutex::new(None));
    let told = Arc::clone(&failure);
    let notify = move |result: io::Result<Lsn>| {
        if let Err(error) = result {
            *told.lock().expect("nothing panics while it holds this lock") = Some(error);
        }
        // If this fails the loop is gone, and with it whoever could be told.
        let _ = waker.wake();
    };
    let writer = LogWriter::spawn(log, notify).map_err(system("cannot start the log's thread"))?;
    Ok((writer, failure))
}

/// One link for each other member. Names are looked up here once; the loop has not begun, so it may wait.
fn links(config: &Config, me: NodeId) -> Vec<Link> {
    let others = config.members().iter().filter(|member| member.id != me);
    others
        .map(|member| {
            let address = member.peer_address();
            let addresses = match Resolver::numeric(address) {
                Some(address) => vec![address],
                None => {
                    let found = std::net::ToSocketAddrs::to_socket_addrs(&(address.host(), address.port()));
                    found.map(Iterator::collect).unwrap_or_default()
                }
            };
            Link::new(member.id, address.clone(), addresses)
        })
        .collect()
}

/// How many clients there are descriptors for, after asking for more of them, and how many connections of
/// all kinds.
fn allowed_connections(wanted: usize) -> (usize, usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = (wanted + EXTRA_CONNECTIONS + FILES_KEPT) as u64;
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < needed {
        let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok() {
            current = raised;
        }
    }
    if current >= needed {
        return (wanted, wanted + EXTRA_CONNECTIONS);
    }
    let connections = usize::try_from(current).unwrap_or(usize::MAX).saturating_sub(FILES_KEPT).max(2);
    let allowed = connections.saturating_sub(EXTRA_CONNECTIONS).max(connections / 2);
    log::warn!("max-clients lowered from={wanted} to={allowed}: no more descriptors");
    (allowed, connections)
}
