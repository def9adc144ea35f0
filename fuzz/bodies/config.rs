//! `nodes.conf`.

use lanekv::config::{Address, Config};

pub(super) const WORDS: &[&[u8]] = &[
    b"set ",
    b"suspicion-timeout ",
    b"heartbeat ",
    b"client-timeout ",
    b"value-max ",
    b"window ",
    b"clients-max ",
    b"sync ",
    b"peer=",
    b"http=",
    b"127.0.0.1:7100",
    b"[::1]:1",
    b"ms",
    b"s",
    b"MiB",
    b"GiB",
    b"18446744073709551615",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"#",
];

/// Any bytes as the file.
pub(super) fn config(input: &[u8]) {
    let lines = 1 + input.iter().filter(|byte| **byte == b'\n').count();
    let config = match Config::parse_bytes("f", input) {
        Ok(config) => config,
        Err(errors) => {
            assert!(!errors.is_empty(), "a file is refused for a reason");
            assert!(errors.is_sorted_by_key(|error| error.line));
            for error in errors {
                assert!(error.line >= 1 && error.line as usize <= lines, "{error} of {lines} lines");
                let text = error.to_string();
                assert!(!text.contains('\n') && text.starts_with("f:"), "{text}");
            }
            return;
        }
    };
    let members = config.members();
    assert!(!members.is_empty());
    assert!(members.is_sorted_by(|a, b| a.id < b.id));
    // Written by hand, in another order, with blanks and comments, it means the same.
    let mut again = String::new();
    let spell = |address: &Address| {
        assert_eq!(Address::parse(&address.to_string()).as_ref(), Ok(address));
        address.to_string()
    };
    for member in members.iter().rev() {
        again += &format!("\t{} {}  ", member.id.get(), spell(&member.address));
        again += &member.http.as_ref().map(|http| format!("http={} ", spell(http))).unwrap_or_default();
        again += &member.peer.as_ref().map(|peer| format!("peer={} ", spell(peer))).unwrap_or_default();
        again += "# a comment\r\n";
    }
    let again = Config::parse("g", &again).expect("the same members in another order");
    assert_eq!(again.members(), members);
    assert_eq!(again.member_hash(), config.member_hash());
}
