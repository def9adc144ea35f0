//! Real Redis clients against a cluster of three nodes: `redis-cli`, by itself and at a terminal, `redis-benchmark`,
//! and scripted sessions of libraries. What is not installed is skipped, and says so.
//!
//! A script tells on its standard output when a node is to be killed or started, and reads on its standard input that
//! it was.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Cluster, Finished, Layout, PATIENCE, Resp, RespClient, until};

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn port_of(address: &str) -> String {
    address.rsplit_once(':').expect("host and port").1.to_owned()
}

fn port(cluster: &Cluster, node: usize) -> String {
    port_of(cluster.address(node))
}

/// Every node shows a cluster at its one address.
fn cluster() -> Cluster {
    Cluster::start(Layout::of(3).set("cluster-view", "yes"))
}

/// Every node has a listener besides, where it shows a cluster.
fn cluster_with_listeners() -> Cluster {
    Cluster::start(Layout::of(3).cluster_listeners())
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
    assert_eq!(cli(&["-3", "MGET", "a", "none"]), "3\n\n");
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
    let mut command = Command::new("redis-cli");
    let refused = Finished::of(command.args(["-p", &port(&cluster, 0), "--hotkeys"]), b"");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("ERR An LFU maxmemory policy is not selected"), "{said}");
    // What the pipe has of unknown commands is counted, and the rest goes on.
    let pipe = b"*3\r\n$5\r\nLPUSH\r\n$1\r\nl\r\n$1\r\nx\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
    let mut command = Command::new("redis-cli");
    let mixed = Finished::of(command.args(["-p", &port(&cluster, 1), "--pipe"]), pipe);
    assert_eq!(mixed.code, Some(1), "{mixed:?}");
    assert!(mixed.stdout.contains("errors: 1, replies: 2"), "{mixed:?}");
    let said = cli(&["INFO", "keyspace"]);
    assert!(said.contains("db0:keys=5001,expires=1"), "{said}");
    let said = cli(&["--cluster", "check", cluster.address(0)]);
    assert!(said.contains("All 16384 slots covered"), "{said}");
    assert!(cli(&["COMMAND", "DOCS", "SET"]).contains("summary"));
}

#[test]
fn redis_cli_works_at_a_terminal() {
    if !is_installed("redis-cli") || !is_installed("python3") {
        println!("skipped: redis-cli or python3 is not installed");
        return;
    }
    let mut cluster = cluster_with_listeners();
    let mut command = Command::new("python3");
    run_script(command.arg(script("redis_cli.py")).args(ports(&cluster)), &mut cluster);
}

/// Its tests of a server that has strings alone.
const STRING_TESTS: &str = "ping_inline,ping_mbulk,set,get,incr,mset";

fn redis_benchmark(port: &str, options: &[&str]) -> Finished {
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", port, "-n", "3000", "-q"]).args(options);
    let mut finished = Finished::within(&mut command, b"", Duration::from_secs(60));
    finished.stdout = finished.stdout.replace('\r', "\n");
    finished
}

fn assert_measured(finished: &Finished, tests: &str) {
    for test in tests.to_uppercase().split(',') {
        let is_result = |line: &str| line.starts_with(test) && line.contains("per second");
        assert!(finished.stdout.lines().any(is_result), "{test}: {finished:?}");
    }
}

