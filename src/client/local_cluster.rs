//! A cluster of three nodes inside the process: the one-command way to try the system.
//!
//! Its configuration and data live in one directory, so that the next start finds them:
//!
//! ```text
//! kvdata/local/nodes.conf     written at the first start, with free loopback ports; other clients may use it
//! kvdata/local/node-0 …       what kvnode would keep there
//! kvdata/local/kvclient.lock  held while the cluster runs; has the holder's pid in it
//! ```
//!
//! The nodes are the real ones, reached through the real ports. When a port is taken by another program at
//! a later start, its node moves to a free one and the file says so: who a node is rests on its data
//! directory, not on its address.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{Address, Config, ConfigError, Member};
use crate::net::{self, NodeHandle, NodeOptions, StartError};
use crate::types::NodeId;

/// How many nodes a new cluster has.
const NODE_COUNT: u8 = 3;
/// New clusters look for free ports from here on, so that the ports in the documentation mostly fit.
const FIRST_PORT: u16 = 7100;
/// How many ports are tried before the system is asked for any.
const PORTS_TRIED: u16 = 100;

/// How often a cluster is started anew because somebody was faster to take a port.
const STARTS_MAX: u32 = 5;

/// A running cluster; stops when dropped.
#[derive(Debug)]
pub struct LocalCluster {
    config: Config,
    file: PathBuf,
    moved: Vec<String>,
    nodes: Vec<(NodeId, NodeHandle)>,
    /// Released last, after all nodes have stopped.
    _lock: File,
}

/// Why there is no cluster.
#[derive(Debug)]
pub enum LocalClusterError {
    /// A file or directory of the cluster cannot be used.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process runs the cluster in this directory.
    Held {
        /// Its configuration.
        file: PathBuf,
        /// The holder's pid; empty if it has not written it yet.
        pid: String,
    },
    /// The configuration was changed and is wrong now.
    Config(Vec<ConfigError>),
    /// The configuration names an address of another machine.
    NotLocal {
        /// The configuration.
        file: PathBuf,
        /// The address.
        address: Address,
    },
    /// No free port.
    Port(io::Error),
    /// A node does not start.
    Node {
        /// Its id.
        id: NodeId,
        /// Why.
        error: StartError,
    },
}

impl fmt::Display for LocalClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalClusterError::File { path, error } => write!(f, "{}: {error}", path.display()),
            LocalClusterError::Held { file, pid } => write!(
                f,
                "process {pid} already runs the cluster in this directory; \
                 \"kvclient {}\" connects to it",
                file.display()
            ),
            LocalClusterError::Config(errors) => {
                for (i, error) in errors.iter().enumerate() {
                    write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            LocalClusterError::NotLocal { file, address } => write!(
                f,
                "{}: found address {address}, expected only loopback addresses \
                 for a cluster inside one process",
                file.display()
            ),
            LocalClusterError::Port(error) => write!(f, "no free port: {error}"),
            LocalClusterError::Node { id, error } => write!(f, "node {}: {error}", id.get()),
        }
    }
}

impl std::error::Error for LocalClusterError {}

impl LocalClusterError {
    /// Whether the configuration is at fault, which its author can mend.
    pub fn is_configuration(&self) -> bool {
        matches!(self, LocalClusterError::Config(_) | LocalClusterError::NotLocal { .. })
    }
}

