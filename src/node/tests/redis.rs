//! What Redis clients see of a cluster: expiry, transactions, messages, other connections, the cluster view.

use super::*;

/// Lets time pass as [`Cluster::pass`] does, while the wall clocks stand still.
fn pass_without_wall(cluster: &mut Cluster, millis: u64) {
    let wall = cluster.now.wall;
    for _ in 0..millis {
        cluster.pass(1);
        cluster.now.wall = wall;
    }
}

#[test]
fn a_key_expires_at_all_nodes_with_nobody_writing() {
    let mut cluster = Cluster::new(3);
    (0..3).for_each(|node| cluster.open(node, 1));
    assert_eq!(cluster.ask(0, 1, "SET k v PX 300\n"), "OK\n");
    assert_eq!(cluster.ask(1, 1, "GET k\nDBSIZE\n"), "v\n1\n");
    assert_eq!(cluster.hosts[1].node.store().mortal_key_count(), 1);
    cluster.pass(200);
    assert_eq!(cluster.ask(2, 1, "EXISTS k\n"), "1\n");
    let left: u64 = cluster.ask(2, 1, "PTTL k\n").trim().parse().unwrap();
    assert!((100..=200).contains(&left), "the time goes on while nobody writes: {left}");
    cluster.pass(250);
    for node in 0..3 {
        assert_eq!(cluster.ask(node, 1, "GET k\nEXISTS k\nDBSIZE\nKEYS *\n"), "Not Found\n0\n0\n(empty)\n");
        let store = cluster.hosts[node].node.store();
        assert!(!store.has_expired() && store.mortal_key_count() == 0, "its memory is freed");
    }
    // With nothing left to expire, nobody ticks any more.
    let index = cluster.hosts[0].node.report().index;
    cluster.pass(500);
    assert_eq!(cluster.hosts[0].node.report().index, index);
}

#[test]
fn clocks_that_jump_back_revive_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    assert_eq!(cluster.ask(0, 1, "SET gone v PX 100\nSET stays v PX 5000\n"), "OK\nOK\n");
    cluster.pass(300);
    assert_eq!(cluster.ask(0, 1, "EXISTS gone stays\n"), "1\n");
    cluster.now.wall = Millis(cluster.now.wall.0 - 3_600_000);
    cluster.pass(300);
    assert_eq!(cluster.ask(0, 1, "EXISTS gone\nEXISTS stays\nSET new v PX 100\n"), "0\n1\nOK\n");
    // The replicated time stands still until the clocks have caught up: a key lives longer, never shorter.
    pass_without_wall(&mut cluster, 300);
    assert_eq!(cluster.ask(0, 1, "EXISTS new\n"), "1\n");
    cluster.now.wall = cluster.now.wall.plus(Millis(3_600_000));
    cluster.pass(300);
    assert_eq!(cluster.ask(0, 1, "EXISTS new\n"), "0\n");
}

#[test]
fn when_the_lowest_sender_falls_silent_another_passes_the_time_on() {
    let mut cluster = Cluster::new(3);
    cluster.open(2, 1);
    assert_eq!(cluster.ask(2, 1, "SET k v PX 3000\n"), "OK\n");
    cluster.cut = NodeSet::only(id(0));
    cluster.pass(8_000);
    assert_eq!(cluster.ask(2, 1, "CONSISTENCY local\nGET k\n"), "OK\nNot Found\n");
    assert_eq!(cluster.hosts[1].node.store().key_count(), 0);
}

