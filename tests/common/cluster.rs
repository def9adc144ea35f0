//! A cluster of real processes on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{PATIENCE, PortBlock, Resp, RespClient, Running, TempDir, TextClient, kvnode, program, until};

/// What a cluster is made of.
#[derive(Clone, Default)]
pub(crate) struct Layout {
    nodes: usize,
    settings: Vec<String>,
    flags: Vec<String>,
    /// Per node, who it believes the others to be: the text of its own `/etc/hosts`.
    hosts: Vec<String>,
    open_files: Option<u32>,
    /// Whether every node has a listener for clients in cluster mode.
    cluster_listeners: bool,
}

impl Layout {
    /// So many nodes, everything as it comes.
    pub(crate) fn of(nodes: usize) -> Layout {
        Layout { nodes, ..Layout::default() }
    }

    /// Adds `set NAME VALUE` to the configuration file.
    #[must_use]
    pub(crate) fn set(mut self, name: &str, value: &str) -> Layout {
        self.settings.push(format!("set {name} {value}"));
        self
    }

    /// Gives every node a listener for clients in cluster mode.
    #[must_use]
    pub(crate) fn cluster_listeners(mut self) -> Layout {
        self.cluster_listeners = true;
        self
    }

    /// Adds a flag to every node's command line.
    #[must_use]
    pub(crate) fn flag(mut self, flag: &str) -> Layout {
        self.flags.push(flag.into());
        self
    }

    /// Gives every node so many file descriptors only.
    #[must_use]
    pub(crate) fn open_files(mut self, limit: u32) -> Layout {
        self.open_files = Some(limit);
        self
    }

    /// Nodes are called `node-<ID>.lanekv.test` in the configuration file, and each has its own file of host names
    /// (in a mount namespace of its own), so that it can be led to a proxy instead of a peer.
    #[must_use]
    pub(crate) fn hosts(mut self, hosts: Vec<String>) -> Layout {
        self.hosts = hosts;
        self
    }

    pub(crate) fn host_name(node: usize) -> String {
        format!("node-{node}.lanekv.test")
    }
}

struct Node {
    address: String,
    cluster_address: Option<String>,
    data: PathBuf,
    log: PathBuf,
    running: Option<Running>,
}

/// A running cluster. One at a time in each test program: timings are measured, and two cores are few.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    layout: Layout,
    conf: PathBuf,
    dir: TempDir,
    _ports: PortBlock,
    _turn: MutexGuard<'static, ()>,
}

