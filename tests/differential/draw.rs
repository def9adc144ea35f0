//! Random commands for a comparison with Redis: valid and invalid ones, single ones and such that belong together.

use std::time::{SystemTime, UNIX_EPOCH};

use super::common::Random;

/// A command: its name and its arguments.
type Words = Vec<Vec<u8>>;

/// A key that no command writes to.
const MISSING: &[u8] = b"nobody sets this";

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
        "LENGTH" => (1_000_000 + random.below(1000)).to_string().into_bytes(),
        "MISSING" => MISSING.to_vec(),
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
    "OBJECT ENCODING MISSING",
    "OBJECT REFCOUNT MISSING",
    "OBJECT IDLETIME MISSING",
    "OBJECT ENCODING",
    "MEMORY USAGE MISSING",
    "MEMORY USAGE MISSING SAMPLES 5",
    "MEMORY USAGE MISSING SAMPLES foo",
    "MEMORY USAGE MISSING foo",
    "MEMORY USAGE",
    "MEMORY FOO",
    "DBSIZE",
    "DBSIZE x",
    "RANDOMKEY",
    "RANDOMKEY x",
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
    "ROLE x",
    "LASTSAVE x",
    "SAVE x",
    "SHUTDOWN foo",
    "SHUTDOWN foo SAVE",
    "EVALSHA VALUE INT",
    "PUBSUB NUMPAT",
    "PUBSUB CHANNELS",
    "PUBSUB NUMSUB KEY KEY",
    "PUBSUB FOO",
    "PUBSUB SHARDCHANNELS",
    "PUBSUB SHARDNUMSUB KEY",
    "PUBSUB CHANNELS PATTERN",
    "PUBSUB NUMPAT x",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE KEY",
    "PUNSUBSCRIBE PATTERN PATTERN",
    "CLUSTER INFO",
    "CLUSTER SLOTS",
    "CLUSTER KEYSLOT KEY",
    "CLUSTER FOO",
    "CLIENT GETNAME",
    "CLIENT SETNAME VALUE",
    "CLIENT NO-EVICT VALUE",
    "CLIENT REPLY ON",
    "CLIENT REPLY foo",
    "CLIENT NO-EVICT ON",
    "CLIENT TRACKING OFF",
    "CLIENT GETREDIR",
    "CLIENT FOO",
    "CLIENT ID x",
    "CLIENT SETNAME",
    "CLIENT KILL 192.0.2.1:1",
    "CLIENT KILL TYPE foo",
    "CLIENT KILL ID foo",
    "CLIENT KILL foo bar",
    "CLIENT LIST TYPE foo",
    "CLIENT LIST ID foo",
    "CLIENT LIST foo",
    "MOVE KEY INT",
    "SWAPDB INT INT",
    "SLOWLOG LEN",
    "SLOWLOG GET",
    "SLOWLOG GET INT",
    "SLOWLOG RESET",
    "SLOWLOG FOO",
    "LATENCY LATEST",
    "LATENCY HISTORY VALUE",
    "LATENCY RESET",
    "LATENCY FOO",
    "FUNCTION LIST",
    "FUNCTION FLUSH",
    "FUNCTION FLUSH OPTION",
    "FUNCTION FOO",
    "EVAL VALUE foo",
    "EVAL VALUE -1",
    "EVAL VALUE 3 KEY",
    "SCRIPT FOO",
    "SCRIPT EXISTS",
    "SCRIPT EXISTS VALUE",
    "SCRIPT FLUSH ASYNC",
    "SCRIPT FLUSH foo",
    "SCRIPT FLUSH",
    "HELLO 9",
    "HELLO VALUE",
    "AUTH VALUE",
    "AUTH default VALUE",
    "CONFIG GET VALUE",
    "CONFIG SET KEY VALUE",
    "CONFIG GET databases",
    "COMMAND GETKEYS GET KEY",
    "COMMAND GETKEYS MSET KEY VALUE KEY VALUE",
    "COMMAND GETKEYS BITOP AND KEY KEY KEY",
    "COMMAND GETKEYS EVAL VALUE 2 KEY KEY",
    "COMMAND GETKEYS PING",
    "COMMAND GETKEYS GET",
    "COMMAND GETKEYS NOSUCH KEY",
    "COMMAND FOO",
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
fn draw(random: &mut Random) -> Words {
    let pattern = PATTERNS[random.below(PATTERNS.len())];
    let mut words: Words = pattern.split(' ').map(|word| argument(random, word)).collect();
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

/// The scripts of redis-py's `Lock`, and the one in Redis' documentation that gives a lock back, each with arguments
/// after the value.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('del', KEYS[1])
        return 1
    ",
        "",
    ),
    (
        "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        local expiration = redis.call('pttl', KEYS[1])
        if not expiration then
            expiration = 0
        end
        if expiration < 0 then
            return 0
        end

        local newttl = ARGV[2]
        if ARGV[3] == \"0\" then
            newttl = ARGV[2] + expiration
        end
        redis.call('pexpire', KEYS[1], newttl)
        return 1
    ",
        "LENGTH BIT",
    ),
    (
        "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('pexpire', KEYS[1], ARGV[2])
        return 1
    ",
        "LENGTH",
    ),
    (
        "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end",
        "",
    ),
];