#[test]
fn a_transaction_in_one_segment_sees_what_it_watches() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    cluster.open(1, 1);
    // EXEC needs the answer to WATCH, which takes a round trip: all in one piece all the same.
    let line = "SET k 1\nWATCH k none\nGET k\nMULTI\nINCR k\nPING\nSET\nEXEC\nGET k\n";
    let wrong = "ERR wrong number of arguments for 'set' command";
    assert_eq!(
        cluster.ask(0, 1, line),
        format!(
            "OK\nOK\n1\nOK\nQUEUED\nQUEUED\n{wrong}\nEXECABORT Transaction discarded because of previous errors.\n1\n"
        )
    );
    let line = "WATCH k none\nMULTI\nINCR k\nPING\nGET k\nEXEC\nGET k\n";
    assert_eq!(cluster.ask(0, 1, line), "OK\nOK\nQUEUED\nQUEUED\nQUEUED\n1) 2\n2) PONG\n3) 2\n2\n");
    // A write at another node between WATCH and EXEC.
    assert_eq!(cluster.ask(0, 1, "WATCH k\nMULTI\nSET k mine\n"), "OK\nOK\nQUEUED\n");
    assert_eq!(cluster.ask(1, 1, "SET k theirs\n"), "OK\n");
    assert_eq!(cluster.ask(0, 1, "EXEC\nGET k\n"), "Not Found\ntheirs\n");
    // Its own write counts, UNWATCH forgets, an EXEC as well.
    assert_eq!(
        cluster.ask(0, 1, "WATCH k\nSET k x\nMULTI\nGET k\nEXEC\n"),
        "OK\nOK\nOK\nQUEUED\nNot Found\n"
    );
    let line = "WATCH k\nSET k y\nUNWATCH\nMULTI\nGET k\nEXEC\n";
    assert_eq!(cluster.ask(0, 1, line), "OK\nOK\nOK\nOK\nQUEUED\n1) y\n");
    // A key that expires counts as written.
    assert_eq!(cluster.ask(0, 1, "SET k z PX 100\nWATCH k\nMULTI\nGET k\n"), "OK\nOK\nOK\nQUEUED\n");
    cluster.pass(300);
    assert_eq!(cluster.ask(0, 1, "EXEC\n"), "Not Found\n");
    let digests: Vec<u64> = cluster.hosts.iter().map(|host| host.node.store().digest()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:x?}");
}

#[test]
fn what_could_not_be_watched_stops_the_transaction() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    cluster.cut = NodeSet::only(id(1)).with(id(2));
    cluster.say(0, 1, b"WATCH k\nMULTI\nSET k 1\nEXEC\n");
    cluster.pass(CLIENT_TIMEOUT + 100);
    let heard = cluster.hear(0, 1);
    let lines: Vec<&str> = heard.lines().collect();
    assert!(lines[0].starts_with("TIMEOUT") || lines[0].starts_with("NOQUORUM"), "{heard}");
    assert_eq!(lines[1..], ["OK", "QUEUED", "Not Found"]);
    cluster.cut = NodeSet::EMPTY;
    cluster.pass(3_000);
    assert_eq!(cluster.ask(0, 1, "GET k\n"), "Not Found\n");
}

