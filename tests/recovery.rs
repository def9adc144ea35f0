//! Snapshots, disks that fail, and nodes that come back: real processes, with settings so small that little data is
//! enough for everything to happen. The messages that are asserted here are those in `docs/operations.md`.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{
    Cluster, Finished, Layout, Load, PATIENCE, PortBlock, Random, Resp, Running, TempDir, kvclient, kvnode,
    seed, until,
};

/// A snapshot after every 64 KiB of log, and nothing kept in memory for those who come late.
fn small(nodes: usize) -> Layout {
    Layout::of(nodes).set("snapshot-log", "64KiB").set("history", "0")
}

/// Snapshots only when somebody asks for them, as little is written.
fn by_hand(nodes: usize) -> Layout {
    Layout::of(nodes).set("snapshot-log", "1GiB").set("history", "0")
}

const VALUE_LEN: usize = 4096;

fn key_of(number: usize) -> String {
    format!("key-{number}")
}

/// A value that another round, or another key, does not have.
fn value_of(number: usize, round: usize) -> Vec<u8> {
    let mut value = format!("{number} in round {round} ").into_bytes();
    value.resize(VALUE_LEN, b'.');
    value
}

/// Writes the keys `0..count`, with values of this round.
fn fill(cluster: &Cluster, node: usize, count: usize, round: usize) {
    let mut client = cluster.resp(node);
    for first in (0..count).step_by(50) {
        let numbers = first..count.min(first + 50);
        for number in numbers.clone() {
            let (key, value) = (key_of(number), value_of(number, round));
            client.send(&[&b"SET"[..], key.as_bytes(), &value]).expect("the node reads");
        }
        for _ in numbers {
            assert_eq!(client.reply().expect("the node answers"), Resp::ok());
        }
    }
}

/// Asserts that a node has what [`fill`] wrote.
fn assert_filled(cluster: &Cluster, node: usize, count: usize, round: usize) {
    let mut client = cluster.resp(node);
    for number in 0..count {
        assert_eq!(
            client.ask(&["GET", &key_of(number)]),
            Resp::bulk(value_of(number, round)),
            "at node {node}"
        );
    }
}

fn field(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let info = cluster.info(node);
    info.get(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {info:?}"))
}

/// The names in a directory that end like this, in order, with their lengths.
fn files(directory: &Path, end: &str) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(directory).map(|entries| entries.flatten().collect::<Vec<_>>());
    let mut files: Vec<(PathBuf, u64)> = entries
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(end))
        // The node may have removed it since.
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
        .collect();
    files.sort();
    files
}

/// Has a node launched, waits for a moment while a snapshot is coming to it, or just after, and kills it. Says whether
/// a part of a snapshot was on its disk then.
fn kill_while_catching_up(
    cluster: &mut Cluster,
    node: usize,
    random: &mut Random,
    launch: impl FnOnce(&mut Cluster),
) -> bool {
    let before = fs::metadata(cluster.log_file(node)).map_or(0, |log| log.len());
    launch(cluster);
    let begun = Instant::now();
    let parts = || files(cluster.data_dir(node), ".part");
    until("a snapshot is coming", PATIENCE, || {
        let log = cluster.log_of(node).split_off(usize::try_from(before).expect("small"));
        let has_come = log.contains("installed a snapshot");
        // It may need none any more.
        let needless = log.contains("ready node=") && begun.elapsed() > Duration::from_secs(2);
        let is_started = log.contains("starting node=");
        (is_started && (!parts().is_empty() || has_come || needless)).then_some(())
    });
    // From the first block of a snapshot to snapshots of its own.
    std::thread::sleep(Duration::from_millis(u64::try_from(random.below(200)).expect("small")));
    let is_part = !parts().is_empty();
    cluster.kill9(node);
    is_part
}

/// How often a node is killed while it comes back; `LANEKV_KILLS` asks for more.
fn kills() -> usize {
    std::env::var("LANEKV_KILLS").map_or(8, |kills| kills.parse().expect("LANEKV_KILLS is a number"))
}

fn flip_in_the_middle(path: &Path) {
    let mut bytes = fs::read(path).expect("a file of ours");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("a file of ours");
}

fn voters(cluster: &Cluster, node: usize) -> String {
    cluster.info(node).remove("voters").unwrap_or_default()
}

/// Starts a node with one more flag and waits until it serves.
fn start_with(cluster: &mut Cluster, node: usize, arguments: &[&str]) {
    let mut command = cluster.command(node);
    cluster.launch_by(node, command.args(arguments));
    cluster.wait_ready(node);
}

