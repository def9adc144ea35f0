//! What goes wrong before or instead of serving: one clear line on standard error and the agreed exit code.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{
    Cluster, Finished, Layout, PATIENCE, PortBlock, Resp, RespClient, Running, TempDir, kvclient, kvnode,
};

/// Runs `kvnode ID FILE` in a directory of its own and asserts that the data directory was not touched.
fn refused_conf(text: &str, code: i32, clue: &str) {
    let dir = TempDir::new("conf");
    let conf = dir.write("nodes.conf", text);
    let data = dir.path().join("data");
    for check in [false, true] {
        let mut command = kvnode();
        if check {
            command.arg("--check").arg(&conf);
        } else {
            command.arg("0").arg(&conf).arg("--data-dir").arg(&data);
        }
        let finished = Finished::of(&mut command, b"");
        finished.assert_refused(code, clue);
        assert_eq!(finished.stdout, "", "{text:?}");
        assert!(!data.exists(), "a bad configuration touched the disk: {text:?}");
    }
}

#[test]
fn bad_configurations_name_file_line_found_and_expected() {
    for (text, clue) in [
        ("", "nodes.conf"),
        ("# only a comment\n", "nodes.conf"),
        ("0\n", "nodes.conf:1:"),
        ("0 127.0.0.1\n", "nodes.conf:1:"),
        ("0 127.0.0.1:0\n", "nodes.conf:1:"),
        ("0 127.0.0.1:70000\n", "nodes.conf:1:"),
        ("0 127.0.0.1:port\n", "nodes.conf:1:"),
        ("zero 127.0.0.1:7100\n", "nodes.conf:1:"),
        ("64 127.0.0.1:7100\n", "nodes.conf:1:"),
        ("0 [::1:7100\n", "nodes.conf:1:"),
        ("0 127.0.0.1:7100\n0 127.0.0.1:7101\n", "nodes.conf:2:"),
        ("0 127.0.0.1:7100\n1 127.0.0.1:7100\n", "nodes.conf:2:"),
        ("0 127.0.0.1:7100 color=red\n", "nodes.conf:1:"),
        ("0 127.0.0.1:7100\nset color red\n", "nodes.conf:2:"),
        ("0 127.0.0.1:7100\nset heartbeat\n", "nodes.conf:2:"),
        ("0 127.0.0.1:7100\nset heartbeat soon\n", "nodes.conf:2:"),
        ("0 127.0.0.1:7100\nset heartbeat 50ms\nset heartbeat 60ms\n", "nodes.conf:3:"),
        ("0 127.0.0.1:7100\nset sync sometimes\n", "nodes.conf:2:"),
        ("0 127.0.0.1:7100\nset value-max 1TiB\n", "nodes.conf:2:"),
    ] {
        refused_conf(text, 2, clue);
    }
    // All mistakes at once, each on a line of its own.
    let dir = TempDir::new("conf");
    let conf = dir.write("nodes.conf", "0 127.0.0.1\nx 127.0.0.1:7101\nset color red\n");
    let finished = Finished::of(kvnode().arg("--check").arg(&conf), b"");
    for line in 1..=3 {
        finished.assert_refused(2, &format!("nodes.conf:{line}:"));
    }
    assert!(finished.stderr.contains("found") && finished.stderr.contains("expected"), "{finished:?}");
}