/// Waits until no other test of this program has a cluster.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A failed test is no reason for the next to fail.
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Cluster {
    /// Founds a cluster and waits until every node serves.
    pub(crate) fn start(layout: Layout) -> Cluster {
        Self::start_on(layout, PortBlock::take().expect("free ports"))
    }

    /// The same on ports taken before, where the layout has to know them.
    pub(crate) fn start_on(layout: Layout, ports: PortBlock) -> Cluster {
        let mut cluster = Self::prepare(layout, ports);
        cluster.start_all();
        cluster
    }

    /// A cluster with its configuration file written and nothing started.
    pub(crate) fn prepare(layout: Layout, ports: PortBlock) -> Cluster {
        let turn = turn();
        let dir = TempDir::new("cluster");
        let mut text = String::from("# id  address\n");
        let mut nodes = Vec::new();
        for id in 0..layout.nodes {
            let address = format!("127.0.0.1:{}", ports.port(id));
            if layout.hosts.is_empty() {
                text.push_str(&format!("{id} {address}"));
            } else {
                text.push_str(&format!("{id} {}:{}", Layout::host_name(id), ports.port(id)));
                dir.write(&format!("hosts-{id}"), &layout.hosts[id]);
            }
            let cluster_address =
                layout.cluster_listeners.then(|| format!("127.0.0.1:{}", ports.port(layout.nodes + id)));
            if let Some(address) = &cluster_address {
                text.push_str(&format!(" cluster={address}"));
            }
            text.push('\n');
            let data = dir.path().join(format!("node-{id}"));
            let log = dir.path().join(format!("node-{id}.log"));
            nodes.push(Node { address, cluster_address, data, log, running: None });
        }
        for setting in &layout.settings {
            text.push_str(setting);
            text.push('\n');
        }
        let conf = dir.write("nodes.conf", &text);
        Cluster { nodes, layout, conf, dir, _ports: ports, _turn: turn }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The configuration file.
    pub(crate) fn conf(&self) -> &Path {
        &self.conf
    }

    pub(crate) fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Where a node listens.
    pub(crate) fn address(&self, node: usize) -> &str {
        &self.nodes[node].address
    }

    /// Where it listens for clients in cluster mode.
    pub(crate) fn cluster_address(&self, node: usize) -> &str {
        self.nodes[node].cluster_address.as_deref().expect("the layout has such listeners")
    }

    pub(crate) fn data_dir(&self, node: usize) -> &Path {
        &self.nodes[node].data
    }

    /// The file with all that a node has ever written on standard error.
    pub(crate) fn log_file(&self, node: usize) -> &Path {
        &self.nodes[node].log
    }

    /// What is in it.
    pub(crate) fn log_of(&self, node: usize) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file(node)).unwrap_or_default()).into_owned()
    }

    /// The command line that starts a node.
    pub(crate) fn command(&self, node: usize) -> Command {
        let mut command = if !self.layout.hosts.is_empty() {
            let mut command = in_mount_namespace(&self.dir.path().join(format!("hosts-{node}")));
            command.arg(program("kvnode"));
            command
        } else if let Some(limit) = self.layout.open_files {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""));
            command.arg(program("kvnode"));
            command
        } else {
            kvnode()
        };
        command.arg(node.to_string()).arg(&self.conf).arg("--data-dir").arg(&self.nodes[node].data);
        command.args(&self.layout.flags);
        command
    }

    /// Starts a node without waiting for it.
    pub(crate) fn launch(&mut self, node: usize) {
        self.launch_by(node, &mut self.command(node));
    }

    /// The same by another command line than [`Cluster::command`].
    pub(crate) fn launch_by(&mut self, node: usize, command: &mut Command) {
        self.nodes[node].running = Some(Running::start(command, &self.nodes[node].log));
    }

    /// Waits until a launched node serves.
    pub(crate) fn wait_ready(&mut self, node: usize) -> String {
        self.running_mut(node).wait_ready()
    }

    /// Starts the nodes that do not run and waits until they serve.
    pub(crate) fn start_all(&mut self) {
        let idle: Vec<usize> = (0..self.len()).filter(|node| self.nodes[*node].running.is_none()).collect();
        self.start_nodes(&idle);
    }

    /// Starts these nodes together and waits until they serve.
    pub(crate) fn start_nodes(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.launch(*node);
        }
        for node in nodes {
            let line = self.wait_ready(*node);
            assert!(line.starts_with(&format!("ready node={node} view=")), "{line:?}");
        }
    }

    /// Whether a node was started and neither killed nor stopped since.
    pub(crate) fn is_started(&self, node: usize) -> bool {
        self.nodes[node].running.is_some()
    }

    pub(crate) fn running(&self, node: usize) -> &Running {
        self.nodes[node].running.as_ref().expect("the node was started")
    }

    pub(crate) fn running_mut(&mut self, node: usize) -> &mut Running {
        self.nodes[node].running.as_mut().expect("the node was started")
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self, node: usize) {
        self.nodes[node].running.take().expect("the node was started").kill();
    }

    /// To be called when a node has ended by itself.
    pub(crate) fn forget(&mut self, node: usize) {
        self.nodes[node].running = None;
    }

    /// SIGTERM, then waits for the end.
    pub(crate) fn stop(&mut self, node: usize) -> ExitStatus {
        let mut running = self.nodes[node].running.take().expect("the node was started");
        running.signal(Signal::TERM);
        running.wait_exit(PATIENCE)
    }

    /// Waits for the end of a node that has been told by a client to stop.
    pub(crate) fn wait_stopped(&mut self, node: usize) -> ExitStatus {
        self.nodes[node].running.take().expect("the node was started").wait_exit(PATIENCE)
    }

    /// SIGSTOP: the process is there and does nothing.
    pub(crate) fn pause(&self, node: usize) {
        self.running(node).signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, node: usize) {
        self.running(node).signal(Signal::CONT);
    }

    /// A connection as by `nc`.
    pub(crate) fn text(&self, node: usize) -> TextClient {
        TextClient::connect(self.address(node))
    }

    /// A connection as by a Redis client.
    pub(crate) fn resp(&self, node: usize) -> RespClient {
        RespClient::connect(self.address(node))
    }

    /// The fields of INFO.
    pub(crate) fn info(&self, node: usize) -> BTreeMap<String, String> {
        let text = self.resp(node).ask(&["INFO"]).text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// The number of the view a node is in.
    pub(crate) fn view(&self, node: usize) -> u64 {
        let info = self.info(node);
        let text = info.get("view").unwrap_or_else(|| panic!("INFO without view: {info:?}"));
        text.trim_start_matches('v').parse().unwrap_or_else(|_| panic!("no view number: {text:?}"))
    }

    /// The senders of the view, as a node sees them.
    pub(crate) fn senders(&self, node: usize) -> Vec<usize> {
        let info = self.info(node);
        let text = info.get("senders").unwrap_or_else(|| panic!("INFO without senders: {info:?}"));
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|id| id.parse().ok()).collect()
    }

    /// Index and digest of a node's state, taken at one instant.
    pub(crate) fn digest(&self, node: usize) -> (u64, String) {
        let reply = self.resp(node).ask(&["DEBUG", "DIGEST"]);
        let text = match &reply {
            Resp::Bulk(_) | Resp::Status(_) => reply.text(),
            other => panic!("DEBUG DIGEST answered {other:?}"),
        };
        let (index, digest) = text.split_once(' ').unwrap_or_else(|| panic!("no digest: {text:?}"));
        (index.parse().expect("an index"), digest.to_owned())
    }

    /// Waits until these nodes are at the same index, and asserts that they have the same state there.
    pub(crate) fn wait_equal(&self, nodes: &[usize], within: Duration) -> (u64, String) {
        let begin = Instant::now();
        loop {
            let digests: Vec<(u64, String)> = nodes.iter().map(|node| self.digest(*node)).collect();
            let first = &digests[0];
            if digests.iter().all(|(index, _)| *index == first.0) {
                assert!(digests.iter().all(|digest| digest == first), "states differ: {digests:?}");
                return first.clone();
            }
            assert!(begin.elapsed() < within, "not at one index within {within:?}: {digests:?}");
            // Progress of other processes: there is nothing to block on.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All nodes, by number.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    /// Waits until a node is among the senders of its view.
    pub(crate) fn wait_sender(&self, node: usize, within: Duration) {
        until(&format!("node {node} is a sender again"), within, || {
            self.senders(node).contains(&node).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (id, node) in self.nodes.iter().enumerate() {
                if let Some(running) = &node.running {
                    eprintln!("---- log of node {id} ({})\n{}", node.address, running.log_text());
                }
            }
        }
    }
}

/// A command line that runs its arguments with this file as `/etc/hosts`.
fn in_mount_namespace(hosts: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    command
}

/// Whether this machine lets us give a process its own `/etc/hosts`.
pub(crate) fn own_hosts_work(dir: &TempDir) -> bool {
    let hosts = dir.write("hosts-probe", "127.0.0.9 probe.lanekv.test\n");
    in_mount_namespace(&hosts)
        .args(["grep", "-q", "probe.lanekv.test", "/etc/hosts"])
        .output()
        .is_ok_and(|output| output.status.success())
}
