//! Batches: what peers forward and the log keeps, down to the store that applies them.

use lanekv::store::{Applied, Limits, Store};
use lanekv::types::{Batch, Index, Millis};
use lanekv::wire::batch::{BatchBuilder, BatchReader};

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

/// Any bytes as a batch, as a peer may forward it.
pub(super) fn batch(input: &[u8]) {
    let Ok(batch) = Batch::new(input) else { return };
    let mut store = Store::new(tight_limits(), 5);
    let mut builder = BatchBuilder::new();
    let (mut done, mut whole) = (0, true);
    for command in BatchReader::new(&batch) {
        let Ok(command) = command else {
            whole = false;
            break;
        };
        builder.push(command.session, command.code, &command.arguments);
        done += 1;
        // The index names sessions: keep it small, so that commands find those of others.
        let at = Applied { index: Index(u64::from(done % 5)), now: Millis(u64::from(done) * 7) };
        let reply = store.apply(at, &command, true);
        assert!(!format!("{reply:?}").is_empty());
    }
    assert!(done <= batch.count(), "more commands than announced");
    assert_eq!(store.digest(), store.digest_recomputed(), "the digest is true");
    if whole {
        assert_eq!(done, batch.count());
        let again = builder.take();
        assert!(input.starts_with(again.bytes()), "what was read, written again");
    }
}