#[test]
fn messages_reach_all_nodes_in_one_order() {
    let mut cluster = Cluster::new(3);
    for node in 0..3 {
        cluster.open(node, 1);
        cluster.open(node, 2);
        assert_eq!(
            cluster.ask(node, 1, "SUBSCRIBE news\r\n"),
            "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
        );
    }
    for node in 0..3 {
        cluster.say(node, 2, format!("PUBLISH news from-{node}\nPUBLISH other x\n").as_bytes());
    }
    cluster.run();
    let heard: Vec<String> = (0..3).map(|node| cluster.hear(node, 1)).collect();
    assert_eq!(heard[0].matches("message").count(), 3, "{}", heard[0]);
    assert!(heard.iter().all(|other| *other == heard[0]), "{heard:?}");
    assert_eq!(cluster.hear(0, 2), "1\n0\n", "those at this node are counted");
    let refused = cluster.ask(0, 1, "GET a\r\n");
    assert!(refused.starts_with("-ERR Can't execute 'get'"), "{refused}");
    assert_eq!(cluster.ask(0, 1, "PING\r\n"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    // In RESP3 messages are pushes, and commands go on.
    cluster.ask(1, 2, "HELLO 3\r\n");
    assert!(cluster.ask(1, 2, "PSUBSCRIBE n*\r\n").starts_with(">3\r\n$10\r\npsubscribe"));
    assert_eq!(cluster.ask(1, 2, "PUBLISH nuts 1\r\n").split_once('>').unwrap().0, ":1\r\n");
    assert_eq!(cluster.ask(1, 2, "PUBSUB NUMPAT\r\nRESET\r\nPUBSUB NUMPAT\r\n"), ":1\r\n+RESET\r\n:0\r\n");
    cluster.hosts[0].node.client_gone(key(1));
    assert_eq!(cluster.ask(0, 2, "PUBLISH news x\nPUBSUB CHANNELS\n"), "0\n(empty)\n");
    // In a transaction too.
    let line = "MULTI\nSET a 1\nPUBLISH news y\nEXEC\n";
    assert_eq!(cluster.ask(2, 2, line).lines().last(), Some("2) 1"));
}

#[test]
fn notifications_follow_from_the_commands_of_other_nodes() {
    let mut cluster = Cluster::new(3);
    cluster.open(0, 1);
    cluster.open(0, 2);
    cluster.open(1, 2);
    assert_eq!(cluster.ask(0, 2, "CONFIG SET notify-keyspace-events Ex$\n"), "OK\n");
    cluster.ask(0, 1, "PSUBSCRIBE __key*\n");
    cluster.ask(1, 2, "SET k v PX 100\nDEL k\nSET k v PX 100\n");
    cluster.pass(300);
    let heard = cluster.hear(0, 1);
    let events: Vec<&str> = heard.lines().filter_map(|line| line.strip_prefix("3) ")).collect();
    // Without `g` neither `expire` nor `del`.
    assert_eq!(events, ["__keyevent@0__:set", "__keyevent@0__:set", "__keyevent@0__:expired"], "{heard}");
}

#[test]
fn connections_are_listed_and_killed_and_may_be_silent() {
    let mut cluster = Cluster::new(1);
    for client in 1..4 {
        cluster.open(0, client);
    }
    cluster.hosts[0].node.client_address(key(2), "10.0.0.1:5");
    assert_eq!(cluster.ask(0, 2, "CLIENT SETNAME two\nCLIENT SETINFO lib-name x\n"), "OK\nOK\n");
    let list = cluster.ask(0, 1, "CLIENT LIST\n");
    assert_eq!(list.matches("id=").count(), 3, "{list}");
    assert!(list.contains("addr=10.0.0.1:5") && list.contains("name=two") && list.contains("lib-name=x"));
    assert_eq!(cluster.ask(0, 1, "CLIENT KILL ADDR 10.0.0.1:5\n"), "1\n");
    assert_eq!(cluster.hosts[0].closed, [key(2)]);
    assert_eq!(cluster.ask(0, 1, "CLIENT KILL 10.0.0.1:5\n"), "ERR No such client\n");
    let line = "CLIENT REPLY OFF\nSET a 1\nGET a\nCLIENT REPLY ON\nCLIENT REPLY SKIP\nGET a\nGET a\n";
    assert_eq!(cluster.ask(0, 3, line), "OK\n1\n");
    // Whoever is told nothing need not leave anything out; so it is in Redis.
    let line = "CLIENT REPLY OFF\nCLIENT REPLY SKIP\nPING\nPING\nCLIENT REPLY ON\n";
    assert_eq!(cluster.ask(0, 3, line), "OK\n");
    // Only what switches replies on is answered, and only when it does.
    for (line, told) in [
        ("CLIENT REPLY SKIP\nCLIENT REPLY ON\nPING\n", "OK\nPONG\n"),
        ("CLIENT REPLY SKIP\nRESET\nPING\n", "PONG\n"),
        ("CLIENT REPLY OFF\nMULTI\nCLIENT REPLY ON\nDISCARD\nRESET\nPING\n", "RESET\nPONG\n"),
    ] {
        assert_eq!(cluster.ask(0, 3, line), told, "{line}");
    }
}

/// A client that hears its own messages reads them all.
#[test]
fn whoever_tells_himself_much_is_not_cut_off() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    cluster.ask(0, 1, "HELLO 3\r\n");
    cluster.ask(0, 1, "SUBSCRIBE news\r\n");
    let publish = |len| command("PUBLISH", ["news".to_owned(), "x".repeat(len)].into_iter());
    // The last alone is longer than all that may wait together.
    for (round, len) in std::iter::repeat_n(1 << 20, 40).chain([33 << 20]).enumerate() {
        let heard = cluster.ask_much(0, 1, &publish(len));
        assert!(cluster.hosts[0].closed.is_empty(), "after {round} messages, each of which was read");
        assert!(heard.len() > len && heard.contains(":1\r\n"), "{} bytes", heard.len());
    }
}

/// Only answers are left out, and those to SUBSCRIBE and its kind are none: they tell where the messages begin.
#[test]
fn messages_come_to_whoever_wanted_no_answers() {
    let subscribed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    let unsubscribed = "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n";
    let message = "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n";
    for version in [2, 3] {
        let written = |reply: &str| if version == 3 { reply.replacen('*', ">", 1) } else { reply.to_owned() };
        for word in ["SKIP", "OFF"] {
            let mut cluster = Cluster::new(1);
            cluster.open(0, 1);
            cluster.open(0, 2);
            cluster.ask(0, 1, &format!("HELLO {version}\r\n"));
            let subscribe = format!("CLIENT REPLY {word}\r\nSUBSCRIBE news\r\n");
            assert_eq!(cluster.ask(0, 1, &subscribe), written(subscribed), "{word}");
            let publish = |cluster: &mut Cluster| {
                assert_eq!(cluster.ask(0, 2, "PUBLISH news hello\r\n"), ":1\r\n");
                assert_eq!(cluster.hear(0, 1), written(message), "{word}");
            };
            publish(&mut cluster);
            let switched_on = cluster.ask(0, 1, "CLIENT REPLY ON\r\n");
            match (version, word) {
                // It has no answers that it could tell from messages; it cannot do that, and is not told so either.
                (2, "OFF") => assert_eq!(switched_on, ""),
                (2, _) => assert!(switched_on.starts_with("-ERR Can't execute 'client|reply'")),
                _ => assert_eq!(switched_on, "+OK\r\n"),
            }
            publish(&mut cluster);
            assert_eq!(cluster.ask(0, 1, "UNSUBSCRIBE\r\n"), written(unsubscribed), "{word}");
            assert_eq!(cluster.ask(0, 1, "CLIENT REPLY ON\r\nPING\r\n"), "+OK\r\n+PONG\r\n");
        }
    }
}

#[test]
fn slots_are_shared_among_those_that_live() {
    let mut cluster = Cluster::configured(3, "set cluster-view yes\n");
    cluster.greet_all();
    cluster.pass(100);
    cluster.open(0, 1);
    assert!(cluster.ask(0, 1, "CLUSTER INFO\n").contains("cluster_size:3"));
    let slots = |cluster: &mut Cluster| -> Vec<String> {
        let text = cluster.ask(0, 1, "CLUSTER NODES\n");
        text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect()
    };
    assert_eq!(slots(&mut cluster), ["0-5460", "5461-10921", "10922-16383"]);
    assert_eq!(cluster.ask(0, 1, "CLUSTER KEYSLOT name\n"), "5798\n");
    assert_eq!(cluster.ask(0, 1, "SET name x\nCLUSTER GETKEYSINSLOT 5798 9\n"), "OK\n1) name\n");
    cluster.cut = NodeSet::only(id(1));
    cluster.pass(2_000);
    assert_eq!(slots(&mut cluster), ["0-8191", "8192-16383"]);
}

#[test]
fn the_listener_for_cluster_mode_shows_a_cluster_of_such_listeners() {
    let file: String =
        (0..3).map(|i| format!("{i} 127.0.0.1:{} cluster=host-{i}:{}\n", 7100 + i, 6100 + i)).collect();
    let mut cluster = Cluster::of_file(3, &file);
    cluster.greet_all();
    cluster.pass(100);
    cluster.open(0, 1);
    cluster.open(0, 2);
    cluster.hosts[0].node.client_endpoint(key(2), Endpoint::Cluster);
    let disabled = "ERR This instance has cluster support disabled\n";
    assert_eq!(cluster.ask(0, 1, "CLUSTER SLOTS\nASKING\n"), disabled.repeat(2));
    let told = |cluster: &mut Cluster, client| {
        let text = cluster.ask(0, client, "INFO\n");
        ["redis_mode:", "tcp_port:", "cluster_enabled:"].map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("in INFO");
            line.trim_end().to_owned()
        })
    };
    assert_eq!(told(&mut cluster, 1), ["standalone", "7100", "0"]);
    assert_eq!(told(&mut cluster, 2), ["cluster", "6100", "1"]);
    assert!(cluster.ask(0, 1, "HELLO\n").contains("standalone"));
    assert!(cluster.ask(0, 2, "HELLO\n").contains("cluster"));
    assert_eq!(cluster.ask(0, 2, "CONFIG GET port\nASKING\n"), "1) port\n2) 6100\nOK\n");
    let nodes = cluster.ask(0, 2, "CLUSTER NODES\n");
    for i in 0..3 {
        assert!(nodes.contains(&format!(" host-{i}:{}@{} ", 6100 + i, 16100 + i)), "{nodes}");
        for command in ["CLUSTER SLOTS\n", "CLUSTER SHARDS\n"] {
            let said = cluster.ask(0, 2, command);
            assert!(said.contains(&format!("host-{i}")) && said.contains(&format!("{}", 6100 + i)), "{said}");
            assert!(!said.contains("71"), "{said}");
        }
    }
}

