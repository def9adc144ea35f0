//! Nodes that forget at once what they have delivered: who was away comes back by a snapshot.

use super::super::snapshots::growth;
use super::*;
use crate::storage::snapshots_on;
use crate::types::{SnapshotId, limits};

/// Three nodes, of which the last is cut off while the others go on, further than they remember.
fn left_behind() -> Cluster {
    founded(Cluster::configured(3, "set history 0\nset snapshot-log 64KiB\n"))
}

fn founded(mut cluster: Cluster) -> Cluster {
    cluster.greet_all();
    cluster.pass(100);
    for index in 0..3 {
        cluster.open(index, 1);
    }
    assert_eq!(cluster.ask(2, 1, "SET before 1\n"), "OK\n");
    cluster
}

/// The other two take so many writes of 10 KB.
fn write(cluster: &mut Cluster, count: usize) {
    for i in 0..count {
        let value = "v".repeat(10_000);
        assert_eq!(cluster.ask(i % 2, 1, &format!("SET key-{i} {value}\n")), "OK\n");
    }
}

/// The last node is cut off from now on, and the others take so many writes once they have noticed.
fn write_without(cluster: &mut Cluster, count: usize) {
    cluster.cut = NodeSet::only(id(2));
    cluster.pass(1_000);
    write(cluster, count);
}

/// A client of the first node has a snapshot taken.
fn save(cluster: &mut Cluster) {
    cluster.say(0, 1, b"SAVE\n");
    for _ in 0..10 {
        cluster.pass(10);
    }
    assert_eq!(cluster.hear(0, 1), "OK\n");
}

fn state(cluster: &Cluster, index: usize) -> (u64, u64, Index) {
    let node = &cluster.hosts[index].node;
    (node.store().digest(), node.store().digest_recomputed(), node.report().index)
}

/// Until the last node stands where the others do.
fn come_back(cluster: &mut Cluster) {
    cluster.cut = NodeSet::EMPTY;
    for _ in 0..100 {
        cluster.pass(100);
        if state(cluster, 2) == state(cluster, 0) && cluster.hosts[2].node.report().serving {
            return;
        }
    }
    panic!("it does not come back: {:?}", cluster.hosts[2].node.report());
}

#[test]
fn a_node_that_was_away_comes_back_by_a_snapshot() {
    let mut cluster = left_behind();
    write_without(&mut cluster, 60);
    assert_eq!(state(&cluster, 0), state(&cluster, 1));
    // They have taken snapshots by themselves, and do not need the log before the older of them any more.
    for host in &cluster.hosts[..2] {
        assert!(host.node.backend.snapshots.taken_count >= 2, "{}", host.node.backend.snapshots.taken_count);
        assert!(host.truncated.is_some_and(|lsn| lsn > Lsn(1)));
        assert_eq!(snapshots_on(&host.files).unwrap().len(), 2);
    }
    assert_eq!(cluster.hosts[2].node.newest_snapshot(), None);
    come_back(&mut cluster);
    let snapshots = &cluster.hosts[2].node.backend.snapshots;
    assert_eq!((snapshots.installed_count, snapshots.coming()), (1, None));
    let info = *snapshots.newest().unwrap();
    assert_eq!(cluster.hosts[2].truncated, Some(info.log_from));
    assert_eq!(snapshots_on(&cluster.hosts[2].files).unwrap()[0].index, info.id.index);
    // Its clients see everything, and their writes are seen.
    assert_eq!(cluster.ask(2, 1, "GET before\n"), "1\n");
    assert_eq!(cluster.ask(2, 1, "STRLEN key-59\n"), "10000\n");
    assert_eq!(cluster.ask(2, 1, "SET after 2\n"), "OK\n");
    assert_eq!(cluster.ask(0, 1, "GET after\n"), "2\n");
    // It becomes a sender again.
    cluster.pass(5_000);
    assert!(cluster.hosts[2].node.report().sender);
    assert_eq!(cluster.ask(2, 1, "SET after 3\n"), "OK\n");
    assert_eq!(cluster.ask(1, 1, "GET after\n"), "3\n");
    assert_eq!(state(&cluster, 2), state(&cluster, 0));
}

