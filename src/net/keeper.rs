//! The thread of the keeper of snapshots.
//!
//! A snapshot being made has time: after each of its steps the thread sleeps as long as the step took, so that the log
//! and the loop get the larger share of disk and processor. For peers and for a snapshot to be installed it does not
//! wait.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::Waker;

use crate::node::{Done, Keeper, Task};
use crate::storage::Disk;

/// Longest sleep after a step; a sync may have taken long.
const REST_MAX: Duration = Duration::from_millis(20);

/// The event loop's side of the thread. Dropped, it waits for the step under way and leaves the rest undone.
pub(super) struct KeeperThread {
    tasks: Option<Sender<Task>>,
    done: Receiver<io::Result<Done>>,
    thread: Option<JoinHandle<()>>,
}

impl KeeperThread {
    /// Starts the thread. `waker` wakes the loop whenever something is done.
    pub(super) fn spawn<D: Disk>(keeper: Keeper<D>, waker: Arc<Waker>) -> io::Result<KeeperThread>
    where
        D::File: 'static,
    {
        let (tasks, inbox) = channel();
        let (outbox, done) = channel();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| run(keeper, &inbox, &outbox, &waker)));
            let error = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => io::Error::other("the keeper of snapshots panicked"),
            };
            // If this fails the loop is gone, and with it whoever could be told.
            let _ = outbox.send(Err(error));
            let _ = waker.wake();
        };
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(run)?;
        Ok(KeeperThread { tasks: Some(tasks), done, thread: Some(thread) })
    }

    /// Hands over a task.
    pub(super) fn submit(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // A thread that has ended has said why.
            let _ = tasks.send(task);
        }
    }

    /// What has been done since the last call; an error is the last thing that comes.
    pub(super) fn done(&self) -> impl Iterator<Item = io::Result<Done>> + use<> {
        self.done.try_iter().collect::<Vec<_>>().into_iter()
    }
}

impl Drop for KeeperThread {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // It never panics: that is caught inside.
            let _ = thread.join();
        }
    }
}

fn run<D: Disk>(
    mut keeper: Keeper<D>,
    inbox: &Receiver<Task>,
    outbox: &Sender<io::Result<Done>>,
    waker: &Waker,
) -> io::Result<()> {
    let mut rest = Duration::ZERO;
    loop {
        if keeper.has_work() {
            match inbox.try_recv() {
                Ok(task) => keeper.submit(task),
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) if keeper.may_wait() && !rest.is_zero() => {
                    match inbox.recv_timeout(std::mem::take(&mut rest)) {
                        Ok(task) => keeper.submit(task),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    }
                }
                Err(TryRecvError::Empty) => {}
            }
        } else {
            match inbox.recv() {
                Ok(task) => keeper.submit(task),
                Err(_) => return Ok(()),
            }
        }
        let begun = Instant::now();
        if let Some(done) = keeper.step()? {
            if outbox.send(Ok(done)).is_err() {
                return Ok(());
            }
            waker.wake()?;
        }
        rest = begun.elapsed().min(REST_MAX);
    }
}