#[test]
fn members_without_such_a_listener_are_shown_if_their_address_shows_a_cluster() {
    for (setting, size) in [("", "cluster_size:1"), ("set cluster-view yes\n", "cluster_size:2")] {
        let file = format!("0 127.0.0.1:7100 cluster=127.0.0.1:6100\n1 127.0.0.1:7101\n{setting}");
        let mut cluster = Cluster::of_file(2, &file);
        cluster.greet_all();
        cluster.pass(100);
        cluster.open(0, 1);
        cluster.hosts[0].node.client_endpoint(key(1), Endpoint::Cluster);
        assert!(cluster.ask(0, 1, "CLUSTER INFO\n").contains(size));
    }
}

#[test]
fn shutdown_is_for_clients_on_the_same_machine() {
    let mut cluster = Cluster::new(1);
    let refused = "-ERR SHUTDOWN is for clients on the node's own machine; SIGTERM does the same\r\n";
    for (client, address) in [(1, ""), (2, "10.0.0.1:5"), (3, "[2001:db8::1]:5"), (4, "127.0.0.1:5")] {
        cluster.open(0, client);
        cluster.hosts[0].node.client_address(key(client), address);
        for bad in ["SHUTDOWN x\r\n", "SHUTDOWN SAVE NOSAVE\r\n", "SHUTDOWN ABORT NOW\r\n"] {
            assert_eq!(cluster.ask(0, client, bad), "-ERR syntax error\r\n");
        }
        assert_eq!(cluster.ask(0, client, "SHUTDOWN ABORT\r\n"), "-ERR No shutdown in progress.\r\n");
        let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        let heard = cluster.ask(0, client, "MULTI\r\nSHUTDOWN\r\nEXEC\r\n");
        assert_eq!(heard, format!("+OK\r\n-ERR Command not allowed inside a transaction\r\n{aborted}"));
        if client < 4 {
            assert_eq!(cluster.ask(0, client, "SHUTDOWN\r\n"), refused);
        }
    }
    assert!(!cluster.hosts[0].stop_asked);
    // What came before is answered, what comes after is not looked at, and the connection stays until the process ends.
    let heard = cluster.ask(0, 4, "SET a 1\r\nSHUTDOWN NOSAVE\r\nSET a 2\r\n");
    assert_eq!(heard, "+OK\r\n");
    cluster.run();
    assert!(cluster.hosts[0].stop_asked);
    assert_eq!(cluster.hosts[0].closed, []);
    assert!(!cluster.hosts[0].node.has_unanswered());
    cluster.open(0, 5);
    cluster.hosts[0].node.client_address(key(5), "[::ffff:127.0.0.1]:5");
    assert_eq!(cluster.ask(0, 5, "GET a\nSHUTDOWN\n"), "1\nOK\n", "in plain text it is answered");
}

