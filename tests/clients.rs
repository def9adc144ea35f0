//! The client port: three dialects, replies in order, half-closed connections, and clients that misbehave while others
//! must not notice.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{
    Cluster, Layout, PATIENCE, Random, Resp, RespClient, TextClient, encode_command, median, seed, until,
};
use lanekv::types::limits;
use lanekv::wire::client::{Consistency, KIND_RESPONSE, WireReply, decode_response, encode_request};
use lanekv::wire::{FrameError, split_frame};

/// A well-behaved client that asks now and then and remembers how long the answers took.
struct Quiet {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Duration>>,
}

impl Quiet {
    fn start(address: &str) -> Quiet {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = RespClient::connect(address);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut waits = Vec::new();
            let mut round = 0_u64;
            while !stopped.load(Ordering::SeqCst) {
                let begin = Instant::now();
                let value = round.to_string();
                assert_eq!(client.ask(&["PING"]), Resp::Status("PONG".into()));
                assert_eq!(client.ask(&["SET", "quiet", &value]), Resp::ok());
                assert_eq!(client.ask(&["GET", "quiet"]), Resp::bulk(&value));
                waits.push(begin.elapsed());
                round += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            waits
        });
        Quiet { stop, thread }
    }

    /// Prints how long PING, SET and GET together took, and asserts that nothing took very long.
    fn finish(self, what: &str) {
        self.stop.store(true, Ordering::SeqCst);
        let mut waits = self.thread.join().expect("the quiet client was served");
        waits.sort();
        let longest = waits.last().copied().unwrap_or_default();
        println!(
            "{what}: quiet client, {} rounds of PING, SET, GET: median {:.1?}, 99 % {:.1?}, longest {longest:.1?}",
            waits.len(),
            median(&waits),
            waits[waits.len() * 99 / 100],
        );
        assert!(longest < Duration::from_secs(3), "{what}: the quiet client waited {longest:?}");
    }
}

/// Reads until the node closes; what it said until then.
fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        // Closing with unread bytes of ours in its buffers is a reset.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed: {error}; said {:?}", String::from_utf8_lossy(&said)),
    }
    said
}

fn socket(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    stream
}

#[test]
fn each_dialect_answers_in_its_own_words() {
    let cluster = Cluster::start(Layout::of(2));
    let ask = |request: &[u8], wanted: &[u8]| {
        let mut stream = socket(cluster.address(0));
        stream.write_all(request).expect("connected");
        stream.shutdown(Shutdown::Write).expect("connected");
        let said = read_to_close(&mut stream);
        let (said, wanted) = (String::from_utf8_lossy(&said), String::from_utf8_lossy(wanted));
        assert_eq!(said, wanted, "to {:?}", String::from_utf8_lossy(request));
    };
    ask(b"SET name john\nget name\nGET nothing\nINCR n\nPING\n", b"OK\njohn\nNot Found\n1\nPONG\n");
    ask(b"MGET name nothing\nKEYS n*\n", b"1) john\n2) Not Found\n1) n\n2) name\n");
    ask(b"SET \"two words\" \"a\\x41\\n\"\nSTRLEN 'two words'\n", b"OK\n3\n");
    ask(b"PING\r\nGET name\r\nGET nothing\r\n", b"+PONG\r\n$4\r\njohn\r\n$-1\r\n");
    ask(
        b"*2\r\n$3\r\nGET\r\n$4\r\nname\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
        b"$4\r\njohn\r\n+PONG\r\n+PONG\r\n",
    );

    let mut stream = socket(cluster.address(0));
    stream.write_all(b"HELLO 3\r\nGET nothing\r\n").expect("connected");
    stream.shutdown(Shutdown::Write).expect("connected");
    let said = String::from_utf8(read_to_close(&mut stream)).expect("names and numbers");
    assert!(
        said.starts_with("%7\r\n") && said.ends_with("\r\n_\r\n"),
        "a map, then the null of RESP3: {said:?}"
    );
}