/// The source goes away in the midst of it: another one has other bytes, so it begins anew there.
#[test]
fn a_source_that_is_lost_is_replaced() {
    let mut cluster = left_behind();
    write_without(&mut cluster, 200);
    cluster.cut = NodeSet::EMPTY;
    let mut sources = Vec::new();
    for _ in 0..100_000 {
        if let Some((source, len)) = cluster.hosts[2].node.backend.snapshots.coming()
            && sources.last() != Some(&source)
            && len > 0
        {
            sources.push(source);
            if sources.len() == 1 {
                cluster.hosts[2].node.handle(cluster.now, NodeInput::LinkDown(source));
            }
        }
        if cluster.hosts[2].node.backend.snapshots.installed_count > 0 {
            break;
        }
        // One round of messages at a time.
        for index in 0..3 {
            cluster.turn(index);
        }
        let waiting: Vec<_> = cluster.messages.drain(..).collect();
        for (from, to, message) in waiting {
            // The link that broke stays so.
            let broken = (to == id(2) && Some(&from) == sources.first())
                || (from == id(2) && Some(&to) == sources.first());
            if !broken {
                cluster.hosts[to.index()].node.handle(cluster.now, NodeInput::Receive { from, message });
            }
        }
        for host in &mut cluster.hosts {
            if host.durable < host.submitted {
                host.durable = host.submitted;
                host.node.handle(cluster.now, NodeInput::Persisted(host.submitted));
            }
        }
        cluster.now.mono = cluster.now.mono.plus(Millis(1));
    }
    assert_eq!(cluster.hosts[2].node.backend.snapshots.installed_count, 1);
    assert!(sources.len() == 2 && sources[0] != sources[1], "{sources:?}");
}

/// While blocks are on their way, whoever is behind asks for what it lacks, heartbeat after heartbeat, and is offered a
/// snapshot each time.
#[test]
fn offers_do_not_set_back_what_comes_slowly() {
    let mut cluster = left_behind();
    write_without(&mut cluster, 400);
    cluster.slow = |message| matches!(message, Message::SnapshotBlocks { .. });
    cluster.way = Millis(120);
    come_back(&mut cluster);
    let sources = &cluster.hosts[..2];
    let served: u64 = sources.iter().map(|host| host.node.backend.snapshots.served_blocks).sum();
    let blocks = cluster.hosts[2].node.newest_snapshot().expect("installed").blocks;
    assert!(blocks > 3 * limits::SNAPSHOT_BLOCK_COUNT_MAX as u32, "{blocks}");
    assert!(served < 2 * u64::from(blocks), "{served} of {blocks}");
}

/// That of another snapshot, or from another node, is not about what is being fetched; what is may be said late, and
/// more than once, and costs a message each time.
#[test]
fn an_absence_counts_for_what_is_fetched_from_where() {
    let mut cluster = left_behind();
    write_without(&mut cluster, 400);
    cluster.slow = |message| matches!(message, Message::SnapshotBlocks { .. });
    cluster.way = Millis(30);
    cluster.cut = NodeSet::EMPTY;
    let mut told = 0;
    for round in 1..1_000 {
        cluster.pass(10);
        if cluster.hosts[2].node.backend.snapshots.installed_count > 0 {
            break;
        }
        let Some((source, _)) = cluster.hosts[2].node.backend.snapshots.coming() else { continue };
        let fetched =
            cluster.hosts[source.index()].node.newest_snapshot().copied().expect("it is being sent").id;
        let other = id(1 - source.index());
        let another = SnapshotId { digest: !fetched.digest, ..fetched };
        let right = (round % 30 == 0).then_some((source, fetched));
        for (from, id) in [(source, another), (other, fetched)].into_iter().chain(right) {
            let message = Message::SnapshotBlocks { id, first: 0, blocks: Vec::new() };
            cluster.hosts[2].node.handle(cluster.now, NodeInput::Receive { from, message });
            told += 1;
        }
    }
    assert_eq!(cluster.hosts[2].node.backend.snapshots.installed_count, 1);
    let served: u64 = cluster.hosts[..2].iter().map(|host| host.node.backend.snapshots.served_blocks).sum();
    let blocks = u64::from(cluster.hosts[2].node.newest_snapshot().expect("installed").blocks);
    assert!(told > 20 && served < 2 * blocks, "{told} answers, {served} of {blocks}");
}

