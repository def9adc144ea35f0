//! The event loop around a node: the only place with a clock, sockets and threads.
//!
//! [`run`] is what `kvnode` does; [`spawn`] runs a node on a thread of this process. Inside:
//!
//! | file | holds |
//! |---|---|
//! | `start` | directory, log and sockets, in the order that durability asks for |
//! | `event_loop` | the loop, its turns, its end |
//! | `clients` | accepting, and the sockets of clients |
//! | `peers` | connections that peers make, and sending |
//! | `links` | connections made to peers |
//! | `connection`, `listener` | one socket |
//! | `keeper` | the thread that reads and writes snapshots |
//! | `allocator` | what becomes of freed memory |
//! | `resolver`, `clock`, `shared` | names, time, the way to whoever started the loop |
//!
//! Left out on purpose: what bytes mean. Frames between nodes are split here because a connection ends with a
//! bad one; everything else is the node's.

mod allocator;
mod clients;
mod clock;
mod connection;
mod error;
mod event_loop;
mod keeper;
mod links;
mod listener;
mod peers;
mod resolver;
mod shared;
mod start;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;

use crate::config::Config;
use crate::types::{DiskId, NodeId};

pub use error::{RunError, StartError};

use event_loop::Ended;
use shared::Shared;
use start::{Control, start};

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Which member it is.
    pub id: NodeId,
    /// The members and the settings.
    pub config: Config,
    /// Where its log is kept.
    pub data_dir: PathBuf,
    /// A data directory that is made now is to take the place of a lost one.
    pub rebuild: bool,
}

/// Why [`run`] ended with an error.
#[derive(Debug)]
pub enum NodeError {
    /// The node did not start.
    Start(StartError),
    /// The node had to stop.
    Run(RunError),
}

impl NodeError {
    /// What `kvnode` exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            NodeError::Start(error) => error.exit_code(),
            NodeError::Run(error) => error.exit_code(),
        }
    }
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NodeError::Start(error) => error.fmt(f),
            NodeError::Run(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NodeError {}

/// A random name for a disk.
pub fn new_disk_id() -> DiskId {
    DiskId(clock::random())
}

/// Runs a node on this thread until SIGTERM or SIGINT. Prints a line on standard output when it serves.
///
/// # Errors
/// It did not start, or had to stop.
pub fn run(options: NodeOptions) -> Result<(), NodeError> {
    if !allocator::keep_freed_memory() {
        log::debug!("the allocator is not glibc's: what it does with freed memory is left to it");
    }
    let started = start(options, Control::Process).map_err(NodeError::Start)?;
    match started.event_loop.run().map_err(NodeError::Run)? {
        Ended::Cleanly => log::info!("stopped"),
        Ended::AtOnce => log::warn!("stopped without the mark of a clean stop"),
    }
    Ok(())
}

/// Starts a node on a thread of its own. When this returns, it listens.
///
/// # Errors
/// It did not start.
pub fn spawn(options: NodeOptions) -> Result<NodeHandle, StartError> {
    let name = format!("node-{}", options.id.get());
    let started = start(options, Control::Handle)?;
    let (event_loop, shared) = (started.event_loop, Arc::clone(&started.shared));
    let run = move || {
        let _ended = EndOfRun(shared);
        event_loop.run().map(drop)
    };
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(run)
        .map_err(|source| StartError::System { what: "cannot start the node's thread", source })?;
    Ok(NodeHandle { shared: started.shared, waker: started.waker, thread: Some(thread) })
}

/// Tells whoever waits that the loop has ended, however it did.
struct EndOfRun(Arc<Shared>);

impl Drop for EndOfRun {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}

/// A node on a thread of this process. Dropped, it is stopped.
#[derive(Debug)]
pub struct NodeHandle {
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl NodeHandle {
    /// Where it listens for clients.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Waits until it serves reads and writes; says whether it does.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        self.shared.wait_ready(timeout)
    }

    /// Asks it to stop, and returns at once; [`NodeHandle::stop`] waits.
    pub fn begin_stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // If the waker is gone, so is the loop.
        let _ = self.waker.wake();
    }

    /// Stops it: what is in flight is answered, what is answered is on the disk.
    ///
    /// # Errors
    /// It had ended before, or could not end well.
    pub fn stop(mut self) -> Result<(), RunError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), RunError> {
        self.begin_stop();
        match self.thread.take() {
            None => Ok(()),
            Some(thread) => thread.join().unwrap_or(Err(RunError::Panicked)),
        }
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            log::error!("{error}");
        }
    }
}
