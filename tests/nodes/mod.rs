//! Real nodes as processes on loopback, to be killed and started again.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lanekv::config::Address;
use rustix::process::{Pid, Signal, kill_process};

use super::scratch::TempDir;

/// Longer than any start takes on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Nodes {
    dir: TempDir,
    addresses: Vec<Address>,
    children: Vec<Option<Child>>,
}

impl Nodes {
    /// A running cluster.
    pub(crate) fn start(count: usize) -> Nodes {
        let dir = TempDir::new();
        let held = free_ports(count);
        let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        let lines = held.iter().enumerate().map(|(id, listener)| format!("{id} {}\n", address(listener)));
        dir.nodes_conf(&lines.collect::<String>());
        let parsed = held.iter().map(|listener| Address::parse(&address(listener)).expect("well formed"));
        let addresses = parsed.collect();
        drop(held);
        let mut nodes = Nodes { dir, addresses, children: (0..count).map(|_| None).collect() };
        nodes.start_again(&(0..count).collect::<Vec<_>>());
        nodes
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.addresses.clone()
    }

    /// Starts nodes that do not run, and waits until they serve.
    pub(crate) fn start_again(&mut self, nodes: &[usize]) {
        let (ready, told) = mpsc::channel();
        for &node in nodes {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kvnode"));
            command.arg(node.to_string()).args(["nodes.conf", "--log", "error"]).current_dir(&self.dir.0);
            let mut child = command.stdout(Stdio::piped()).spawn().expect("kvnode starts");
            let output = child.stdout.take().expect("piped");
            self.children[node] = Some(child);
            let ready = ready.clone();
            thread::spawn(move || {
                let mut line = String::new();
                // The test has failed already if nobody listens.
                let _ = BufReader::new(output).read_line(&mut line).map(|_| ready.send(line));
            });
        }
        for _ in nodes {
            let line = told.recv_timeout(START_PATIENCE).expect("every node says something");
            assert!(line.starts_with("ready node="), "{line:?}");
        }
    }

    /// Ends a node as a crash would.
    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.children[node].take() {
            child.kill().and_then(|()| child.wait()).expect("it was there");
        }
    }

    /// Asks a node to stop, and waits until it has.
    pub(crate) fn stop(&mut self, node: usize) {
        let mut child = self.children[node].take().expect("it runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it is there");
        assert!(child.wait().expect("it ends").success());
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        (0..self.children.len()).for_each(|node| self.kill(node));
    }
}

/// Free ports below those that the system gives to outgoing connections, so that a node that was stopped finds
/// its own still free.
fn free_ports(count: usize) -> Vec<TcpListener> {
    let start = 10_000 + u16::try_from(std::process::id() % 1_000).expect("small") * 20;
    let free: Vec<TcpListener> =
        (start..32_000).filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    assert_eq!(free.len(), count, "not enough free ports");
    free
}