#[test]
fn frames_are_answered_with_frames() {
    let cluster = Cluster::start(Layout::of(2));
    let mut stream = socket(cluster.address(1));
    let mut request = Vec::new();
    encode_request(&mut request, 7, None, None, &["SET", "a", "1"]);
    encode_request(&mut request, 8, Some(Consistency::Linearizable), None, &["GET", "a"]);
    encode_request(&mut request, 9, Some(Consistency::Local), None, &["GET", "nothing"]);
    encode_request(&mut request, 10, None, None, &["NOSUCH"]);
    stream.write_all(&request).expect("connected");
    let mut input = Vec::new();
    let mut replies = Vec::new();
    while replies.len() < 4 {
        match split_frame(&input, limits::FRAME_LEN_MAX) {
            Ok((kind, payload, len)) => {
                assert_eq!(kind, KIND_RESPONSE);
                let response = decode_response(payload).expect("a well-formed response");
                replies.push((response.id, response.reply));
                input.drain(..len);
            }
            Err(FrameError::Incomplete { .. }) => {
                let mut buffer = [0; 4096];
                let len = stream.read(&mut buffer).expect("a reply in time");
                assert!(len > 0, "closed after {replies:?}");
                input.extend_from_slice(&buffer[..len]);
            }
            Err(error) => panic!("{error}"),
        }
    }
    let WireReply::Error(text) = &replies[3].1 else { panic!("{replies:?}") };
    assert!(text.starts_with("ERR unknown command"), "{text:?}");
    assert_eq!(replies[3].0, 10);
    assert_eq!(
        replies[..3],
        [(7, WireReply::Status("OK".into())), (8, WireReply::Bulk(b"1".to_vec())), (9, WireReply::Nil)]
    );
}

#[test]
fn errors_use_the_words_of_redis() {
    let cluster = Cluster::start(Layout::of(1));
    let mut client = cluster.text(0);
    for (command, wanted) in [
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("SET a", "ERR wrong number of arguments for 'set' command"),
        ("SET a 1 SOMETIMES", "ERR syntax error"),
        ("foo bar baz", "ERR unknown command 'foo', with args beginning with: 'bar' 'baz' "),
        ("INCRBY a x", "ERR value is not an integer or out of range"),
        ("SELECT 1", "ERR DB index is out of range"),
    ] {
        assert_eq!(client.ask(command), wanted);
    }
    assert_eq!(client.ask("SET word john"), "OK");
    assert_eq!(client.ask("INCR word"), "ERR value is not an integer or out of range");
    assert_eq!(client.ask("SET big 9223372036854775807"), "OK");
    assert_eq!(client.ask("INCR big"), "ERR increment or decrement would overflow");
}

