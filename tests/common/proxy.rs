//! A TCP proxy between two peers that can be cut for good, or fall silent without breaking.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Bytes pass.
const OPEN: u8 = 0;
/// Connections break, new ones are closed at once.
const CUT: u8 = 1;
/// Connections stay up and new ones are taken, but nothing passes any more.
const SILENT: u8 = 2;

struct Shared {
    mode: AtomicU8,
    passed: AtomicU64,
    /// Both ends of every connection, to be shut down by a cut.
    streams: Mutex<Vec<TcpStream>>,
    changed: Condvar,
}

/// Passes connections on until told otherwise. Its threads end with the test program.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens at `from` and connects to `to`.
    pub(crate) fn start(from: &str, to: &str) -> Proxy {
        let listener = TcpListener::bind(from).unwrap_or_else(|error| panic!("{from}: {error}"));
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(OPEN),
            passed: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
            changed: Condvar::new(),
        });
        let to = to.to_owned();
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for inward in listener.incoming().map_while(Result::ok) {
                of_thread.connect(inward, &to);
            }
        });
        Proxy { shared }
    }

    /// Breaks every connection and refuses new ones.
    pub(crate) fn cut(&self) {
        self.shared.set(CUT);
        for stream in self.shared.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets nothing pass any more, without a word.
    pub(crate) fn silence(&self) {
        self.shared.set(SILENT);
    }

    /// Lets everything pass again.
    pub(crate) fn heal(&self) {
        self.shared.set(OPEN);
    }

    /// Bytes that went through so far, in both directions.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().expect("no thread panics with it")
    }

    fn set(&self, mode: u8) {
        let _streams = self.lock();
        self.mode.store(mode, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn connect(self: &Arc<Shared>, inward: TcpStream, to: &str) {
        if self.mode.load(Ordering::SeqCst) == CUT {
            return;
        }
        let Ok(outward) = TcpStream::connect(to) else { return };
        let _ = inward.set_nodelay(true);
        let _ = outward.set_nodelay(true);
        let clone = |stream: &TcpStream| stream.try_clone().expect("file descriptors are left");
        {
            let mut streams = self.lock();
            // Between the look above and here the link may have been cut.
            if self.mode.load(Ordering::SeqCst) == CUT {
                return;
            }
            streams.push(clone(&inward));
            streams.push(clone(&outward));
        }
        let pairs = [(clone(&inward), clone(&outward)), (outward, inward)];
        for (source, sink) in pairs {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.pump(source, sink));
        }
    }

    fn pump(&self, mut source: TcpStream, mut sink: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = source.read(&mut buffer) {
            let mut streams = self.lock();
            while self.mode.load(Ordering::SeqCst) == SILENT {
                let waited = self.changed.wait_timeout(streams, Duration::from_secs(60));
                streams = waited.expect("no thread panics with it").0;
            }
            drop(streams);
            if self.mode.load(Ordering::SeqCst) == CUT || sink.write_all(&buffer[..len]).is_err() {
                break;
            }
            self.passed.fetch_add(len as u64, Ordering::Relaxed);
        }
        let _ = source.shutdown(Shutdown::Both);
        let _ = sink.shutdown(Shutdown::Both);
    }
}
