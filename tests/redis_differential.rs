//! The same random commands to a node and to a real redis-server: the replies must be the same, byte for byte. What
//! is known and wanted to differ is in docs/redis.md, and is not asked for here.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Cluster, Layout, PATIENCE, PortBlock, Random, TempDir, encode_command, seed, until};

/// How many commands; `LANEKV_DIFFERENTIAL` sets another number.
const COMMAND_COUNT: usize = 20_000;
/// Commands sent before their replies are read.
const PIPELINE: usize = 50;

/// A redis-server that ends with the value.
struct Redis {
    child: Child,
    address: String,
    _ports: PortBlock,
    _dir: TempDir,
}

impl Redis {
    /// `None`: there is none on this machine.
    fn start() -> Option<Redis> {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| Path::new(&dir).join("redis-server").is_file())
        });
        if !found {
            return None;
        }
        let (ports, dir) = (PortBlock::take().expect("free ports"), TempDir::new("redis"));
        let port = ports.port(0);
        let settings = "--enable-debug-command yes --appendonly no --databases 1 --bind 127.0.0.1 \
                        --proto-max-bulk-len 268435456 --slowlog-log-slower-than -1";
        let child = Command::new("redis-server")
            .arg("--port")
            .arg(port.to_string())
            .arg("--save")
            .arg("")
            .args(settings.split(' '))
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server was found");
        let address = format!("127.0.0.1:{port}");
        let redis = Redis { child, address, _ports: ports, _dir: dir };
        until("redis-server listens", PATIENCE, || TcpStream::connect(&redis.address).ok());
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection whose replies are kept as bytes.
struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Raw {
    fn connect(address: &str) -> Raw {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Raw { stream, input: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it takes commands");
    }

    /// The bytes of the next reply.
    fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(len) = reply_len(&self.input) {
                return self.input.drain(..len).collect();
            }
            let mut bytes = [0; 64 << 10];
            let len = self.stream.read(&mut bytes).unwrap_or_else(|error| {
                panic!("no reply in time: {error}; read {}", self.input.escape_ascii())
            });
            assert!(len > 0, "closed; read {:?}", self.input.escape_ascii().to_string());
            self.input.extend_from_slice(&bytes[..len]);
        }
    }
}

/// The length of the reply at the front, if all of it is there.
fn reply_len(input: &[u8]) -> Option<usize> {
    let (mut at, mut left) = (0, 1_i64);
    while left > 0 {
        let line = input.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let kind = input[at];
        let digits = &input[at + 1..at + line];
        let number = || std::str::from_utf8(digits).ok()?.parse::<i64>().ok();
        at += line + 2;
        left -= 1;
        match kind {
            b'*' | b'~' | b'>' => left += number()?.max(0),
            b'%' => left += 2 * number()?,
            b'$' | b'=' => {
                if let Ok(len) = usize::try_from(number()?) {
                    at += len + 2;
                }
            }
            _ => {}
        }
    }
    (at <= input.len()).then_some(at)
}