#[test]
fn redis_benchmark_works() {
    if !is_installed("redis-benchmark") {
        println!("skipped: redis-benchmark is not installed");
        return;
    }
    let cluster = cluster_with_listeners();
    let main = port(&cluster, 0);
    for options in [&[][..], &["-P", "16"], &["--threads", "2"], &["-3"]] {
        let finished = redis_benchmark(&main, &[options, &["-t", STRING_TESTS]].concat());
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert_measured(&finished, STRING_TESTS);
        assert!(!finished.stdout.contains("rror"), "{finished:?}");
    }
    let finished = redis_benchmark(&port_of(cluster.cluster_address(0)), &["--cluster", "-t", STRING_TESTS]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_measured(&finished, STRING_TESTS);
    // Its default set comes to lists after five tests, and it stops at any error, as it does with an old Redis.
    let finished = redis_benchmark(&main, &[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_measured(&finished, "ping_inline,ping_mbulk,set,get,incr");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let stopped = "Error from server: ERR unknown command 'LPUSH', with args beginning with: 'mylist'";
    assert!(said.contains(stopped), "{finished:?}");
}

#[test]
fn the_listener_for_cluster_mode_is_for_clients_alone() {
    let cluster = cluster_with_listeners();
    let disabled = Resp::Error("ERR This instance has cluster support disabled".into());
    assert_eq!(cluster.resp(0).ask(&["CLUSTER", "SLOTS"]), disabled);
    let mut client = RespClient::connect(cluster.cluster_address(0));
    let Resp::Array(slots) = client.ask(&["CLUSTER", "SLOTS"]) else { panic!("no slots") };
    let told: Vec<Resp> = slots
        .iter()
        .map(|slot| match slot {
            Resp::Array(parts) => match &parts[2] {
                Resp::Array(node) => node[1].clone(),
                other => panic!("no node: {other:?}"),
            },
            other => panic!("no range: {other:?}"),
        })
        .collect();
    let expected: Vec<Resp> = (0..3)
        .map(|node| Resp::Integer(port_of(cluster.cluster_address(node)).parse().expect("a port")))
        .collect();
    assert_eq!(told, expected);
    // The two are doors to one store.
    assert_eq!(client.ask(&["SET", "k", "v"]), Resp::ok());
    assert_eq!(cluster.resp(1).ask(&["GET", "k"]), Resp::bulk("v"));
    // The beginning of what a peer says to another.
    let mut client = RespClient::connect(cluster.cluster_address(0));
    client.send_raw(&[0xB1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).expect("it listens");
    let mut said = Vec::new();
    client.socket().read_to_end(&mut said).expect("it is told what is wrong, and closed");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("ERR Protocol error"), "{said:?}");
}

#[test]
fn a_client_stops_a_node_and_the_others_go_on() {
    let mut cluster = Cluster::start(Layout::of(3));
    let mut other = cluster.resp(1);
    for (round, command) in
        [&["SHUTDOWN"][..], &["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]].into_iter().enumerate()
    {
        let mut client = cluster.resp(0);
        assert_eq!(client.ask(&["SHUTDOWN", "ABORT"]), Resp::Error("ERR No shutdown in progress.".into()));
        assert_eq!(client.ask(&["SHUTDOWN", "PLEASE"]), Resp::Error("ERR syntax error".into()));
        client.send(&["INCR", "n"]).expect("it runs");
        client.send(command).expect("it runs");
        client.send(&["INCR", "n"]).expect("it runs");
        let count = i64::try_from(round).expect("small") + 1;
        assert_eq!(client.reply().expect("what came before is answered"), Resp::Integer(count));
        assert!(client.reply().is_err(), "the end is told by the end of the connection");
        assert_eq!(cluster.wait_stopped(0).code(), Some(0));
        assert_eq!(
            other.ask(&["GET", "n"]),
            Resp::bulk(count.to_string()),
            "nothing after it was carried out"
        );
        cluster.start_all();
    }
    let log = cluster.log_of(0);
    assert!(log.contains("a client has asked that this node stop") && log.contains("clean=true"), "{log}");
    assert_eq!(cluster.text(0).ask("SHUTDOWN"), "OK");
    assert_eq!(cluster.wait_stopped(0).code(), Some(0));
}

#[test]
fn a_node_that_sleeps_is_left_out_and_comes_back() {
    let cluster = Cluster::start(Layout::of(3));
    let mut sleeper = cluster.resp(2);
    let begin = Instant::now();
    sleeper.send(&["DEBUG", "SLEEP", "2.5"]).expect("it runs");
    let mut other = cluster.resp(0);
    until("the others go on without it", PATIENCE, || {
        (other.ask(&["SET", "a", "1"]) == Resp::ok() && !cluster.senders(0).contains(&2)).then_some(())
    });
    assert!(begin.elapsed() < Duration::from_millis(2_500), "before it woke: {:?}", begin.elapsed());
    assert_eq!(sleeper.reply().expect("it wakes"), Resp::ok());
    assert!(begin.elapsed() >= Duration::from_millis(2_500));
    assert_eq!(sleeper.ask(&["GET", "a"]), Resp::bulk("1"));
    cluster.wait_sender(2, PATIENCE);
    cluster.wait_equal(&cluster.all(), PATIENCE);
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

/// The same, and then those for cluster mode.
fn all_ports(cluster: &Cluster) -> Vec<String> {
    let more = (0..3).map(|node| port_of(cluster.cluster_address(node)));
    ports(cluster).into_iter().chain(more).collect()
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
    let mut cluster = cluster_with_listeners();
    run_script(python(&[]).arg(script("redis_clients.py")).args(all_ports(&cluster)), &mut cluster);
}

/// The package in tests/clients/rust has the crate; lanekv itself does not depend on it.
#[test]
fn the_redis_crate_works() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/rust");
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).args(["--quiet", "--locked"]);
        command.current_dir(script("clients/rust")).env("CARGO_TARGET_DIR", &target);
        command
    };
    if !cargo(&["fetch"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: the redis crate cannot be fetched");
        return;
    }
    let built = cargo(&["build", "--offline"]).status().expect("cargo runs, for it has fetched");
    assert!(built.success(), "the session of the redis crate does not compile");
    let mut cluster = cluster_with_listeners();
    let mut command = Command::new(target.join("debug/lanekv-redis-session"));
    run_script(command.args(all_ports(&cluster)), &mut cluster);
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