/// Starts the cluster that lives in `dir`, founding it if it is not there.
///
/// # Errors
/// See [`LocalClusterError`]; nodes already started are stopped again.
pub fn start(dir: &Path) -> Result<LocalCluster, LocalClusterError> {
    fs::create_dir_all(dir).map_err(|error| LocalClusterError::File { path: dir.to_owned(), error })?;
    let file = dir.join("nodes.conf");
    let lock = lock(dir, &file)?;
    let mut all_moved = Vec::new();
    let mut starts = 1;
    loop {
        let (config, moved) = match fs::read(&file) {
            Ok(bytes) => reuse(&file, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (found(&file)?, Vec::new()),
            Err(error) => return Err(LocalClusterError::File { path: file, error }),
        };
        all_moved.extend(moved);
        match start_nodes(dir, &config) {
            Ok(nodes) => return Ok(LocalCluster { config, file, moved: all_moved, nodes, _lock: lock }),
            // Between choosing the port and listening on it, another program took it.
            Err(LocalClusterError::Node { error: StartError::Bind { .. }, .. }) if starts < STARTS_MAX => {
                starts += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn start_nodes(dir: &Path, config: &Config) -> Result<Vec<(NodeId, NodeHandle)>, LocalClusterError> {
    let mut nodes = Vec::new();
    for member in config.members() {
        let id = member.id;
        let data_dir = dir.join(format!("node-{}", id.get()));
        let node = net::spawn(NodeOptions { id, config: config.clone(), data_dir, rebuild: false });
        nodes.push((id, node.map_err(|error| LocalClusterError::Node { id, error })?));
    }
    Ok(nodes)
}

impl LocalCluster {
    /// The configuration, as in the file.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration file, for other clients.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// One sentence for each node that had to take another port.
    pub fn moved(&self) -> &[String] {
        &self.moved
    }

    /// Waits until all nodes serve, and returns those that do not after so long.
    pub fn wait_ready(&self, timeout: Duration) -> Vec<NodeId> {
        let deadline = Instant::now() + timeout;
        let serves = |node: &NodeHandle| node.wait_ready(deadline.saturating_duration_since(Instant::now()));
        self.nodes.iter().filter(|(_, node)| !serves(node)).map(|(id, _)| *id).collect()
    }

    /// Stops all nodes as `SIGTERM` would, and waits for them. Returns one sentence for each that had
    /// ended badly.
    pub fn stop(mut self) -> Vec<String> {
        self.stop_nodes()
    }

    fn stop_nodes(&mut self) -> Vec<String> {
        // All are told before one is waited for, so that it takes no longer than the slowest of them.
        self.nodes.iter().for_each(|(_, node)| node.begin_stop());
        let stopped = self.nodes.drain(..).map(|(id, node)| (id, node.stop()));
        stopped
            .filter_map(|(id, result)| Some(format!("node {} had stopped: {}", id.get(), result.err()?)))
            .collect()
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for text in self.stop_nodes() {
            log::error!("{text}");
        }
    }
}

/// Takes the directory for this process.
fn lock(dir: &Path, file: &Path) -> Result<File, LocalClusterError> {
    use rustix::fs::{FlockOperation, flock};

    let path = dir.join("kvclient.lock");
    let failed = |error| LocalClusterError::File { path: path.clone(), error };
    let mut lock =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            return Err(LocalClusterError::Held { file: file.to_owned(), pid });
        }
        Err(error) => return Err(failed(error.into())),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

/// Writes the configuration of a new cluster.
fn found(file: &Path) -> Result<Config, LocalClusterError> {
    // All are held until all are chosen, so that no two are the same.
    let mut held = Vec::new();
    for _ in 0..NODE_COUNT {
        held.push(free_port()?);
    }
    let mut text = "# Written by kvclient for the cluster that it runs inside itself.\n".to_owned();
    for (id, listener) in held.iter().enumerate() {
        let address = listener.local_addr().map_err(LocalClusterError::Port)?;
        text.push_str(&format!("{id} {address}\n"));
    }
    replace(file, &text)?;
    parse(file, text.as_bytes())
}

/// Reads the configuration of an earlier start, and gives other ports to nodes whose own are taken.
fn reuse(file: &Path, bytes: &[u8]) -> Result<(Config, Vec<String>), LocalClusterError> {
    let config = parse(file, bytes)?;
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let mut moved = Vec::new();
    let mut held = Vec::new();
    for member in config.members() {
        let old = &member.address;
        let not_local = || LocalClusterError::NotLocal { file: file.to_owned(), address: old.clone() };
        let mut resolved = (old.host(), old.port()).to_socket_addrs().map_err(|_| not_local())?;
        if !resolved.all(|address| address.ip().is_loopback()) {
            return Err(not_local());
        }
        match TcpListener::bind((old.host(), old.port())) {
            Ok(listener) => held.push(listener),
            Err(_) => {
                let listener = free_port()?;
                let new = listener.local_addr().map_err(LocalClusterError::Port)?;
                text = with_address(&text, member, &new.to_string());
                moved.push(format!("node {} moved to {new}: {old} is taken", member.id.get()));
                held.push(listener);
            }
        }
    }
    if moved.is_empty() {
        return Ok((config, moved));
    }
    let config = parse(file, text.as_bytes())?;
    replace(file, &text)?;
    Ok((config, moved))
}

/// The text with another address in the member's line; everything else stays as its author wrote it.
fn with_address(text: &str, member: &Member, address: &str) -> String {
    let id = member.id.get().to_string();
    let old = member.address.to_string();
    let line = |line: &str| {
        let content = line.split('#').next().unwrap_or("");
        if content.trim_start_matches('\u{feff}').split_ascii_whitespace().next() == Some(&id) {
            line.replacen(&old, address, 1)
        } else {
            line.to_owned()
        }
    };
    text.split_inclusive('\n').map(line).collect()
}

fn parse(file: &Path, bytes: &[u8]) -> Result<Config, LocalClusterError> {
    Config::parse_bytes(&file.display().to_string(), bytes).map_err(LocalClusterError::Config)
}

/// Writes a file so that a crash leaves the old or the new one, never a part.
fn replace(file: &Path, text: &str) -> Result<(), LocalClusterError> {
    let new = file.with_extension("conf.new");
    let write = || {
        let mut out = File::create(&new)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&new, file)?;
        file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|error| LocalClusterError::File { path: file.to_owned(), error })
}

/// A listener on a free loopback port.
fn free_port() -> Result<TcpListener, LocalClusterError> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let near = (FIRST_PORT..FIRST_PORT + PORTS_TRIED).find_map(|port| bind(port).ok());
    near.map_or_else(|| bind(0), Ok).map_err(LocalClusterError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TempDir(PathBuf);

    impl TempDir {
        fn new(name: &str) -> TempDir {
            let path = std::env::temp_dir().join(format!("local-cluster-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            TempDir(path)
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const READY: Duration = Duration::from_secs(20);

    #[test]
    fn a_cluster_is_founded_found_again_and_held_by_one_process() {
        let dir = TempDir::new("found");
        let cluster = start(&dir.0).expect("free ports");
        assert_eq!(cluster.config().members().len(), 3);
        assert_eq!(cluster.wait_ready(READY), []);
        let config = cluster.config().clone();
        let error = start(&dir.0).expect_err("held").to_string();
        assert!(error.contains(&format!("process {} already", std::process::id())), "{error}");
        assert_eq!(cluster.stop(), [""; 0]);
        let again = start(&dir.0).expect("the same ports");
        assert_eq!(again.wait_ready(READY), []);
        if again.moved().is_empty() {
            assert_eq!(again.config(), &config);
        }
    }

    #[test]
    fn a_node_whose_port_is_taken_moves_and_the_file_says_so() {
        let dir = TempDir::new("moved");
        let old = start(&dir.0).expect("free ports").config().clone();
        let file = dir.0.join("nodes.conf");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let taken = taken.local_addr().map(|address| (taken, address)).expect("bound");
        let text = fs::read_to_string(&file).expect("written");
        let text = text.replace(&old.members()[1].address.to_string(), &taken.1.to_string());
        fs::write(&file, format!("{text}# {}\nset heartbeat 20ms\n", taken.1)).expect("written");
        let cluster = start(&dir.0).expect("another port");
        assert!(
            cluster.moved().iter().any(|text| text.contains("node 1 moved to 127.0.0.1:")),
            "{:?}",
            cluster.moved()
        );
        assert_ne!(cluster.config().members()[1].address.port(), taken.1.port());
        let text = fs::read_to_string(&file).expect("written");
        assert!(
            text.ends_with(&format!("# {}\nset heartbeat 20ms\n", taken.1)),
            "the rest is as it was: {text}"
        );
        let parsed = Config::parse("nodes.conf", &text).expect("well formed");
        assert_eq!(&parsed, cluster.config());
        assert_eq!(cluster.wait_ready(READY), [], "the others find it at its new address");
    }

    #[test]
    fn a_node_that_does_not_start_takes_the_others_down() {
        let dir = TempDir::new("fails");
        fs::create_dir_all(&dir.0).expect("a directory");
        fs::write(dir.0.join("node-2"), "no directory").expect("written");
        let error = start(&dir.0).expect_err("node 2 has no place").to_string();
        assert!(error.starts_with("node 2: "), "{error}");
        fs::remove_file(dir.0.join("node-2")).expect("removed");
        let cluster = start(&dir.0).expect("the others let go of their directories");
        assert_eq!(cluster.wait_ready(READY), []);
    }

    #[test]
    fn a_file_that_was_changed_is_checked() {
        let dir = TempDir::new("changed");
        fs::create_dir_all(&dir.0).expect("a directory");
        let file = dir.0.join("nodes.conf");
        fs::write(&file, "0 192.0.2.1:7100\n").expect("written");
        let error = start(&dir.0).expect_err("elsewhere").to_string();
        assert!(error.contains("found address 192.0.2.1:7100, expected only loopback"), "{error}");
        fs::write(&file, "0 localhost\n").expect("written");
        let error = start(&dir.0).expect_err("no port").to_string();
        assert!(error.contains("nodes.conf:1: found \"localhost\""), "{error}");
    }
}