/// The source has a newer snapshot than the one that it was bringing, and says so: then that one is fetched.
#[test]
fn a_snapshot_that_is_gone_gives_way_to_a_newer_one() {
    let mut cluster = left_behind();
    write_without(&mut cluster, 400);
    cluster.cut = NodeSet::EMPTY;
    cluster.slow = |message| matches!(message, Message::SnapshotBlocks { .. });
    cluster.way = Millis(120);
    let (source, _) = loop {
        cluster.pass(10);
        if let Some(found) = cluster.hosts[2].node.backend.snapshots.coming().filter(|(_, len)| *len > 0) {
            break found;
        }
    };
    let first = cluster.hosts[source.index()].node.newest_snapshot().copied().expect("it is being sent");
    // Two are kept.
    let is_kept = |cluster: &Cluster| {
        let kept = snapshots_on(&cluster.hosts[source.index()].files).unwrap();
        kept.iter().any(|it| it.index == first.id.index)
    };
    while is_kept(&cluster) {
        write(&mut cluster, 1);
        cluster.hosts[source.index()].node.take_snapshot();
        cluster.pass(1);
    }
    assert_eq!(cluster.hosts[2].node.backend.snapshots.installed_count, 0);
    come_back(&mut cluster);
    let installed = cluster.hosts[2].node.newest_snapshot().copied().expect("installed");
    assert!(installed.id.index > first.id.index, "{installed:?} after {first:?}");
}

/// One peer has forgotten what is lacking and is asked first; another one fills it while the snapshot is on its way.
#[test]
fn a_node_that_has_caught_up_needs_no_snapshot() {
    let file = "0 127.0.0.1:7100\n1 127.0.0.1:7101\n2 127.0.0.1:7102\nset snapshot-log 64KiB\n";
    let mut cluster = founded(Cluster::adjusted(3, file, |settings| {
        if settings.protocol.me == id(0) {
            settings.protocol.history_len = 0;
            settings.protocol.pinned_history_len = 0;
        }
    }));
    write_without(&mut cluster, 60);
    cluster.cut = NodeSet::EMPTY;
    cluster.lost = |message| matches!(message, Message::SnapshotBlocks { .. });
    let mut was_coming = false;
    let mut millis = 0;
    while state(&cluster, 2) != state(&cluster, 0) || !cluster.hosts[2].node.report().serving {
        was_coming |= cluster.hosts[2].node.backend.snapshots.coming().is_some();
        cluster.pass(10);
        millis += 10;
        assert!(millis < 2_000, "{:?}", cluster.hosts[2].node.report());
    }
    assert!(was_coming);
    assert_eq!(cluster.hosts[2].node.backend.snapshots.coming(), None);
    assert_eq!(cluster.ask(2, 1, "GET before\n"), "1\n");
}

