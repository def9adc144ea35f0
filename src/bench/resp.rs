//! RESP2, as Redis and lanekv speak it. Replies come in the order of the requests.

use std::collections::VecDeque;

use crate::wire::client::Consistency;

use super::dialect::{Answer, Taken, shown};
use super::workload::{Command, Operation};

/// The longest line that a reply may begin with.
const LINE_LEN_MAX: usize = 64 << 10;
const BULK_LEN_MAX: u64 = 1 << 30;

/// One connection.
#[derive(Debug)]
pub(super) struct Resp {
    consistency: Option<Consistency>,
    /// So many replicas must have said that they have a write.
    wait: Option<u32>,
    /// For each request under way whether a WAIT follows it; empty if there are none of these.
    waits: VecDeque<bool>,
    /// The answer of a write whose WAIT has not been answered.
    waiting: Option<Answer>,
    answered: u64,
}

/// The front of what was received.
#[derive(PartialEq, Eq, Debug)]
enum Scan {
    Incomplete,
    Reply { len: usize, answer: Answer, integer: Option<i64> },
}

impl Resp {
    pub(super) fn new(consistency: Option<Consistency>, wait: Option<u32>) -> Resp {
        Resp { consistency, wait, waits: VecDeque::new(), waiting: None, answered: 0 }
    }

    pub(super) fn greet(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(consistency) = self.consistency else { return false };
        header(out, b'*', 2);
        bulk(out, b"CONSISTENCY");
        bulk(out, consistency.name().as_bytes());
        if self.wait.is_some() {
            self.waits.push_back(false);
        }
        true
    }

    pub(super) fn encode(&mut self, command: &Command, out: &mut Vec<u8>) {
        let name = command.operation.name().as_bytes();
        let has_value = matches!(command.operation, Operation::Set | Operation::Mset);
        let per_key = if has_value { 2 } else { 1 };
        header(out, b'*', 1 + per_key * command.keys.len());
        bulk(out, name);
        for key in command.keys {
            bulk(out, key);
            if has_value {
                bulk(out, command.value);
            }
        }
        if let Some(replicas) = self.wait {
            self.waits.push_back(command.operation.is_write());
            if command.operation.is_write() {
                header(out, b'*', 3);
                bulk(out, b"WAIT");
                bulk(out, replicas.to_string().as_bytes());
                bulk(out, b"0");
            }
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Taken, String> {
        let (len, answer, integer) = match scan(bytes)? {
            Scan::Incomplete => return Ok(Taken::Incomplete),
            Scan::Reply { len, answer, integer } => (len, answer, integer),
        };
        let mut answer = answer;
        if let Some(replicas) = self.wait {
            match self.waiting.take() {
                Some(of_write) => {
                    let enough = integer.is_some_and(|count| count >= i64::from(replicas));
                    answer = match of_write {
                        Answer::Done if !enough => Answer::Error("WAIT: too few replicas".to_owned()),
                        of_write => of_write,
                    };
                }
                None if self.waits.front() == Some(&true) => {
                    self.waiting = Some(answer);
                    return Ok(Taken::Passed(len));
                }
                None => {}
            }
            self.waits.pop_front();
        }
        let seq = self.answered;
        self.answered += 1;
        Ok(Taken::Reply { len, seq, answer })
    }
}

/// Appends a line with a number.
fn header(out: &mut Vec<u8>, kind: u8, number: usize) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Finds the end of the reply at the front; elements of arrays are passed over.
fn scan(bytes: &[u8]) -> Result<Scan, String> {
    let mut at = 0;
    let mut first = None;
    // Elements still to come, of all open arrays together.
    let mut left = 1_u64;
    while left > 0 {
        left -= 1;
        let rest = &bytes[at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            if rest.len() > LINE_LEN_MAX || !rest.first().is_none_or(|kind| b"+-:$*".contains(kind)) {
                return Err(shown(rest));
            }
            return Ok(Scan::Incomplete);
        };
        let (kind, line) = match rest[..end].strip_suffix(b"\r").and_then(<[u8]>::split_first) {
            Some((kind, line)) => (*kind, line),
            None => return Err(shown(rest)),
        };
        at += end + 1;
        let number = || {
            let text = std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok());
            text.ok_or_else(|| shown(rest))
        };
        let mut integer = None;
        let answer = match kind {
            b'+' => Answer::Done,
            b'-' if first.is_none() => Answer::Error(String::from_utf8_lossy(line).into_owned()),
            b'-' => Answer::Done,
            b':' => {
                integer = Some(number()?);
                Answer::Done
            }
            b'$' | b'*' => match u64::try_from(number()?) {
                Err(_) => Answer::Missing,
                Ok(len) if len > BULK_LEN_MAX => return Err(shown(rest)),
                Ok(count) if kind == b'*' => {
                    left += count;
                    Answer::Done
                }
                Ok(len) => {
                    let len = len as usize + 2;
                    if bytes.len() - at < len {
                        return Ok(Scan::Incomplete);
                    }
                    at += len;
                    Answer::Done
                }
            },
            _ => return Err(shown(rest)),
        };
        first.get_or_insert((answer, integer));
    }
    let (answer, integer) = first.expect("the loop runs at least once");
    Ok(Scan::Reply { len: at, answer, integer })
}

#[cfg(test)]
mod tests {
    use super::super::workload::Key;
    use super::*;