/// What a word of a pattern stands for.
fn argument(random: &mut Random, word: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let pick = |random: &mut Random, from: &[&str]| from[random.below(from.len())].as_bytes().to_vec();
    match word {
        "KEY" => pick(random, &["a", "b", "c", "d", "key", "", "{a}\r\n", "\u{1}\u{0}z"]),
        "VALUE" => match random.below(8) {
            0 => random.below(100).to_string().into_bytes(),
            1 => b"9223372036854775807".to_vec(),
            2 => pick(
                random,
                &["", "abc", "foobar", "ohmytext", "mynewtext", "1.5", "-3", "010", " 1", "3.0e3"],
            ),
            3 => {
                let len = random.below(300);
                random.bytes(len)
            }
            _ => {
                let len = random.below(6);
                random.bytes(len)
            }
        },
        "INT" => match random.below(10) {
            0 => pick(random, &["abc", "", "1.0", "+1", " 1", "01", "1x", "9223372036854775808"]),
            1 => pick(random, &["9223372036854775807", "-9223372036854775808", "-9223372036854775807"]),
            2 => random.below(3000).to_string().into_bytes(),
            3 | 4 => format!("-{}", random.below(30)).into_bytes(),
            _ => random.below(30).to_string().into_bytes(),
        },
        "FLOAT" => match random.below(4) {
            0 => pick(random, &["abc", "", "inf", "-inf", "nan", "1e5000", "1 ", " 1", "1.2.3", "1e", "."]),
            1 => format!("{}.{:03}", random.below(2000), random.below(1000)).into_bytes(),
            2 => format!("-{}e{}", random.below(200), random.below(30)).into_bytes(),
            _ => format!("{}e-{}", random.next() >> 20, random.below(25)).into_bytes(),
        },
        "SECONDS" => match random.below(6) {
            0 => pick(
                random,
                &["0", "-1", "abc", "9223372036854775807", "9223372036854775", "-9223372036854775808"],
            ),
            // Nothing expires in the middle: two processes do not do that in the same moment.
            _ => (1_000_000 + random.below(1000)).to_string().into_bytes(),
        },
        "AT" => (now.as_secs() + 5000 + random.next() % 1000).to_string().into_bytes(),
        "ATMS" => (now.as_millis() + 5_000_000).to_string().into_bytes(),
        "PAST" => pick(random, &["1", "-5", "0"]),
        "BIT" => pick(random, &["0", "1", "0", "1", "2", "x", "-1", "01"]),
        "OPTION" => pick(
            random,
            &[
                "NX",
                "XX",
                "GT",
                "LT",
                "EX",
                "PX",
                "GET",
                "KEEPTTL",
                "PERSIST",
                "BYTE",
                "BIT",
                "LEN",
                "IDX",
                "REPLACE",
                "ABSTTL",
                "nx",
                "foo",
                "1",
                "10",
                "WITHMATCHLEN",
                "EXAT",
                "PXAT",
                "MATCH",
                "COUNT",
            ],
        ),
        "LIFE" => pick(random, &["EX", "PX"]),
        "PATTERN" => pick(random, &["*", "a*", "?", "[a-c]", "[^a]*", "\\a", "k??", "*y", "", "[b-", "[\\a"]),
        "DEBUGTYPE" => pick(
            random,
            &[
                "string", "integer", "double", "null", "array", "verbatim", "true", "false", "bignum", "set",
                "map",
            ],
        ),
        "SUB" => pick(random, &["HELP", "FREQ", "NOSUCH", "help"]),
        word => {
            let lower = random.below(4) == 0;
            if lower { word.to_ascii_lowercase().into_bytes() } else { word.as_bytes().to_vec() }
        }
    }
}

