//! Records of a log whose checksums are right, whatever they say.

use lanekv::config::Config;
use lanekv::node::{Effects, Node, NodeInput, Replay, Settings};
use lanekv::protocol::Identity;
use lanekv::storage::RecordGroup;
use lanekv::types::{DiskId, Lsn, Millis, NodeId, Now};

use super::script::steps;

/// The time at which every node of a body begins.
pub(super) const START: Now = Now { mono: Millis(1_000), wall: Millis(1_700_000_000_000) };

/// The disk of the node with this number.
pub(super) fn disk(node: u8) -> DiskId {
    DiskId(100 + u64::from(node))
}

/// The settings of the first of so many nodes.
pub(super) fn settings(count: usize) -> Settings {
    thread_local! {
        static CONFIG: [Config; 2] = [1, 3].map(|count| {
            let lines: String = (0..count).map(|id| format!("{id} 127.0.0.1:{}\n", 7100 + id)).collect();
            let more = "set value-max 1KiB\nset suspicion-timeout 300ms\n";
            Config::parse("f", &(lines + more)).expect("a good file")
        });
    }
    CONFIG.with(|[alone, three]| {
        let config = if count == 1 { alone } else { three };
        Settings::new(config, NodeId::default(), 7).expect("a member")
    })
}

/// Begins the node after its log was read. `None` if it says that it cannot.
pub(super) fn begin(settings: Settings, mut replay: Replay) -> Option<(Node, Lsn)> {
    let mut group = RecordGroup::new();
    let incarnation = replay.begin(&mut group).ok()?;
    let identity = Identity { disk: disk(0), incarnation, boot: 5, joining: false };
    let last = group.last_lsn().expect("the record of the start");
    Some((Node::new(settings, identity, replay, 3, START), last))
}

/// Steps whose codes are the kinds of records: the log of the first of three nodes.
pub(super) fn replay(input: &[u8]) {
    let settings = settings(3);
    let mut replay = Replay::new(&settings.protocol);
    let mut lsn = Lsn(0);
    for (kind, payload) in steps(input) {
        lsn = lsn.next();
        if let Err(error) = replay.push(lsn, kind, payload) {
            assert!(!error.to_string().is_empty());
            return;
        }
    }
    let Some((mut node, mut last)) = begin(settings, replay) else { return };
    let mut now = START;
    let mut effects = Effects::default();
    for _ in 0..3 {
        node.end_turn(now, &mut effects);
        last = effects.records.last_lsn().unwrap_or(last);
        node.handle(now, NodeInput::Persisted(last));
        effects.clear();
        assert!(node.report().delivered.view <= node.report().view);
        now.mono = now.mono.plus(Millis(400));
    }
}
