//! Whole clusters as users meet them: separate processes, a shared `nodes.conf`, clients at every node. A write
//! that was answered at one node is read at every other one at once; nothing here waits between a write and a read.

mod common;

use std::time::{Duration, Instant};

use common::{
    Cluster, Finished, Layout, PATIENCE, PortBlock, Resp, RespClient, Running, TempDir, TextClient, kvclient,
    kvnode, median, seed,
};

const USERS: [(&str, &str); 5] = [
    ("user1", "alice"),
    ("user2", "bob"),
    ("user3", "carol"),
    ("user4", "dave"),
    ("user5", "\"eve with blanks\""),
];

const CITIES: [(&str, &str); 5] =
    [("city1", "london"), ("city2", "paris"), ("city3", "tokyo"), ("city4", "lima"), ("city5", "oslo")];

fn unquoted(value: &str) -> &str {
    value.trim_matches('"')
}

/// The conversation with two terminals of the first example in the README, over any number of nodes.
fn users_and_cities(nodes: usize) {
    let cluster = Cluster::start(Layout::of(nodes));
    let mut at: Vec<TextClient> = (0..nodes).map(|node| cluster.text(node)).collect();
    let last = nodes - 1;
    for (key, value) in USERS {
        assert_eq!(at[0].ask(&format!("SET {key} {value}")), "OK");
    }
    for reader in &mut at[1..] {
        for (key, value) in USERS {
            assert_eq!(reader.ask(&format!("GET {key}")), unquoted(value));
        }
    }
    for (key, value) in CITIES {
        assert_eq!(at[last].ask(&format!("SET {key} {value}")), "OK");
    }
    for reader in &mut at[..last] {
        for (key, value) in CITIES {
            assert_eq!(reader.ask(&format!("GET {key}")), value);
        }
    }
    assert_eq!(at[0].ask("SET user1 alicia"), "OK");
    for reader in &mut at {
        assert_eq!(reader.ask("GET user1"), "alicia");
    }
    for number in 0..30 {
        let writer = number % nodes;
        assert_eq!(at[writer].ask(&format!("SET key{number} {number}")), "OK");
        for reader in &mut at {
            assert_eq!(reader.ask(&format!("GET key{number}")), number.to_string());
        }
    }
    for reader in &mut at {
        assert_eq!(reader.ask("GET nothing"), "Not Found");
        assert_eq!(reader.ask("DBSIZE"), "40");
    }
    cluster.wait_equal(&cluster.all(), PATIENCE);
}

#[test]
fn one_node_serves_alone() {
    let cluster = Cluster::start(Layout::of(1));
    let mut client = cluster.text(0);
    assert_eq!(client.ask("SET name john"), "OK");
    assert_eq!(client.ask("GET name"), "john");
}

#[test]
fn two_nodes_read_each_others_writes_at_once() {
    users_and_cities(2);
}

#[test]
fn three_nodes_read_each_others_writes_at_once() {
    users_and_cities(3);
}

#[test]
fn five_nodes_read_each_others_writes_at_once() {
    users_and_cities(5);
}

#[test]
fn the_prompt_program_talks_to_three_nodes() {
    let cluster = Cluster::start(Layout::of(3));
    let run = |arguments: &[&str], input: &str| {
        Finished::of(kvclient().arg(cluster.conf()).args(arguments), input.as_bytes())
    };
    let one = run(&["PUT", "name", "john"], "");
    assert_eq!((one.code, one.stdout.as_str()), (Some(0), "OK\n"), "{one:?}");
    let one = run(&["GET", "name"], "");
    assert_eq!((one.code, one.stdout.as_str()), (Some(0), "john\n"), "{one:?}");
    let one = run(&["GET", "nothing"], "");
    assert_eq!((one.code, one.stdout.as_str()), (Some(0), "Not Found\n"), "{one:?}");

    let piped = run(&[], "put name jane\nGET name\nGET nothing\nINCR count\nDEL name nothing\n");
    assert_eq!(piped.stdout, "OK\njane\nNot Found\n1\n1\n", "{piped:?}");
    assert_eq!(piped.code, Some(0), "{piped:?}");
}