/// What is sent: words in capitals that are no commands or options are drawn.
const PATTERNS: &[&str] = &[
    "SET KEY VALUE",
    "SET KEY VALUE",
    "SET KEY VALUE",
    "SET KEY VALUE OPTION",
    "SET KEY VALUE OPTION OPTION",
    "SET KEY VALUE LIFE SECONDS",
    "SET KEY VALUE EXAT AT",
    "SET KEY VALUE PXAT ATMS NX",
    "SET KEY VALUE KEEPTTL GET",
    "SET KEY VALUE LIFE SECONDS OPTION",
    "SET KEY VALUE OPTION INT OPTION INT",
    "GET KEY",
    "GET KEY",
    "GETDEL KEY",
    "GETEX KEY",
    "GETEX KEY LIFE SECONDS",
    "GETEX KEY PERSIST",
    "GETEX KEY OPTION INT",
    "GETEX KEY EXAT AT",
    "GETSET KEY VALUE",
    "SETNX KEY VALUE",
    "SETEX KEY SECONDS VALUE",
    "PSETEX KEY SECONDS VALUE",
    "MSET KEY VALUE KEY VALUE",
    "MSET KEY VALUE KEY",
    "MSETNX KEY VALUE KEY VALUE",
    "MSETNX KEY VALUE KEY",
    "MGET KEY KEY KEY",
    "APPEND KEY VALUE",
    "APPEND KEY VALUE",
    "STRLEN KEY",
    "GETRANGE KEY INT INT",
    "SUBSTR KEY INT INT",
    "SETRANGE KEY INT VALUE",
    "INCR KEY",
    "DECR KEY",
    "INCRBY KEY INT",
    "DECRBY KEY INT",
    "INCRBYFLOAT KEY FLOAT",
    "INCRBYFLOAT KEY FLOAT",
    "LCS KEY KEY",
    "LCS KEY KEY OPTION",
    "LCS KEY KEY IDX MINMATCHLEN INT",
    "LCS KEY KEY IDX WITHMATCHLEN",
    "LCS KEY KEY LEN",
    "SETBIT KEY INT BIT",
    "GETBIT KEY INT",
    "BITCOUNT KEY",
    "BITCOUNT KEY INT INT",
    "BITCOUNT KEY INT INT OPTION",
    "BITCOUNT KEY INT",
    "BITPOS KEY BIT",
    "BITPOS KEY BIT INT",
    "BITPOS KEY BIT INT INT",
    "BITPOS KEY BIT INT INT OPTION",
    "BITOP AND KEY KEY KEY",
    "BITOP OR KEY KEY KEY",
    "BITOP XOR KEY KEY KEY",
    "BITOP NOT KEY KEY",
    "BITOP NOT KEY KEY KEY",
    "BITOP foo KEY KEY",
    "DEL KEY",
    "DEL KEY KEY",
    "UNLINK KEY KEY",
    "EXISTS KEY KEY",
    "TYPE KEY",
    "TOUCH KEY KEY",
    "KEYS PATTERN",
    "RENAME KEY KEY",
    "RENAMENX KEY KEY",
    "COPY KEY KEY",
    "COPY KEY KEY REPLACE",
    "COPY KEY KEY OPTION",
    "COPY KEY KEY DB INT",
    "EXPIRE KEY SECONDS",
    "EXPIRE KEY SECONDS OPTION",
    "EXPIRE KEY SECONDS OPTION OPTION",
    "PEXPIRE KEY SECONDS",
    "EXPIREAT KEY AT",
    "EXPIREAT KEY PAST",
    "PEXPIREAT KEY ATMS",
    "PEXPIREAT KEY ATMS OPTION",
    "EXPIREAT KEY AT OPTION",
    "TTL KEY",
    "PTTL KEY",
    "EXPIRETIME KEY",
    "PEXPIRETIME KEY",
    "PERSIST KEY",
    "OBJECT SUB KEY",
    "OBJECT SUB",
    "DUMP KEY",
    "RESTORE KEY INT VALUE",
    "RESTORE KEY INT VALUE OPTION",
    "SCAN INT",
    "SCAN 0 COUNT 1000 MATCH PATTERN",
    "PING",
    "PING VALUE",
    "ECHO VALUE",
    "SELECT INT",
    "NOSUCH KEY INT",
    "TIME x y",
    "EVALSHA VALUE INT",
    "PUBSUB NUMPAT",
    "PUBSUB CHANNELS",
    "PUBSUB NUMSUB KEY KEY",
    "PUBSUB FOO",
    "CLUSTER INFO",
    "CLIENT GETNAME",
    "CLIENT SETNAME VALUE",
    "CLIENT NO-EVICT VALUE",
    "CLIENT REPLY ON",
    "MOVE KEY INT",
    "SWAPDB INT INT",
    "SLOWLOG LEN",
    "SLOWLOG GET",
    "LATENCY LATEST",
    "SCRIPT EXISTS VALUE",
    "SCRIPT FLUSH",
    "HELLO 9",
    "HELLO VALUE",
    "AUTH VALUE",
    "AUTH default VALUE",
    "CONFIG GET VALUE",
    "CONFIG SET KEY VALUE",
    "CONFIG GET databases",
    "COMMAND GETKEYS GET KEY",
    "COMMAND INFO NOSUCH",
    "READONLY x",
    "EXEC",
    "DISCARD",
    "UNWATCH",
    "MULTI x",
    "WAIT 0 0",
    "ASKING",
    "DEBUG PROTOCOL DEBUGTYPE",
    "FLUSHALL",
    "FLUSHDB foo",
    "PUBLISH KEY VALUE",
    "EVALSHA c3f8721cbb97f72bc19e972846bd7aaf91901658 1 KEY VALUE",
];

/// A pattern with its words drawn, and now and then something wrong with it.
fn draw(random: &mut Random) -> Vec<Vec<u8>> {
    let pattern = PATTERNS[random.below(PATTERNS.len())];
    let mut words: Vec<Vec<u8>> = pattern.split(' ').map(|word| argument(random, word)).collect();
    match random.below(30) {
        0 => drop(words.pop().filter(|_| words.len() > 1)),
        1 => words.push(argument(random, "OPTION")),
        2 => words.push(argument(random, "INT")),
        3 if words.len() > 1 => {
            let at = 1 + random.below(words.len() - 1);
            // Of long words errors show a part, and which depends on how what is no text is replaced.
            words[at] = argument(random, "VALUE");
            words[at].truncate(20);
        }
        _ => {}
    }
    if words.is_empty() {
        words.push(b"PING".to_vec());
    }
    words
}