/// Runs a node that is going to be refused.
fn refused(cluster: &Cluster, node: usize, arguments: &[&str], code: i32, clue: &str) -> Finished {
    let finished = Finished::of(cluster.command(node).args(arguments), b"");
    finished.assert_refused(code, clue);
    finished
}

#[test]
fn the_log_is_truncated_and_a_start_begins_from_a_snapshot() {
    const KEYS: usize = 100;
    const ROUNDS: usize = 25;
    let mut cluster = Cluster::start(small(3));
    for round in 0..ROUNDS {
        fill(&cluster, 0, KEYS, round);
    }
    let written = KEYS * ROUNDS * VALUE_LEN;
    // A node's two snapshots, and the log from the older of them on, in segments of 1 MiB; one more segment may be
    // half done with being removed.
    let live = (KEYS * VALUE_LEN) as u64;
    for node in 0..3 {
        until("old segments are removed", PATIENCE, || {
            let all: u64 = files(cluster.data_dir(node), "").iter().map(|file| file.1).sum();
            let first = files(cluster.data_dir(node), ".log").remove(0).0;
            let gone = !first.ends_with("wal-0000000000000001.log");
            (gone && all < 4 * live + (3 << 20)).then_some(())
        });
        let snapshots = field(&cluster, node, "snapshots_taken");
        let kib = files(cluster.data_dir(node), "").iter().map(|file| file.1).sum::<u64>() >> 10;
        println!("node {node}: {} KiB written, {snapshots} snapshots, {kib} KiB on disk", written >> 10);
        assert!(snapshots >= 3, "{snapshots} snapshots of {written} bytes of log");
        until("two snapshots are kept", PATIENCE, || {
            (files(cluster.data_dir(node), ".snap").len() <= 2).then_some(())
        });
    }
    let equal = cluster.wait_equal(&[0, 1, 2], PATIENCE);
    for node in 0..3 {
        cluster.kill9(node);
    }
    let begun = Instant::now();
    cluster.start_all();
    println!("serves {:.1?} after its start from a snapshot", begun.elapsed());
    let after = cluster.wait_equal(&[0, 1, 2], PATIENCE);
    assert_eq!(after.1, equal.1, "the same state");
    for node in 0..3 {
        assert!(cluster.log_of(node).contains("loaded the snapshot keys=100 "), "{}", cluster.log_of(node));
        assert_filled(&cluster, node, KEYS, ROUNDS - 1);
    }
}

#[test]
fn save_waits_for_a_snapshot_and_lastsave_says_when() {
    let cluster = Cluster::start(by_hand(1));
    let mut client = cluster.resp(0);
    let Resp::Integer(before) = client.ask(&["LASTSAVE"]) else { panic!("no number") };
    assert_eq!(client.ask(&["SET", "name", "john"]), Resp::ok());
    assert!(files(cluster.data_dir(0), ".snap").is_empty());
    assert_eq!(client.ask(&["SAVE"]), Resp::ok());
    assert_eq!(files(cluster.data_dir(0), ".snap").len(), 1, "there when SAVE is answered");
    let Resp::Integer(after) = client.ask(&["LASTSAVE"]) else { panic!("no number") };
    assert!(before <= after, "{before}, {after}");
    assert_eq!(client.ask(&["SET", "name", "jane"]), Resp::ok());
    assert_eq!(client.ask(&["BGSAVE"]), Resp::Status("Background saving started".into()));
    until("a second snapshot", PATIENCE, || (field(&cluster, 0, "snapshots_taken") == 2).then_some(()));
}

