//! Client sessions: a command that a client repeats, because it does not know whether the first attempt was
//! applied, is applied once.
//!
//! A session is opened by a command and named by that command's index. Each later command carries `(session, seq,
//! acked)`. The next number is applied and its reply kept; a number that was there before is answered with the kept
//! reply; a gap is an error, because what is missing might still come and must not be applied out of order. `acked`
//! says up to where the client has its replies, so that they can be dropped. A read needs no kept reply: repeated,
//! it reads again.
//!
//! The table is replicated state: the same on all nodes at the same index, part of the digest. So it is bounded by
//! rules that depend on nothing local:
//! - a session whose last command is longer ago, by the replicated time, than the limit is dropped;
//! - when there are too many sessions, or their replies together are too long, the one that was used longest ago is
//!   dropped, the lower number first;
//! - a session with too many unacknowledged replies is refused further commands *before* they are applied.
//!
//! After Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.3.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::types::{Index, Millis, Plain, Reply, SessionId};
use crate::wire::batch::SessionSeq;

use super::Limits;
use super::error::CommandError;

/// What a kept reply costs beside its bytes, for the account.
const REPLY_OVERHEAD: usize = 64;

/// What is to be done with a command of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// It is the next: apply it, then call [`Sessions::complete`].
    Next,
    /// It was applied before, and this was its reply.
    Applied(Reply),
    /// Its number was used before, and there is no reply: right for a read, which may read again.
    Forgotten(CommandError),
}

/// A reply that its client has not acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct KeptReply {
    /// The number of its command.
    pub(crate) seq: u64,
    /// What was answered.
    pub(crate) reply: Reply,
    len: usize,
    hash: u64,
}

impl KeptReply {
    fn new(seq: u64, reply: Reply) -> KeptReply {
        KeptReply { seq, len: reply_len(&reply), hash: reply_hash(seq, &reply), reply }
    }
}

/// One client's session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The replicated time of its last command.
    pub(crate) last_used: Millis,
    /// The number of its last command; 0 before the first.
    pub(crate) last_seq: u64,
    /// The client has the replies up to this one; at most `last_seq`.
    pub(crate) acked: u64,
    /// Those above `acked`, rising; not those of reads.
    pub(crate) replies: VecDeque<KeptReply>,
    /// The sum of their `len`.
    reply_len: usize,
    /// The sum of their `hash`.
    reply_digest: u64,
}

impl Session {
    /// A session without kept replies.
    pub(crate) fn new(last_used: Millis, last_seq: u64, acked: u64) -> Session {
        Session { last_used, last_seq, acked, replies: VecDeque::new(), reply_len: 0, reply_digest: 0 }
    }

    /// Adds a kept reply, if it is one that this session can have after those that it has.
    pub(crate) fn restore_reply(&mut self, seq: u64, reply: Reply) -> bool {
        let after = self.replies.back().map_or(self.acked, |kept| kept.seq);
        let fits = seq > after && seq <= self.last_seq;
        if fits {
            self.keep(KeptReply::new(seq, reply));
        }
        fits
    }

    fn keep(&mut self, kept: KeptReply) {
        self.reply_len += kept.len;
        self.reply_digest = self.reply_digest.wrapping_add(kept.hash);
        self.replies.push_back(kept);
    }

    fn acknowledge(&mut self, acked: u64) {
        self.acked = self.acked.max(acked.min(self.last_seq));
        while self.replies.front().is_some_and(|kept| kept.seq <= self.acked) {
            if let Some(kept) = self.replies.pop_front() {
                self.reply_len -= kept.len;
                self.reply_digest = self.reply_digest.wrapping_sub(kept.hash);
            }
        }
    }

    /// What it adds to the digest.
    pub(crate) fn digest(&self, id: SessionId) -> u64 {
        let fields = [id.0, self.last_used.0, self.last_seq, self.acked, self.reply_digest];
        let mut bytes = [0; 40];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        xxh3_64(&bytes)
    }
}

/// Into how many parts the table of sessions is cut.
const PART_COUNT: usize = 256;

type Part = BTreeMap<SessionId, Arc<Session>>;

/// The table of sessions, in parts behind pointers: a clone shares every part and every session that neither side
/// writes, as with the keys.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Empty until the first session.
    parts: Vec<Arc<Part>>,
    len: usize,
    digest: u64,
}