/// Some commands that belong together: one, or a transaction.
fn draw_some(random: &mut Random) -> Vec<Vec<Vec<u8>>> {
    if random.below(30) > 0 {
        let command = draw(random);
        return if is_known_to_differ(&command) { Vec::new() } else { vec![command] };
    }
    let line = |random: &mut Random, line: &str| -> Vec<Vec<u8>> {
        line.split(' ').map(|word| argument(random, word)).collect()
    };
    let mut commands = Vec::new();
    if random.below(2) == 0 {
        let watch = line(random, "WATCH KEY KEY");
        let key = watch[1].clone();
        commands.push(watch);
        match random.below(6) {
            0 => commands.push(vec![b"SET".to_vec(), key, b"touched".to_vec()]),
            1 => commands.push(vec![b"UNWATCH".to_vec()]),
            2 => commands.push(vec![b"GET".to_vec(), key]),
            _ => {}
        }
    }
    commands.push(line(random, "MULTI"));
    for _ in 0..random.below(6) {
        // Replies in replies are compared byte by byte.
        let is_plain = |command: &Vec<Vec<u8>>| {
            let name = command[0].to_ascii_uppercase();
            let vague: [&[u8]; 6] = [b"KEYS", b"SCAN", b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"];
            let begins_or_ends = matches!(&name[..], b"MULTI" | b"EXEC" | b"DISCARD" | b"UNWATCH");
            !begins_or_ends
                && !vague.contains(&&name[..]) && !is_known_to_differ(command) && !name.starts_with(b"NOSUCH")
                // Commands about the connection are carried out even if WATCH stops the rest.
                && name != b"CLIENT"
        };
        commands.extend(Some(draw(random)).filter(is_plain));
        let odd = ["WATCH KEY", "MULTI", "UNWATCH", "NOSUCH", "GET"];
        if random.below(12) == 0 {
            let odd = odd[random.below(odd.len())];
            commands.push(line(random, odd));
        }
    }
    let end = ["EXEC", "EXEC", "EXEC", "DISCARD"][random.below(4)];
    commands.push(line(random, end));
    if random.below(8) == 0 {
        commands.push(line(random, end));
    }
    commands
}

/// Whether the replies are equal as far as they can be.
fn is_same(command: &[Vec<u8>], ours: &[u8], theirs: &[u8]) -> bool {
    if ours == theirs {
        return true;
    }
    // Errors are text here: bytes of the client that are none are replaced.
    if String::from_utf8_lossy(theirs) == String::from_utf8_lossy(ours) {
        return true;
    }
    let number =
        |reply: &[u8]| std::str::from_utf8(reply.strip_prefix(b":")?).ok()?.trim().parse::<i64>().ok();
    match command[0].to_ascii_uppercase().as_slice() {
        // Ours are in order.
        b"KEYS" | b"SCAN" => {
            let sorted = |reply: &[u8]| {
                let mut lines: Vec<_> = reply.split(|byte| *byte == b'$').map(<[u8]>::to_vec).collect();
                lines.sort();
                lines
            };
            sorted(ours) == sorted(theirs)
        }
        // Clocks of two processes.
        b"TTL" | b"PTTL" | b"EXPIRETIME" | b"PEXPIRETIME" => match (number(ours), number(theirs)) {
            (Some(a), Some(b)) => a > 0 && b > 0 && a.abs_diff(b) <= 5_000,
            _ => false,
        },
        _ => false,
    }
}

fn shown(command: &[Vec<u8>]) -> String {
    command.iter().map(|word| format!("\"{}\"", word.escape_ascii())).collect::<Vec<_>>().join(" ")
}

/// Commands whose effect on Redis would be another one: what docs/redis.md lists.
fn is_known_to_differ(command: &[Vec<u8>]) -> bool {
    let name = command[0].to_ascii_uppercase();
    // Two processes do not let a key expire at the same moment.
    let number = |word: &Vec<u8>| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
    let is_short = |word: &Vec<u8>| number(word).is_some_and(|length| (1..100_000).contains(&length));
    let is_option = |word: &Vec<u8>| word.eq_ignore_ascii_case(b"EX") || word.eq_ignore_ascii_case(b"PX");
    let sets_length = matches!(&name[..], b"EXPIRE" | b"PEXPIRE" | b"SETEX" | b"PSETEX");
    if sets_length && command.get(2).is_some_and(is_short)
        || command.windows(2).any(|pair| is_option(&pair[0]) && is_short(&pair[1]))
    {
        return true;
    }
    match name.as_slice() {
        // `DEL key IFREV n` is ours.
        b"DEL" => command.len() == 4 && command[2].eq_ignore_ascii_case(b"IFREV"),
        // A cursor is a slot.
        b"SCAN" => {
            command.get(1).is_none_or(|cursor| cursor != b"0") || !command.iter().any(|word| word == b"1000")
        }
        // A script runs in Redis once it was loaded; here known ones need no loading.
        b"EVALSHA" => command[1].starts_with(b"c3f8"),
        // What servers say of themselves.
        b"TIME" => command.len() == 1,
        b"CONFIG" => command.get(2).is_some_and(|name| name.iter().any(|byte| b"*?[".contains(byte))),
        b"COMMAND" | b"DEBUG" => command.len() != 3,
        // Transactions are drawn as a whole: a WATCH that stays for long sees missing keys come and go.
        b"MULTI" => command.len() == 1,
        // In Redis it waits for replicas that there are not.
        b"WAIT" => command.get(1).is_none_or(|replicas| replicas != b"0"),
        // About our own consistency levels.
        b"READONLY" => command.len() == 1,
        b"HELLO" => {
            command.get(1).is_none_or(|version| ["2", "3"].iter().any(|known| version == known.as_bytes()))
        }
        // Redis compresses.
        b"DUMP" => true,
        _ => false,
    }
}

/// The table of commands in docs/redis.md says of each whether it is there.
#[test]
fn the_document_knows_every_command() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/redis.md");
    let document = std::fs::read_to_string(path).expect("the document is there");
    let (additions, table) = document.split_once("## All commands of Redis 7").expect("the heading is there");
    let rows: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .collect();
    assert!(
        rows.len() > 200 && rows.is_sorted_by_key(|(name, _)| name.to_lowercase()),
        "{} rows",
        rows.len()
    );
    for (name, verdict) in &rows {
        let is_here = verdict.starts_with("same") || verdict.starts_with("different: ");
        assert!(is_here || *verdict == "later" || verdict.starts_with("never: "), "{name}: {verdict}");
        assert_eq!(is_here, lanekv::store::lookup(name.as_bytes()).is_some(), "{name}: {verdict}");
    }
    for spec in lanekv::store::all() {
        let is_told =
            rows.iter().any(|(name, _)| *name == spec.name) || additions.contains(&format!("`{}", spec.name));
        assert!(is_told, "{} is not in the document", spec.name);
    }
}

