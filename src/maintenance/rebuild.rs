//! A node whose disk is lost, damaged or out of date starts with an empty one.
//!
//! The new disk has an identity of its own. The other nodes take it in as a learner, and one view change later it
//! votes in the place of the old one (`docs/protocol.md`, section 8). No vote of the old disk is lost by that: a view
//! change needs a majority of the *old* voters, and this node is none of them any more. So it is enough to see that
//! such a majority is there, before the old directory is moved out of the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::config::{Config, Member};
use crate::storage::LockState;
use crate::types::NodeId;
use crate::wire::client::{Consistency, WireReply};

use super::MaintenanceError;

/// How long each node has to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long nodes that answer, but do not serve, have to begin to: a view change or a catch-up passes.
const SERVING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after an answer they are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Makes sure that the other nodes have everything, and moves what is in `data_dir` out of the way, to a directory with
/// `.lost-` and a number behind its name. Nothing is deleted.
///
/// # Errors
/// The node is running somewhere, the other nodes do not have a majority, or the directory cannot be moved. Nothing
/// has changed then.
pub fn prepare_rebuild(config: &Config, me: NodeId, data_dir: &Path) -> Result<(), MaintenanceError> {
    let io = |what: &str| {
        let what = format!("{what} {}", data_dir.display());
        move |source| MaintenanceError::Io { what, source }
    };
    let refuse_in_use = || match LockState::of(data_dir).map_err(io("cannot look at"))? {
        LockState::Held { .. } => Err(MaintenanceError::InUse(data_dir.to_path_buf())),
        LockState::Absent | LockState::Free => Ok(()),
    };
    refuse_in_use()?;
    let serving = await_majority(config, me)?;
    // Somebody may have started one meanwhile.
    refuse_in_use()?;
    let is_there = data_dir.exists() && fs::read_dir(data_dir).map_err(io("cannot read"))?.next().is_some();
    if is_there {
        let aside = free_name(data_dir);
        let what = format!("cannot move {} to {}", data_dir.display(), aside.display());
        fs::rename(data_dir, &aside).map_err(|source| MaintenanceError::Io { what, source })?;
        log::warn!("moved what was in {} to {}", data_dir.display(), aside.display());
    }
    log::info!("rebuilding from the other nodes, of which {serving} serve");
    Ok(())
}

/// Waits until so many of the other nodes serve that everything is there without `me`, and returns how many. For nodes
/// that do not answer it does not wait.
fn await_majority(config: &Config, me: NodeId) -> Result<usize, MaintenanceError> {
    let needed = config.members().len() / 2 + 1;
    let deadline = Instant::now() + SERVING_TIMEOUT;
    let mut is_told = false;
    loop {
        let (mut serving, mut waiting, mut others) = (0, 0, Vec::new());
        for member in config.members().iter().filter(|member| member.id != me) {
            match ask(member) {
                Ok(lanes) if lanes.hears(me) => {
                    return Err(MaintenanceError::Running { says: format!("node {}", member.id.get()) });
                }
                Ok(lanes) if lanes.is_serving() => serving += 1,
                Ok(_) => {
                    waiting += 1;
                    others.push(format!("node {} does not serve", member.id.get()));
                }
                Err(error) => others.push(format!("node {}: {error}", member.id.get())),
            }
        }
        if serving >= needed {
            return Ok(serving);
        }
        if serving + waiting < needed || Instant::now() >= deadline {
            if others.is_empty() {
                others.push("there are no more".to_owned());
            }
            return Err(MaintenanceError::NoMajority { serving, needed, others });
        }
        if !is_told {
            log::info!("waiting for up to {} s: {}", SERVING_TIMEOUT.as_secs(), others.join(", "));
            is_told = true;
        }
        thread::sleep(ASK_AGAIN);
    }
}

fn free_name(path: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".lost-{number}"));
        PathBuf::from(name)
    };
    (1..).map(name).find(|path| !path.exists()).expect("some number is free")
}

/// What INFO says about a node's lanes.
struct Lanes(String);

impl Lanes {
    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    fn is_serving(&self) -> bool {
        self.field("serving") == Some("1")
    }

    fn hears(&self, node: NodeId) -> bool {
        let hears = self.field("hears").unwrap_or_default();
        hears.split(',').any(|number| number.parse() == Ok(node.get()))
    }
}

fn ask(member: &Member) -> Result<Lanes, String> {
    let mut connection = Connection::open(&member.address, TIMEOUT).map_err(|error| error.to_string())?;
    let arguments = [b"INFO".to_vec(), b"lanes".to_vec()];
    let deadline = Instant::now() + TIMEOUT;
    match connection.call(Consistency::Local, None, &arguments, TIMEOUT, deadline) {
        Ok(WireReply::Bulk(text)) => Ok(Lanes(String::from_utf8_lossy(&text).into_owned())),
        Ok(reply) => Err(format!("unexpected answer {reply:?}")),
        Err(error) => Err(error.to_string()),
    }
}
