//! Which sequence number a write gets, so that it is applied once.
//!
//! The cluster keeps, per session, the number of the last applied write and the replies not yet
//! acknowledged. It applies a write iff its number is the next one; a number already used is answered
//! from the table, a later one is a gap and refused.
//!
//! From this follow the client's rules:
//!
//! - **A number belongs to the first write that may have been multicast with it, for ever.** Giving it to
//!   another write could bring that one the first one's reply.
//! - A write that certainly was not multicast (no connection, `NOQUORUM`, `BUSY`, `LOADING`) leaves its
//!   number free.
//! - A write with an error for a reply may have used its number (`INCR` of a text is found out when it is
//!   applied) or not (a value above the node's own limit is found out before; what every node finds out
//!   before, such as a missing argument, the client does not even send). The client goes on with the following
//!   number; if that turns out to be a gap, the cluster names the number it expects, and the client takes
//!   that one, provided that all writes from there on were answered with errors at their first attempt.
//! - A write whose fate stays unknown takes the session with it: the following number could be a gap for
//!   ever. The next write opens a new session.
//!
//! The client has one write in flight, so with number `n` it holds the replies of all below `n`: that is
//! what it acknowledges. This module is a pure account of numbers; [`super::Client`] moves the bytes.

use crate::types::SessionId;
use crate::wire::batch::SessionSeq;

/// The client's side of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    id: SessionId,
    /// The number of the next write, from 1.
    next: u64,
    /// All writes from this number on were answered with an error at their first attempt: their numbers
    /// may be free.
    refused_from: Option<u64>,
}

/// What a reply says about the session itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionFault {
    /// The number is not the next one; nothing was applied.
    Gap {
        /// The number that is.
        expected: u64,
    },
    /// The cluster does not know the session (any more).
    Expired,
    /// Something else is wrong with the session, such as a reply that is no longer stored.
    Other,
}

impl SessionFault {
    /// Reads the text of an error reply; `None` if it is not about the session.
    pub fn parse(error: &str) -> Option<SessionFault> {
        let rest = error.strip_prefix("ERR session ")?;
        if rest.starts_with("expired") {
            return Some(SessionFault::Expired);
        }
        let Some(rest) = rest.strip_prefix("gap: expected ") else {
            return Some(SessionFault::Other);
        };
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
        Some(digits.parse().map_or(SessionFault::Other, |expected| SessionFault::Gap { expected }))
    }
}

impl Session {
    /// A session that was just opened.
    pub fn new(id: SessionId) -> Session {
        Session { id, next: 1, refused_from: None }
    }

    /// What the next write carries, at every attempt.
    pub fn place(&self) -> SessionSeq {
        SessionSeq { session: self.id, seq: self.next, acked: self.next - 1 }
    }

    /// The write was applied, and this is its reply.
    pub fn on_applied(&mut self) {
        self.next += 1;
        self.refused_from = None;
    }

    /// The write was answered with an error. `first_attempt`: no earlier attempt can have been multicast.
    pub fn on_error(&mut self, first_attempt: bool) {
        if first_attempt {
            self.refused_from.get_or_insert(self.next);
        } else {
            self.refused_from = None;
        }
        self.next += 1;
    }

    /// The first attempt of the write was a gap. True: its number is now the one expected; false: the
    /// session is of no more use.
    pub fn on_gap(&mut self, expected: u64) -> bool {
        let free = self.refused_from.is_some_and(|from| (from..self.next).contains(&expected));
        if free {
            self.next = expected;
            self.refused_from = None;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(session: &Session) -> u64 {
        assert_eq!(session.place().acked + 1, session.place().seq);
        session.place().seq
    }

    #[test]
    fn numbers_rise_with_replies() {
        let mut session = Session::new(SessionId(7));
        assert_eq!(seq(&session), 1);
        assert_eq!(seq(&session), 1, "asking does not use it");
        session.on_applied();
        session.on_error(true);
        assert_eq!(seq(&session), 3);
    }

    #[test]
    fn numbers_that_were_never_used_are_taken_again() {
        let mut session = Session::new(SessionId(7));
        session.on_applied();
        session.on_error(true);
        session.on_error(true);
        assert_eq!(seq(&session), 4);
        assert!(session.on_gap(3), "write 2 was applied with an error, write 3 was not");
        assert_eq!(seq(&session), 3);
        assert!(!session.on_gap(2), "2 belongs to another write");
    }

    #[test]
    fn a_number_that_may_have_been_multicast_is_not() {
        let mut session = Session::new(SessionId(7));
        session.on_error(true);
        session.on_error(false);
        assert!(!session.on_gap(1));
        let mut session = Session::new(SessionId(7));
        session.on_error(true);
        session.on_applied();
        assert!(!session.on_gap(1), "it was applied");
        assert!(!Session::new(SessionId(1)).on_gap(5), "never used at all");
    }

    #[test]
    fn session_faults_are_recognized() {
        let parse = SessionFault::parse;
        assert_eq!(parse("ERR session gap: expected 12, found 14"), Some(SessionFault::Gap { expected: 12 }));
        assert_eq!(parse("ERR session expired or never opened"), Some(SessionFault::Expired));
        assert_eq!(parse("ERR session reply dropped"), Some(SessionFault::Other));
        assert_eq!(parse("ERR session gap: expected many"), Some(SessionFault::Other));
        assert_eq!(parse("ERR syntax error"), None);
    }
}
