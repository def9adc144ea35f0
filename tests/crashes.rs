//! Nodes that die, freeze and come back while clients write. What is asserted on time is generous, so that a busy
//! machine does not fail the tests; the measured figures are printed.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Cluster, Layout, Load, PATIENCE, Random, Resp, longest_gap, median, seed, until};
use lanekv::client::{Client, Options};
use lanekv::config::Address;
use lanekv::wire::client::WireReply;

/// How long a test lets the load run between two events: long enough for a few hundred writes.
fn pause_between(random: &mut Random) -> Duration {
    Duration::from_millis(150 + u64::try_from(random.below(500)).expect("small"))
}

fn percent(part: &[Duration], limit: Duration) -> usize {
    part.iter().filter(|gap| **gap < limit).count() * 100 / part.len().max(1)
}

#[test]
fn gaps_are_measured_over_the_edges_of_a_span() {
    let begin = Instant::now();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let ms = Duration::from_millis;
    let writes = [at(100), at(110), at(200), at(210), at(500)];
    // The gap from 110 to 200 reaches into the span, so all of it counts; the one from 210 to 500 begins in it.
    assert_eq!(longest_gap(&writes, at(150), at(205)), ms(90));
    assert_eq!(longest_gap(&writes, at(150), at(220)), ms(290));
    assert_eq!(longest_gap(&writes, at(600), at(650)), ms(150));
    assert_eq!(longest_gap(&[], at(100), at(150)), ms(50));
    assert_eq!(median(&[ms(3), ms(1), ms(2)]), ms(2));
}

#[test]
fn no_acknowledged_write_is_lost_when_any_node_is_killed_twenty_times() {
    const KILLS: usize = 20;
    let mut random = Random::new(seed());
    let mut cluster = Cluster::start(Layout::of(3));
    let load = Load::start(&cluster, 12);
    let mut kills = Vec::new();
    for _ in 0..KILLS {
        std::thread::sleep(pause_between(&mut random));
        let victim = random.below(3);
        let was_sender = cluster.senders((victim + 1) % 3).contains(&victim);
        load.goes_down(victim);
        let killed = Instant::now();
        cluster.kill9(victim);
        // Down long enough for the others to notice, seal and go on.
        std::thread::sleep(Duration::from_millis(700));
        let restarted = Instant::now();
        cluster.start_nodes(&[victim]);
        load.is_back(victim);
        kills.push((victim, was_sender, killed, restarted));
    }
    std::thread::sleep(Duration::from_millis(500));
    let end = Instant::now();
    let outcome = load.stop();

    let mut gaps = Vec::new();
    let mut sender_gaps = Vec::new();
    let mut return_gaps = Vec::new();
    for (number, &(victim, was_sender, killed, restarted)) in kills.iter().enumerate() {
        let next = kills.get(number + 1).map_or(end, |kill| kill.2);
        let survivors: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
        let gap = outcome.longest_gap(&survivors, killed, restarted);
        let return_gap = outcome.longest_gap(&survivors, restarted, next - Duration::from_millis(20));
        println!(
            "kill {:2}: node {victim} ({}), longest gap at a survivor {:6.1} ms, while it came back {:6.1} ms",
            number + 1,
            if was_sender { "sender " } else { "passive" },
            gap.as_secs_f64() * 1e3,
            return_gap.as_secs_f64() * 1e3,
        );
        gaps.push(gap);
        return_gaps.push(return_gap);
        if was_sender {
            sender_gaps.push(gap);
        }
    }
    println!(
        "{KILLS} kills: median gap {:.1} ms, of senders ({}) {:.1} ms; {} % under 100 ms; longest {:.1} ms; \
         while coming back median {:.1} ms, longest {:.1} ms",
        median(&gaps).as_secs_f64() * 1e3,
        sender_gaps.len(),
        median(&sender_gaps).as_secs_f64() * 1e3,
        percent(&gaps, Duration::from_millis(100)),
        gaps.iter().max().map_or(0.0, Duration::as_secs_f64) * 1e3,
        median(&return_gaps).as_secs_f64() * 1e3,
        return_gaps.iter().max().map_or(0.0, Duration::as_secs_f64) * 1e3,
    );
    println!(
        "{} writes acknowledged, {} at killed nodes unanswered",
        outcome.acknowledged.len(),
        outcome.unanswered
    );

    outcome.assert_no_complaints();
    cluster.wait_equal(&cluster.all(), PATIENCE);
    outcome.assert_kept(&cluster, &cluster.all());
    assert!(median(&gaps) < Duration::from_secs(1), "median gap {:?}", median(&gaps));
}

