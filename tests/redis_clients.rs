//! Real Redis clients against a cluster of three nodes: `redis-cli`, `redis-benchmark`, and scripted sessions of
//! libraries. What is not installed is skipped, and says so.
//!
//! A script tells on its standard output when a node is to be killed or started, and reads on its standard input that
//! it was.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Cluster, Finished, Layout};

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn port(cluster: &Cluster, node: usize) -> String {
    cluster.address(node).rsplit_once(':').expect("host and port").1.to_owned()
}

fn cluster() -> Cluster {
    Cluster::start(Layout::of(3).set("cluster-view", "yes"))
}

fn redis_cli(cluster: &Cluster, node: usize, arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("redis-cli");
    let finished = Finished::of(command.args(["-p", &port(cluster, node)]).args(arguments), input);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

#[test]
fn redis_cli_works() {
    if !is_installed("redis-cli") {
        println!("skipped: redis-cli is not installed");
        return;
    }
    let cluster = cluster();
    let cli = |arguments: &[&str]| redis_cli(&cluster, 0, arguments, b"");
    assert_eq!(cli(&["SET", "a", "1", "EX", "100"]), "OK\n");
    assert_eq!(redis_cli(&cluster, 1, &["GET", "a"], b""), "1\n");
    assert_eq!(cli(&["-3", "CONFIG", "GET", "databases"]), "databases 1\n");
    assert_eq!(cli(&["--json", "MGET", "a", "none"]), "[\"1\",null]\n");
    assert_eq!(redis_cli(&cluster, 2, &[], b"MULTI\nINCR a\nINCR a\nEXEC\n"), "OK\nQUEUED\nQUEUED\n2\n3\n");
    assert_eq!(cli(&["-c", "GET", "a"]), "3\n");
    let pipe: String =
        (0..5000).map(|i| format!("*3\r\n$3\r\nSET\r\n$8\r\npipe{i:04}\r\n$1\r\nx\r\n")).collect();
    let said = redis_cli(&cluster, 0, &["--pipe"], pipe.as_bytes());
    assert!(said.contains("errors: 0, replies: 5000"), "{said}");
    let scanned = cli(&["--scan", "--pattern", "pipe*"]);
    assert_eq!(scanned.lines().count(), 5000);
    let said = cli(&["--bigkeys"]);
    assert!(said.contains("5001 strings with"), "{said}");
    let said = cli(&["--memkeys"]);
    assert!(said.contains("5001 strings with"), "{said}");
    let said = cli(&["INFO", "keyspace"]);
    assert!(said.contains("db0:keys=5001,expires=1"), "{said}");
    let said = cli(&["--cluster", "check", cluster.address(0)]);
    assert!(said.contains("All 16384 slots covered"), "{said}");
    assert!(cli(&["COMMAND", "DOCS", "SET"]).contains("summary"));
}

#[test]
fn redis_benchmark_works() {
    if !is_installed("redis-benchmark") {
        println!("skipped: redis-benchmark is not installed");
        return;
    }
    let cluster = cluster();
    for options in [&["-P", "16"][..], &["--threads", "2"], &["-3"], &["--cluster"]] {
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-p",
            &port(&cluster, 0),
            "-n",
            "3000",
            "-q",
            "-t",
            "ping_inline,ping_mbulk,set,get,incr,mset",
        ]);
        let finished = Finished::within(command.args(options), b"", Duration::from_secs(60));
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let said = finished.stdout.replace('\r', "\n");
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"] {
            assert!(said.lines().any(|line| line.starts_with(test) && line.contains("per second")), "{said}");
        }
        assert!(!said.contains("rror"), "{said}");
    }
}

/// Runs a script that tells when nodes are to be killed and started.
fn run_script(command: &mut Command, cluster: &mut Cluster) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is installed");
    let mut stdin = child.stdin.take().expect("piped");
    let stdout = child.stdout.take().expect("piped");
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        println!("{line}");
        let node = |text: &str| text.parse().expect("a node");
        if let Some(text) = line.strip_prefix("KILL ") {
            cluster.kill9(node(text));
            writeln!(stdin, "killed").expect("the script reads");
        } else if let Some(text) = line.strip_prefix("START ") {
            cluster.start_nodes(&[node(text)]);
            writeln!(stdin, "started").expect("the script reads");
        }
    }
    assert!(child.wait().expect("a child of ours").success(), "{command:?}");
}

fn ports(cluster: &Cluster) -> Vec<String> {
    (0..3).map(|node| port(cluster, node)).collect()
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// `LANEKV_REDIS_PY` may name a directory with redis-py in it.
#[test]
fn redis_py_works() {
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        if let Some(path) = std::env::var_os("LANEKV_REDIS_PY") {
            command.env("PYTHONPATH", path);
        }
        command.args(arguments);
        command
    };
    let found = python(&["-c", "import redis"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("skipped: redis-py is not installed");
        return;
    }
    let mut cluster = cluster();
    run_script(python(&[]).arg(script("redis_clients.py")).args(ports(&cluster)), &mut cluster);
}

/// `LANEKV_REDIS_NODE` names a directory with `node_modules` that have ioredis and node-redis.
#[test]
fn ioredis_and_node_redis_work() {
    let found = std::env::var_os("LANEKV_REDIS_NODE")
        .is_some_and(|dir| Path::new(&dir).join("node_modules/ioredis").is_dir() && is_installed("node"));
    if !found {
        println!("skipped: ioredis and node-redis are not installed");
        return;
    }
    let mut cluster = cluster();
    let mut command = Command::new("node");
    run_script(command.arg(script("redis_clients.mjs")).args(ports(&cluster)), &mut cluster);
}