#[test]
fn the_prompt_program_brings_its_own_cluster_and_finds_its_data_again() {
    let dir = TempDir::new("own-cluster");
    let run = |input: &str| Finished::of(kvclient().current_dir(dir.path()), input.as_bytes());
    let first = run("PUT name john\nGET name\nGET nothing\n");
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), "OK\njohn\nNot Found\n"), "{first:?}");
    assert!(!first.stderr.is_empty(), "it says on standard error that it started a cluster");
    assert!(dir.path().join("kvdata").is_dir());
    let again = run("GET name\n");
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "john\n"), "{again:?}");
}

#[test]
fn the_ready_line_names_node_view_and_address() {
    let mut cluster = Cluster::prepare(Layout::of(3), PortBlock::take().expect("free ports"));
    for node in 0..3 {
        cluster.launch(node);
    }
    for node in 0..3 {
        let line = cluster.wait_ready(node);
        let words: Vec<&str> = line.split(' ').collect();
        let address = format!("address={}", cluster.address(node));
        assert_eq!([words[0], words[1], words[3]], ["ready", &format!("node={node}"), &address], "{line:?}");
        assert!(words[2].strip_prefix("view=").is_some_and(|view| view.parse::<u64>().is_ok()), "{line:?}");
    }
}

#[test]
fn a_stopped_cluster_comes_back_with_its_data() {
    let mut cluster = Cluster::start(Layout::of(3));
    assert_eq!(cluster.text(1).ask("SET name john"), "OK");
    for node in 0..3 {
        assert_eq!(cluster.stop(node).code(), Some(0), "{}", "SIGTERM ends a node with exit code 0");
    }
    cluster.start_all();
    for node in 0..3 {
        assert_eq!(cluster.text(node).ask("GET name"), "john");
    }
}

#[test]
fn nodes_stopped_all_at_once_end_quickly_and_write_little() {
    let mut cluster = Cluster::start(Layout::of(3));
    assert_eq!(cluster.text(0).ask("SET name john"), "OK");
    let begin = Instant::now();
    for node in 0..3 {
        cluster.running(node).signal(rustix::process::Signal::TERM);
    }
    for node in 0..3 {
        let status = cluster.running_mut(node).wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(0), "node {node}");
    }
    println!("three nodes stopped together end within {:.1?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for node in 0..3 {
        // There is nobody to hand over to: sealing one view after the other leads nowhere.
        let views = cluster.running(node).log_text().matches("entered view").count();
        assert!(views < 20, "node {node} entered {views} views while stopping");
        cluster.forget(node);
    }
    cluster.start_all();
    assert_eq!(cluster.text(1).ask("GET name"), "john");
}

#[test]
fn a_node_stopped_under_load_answers_what_it_took() {
    let mut cluster = Cluster::start(Layout::of(3));
    let mut client = cluster.resp(0);
    let mut other = cluster.resp(1);
    assert_eq!(other.ask(&["SET", "before", "1"]), Resp::ok());
    let commands: Vec<u8> =
        (0..200).flat_map(|n| common::encode_command(&["SET", &format!("k{n}"), "v"])).collect();
    client.send_raw(&commands).expect("connected");
    assert_eq!(client.reply().expect("the first reply"), Resp::ok());
    assert_eq!(cluster.stop(0).code(), Some(0));
    let mut answered = 1;
    while let Ok(reply) = client.reply() {
        if reply == Resp::ok() {
            answered += 1;
        } else {
            assert!(reply.is_error(), "{reply:?}");
        }
    }
    for number in 0..answered {
        assert_eq!(other.ask(&["GET", &format!("k{number}")]), Resp::bulk("v"), "answered, so kept");
    }
}