#[test]
fn replies_come_in_the_order_of_the_commands() {
    let mut random = Random::new(seed());
    let cluster = Cluster::start(Layout::of(3));
    for node in 0..3 {
        // Its own keys on each connection, so that every reply is known beforehand.
        let key = |number: usize| format!("n{node}:{number}");
        let mut model: Vec<Option<i64>> = vec![None; 10];
        let mut wanted = Vec::new();
        let mut commands = Vec::new();
        for round in 0..3_000 {
            let number = random.below(model.len());
            let (command, reply) = match random.below(8) {
                0 | 1 => {
                    model[number] = Some(round);
                    (vec!["SET".into(), key(number), round.to_string()], Resp::ok())
                }
                2..=4 => {
                    let reply = model[number].map_or(Resp::Nil, |value| Resp::bulk(value.to_string()));
                    (vec!["GET".into(), key(number)], reply)
                }
                5 => {
                    let value = model[number].unwrap_or(0) + 1;
                    model[number] = Some(value);
                    (vec!["INCR".into(), key(number)], Resp::Integer(value))
                }
                6 => (vec!["PING".into(), round.to_string()], Resp::bulk(round.to_string())),
                _ => {
                    let text = "ERR wrong number of arguments for 'get' command";
                    (vec!["GET".into()], Resp::Error(text.into()))
                }
            };
            commands.extend_from_slice(&encode_command(&command));
            wanted.push((command, reply));
        }
        let mut client = cluster.resp(node);
        let mut sender = client.socket().try_clone().expect("a file descriptor");
        // Cut at random places, which are no borders of commands.
        let cuts: Vec<usize> = (0..200).map(|_| 1 + random.below(4_000)).collect();
        let feeder = std::thread::spawn(move || {
            let mut rest = commands.as_slice();
            for cut in cuts.into_iter().cycle() {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                sender.write_all(now).expect("connected");
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
        });
        for (number, (command, reply)) in wanted.iter().enumerate() {
            let got = client.reply().unwrap_or_else(|error| panic!("reply {number}: {error}"));
            assert_eq!(got, *reply, "reply {number}, to {command:?}");
        }
        feeder.join().expect("the node reads");
    }
}

#[test]
fn a_half_closed_connection_gets_every_reply() {
    let cluster = Cluster::start(Layout::of(3));
    for round in 0..50 {
        let mut client = cluster.text(round % 3);
        client.send(&format!("SET a {round}\nGET a\nINCR b{round}\nGET nothing\n")).expect("connected");
        assert_eq!(client.finish(), format!("OK\n{round}\n1\nNot Found\n"));
    }
    // Many at once: more than one turn of the loop, and more than one socket buffer of replies.
    let mut client = cluster.text(0);
    let value = "v".repeat(1_000);
    let mut reader = TextClient::connect(cluster.address(0));
    client.send(&format!("SET long {value}\n")).expect("connected");
    assert_eq!(client.line().expect("a reply"), "OK");
    reader.send(&"GET long\n".repeat(3_000)).expect("connected");
    let said = reader.finish();
    assert_eq!(said.lines().count(), 3_000);
    assert!(said.lines().all(|line| line == value));
}

#[test]
fn a_half_closed_connection_ends_when_its_last_reply_is_sent() {
    // Heartbeats so rare that whoever waits for one is noticed.
    for nodes in [1, 2, 3] {
        let layout = Layout::of(nodes).set("heartbeat", "1s").set("suspicion-timeout", "5s");
        let cluster = Cluster::start(layout);
        let mut waits = Vec::new();
        for round in 0..20 {
            let mut client = cluster.text(round % nodes);
            let begin = Instant::now();
            client.send(&format!("SET a {round}\n")).expect("connected");
            assert_eq!(client.finish(), "OK\n");
            waits.push(begin.elapsed());
        }
        waits.sort();
        println!(
            "{nodes} nodes: a write by nc -N ends after {:.1?} (median), {:.1?} at most",
            median(&waits),
            waits[19]
        );
        assert!(waits[19] < Duration::from_millis(500), "{nodes} nodes: {waits:.1?}");
    }
}

#[test]
fn quit_is_answered_and_nothing_after_it_is_executed() {
    let cluster = Cluster::start(Layout::of(1));
    let mut client = cluster.text(0);
    client.send("SET a 1\nQUIT\nSET a 2\n").expect("connected");
    assert_eq!(client.line().expect("the reply to SET"), "OK");
    assert_eq!(client.line().expect("the reply to QUIT"), "OK");
    let end = client.line();
    assert!(end.is_err(), "{end:?}");
    assert_eq!(cluster.text(0).ask("GET a"), "1");
}

#[test]
fn random_bytes_harm_nobody() {
    let mut random = Random::new(seed());
    let cluster = Cluster::start(Layout::of(3));
    let quiet = Quiet::start(cluster.address(0));
    for round in 0..400 {
        let mut stream = socket(cluster.address(0));
        let len = random.below(3_000);
        let mut bytes = random.bytes(len);
        // Some of them begin like one of the dialects.
        match round % 5 {
            0 => bytes.insert(0, 0xB1),
            1 => bytes.splice(0..0, *b"*3\r\n$3\r\n").for_each(drop),
            2 => bytes.splice(0..0, *b"GET ").for_each(drop),
            3 => bytes.splice(0..0, [0xB1, 0x41, 0, 0]).for_each(drop),
            _ => {}
        }
        // The node may close before it has read everything.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        read_to_close(&mut stream);
    }
    quiet.finish("random bytes");
}

#[test]
fn announced_lengths_are_refused_before_anything_is_allocated() {
    let cluster = Cluster::start(Layout::of(3));
    let quiet = Quiet::start(cluster.address(0));
    let before = cluster.running(0).resident_kib();
    let mut frame = vec![0xB1, 0x41, 0, 0];
    frame.extend_from_slice(&u32::MAX.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    let mut streams = Vec::new();
    for begin in [
        b"*2147483648\r\n".as_slice(),
        b"*99999999999999999999\r\n",
        b"*-99999999999999999999\r\n",
        b"*+5\r\n",
        b"*1\r\n$2147483648\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n:5\r\n",
        b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n",
        b"POST / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &frame,
    ] {
        let mut stream = socket(cluster.address(0));
        stream.write_all(begin).expect("connected");
        if begin[0] == 0x16 {
            // No line end: to the node it is half a line until the client gives up.
            stream.shutdown(Shutdown::Write).expect("connected");
        }
        let said = read_to_close(&mut stream);
        println!("{:?} -> {:?}", String::from_utf8_lossy(begin), String::from_utf8_lossy(&said));
    }
    // Lengths within the limits whose bytes never come: nothing is reserved for them.
    for _ in 0..200 {
        for begin in [b"*65536\r\n".as_slice(), b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60000000\r\n"] {
            let mut stream = socket(cluster.address(0));
            stream.write_all(begin).expect("connected");
            streams.push(stream);
        }
    }
    quiet.finish("announced lengths");
    let after = cluster.running(0).resident_kib();
    println!("resident memory: {before} KiB before, {after} KiB with 400 announcements");
    assert!(after < before + (32 << 10), "{before} KiB before, {after} KiB after");
}

#[test]
fn half_commands_and_half_frames_keep_nobody_waiting() {
    let cluster = Cluster::start(Layout::of(3));
    let quiet = Quiet::start(cluster.address(0));
    let mut frame = Vec::new();
    encode_request(&mut frame, 1, None, None, &["SET", "half", "frame"]);
    let command = encode_command(&["SET", "half", "command"]);
    let mut streams = Vec::new();
    for whole in [frame.as_slice(), &command, b"SET half line\n"] {
        for len in 1..whole.len() {
            let mut stream = socket(cluster.address(0));
            stream.write_all(&whole[..len]).expect("connected");
            streams.push((stream, &whole[len..]));
        }
    }
    // The rest of each comes later, byte by byte.
    for (stream, rest) in &mut streams {
        for byte in *rest {
            stream.write_all(&[*byte]).expect("still connected");
        }
    }
    for (stream, _) in &mut streams {
        let mut first = [0];
        stream.read_exact(&mut first).expect("an answer to the whole command");
        assert!([b'+', b'O', 0xB1].contains(&first[0]), "{first:?}");
    }
    // And half of each, then the end.
    for whole in [frame.as_slice(), &command, b"DEL half"] {
        let mut stream = socket(cluster.address(0));
        stream.write_all(&whole[..whole.len() / 2]).expect("connected");
        stream.shutdown(Shutdown::Write).expect("connected");
        read_to_close(&mut stream);
    }
    quiet.finish("half commands");
    assert_eq!(cluster.text(1).ask("EXISTS half"), "1");
}

#[test]
fn a_client_that_never_reads_is_bounded() {
    let cluster = Cluster::start(Layout::of(3));
    let mut client = cluster.resp(0);
    assert_eq!(client.ask(&["SET", "big", &"x".repeat(1 << 20)]), Resp::ok());
    let before = cluster.running(0).resident_kib();
    let quiet = Quiet::start(cluster.address(0));
    let greedy: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = socket(cluster.address(0));
            stream.set_write_timeout(Some(Duration::from_millis(300))).expect("not zero");
            let command = encode_command(&["GET", "big"]);
            let begin = Instant::now();
            for _ in 0..20_000 {
                // The node stops reading at some point, then the socket is full.
                if stream.write_all(&command).is_err() || begin.elapsed() > PATIENCE {
                    break;
                }
            }
            stream
        })
        .collect();
    quiet.finish("clients that never read");
    let after = cluster.running(0).resident_kib();
    println!("resident memory: {before} KiB before, {after} KiB with 4 clients that never read");
    assert!(after < before + 4 * (33 << 10), "{before} KiB before, {after} KiB after");
    drop(greedy);
    assert_eq!(client.ask(&["PING"]), Resp::Status("PONG".into()));
}

