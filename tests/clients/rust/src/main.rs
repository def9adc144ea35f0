//! A scripted session of the Rust `redis` crate against a running three-node cluster; tests/redis_clients.rs builds
//! and starts it.
//!
//! Usage: lanekv-redis-session PORT PORT PORT CLUSTER-PORT CLUSTER-PORT CLUSTER-PORT
//!
//! A line `KILL n` or `START n` on standard output asks for that; the answer comes on standard input.

use std::cell::Cell;
use std::time::{Duration, Instant};

use redis::cluster::ClusterClient;
use redis::{
    Client, Commands, Connection, ConnectionLike, ErrorKind, ExistenceCheck, RedisError, RedisResult,
    ServerErrorKind, SetExpiry, SetOptions, Value, ValueComparison,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Of so many operations in cluster mode at most [`FAILED_MAX`] may fail when a node is killed.
const OPERATIONS: usize = 1500;
const FAILED_MAX: usize = 5;

fn main() {
    let ports: Vec<u16> = std::env::args().skip(1).map(|text| text.parse().expect("a port")).collect();
    let [a, b, c, cluster @ ..] = ports.as_slice() else { panic!("ports of three nodes") };
    for protocol in ["", "?protocol=resp3"] {
        let open = |port: &u16| {
            let client = Client::open(format!("redis://127.0.0.1:{port}/{protocol}")).expect("an address");
            let connection = client.get_connection().expect("a node that runs");
            connection.set_read_timeout(Some(PATIENCE)).expect("a socket");
            (client, connection)
        };
        let (client, mut first) = open(a);
        let (_, mut second) = open(b);
        strings(&mut first, &mut second).expect("commands for strings");
        pipelines(&mut first, &mut second).expect("pipelines");
        transactions(&mut first, &mut second).expect("transactions");
        errors(&mut first);
        messages(&client, &mut second).expect("messages");
        println!("redis crate{protocol}: fine");
    }
    reconnect(*c);
    cluster_mode(cluster);
    println!("all sessions ended well");
}

fn strings(a: &mut Connection, b: &mut Connection) -> RedisResult<()> {
    let () = redis::cmd("FLUSHALL").query(a)?;
    let () = a.set("k", "v")?;
    assert_eq!(b.get::<_, String>("k")?, "v");
    assert_eq!(b.get::<_, Option<String>>("none")?, None);
    let with = SetOptions::default;
    let refused: Option<String> = a.set_options("k", "w", with().conditional_set(ExistenceCheck::NX))?;
    assert_eq!(refused, None);
    let xx = with().conditional_set(ExistenceCheck::XX).get(true).with_expiration(SetExpiry::EX(100));
    assert_eq!(a.set_options::<_, _, Option<String>>("k", "w", xx)?.as_deref(), Some("v"));
    assert!((95..=100).contains(&b.ttl::<_, i64>("k")?));
    let () = a.set_options("k", "x", with().with_expiration(SetExpiry::KEEPTTL))?;
    assert!((95..=100).contains(&b.ttl::<_, i64>("k")?));
    let () = a.set_options("k", "y", with().with_expiration(SetExpiry::PX(1)))?;
    let begin = Instant::now();
    while b.exists("k")? {
        assert!(begin.elapsed() < PATIENCE, "it expires");
    }
    let () = a.set("k", "1")?;
    let if_equal = |value: &str| with().value_comparison(ValueComparison::ifeq(value));
    assert_eq!(a.set_options::<_, _, Option<String>>("k", "2", if_equal("other"))?, None);
    assert_eq!(a.set_options::<_, _, Option<String>>("k", "2", if_equal("1"))?.as_deref(), Some("OK"));
    assert_eq!(a.incr::<_, _, i64>("k", 40)?, 42);
    assert_eq!(b.incr::<_, _, f64>("f", 1.5)?, 1.5);
    let () = a.mset(&[("x", "1"), ("y", "2")])?;
    let all: Vec<Option<String>> = b.mget(&["x", "y", "z"])?;
    assert_eq!(all, [Some("1".to_owned()), Some("2".to_owned()), None]);
    assert_eq!(a.append::<_, _, i64>("x", "!")?, 2);
    assert_eq!(a.getrange::<_, String>("x", 0, 0)?, "1");
    let binary: Vec<u8> = (0..=255).collect();
    let () = a.set(&binary, &binary)?;
    assert_eq!(b.get::<_, Vec<u8>>(&binary)?, binary);
    assert_eq!(a.del::<_, i64>(&["x", "y", "z"])?, 2);
    assert_eq!(b.rename::<_, _, String>("k", "kk")?, "OK");
    let found: Vec<String> = a.scan_match::<_, String>("k*")?.collect::<Result<_, _>>()?;
    assert_eq!(found, ["kk"]);
    let info: redis::InfoDict = redis::cmd("INFO").query(a)?;
    assert_eq!(info.get::<String>("role").as_deref(), Some("master"));
    let token: u64 = redis::cmd("LOCK").arg("lock").arg(60_000).query(a)?;
    assert_eq!(redis::cmd("LOCK").arg("lock").arg(60_000).query::<Option<u64>>(b)?, None);
    assert!(redis::cmd("UNLOCK").arg("lock").arg(token).query::<bool>(b)?);
    Ok(())
}

fn pipelines(a: &mut Connection, b: &mut Connection) -> RedisResult<()> {
    let mut pipe = redis::pipe();
    for i in 0..2000 {
        pipe.set(format!("p{i}"), i).ignore().get(format!("p{i}"));
    }
    let replies: Vec<u32> = pipe.query(a)?;
    assert!(replies.into_iter().eq(0..2000));
    // One refused command does not hold up the others.
    let replies: Vec<Value> =
        redis::pipe().set("text", "x").incr("text", 1).get("text").ignore_errors().query(b)?;
    assert!(matches!(&replies[..], [Value::Okay, Value::ServerError(_), _]), "{replies:?}");
    let (value, times): (String, i64) = redis::pipe().atomic().get("text").incr("times", 3).query(b)?;
    assert_eq!((value.as_str(), times), ("x", 3));
    Ok(())
}

fn transactions(a: &mut Connection, b: &mut Connection) -> RedisResult<()> {
    let () = a.set("balance", 10)?;
    let tries = Cell::new(0);
    let (new,): (i64,) = redis::transaction(a, &["balance"], |a, pipe| {
        let old: i64 = a.get("balance")?;
        tries.set(tries.get() + 1);
        if tries.get() == 1 {
            // Somebody at another node is faster once.
            let () = b.incr("balance", 5)?;
        }
        pipe.set("balance", old * 2).ignore().get("balance").query(a)
    })?;
    assert_eq!((new, tries.get()), (30, 2));
    Ok(())
}

fn errors(a: &mut Connection) {
    let of = |error: RedisError| (error.kind(), error.code().map(str::to_owned), error.to_string());
    let (kind, code, text) = of(a.lpush::<_, _, i64>("list", 1).expect_err("there are no lists"));
    assert_eq!((kind, code.as_deref()), (ErrorKind::Server(ServerErrorKind::ResponseError), Some("ERR")));
    assert!(text.contains("unknown command 'LPUSH'"), "{text}");
    let (_, _, text) = of(a.incr::<_, _, i64>("text", 1).expect_err("it is no number"));
    assert!(text.contains("value is not an integer or out of range"), "{text}");
    assert_eq!(a.get::<_, String>("text").expect("the connection goes on"), "x");
}

fn messages(client: &Client, publisher: &mut Connection) -> RedisResult<()> {
    let mut subscriber = client.get_connection()?;
    let mut heard = subscriber.as_pubsub();
    heard.set_read_timeout(Some(PATIENCE))?;
    heard.subscribe("news")?;
    heard.psubscribe("new?-*")?;
    let _: i64 = publisher.publish("news", "one")?;
    let _: i64 = publisher.publish("news-at-ten", "two")?;
    let message = heard.get_message()?;
    assert_eq!((message.get_channel_name(), message.get_payload::<String>()?.as_str()), ("news", "one"));
    let message = heard.get_message()?;
    assert_eq!(message.get_pattern::<String>()?, "new?-*");
    assert_eq!(
        (message.get_channel_name(), message.get_payload::<String>()?.as_str()),
        ("news-at-ten", "two")
    );
    heard.unsubscribe("news")?;
    heard.punsubscribe("new?-*")?;
    drop(heard);
    // The connection is an ordinary one again.
    assert_eq!(subscriber.get::<_, String>("text")?, "x");
    Ok(())
}

/// A node is killed and started again; a client asks until it is there.
fn reconnect(port: u16) {
    let client = Client::open(format!("redis://127.0.0.1:{port}/")).expect("an address");
    let mut connection = client.get_connection().expect("a node that runs");
    let () = connection.set("kept", "1").expect("a write");
    ask("KILL 2", "killed");
    let error = connection.get::<_, String>("kept").expect_err("it is dead");
    assert!(error.is_connection_dropped() || error.is_io_error(), "{error}");
    assert!(!connection.is_open());
    assert!(client.get_connection().is_err_and(|error| error.is_connection_refusal()));
    ask("START 2", "started");
    let mut connection = client.get_connection().expect("it runs again");
    assert_eq!(connection.get::<_, String>("kept").expect("a read"), "1");
}

/// The crate's cluster mode, with a node killed in the middle. Its blocking client asks for the slots when it connects
/// and when it is told MOVED, not when a node is gone, so the program connects anew after an error.
fn cluster_mode(ports: &[u16]) {
    let nodes = ports.iter().map(|port| format!("redis://127.0.0.1:{port}/"));
    let client = ClusterClient::builder(nodes).retries(5).build().expect("addresses");
    let mut connection = client.get_connection().expect("a cluster that runs");
    let (mut failed, mut wrong) = (0, 0);
    for i in 0..OPERATIONS {
        if i == OPERATIONS / 2 {
            ask("KILL 1", "killed");
        }
        let key = format!("c{i}");
        let written: RedisResult<()> = connection.set(&key, i);
        match written.and_then(|()| connection.get::<_, usize>(&key)) {
            Ok(value) => wrong += usize::from(value != i),
            Err(error) => {
                println!("failed: {error}");
                failed += 1;
                connection = client.get_connection().expect("two nodes run");
            }
        }
    }
    println!("redis crate in cluster mode: {failed} of {OPERATIONS} operations failed, {wrong} were wrong");
    assert!(failed <= FAILED_MAX && wrong == 0);
}

fn ask(what: &str, answer: &str) {
    println!("{what}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("an answer");
    assert_eq!(line.trim_end(), answer);
}
