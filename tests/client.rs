//! The client library against nodes that fail in every way it has to live with.

mod fake;

use std::time::{Duration, Instant};

use fake::{Cluster, Fault};
use lanekv::client::backup::{BackupError, back_up};
use lanekv::client::{Client, ClientError, Options};
use lanekv::config::Address;
use lanekv::types::splitmix64;
use lanekv::wire::client::{Consistency, WireReply};

fn options() -> Options {
    Options {
        connect_timeout: Duration::from_millis(300),
        reply_timeout: Duration::from_millis(100),
        deadline: Duration::from_secs(5),
        consistency: Consistency::Linearizable,
        first: Some(0),
    }
}

fn client(cluster: &Cluster) -> Client {
    Client::new(cluster.addresses(), options())
}

/// A client that soon gives up.
fn hasty(cluster: &Cluster) -> Client {
    Client::new(cluster.addresses(), Options { deadline: Duration::from_millis(150), ..options() })
}

fn run(client: &mut Client, line: &str) -> Result<WireReply, ClientError> {
    let arguments: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    client.execute(&arguments)
}

fn ok() -> Result<WireReply, ClientError> {
    Ok(WireReply::Status("OK".into()))
}

/// The sequence numbers of all requests with this name, in the order of arrival.
fn seqs(cluster: &Cluster, name: &str) -> Vec<u64> {
    cluster.received(name).iter().map(|r| r.place.expect("a write").seq).collect()
}

/// Addresses where nobody listens: a port that no free-port search hands out, and no service uses.
fn dead_address(host: u8) -> Address {
    Address::parse(&format!("127.0.0.{host}:1")).expect("an address")
}

#[test]
fn writes_carry_the_session_and_reads_do_not() {
    let cluster = Cluster::start(1);
    let mut client = client(&cluster);
    assert_eq!(run(&mut client, "GET a"), Ok(WireReply::Nil));
    assert!(cluster.received("SESSION").is_empty(), "no session before the first write");
    assert_eq!(run(&mut client, "SET a 1"), ok());
    assert_eq!(run(&mut client, "INCR a"), Ok(WireReply::Integer(2)));
    assert_eq!(run(&mut client, "GET a"), Ok(WireReply::Bulk(b"2".to_vec())));
    assert_eq!(cluster.received("SESSION").len(), 1);
    let places: Vec<_> =
        ["SET", "INCR"].iter().map(|n| cluster.received(n)[0].place.expect("a write")).collect();
    assert_eq!((places[0].session.0, places[0].seq, places[0].acked), (1, 1, 0));
    assert_eq!((places[1].session.0, places[1].seq, places[1].acked), (1, 2, 1));
    assert!(cluster.received("GET").iter().all(|get| get.place.is_none()));
}

#[test]
fn a_dead_node_is_left_and_the_next_one_kept() {
    let cluster = Cluster::start(1);
    let addresses = [dead_address(1), cluster.addresses().remove(0)];
    let mut client = Client::new(addresses.clone(), options());
    assert_eq!(client.connected_to(), None);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    assert_eq!(client.connected_to(), Some(&addresses[1]));
}

#[test]
fn a_lost_write_is_repeated_with_the_same_number_and_applied_once() {
    for fault in [
        Fault::Drop,
        Fault::ApplyDrop,
        Fault::Silence,
        Fault::Garbage,
        Fault::Answer("TIMEOUT not delivered within 5s"),
        Fault::ApplyAnswer("TIMEOUT not delivered within 5s"),
    ] {
        let cluster = Cluster::start(2);
        let mut client = client(&cluster);
        assert_eq!(run(&mut client, "SET a 1"), ok());
        cluster.fault(0, [fault.clone()]);
        assert_eq!(run(&mut client, "INCR a"), Ok(WireReply::Integer(2)), "{fault:?}");
        assert_eq!(run(&mut client, "INCR a"), Ok(WireReply::Integer(3)), "{fault:?}");
        assert_eq!(seqs(&cluster, "INCR"), [2, 2, 3], "{fault:?}");
        let nodes: Vec<usize> = cluster.received("INCR").iter().map(|r| r.node).collect();
        assert_eq!(nodes, [0, 1, 1], "it stays where it got an answer");
    }
}

#[test]
fn refusals_move_on_and_leave_the_number() {
    let cluster = Cluster::start(3);
    let mut client = client(&cluster);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    cluster.fault(0, [Fault::Answer("NOQUORUM no majority")]);
    cluster.fault(1, [Fault::Answer("BUSY queue full")]);
    cluster.fault(2, [Fault::Answer("LOADING catching up"), Fault::Answer("LOADING catching up")]);
    assert_eq!(run(&mut client, "INCR a"), Ok(WireReply::Integer(2)));
    assert_eq!(seqs(&cluster, "INCR"), [2, 2, 2, 2]);
}