/// A line of words of which those in capitals are drawn.
fn line(random: &mut Random, line: &str) -> Words {
    line.split(' ').filter(|word| !word.is_empty()).map(|word| argument(random, word)).collect()
}

/// Whether a command with this name is ever sent.
pub(crate) fn is_drawn(name: &str) -> bool {
    const TOGETHER: &[&str] = &["MULTI", "WATCH", "EVAL", "SUBSCRIBE", "PSUBSCRIBE", "RESET"];
    let in_pattern = PATTERNS.iter().any(|pattern| pattern.split(' ').next() == Some(name));
    in_pattern || TOGETHER.contains(&name)
}

/// How many replies a command has: one for every channel that is subscribed to or left.
pub(crate) fn reply_count(command: &[Vec<u8>]) -> usize {
    let name = command[0].to_ascii_uppercase();
    if name.ends_with(b"SUBSCRIBE") { (command.len() - 1).max(1) } else { 1 }
}

/// Some commands that belong together.
pub(crate) fn draw_some(random: &mut Random, version: &str) -> Vec<Words> {
    match random.below(120) {
        0..4 => draw_transaction(random),
        4..6 => draw_subscription(random),
        6 => draw_reset(random, version),
        7..9 => draw_script(random),
        9..11 => {
            // How Redis keeps a value that has just been written does not depend on the past.
            let set = line(random, "SET KEY VALUE");
            let ask = vec![b"OBJECT".to_vec(), b"ENCODING".to_vec(), set[1].clone()];
            vec![set, ask]
        }
        _ => {
            let command = draw(random);
            if is_known_to_differ(&command) { Vec::new() } else { vec![command] }
        }
    }
}

/// Subscribes, does what a subscriber may do and what it may not, and leaves again.
fn draw_subscription(random: &mut Random) -> Vec<Words> {
    let (names, patterns) = (line(random, "SUBSCRIBE KEY KEY"), line(random, "PSUBSCRIBE PATTERN"));
    let leave = |name: &str, joined: &Words| -> Words {
        std::iter::once(name.as_bytes().to_vec()).chain(joined[1..].iter().cloned()).collect()
    };
    let mut commands = vec![names.clone(), patterns.clone()];
    for _ in 0..random.below(4) {
        let inside =
            ["PING", "PING VALUE", "GET KEY", "SET KEY VALUE", "SUBSCRIBE", "PUBSUB NUMPAT", "NOSUCH"];
        let inside = inside[random.below(inside.len())];
        commands.push(line(random, inside));
    }
    commands.push(leave("UNSUBSCRIBE", &names));
    commands.push(leave("PUNSUBSCRIBE", &patterns));
    commands
}

/// RESET in the middle of something, and back to this version of RESP.
fn draw_reset(random: &mut Random, version: &str) -> Vec<Words> {
    let before = ["MULTI", "WATCH KEY", "SUBSCRIBE KEY", "CLIENT SETNAME me", "GET KEY"][random.below(5)];
    let after = ["EXEC", "GET KEY", "CLIENT GETNAME", "PING"][random.below(4)];
    ["RESET", after, "DISCARD", &format!("HELLO {version}")].into_iter().fold(
        vec![line(random, before)],
        |mut commands, next| {
            commands.push(line(random, next));
            commands
        },
    )
}