/// Its commands would wait for the snapshot, and nobody knows how long that takes.
#[test]
fn a_node_does_not_serve_while_its_snapshot_is_coming() {
    let mut cluster = left_behind();
    write_without(&mut cluster, 60);
    cluster.cut = NodeSet::EMPTY;
    cluster.lost = |message| matches!(message, Message::SnapshotBlocks { .. });
    cluster.pass(2_000);
    assert!(cluster.hosts[2].node.backend.snapshots.coming().is_some());
    assert!(!cluster.hosts[2].node.report().serving);
    let info = cluster.ask(2, 1, "INFO persistence\n");
    assert!(info.contains("loading:1"), "{info}");
    for command in ["GET before\n", "SET before 2\n", "SAVE\n"] {
        let heard = cluster.ask(2, 1, command);
        assert!(heard.starts_with("LOADING this node is catching up"), "{heard}");
    }
    for command in ["SAVE\n", "SNAPSHOT BEGIN\n"] {
        let heard = cluster.ask(2, 1, command);
        assert!(heard.contains("LOADING this node is catching up"), "{heard}");
    }
    cluster.lost = |_| false;
    come_back(&mut cluster);
    assert_eq!(cluster.ask(2, 1, "SET before 2\n"), "OK\n");
    cluster.say(2, 1, b"SAVE\n");
    cluster.pass(100);
    assert_eq!(cluster.hear(2, 1), "OK\n");
}

/// They wait for a snapshot that cannot be finished, and for the next one, when another node's begins to come.
#[test]
fn who_waits_for_a_snapshot_is_told_that_none_is_taken() {
    let mut cluster = left_behind();
    cluster.open(2, 2);
    cluster.hosts[2].disk_held = true;
    assert_eq!(cluster.ask(0, 1, "SET later 1\n"), "OK\n");
    assert_eq!(cluster.ask(2, 1, "SAVE\n"), "");
    assert_eq!(cluster.ask(2, 2, "SAVE\n"), "");
    assert_eq!(cluster.hosts[2].node.backend.snapshots.waiters.len(), 2);
    write_without(&mut cluster, 60);
    cluster.cut = NodeSet::EMPTY;
    cluster.lost = |message| matches!(message, Message::SnapshotBlocks { .. });
    cluster.pass(1_000);
    assert!(cluster.hosts[2].node.backend.snapshots.coming().is_some());
    let heard = cluster.hear(2, 2);
    assert!(heard.contains("LOADING this node is catching up"), "{heard}");
    assert_eq!(cluster.hear(2, 1), "", "its own is being taken");
    cluster.hosts[2].node.client_gone(key(1));
    assert_eq!(cluster.hosts[2].node.backend.snapshots.waiters.len(), 0);
}

/// A change of the view alone leaves the index, and so the name, as it was: the one before is still the one before.
#[test]
fn a_snapshot_of_the_same_index_takes_the_place_of_its_namesake() {
    let mut cluster = left_behind();
    let take = |cluster: &mut Cluster| {
        let before = cluster.hosts[0].node.newest_snapshot().copied();
        cluster.hosts[0].node.take_snapshot();
        for _ in 0..100 {
            cluster.pass(10);
            let newest = cluster.hosts[0].node.newest_snapshot().copied();
            if let Some(newest) = newest.filter(|_| newest != before) {
                cluster.pass(10);
                return newest;
            }
        }
        panic!("it is not published");
    };
    write(&mut cluster, 3);
    let first = take(&mut cluster);
    write(&mut cluster, 3);
    let second = take(&mut cluster);
    assert_eq!(cluster.hosts[0].truncated, Some(first.log_from));
    cluster.cut = NodeSet::only(id(2));
    cluster.pass(2_000);
    let third = take(&mut cluster);
    assert_eq!((third.id.index, third.position > second.position), (second.id.index, true));
    assert_eq!(snapshots_on(&cluster.hosts[0].files).unwrap().len(), 2);
    assert_eq!(cluster.hosts[0].truncated, Some(first.log_from), "the older one needs the log from there");
}