#[test]
fn a_loud_client_does_not_starve_a_quiet_one() {
    let cluster = Cluster::start(Layout::of(3));
    let quiet = Quiet::start(cluster.address(0));
    let mut loud = cluster.resp(0);
    let mut sender = loud.socket().try_clone().expect("a file descriptor");
    let count: i64 = 100_000;
    let begin = Instant::now();
    let feeder = std::thread::spawn(move || {
        let commands: Vec<u8> = (0..1_000).flat_map(|_| encode_command(&["INCR", "loud"])).collect();
        for _ in 0..count / 1_000 {
            sender.write_all(&commands).expect("connected");
        }
    });
    for number in 1..=count {
        assert_eq!(loud.reply().expect("a reply"), Resp::Integer(number));
    }
    feeder.join().expect("the node reads");
    let rate = f64::from(i32::try_from(count).expect("small")) / begin.elapsed().as_secs_f64();
    println!("one pipelining client: {rate:.0} INCR per second, answered in order");
    quiet.finish("a loud client");
}

#[test]
fn five_thousand_idle_connections_cost_little() {
    let want = 5_000;
    let count = raise_open_files(want);
    if count < want {
        println!("only {count} idle connections: the limit of open files does not allow {want}");
    }
    let cluster = Cluster::start(Layout::of(3));
    let before = cluster.running(0).resident_kib();
    let quiet = Quiet::start(cluster.address(0));
    let begin = Instant::now();
    let mut idle: Vec<TextClient> = (0..count).map(|_| cluster.text(0)).collect();
    // Each was really taken in: it gets an answer.
    for client in &mut idle {
        assert_eq!(client.ask("PING"), "PONG");
    }
    println!("{count} connections taken in and answered in {:.1?}", begin.elapsed());
    quiet.finish("idle connections");
    let after = cluster.running(0).resident_kib();
    println!("resident memory: {before} KiB before, {after} KiB after");
    let used = cluster.running(0).cpu_time();
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let share = (cluster.running(0).cpu_time() - used).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
    println!("{count} idle connections: {share:.2} % of a core");
    assert!(share < 5.0, "{share:.2} % of a core with idle connections");
    assert_eq!(idle[count / 2].ask("SET a 1"), "OK");
    drop(idle);
    until("the node notices that they are gone", PATIENCE, || {
        let clients = cluster.info(0).get("connected_clients")?.parse::<usize>().ok()?;
        (clients < 10).then_some(())
    });
}

