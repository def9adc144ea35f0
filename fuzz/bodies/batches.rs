//! Batches: what peers forward and the log keeps, down to the store that applies them.

use lanekv::store::{Applied, Limits, Store, lookup};
use lanekv::types::{Batch, Index, Millis, Reply, SessionId};
use lanekv::wire::batch::{BatchBuilder, BatchCommand, BatchReader, SessionSeq};

/// Limits that a few commands reach.
pub(super) fn tight_limits() -> Limits {
    Limits {
        value_len_max: 64,
        session_count_max: 3,
        session_idle: Millis(40),
        session_reply_count_max: 2,
        session_reply_len_max: 200,
        session_total_len_max: 300,
    }
}

/// A store without keys and sessions.
pub(super) struct EmptyStore {
    store: Store,
}

impl EmptyStore {
    /// Lends an empty store, and looks at what becomes of it.
    pub(super) fn lend(body: impl FnOnce(&mut EmptyStore)) {
        let mut lent = EmptyStore { store: Store::new(tight_limits(), 5) };
        body(&mut lent);
        lent.clear();
    }

    /// Applies a command; times count on from zero.
    pub(super) fn apply(&mut self, index: u64, now: u64, command: &BatchCommand<'_>) -> Reply {
        self.store.apply(Applied { index: Index(index), now: Millis(now) }, command, true)
    }

    /// Applies a command without a session and with this name.
    pub(super) fn run(&mut self, name: &str, arguments: &[&[u8]]) -> Reply {
        let code = lookup(name.as_bytes()).expect("a command").code;
        self.apply(1, 0, &BatchCommand { session: None, code, arguments: arguments.to_vec() })
    }

    /// Answers a read.
    pub(super) fn read(&self, code: u8, arguments: &[&[u8]]) -> Reply {
        self.store.read(code, arguments)
    }

    /// The digest is kept up to date by each write; it must be what all keys and sessions give. Dear, so only some
    /// inputs ask.
    pub(super) fn check_digest(&self) {
        assert_eq!(self.store.digest(), self.store.digest_recomputed(), "the digest is true");
    }

    fn clear(&mut self) {
        self.run("FLUSHALL", &[]);
        assert_eq!((self.store.key_count(), self.store.mortal_key_count()), (0, 0), "it is empty again");
        // Long after the last use of any session.
        let late = Applied { index: Index(1), now: Millis(u64::MAX) };
        let session = Some(SessionSeq { session: SessionId(u64::MAX), seq: 1, acked: 0 });
        self.store.apply(late, &BatchCommand { session, code: 0, arguments: Vec::new() }, false);
        assert_eq!(self.store.session_count(), 0, "it is empty again");
        assert_eq!(self.store.digest(), self.store.digest_recomputed());
    }
}

/// Any bytes as a batch, as a peer may forward it.
pub(super) fn batch(input: &[u8]) {
    let Ok(batch) = Batch::new(input) else { return };
    let mut builder = BatchBuilder::new();
    let (mut done, mut whole) = (0, true);
    EmptyStore::lend(|store| {
        for command in BatchReader::new(&batch) {
            let Ok(command) = command else {
                whole = false;
                break;
            };
            builder.push(command.session, command.code, &command.arguments);
            done += 1;
            // The index names sessions: keep it small, so that commands find those of others.
            store.apply(u64::from(done % 5), u64::from(done) * 7, &command);
        }
        if input.len().is_multiple_of(16) {
            store.check_digest();
        }
    });
    assert!(done <= batch.count(), "more commands than announced");
    if whole {
        assert_eq!(done, batch.count());
        let again = builder.take();
        assert!(input.starts_with(again.bytes()), "what was read, written again");
    }
}