#[test]
fn a_node_that_was_away_for_longer_than_the_history_gets_a_snapshot() {
    const KEYS: usize = 1000;
    let mut random = Random::new(seed());
    let mut cluster = Cluster::start(small(3));
    fill(&cluster, 0, KEYS, 0);
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    assert_eq!(cluster.stop(2).code(), Some(0));
    fill(&cluster, 0, KEYS, 1);
    let load = Load::start(&cluster, 6);
    let begun = Instant::now();
    cluster.start_nodes(&[2]);
    println!("serves {:.1?} after its start", begun.elapsed());
    until("a snapshot is installed", PATIENCE, || {
        (field(&cluster, 2, "snapshots_installed") >= 1).then_some(())
    });
    let log = cluster.log_of(2);
    assert!(log.contains("catching up by a snapshot from n"), "{log}");
    cluster.wait_sender(2, PATIENCE);
    // Not before: a write that a snapshot overtakes is answered with TIMEOUT.
    load.is_back(2);

    // The same again and again, killed somewhere in between.
    let (mut parts, mut damaged) = (0, 0);
    load.goes_down(2);
    cluster.kill9(2);
    let kills = kills();
    for round in 0..kills {
        fill(&cluster, round % 2, KEYS / 2, 2 + round);
        parts +=
            usize::from(kill_while_catching_up(&mut cluster, 2, &mut random, |cluster| cluster.launch(2)));
        let finished = Finished::of(kvnode().arg("--inspect").arg(cluster.data_dir(2)), b"");
        damaged += usize::from(finished.code != Some(0));
    }
    println!("killed {kills} times while it came back, {parts} times with a part of a snapshot on its disk");
    assert_eq!(damaged, 0, "--inspect finds damage after a kill");
    cluster.start_nodes(&[2]);
    cluster.wait_sender(2, PATIENCE);
    load.is_back(2);
    let outcome = load.stop();
    outcome.assert_no_complaints();
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    outcome.assert_kept(&cluster, &[0, 1, 2]);
    assert_filled(&cluster, 2, KEYS / 2, 1 + kills);
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_without_any_rebuild_is_the_way() {
    const KEYS: usize = 400;
    // Segments of 1 MiB, several of them between two snapshots.
    let layout = Layout::of(3).set("snapshot-log", "2MiB").set("history", "0");
    let mut cluster = Cluster::start(layout);
    // Two snapshots, and a log that does not reach back to its beginning.
    let two_snapshots = |cluster: &Cluster, rounds: [usize; 2]| {
        for round in rounds {
            for _ in 0..3 {
                fill(cluster, 0, KEYS, round);
            }
            cluster.wait_equal(&[0, 1, 2], PATIENCE);
            assert_eq!(cluster.resp(1).ask(&["SAVE"]), Resp::ok());
        }
        fill(cluster, 0, 10, 99);
        until("the log is truncated", PATIENCE, || {
            let first = files(cluster.data_dir(1), ".log").remove(0).0;
            (!first.ends_with("wal-0000000000000001.log")).then_some(())
        });
        let snapshots = files(cluster.data_dir(1), ".snap");
        assert_eq!(snapshots.len(), 2, "{snapshots:?}");
        cluster.wait_equal(&[0, 1, 2], PATIENCE);
        snapshots
    };
    let snapshots = two_snapshots(&cluster, [0, 1]);
    cluster.kill9(1);
    flip_in_the_middle(&snapshots[1].0);
    cluster.start_nodes(&[1]);
    let log = cluster.log_of(1);
    let line = |what: &str| log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{log}"));
    assert!(line(".snap is damaged in block ").contains("ERROR"));
    assert!(line(".snap is set aside as ").ends_with(".snap.damaged"));
    assert_eq!(files(cluster.data_dir(1), ".snap.damaged").len(), 1);
    assert!(log.contains("loaded the snapshot keys=400 "), "{log}");
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    assert_filled(&cluster, 1, 10, 99);

    let snapshots = two_snapshots(&cluster, [2, 3]);
    cluster.kill9(1);
    for (snapshot, _) in &snapshots {
        flip_in_the_middle(snapshot);
    }
    let finished = refused(&cluster, 1, &[], 4, " begins with record ");
    assert_eq!(finished.stderr.matches(".snap is damaged in block ").count(), 2, "{finished:#?}");
    assert!(finished.stderr.contains("--rebuild"), "{finished:#?}");
    assert!(finished.stderr.contains("and no sound snapshot covers what came before"), "{finished:#?}");
    // A start that is refused leaves everything where it was, and whoever tries again is told the same.
    assert_eq!(files(cluster.data_dir(1), ".snap"), snapshots);
    assert_eq!(files(cluster.data_dir(1), ".snap.damaged").len(), 1, "the one of the start before");
    let again = refused(&cluster, 1, &[], 4, "--rebuild");
    assert_eq!(again.stderr.matches(".snap is damaged in block ").count(), 2, "{again:#?}");

    start_with(&mut cluster, 1, &["--rebuild"]);
    assert!(cluster.log_of(1).contains("node-1.lost-1"), "{}", cluster.log_of(1));
    assert!(cluster.dir().path().join("node-1.lost-1").join("IDENTITY").exists(), "nothing is deleted");
    assert_votes(&mut cluster, 1, 2);
    assert_filled(&cluster, 1, 10, 99);
}

/// Asserts that a node which was rebuilt is a voter again: with it, but without another, there is a majority.
fn assert_votes(cluster: &mut Cluster, rebuilt: usize, other: usize) {
    until("it is a voter again", PATIENCE, || {
        (field(cluster, rebuilt, "joining") == 0 && voters(cluster, rebuilt) == "0,1,2").then_some(())
    });
    cluster.kill9(other);
    for node in (0..3).filter(|node| *node != other) {
        let mut client = cluster.resp(node);
        until("a majority with the vote of the rebuilt node", PATIENCE, || {
            (client.ask(&["SET", &format!("without {other} at {node}"), "1"]) == Resp::ok()).then_some(())
        });
    }
    cluster.start_nodes(&[other]);
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
}

#[test]
fn a_wiped_disk_is_rebuilt_and_only_where_nothing_can_be_lost() {
    const KEYS: usize = 1500;
    let mut random = Random::new(seed());
    let mut cluster = Cluster::start(small(3));
    fill(&cluster, 0, KEYS, 0);
    // While the node runs: on its directory, and on another one.
    refused(&cluster, 2, &["--rebuild"], 3, "is in use by a running process");
    let elsewhere = cluster.dir().path().join("elsewhere");
    let mut command = kvnode();
    command.arg("2").arg(cluster.conf()).arg("--data-dir").arg(&elsewhere).arg("--rebuild");
    Finished::of(&mut command, b"").assert_refused(3, "hears this node");
    assert!(!elsewhere.exists(), "nothing is made when it is refused");

    cluster.kill9(2);
    fs::remove_dir_all(cluster.data_dir(2)).expect("its data directory");
    let finished = refused(&cluster, 2, &[], 6, "--rebuild");
    assert!(finished.stderr.contains("is not the registered one"), "{finished:#?}");
    // With one of the other two down, nobody knows whether everything is still there.
    cluster.kill9(1);
    until("the other has noticed", PATIENCE, || {
        let hears = cluster.info(0).remove("hears")?;
        (!hears.contains('1') && !hears.contains('2')).then_some(())
    });
    refused(&cluster, 2, &["--rebuild"], 2, "nothing was changed: 0 of the other nodes serve, 2 are needed");
    cluster.start_nodes(&[1]);
    // One of the others answers, but does not serve before the other one, which stands still, goes on.
    cluster.pause(0);
    until("nobody serves", PATIENCE, || (field(&cluster, 1, "serving") == 0).then_some(()));

    // Killed in the middle, and started without the flag from then on.
    let mut parts = usize::from(kill_while_catching_up(&mut cluster, 2, &mut random, |cluster| {
        let mut command = cluster.command(2);
        cluster.launch_by(2, command.arg("--rebuild"));
        cluster.resume(0);
    }));
    for _ in 1..5 {
        parts +=
            usize::from(kill_while_catching_up(&mut cluster, 2, &mut random, |cluster| cluster.launch(2)));
    }
    println!("killed 5 times while it was rebuilt, {parts} times with a part of a snapshot on its disk");
    cluster.start_nodes(&[2]);
    assert_votes(&mut cluster, 2, 1);
    assert_filled(&cluster, 2, KEYS, 0);
}

/// The process on the old disk only stood still, and somebody thought that it was gone.
#[test]
fn a_rebuild_beside_the_registered_process_does_not_disturb_it() {
    let ports = PortBlock::take().expect("free ports");
    let there = format!("127.0.0.1:{}", ports.port(3));
    let cluster = Cluster::start_on(by_hand(3), ports);
    fill(&cluster, 0, 100, 0);
    cluster.pause(2);
    until("the others go on without it", PATIENCE, || {
        let goes_on = |node| !cluster.senders(node).contains(&2) && field(&cluster, node, "serving") == 1;
        (0..2).all(goes_on).then_some(())
    });
    let conf =
        fs::read_to_string(cluster.conf()).expect("a file of ours").replace(cluster.address(2), &there);
    let conf = cluster.dir().write("elsewhere.conf", &conf);
    let mut command = kvnode();
    command.arg("2").arg(conf).arg("--data-dir").arg(cluster.dir().path().join("elsewhere")).arg("--rebuild");
    let other = Running::start(&mut command, &cluster.dir().path().join("elsewhere.log"));
    until("the other process runs", PATIENCE, || other.log_text().contains("starting node=2").then_some(()));

    cluster.resume(2);
    until("both others refuse the other process", PATIENCE, || {
        let refused = |node| cluster.log_of(node).contains("it is being rebuilt while a process with");
        (0..2).all(refused).then_some(())
    });
    cluster.wait_sender(2, PATIENCE);
    let view = cluster.view(0);
    fill(&cluster, 2, 100, 1);
    // Longer than the pause between two attempts.
    std::thread::sleep(Duration::from_secs(2));
    fill(&cluster, 2, 100, 2);
    assert_eq!((cluster.view(0), cluster.senders(0)), (view, vec![0, 1, 2]), "{}", cluster.log_of(0));
    assert!(other.log_text().contains("stop that one"), "{}", other.log_text());
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
}

#[test]
fn a_single_node_has_nobody_to_be_rebuilt_from() {
    let mut cluster = Cluster::start(Layout::of(1));
    cluster.kill9(0);
    refused(&cluster, 0, &["--rebuild"], 2, "0 of the other nodes serve, 1 are needed");
    assert!(cluster.data_dir(0).join("IDENTITY").exists());
    cluster.start_all();
}

fn back_up(cluster: &Cluster, file: &Path) -> Finished {
    let mut command = kvclient();
    Finished::of(command.arg(cluster.conf()).arg("BACKUP").arg(file), b"")
}

/// The number behind `name=` in what BACKUP prints.
fn figure(text: &str, name: &str) -> u64 {
    let words = text.split_whitespace();
    let value = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next();
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text:?}"))
}