    fn answer(bytes: &[u8]) -> Answer {
        for len in 0..bytes.len() {
            assert_eq!(scan(&bytes[..len]), Ok(Scan::Incomplete), "{len} of {}", shown(bytes));
        }
        let mut longer = bytes.to_vec();
        longer.extend_from_slice(b"+MORE\r\n");
        match scan(&longer) {
            Ok(Scan::Reply { len, answer, .. }) if len == bytes.len() => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_are_passed_over_to_their_ends() {
        assert_eq!(answer(b"+OK\r\n"), Answer::Done);
        assert_eq!(answer(b":-3\r\n"), Answer::Done);
        assert_eq!(answer(b"$4\r\na\r\nb\r\n"), Answer::Done);
        assert_eq!(answer(b"$-1\r\n"), Answer::Missing);
        assert_eq!(answer(b"*2\r\n*2\r\n$1\r\na\r\n:1\r\n-inner\r\n"), Answer::Done);
        assert_eq!(answer(b"*0\r\n"), Answer::Done);
        assert_eq!(answer(b"-ERR no\r\n"), Answer::Error("ERR no".to_owned()));
        for bad in [&b"HTTP/1.1 400\r\n"[..], b"$x\r\n", b"\n", b"+OK\n", b"$99999999999\r\n", b"?"] {
            assert!(scan(bad).is_err(), "{}", shown(bad));
        }
    }

    #[test]
    fn a_write_with_wait_ends_with_the_second_reply() {
        let keys: [Key; 1] = [*b"key:000000000001"];
        let mut resp = Resp::new(None, Some(2));
        let mut out = Vec::new();
        for operation in [Operation::Set, Operation::Get, Operation::Set] {
            resp.encode(&Command { operation, keys: &keys, value: b"v" }, &mut out);
        }
        let text = String::from_utf8(out).expect("text");
        let set = "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$1\r\nv\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$1\r\n0\r\n";
        assert_eq!(text, format!("{set}*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n{set}"));
        let mut take = |bytes: &[u8]| resp.take(bytes).expect("good replies");
        assert_eq!(take(b"+OK\r\n"), Taken::Passed(5));
        assert_eq!(take(b":2\r\n"), Taken::Reply { len: 4, seq: 0, answer: Answer::Done });
        assert_eq!(take(b"$-1\r\n"), Taken::Reply { len: 5, seq: 1, answer: Answer::Missing });
        assert_eq!(take(b"+OK\r\n"), Taken::Passed(5));
        assert!(matches!(take(b":1\r\n"), Taken::Reply { seq: 2, answer: Answer::Error(_), .. }));
    }
}