#[test]
fn a_good_configuration_passes_the_check() {
    let dir = TempDir::new("conf");
    let text = "# three nodes\n0 127.0.0.1:7100\n1 localhost:7101 # a name\n2 [::1]:7102 http=127.0.0.1:8102\n\n\
                set suspicion-timeout 300ms\nset heartbeat 50ms\nset value-max 1MiB\n";
    let conf = dir.write("nodes.conf", text);
    let finished = Finished::of(kvnode().arg("--check").arg(&conf), b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn bad_command_lines_are_refused() {
    let dir = TempDir::new("usage");
    let conf = dir.write("nodes.conf", "0 127.0.0.1:7100\n");
    let conf = conf.to_str().expect("a path of ours");
    let missing = dir.path().join("missing.conf");
    for (arguments, clue) in [
        (vec![], ""),
        (vec!["0"], ""),
        (vec!["0", missing.to_str().expect("a path of ours")], "missing.conf"),
        (vec!["0", dir.path().to_str().expect("a path of ours")], ""),
        (vec!["1", conf], "1"),
        (vec!["-1", conf], "-1"),
        (vec!["zero", conf], "zero"),
        (vec!["64", conf], "64"),
        (vec!["0", conf, "--sync", "sometimes"], "sometimes"),
        (vec!["0", conf, "--log", "shout"], "shout"),
        (vec!["0", conf, "--colour"], "--colour"),
        (vec!["0", conf, "more"], "more"),
    ] {
        let finished = Finished::of(kvnode().current_dir(dir.path()).args(&arguments), b"");
        finished.assert_refused(2, clue);
    }
    assert!(!dir.path().join("kvdata").exists(), "bad usage touched the disk");
    let help = Finished::of(kvnode().arg("--help"), b"");
    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(help.stdout.contains("--data-dir"), "{help:?}");
}

/// The command line of the only node of a cluster in `dir`.
fn single(dir: &TempDir, ports: &PortBlock) -> (PathBuf, PathBuf) {
    let conf = dir.write("nodes.conf", &format!("0 127.0.0.1:{}\n", ports.port(0)));
    (conf, dir.path().join("data"))
}

#[test]
fn a_port_in_use_is_named() {
    let ports = PortBlock::take().expect("free ports");
    let dir = TempDir::new("port");
    let (conf, data) = single(&dir, &ports);
    let address = format!("127.0.0.1:{}", ports.port(0));
    let taken = std::net::TcpListener::bind(&address).expect("a port of our block");
    let mut command = kvnode();
    command.arg("0").arg(&conf).arg("--data-dir").arg(&data);
    Finished::of(&mut command, b"").assert_refused(2, &address);
    drop(taken);
    Running::start(&mut command, &dir.path().join("log")).wait_ready();
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_holders_pid() {
    let ports = PortBlock::take().expect("free ports");
    let dir = TempDir::new("lock");
    let (conf, data) = single(&dir, &ports);
    let mut command = kvnode();
    command.arg("0").arg(&conf).arg("--data-dir").arg(&data);
    let mut holder = Running::start(&mut command, &dir.path().join("log"));
    holder.wait_ready();
    Finished::of(&mut command, b"").assert_refused(3, &holder.pid().to_string());
    let mut client = RespClient::connect(&format!("127.0.0.1:{}", ports.port(0)));
    assert_eq!(client.ask(&["SET", "unharmed", "1"]), Resp::ok());
    // The lock dies with its holder.
    holder.kill();
    Running::start(&mut command, &dir.path().join("log")).wait_ready();
}

#[test]
fn an_unwritable_data_directory_is_named() {
    let ports = PortBlock::take().expect("free ports");
    let dir = TempDir::new("unwritable");
    let (conf, _) = single(&dir, &ports);
    // A file where the directory should be, or above it: not even root can write there.
    let file = dir.write("file", "");
    for data in [file.clone(), file.join("below")] {
        let finished = Finished::of(kvnode().arg("0").arg(&conf).arg("--data-dir").arg(&data), b"");
        finished.assert_refused(5, file.to_str().expect("a path of ours"));
    }
    assert_eq!(fs::read(&file).expect("still there"), b"");
}

#[test]
fn a_data_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::start(Layout::of(2));
    assert_eq!(cluster.stop(0).code(), Some(0));
    assert_eq!(cluster.stop(1).code(), Some(0));
    let mut command = kvnode();
    command.arg("0").arg(cluster.conf()).arg("--data-dir").arg(cluster.data_dir(1));
    Finished::of(&mut command, b"").assert_refused(6, "belongs to node n1");
}

#[test]
fn a_data_directory_of_another_cluster_is_refused() {
    // One after the other: there is one cluster at a time. Same ports, so the same members.
    let foreign = TempDir::new("foreign");
    let first = {
        let mut cluster = Cluster::start(Layout::of(3));
        for node in 0..3 {
            assert_eq!(cluster.stop(node).code(), Some(0));
        }
        copy_dir(cluster.data_dir(0), &foreign.path().join("data"));
        cluster.address(0).to_owned()
    };
    let mut cluster = Cluster::start(Layout::of(3));
    println!("node 0 of {first} now at {}", cluster.address(0));
    cluster.kill9(0);
    let mut command = kvnode();
    command.arg("0").arg(cluster.conf()).arg("--data-dir").arg(foreign.path().join("data"));
    Finished::of(&mut command, b"").assert_refused(6, "cluster");
    assert_eq!(cluster.text(1).ask("SET unharmed 1"), "OK");
}

#[test]
fn a_wiped_disk_does_not_come_back_under_the_old_name() {
    let mut cluster = Cluster::start(Layout::of(3));
    assert_eq!(cluster.text(0).ask("SET name john"), "OK");
    cluster.kill9(2);
    fs::remove_dir_all(cluster.data_dir(2)).expect("its data directory");
    Finished::of(&mut cluster.command(2), b"").assert_refused(6, "disk");
    for node in 0..2 {
        assert_eq!(cluster.text(node).ask("GET name"), "john");
        assert_eq!(cluster.text(node).ask("SET unharmed 1"), "OK");
    }
}

#[test]
fn a_restored_backup_is_refused() {
    let mut cluster = Cluster::start(Layout::of(3));
    assert_eq!(cluster.stop(2).code(), Some(0));
    let backup = TempDir::new("backup");
    copy_dir(cluster.data_dir(2), &backup.path().join("data"));
    cluster.start_nodes(&[2]);
    assert_eq!(cluster.text(2).ask("SET name john"), "OK");
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    cluster.kill9(2);
    fs::remove_dir_all(cluster.data_dir(2)).expect("its data directory");
    copy_dir(&backup.path().join("data"), cluster.data_dir(2));
    Finished::of(&mut cluster.command(2), b"").assert_refused(6, "disk");
    assert_eq!(cluster.text(0).ask("GET name"), "john");
}

#[test]
fn damaged_data_stops_the_start_with_file_and_offset() {
    let mut cluster = Cluster::start(Layout::of(3));
    let mut client = cluster.resp(0);
    for number in 0..200 {
        assert_eq!(client.ask(&["SET", &format!("k{number}"), "a value that is on the disk"]), Resp::ok());
    }
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    assert_eq!(cluster.stop(1).code(), Some(0));
    let log = fs::read_dir(cluster.data_dir(1))
        .expect("its data directory")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .min()
        .expect("a log segment");
    let mut bytes = fs::read(&log).expect("readable");
    let value = b"a value that is on the disk";
    let at = bytes.windows(value.len()).position(|window| window == value).expect("values are in the log");
    bytes[at] ^= 1;
    fs::write(&log, &bytes).expect("writable");
    let name = log.file_name().and_then(|name| name.to_str()).expect("a name of ours");
    let finished = Finished::of(&mut cluster.command(1), b"");
    finished.assert_refused(4, name);
    assert!(finished.stderr.contains("offset"), "{finished:?}");
    assert_eq!(fs::read(&log).expect("readable"), bytes, "damaged data is left as it is");
    assert_eq!(cluster.text(0).ask("GET k7"), "a value that is on the disk");
}

#[test]
fn a_second_signal_ends_a_node_at_once() {
    let mut cluster = Cluster::start(Layout::of(3));
    assert_eq!(cluster.text(0).ask("SET name john"), "OK");
    // Without a majority a hand-over cannot finish, so the first signal takes its time.
    cluster.kill9(1);
    cluster.kill9(2);
    let node = cluster.running_mut(0);
    node.signal(rustix::process::Signal::INT);
    node.signal(rustix::process::Signal::INT);
    node.wait_exit(PATIENCE);
}

#[test]
fn the_prompt_program_tells_by_its_exit_code_how_it_went() {
    let ports = PortBlock::take().expect("free ports");
    let dir = TempDir::new("client-codes");
    let (conf, data) = single(&dir, &ports);
    let run_with = |flags: &[&str], arguments: &[&str], input: &str| {
        let mut command = kvclient();
        command.current_dir(dir.path()).args(flags).arg(&conf).args(arguments);
        Finished::of(&mut command, input.as_bytes())
    };
    let run = |arguments: &[&str], input: &str| run_with(&[], arguments, input);
    run_with(&["--timeout", "1s"], &["GET", "name"], "").assert_refused(3, "");
    let mut node =
        Running::start(kvnode().arg("0").arg(&conf).arg("--data-dir").arg(&data), &dir.path().join("log"));
    node.wait_ready();
    assert_eq!(run(&["GET", "nothing"], "").code, Some(0), "a missing key is success");
    let error = run(&["INCR"], "");
    assert_eq!((error.code, error.stdout.lines().count()), (Some(1), 1), "{error:?}");
    assert!(error.stdout.starts_with("ERR wrong number of arguments"), "{error:?}");
    let mixed = run(&[], "SET a 1\nNOSUCH\nGET a\n");
    assert_eq!(mixed.code, Some(1), "{mixed:?}");
    let lines: Vec<&str> = mixed.stdout.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "OK", "1"), "{mixed:?}");
    run_with(&["--format", "xml"], &["GET", "a"], "").assert_refused(2, "xml");
    let missing = Finished::of(kvclient().arg(dir.path().join("missing.conf")).arg("GET").arg("a"), b"");
    missing.assert_refused(2, "missing.conf");
    let redis = run_with(&["--format", "redis"], &["INCR", "n"], "");
    assert_eq!(redis.stdout, "(integer) 1\n", "{redis:?}");
    let json = run_with(&["--format", "json"], &["MGET", "a", "nothing"], "");
    assert_eq!(json.stdout, "[\"1\",null]\n", "{json:?}");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("writable");
    }
}
