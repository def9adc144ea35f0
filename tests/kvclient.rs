//! The built `kvclient` against fake nodes: output, formats, pipes, exit codes.

mod fake;
mod scratch;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fake::{Cluster, Fault};
use rustix::process::{Pid, Signal, kill_process};
use scratch::TempDir;

/// What a run said.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvclient"));
    command.args(arguments).current_dir(&dir.0).env("XDG_STATE_HOME", dir.0.join("state"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> Run {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs kvclient with this standard input.
fn run(dir: &TempDir, arguments: &[&str], input: &str) -> Run {
    let mut child = command(dir, arguments).spawn().expect("kvclient starts");
    // It may have ended before it read all.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    finish(child)
}

fn conf(cluster: &Cluster) -> String {
    cluster.addresses().iter().enumerate().map(|(id, address)| format!("{id} {address}\n")).collect()
}

/// Nodes, a directory with their configuration in `nodes.conf`.
fn cluster(count: usize) -> (Cluster, TempDir) {
    let cluster = Cluster::start(count);
    let dir = TempDir::new();
    dir.nodes_conf(&conf(&cluster));
    (cluster, dir)
}

#[test]
fn one_command_prints_one_reply() {
    let (_cluster, dir) = cluster(3);
    for (arguments, out, code) in [
        (vec!["GET", "name"], "Not Found\n", 0),
        (vec!["set", "name", "john smith"], "OK\n", 0),
        (vec!["GET", "name"], "john smith\n", 0),
        (vec!["INCR", "n"], "1\n", 0),
        (vec!["SET", "-k", "--format"], "OK\n", 0),
        (vec!["GET", "-k"], "--format\n", 0),
        (vec!["INCR", "name"], "ERR value is not an integer or out of range\n", 1),
        (vec!["KEYS", "*"], "1) -k\n2) n\n3) name\n", 0),
        (vec!["CONSISTENCY", "local"], "OK\n", 0),
        (vec!["GET"], "ERR wrong number of arguments for 'get' command\n", 1),
        (vec!["HELP", "get"], "GET key: answers the value of a key\n", 0),
        (vec!["exit"], "", 0),
    ] {
        let arguments: Vec<&str> = ["nodes.conf"].into_iter().chain(arguments).collect();
        let run = run(&dir, &arguments, "");
        assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (Some(code), out, ""), "{arguments:?}");
    }
}

#[test]
fn formats() {
    let (_cluster, dir) = cluster(1);
    let input = "SET b \"\\xff\\n\"\nSET a x\nGET b\nGET c\nINCR n\nINCR a\nKEYS *\n";
    let redis = run(&dir, &["--format", "redis", "nodes.conf"], input);
    assert_eq!(
        redis.out,
        "OK\nOK\n\"\\xff\\n\"\n(nil)\n(integer) 1\n(error) ERR value is not an integer or out of range\n\
         1) \"a\"\n2) \"b\"\n3) \"n\"\n"
    );
    let json = run(&dir, &["nodes.conf", "--format=json"], input);
    assert_eq!(
        json.out,
        "\"OK\"\n\"OK\"\n{\"base64\":\"/wo=\"}\nnull\n2\n{\"error\":\"ERR value is not an integer or out of range\"}\n\
         [\"a\",\"b\",\"n\"]\n"
    );
    assert_eq!((redis.code, json.code), (Some(1), Some(1)));
    assert_eq!((redis.err.as_str(), json.err.as_str()), ("", ""));
}

#[test]
fn a_pipe_has_one_reply_per_command_and_nothing_else() {
    let (cluster, dir) = cluster(2);
    let input = "\n  SET k 'a b'\r\nGET k\n\nGET \"k\nhelp get\nQUIT\nSET k never\n";
    let run = run(&dir, &["nodes.conf"], input);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[..3], ["OK", "a b", "ERR unbalanced quotes in request"]);
    assert!(lines[3].starts_with("GET key") && lines.len() == 4, "{run:?}");
    assert_eq!((run.code, run.err.as_str()), (Some(1), ""));
    assert_eq!(cluster.received("SET").len(), 1, "QUIT ends the input");
}

#[test]
fn replies_come_at_once_so_that_a_program_can_hold_a_dialogue() {
    let (_cluster, dir) = cluster(1);
    let mut child = command(&dir, &["nodes.conf"]).spawn().expect("kvclient starts");
    let mut input = child.stdin.take().expect("piped");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    for value in 1..4 {
        writeln!(input, "INCR n").expect("it reads");
        let mut line = String::new();
        output.read_line(&mut line).expect("it answers");
        assert_eq!(line, format!("{value}\n"));
    }
    drop(input);
    assert_eq!(finish(child).code, Some(0));
}

#[test]
fn an_unknown_outcome_is_answered_timeout() {
    let (cluster, dir) = cluster(1);
    cluster.fault(0, [Fault::Answer("LOADING one moment"), Fault::Drop]);
    let first = run(&dir, &["nodes.conf", "--timeout", "200ms", "LPUSH", "a", "1"], "");
    assert!(first.out.starts_with("TIMEOUT outcome unknown") && first.out.lines().count() == 1, "{first:?}");
    assert_eq!((first.code, first.err.as_str()), (Some(1), ""));
    cluster.fault(0, vec![Fault::Answer("NOQUORUM no majority"); 100]);
    let second = run(&dir, &["nodes.conf", "--timeout", "200ms", "SET", "a", "1"], "");
    assert_eq!((second.code, second.out.as_str()), (Some(1), "NOQUORUM no majority\n"));
}

#[test]
fn no_node_is_exit_code_3_and_stops_a_pipe() {
    let dir = TempDir::new();
    // No free-port search hands port 1 out, and no service uses it.
    dir.nodes_conf("0 127.0.0.1:1\n");
    let one = run(&dir, &["--timeout", "100ms", "nodes.conf", "GET", "a"], "");
    assert_eq!((one.code, one.out.as_str()), (Some(3), ""));
    assert!(one.err.starts_with("kvclient: no node answered: 127.0.0.1:1: "), "{one:?}");
    let pipe = run(&dir, &["--timeout", "100ms", "nodes.conf"], "HELP GET\nGET a\nGET b\n");
    assert_eq!(pipe.code, Some(3));
    assert!(pipe.out.starts_with("GET key") && pipe.err.contains("stopped at line 2"), "{pipe:?}");
}

#[test]
fn usage_and_configuration_errors_are_exit_code_2() {
    let dir = TempDir::new();
    dir.nodes_conf("0 localhost\nset hearbeat 5ms\n");
    let bad = run(&dir, &["nodes.conf", "GET", "a"], "");
    assert_eq!((bad.code, bad.out.as_str()), (Some(2), ""));
    assert!(
        bad.err.contains("nodes.conf:1: found \"localhost\"") && bad.err.contains("nodes.conf:2: "),
        "{bad:?}"
    );
    for arguments in [
        &["missing.conf", "GET", "a"][..],
        &["--nonsense"],
        &["--timeout", "soon", "nodes.conf"],
        &["--consistency", "eventual", "nodes.conf"],
        &["--format", "xml", "nodes.conf"],
    ] {
        let run = run(&dir, arguments, "");
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!run.err.is_empty());
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (_cluster, dir) = cluster(1);
    let mut child = command(&dir, &["nodes.conf"]).spawn().expect("kvclient starts");
    drop(child.stdout.take());
    // It may be gone before all is written.
    let _ = child.stdin.take().expect("piped").write_all("GET a\n".repeat(1_000).as_bytes());
    let run = finish(child);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
}

/// Types at the prompt at a real terminal, with python's pty module; false if there is none.
fn type_at_prompt(dir: &TempDir, arguments: &[&str]) -> bool {
    if !Command::new("python3").args(["-c", "import pty"]).output().is_ok_and(|o| o.status.success()) {
        return false;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/prompt.py");
    let mut python = Command::new("python3");
    python.args([script, env!("CARGO_BIN_EXE_kvclient")]).args(arguments).current_dir(&dir.0);
    python.env("XDG_STATE_HOME", dir.0.join("state")).env("TERM", "xterm");
    let output = python.output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn the_prompt_completes_remembers_and_leaves() {
    let (cluster, dir) = cluster(1);
    if type_at_prompt(&dir, &["nodes.conf"]) {
        assert_eq!(cluster.model().values[&b"name"[..]], b"john");
        let history = dir.0.join("state/lanekv/history");
        let text = fs::read_to_string(&history).expect("a history");
        assert!(text.contains("get name") && !text.contains("secret"), "{text}");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&history).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// Starts of `kvclient` without a file: they choose ports, so one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const NOTICE: &str = "kvclient: three nodes run in this process; data in kvdata/local/, \
     addresses in kvdata/local/nodes.conf\n";

#[test]
fn without_a_file_it_runs_a_cluster_of_its_own_and_finds_its_data_again() {
    let _alone = alone();
    let dir = TempDir::new();
    let first = run(&dir, &[], "SET a 1\nGET a\nGET b\n");
    assert_eq!((first.code, first.out.as_str(), first.err.as_str()), (Some(0), "OK\n1\nNot Found\n", NOTICE));
    let second = run(&dir, &[], "GET a\nINCR a\nEXIT\nINCR a\n");
    assert_eq!((second.code, second.out.as_str()), (Some(0), "1\n2\n"));
    assert!(second.err.ends_with(NOTICE), "{second:?}");
    let third = run(&dir, &["--format", "json"], "GET a\n");
    assert_eq!((third.code, third.out.as_str()), (Some(0), "\"2\"\n"));
    let log = fs::read_to_string(dir.0.join("kvdata/local/kvclient.log")).expect("the nodes log");
    assert_eq!(log.matches("starting node=").count(), 9);
    assert_eq!(log.matches("clean=true").count(), 6, "it stops its nodes properly: {log}");
}

#[test]
fn its_cluster_serves_others_until_a_signal_and_belongs_to_one_process() {
    let _alone = alone();
    let dir = TempDir::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = command(&dir, &[]).spawn().expect("kvclient starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        // Open until the end: what ends it is the signal.
        let mut input = child.stdin.take().expect("piped");
        writeln!(input, "SET a x").expect("it reads");
        let mut line = String::new();
        output.read_line(&mut line).expect("it answers");
        assert_eq!(line, "OK\n");
        let other = run(&dir, &["kvdata/local/nodes.conf", "GET", "a"], "");
        assert_eq!((other.code, other.out.as_str()), (Some(0), "x\n"), "{other:?}");
        let held = run(&dir, &[], "GET a\n");
        assert_eq!((held.code, held.out.as_str()), (Some(3), ""));
        assert!(held.err.contains(&format!("process {} already runs", child.id())), "{held:?}");
        kill_process(Pid::from_child(&child), signal).expect("it is there");
        let code = child.wait().expect("it ends").code();
        assert_eq!(code, Some(128 + signal.as_raw()));
    }
    assert_eq!(run(&dir, &[], "GET a\n").out, "x\n");
    let log = fs::read_to_string(dir.0.join("kvdata/local/kvclient.log")).expect("the nodes log");
    assert_eq!(log.matches("clean=true").count(), 6, "it stops its nodes properly: {log}");
}

#[test]
fn its_cluster_stops_however_the_user_leaves_the_prompt() {
    let _alone = alone();
    let dir = TempDir::new();
    if type_at_prompt(&dir, &[]) {
        let log = fs::read_to_string(dir.0.join("kvdata/local/kvclient.log")).expect("the nodes log");
        assert_eq!(log.matches("clean=true").count(), 6, "it stops its nodes properly: {log}");
    }
}