/// Damage that is met while a client reads is as good as any other: a sound one takes the place of the damaged one.
#[test]
fn damage_that_a_client_meets_is_told_and_mended() {
    let mut cluster = left_behind();
    write(&mut cluster, 3);
    save(&mut cluster);
    let info = cluster.hosts[0].node.newest_snapshot().copied().expect("published");
    let name = snapshots_on(&cluster.hosts[0].files).unwrap().remove(0).name;
    cluster.hosts[0].files.corrupt(&name, info.len / 2, 1);
    let crate::types::SnapshotId { index, digest } = info.id;
    let is_refused = (0..info.blocks).any(|block| {
        cluster.say(0, 1, format!("SNAPSHOT READ {index} {digest:016x} {block}\n").as_bytes());
        cluster.pass(10);
        let node = &mut cluster.hosts[0].node;
        let answer = node.client_output(key(1)).to_vec();
        node.client_sent(cluster.now, key(1), answer.len());
        answer.starts_with(b"ERR this snapshot is not here")
    });
    assert!(is_refused);
    cluster.pass(100);
    let files = snapshots_on(&cluster.hosts[0].files).unwrap();
    assert_eq!(files.len(), 1, "another one was taken");
    assert!(cluster.hosts[0].node.newest_snapshot().is_some());
}

/// Damage to the older one of the two costs the newest nothing, and the next one makes two of them again.
#[test]
fn damage_in_the_older_one_is_no_reason_to_forget_the_newest() {
    let mut cluster = left_behind();
    let mut taken = Vec::new();
    for _ in 0..2 {
        write(&mut cluster, 3);
        save(&mut cluster);
        taken.push(*cluster.hosts[0].node.newest_snapshot().expect("published"));
    }
    let [older, newest] = taken[..] else { panic!("{taken:?}") };
    assert_eq!(cluster.hosts[0].truncated, Some(older.log_from));
    let name = crate::storage::snapshot_name(older.id.index);
    cluster.hosts[0].files.corrupt(&name, older.len / 2, 1);
    let crate::types::SnapshotId { index, digest } = older.id;
    let refused: Vec<String> = (0..older.blocks)
        .map(|block| {
            cluster.say(0, 1, format!("SNAPSHOT READ {index} {digest:016x} {block}\n").as_bytes());
            cluster.run();
            let node = &mut cluster.hosts[0].node;
            let answer = node.client_output(key(1)).to_vec();
            node.client_sent(cluster.now, key(1), answer.len());
            String::from_utf8_lossy(&answer).into_owned()
        })
        .filter(|answer| answer.starts_with("ERR this snapshot is not here"))
        .collect();
    assert!(!refused.is_empty());
    cluster.pass(100);
    let indexes = |cluster: &Cluster| {
        let files = snapshots_on(&cluster.hosts[0].files).unwrap();
        files.iter().map(|file| file.index).collect::<Vec<Index>>()
    };
    assert_eq!(indexes(&cluster), [newest.id.index]);
    assert_eq!(cluster.hosts[0].node.newest_snapshot(), Some(&newest));
    assert_eq!(cluster.hosts[0].node.backend.snapshots.taken_count, 2, "nothing has happened since");
    write(&mut cluster, 1);
    save(&mut cluster);
    let next = *cluster.hosts[0].node.newest_snapshot().expect("published");
    assert_eq!(indexes(&cluster), [next.id.index, newest.id.index]);
    assert_eq!(cluster.hosts[0].truncated, Some(newest.log_from), "as far back as the older one needs it");
}

/// While a snapshot is made and sent, as much may be written as it is long, and it is still of use.
#[test]
fn a_snapshot_is_not_overtaken_by_what_is_written_meanwhile() {
    let few = "set history 0\nset snapshot-log 1MiB\n";
    let mut cluster =
        founded(Cluster::with(3, few, |settings| settings.protocol.pinned_history_len = 100_000));
    write(&mut cluster, 300);
    cluster.pass(100);
    write_without(&mut cluster, 300);
    cluster.cut = NodeSet::EMPTY;
    // The keepers are slow: with each of their steps 10 KB are written.
    let mut rounds = 0;
    while cluster.hosts[2].node.backend.snapshots.installed_count == 0 {
        rounds += 1;
        assert!(rounds < 1_000, "{:?}", cluster.hosts[2].node.backend.snapshots);
        let value = "w".repeat(10_000);
        cluster.say(rounds % 2, 1, format!("SET key-{} {value}\n", rounds % 300).as_bytes());
        cluster.step_all();
        cluster.now.mono = cluster.now.mono.plus(Millis(5));
    }
    let taken: Vec<u64> =
        cluster.hosts[..2].iter().map(|host| host.node.backend.snapshots.taken_count).collect();
    println!("installed after {rounds} rounds; snapshots taken {taken:?}");
    come_back(&mut cluster);
}

