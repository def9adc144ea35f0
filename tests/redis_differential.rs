//! The same random commands to a node and to a real redis-server: the replies must be the same, byte for byte. What
//! is known and wanted to differ is in docs/redis.md, and is not asked for here.

mod common;
#[path = "differential/draw.rs"]
mod draw;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Cluster, Layout, PATIENCE, PortBlock, Random, TempDir, encode_command, seed, until};
use draw::{draw_some, is_drawn, reply_count};

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
        // What servers say of themselves; it is given to go back to a version of RESP.
        b"HELLO" if command.len() == 2 => !ours.starts_with(b"-") && !theirs.starts_with(b"-"),
        // Redis also counts what has expired and was not looked at since.
        b"DBSIZE" => number(ours).zip(number(theirs)).is_some_and(|(ours, theirs)| ours < theirs),
        // Any key.
        b"RANDOMKEY" => ours.first() == theirs.first() && (ours.len() > 5) == (theirs.len() > 5),
        _ => false,
    }
}

fn shown(command: &[Vec<u8>]) -> String {
    command.iter().map(|word| format!("\"{}\"", word.escape_ascii())).collect::<Vec<_>>().join(" ")
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

/// Commands that are not asked for, and why.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("BGSAVE", "what is answered depends on how far the last one is"),
    ("CAS", "not in Redis 7"),
    ("CONSISTENCY", "not in Redis"),
    ("DELEX", "not in Redis 7"),
    ("DELIFEQ", "not in Redis 7"),
    ("DIGEST", "not in Redis 7"),
    ("DUMP", "Redis compresses"),
    ("GETREV", "not in Redis"),
    ("HELP", "not in Redis"),
    ("INFO", "what servers say of themselves"),
    ("LOCK", "not in Redis"),
    ("PUT", "not in Redis"),
    ("QUIT", "ends the connection"),
    ("READWRITE", "about consistency levels"),
    ("RENEW", "not in Redis"),
    ("SESSION", "not in Redis"),
    ("SNAPSHOT", "not in Redis"),
    ("UNLOCK", "not in Redis"),
];

#[test]
fn every_command_is_compared_or_there_is_a_reason() {
    for spec in lanekv::store::all() {
        let excuse = NOT_COMPARED.iter().find(|(name, _)| *name == spec.name);
        assert_ne!(is_drawn(spec.name), excuse.is_some(), "{}: {excuse:?}", spec.name);
    }
    for (name, _) in NOT_COMPARED {
        assert!(lanekv::store::lookup(name.as_bytes()).is_some(), "{name}");
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
        let commands: Vec<Vec<Vec<u8>>> =
            (0..PIPELINE).flat_map(|_| draw_some(&mut random, version)).collect();
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode_command(command)).collect();
        ours.send(&bytes);
        theirs.send(&bytes);
        for command in &commands {
            let (mut our, mut their) = (Vec::new(), Vec::new());
            for _ in 0..reply_count(command) {
                our.extend(ours.reply());
                their.extend(theirs.reply());
            }
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