impl Table {
    const EMPTY: Table = Table { parts: Vec::new(), len: 0, digest: 0 };

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Equal for equal sessions.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The session with this number.
    pub(crate) fn get(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.parts.get(part_of(id))?.get(&id)
    }

    /// The numbers of all sessions, rising.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        let mut ids: Vec<SessionId> = self.parts.iter().flat_map(|part| part.keys().copied()).collect();
        ids.sort_unstable();
        ids
    }

    fn iter(&self) -> impl Iterator<Item = (SessionId, &Arc<Session>)> {
        self.parts.iter().flat_map(|part| part.iter().map(|(id, session)| (*id, session)))
    }

    fn part(&mut self, id: SessionId) -> &mut Part {
        if self.parts.is_empty() {
            self.parts.resize_with(PART_COUNT, Arc::default);
        }
        Arc::make_mut(&mut self.parts[part_of(id)])
    }

    fn insert(&mut self, id: SessionId, session: Arc<Session>) {
        self.digest = self.digest.wrapping_add(session.digest(id));
        if let Some(old) = self.part(id).insert(id, session) {
            self.digest = self.digest.wrapping_sub(old.digest(id));
        } else {
            self.len += 1;
        }
    }

    fn remove(&mut self, id: SessionId) -> Option<Arc<Session>> {
        // Asked before `part`, which may have to copy it.
        self.get(id)?;
        let session = self.part(id).remove(&id)?;
        self.digest = self.digest.wrapping_sub(session.digest(id));
        self.len -= 1;
        Some(session)
    }

    fn update(&mut self, id: SessionId, change: impl FnOnce(&mut Session)) -> Option<&Session> {
        let part = self.parts.get_mut(part_of(id))?;
        // Asked before `make_mut`, which may have to copy it.
        part.get(&id)?;
        let session = Arc::make_mut(Arc::make_mut(part).get_mut(&id)?);
        let before = session.digest(id);
        change(session);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(session.digest(id));
        Some(session)
    }
}

fn part_of(id: SessionId) -> usize {
    let [low, ..] = id.0.to_le_bytes();
    usize::from(low)
}

/// All open sessions.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    table: Table,
    /// The same sessions, the one that was used longest ago first.
    by_use: BTreeSet<(Millis, SessionId)>,
    /// The bytes of all kept replies.
    reply_len: usize,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { table: Table::EMPTY, by_use: BTreeSet::new(), reply_len: 0 }
    }
}

impl Sessions {
    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Equal for equal sessions.
    pub(crate) fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// A clone of the table, which costs the copy of 256 pointers.
    pub(crate) fn freeze(&self) -> Table {
        self.table.clone()
    }

    /// Takes in a session as it was. Says whether there was none with this number.
    pub(crate) fn restore(&mut self, id: SessionId, session: Session) -> bool {
        if self.table.get(id).is_some() {
            return false;
        }
        self.by_use.insert((session.last_used, id));
        self.reply_len += session.reply_len;
        self.table.insert(id, Arc::new(session));
        true
    }

    /// The digest from nothing but the sessions and their replies; for checkers.
    pub(crate) fn digest_recomputed(&self) -> u64 {
        self.table.iter().fold(0, |sum, (id, session)| {
            let replies = session
                .replies
                .iter()
                .fold(0u64, |sum, kept| sum.wrapping_add(reply_hash(kept.seq, &kept.reply)));
            let session = Session { reply_digest: replies, replies: VecDeque::new(), ..**session };
            sum.wrapping_add(session.digest(id))
        })
    }

    /// Opens the session that is named by `index`.
    pub(crate) fn open(&mut self, index: Index, now: Millis, limits: &Limits) -> SessionId {
        let id = SessionId(index.0);
        self.remove(id);
        while self.table.len() >= limits.session_count_max && self.remove_oldest() {}
        self.by_use.insert((now, id));
        self.table.insert(id, Arc::new(Session::new(now, 0, 0)));
        id
    }

    /// Drops the sessions that have been idle too long.
    pub(crate) fn expire(&mut self, now: Millis, limits: &Limits) {
        while let Some(&(last_used, id)) = self.by_use.first()
            && now.since(last_used) > limits.session_idle
        {
            self.by_use.pop_first();
            self.remove(id);
        }
    }