/// A lock library's script, with the right value or another one.
fn draw_script(random: &mut Random) -> Vec<Words> {
    let lasting = random.below(2) == 0;
    let set = line(random, if lasting { "SET KEY VALUE" } else { "SET KEY VALUE PX 3000000" });
    let (script, more) = SCRIPTS[random.below(SCRIPTS.len())];
    let value = if random.below(4) == 0 { argument(random, "VALUE") } else { set[2].clone() };
    let mut eval = vec![b"EVAL".to_vec(), script.as_bytes().to_vec(), b"1".to_vec(), set[1].clone(), value];
    eval.extend(line(random, more));
    let get = vec![b"PTTL".to_vec(), set[1].clone()];
    vec![set, eval, get]
}

/// A transaction, with or without a WATCH.
fn draw_transaction(random: &mut Random) -> Vec<Words> {
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
            let vague: [&[u8]; 8] =
                [b"KEYS", b"SCAN", b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME", b"RANDOMKEY", b"DBSIZE"];
            let begins_or_ends = matches!(&name[..], b"MULTI" | b"EXEC" | b"DISCARD" | b"UNWATCH");
            // A subscription in a transaction is refused here.
            !begins_or_ends && !name.ends_with(b"SUBSCRIBE")
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
    let has_number = |words: &[Vec<u8>]| words.iter().any(|word| number(word).is_some());
    match name.as_slice() {
        // `DEL key IFREV n` is ours.
        b"DEL" => command.len() == 4 && command[2].eq_ignore_ascii_case(b"IFREV"),
        // A cursor is a slot.
        b"SCAN" => {
            command.get(1).is_none_or(|cursor| cursor != b"0") || !command.iter().any(|word| word == b"1000")
        }
        // Any script runs in Redis; here it must be one of those of lock libraries.
        b"EVAL" => {
            let count = command.get(2).and_then(number).and_then(|count| usize::try_from(count).ok());
            count.is_some_and(|count| count + 3 <= command.len())
        }
        // A script runs in Redis once it was loaded; here known ones need no loading.
        b"EVALSHA" => command[1].starts_with(b"c3f8"),
        // What servers say of themselves.
        b"TIME" => command.len() == 1,
        b"CONFIG" => command.get(2).is_some_and(|name| name.iter().any(|byte| b"*?[".contains(byte))),
        b"COMMAND" => match command.get(1).map(|word| word.to_ascii_uppercase()).as_deref() {
            // What is no number at all is one for Redis there.
            Some(b"GETKEYS") => {
                command.get(2).is_some_and(|name| name.eq_ignore_ascii_case(b"EVAL"))
                    && command.get(4).and_then(number).is_none_or(|count| count > 9)
            }
            Some(b"FOO") => false,
            Some(b"INFO") => command[2..] != [b"NOSUCH"],
            _ => true,
        },
        b"DEBUG" => command.len() != 3 || command[1].eq_ignore_ascii_case(b"SLEEP"),
        // Of a value with a past Redis tells what became of it.
        b"OBJECT" => {
            let tells = |word: &Vec<u8>| {
                ["ENCODING", "IDLETIME", "REFCOUNT"]
                    .iter()
                    .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
            };
            command.get(1).is_some_and(tells) && command.get(2).is_some_and(|key| key != MISSING)
        }
        // An estimate.
        b"MEMORY" => command.get(2).is_some_and(|key| key != MISSING),
        b"ROLE" | b"LASTSAVE" | b"SAVE" => command.len() == 1,
        // Both would stop.
        b"SHUTDOWN" => !command.iter().any(|word| word.eq_ignore_ascii_case(b"foo")),
        // Connections have other numbers.
        b"CLIENT" => {
            command.get(1).is_some_and(|word| {
                ["ID", "INFO", "KILL", "LIST"].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
            }) && (command.len() == 2 || has_number(&command[2..]))
        }
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