#[test]
fn a_backup_under_load_is_the_state_at_its_index() {
    const KEYS: usize = 1000;
    let dir = TempDir::new("backups");
    let (file, later) = (dir.path().join("first.snap"), dir.path().join("later.snap"));
    let (index, digest, count);
    {
        let cluster = Cluster::start(by_hand(3));
        fill(&cluster, 0, KEYS, 0);
        // One writer, so that it sees the state after each single command.
        let stop = Arc::new(AtomicBool::new(false));
        let (mut client, stopped) = (cluster.resp(0), Arc::clone(&stop));
        let writer = std::thread::spawn(move || {
            let mut states = BTreeMap::new();
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (key, value) = (format!("meanwhile {}", number % 500), number.to_string());
                assert_eq!(client.ask(&["SET", &key, &value]), Resp::ok());
                let state = client.ask(&["DEBUG", "DIGEST"]).text();
                let Resp::Integer(keys) = client.ask(&["DBSIZE"]) else { panic!("no number") };
                let (index, digest) = state.split_once(' ').expect("two words");
                let index = index.parse::<u64>().expect("an index");
                states.insert(index, (digest.to_owned(), u64::try_from(keys).expect("a count")));
            }
            states
        });
        until("it writes", PATIENCE, || (field(&cluster, 0, "index") > KEYS as u64 + 50).then_some(()));
        let finished = back_up(&cluster, &file);
        stop.store(true, Ordering::Relaxed);
        let states = writer.join().expect("the writer does not panic");
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        print!("{}", finished.stdout);
        index = figure(&finished.stdout, "index");
        count = figure(&finished.stdout, "keys");
        assert_eq!(figure(&finished.stdout, "bytes"), fs::metadata(&file).expect("it is there").len());
        let (first, last) = (states.keys().next(), states.keys().last());
        let state = states.get(&index).unwrap_or_else(|| panic!("{index} not in {first:?}..{last:?}"));
        digest = state.0.clone();
        assert_eq!(count, state.1);
        assert!(last > Some(&index), "the writer had ended before");

        let again = back_up(&cluster, &file);
        assert_eq!(
            (again.code, again.stdout.trim_end()),
            (Some(1), "ERR the file exists already; nothing is overwritten")
        );
        assert_eq!(back_up(&cluster, &later).code, Some(0));
        let left: Vec<_> = files(dir.path(), ".incomplete");
        assert!(left.is_empty(), "{left:?}");
    }
    let restore = |file: &Path| ["--restore".to_owned(), file.to_str().expect("a path of ours").to_owned()];
    for nodes in [3, 1] {
        let mut cluster = Cluster::prepare(small(nodes), PortBlock::take().expect("free ports"));
        for node in 0..nodes {
            let mut command = cluster.command(node);
            cluster.launch_by(node, command.args(restore(&file)));
        }
        for node in 0..nodes {
            cluster.wait_ready(node);
        }
        let state = cluster.wait_equal(&cluster.all(), PATIENCE);
        assert_eq!(state, (index, digest.clone()), "of {nodes} nodes");
        assert_eq!(cluster.resp(0).ask(&["DBSIZE"]), Resp::Integer(i64::try_from(count).expect("small")));
        assert_filled(&cluster, nodes - 1, KEYS, 0);
        // It is a cluster like any other, and a second time there is nothing to be restored.
        fill(&cluster, nodes - 1, KEYS, 1);
        let state = cluster.wait_equal(&cluster.all(), PATIENCE);
        for node in 0..nodes {
            cluster.kill9(node);
        }
        let words = restore(&file);
        refused(
            &cluster,
            0,
            &[&words[0], &words[1]],
            2,
            "is not empty: a backup is restored into a new cluster only",
        );
        cluster.start_all();
        assert_eq!(cluster.wait_equal(&cluster.all(), PATIENCE).1, state.1);
        assert_filled(&cluster, 0, KEYS, 1);
    }

    // One node from another backup.
    let mut cluster = Cluster::prepare(small(3), PortBlock::take().expect("free ports"));
    for (node, from) in [(0, &file), (1, &file), (2, &later)] {
        let mut command = cluster.command(node);
        cluster.launch_by(node, command.args(restore(from)));
    }
    let clue = "or it was begun from another backup";
    for (node, other) in [(0, "n2"), (2, "n0")] {
        let line = until("it is refused by name", PATIENCE, || {
            let log = cluster.log_of(node);
            log.lines().find(|line| line.contains(clue) && line.contains(other)).map(str::to_owned)
        });
        println!("{line}");
    }
    for node in 0..3 {
        assert!(!cluster.log_of(node).contains("ready node="), "founded from different states");
    }
    cluster.kill9(2);
    // Emptied and begun from the right one, it founds the cluster with the others.
    fs::remove_dir_all(cluster.data_dir(2)).expect("its data directory");
    let words = restore(&file);
    start_with(&mut cluster, 2, &[&words[0], &words[1]]);
    cluster.wait_ready(0);
    cluster.wait_ready(1);
    assert_eq!(cluster.wait_equal(&[0, 1, 2], PATIENCE), (index, digest));
    drop(cluster);

    // A damaged one makes nothing.
    let cluster = Cluster::prepare(small(1), PortBlock::take().expect("free ports"));
    flip_in_the_middle(&file);
    let words = restore(&file);
    refused(&cluster, 0, &[&words[0], &words[1]], 4, "first.snap is damaged in block ");
    assert!(!cluster.data_dir(0).exists());
}

