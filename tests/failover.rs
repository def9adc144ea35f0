//! The client library against real nodes that are killed, stopped and started again while it writes.

mod nodes;
mod scratch;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lanekv::client::{Client, ClientError, Options};
use lanekv::config::Address;
use lanekv::wire::client::WireReply;
use nodes::Nodes;

/// These tests choose ports and keep the disk busy: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client that begins with this node and is as patient as a busy machine asks for.
fn client(addresses: Vec<Address>, first: usize) -> Client {
    let options = Options { first: Some(first), deadline: Duration::from_secs(60), ..Options::default() };
    Client::new(addresses, options)
}

fn run(client: &mut Client, line: &str) -> Result<WireReply, ClientError> {
    let arguments: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    client.execute(&arguments)
}

fn increment(client: &mut Client) -> i64 {
    match run(client, "INCR n") {
        Ok(WireReply::Integer(value)) => value,
        other => panic!("INCR: {other:?}"),
    }
}

#[test]
fn two_thousand_increments_count_two_thousand_while_nodes_are_killed() {
    const CLIENTS: usize = 4;
    const EACH: usize = 500;
    let _alone = alone();
    let mut nodes = Nodes::start(3);
    let done = AtomicI64::new(0);
    let addresses = nodes.addresses();
    let mut values = thread::scope(|scope| {
        let work = |number: usize| {
            let (addresses, done) = (addresses.clone(), &done);
            move || {
                let mut client = client(addresses, number);
                let count = |_| {
                    let value = increment(&mut client);
                    done.fetch_add(1, Ordering::SeqCst);
                    value
                };
                (0..EACH).map(count).collect::<Vec<i64>>()
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(work(number))).collect();
        // In the middle of commands, whatever the others do just now.
        let wait_for = |count: i64| {
            while done.load(Ordering::SeqCst) < count {
                let lost = clients.iter().any(|client| client.is_finished());
                assert!(!lost || done.load(Ordering::SeqCst) >= EACH as i64, "a client has failed");
                thread::yield_now();
            }
        };
        wait_for(300);
        nodes.kill(0);
        wait_for(600);
        nodes.start_again(&[0]);
        wait_for(900);
        nodes.kill(1);
        wait_for(1_200);
        nodes.start_again(&[1]);
        wait_for(1_500);
        nodes.kill(2);
        clients.into_iter().flat_map(|client| client.join().expect("it gets its replies")).collect::<Vec<_>>()
    });
    let all = i64::try_from(CLIENTS * EACH).expect("small");
    assert_eq!(increment(&mut client(addresses, 0)), all + 1);
    values.sort_unstable();
    assert_eq!(values, (1..=all).collect::<Vec<i64>>(), "every reply is its own increment's");
}

#[test]
fn a_session_outlives_the_restart_of_every_node() {
    let _alone = alone();
    let mut nodes = Nodes::start(3);
    let mut client = client(nodes.addresses(), 0);
    let mut expected = 0;
    let mut some = |client: &mut Client| {
        for _ in 0..20 {
            expected += 1;
            assert_eq!(increment(client), expected);
        }
    };
    some(&mut client);
    let mut used = BTreeSet::new();
    for node in 0..3 {
        used.insert(client.connected_to().expect("it has just answered").to_string());
        nodes.stop(node);
        some(&mut client);
        nodes.start_again(&[node]);
        some(&mut client);
    }
    assert!(used.len() > 1, "the client had to move: {used:?}");
    (0..3).for_each(|node| nodes.kill(node));
    nodes.start_again(&[0, 1, 2]);
    some(&mut client);
}

#[test]
fn without_a_majority_commands_are_refused_in_time() {
    let _alone = alone();
    let mut nodes = Nodes::start(3);
    let deadline = Duration::from_secs(2);
    let mut client = Client::new(nodes.addresses(), Options { deadline, ..Options::default() });
    assert_eq!(increment(&mut client), 1);
    nodes.kill(1);
    nodes.kill(2);
    // The first may arrive before the node has missed the others; from then on it knows.
    let first = run(&mut client, "INCR n");
    assert!(
        matches!(&first, Err(ClientError::OutcomeUnknown { .. }) | Ok(WireReply::Error(_))),
        "no majority, yet {first:?}"
    );
    for command in ["SET a 1", "GET n", "INCR n"] {
        let start = Instant::now();
        match run(&mut client, command) {
            Ok(WireReply::Error(text)) => assert!(text.starts_with("NOQUORUM "), "{command}: {text}"),
            other => panic!("{command}: {other:?}"),
        }
        assert!(start.elapsed() < deadline + Duration::from_secs(2), "{command}: {:?}", start.elapsed());
    }
    nodes.start_again(&[1]);
    let mut client = self::client(nodes.addresses(), 0);
    let count = increment(&mut client);
    let possible = if matches!(first, Err(ClientError::OutcomeUnknown { .. })) { 2..=3 } else { 2..=2 };
    assert!(possible.contains(&count), "{count} after {first:?}");
    assert_eq!(run(&mut client, "GET a"), Ok(WireReply::Nil), "what was refused was not applied");
}
