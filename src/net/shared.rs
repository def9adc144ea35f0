//! What a running loop shares with whoever started it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::types::{NodeId, ViewNumber};

/// How far the node has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Starting,
    Ready,
    Ended,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The node is asked to stop.
    pub(super) stop: AtomicBool,
    pub(super) address: SocketAddr,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Whether the line is printed.
    announces: bool,
}

impl Shared {
    pub(super) fn new(address: SocketAddr, announces: bool) -> Shared {
        Shared {
            stop: AtomicBool::new(false),
            address,
            progress: Mutex::new(Progress::Starting),
            changed: Condvar::new(),
            announces,
        }
    }

    /// The node serves now.
    pub(super) fn set_ready(&self, me: NodeId, view: ViewNumber) {
        let line = format!("ready node={} view={} address={}", me.get(), view.0, self.address);
        log::info!("{line}");
        if self.announces {
            // Nobody may be listening, and that is no reason to stop.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
        self.set(Progress::Ready);
    }

    /// The loop has ended.
    pub(super) fn set_ended(&self) {
        self.set(Progress::Ended);
    }

    fn set(&self, progress: Progress) {
        *self.progress.lock().expect("nothing panics while it holds this lock") = progress;
        self.changed.notify_all();
    }

    /// Waits until the node serves; says whether it does.
    pub(super) fn wait_ready(&self, timeout: Duration) -> bool {
        let progress = self.progress.lock().expect("nothing panics while it holds this lock");
        let starting = |progress: &mut Progress| *progress == Progress::Starting;
        let (progress, _) = self
            .changed
            .wait_timeout_while(progress, timeout, starting)
            .expect("nothing panics while it holds this lock");
        *progress == Progress::Ready
    }
}