/// A small file system of its own below a directory, seen only by those who are started in it. It goes with the process
/// that holds it, which goes with this one.
struct SmallDisk {
    holder: Child,
    directory: PathBuf,
}

impl SmallDisk {
    /// `None` where this machine does not let us.
    fn mount(directory: &Path, len: usize) -> Option<SmallDisk> {
        fs::create_dir_all(directory).expect("a directory of ours");
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let script = format!("mount -t tmpfs -o size={len} none \"$0\" && echo mounted && exec cat");
        command.args(["--mount", "sh", "-c", &script]).arg(directory);
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut line = String::new();
        let _ = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line);
        let disk = SmallDisk { holder, directory: directory.to_path_buf() };
        (line == "mounted\n").then_some(disk)
    }

    /// The same command line, run where the file system is.
    fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        entered.arg("--mount").arg("--target").arg(self.holder.id().to_string());
        entered.arg(command.get_program()).args(command.get_args());
        entered
    }

    /// Its directory, as it is seen from outside.
    fn path(&self) -> PathBuf {
        let relative = self.directory.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(relative)
    }

    /// Takes all but this much of the room, in bytes.
    fn leave(&self, room: u64) {
        let stat = rustix::fs::statvfs(self.path().as_path()).expect("it is mounted");
        let free = stat.f_bavail * stat.f_frsize;
        let mut file = fs::File::create(self.path().join("ballast")).expect("room for a name");
        let zeros = vec![0; usize::try_from(free.saturating_sub(room)).expect("small")];
        file.write_all(&zeros).expect("there was so much room");
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).expect("it was there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_full_disk_stops_one_node_and_room_is_enough_for_it_to_come_back() {
    let mut cluster = Cluster::prepare(by_hand(3), PortBlock::take().expect("free ports"));
    let Some(disk) = SmallDisk::mount(cluster.data_dir(2), 64 << 20) else {
        println!("skipped: this user cannot mount a small file system");
        return;
    };
    let start = |cluster: &mut Cluster| {
        let mut command = disk.enter(&cluster.command(2));
        cluster.launch_by(2, &mut command);
    };
    start(&mut cluster);
    for node in 0..2 {
        cluster.launch(node);
    }
    for node in 0..3 {
        cluster.wait_ready(node);
    }
    fill(&cluster, 0, 1000, 0);
    cluster.wait_equal(&[0, 1, 2], PATIENCE);

    // No room for a snapshot is no reason to stop. The log has a little room ahead of it.
    disk.leave(256 << 10);
    let reply = cluster.resp(2).ask(&["SAVE"]);
    println!("SAVE without room: {reply:?}");
    let Resp::Error(text) = reply else { panic!("there was no room") };
    assert!(text.starts_with("ERR no snapshot could be taken: ") && text.contains("No space left"), "{text}");
    assert_eq!(field(&cluster, 2, "snapshots_failed"), 1);
    assert!(files(&disk.path(), ".tmp").is_empty(), "it gives the room back");
    assert_eq!(cluster.resp(2).ask(&["SET", "small", "1"]), Resp::ok());
    disk.make_room();
    assert_eq!(cluster.resp(2).ask(&["SAVE"]), Resp::ok());

    // The log itself.
    disk.leave(0);
    let load = Load::start(&cluster, 6);
    load.goes_down(2);
    for round in 1..10 {
        fill(&cluster, 0, 500, round);
    }
    let ended = cluster.running_mut(2).wait_exit(PATIENCE);
    assert_eq!(ended.code(), Some(5), "{}", cluster.log_of(2));
    let log = cluster.log_of(2);
    let line = log.lines().last().unwrap_or_default();
    println!("{line}");
    assert!(
        line.starts_with("kvnode: disk error, the log is closed: ") && line.contains("No space left"),
        "{log}"
    );
    cluster.forget(2);
    disk.make_room();
    start(&mut cluster);
    cluster.wait_ready(2);
    load.is_back(2);
    let outcome = load.stop();
    outcome.assert_no_complaints();
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    outcome.assert_kept(&cluster, &[2]);
    // Before the file system goes.
    assert_eq!(cluster.stop(2).code(), Some(0));
}