/// Its own command was applied by the others, and what it replied is not known here.
#[test]
fn a_command_that_is_in_the_snapshot_times_out() {
    let mut cluster = left_behind();
    // What comes before its own command does not reach it.
    cluster.say(0, 1, b"SET first 1\n");
    cluster.say(2, 1, b"SET own 1\n");
    cluster.turn(0);
    cluster.turn(2);
    for (from, to, message) in std::mem::take(&mut cluster.messages) {
        if to != id(2) {
            cluster.hosts[to.index()].node.handle(cluster.now, NodeInput::Receive { from, message });
        }
    }
    cluster.cut = NodeSet::only(id(2));
    cluster.pass(1_000);
    assert_eq!(cluster.hear(0, 1), "OK\n");
    assert_eq!(cluster.ask(0, 1, "GET own\n"), "1\n");
    write(&mut cluster, 20);
    assert_eq!(cluster.hear(2, 1), "");
    come_back(&mut cluster);
    assert_eq!(cluster.hosts[2].node.backend.snapshots.installed_count, 1);
    let heard = cluster.hear(2, 1);
    assert!(heard.contains("TIMEOUT"), "{heard:?}");
    assert!(!cluster.hosts[2].node.has_unanswered());
    assert_eq!(cluster.ask(2, 1, "GET own\n"), "1\n");
}

/// Its place in the log must be on the disk before a snapshot takes the place of older ones.
#[test]
fn a_snapshot_waits_for_the_log() {
    let mut cluster = left_behind();
    cluster.run();
    cluster.hosts[0].disk_held = true;
    cluster.say(0, 1, b"SET later 1\n");
    cluster.run();
    assert!(cluster.hosts[0].durable < cluster.hosts[0].submitted);
    assert_eq!(cluster.hear(0, 1), "OK\n", "the other two are a majority");
    cluster.hosts[0].node.take_snapshot();
    cluster.run();
    assert_eq!(cluster.hosts[0].node.newest_snapshot(), None);
    assert_eq!(snapshots_on(&cluster.hosts[0].files).unwrap(), []);
    cluster.hosts[0].disk_held = false;
    cluster.run();
    let info = cluster.hosts[0].node.newest_snapshot().copied().expect("published now");
    assert_eq!(info.log_from, cluster.hosts[0].durable.next());
}

/// With what the handbook promises: four times a snapshot and 256 MiB, as long as no more log comes while a snapshot is
/// made than it is long, and 16 MiB.
#[test]
fn snapshots_and_log_take_less_than_four_times_the_state_and_a_constant() {
    const MIB: u64 = 1 << 20;
    let (least, segments) = (64 * MIB, 2 * 16 * MIB);
    for len in [0, 1, 5, 31, 32, 40, 64, 100, 128, 500, 1_000, 10_000, 100_000].map(|mib| mib * MIB) {
        for meanwhile in [0, len / 8, len / 2, len, len + 16 * MIB] {
            for serving in [false, true] {
                let growth = growth(least, len, meanwhile, serving);
                assert!(growth >= least);
                let disk = 3 * len + 2 * growth + meanwhile + segments;
                assert!(disk <= 4 * len + 256 * MIB, "{len} {meanwhile} {serving}: {} MiB", disk / MIB);
            }
        }
    }
    assert_eq!(growth(u64::MAX, 8, 0, true), u64::MAX);
}