#[test]
fn a_write_refused_everywhere_leaves_its_number_to_the_next() {
    let cluster = Cluster::start(1);
    let mut client = hasty(&cluster);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    cluster.fault(0, vec![Fault::Answer("NOQUORUM no majority"); 100]);
    let refused = WireReply::Error("NOQUORUM no majority".into());
    assert_eq!(run(&mut client, "SET b 2"), Ok(refused));
    cluster.model().faults[0].clear();
    assert_eq!(run(&mut client, "SET c 3"), ok());
    let third = cluster.received("SET").pop().expect("arrived");
    assert_eq!((&third.arguments[1][..], third.place.expect("a write").seq), (&b"c"[..], 2));
    assert_eq!(cluster.received("SESSION").len(), 1);
}

#[test]
fn a_write_that_may_have_been_multicast_is_unknown_whatever_came_last() {
    let cluster = Cluster::start(1);
    let mut client = hasty(&cluster);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    cluster.fault(0, [Fault::DropApplyLater]);
    cluster.fault(0, vec![Fault::Answer("NOQUORUM no majority"); 100]);
    let error = run(&mut client, "SET a 2").expect_err("unknown");
    assert!(matches!(&error, ClientError::OutcomeUnknown { .. }), "{error}");
    assert!(error.to_string().contains("outcome unknown"), "{error}");
    assert_eq!(cluster.model().values[&b"a"[..]], b"2", "it was applied later");
    cluster.model().faults[0].clear();
    assert_eq!(run(&mut client, "SET a 3"), ok());
    let sessions: Vec<u64> =
        cluster.received("SET").iter().map(|r| r.place.expect("a write").session.0).collect();
    assert_eq!((sessions[0], sessions.last()), (1, Some(&2)), "the number stays with the lost write");
}

#[test]
fn an_expired_session_is_replaced_unless_the_write_was_repeated() {
    let cluster = Cluster::start(1);
    let mut client = client(&cluster);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    cluster.model().expire_sessions();
    assert_eq!(run(&mut client, "INCR a"), Ok(WireReply::Integer(2)));
    assert_eq!(cluster.received("SESSION").len(), 2);
    // The session goes away between the two attempts: when the second arrives, nobody knows about the first.
    let cluster = Cluster::start(2);
    let mut client = self::client(&cluster);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    cluster.fault(0, [Fault::ApplyDrop]);
    cluster.fault(1, [Fault::Answer("ERR session expired or never opened")]);
    let error = run(&mut client, "INCR a").expect_err("unknown");
    assert_eq!(error, ClientError::OutcomeUnknown { cause: "ERR session expired or never opened".into() });
    assert_eq!(run(&mut client, "INCR a"), Ok(WireReply::Integer(3)), "a new session goes on");
}

#[test]
fn numbers_of_refused_commands_are_found_again() {
    let cluster = Cluster::start(1);
    let mut client = client(&cluster);
    assert_eq!(run(&mut client, "SET a x"), ok());
    let refused = Fault::Answer("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    for by_node in [true, false, true, true] {
        if by_node {
            cluster.fault(0, [refused.clone()]);
        }
        assert!(matches!(run(&mut client, "INCR a"), Ok(WireReply::Error(_))));
    }
    for value in 1..3 {
        assert_eq!(run(&mut client, "INCR b"), Ok(WireReply::Integer(value)));
    }
    assert_eq!(cluster.received("SESSION").len(), 1, "errors do not cost a session");
}

#[test]
fn what_every_node_would_refuse_is_not_sent() {
    let cluster = Cluster::start(1);
    let mut client = client(&cluster);
    for (command, reply) in [
        ("INCR", "ERR wrong number of arguments for 'incr' command"),
        ("SET a 1 NX XX", "ERR syntax error"),
        ("INCRBY a many", "ERR value is not an integer or out of range"),
        ("session shut", "ERR unknown subcommand 'shut'. Try SESSION HELP."),
    ] {
        assert_eq!(run(&mut client, command), Ok(WireReply::Error(reply.into())), "{command}");
    }
    assert!(cluster.model().received.is_empty());
    assert_eq!(run(&mut client, "SET a 1"), ok());
    assert_eq!(seqs(&cluster, "SET"), [1]);
    assert!(matches!(run(&mut client, "session open"), Ok(WireReply::Integer(_))));
    assert!(cluster.received("SESSION").iter().all(|request| request.place.is_none()));
}