#[test]
fn a_file_that_may_not_grow_is_a_full_disk() {
    let mut cluster = Cluster::start(by_hand(3));
    assert_eq!(cluster.stop(2).code(), Some(0));
    // In units of 512 bytes; the signal that comes with the error is ignored, as the error says it all.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ && ulimit -f 4096 && exec \"$0\" \"$@\""]);
    let command = cluster.command(2);
    limited.arg(command.get_program()).args(command.get_args());
    cluster.launch_by(2, &mut limited);
    cluster.wait_ready(2);
    for round in 0..4 {
        fill(&cluster, 0, 300, round);
    }
    let ended = cluster.running_mut(2).wait_exit(PATIENCE);
    assert_eq!(ended.code(), Some(5), "{}", cluster.log_of(2));
    let log = cluster.log_of(2);
    println!("{}", log.lines().last().unwrap_or_default());
    assert!(log.contains("File too large"), "{log}");
    cluster.forget(2);
    cluster.start_nodes(&[2]);
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    assert_filled(&cluster, 2, 300, 3);
}

/// A library that makes syncs fail, if there is a compiler for it.
fn failing_disk(directory: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/failing_disk.c");
    let library = directory.join("failing_disk.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    compiler.status().is_ok_and(|status| status.success()).then_some(library)
}

/// What the kernel has not written after a failed sync, it may have forgotten: the node must not try again.
#[test]
fn a_sync_that_fails_stops_one_node_and_a_start_is_enough() {
    let dir = TempDir::new("failing-disk");
    let Some(library) = failing_disk(dir.path()) else {
        println!("skipped: there is no C compiler for a disk that fails");
        return;
    };
    let flag = dir.path().join("flag");
    let mut cluster = Cluster::start(by_hand(3));
    for (concerned, message) in [
        ("wal-", "kvnode: disk error, the log is closed: "),
        ("snapshot-", "kvnode: disk error in a snapshot: "),
    ] {
        assert_eq!(cluster.stop(2).code(), Some(0));
        let mut command = cluster.command(2);
        command.env("LD_PRELOAD", &library).env("FAILING_DISK", &flag);
        cluster.launch_by(2, &mut command);
        cluster.wait_ready(2);
        let load = Load::start(&cluster, 6);
        load.goes_down(2);
        fill(&cluster, 0, 200, 0);
        fs::write(&flag, concerned).expect("a directory of ours");
        if concerned == "snapshot-" {
            // The node may be gone before it could say so.
            let _ = cluster.resp(2).send(&[b"BGSAVE"]);
        }
        fill(&cluster, 1, 200, 1);
        let ended = cluster.running_mut(2).wait_exit(PATIENCE);
        let log = cluster.log_of(2);
        assert_eq!(ended.code(), Some(5), "{log}");
        let line = log.lines().last().unwrap_or_default();
        println!("{line}");
        assert!(line.starts_with(message) && line.contains("Input/output error"), "{log}");
        fs::remove_file(&flag).expect("a file of ours");
        cluster.forget(2);
        cluster.start_nodes(&[2]);
        load.is_back(2);
        let outcome = load.stop();
        outcome.assert_no_complaints();
        cluster.wait_equal(&[0, 1, 2], PATIENCE);
        outcome.assert_kept(&cluster, &[2]);
        assert_filled(&cluster, 2, 200, 1);
    }
}

fn copy_directory(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("a directory of ours");
    for entry in fs::read_dir(from).expect("a directory of ours").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file of ours");
    }
}