    /// Takes the acknowledgment in and says what is to be done with the command.
    pub(crate) fn admit(
        &mut self,
        place: SessionSeq,
        now: Millis,
        limits: &Limits,
    ) -> Result<Admission, CommandError> {
        let SessionSeq { session: id, seq, acked } = place;
        let session = self.update(id, |session| {
            session.last_used = now;
            session.acknowledge(acked);
        });
        let Some(session) = session else {
            return Err(CommandError::SessionExpired { session: id });
        };
        if seq <= session.last_seq {
            let at = session.replies.binary_search_by_key(&seq, |kept| kept.seq);
            return Ok(match at {
                Ok(at) => Admission::Applied(session.replies[at].reply.clone()),
                Err(_) => {
                    let acked = session.acked;
                    Admission::Forgotten(CommandError::SessionForgotten { seq, acked })
                }
            });
        }
        let expected = session.last_seq + 1;
        if seq != expected {
            return Err(CommandError::SessionGap { expected, found: seq });
        }
        let (count, len) = (session.replies.len(), session.reply_len);
        if count >= limits.session_reply_count_max || len >= limits.session_reply_len_max {
            return Err(CommandError::SessionFull { count, len });
        }
        Ok(Admission::Next)
    }

    /// Counts the command that was admitted as applied, and keeps its reply if there is one to be kept.
    pub(crate) fn complete(&mut self, place: SessionSeq, reply: Option<&Reply>, limits: &Limits) {
        let SessionSeq { session: id, seq, .. } = place;
        self.update(id, |session| {
            session.last_seq = seq;
            if let Some(reply) = reply {
                session.keep(KeptReply::new(seq, reply.clone()));
            }
        });
        while self.reply_len > limits.session_total_len_max
            && self.by_use.first().is_some_and(|&(_, oldest)| oldest != id)
            && self.remove_oldest()
        {}
    }

    /// Changes a session and brings all that depends on it up to date.
    fn update(&mut self, id: SessionId, change: impl FnOnce(&mut Session)) -> Option<&Session> {
        let before = self.table.get(id)?;
        let (last_used, reply_len) = (before.last_used, before.reply_len);
        let session = self.table.update(id, change)?;
        self.reply_len = self.reply_len - reply_len + session.reply_len;
        if session.last_used != last_used {
            self.by_use.remove(&(last_used, id));
            self.by_use.insert((session.last_used, id));
        }
        Some(session)
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.table.remove(id) {
            self.by_use.remove(&(session.last_used, id));
            self.reply_len -= session.reply_len;
        }
    }

    fn remove_oldest(&mut self) -> bool {
        let oldest = self.by_use.pop_first();
        oldest.inspect(|&(_, id)| self.remove(id)).is_some()
    }
}

/// The bytes that keeping a reply costs, about.
pub(crate) fn reply_len(reply: &Reply) -> usize {
    let mut len = 0;
    for_each(reply, |reply| {
        len += REPLY_OVERHEAD;
        len += match reply {
            Plain::Bulk(bytes) => bytes.len(),
            Plain::Error(text) => text.len(),
            Plain::Nil | Plain::Status(_) | Plain::Integer(_) | Plain::Array(_) => 0,
        };
    });
    len
}

/// A hash of a reply and its place in the session. Only sessions keep replies, and their dialect has the plain types
/// only: so a kept reply that comes back from a snapshot has the same hash.
fn reply_hash(seq: u64, reply: &Reply) -> u64 {
    let mut hash = xxh3_64(&seq.to_le_bytes());
    for_each(reply, |reply| {
        let mut fold = |tag: u64, bytes: &[u8]| {
            hash = xxh3_64_with_seed(bytes, hash.rotate_left(5).wrapping_add(tag));
        };
        match reply {
            Plain::Nil => fold(0, &[]),
            Plain::Status(text) => fold(1, text.as_bytes()),
            Plain::Bulk(bytes) => fold(2, bytes),
            Plain::Integer(value) => fold(3, &value.to_le_bytes()),
            Plain::Error(text) => fold(4, text.as_bytes()),
            Plain::Array(items) => fold(5, &(items.len() as u64).to_le_bytes()),
        }
    });
    hash
}

/// Visits a reply and all replies in it, outer ones first, without recursion.
fn for_each(reply: &Reply, mut visit: impl FnMut(Plain<'_>)) {
    let mut todo = vec![reply];
    while let Some(reply) = todo.pop() {
        let reply = reply.plain();
        visit(reply);
        if let Plain::Array(items) = reply {
            todo.extend(items.iter().rev());
        }
    }
}