#[test]
fn five_nodes_lose_nothing_when_two_at_a_time_are_killed() {
    let mut random = Random::new(seed());
    let mut cluster = Cluster::start(Layout::of(5));
    let load = Load::start(&cluster, 10);
    for _ in 0..4 {
        std::thread::sleep(pause_between(&mut random));
        let first = random.below(5);
        let second = (first + 1 + random.below(4)) % 5;
        for victim in [first, second] {
            load.goes_down(victim);
        }
        for victim in [first, second] {
            cluster.kill9(victim);
        }
        std::thread::sleep(Duration::from_millis(700));
        cluster.start_nodes(&[first, second]);
        for victim in [first, second] {
            load.is_back(victim);
        }
    }
    let outcome = load.stop();
    println!("{} writes acknowledged", outcome.acknowledged.len());
    outcome.assert_no_complaints();
    cluster.wait_equal(&cluster.all(), PATIENCE);
    outcome.assert_kept(&cluster, &cluster.all());
}

#[test]
fn a_frozen_node_holds_the_others_up_for_the_suspicion_time_out_and_rejoins_by_itself() {
    const SUSPICION: Duration = Duration::from_millis(300);
    let cluster = Cluster::start(Layout::of(3));
    let load = Load::start(&cluster, 12);
    let mut gaps = Vec::new();
    for frozen in 0..3 {
        // Freezing a passive node shows nothing: wait until it is a sender.
        cluster.wait_sender(frozen, Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(300));
        load.goes_down(frozen);
        let begin = Instant::now();
        cluster.pause(frozen);
        std::thread::sleep(Duration::from_millis(1500));
        cluster.resume(frozen);
        let resumed = Instant::now();
        until("the node that was frozen answers", PATIENCE, || {
            let mut client = cluster.resp(frozen);
            (client.ask(&["SET", "thawed", "1"]) == Resp::ok()).then_some(())
        });
        let answered = resumed.elapsed();
        load.is_back(frozen);
        cluster.wait_sender(frozen, Duration::from_secs(30));
        println!(
            "node {frozen} frozen: answers {:.1} ms after it goes on, is a sender again after {:.1} s",
            answered.as_secs_f64() * 1e3,
            resumed.elapsed().as_secs_f64()
        );
        gaps.push((frozen, begin, resumed));
    }
    let outcome = load.stop();
    let gaps: Vec<Duration> = gaps
        .into_iter()
        .map(|(frozen, begin, resumed)| {
            let others: Vec<usize> = (0..3).filter(|node| *node != frozen).collect();
            let gap = outcome.longest_gap(&others, begin, resumed);
            println!(
                "node {frozen} frozen: longest gap at another node {:.1} ms (suspicion time-out {SUSPICION:?})",
                gap.as_secs_f64() * 1e3
            );
            gap
        })
        .collect();
    outcome.assert_no_complaints();
    cluster.wait_equal(&cluster.all(), PATIENCE);
    outcome.assert_kept(&cluster, &cluster.all());
    assert!(median(&gaps) < SUSPICION + Duration::from_secs(1), "{gaps:?}");
}

