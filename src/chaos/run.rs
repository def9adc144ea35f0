//! One run from the founding of a cluster to the verdict.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::linearizability::{Command, Operation, Outcome};
use crate::wire::client::WireReply;

use super::check::{self, Evidence, Values};
use super::clients::{Board, Kind, Worker, watch};
use super::cluster::Cluster;
use super::dialects::{Dialect, Link};
use super::nemesis::Nemesis;
use super::plan::{self, Fault};
use super::proxy::Flips;
use super::summary::Summary;

/// The nodes' client time-out: commands under way when something breaks are not to wait for long.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// From the last heal until every node must serve, write, and be equal to the others.
const RECOVERY_MAX: Duration = Duration::from_secs(20);
/// While a majority is connected, writes must not go without an answer for so long.
const GAP_MAX: Duration = Duration::from_secs(5);
/// How long clients go on after everything was healed.
const CALM: Duration = Duration::from_secs(2);
/// The checker may look at so many states in each group of keys.
const STATES_MAX: u64 = 400_000;
const READ_BACK_CHUNK: usize = 100;
/// For the clients' numbers in the history: who reads all back at the end.
const READER: u64 = 1_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the storm lasts.
    pub length: Duration,
    /// How many nodes, up to [`super::NODES_MAX`].
    pub nodes: usize,
    /// How many clients.
    pub clients: usize,
    /// What the plan and the clients are drawn from.
    pub seed: u64,
    /// Which faults there may be.
    pub faults: Vec<Fault>,
    /// The program that nodes run.
    pub kvnode: PathBuf,
    /// Where to put logs and data; they stay there. `None`: a temporary directory, which stays if something
    /// was wrong.
    pub keep: Option<PathBuf>,
}