#[test]
fn replies_are_those_of_redis() {
    compare("2");
}

#[test]
fn replies_of_resp3_are_those_of_redis() {
    compare("3");
}

fn compare(version: &str) {
    let Some(redis) = Redis::start() else {
        println!("skipped: redis-server is not installed");
        return;
    };
    let cluster = Cluster::start(Layout::of(1).flag("--sync").flag("never"));
    let count = std::env::var("LANEKV_DIFFERENTIAL").ok().and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(COMMAND_COUNT);
    let mut random = Random::new(seed());
    let (mut ours, mut theirs) = (Raw::connect(cluster.address(0)), Raw::connect(&redis.address));
    for side in [&mut ours, &mut theirs] {
        // What servers say of themselves differs.
        side.send(&encode_command(&["HELLO", version]));
        side.reply();
    }
    let (mut done, mut errors) = (0, 0);
    let mut history: Vec<String> = Vec::new();
    let mut differences: Vec<String> = Vec::new();
    while done < count && differences.len() < 6 {
        let commands: Vec<Vec<Vec<u8>>> = (0..PIPELINE).flat_map(|_| draw_some(&mut random)).collect();
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode_command(command)).collect();
        ours.send(&bytes);
        theirs.send(&bytes);
        for command in &commands {
            let (our, their) = (ours.reply(), theirs.reply());
            history.push(format!("{} -> {}", shown(command), their.escape_ascii()));
            errors += usize::from(their.starts_with(b"-"));
            if !is_same(command, &our, &their) {
                let about = |line: &&String| {
                    let is_named = |word: &Vec<u8>| line.contains(&format!("\"{}\"", word.escape_ascii()));
                    command.len() == 1 || command[1..].iter().any(is_named)
                };
                let before: Vec<&str> = history
                    .iter()
                    .rev()
                    .filter(about)
                    .take(if command.len() == 1 { 12 } else { 5 })
                    .map(|s| s.as_str())
                    .collect();
                let before = before.into_iter().rev().collect::<Vec<_>>().join("\n    ");
                let (our, their) = (our.escape_ascii(), their.escape_ascii());
                differences.push(format!("    {before}\n  here:  {our}\n  Redis: {their}"));
            }
            done += 1;
        }
        history.drain(..history.len().saturating_sub(200));
        if !differences.is_empty() {
            // What follows from a difference is none.
            for side in [&mut ours, &mut theirs] {
                side.send(&encode_command(&["FLUSHALL"]));
                side.reply();
            }
        }
    }
    assert!(differences.is_empty(), "after {done} commands:\n{}", differences.join("\n"));
    println!("{done} commands, {errors} of them refused, the same replies");
    assert!(errors > done / 20 && errors < done / 2, "valid and invalid commands are drawn");
}