#[test]
fn debug_makes_a_node_sleep_and_refuses_the_rest_with_a_reason() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    assert_eq!(
        cluster.ask(0, 1, "DEBUG SLEEP 1\n"),
        "ERR DEBUG SLEEP is for clients on the node's own machine\n"
    );
    cluster.hosts[0].node.client_address(key(1), "[::1]:5");
    for bad in ["x", "-1", "inf", "nan", "1e300", ""] {
        assert_eq!(cluster.ask(0, 1, &format!("DEBUG SLEEP '{bad}'\n")), "ERR value is not a valid float\n");
    }
    assert_eq!(cluster.ask(0, 1, "DEBUG SLEEP 60.1\n"), "ERR a node sleeps for at most 60 seconds\n");
    assert_eq!(cluster.ask(0, 1, "DEBUG SLEEP 0\n"), "OK\n");
    assert_eq!(cluster.hosts[0].slept, Duration::ZERO);
    assert_eq!(cluster.ask(0, 1, "DEBUG SLEEP 0.25\ndebug sleep 1\n"), "OK\nOK\n");
    assert_eq!(cluster.hosts[0].slept, Duration::from_millis(1_250));
    let many = "DEBUG SLEEP 59\nDEBUG SLEEP 2\n";
    assert_eq!(cluster.ask(0, 1, many), "OK\nERR a node sleeps for at most 60 seconds\n");
    let refused = cluster.ask(0, 1, "DEBUG reload NOSAVE\nDEBUG SEGFAULT\nDEBUG OBJECT key\n");
    let reasons = [
        "ERR DEBUG RELOAD is not served: a running node does not read its log again",
        "ERR DEBUG SEGFAULT is not served: a node is not broken by a command",
        "ERR DEBUG OBJECT is not served: OBJECT ENCODING tells what a Redis would",
    ];
    assert_eq!(refused.lines().collect::<Vec<_>>(), reasons);
    let unknown = "ERR unknown subcommand or wrong number of arguments for 'NO'. Try DEBUG HELP.\n";
    assert_eq!(cluster.ask(0, 1, "DEBUG NO\n"), unknown);
    assert!(cluster.ask(0, 1, "DEBUG HELP\n").contains("SLEEP <seconds>"));
}