/// Whoever puts back a copy of a data directory takes votes back that others may have counted.
#[test]
fn an_old_copy_of_a_data_directory_is_refused() {
    let mut cluster = Cluster::start(by_hand(3));
    let dir = TempDir::new("old-copy");
    let (copy, newest) = (dir.path().join("copy"), dir.path().join("newest"));
    let data = cluster.data_dir(2).to_path_buf();
    fill(&cluster, 0, 100, 0);
    cluster.wait_equal(&[0, 1, 2], PATIENCE);

    // Of the process that runs: its start would look like the next one, but its votes are gone.
    copy_directory(&data, &copy);
    fill(&cluster, 0, 100, 1);
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    cluster.kill9(2);
    copy_directory(&data, &newest);
    copy_directory(&copy, &data);
    refused(&cluster, 2, &[], 4, "the log has lost durable records: ");
    copy_directory(&newest, &data);
    // The others have met a process with its next number.
    let finished = refused(&cluster, 2, &[], 6, "another process runs on a copy of its data directory");
    assert!(finished.stderr.contains("if that one has ended, start this one again"), "{finished:#?}");
    cluster.start_nodes(&[2]);

    // Of an earlier process.
    assert_eq!(cluster.stop(2).code(), Some(0));
    copy_directory(&data, &copy);
    cluster.start_nodes(&[2]);
    assert_eq!(cluster.stop(2).code(), Some(0));
    cluster.start_nodes(&[2]);
    fill(&cluster, 0, 100, 2);
    assert_eq!(cluster.stop(2).code(), Some(0));
    copy_directory(&data, &newest);
    copy_directory(&copy, &data);
    refused(&cluster, 2, &[], 6, "its data directory is an old copy: incarnation");
    copy_directory(&newest, &data);
    cluster.start_nodes(&[2]);
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    assert_filled(&cluster, 2, 100, 2);
}

