use super::*;
use crate::types::{Millis, limits};

const GOOD: &str = "\u{feff}# id   address            options (name=value)
2      127.0.0.1:7102     http=127.0.0.1:8102
0      Node-A.example:7100 # the first
1      [::1]:7101\tpeer=[0:0::2]:9000 http=localhost:80 cluster=[::1]:6101\r

set suspicion-timeout 2s
set heartbeat 100ms
set client-timeout 1m
set value-max 512KiB
set sync interval
set sync-interval 250ms
set max-clients 77
set window 65536
set cluster-view yes
";

fn errors(text: &str) -> Vec<String> {
    match Config::parse("nodes.conf", text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_good_file_is_read() {
    let config = Config::parse("nodes.conf", GOOD).expect("a good file");
    let ids: Vec<u8> = config.members().iter().map(|m| m.id.get()).collect();
    assert_eq!(ids, [0, 1, 2]);
    let one = config.member(NodeId::new(1).expect("below 64")).expect("a member");
    assert_eq!((one.address.host(), one.address.port()), ("::1", 7101));
    assert_eq!(one.peer_address().to_string(), "[0:0::2]:9000");
    assert_eq!(one.http.as_ref().expect("given").to_string(), "localhost:80");
    assert_eq!(one.cluster.as_ref().expect("given").to_string(), "[::1]:6101");
    assert_eq!(config.members()[0].cluster, None);
    assert_eq!(config.members()[0].peer_address().to_string(), "Node-A.example:7100");
    assert_eq!(
        config.settings,
        Settings {
            suspicion_timeout: Millis(2_000),
            heartbeat: Millis(100),
            client_timeout: Millis(60_000),
            value_len_max: 512 << 10,
            sync: SyncPolicy::Interval,
            sync_interval: Millis(250),
            clients_max: 77,
            window_len: 65_536,
            cluster_view: true,
            ..Settings::default()
        }
    );
}

#[test]
fn defaults_hold_and_fit_each_other() {
    let config = Config::parse("nodes.conf", "0 a:1").expect("a good file");
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.settings.value_len_max, limits::VALUE_LEN_MAX);
    assert_eq!(config.settings.check(), Ok(()));
}

#[test]
fn every_named_setting_can_be_set() {
    for name in Settings::NAMES {
        let fault = Settings::default().set(name, "?").expect_err("no value of any setting");
        assert!(matches!(fault, Fault::Value { name: found, .. } if found == name), "{name}: {fault}");
    }
}

#[test]
fn the_member_hash_sees_members_only() {
    let hash = |text| Config::parse("nodes.conf", text).expect("a good file").member_hash();
    let base = hash("0 a:1\n1 [::1]:2\n");
    assert_eq!(base, hash("# other order\n1 [0::0:1]:2 http=a:8 cluster=a:9\n0 A.:1\nset heartbeat 20ms"));
    assert_ne!(base, hash("0 a:1\n1 [::1]:3\n"));
    assert_ne!(base, hash("0 a:1\n2 [::1]:2\n"));
    assert_ne!(base, hash("0 a:1"));
    assert_ne!(hash("0 a:1\n1 b:1"), hash("0 b:1\n1 a:1"));
}

/// The file, the line of the only error, and a part of its text.
const BAD: &[(&str, u32, &str)] = &[
    ("", 1, "found no node, expected at least one line"),
    ("# nothing\n\n# at all\n", 3, "found no node"),
    ("set heartbeat 50ms\n", 1, "found no node"),
    ("a 127.0.0.1:1", 1, "found \"a\", expected a node id from 0 to 63, or \"set\""),
    ("64 127.0.0.1:1", 1, "found \"64\""),
    ("256 127.0.0.1:1", 1, "found \"256\""),
    ("-1 127.0.0.1:1", 1, "found \"-1\""),
    ("+1 127.0.0.1:1", 1, "found \"+1\""),
    ("01 127.0.0.1:1", 1, "found \"01\""),
    ("1.0 127.0.0.1:1", 1, "found \"1.0\""),
    ("99999999999999999999 a:1", 1, "expected a node id"),
    ("\u{7f}\u{0} a:1", 1, "found \"\\u{7f}\\0\""),
    ("SET heartbeat 50ms", 1, "found \"SET\""),
    ("127.0.0.1:7100", 1, "expected a node id"),
    ("0", 1, "found the end of the line, expected the node's host:port"),
    ("0 # a:1", 1, "found the end of the line"),
    ("0 localhost", 1, "found \"localhost\", expected host:port"),
    ("0 :7100", 1, "found \":7100\", expected host:port"),
    ("0 ::1:7100", 1, "expected host:port, with IPv6 as [address]:port"),
    ("0 fe80::1:7100", 1, "with IPv6 as [address]:port"),
    ("0 [::1]", 1, "found \"[::1]\", expected host:port"),
    ("0 [::1]7100", 1, "found \"[::1]7100\""),
    ("0 [::1:7100", 1, "found \"[::1:7100\""),
    ("0 [127.0.0.1]:1", 1, "found host \"127.0.0.1\", expected an IPv6 address"),
    ("0 [::g]:1", 1, "found host \"::g\""),
    ("0 []:1", 1, "found host \"\""),
    ("0 [::]:1", 1, "expected an address that others can connect to"),
    ("0 0.0.0.0:1", 1, "expected an address that others can connect to"),
    ("0 224.0.0.1:1", 1, "expected an address that others can connect to"),
    ("0 127.0.0.256:1", 1, "found host \"127.0.0.256\", expected an IPv4 address"),
    ("0 127.1:1", 1, "expected an IPv4 address"),
    ("0 127.0.0.1.:1", 1, "expected an IPv4 address"),
    ("0 a..b:1", 1, "expected a host name"),
    ("0 -a:1", 1, "expected a host name"),
    ("0 http://a:1", 1, "expected host:port"),
    ("0 a/b:1", 1, "expected a host name"),
    ("0 b\u{fc}cher:1", 1, "expected a host name"),
    ("0 a:", 1, "found port \"\", expected a number from 1 to 65535"),
    ("0 a:0", 1, "found port \"0\""),
    ("0 a:080", 1, "found port \"080\""),
    ("0 a:65536", 1, "found port \"65536\""),
    ("0 a:+80", 1, "found port \"+80\""),
    ("0 a:80x", 1, "found port \"80x\""),
    ("0 a:-1", 1, "found port \"-1\""),
    ("0 a:1\n0 b:1", 2, "found node id 0 again, expected one that line 1 does not have"),
    ("0 a:1\n1 b:1\n2 A:1", 3, "found address \"A:1\" again, expected one that line 1 does not have"),
    ("0 [::1]:1\n1 [0:0::1]:1", 2, "found address \"[0:0::1]:1\" again"),
    ("0 a:1 http=a:1", 1, "found address \"a:1\" again"),
    ("0 a:1 http=c:1\n1 b:1 peer=c:1", 2, "found address \"c:1\" again"),
    ("0 a:1 b:2", 1, "found \"b:2\", expected the end of the line or an option"),
    ("0 a:1 htpp=b:2", 1, "found option \"htpp\", expected peer, http or cluster"),
    ("0 a:1 =b:2", 1, "found option \"\""),
    ("0 a:1 http=", 1, "found \"\", expected host:port"),
    ("0 a:1 http=b", 1, "found \"b\", expected host:port"),
    ("0 a:1 http=b:2 http=b:3", 1, "found option \"http\" again, expected it once"),
    ("0 a:1 cluster=b", 1, "found \"b\", expected host:port"),
    ("0 a:1 cluster=a:1", 1, "found address \"a:1\" again"),
    ("0 a:1 cluster=c:1\n1 b:1 cluster=c:1", 2, "found address \"c:1\" again"),
    ("0 a:1 cluster=b:2 cluster=b:3", 1, "found option \"cluster\" again, expected it once"),
    ("0 a:1\nset", 2, "expected the name of a setting"),
    ("0 a:1\nset heartbeat", 2, "expected the value of the setting"),
    ("0 a:1\nset heartbeet 50ms", 2, "found setting \"heartbeet\", expected one of suspicion-timeout, heart"),
    ("0 a:1\nset Heartbeat 50ms", 2, "found setting \"Heartbeat\""),
    ("0 a:1\nset heartbeat=50ms", 2, "found setting \"heartbeat=50ms\""),
    ("0 a:1\nset heartbeat 50ms 60ms", 2, "found \"60ms\", expected the end of the line"),
    ("0 a:1\nset heartbeat 50ms\nset heartbeat 50ms", 3, "expected it only in line 2"),
    ("0 a:1\nset heartbeat 50", 2, "found \"50\", expected a duration from 1ms to 60s, such as"),
    ("0 a:1\nset heartbeat 50 ms", 2, "found \"ms\", expected the end of the line"),
    ("0 a:1\nset heartbeat 0ms", 2, "found \"0ms\", expected a duration"),
    ("0 a:1\nset heartbeat -5ms", 2, "found \"-5ms\", expected a duration"),
    ("0 a:1\nset heartbeat 1.5s", 2, "found \"1.5s\", expected a duration"),
    ("0 a:1\nset heartbeat ms", 2, "found \"ms\", expected a duration"),
    ("0 a:1\nset client-timeout 18446744073709551615h", 2, "expected a duration"),
    ("0 a:1\nset client-timeout 99999999999999999999s", 2, "expected a duration"),
    ("0 a:1\nset client-timeout 2h", 2, "expected a duration from 10ms to 3600s"),
    ("0 a:1\nset suspicion-timeout 20ms", 2, "expected a duration from 30ms to 600s"),
    ("0 a:1\nset heartbeat 101ms", 2, "found heartbeat 101ms with suspicion-timeout 300ms, expected three"),
    ("0 a:1\nset heartbeat 20ms\nset suspicion-timeout 59ms", 3, "found heartbeat 20ms with"),
    ("0 a:1\nset heartbeat 200ms\nset suspicion-timeout 1d", 3, "found \"1d\", expected a duration"),
    ("0 a:1\nset value-max 64MB", 2, "found \"64MB\", expected a size from 1 to 268435456 bytes"),
    ("0 a:1\nset value-max 0", 2, "expected a size"),
    ("0 a:1\nset value-max 257MiB", 2, "expected a size"),
    ("0 a:1\nset value-max 99999999999GiB", 2, "expected a size"),
    ("0 a:1\nset window 1KiB", 2, "expected a size from 65536"),
    ("0 a:1\nset cluster-view on", 2, "expected yes or no"),
    ("0 a:1\nset sync sometimes", 2, "found \"sometimes\", expected always, interval or never for sync"),
    ("0 a:1\nset sync-interval 2m", 2, "expected a duration"),
    ("0 a:1\nset max-clients 0", 2, "expected a number from 1 to 1000000"),
    ("0 a:1\nset max-clients +5", 2, "expected a number"),
    ("0 a:1\nset max-clients many", 2, "expected a number"),
];

#[test]
fn every_bad_file_is_refused_with_its_line_and_reason() {
    for (text, line, part) in BAD {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].starts_with(&format!("nodes.conf:{line}: found ")), "{text:?}: {found:?}");
        assert!(found[0].contains(part) && found[0].contains("expected"), "{text:?}: {found:?}");
        assert!(!found[0].ends_with('.'), "{found:?}");
    }
}