#[test]
fn a_number_that_may_be_in_flight_is_not_given_to_another_write() {
    let cluster = Cluster::start(2);
    let mut client = client(&cluster);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    cluster.model().hold = true;
    cluster.fault(0, [Fault::DropApplyLater]);
    cluster.fault(1, [Fault::Answer("ERR refused by this node alone")]);
    assert!(matches!(run(&mut client, "INCR b"), Ok(WireReply::Error(_))));
    // Its number follows one that was not applied yet: a gap, and the one before is not free.
    assert_eq!(run(&mut client, "INCR c"), Ok(WireReply::Integer(1)));
    let places: Vec<(u64, u64)> = cluster
        .received("INCR")
        .iter()
        .map(|r| r.place.expect("a write"))
        .map(|p| (p.session.0, p.seq))
        .collect();
    assert_eq!(places, [(1, 2), (1, 2), (1, 3), (2, 1)]);
    cluster.model().settle();
    assert_eq!(cluster.model().values[&b"b"[..]], b"1");
}

#[test]
fn a_session_that_never_holds_is_given_up() {
    let cluster = Cluster::start(1);
    let mut client = client(&cluster);
    assert_eq!(run(&mut client, "SET a 1"), ok());
    cluster.model().forgetful = true;
    let text = "ERR session expired or never opened";
    assert_eq!(run(&mut client, "SET a 2"), Ok(WireReply::Error(text.into())));
    assert_eq!(cluster.received("SESSION").len(), 4);
}

#[test]
fn reads_are_repeated_until_one_answers() {
    let cluster = Cluster::start(2);
    let mut client = client(&cluster);
    cluster.fault(0, [Fault::Drop, Fault::Silence]);
    cluster.fault(1, [Fault::Garbage, Fault::Answer("TIMEOUT no answer")]);
    assert_eq!(run(&mut client, "GET a"), Ok(WireReply::Nil));
    assert_eq!(cluster.received("GET").len(), 5);
}

#[test]
fn a_command_that_is_neither_is_not_repeated_once_it_may_have_arrived() {
    let cluster = Cluster::start(2);
    let mut client = client(&cluster);
    cluster.fault(0, [Fault::Answer("LOADING catching up")]);
    cluster.fault(1, [Fault::ApplyDrop]);
    assert!(matches!(run(&mut client, "LPUSH a 1"), Err(ClientError::OutcomeUnknown { .. })));
    assert_eq!(cluster.received("LPUSH").len(), 2);
}

#[test]
fn consistency_is_kept_by_the_client_and_sent_with_each_request() {
    let cluster = Cluster::start(2);
    let mut client = client(&cluster);
    let mut levels = Vec::new();
    for command in ["CONSISTENCY ordered", "readonly", "READWRITE", "consistency LOCAL"] {
        assert_eq!(run(&mut client, command), ok());
        assert_eq!(run(&mut client, "GET a"), Ok(WireReply::Nil));
        levels.push(cluster.received("GET").pop().expect("arrived").consistency.expect("given"));
    }
    use Consistency::{Linearizable, Local, Ordered};
    assert_eq!(levels, [Ordered, Local, Linearizable, Local]);
    cluster.fault(0, [Fault::Drop]);
    assert_eq!(run(&mut client, "GET a"), Ok(WireReply::Nil));
    assert_eq!(
        cluster.received("GET").pop().expect("arrived").consistency,
        Some(Local),
        "on the next node too"
    );
    assert_eq!(run(&mut client, "CONSISTENCY"), Ok(WireReply::Status("local".into())));
    for command in ["CONSISTENCY eventual", "READONLY now", "CONSISTENCY local x"] {
        assert!(matches!(run(&mut client, command), Ok(WireReply::Error(_))), "{command}");
    }
    assert!(cluster.received("CONSISTENCY").is_empty());
}

/// The node that has read may be another process by the time that it is to take the snapshot, and further back.
#[test]
fn a_backup_reads_again_over_a_new_connection() {
    let cluster = Cluster::start(1);
    cluster.fault(0, [Fault::None, Fault::Answer("LOADING catching up")]);
    let file = std::env::temp_dir().join("a-backup-that-is-refused");
    let refused = back_up(&mut client(&cluster), &file);
    assert!(matches!(refused, Err(BackupError::Refused(_))), "{refused:?}");
    let names: Vec<String> = cluster.model().received.iter().map(|request| request.name()).collect();
    assert_eq!(names, ["DBSIZE", "SNAPSHOT", "SNAPSHOT", "DBSIZE", "SNAPSHOT"]);
}

