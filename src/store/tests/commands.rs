//! One line for each thing that a command can do; what Redis answers where it has the command. The long comparison is
//! `tests/redis_differential.rs`.

use super::*;

fn node() -> Node {
    Node { now: 1_000_000, ..Node::new(Limits::default(), 0) }
}

fn all(node: &mut Node, lines: &[(&str, &str)]) {
    for (line, reply) in lines {
        assert_eq!(node.run(line), *reply, "{line}");
        assert_eq!(node.store.digest(), node.store.digest_recomputed(), "{line}");
    }
}

#[test]
fn options_of_set() {
    all(
        &mut node(),
        &[
            ("SET a 1 EX 10", "OK"),
            ("PTTL a", "(10000)"),
            ("SET a 2 KEEPTTL GET", "1"),
            ("TTL a", "(10)"),
            ("SET a 3", "OK"),
            ("TTL a", "(-1)"),
            ("SET a 4 PX 5 EX 5", "ERR syntax error"),
            ("SET a 4 EX 5 EX 7", "OK"),
            ("TTL a", "(7)"),
            ("SET a 4 EX 0", "ERR invalid expire time in 'set' command"),
            ("SET a 4 EX x", "ERR value is not an integer or out of range"),
            ("SET a 4 EX 9223372036854775807", "ERR invalid expire time in 'set' command"),
            ("SET a 5 PXAT 999999", "OK"),
            ("EXISTS a", "(0)"),
            ("SET a 1 IFEQ 0", "nil"),
            ("SET a 1 IFNE 0", "OK"),
            ("SET a 2 IFEQ 1 GET", "1"),
            ("SET a 3 IFEQ 2 IFEQ 2", "ERR syntax error"),
            ("SET a 3 NX IFEQ 2", "ERR syntax error"),
            ("DIGEST a", "fb95a7322f5da314"),
            ("SET a 3 IFDEQ 12", "ERR The digest must be exactly 16 hexadecimal characters"),
            ("DELEX a IFNE 2", "(0)"),
            ("DELIFEQ a 2", "(1)"),
            ("GETEX none EX nonsense", "nil"),
            ("SETEX b 1 v", "OK"),
            ("GETEX b PERSIST", "v"),
            ("TTL b", "(-1)"),
            ("GETEX b PX 70", "v"),
            ("PTTL b", "(70)"),
            ("GETDEL b", "v"),
            ("MSETNX x 1 y 2", "(1)"),
            ("MSETNX z 1 y 3", "(0)"),
            ("MGET x y z", "1 2 nil"),
        ],
    );
}