#[test]
fn all_errors_of_a_file_come_together_in_the_order_of_the_lines() {
    let found = errors("0 a:1\nset heartbeat 200ms\nx\n0 b:2\nset sync no\n1 a:1\n");
    let lines: Vec<&str> = found.iter().map(|e| e.split(':').nth(1).expect("a line")).collect();
    assert_eq!(lines, ["2", "3", "4", "5", "6"]);
}

#[test]
fn bytes_that_are_no_text_are_reported_with_their_line() {
    let errors = Config::parse_bytes("f", b"0 a:1\n1 b\xff:2\n").expect_err("no UTF-8");
    assert_eq!(errors[0].to_string(), "f:2: found byte 0xff, expected UTF-8 text");
    assert!(Config::parse_bytes("f", b"0 a:1\n").is_ok());
}

#[test]
fn a_long_host_name_is_refused() {
    let label = "a".repeat(64);
    assert!(errors(&format!("0 {label}:1"))[0].contains("expected a host name"));
    let name = vec!["a".repeat(63); 4].join(".");
    assert!(errors(&format!("0 {name}:1"))[0].contains("expected a host name"));
}

#[test]
fn all_64_ids_fit() {
    let text: String = (0..64).map(|id| format!("{id} a:{}\n", id + 1)).collect();
    assert_eq!(Config::parse("nodes.conf", &text).expect("a good file").members().len(), 64);
}