#[test]
fn conflicting_writes_leave_the_same_value_everywhere() {
    let cluster = Cluster::start(Layout::of(3));
    let writers: Vec<_> = (0..12)
        .map(|writer| {
            let mut client = cluster.resp(writer % 3);
            std::thread::spawn(move || {
                for round in 0..300 {
                    let value = format!("writer {writer} round {round}");
                    assert_eq!(client.ask(&["SET", "contended", &value]), Resp::ok());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("a writer failed");
    }
    let values: Vec<Resp> = (0..3).map(|node| cluster.resp(node).ask(&["GET", "contended"])).collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    // Each writer waits for its answers, so the winner is somebody's last.
    assert!(values[0].text().ends_with("round 299"), "{values:?}");
    cluster.wait_equal(&cluster.all(), PATIENCE);
}

#[test]
fn thirty_clients_count_to_thirty_thousand() {
    let cluster = Cluster::start(Layout::of(3));
    let begin = Instant::now();
    let clients: Vec<_> = (0..30)
        .map(|number| {
            let mut client = cluster.resp(number % 3);
            std::thread::spawn(move || {
                let mut last = 0;
                for _ in 0..1_000 {
                    let Resp::Integer(count) = client.ask(&["INCR", "counter"]) else {
                        panic!("INCR answers a number")
                    };
                    assert!(count > last, "{count} after {last}");
                    last = count;
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("a client failed");
    }
    println!("30,000 INCR by 30 clients at 3 nodes took {:.2?}", begin.elapsed());
    for node in 0..3 {
        assert_eq!(cluster.resp(node).ask(&["GET", "counter"]), Resp::bulk("30000"));
    }
}

#[test]
fn keys_and_values_are_any_bytes_of_any_length_up_to_the_limits() {
    let cluster = Cluster::start(Layout::of(3).set("value-max", "16MiB"));
    let mut random = common::Random::new(seed());
    let (mut writer, mut reader) = (cluster.resp(0), cluster.resp(2));
    for (key_len, value_len) in [(1, 0), (0, 1), (65_536, 100), (300, 65_536), (20, 3 << 20), (20, 16 << 20)]
    {
        let (key, value) = (random.bytes(key_len), random.bytes(value_len));
        assert_eq!(writer.ask(&[b"SET".as_slice(), &key, &value]), Resp::ok(), "{key_len} {value_len}");
        let got = reader.ask(&[b"GET".as_slice(), &key]);
        assert!(got == Resp::bulk(&value), "a value of {value_len} bytes comes back changed");
    }
    for (key_len, value_len) in [(65_537, 1), (1, (16 << 20) + 1)] {
        let mut client = cluster.resp(1);
        // The node may close as soon as it has seen the length, while we still send.
        let asked = client.try_ask(&[b"SET".as_slice(), &random.bytes(key_len), &random.bytes(value_len)]);
        assert!(!asked.is_ok_and(|reply| !reply.is_error()), "{key_len} {value_len} was taken");
    }
    assert_eq!(reader.ask(&["DBSIZE"]), Resp::Integer(6));
}

#[test]
fn a_connection_chooses_how_fresh_its_reads_are() {
    let cluster = Cluster::start(Layout::of(3));
    let mut writer = cluster.text(0);
    for level in ["linearizable", "ordered"] {
        let mut readers: Vec<TextClient> = (0..3).map(|node| cluster.text(node)).collect();
        for reader in &mut readers {
            assert_eq!(reader.ask(&format!("CONSISTENCY {level}")), "OK");
        }
        for round in 0..100 {
            assert_eq!(writer.ask(&format!("SET {level} {round}")), "OK");
            for reader in &mut readers {
                assert_eq!(reader.ask(&format!("GET {level}")), round.to_string());
            }
        }
    }
    // A local read may be behind, but never goes back, and gets there.
    let mut reader = cluster.text(1);
    assert_eq!(reader.ask("CONSISTENCY local"), "OK");
    let mut last = -1;
    for round in 0..100 {
        assert_eq!(writer.ask(&format!("SET local {round}")), "OK");
        let seen = reader.ask("GET local");
        let seen: i64 = if seen == "Not Found" { -1 } else { seen.parse().expect("a round") };
        assert!((last..=round).contains(&seen), "{seen} after {last} in round {round}");
        last = seen;
    }
    common::until("a local read sees the last write", PATIENCE, || {
        (reader.ask("GET local") == "99").then_some(())
    });
    assert!(reader.ask("CONSISTENCY sometimes").starts_with("ERR "));
}

#[test]
fn a_lone_write_or_read_waits_for_no_heartbeat() {
    for nodes in [1, 2, 3, 5] {
        // Heartbeats so rare that whoever waits for one is noticed.
        let layout = Layout::of(nodes).set("heartbeat", "1s").set("suspicion-timeout", "5s");
        let cluster = Cluster::start(layout);
        for node in 0..nodes {
            let mut client = cluster.resp(node);
            let (mut writes, mut reads) = (Vec::new(), Vec::new());
            for round in 0..30 {
                // Nothing else is under way: what a command needs it has to set going itself.
                std::thread::sleep(Duration::from_millis(3));
                let begin = Instant::now();
                assert_eq!(client.ask(&["SET", "lone", &round.to_string()]), Resp::ok());
                writes.push(begin.elapsed());
                let begin = Instant::now();
                assert_eq!(client.ask(&["GET", "lone"]), Resp::bulk(round.to_string()));
                reads.push(begin.elapsed());
            }
            let longest = writes.iter().chain(&reads).max().copied().unwrap_or_default();
            println!(
                "{nodes} nodes, at node {node}: a lone write takes {:.2?}, a lone read {:.2?} (median); \
                 longest {longest:.2?}",
                median(&writes),
                median(&reads)
            );
            assert!(longest < Duration::from_millis(500), "{nodes} nodes: {longest:?}, writes {writes:.1?}");
        }
    }
}

#[test]
fn every_option_of_sync_works() {
    for mode in ["always", "interval", "never"] {
        let mut cluster = Cluster::start(Layout::of(3).flag("--sync").flag(mode));
        assert_eq!(cluster.text(0).ask("SET name john"), "OK");
        for node in 0..3 {
            cluster.kill9(node);
        }
        // The machine did not stop, so what the kernel was given is there in every mode.
        cluster.start_all();
        assert_eq!(cluster.text(2).ask("GET name"), "john", "--sync {mode}");
    }
}

#[test]
fn an_idle_cluster_needs_less_than_a_hundredth_of_a_core_per_node() {
    let cluster = Cluster::start(Layout::of(3));
    assert_eq!(cluster.text(0).ask("SET name john"), "OK");
    let span = Duration::from_secs(5);
    let before: Vec<Duration> = (0..3).map(|node| cluster.running(node).cpu_time()).collect();
    let begin = Instant::now();
    // Nothing is awaited here: time itself is what is measured.
    std::thread::sleep(span);
    for (node, before) in before.into_iter().enumerate() {
        let used = cluster.running(node).cpu_time() - before;
        let share = used.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
        println!("idle: node {node} used {share:.2} % of a core");
        // The kernel counts in hundredths of a second: one tick of tolerance.
        assert!(share < 1.25, "node {node} used {share:.2} % of a core while idle");
    }
}

#[test]
fn nodes_found_the_cluster_only_when_all_are_there() {
    let mut cluster = Cluster::prepare(Layout::of(3), PortBlock::take().expect("free ports"));
    cluster.launch(0);
    cluster.launch(1);
    // View 0 is decided by all its voters: two of three must wait. Time is what is tested here.
    assert!(!cluster.running_mut(0).is_ready_within(Duration::from_secs(1)), "ready without node 2");
    let reply = cluster.text(0).ask("SET name john");
    assert!(reply.starts_with("LOADING ") || reply.starts_with("NOQUORUM "), "{reply:?}");
    let reply = cluster.text(0).ask("SAVE");
    assert!(reply.starts_with("LOADING ") && reply.ends_with("; no snapshot was taken"), "{reply:?}");
    assert_eq!(cluster.text(0).ask("BGSAVE"), "Background saving started");
    cluster.launch(2);
    for node in 0..3 {
        cluster.wait_ready(node);
    }
    assert_eq!(cluster.text(0).ask("SET name john"), "OK");
    assert_eq!(cluster.text(2).ask("GET name"), "john");
}

#[test]
fn a_node_without_flags_keeps_its_data_under_the_current_directory() {
    let ports = PortBlock::take().expect("free ports");
    let dir = TempDir::new("defaults");
    let address = format!("127.0.0.1:{}", ports.port(0));
    let conf = dir.write("nodes.conf", &format!("0 {address}\n"));
    let mut node =
        Running::start(kvnode().arg("0").arg(&conf).current_dir(dir.path()), &dir.path().join("log"));
    node.wait_ready();
    assert_eq!(RespClient::connect(&address).ask(&["SET", "name", "john"]), Resp::ok());
    assert!(dir.path().join("kvdata/node-0").is_dir());
}