/// Runs a cluster, its clients and a storm, and says what was wrong. `interrupted` ends the storm early.
///
/// # Errors
/// Something that says nothing about the nodes: no directory, no ports, no such program.
pub fn run(options: &Options, interrupted: &AtomicBool) -> io::Result<Summary> {
    let dir = match &options.keep {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("kvchaos-{}-{}", options.seed, std::process::id())),
    };
    fs::create_dir_all(&dir)?;
    if fs::read_dir(&dir)?.next().is_some() {
        let text = format!("{} is not empty", dir.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let result = run_in(&dir, options, interrupted);
    let keep = options.keep.is_some() || result.as_ref().is_ok_and(|summary| !summary.violations.is_empty());
    if !keep {
        fs::remove_dir_all(&dir)?;
    }
    result.map(|summary| Summary { kept: keep.then_some(dir), ..summary })
}

fn run_in(dir: &Path, options: &Options, interrupted: &AtomicBool) -> io::Result<Summary> {
    let board = Board::new(Instant::now());
    let cluster = Cluster::prepare(dir, &options.kvnode, options.nodes, CLIENT_TIMEOUT)?;
    let mut nemesis = Nemesis::new(cluster, &board, interrupted, &dir.join("events.log"))?;
    nemesis.heal()?;
    if !nemesis.wait(RECOVERY_MAX, |cluster| cluster.all_ready())? {
        board.complain(format!("the cluster was not founded within {RECOVERY_MAX:?}"));
    }
    let mut summary = Summary::default();
    let begin = board.now();
    let (mut evidence, end) = storm(&mut nemesis, options, &board, &mut summary)?;
    if summary.recovery.is_some() {
        read_back(&mut nemesis, &board, &mut evidence)?;
    }
    for alarm in nemesis.cluster.alarms() {
        board.complain(alarm);
    }
    judge(dir, options, &evidence, &mut summary)?;

    let micros = Duration::from_micros;
    let writes = answered_writes(&evidence.history);
    let (gap, at) = nemesis.timeline.longest_gap(&writes, begin, end);
    if micros(gap) > GAP_MAX {
        board.complain(format!(
            "no write was answered for {:.1?} from {:.1?} on, although a majority was connected",
            micros(gap),
            micros(at)
        ));
    }
    summary.longest_gap = (micros(gap), micros(at));
    summary.length = micros(end - begin);
    summary.interrupted = nemesis.is_interrupted();
    (summary.answered, summary.unknown, summary.refused) = board.counts();
    summary.starts = nemesis.cluster.starts();
    summary.start_times = nemesis.starts;
    summary.start_times.sort_unstable();
    summary.episodes = nemesis.episodes;
    for (_, _, proxy) in nemesis.cluster.proxies() {
        let Flips { made, noticed, moot, .. } = proxy.flips();
        summary.flips.made += made;
        summary.flips.noticed += noticed;
        summary.flips.moot += moot;
    }
    summary.violations.splice(0..0, board.complaints());
    Ok(summary)
}

/// The clients' part: they ask, the storm rages, everything is healed, and they go on for a while. Returns what
/// they saw, and when they were told to stop.
fn storm(
    nemesis: &mut Nemesis<'_>,
    options: &Options,
    board: &Board,
    summary: &mut Summary,
) -> io::Result<(Evidence, u64)> {
    let steps = plan::draw(options.seed, options.nodes, options.length, &options.faults);
    let addresses = nemesis.cluster.addresses();
    let mut evidence = Evidence::default();
    thread::scope(|scope| {
        let watcher = |(node, address): (usize, &SocketAddr)| {
            let address = *address;
            scope.spawn(move || watch(node, address, board))
        };
        let watchers: Vec<_> = addresses.iter().enumerate().map(watcher).collect();
        let worker = |number| Worker::new(number, board, options.seed, &addresses, CLIENT_TIMEOUT);
        let workers: Vec<_> =
            (0..options.clients).map(worker).map(|worker| scope.spawn(move || worker.run())).collect();
        let result = nemesis.storm(&steps, options.length).and_then(|()| recover(nemesis, board, &addresses));
        // Whatever happened, the clients have to be told before anybody waits for them.
        board.stop();
        let end = board.now();
        for worker in workers {
            evidence.history.extend(worker.join().expect("clients do not panic"));
        }
        for watcher in watchers {
            summary.local_reads += watcher.join().expect("watchers do not panic");
        }
        summary.recovery = result?;
        Ok((evidence, end))
    })
}

/// Heals everything and waits until every node serves and has answered a write; says how long that took.
fn recover(
    nemesis: &mut Nemesis<'_>,
    board: &Board,
    addresses: &[SocketAddr],
) -> io::Result<Option<Duration>> {
    nemesis.heal()?;
    let begin = Instant::now();
    let mut silent: Vec<usize> = (0..addresses.len()).collect();
    let recovered = nemesis.wait(RECOVERY_MAX, |cluster| {
        if cluster.all_ready() {
            silent.retain(|node| !has_written(addresses[*node], *node));
        }
        silent.is_empty()
    })?;
    if !recovered {
        board.complain(format!(
            "{RECOVERY_MAX:?} after everything was healed, nodes {silent:?} do not serve or have not answered a write"
        ));
        return Ok(None);
    }
    let recovery = begin.elapsed();
    nemesis.tell("every node has answered a write")?;
    nemesis.storm(&[], CALM)?;
    Ok(Some(recovery))
}

fn has_written(address: SocketAddr, node: usize) -> bool {
    let key = format!("recovered.{node}");
    let words = [b"SET".as_slice(), key.as_bytes(), b"1"];
    let reply = Link::open(Dialect::Resp, address, CLIENT_TIMEOUT).and_then(|mut link| link.ask(&words));
    matches!(reply, Ok(WireReply::Status(_)))
}

/// Reads everything back from every node, before and after all nodes are killed at once; then lets them leave.
fn read_back(nemesis: &mut Nemesis<'_>, board: &Board, evidence: &mut Evidence) -> io::Result<()> {
    let keys = check::keys_of(&evidence.history);
    let nodes = nemesis.cluster.len();
    for (round, when) in ["at the end", "after all were killed"].into_iter().enumerate() {
        if round > 0 {
            nemesis.tell("kill -9 of all nodes, and restart")?;
            (0..nodes).for_each(|node| nemesis.cluster.kill(node));
            (0..nodes).try_for_each(|node| nemesis.cluster.start(node))?;
            if !nemesis.wait(RECOVERY_MAX, |cluster| cluster.all_ready())? {
                board.complain(format!(
                    "not all nodes serve {RECOVERY_MAX:?} after all were killed at the end"
                ));
                return Ok(());
            }
        }
        wait_equal(nemesis, board)?;
        let addresses = nemesis.cluster.addresses();
        for (node, address) in addresses.into_iter().enumerate() {
            let client = READER + 100 * round as u64 + node as u64;
            match read_all(address, &keys, client, board) {
                Ok((values, operations)) => {
                    evidence.history.extend(operations);
                    evidence.finals.push((format!("node {node} {when}"), values));
                }
                Err(error) => board.complain(format!("node {node} {when} cannot be read back: {error}")),
            }
        }
    }
    nemesis.tell("all nodes are asked to leave")?;
    (0..nodes).for_each(|node| nemesis.cluster.term(node));
    // A node that does not leave in time is a complaint already.
    nemesis.wait(RECOVERY_MAX * 2, |cluster| cluster.all_gone())?;
    Ok(())
}

/// Waits until all nodes have applied the same commands, and looks whether that gave them the same state.
fn wait_equal(nemesis: &mut Nemesis<'_>, board: &Board) -> io::Result<()> {
    let addresses = nemesis.cluster.addresses();
    let mut digests: Vec<String> = Vec::new();
    let mut differ = false;
    let equal = nemesis.wait(RECOVERY_MAX, |_| {
        digests = addresses.iter().map(|address| digest(*address)).collect();
        let index = |digest: &str| digest.split(' ').next().unwrap_or_default().to_owned();
        let indexes: Vec<String> = digests.iter().map(|digest| index(digest)).collect();
        let level = !indexes[0].is_empty() && indexes.iter().all(|other| *other == indexes[0]);
        differ = level && digests.iter().any(|digest| *digest != digests[0]);
        level
    })?;
    if differ {
        board.complain(format!("nodes at one index have different states: {digests:?}"));
    } else if !equal {
        board.complain(format!("nodes are not at one index after {RECOVERY_MAX:?}: {digests:?}"));
    }
    Ok(())
}

/// Index and digest of a node's state; empty if it does not answer.
fn digest(address: SocketAddr) -> String {
    let asked = Link::open(Dialect::Resp, address, CLIENT_TIMEOUT)
        .and_then(|mut link| link.ask(&[b"DEBUG".as_slice(), b"DIGEST"]));
    match asked {
        Ok(WireReply::Bulk(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(WireReply::Status(text)) => text,
        _ => String::new(),
    }
}

/// The values of all these keys at one node, and the same as operations of a client.
fn read_all(
    address: SocketAddr,
    keys: &[Vec<u8>],
    client: u64,
    board: &Board,
) -> io::Result<(Values, Vec<Operation>)> {
    let mut link = Link::open(Dialect::Resp, address, RECOVERY_MAX)?;
    let (mut values, mut operations) = (Values::new(), Vec::new());
    for chunk in keys.chunks(READ_BACK_CHUNK) {
        let words: Vec<&[u8]> =
            [b"MGET".as_slice()].into_iter().chain(chunk.iter().map(Vec::as_slice)).collect();
        let begin = board.now();
        let reply = link.ask(&words)?;
        let end = board.now();
        let items = match reply {
            WireReply::Array(items) if items.len() == chunk.len() => items,
            other => return Err(io::Error::other(format!("MGET was answered {other:?}"))),
        };
        for (key, item) in chunk.iter().zip(items) {
            let value = match item {
                WireReply::Bulk(bytes) => Some(bytes),
                _ => None,
            };
            // One read of one key each: a read of all would make one group of them all.
            let command = Command::Get(vec![key.clone()]);
            let outcome = Some(Outcome::Values(vec![value.clone()]));
            operations.push(Operation { client, command, begin, end, outcome });
            values.insert(key.clone(), value);
        }
    }
    Ok((values, operations))
}

/// When writes were answered, in order.
fn answered_writes(history: &[Operation]) -> Vec<u64> {
    let answered = history.iter().filter(|operation| operation.outcome.is_some());
    let mut writes: Vec<u64> =
        answered.filter(|operation| !operation.command.is_reader()).map(|operation| operation.end).collect();
    writes.sort_unstable();
    writes
}

/// Judges the evidence; whatever is wrong is written into the directory with all operations on its keys.
fn judge(dir: &Path, options: &Options, evidence: &Evidence, summary: &mut Summary) -> io::Result<()> {
    let begin = Instant::now();
    let judgement = check::check(evidence, STATES_MAX);
    summary.judged_in = begin.elapsed();
    summary.groups = judgement.groups;
    summary.gave_up = judgement.gave_up;
    let groups = check::groups(&evidence.history);
    for violation in &judgement.violations {
        summary.violations.push(violation.to_string());
        let operations = groups.get(violation.group.as_slice()).map(Vec::as_slice).unwrap_or_default();
        let path = dir.join(format!("history-{}.txt", String::from_utf8_lossy(&violation.group)));
        let mut file = io::BufWriter::new(File::create(path)?);
        writeln!(file, "{violation}\n")?;
        for client in 0..options.clients {
            writeln!(file, "client {client}: {}", Kind::of(client, options.nodes))?;
        }
        writeln!(file, "clients from {READER} on: read back at the end\ntimes in microseconds\n")?;
        let mut operations = operations.to_vec();
        operations.sort_by_key(|operation| operation.begin);
        for operation in operations {
            writeln!(file, "{operation}")?;
        }
        file.flush()?;
    }
    Ok(())
}