#[test]
fn expiry() {
    let mut node = node();
    all(
        &mut node,
        &[
            ("EXPIRE a 10", "(0)"),
            ("SET a 1", "OK"),
            ("EXPIRE a 10 XX", "(0)"),
            ("EXPIRE a 10 GT", "(0)"),
            ("EXPIRE a 10 LT", "(1)"),
            ("EXPIRE a 20 LT", "(0)"),
            ("EXPIRE a 20 NX", "(0)"),
            ("EXPIRE a 20 GT", "(1)"),
            ("EXPIRE a 5 NX GT", "ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("EXPIRE a 5 LT GT", "ERR GT and LT options at the same time are not compatible"),
            ("EXPIRE a 5 FOO", "ERR Unsupported option FOO"),
            ("PEXPIREAT a 1500500", "(1)"),
            ("EXPIRETIME a", "(1501)"),
            ("PEXPIRETIME a", "(1500500)"),
            ("INCR a", "(2)"),
            ("APPEND a 0", "(2)"),
            ("SETRANGE a 1 1", "(2)"),
            ("PTTL a", "(500500)"),
            ("COPY a b", "(1)"),
            ("RENAME a c", "OK"),
            ("PTTL b", "(500500)"),
            ("PTTL c", "(500500)"),
            ("PERSIST b", "(1)"),
            ("PERSIST b", "(0)"),
            ("EXPIRE b -1", "(1)"),
            ("EXISTS b", "(0)"),
            ("SET d 1 PX 1", "OK"),
        ],
    );
    node.now += 1;
    all(&mut node, &[("DBSIZE", "(1)"), ("TTL d", "(-2)"), ("SETNX d 2", "(1)"), ("TTL d", "(-1)")]);
    assert_eq!((node.store.key_count(), node.store.mortal_key_count()), (2, 1));
}

#[test]
fn ranges_and_bits() {
    all(
        &mut node(),
        &[
            ("SET s Hello", "OK"),
            ("GETRANGE s 0 1", "He"),
            ("GETRANGE s -3 -1", "llo"),
            ("SUBSTR s 3 100", "lo"),
            ("GETRANGE s 4 2", ""),
            ("SETRANGE s 7 x", "(8)"),
            ("GET s", "Hello\\x00\\x00x"),
            ("SETRANGE s -1 x", "ERR offset is out of range"),
            ("SETBIT b 7 1", "(0)"),
            ("SETBIT b 7 1", "(1)"),
            ("SETBIT b -1 1", "ERR bit offset is not an integer or out of range"),
            ("SETBIT b 1 2", "ERR bit is not an integer or out of range"),
            ("GETBIT b 7", "(1)"),
            ("GETBIT b 700", "(0)"),
            ("SET f foobar", "OK"),
            ("BITCOUNT f", "(26)"),
            ("BITCOUNT f 1 1", "(6)"),
            ("BITCOUNT f 5 30 BIT", "(17)"),
            ("BITPOS f 1", "(1)"),
            ("BITPOS b 0 0 0", "(0)"),
            ("BITOP NOT n b", "(1)"),
            ("GET n", "\\xfe"),
            ("BITOP XOR n n b", "(1)"),
            ("BITPOS n 0", "(8)"),
            ("BITPOS n 0 0 -1", "(-1)"),
            ("BITOP AND none x y", "(0)"),
            ("SET a ohmytext", "OK"),
            ("SET c mynewtext", "OK"),
            ("LCS a c", "mytext"),
            ("LCS a c LEN", "(6)"),
            ("LCS a c IDX MINMATCHLEN 4 WITHMATCHLEN", "matches (4) (7) (5) (8) (4) len (6)"),
            ("INCRBYFLOAT fl 10.5", "10.5"),
            ("INCRBYFLOAT fl 0.1", "10.6"),
            ("INCRBYFLOAT fl x", "ERR value is not a valid float"),
        ],
    );
}

#[test]
fn keys() {
    all(
        &mut node(),
        &[
            ("MSET a 1 b 2", "OK"),
            ("TYPE a", "string"),
            ("TYPE none", "none"),
            ("TOUCH a b none", "(2)"),
            ("RENAME none a", "ERR no such key"),
            ("RENAMENX a b", "(0)"),
            ("RENAMENX a c", "(1)"),
            ("COPY c b", "(0)"),
            ("COPY c b REPLACE", "(1)"),
            ("COPY c c", "ERR source and destination objects are the same"),
            ("COPY c d DB 1", "ERR DB index is out of range"),
            ("UNLINK b none", "(1)"),
            ("OBJECT ENCODING c", "int"),
            ("OBJECT REFCOUNT c", "(1)"),
            ("RANDOMKEY", "c"),
            ("SCAN 0 COUNT 100", "0 c"),
            ("SCAN 0 MATCH x*", "0 "),
            ("SCAN x", "ERR invalid cursor"),
            ("SCAN 0 COUNT 0", "ERR syntax error"),
            ("SET neg -5", "OK"),
            ("DUMP none", "nil"),
        ],
    );
    let mut node = node();
    let value = [&b"twenty bytes and more "[..], &[0xff; 100]].concat();
    for value in [&b"7"[..], b"-300", b"70000", b"5000000000", b"", &value] {
        node.apply(None, 1, &[b"k", value], true);
        let dump = lookup(b"DUMP").expect("listed").code;
        let Reply::Bulk(dumped) = node.apply(None, dump, &[b"k"], true) else { panic!("a dump") };
        let restore = lookup(b"RESTORE").expect("listed").code;
        let taken = node.apply(None, restore, &[b"k", b"0", &dumped], true);
        assert_eq!(show(&taken), "BUSYKEY Target key name already exists.");
        assert_eq!(node.apply(None, restore, &[b"k", b"50", &dumped, b"REPLACE"], true), Reply::OK);
        assert_eq!(node.apply(None, 2, &[b"k"], true), Reply::bulk(value));
        let mut wrong = dumped.to_vec();
        wrong[0] ^= 1;
        let refused = node.apply(None, restore, &[b"k", b"0", &wrong, b"REPLACE"], true);
        assert_eq!(show(&refused), "ERR DUMP payload version or checksum are wrong");
    }
}

#[test]
fn revisions_locks_and_scripts() {
    let mut node = node();
    all(
        &mut node,
        &[
            ("GETREV a", "(0)"),
            ("SET a 1 IFREV 0", "OK"),
            ("GETREV a", "(2)"),
            ("SET a 2 IFREV 1", "nil"),
            ("SET a 2 IFREV 2", "OK"),
            ("DEL a IFREV 2", "(0)"),
            ("DEL a IFREV 5", "(1)"),
            ("LOCK l 100 me", "(8)"),
            ("LOCK l 100 me", "nil"),
            ("GET l", "me"),
            ("RENEW l 7 500", "(0)"),
            ("RENEW l 8 500", "(1)"),
            ("GETREV l", "(8)"),
            ("PTTL l", "(500)"),
            ("UNLOCK l 7", "(0)"),
            ("UNLOCK l 8", "(1)"),
            ("LOCK l 0", "ERR invalid expire time in 'lock' command"),
            ("LOCK l 100", "(18)"),
            ("SET token mine PX 1000", "OK"),
            ("EVALSHA a4e8783852e6b949f9ef3a97212805108459a890 1 token mine 500 0", "(1)"),
            ("PTTL token", "(1500)"),
            ("EVALSHA 1cac51482acf5858da00f6d685d68f886cd6b6b2 1 token other 50", "(0)"),
            (
                "EVALSHA 1cac51482acf5858da00f6d685d68f886cd6b6b2 1 token mine 9223372036854775807",
                "ERR invalid expire time in 'pexpire' command",
            ),
            ("PTTL token", "(1500)"),
            ("EVALSHA c3f8721cbb97f72bc19e972846bd7aaf91901658 1 token mine", "(1)"),
            ("EVALSHA 96da70f7716f27d278a5218544df37fd8b0a5e4c 2 x y v 70", "(2)"),
            ("EVALSHA 96da70f7716f27d278a5218544df37fd8b0a5e4c 2 z y v 70", "(0)"),
            ("EVALSHA e4612211c9f8f51c257e26e056b0a654b3187242 2 x y v", "(2)"),
            (
                "EVALSHA 0000000000000000000000000000000000000000 0",
                "NOSCRIPT No matching script. Please use EVAL.",
            ),
            (
                "EVAL return 0",
                "ERR this server has no Lua: only the scripts of well-known lock libraries are understood",
            ),
        ],
    );
    node.now += 100;
    assert_eq!(node.run("LOCK l 100"), "(31)", "the one before has expired");
}

/// The builder's bytes do what its commands do one by one, or nothing.
#[test]
fn a_transaction_is_all_or_nothing() {
    let mut node = node();
    node.run("SET a 5");
    let revision = node.store.revision(b"a");
    let code = |name: &str| lookup(name.as_bytes()).expect("listed").code;
    let run = |node: &mut Node, revision| {
        let mut builder = TransactionBuilder::default();
        builder.watch(b"a", revision);
        builder.watch(b"none", Index(0));
        assert!(builder.push(code("INCR"), &[b"a"]) && builder.push(code("GET"), &[b"a"]));
        assert!(builder.push(code("LOCK"), &[b"l", b"9"]) && builder.push(code("SET"), &[b"a"]));
        let arguments = builder.finish();
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| &**argument).collect();
        show(&node.apply(None, TRANSACTION_CODE, &arguments, true))
    };
    let wrong = "ERR wrong number of arguments for 'set' command";
    assert_eq!(run(&mut node, revision), format!("(6) 6 ERR LOCK is not allowed in transactions {wrong}"));
    assert_eq!(run(&mut node, revision), "aborted");
    assert_eq!(node.run("GET a"), "6");
    for cut in
        [&b""[..], b"\x01\0\0\0", b"\0\0\0\0\x01\0\0\0\x40\0\0\0\0", b"\0\0\0\0\x01\0\0\0\x05\x09\0\0\0"]
    {
        let reply = show(&node.apply(None, TRANSACTION_CODE, &[cut], true));
        assert!(reply.starts_with("ERR "), "{reply}");
    }
}

#[test]
fn subscribers_are_told_in_order() {
    let mut node = node();
    node.run("SET quiet 1");
    assert!(node.store.take_events().is_empty());
    node.store.tell_of_keys(true);
    for line in ["SET a 1 PX 5", "RENAME a b", "DEL none", "PUBLISH c m"] {
        node.run(line);
    }
    node.now += 5;
    node.run("GET b");
    let told: Vec<String> = node
        .store
        .take_events()
        .iter()
        .map(|event| match event {
            Event::Key { name, key, .. } => format!("{name} {}", key.escape_ascii()),
            Event::Published { channel, message } => {
                format!("{}: {}", channel.escape_ascii(), message.escape_ascii())
            }
        })
        .collect();
    assert_eq!(told, ["set a", "expire a", "rename_from a", "rename_to b", "c: m", "expired b"]);
}
