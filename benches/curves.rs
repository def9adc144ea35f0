//! How the throughput of real clusters changes with what grows: connections, length of values, keys, nodes.
//!
//! Real `kvnode` processes on loopback, driven by the engine of `kvbench`, a second for each point. A line for each in
//! plain words; what they should look like is in docs/performance.md. The data is in the system's directory for
//! temporary files. Words of the command line choose: `cargo bench --bench curves -- connections`.

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::Directory;
use lanekv::bench::{DialectName, Distribution, Mix, Options, Workload, raise_file_limit, run, targets};

const LENGTH: Duration = Duration::from_secs(1);
const WARMUP: Duration = Duration::from_millis(300);

struct Cluster {
    directory: Directory,
    children: Vec<Child>,
}

impl Cluster {
    fn start(count: usize) -> Cluster {
        let directory = Directory::new(&format!("curves-{count}"));
        let listeners: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port")).collect();
        let mut conf = "set max-clients 60000\n".to_owned();
        for (id, listener) in listeners.iter().enumerate() {
            conf += &format!("{id} {}\n", listener.local_addr().expect("bound"));
        }
        std::fs::write(directory.path().join("nodes.conf"), conf).expect("room for a file");
        drop(listeners);
        let mut cluster = Cluster { directory, children: Vec::new() };
        for id in 0..count {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kvnode"));
            command.args([&id.to_string(), "nodes.conf", "--log", "error"]);
            command.current_dir(cluster.directory.path()).stdout(Stdio::piped());
            cluster.children.push(command.spawn().expect("kvnode starts"));
        }
        for child in &mut cluster.children {
            let mut line = String::new();
            let out = child.stdout.take().expect("piped");
            BufReader::new(out).read_line(&mut line).expect("it says something");
            assert!(line.starts_with("ready "), "{line:?}");
        }
        cluster
    }

    fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// A load of SETs, as far as not said otherwise.
struct Load {
    mix: &'static str,
    connections: usize,
    value_len: usize,
    keys: u64,
    fill: bool,
}

const USUAL: Load = Load { mix: "set", connections: 64, value_len: 64, keys: 100_000, fill: false };

fn measure(cluster: &Cluster, what: &str, load: &Load) {
    let conf = cluster.directory.path().join("nodes.conf").display().to_string();
    let options = Options {
        targets: targets(&[conf], &[]).expect("a good configuration"),
        dialect: DialectName::Resp,
        connections: load.connections,
        pipeline: 1,
        rate: None,
        length: LENGTH,
        warmup: WARMUP,
        workload: Workload {
            mix: Mix::parse(load.mix).expect("a mix"),
            key_count: load.keys,
            distribution: Distribution::Uniform,
            value_len: load.value_len,
            mset_len: 1,
            seed: 1,
        },
        consistency: None,
        wait: None,
        fill: load.fill,
        tolerate: false,
        pids: cluster.pids(),
        timeline: None,
    };
    match run(&options, &AtomicBool::new(false), &mut |_| {}) {
        Ok(outcome) => {
            let all = &outcome.results[0];
            let each =
                outcome.cpu.servers.unwrap_or_default().as_secs_f64() * 1e6 / all.operations.max(1) as f64;
            println!(
                "{what}: {:.0} a second, p50 {:.0} µs, p99 {:.0} µs, {each:.1} µs of the servers' CPU each, {} errors",
                all.per_second, all.latencies.p50, all.latencies.p99, all.errors
            );
        }
        Err(error) => println!("{what}: {error}"),
    }
}

fn main() {
    if common::is_mere_try() {
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let files = raise_file_limit();
    let three = Cluster::start(3);
    if wanted("connections") {
        for (mix, name) in [("set", "SET"), ("get", "GET")] {
            for connections in [1, 10, 100, 1_000, 10_000] {
                let what = format!("{name}, {connections} connections");
                if files < connections as u64 + 100 {
                    println!("{what}: not measured, only {files} files may be open");
                    continue;
                }
                measure(&three, &what, &Load { mix, connections, ..USUAL });
            }
        }
    }
    if wanted("values") {
        for (value_len, size) in
            [(16, "16 B"), (256, "256 B"), (4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")]
        {
            measure(&three, &format!("SET, values of {size}"), &Load { value_len, keys: 100, ..USUAL });
        }
    }
    if wanted("keys") {
        for keys in [1_000, 10_000, 100_000, 1_000_000] {
            measure(&three, &format!("SET, among {keys} keys"), &Load { keys, fill: true, ..USUAL });
        }
    }
    drop(three);
    if wanted("nodes") {
        for count in [1, 3, 5, 7] {
            let cluster = Cluster::start(count);
            let what = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
            measure(&cluster, &format!("SET, {what}"), &USUAL);
            measure(&cluster, &format!("GET, {what}"), &Load { mix: "get", ..USUAL });
        }
    }
}