#[test]
fn nothing_is_lost_when_all_nodes_are_killed_at_once() {
    let mut random = Random::new(seed());
    let mut cluster = Cluster::start(Layout::of(3));
    let mut outcomes = Vec::new();
    // All of them come back, then each pair, then all again for the one that was away.
    let returns: [&[usize]; 5] = [&[0, 1, 2], &[0, 1], &[1, 2], &[0, 2], &[0, 1, 2]];
    for (round, back) in returns.iter().enumerate() {
        let load = Load::start_named(&cluster, round * 100, 12);
        std::thread::sleep(Duration::from_millis(400) + pause_between(&mut random));
        for node in 0..3 {
            load.goes_down(node);
        }
        for node in 0..3 {
            cluster.kill9(node);
        }
        outcomes.push(load.stop());
        let begin = Instant::now();
        cluster.start_nodes(back);
        println!("round {round}: nodes {back:?} serve {:.1?} after their start", begin.elapsed());
        for node in *back {
            let key = format!("after round {round} at {node}");
            assert_eq!(cluster.resp(*node).ask(&["SET", &key, "v"]), Resp::ok());
        }
        for outcome in &outcomes {
            outcome.assert_kept(&cluster, back);
        }
        cluster.start_all();
    }
    let acknowledged: usize = outcomes.iter().map(|outcome| outcome.acknowledged.len()).sum();
    println!("{acknowledged} writes acknowledged, all there");
    cluster.wait_equal(&cluster.all(), PATIENCE);
    for outcome in &outcomes {
        outcome.assert_no_complaints();
        outcome.assert_kept(&cluster, &cluster.all());
    }
}

#[test]
fn without_a_majority_nothing_is_promised() {
    let layout = Layout::of(3).set("client-timeout", "1s");
    let mut cluster = Cluster::start(layout);
    assert_eq!(cluster.text(0).ask("SET before 1"), "OK");
    cluster.wait_equal(&cluster.all(), PATIENCE);
    let (mut writer, mut reader, mut local) = (cluster.resp(0), cluster.resp(0), cluster.resp(0));
    assert_eq!(local.ask(&["CONSISTENCY", "local"]), Resp::ok());
    cluster.kill9(1);
    cluster.kill9(2);

    let refused = |what: &str, begin: Instant, reply: &Resp| {
        let took = begin.elapsed();
        let Resp::Error(text) = reply else { panic!("{what}: {reply:?} without a majority") };
        println!("{what}: {:?} after {took:.1?}", text.split(' ').next().unwrap_or_default());
        assert!(text.starts_with("NOQUORUM ") || text.starts_with("TIMEOUT "), "{what}: {text:?}");
        assert!(took < Duration::from_secs(3), "{what}: client time-out of 1 s, answered after {took:?}");
        text.starts_with("NOQUORUM ")
    };
    let mut not_applied = Vec::new();
    for round in 0..5 {
        let key = format!("lost{round}");
        let begin = Instant::now();
        let reply = writer.ask(&["SET", &key, "1"]);
        if refused("a write", begin, &reply) {
            not_applied.push(key);
        }
        let begin = Instant::now();
        let reply = reader.ask(&["GET", "before"]);
        refused("a linearizable read", begin, &reply);
        assert_eq!(local.ask(&["GET", "before"]), Resp::bulk("1"), "a local read needs nobody");
    }

    cluster.start_all();
    assert_eq!(cluster.resp(0).ask(&["SET", "after", "1"]), Resp::ok());
    cluster.wait_equal(&cluster.all(), PATIENCE);
    for node in 0..3 {
        let mut client = cluster.resp(node);
        assert_eq!(client.ask(&["GET", "before"]), Resp::bulk("1"));
        for key in &not_applied {
            assert_eq!(client.ask(&["GET", key]), Resp::Nil, "NOQUORUM says that {key} was not multicast");
        }
    }
}

#[test]
fn a_node_that_was_away_catches_up() {
    let mut cluster = Cluster::start(Layout::of(3));
    cluster.kill9(2);
    let load = Load::start(&cluster, 8);
    std::thread::sleep(Duration::from_secs(2));
    let begin = Instant::now();
    cluster.start_nodes(&[2]);
    println!("serves {:.1?} after its start", begin.elapsed());
    load.is_back(2);
    std::thread::sleep(Duration::from_millis(300));
    let outcome = load.stop();
    outcome.assert_no_complaints();
    cluster.wait_equal(&cluster.all(), PATIENCE);
    outcome.assert_kept(&cluster, &[2]);
}