/// What a cluster was restored from is in no entry: whoever lacks it must not be satisfied with the entries.
#[test]
fn what_a_cluster_began_with_is_never_left_out() {
    const KEYS: usize = 50;
    let dir = TempDir::new("beginning");
    let file = dir.path().join("first.snap");
    {
        let cluster = Cluster::start(Layout::of(1));
        fill(&cluster, 0, KEYS, 0);
        assert_eq!(back_up(&cluster, &file).code, Some(0));
    }
    // Everything since then is remembered by the others.
    let mut cluster = Cluster::prepare(Layout::of(3), PortBlock::take().expect("free ports"));
    for node in 0..3 {
        let mut command = cluster.command(node);
        cluster.launch_by(node, command.arg("--restore").arg(&file));
    }
    for node in 0..3 {
        cluster.wait_ready(node);
    }
    assert_eq!(cluster.resp(0).ask(&["SET", "after", "1"]), Resp::ok());
    let state = cluster.wait_equal(&[0, 1, 2], PATIENCE);

    // The file with it is damaged, and the log goes back to its first record.
    assert_eq!(cluster.stop(2).code(), Some(0));
    let snapshots = files(cluster.data_dir(2), ".snap");
    assert_eq!(snapshots.len(), 1);
    flip_in_the_middle(&snapshots[0].0);
    let clue = "the cluster began with a restored state, which is missing here or damaged";
    for _ in 0..2 {
        let finished = refused(&cluster, 2, &[], 4, clue);
        assert!(finished.stderr.contains("--rebuild"), "{finished:#?}");
    }

    // One after the other gets another disk, so that in the end nobody is there who was restored.
    for node in [2, 1, 0] {
        if node != 2 {
            assert_eq!(cluster.stop(node).code(), Some(0));
        }
        until("the others serve", PATIENCE, || {
            (0..3)
                .filter(|other| *other != node)
                .all(|other| field(&cluster, other, "serving") == 1)
                .then_some(())
        });
        start_with(&mut cluster, node, &["--rebuild"]);
        assert_eq!(cluster.wait_equal(&[0, 1, 2], PATIENCE), state, "after node {node}");
        assert_filled(&cluster, node, KEYS, 0);
        cluster.wait_sender(node, PATIENCE);
    }
}