#[test]
fn when_no_node_answers_each_is_named_with_its_reason() {
    let addresses = [dead_address(1), dead_address(2)];
    let short = Options { deadline: Duration::from_millis(100), ..options() };
    let mut client = Client::new(addresses.clone(), short.clone());
    let start = Instant::now();
    for command in ["GET a", "SET a 1", "LPUSH a 1"] {
        let error = run(&mut client, command).expect_err("nobody there");
        assert!(matches!(&error, ClientError::NoNode { causes } if causes.len() == 2), "{error}");
        assert!(error.to_string().contains(&addresses[1].to_string()), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "the deadline holds");
    assert!(matches!(run(&mut Client::new([], short), "GET a"), Err(ClientError::NoNode { .. })));
}

#[test]
fn a_node_that_was_restarted_is_noticed_before_it_is_used() {
    let cluster = Cluster::start(1);
    let mut client = client(&cluster);
    cluster.fault(0, [Fault::Close]);
    assert_eq!(run(&mut client, "GET a"), Ok(WireReply::Nil));
    while cluster.model().closed == 0 {
        std::thread::yield_now();
    }
    // On the closed connection its outcome would be unknown.
    assert!(matches!(run(&mut client, "LPUSH a 1"), Ok(WireReply::Error(_))));
}

#[test]
fn large_values_come_back() {
    let cluster = Cluster::start(1);
    let mut client = client(&cluster);
    let value: Vec<u8> = (0..3_000_000u32).map(|i| u8::try_from(i % 251).expect("small")).collect();
    assert_eq!(client.execute(&[b"SET".to_vec(), b"k".to_vec(), value.clone()]), ok());
    assert_eq!(run(&mut client, "GET k"), Ok(WireReply::Bulk(value)));
}

#[test]
fn every_answered_increment_counts_once_under_random_faults() {
    for seed in 0..8 {
        let mut rng = seed;
        let cluster = Cluster::start(3);
        let options = Options {
            reply_timeout: Duration::from_millis(10),
            deadline: Duration::from_millis(120),
            ..options()
        };
        let mut client = Client::new(cluster.addresses(), options);
        cluster.model().values.insert(b"text".to_vec(), b"x".to_vec());
        let (mut certain, mut unknown, mut last) = (0, 0, 0);
        for _ in 0..60 {
            for node in 0..3 {
                let mut model = cluster.model();
                model.faults[node].clear();
                for _ in 0..splitmix64(&mut rng) % 3 {
                    model.faults[node].push_back(match splitmix64(&mut rng) % 10 {
                        0 | 1 => Fault::Answer("NOQUORUM no majority"),
                        2 => Fault::Answer("TIMEOUT not delivered"),
                        3 => Fault::ApplyAnswer("TIMEOUT not delivered"),
                        4 => Fault::Drop,
                        5 => Fault::ApplyDrop,
                        6 | 7 => Fault::DropApplyLater,
                        8 => Fault::Silence,
                        _ => Fault::Answer("BUSY queue full"),
                    });
                }
                if splitmix64(&mut rng).is_multiple_of(40) {
                    model.expire_sessions();
                }
            }
            let command = ["INCR c", "INCR c", "INCR c", "refused", "SET text x", "INCR text", "GET c"]
                [usize::try_from(splitmix64(&mut rng) % 7).expect("small")];
            if command == "refused" {
                // By whichever node it reaches, before it is multicast: its number is not used up.
                for faults in &mut cluster.model().faults {
                    faults.push_front(Fault::Answer("ERR refused by this node alone"));
                }
            }
            let counts = command == "INCR c";
            match run(&mut client, if command == "refused" { "INCR c" } else { command }) {
                Ok(WireReply::Integer(value)) if counts => {
                    assert!(value > last, "seed {seed}: {value} after {last}: two commands share a reply");
                    last = value;
                    certain += 1;
                }
                Ok(WireReply::Integer(value)) => panic!("seed {seed}: {value} for {command}"),
                Ok(WireReply::Error(text)) if counts => {
                    let refused = ["NOQUORUM", "BUSY"].iter().any(|code| text.starts_with(code));
                    assert!(refused, "seed {seed}: {text}");
                }
                Err(ClientError::OutcomeUnknown { .. }) if counts => unknown += 1,
                _ => {}
            }
        }
        let mut model = cluster.model();
        model.settle();
        let count: i64 = match model.values.get(&b"c"[..]) {
            Some(value) => String::from_utf8_lossy(value).parse().expect("a number"),
            None => 0,
        };
        assert!(
            (certain..=certain + unknown).contains(&count),
            "seed {seed}: {count} applied, {certain} answered, {unknown} unknown"
        );
    }
}