#[test]
fn a_crash_in_the_middle_of_a_start_does_no_harm() {
    let mut random = Random::new(seed());
    let mut cluster = Cluster::start(Layout::of(3));
    let load = Load::start(&cluster, 6);
    std::thread::sleep(Duration::from_millis(500));
    load.goes_down(1);
    cluster.kill9(1);
    for _ in 0..15 {
        cluster.launch(1);
        std::thread::sleep(Duration::from_micros(u64::try_from(random.below(40_000)).expect("small")));
        cluster.kill9(1);
    }
    cluster.start_nodes(&[1]);
    load.is_back(1);
    std::thread::sleep(Duration::from_millis(300));
    let outcome = load.stop();
    outcome.assert_no_complaints();
    cluster.wait_equal(&cluster.all(), PATIENCE);
    outcome.assert_kept(&cluster, &cluster.all());
}

#[test]
fn nodes_stopped_one_after_the_other_hand_over_without_an_error() {
    let mut cluster = Cluster::start(Layout::of(3));
    let load = Load::start(&cluster, 12);
    let mut spans = Vec::new();
    for node in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        load.goes_down(node);
        let begin = Instant::now();
        assert_eq!(cluster.stop(node).code(), Some(0));
        cluster.start_nodes(&[node]);
        load.is_back(node);
        std::thread::sleep(Duration::from_millis(500));
        spans.push((node, begin, Instant::now()));
    }
    let outcome = load.stop();
    for (node, begin, end) in spans {
        let others: Vec<usize> = (0..3).filter(|other| *other != node).collect();
        let gap = outcome.longest_gap(&others, begin, end - Duration::from_millis(20));
        println!(
            "node {node} stopped and started: longest gap at another node {:.1} ms",
            gap.as_secs_f64() * 1e3
        );
    }
    outcome.assert_no_complaints();
    cluster.wait_equal(&cluster.all(), PATIENCE);
    outcome.assert_kept(&cluster, &cluster.all());
}

#[test]
fn counting_through_kills_is_exact_with_sessions() {
    const CLIENTS: usize = 30;
    const EACH: usize = 300;
    let mut random = Random::new(seed());
    let mut cluster = Cluster::start(Layout::of(3));
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut client = session_client(&cluster, number % 3);
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let command = [b"INCR".to_vec(), b"counter".to_vec()];
                let mut last = 0;
                for _ in 0..EACH {
                    let reply = client.execute(&command).unwrap_or_else(|error| panic!("{error}"));
                    let WireReply::Integer(count) = reply else { panic!("INCR answered {reply:?}") };
                    assert!(count > last, "{count} after {last}");
                    last = count;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut kills = 0;
    while done.load(Ordering::Relaxed) < CLIENTS * EACH * 9 / 10 && clients.iter().any(|c| !c.is_finished()) {
        std::thread::sleep(pause_between(&mut random) / 3);
        let victim = random.below(3);
        cluster.kill9(victim);
        std::thread::sleep(Duration::from_millis(200));
        cluster.start_nodes(&[victim]);
        kills += 1;
    }
    for client in clients {
        client.join().expect("a client failed");
    }
    println!("{} INCR by {CLIENTS} clients with sessions, {kills} nodes killed meanwhile", CLIENTS * EACH);
    assert!(kills > 0, "counted before the first kill");
    for node in 0..3 {
        let count = cluster.resp(node).ask(&["GET", "counter"]);
        assert_eq!(count, Resp::bulk((CLIENTS * EACH).to_string()), "at node {node}");
    }
    cluster.wait_equal(&cluster.all(), PATIENCE);
}

/// A client of the library: it has a session and moves between nodes.
fn session_client(cluster: &Cluster, first: usize) -> Client {
    let addresses: Vec<Address> = (0..cluster.len())
        .map(|node| Address::parse(cluster.address(node)).expect("an address of ours"))
        .collect();
    let options = Options { first: Some(first), deadline: Duration::from_secs(30), ..Options::default() };
    Client::new(addresses, options)
}