#[test]
fn what_a_connection_may_collect_is_limited() {
    let mut cluster = Cluster::new(1);
    cluster.open(0, 1);
    cluster.open(0, 2);
    let keys: String = (0..4096).map(|i| format!(" k{i}")).collect();
    assert_eq!(cluster.ask(0, 1, &format!("WATCH{keys}\n")), "OK\n");
    assert_eq!(cluster.ask(0, 1, "WATCH one-more\n"), "ERR too many watched keys\n");
    // All of them and many commands are still a command that every node can read.
    assert_eq!(cluster.ask(0, 1, "MULTI\n"), "OK\n");
    for _ in 0..62 {
        cluster.ask(0, 1, &"GET a\n".repeat(1000));
    }
    let heard = cluster.ask(0, 1, "GET a\nEXEC\nUNWATCH\nGET a\n");
    assert!(heard.starts_with("ERR the transaction is too large\nEXECABORT"), "{heard}");
    assert_eq!(cluster.ask(0, 1, &format!("WATCH{keys}\nMULTI\n")), "OK\nOK\n");
    for _ in 0..61 {
        cluster.ask(0, 1, &"GET a\n".repeat(1000));
    }
    assert_eq!(cluster.ask_much(0, 1, "EXEC\n").lines().count(), 61_000);
    assert_eq!(cluster.ask(0, 1, &format!("WATCH{keys}\nUNWATCH\nWATCH again\n")), "OK\nOK\nOK\n");
    // A subscriber that does not read is cut off; those that do are not.
    cluster.open(0, 3);
    cluster.ask(0, 3, "SUBSCRIBE c\n");
    let message = format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$1000000\r\n{}\r\n", "x".repeat(1_000_000));
    for _ in 0..40 {
        cluster.say(0, 2, message.as_bytes());
        cluster.run();
    }
    assert_eq!(cluster.hosts[0].closed, [key(3)]);
    let received = cluster.hear(0, 2).matches(":1\r\n").count();
    assert!((32..36).contains(&received), "{received} messages of a megabyte");
}