/// Raises the limit of open files (which the nodes inherit) for so many connections; how many it allows.
fn raise_open_files(connections: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let reserve = 500;
    let limit = getrlimit(Resource::Nofile);
    let need = u64::try_from(connections + reserve).expect("small");
    let allowed = limit.maximum.map_or(need, |maximum| maximum.min(need)).max(limit.current.unwrap_or(need));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(need);
    connections.min(usize::try_from(now).expect("fits").saturating_sub(reserve))
}

#[test]
fn more_clients_than_allowed_are_told_so() {
    let cluster = Cluster::start(Layout::of(1).set("max-clients", "20"));
    let mut served = Vec::new();
    let refused = until("a client too many", PATIENCE, || {
        let mut client = cluster.resp(0);
        match client.try_ask(&["PING"]) {
            Ok(Resp::Error(text)) => Some(text),
            Ok(reply) => {
                assert_eq!(reply, Resp::Status("PONG".into()));
                served.push(client);
                assert!(served.len() <= 20, "more than 20 are served");
                None
            }
            // Refused and closed before the command was sent.
            Err(_) => None,
        }
    });
    assert_eq!(refused, "ERR max number of clients reached");
    served.pop();
    until("a place that became free is given away", PATIENCE, || {
        let reply = cluster.resp(0).try_ask(&["PING"]).ok()?;
        (reply == Resp::Status("PONG".into())).then_some(())
    });
}

#[test]
fn clients_beyond_the_open_files_are_served_or_closed_and_the_node_recovers() {
    let cluster = Cluster::start(Layout::of(3).open_files(128));
    let mut held = Vec::new();
    let mut closed = 0;
    for _ in 0..200 {
        let Ok(mut client) = RespClient::try_connect(cluster.address(0)) else {
            closed += 1;
            continue;
        };
        match client.try_ask(&["PING"]) {
            Ok(Resp::Status(_)) => held.push(client),
            Ok(Resp::Error(text)) => {
                assert_eq!(text, "ERR max number of clients reached");
                closed += 1;
            }
            Ok(other) => panic!("PING answered {other:?}"),
            Err(_) => closed += 1,
        }
    }
    println!("128 open files: {} clients served, {closed} refused or closed", held.len());
    assert!(!held.is_empty());
    let used = cluster.running(0).cpu_time();
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let share = (cluster.running(0).cpu_time() - used).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
    println!("out of file descriptors: {share:.1} % of a core");
    assert!(share < 20.0, "spins without file descriptors: {share:.1} % of a core");
    // Peers are not crowded out.
    assert_eq!(held[0].ask(&["SET", "a", "1"]), Resp::ok());
    held.truncate(1);
    let begin = Instant::now();
    until("a new client is served", PATIENCE, || {
        let reply = RespClient::try_connect(cluster.address(0)).ok()?.try_ask(&["PING"]).ok()?;
        (reply == Resp::Status("PONG".into())).then_some(())
    });
    println!("a new client is served {:.1?} after descriptors became free", begin.elapsed());
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
}

#[test]
fn clients_that_stall_are_closed_in_time() {
    const LIMIT: Duration = Duration::from_secs(40);
    let cluster = Cluster::start(Layout::of(3));
    let mut client = cluster.resp(0);
    assert_eq!(client.ask(&["SET", "big", &"x".repeat(1 << 20)]), Resp::ok());
    let quiet = Quiet::start(cluster.address(0));
    let begin = Instant::now();
    // A thousand with half a command each, one that asks for 64 MiB and reads nothing.
    let mut stalled: Vec<TcpStream> = (0..raise_open_files(1_000))
        .map(|number| {
            let mut stream = socket(cluster.address(0));
            let half: &[u8] = if number % 2 == 0 { b"*2\r\n$3\r\nGET\r\n$4\r\nna" } else { b"SET half a li" };
            stream.write_all(half).expect("connected");
            stream
        })
        .collect();
    let mut deaf = socket(cluster.address(0));
    deaf.write_all(&encode_command(&["GET", "big"]).repeat(64)).expect("connected");
    for stream in &mut stalled {
        stream.set_read_timeout(Some(LIMIT)).expect("not zero");
        read_to_close(stream);
    }
    println!("{} half commands were closed within {:.1?}", stalled.len(), begin.elapsed());
    assert!(begin.elapsed() < LIMIT);
    // What the kernel had taken for it is still there; the rest is not, and the connection is at its end.
    until("the deaf client is closed", LIMIT, || {
        let clients = cluster.info(0).get("connected_clients")?.parse::<usize>().ok()?;
        (clients <= 4).then_some(())
    });
    println!("the client that read nothing was closed within {:.1?}", begin.elapsed());
    quiet.finish("stalled clients");
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let cluster = Cluster::start(Layout::of(1));
    let descriptors = || {
        let dir = format!("/proc/{}/fd", cluster.running(0).pid());
        std::fs::read_dir(dir).expect("Linux' /proc").count()
    };
    assert_eq!(cluster.text(0).ask("PING"), "PONG");
    let before = descriptors();
    for round in 0..3_000 {
        let mut client = cluster.text(0);
        if round % 3 == 0 {
            assert_eq!(client.ask("PING"), "PONG");
        } else if round % 3 == 1 {
            client.send("SET a").expect("connected");
        }
    }
    until("all descriptors are closed", PATIENCE, || (descriptors() <= before).then_some(()));
    assert_eq!(cluster.text(0).ask("PING"), "PONG");
}
