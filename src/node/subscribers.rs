//! Publish and subscribe: who is told what.
//!
//! `PUBLISH` is a command of the total order, so a message reaches the subscribers at every node, all of them in the
//! same order; and so do the notifications of what happens to keys, which follow from the commands. Who subscribes
//! where is the business of that node alone.
//!
//! Messages stand in the queue of a connection behind the commands that came before them. A subscriber that does not
//! read is cut off when [`WAITING_MAX`] messages, or [`WAITING_LEN_MAX`] bytes of them, wait for it; until then a
//! message costs it a pointer.
//!
//! A long pattern and a long channel can take seconds to be compared. Each may take [`STEPS_FREE`], more than any
//! sensible ones need; beyond that all of a turn share [`STEPS_PER_TURN`]. Whoever subscribes with a pattern for which
//! these do not suffice is cut off too: it is better to be told than to miss messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::dialect::ReplyStyle;
use crate::store::{Event, EventClass, Fund, StepBudget, glob_fits};
use crate::types::{Now, Reply, limits};

use super::backend::Backend;
use super::clients::{Client, ClientTable};
use super::intake::Context;
use super::{ClientKey, Effects, settle};

/// So many messages may wait for a subscriber.
const WAITING_MAX: usize = 65_536;
/// So many bytes of messages may wait for a subscriber, or a single message however long it is.
const WAITING_LEN_MAX: usize = 32 << 20;
/// Steps that comparing a pattern with a channel may take: two microseconds.
const STEPS_FREE: u64 = 1 << 10;
/// Steps beyond these that all comparisons of a turn may take together: some milliseconds.
const STEPS_PER_TURN: u64 = 1 << 22;
/// So many channels that are passed over, or steps of a pattern, take as long as a look at a key.
const CHANNELS_PER_UNIT: u64 = 16;
const STEPS_PER_UNIT: u64 = 64;
/// So many messages to subscribers, or patterns that a channel is compared with, take as long as a look at a key.
const MESSAGES_PER_UNIT: usize = 2;
const PATTERNS_PER_UNIT: usize = 16;
/// So many channels and patterns a connection may subscribe to.
const SUBSCRIPTION_COUNT_MAX: usize = 65_536;

/// What a subscription names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    fn subscribed(self) -> &'static [u8] {
        match self {
            Kind::Channel => b"subscribe",
            Kind::Pattern => b"psubscribe",
        }
    }

    fn unsubscribed(self) -> &'static [u8] {
        match self {
            Kind::Channel => b"unsubscribe",
            Kind::Pattern => b"punsubscribe",
        }
    }
}

type Names = BTreeMap<Arc<[u8]>, BTreeSet<ClientKey>>;

/// All subscriptions at this node.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    channels: Names,
    patterns: Names,
    /// Steps beyond the free ones that were taken in this turn.
    steps: u64,
}

/// By what a message reaches a subscriber.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Via {
    Channel,
    Pattern(Arc<[u8]>),
    /// Perhaps by a pattern, but finding that out would take too long.
    Unknown,
}

impl Subscribers {
    /// Another turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.steps = 0;
    }

    fn names(&mut self, kind: Kind) -> &mut Names {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    fn insert(&mut self, kind: Kind, name: &Arc<[u8]>, key: ClientKey) {
        self.names(kind).entry(Arc::clone(name)).or_default().insert(key);
    }

    fn remove(&mut self, kind: Kind, name: &Arc<[u8]>, key: ClientKey) {
        let names = self.names(kind);
        if let Some(keys) = names.get_mut(name) {
            keys.remove(&key);
            if keys.is_empty() {
                names.remove(name);
            }
        }
    }

    /// Takes a connection that is gone out of all lists.
    pub(super) fn forget(&mut self, key: ClientKey, subscriptions: &Subscriptions) {
        for name in &subscriptions.channels {
            self.remove(Kind::Channel, name, key);
        }
        for name in &subscriptions.patterns {
            self.remove(Kind::Pattern, name, key);
        }
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty()
    }

    /// Whom a message on this channel reaches, and how.
    fn receivers(&mut self, channel: &[u8]) -> Vec<(ClientKey, Via)> {
        let direct = self.channels.get(channel).into_iter().flatten();
        let mut receivers: Vec<(ClientKey, Via)> = direct.map(|key| (*key, Via::Channel)).collect();
        for (pattern, keys) in &self.patterns {
            let allowed = STEPS_FREE + STEPS_PER_TURN.saturating_sub(self.steps);
            let mut budget = StepBudget(allowed);
            let via = match glob_fits(pattern, channel, &mut budget) {
                Ok(true) => Some(Via::Pattern(Arc::clone(pattern))),
                Ok(false) => None,
                Err(_) => Some(Via::Unknown),
            };
            self.steps += (allowed - budget.0).saturating_sub(STEPS_FREE);
            if let Some(via) = via {
                receivers.extend(keys.iter().map(|key| (*key, via.clone())));
            }
        }
        receivers
    }

    /// The channels that somebody subscribes to, those that fit a pattern. `count` is told how many looks at keys would
    /// have been as much work.
    pub(super) fn channels(&self, pattern: Option<&[u8]>, count: impl Fn(u64)) -> Reply {
        let mut budget = StepBudget(STEPS_PER_TURN / 4 + 64 * self.channels.len() as u64);
        let allowed = budget.0;
        let reply = self.fitting_channels(pattern, &mut budget);
        count(
            (self.channels.len() as u64).div_ceil(CHANNELS_PER_UNIT) + (allowed - budget.0) / STEPS_PER_UNIT,
        );
        reply
    }

    fn fitting_channels(&self, pattern: Option<&[u8]>, budget: &mut StepBudget) -> Reply {
        let mut found = Vec::new();
        for name in self.channels.keys() {
            match pattern.map_or(Ok(true), |pattern| glob_fits(pattern, name, budget)) {
                Ok(true) => found.push(Reply::Bulk(Arc::clone(name).into())),
                Ok(false) => {}
                Err(error) => return error.into(),
            }
        }
        Reply::Array(found)
    }

    /// How many subscribe to a channel by its name.
    pub(super) fn count(&self, channel: &[u8]) -> usize {
        self.channels.get(channel).map_or(0, BTreeSet::len)
    }

    /// How many patterns somebody subscribes to.
    pub(super) fn pattern_count(&self) -> usize {
        self.patterns.len()
    }
}

/// What one connection subscribes to.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeSet<Arc<[u8]>>,
    patterns: BTreeSet<Arc<[u8]>>,
    /// How it subscribed, which says how messages are written.
    style: Option<ReplyStyle>,
}

impl Subscriptions {
    fn names(&mut self, kind: Kind) -> &mut BTreeSet<Arc<[u8]>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    /// Channels and patterns.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.channels.len(), self.patterns.len())
    }

    fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn count(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Carries out SUBSCRIBE or PSUBSCRIBE: one answer for each name, in the style of messages.
pub(super) fn subscribe(
    client: &mut Client,
    backend: &mut Backend,
    context: &Context,
    kind: Kind,
    names: &[&[u8]],
) {
    let style = context.style_of_messages;
    if matches!(style, ReplyStyle::Binary { .. }) {
        let reply = Reply::error("ERR the binary dialect has no messages; subscribe in RESP");
        client.queue.push_settled(context.style, reply);
        return;
    }
    for name in names {
        if client.subscriptions.len() >= SUBSCRIPTION_COUNT_MAX || name.len() > limits::KEY_LEN_MAX {
            let reply = Reply::error("ERR too many subscriptions, or too long a name");
            client.queue.push_settled(context.style, reply);
            return;
        }
        let name: Arc<[u8]> = Arc::from(*name);
        backend.subscribers.insert(kind, &name, client.key);
        client.subscriptions.names(kind).insert(Arc::clone(&name));
        client.subscriptions.style = Some(style);
        let reply =
            vec![Reply::bulk(kind.subscribed()), Reply::Bulk(name.into()), count(client.subscriptions.len())];
        client.queue.push_settled(style, Reply::Push(reply));
    }
}

/// Carries out UNSUBSCRIBE or PUNSUBSCRIBE: without names, from all.
pub(super) fn unsubscribe(
    client: &mut Client,
    backend: &mut Backend,
    context: &Context,
    kind: Kind,
    names: &[&[u8]],
) {
    let style = match context.style_of_messages {
        // A frame is an answer and nothing else.
        ReplyStyle::Binary { .. } => context.style,
        style => style,
    };
    let names: Vec<Arc<[u8]>> = match names {
        [] => client.subscriptions.names(kind).iter().cloned().collect(),
        names => names.iter().map(|name| Arc::from(*name)).collect(),
    };
    if names.is_empty() {
        let reply = vec![Reply::bulk(kind.unsubscribed()), Reply::Nil, count(client.subscriptions.len())];
        client.queue.push_settled(style, Reply::Push(reply));
    }
    for name in names {
        if client.subscriptions.names(kind).remove(&name) {
            backend.subscribers.remove(kind, &name, client.key);
        }
        let reply = vec![
            Reply::bulk(kind.unsubscribed()),
            Reply::Bulk(name.into()),
            count(client.subscriptions.len()),
        ];
        client.queue.push_settled(style, Reply::Push(reply));
    }
}

/// Takes all subscriptions of a connection back without a word.
pub(super) fn unsubscribe_all(client: &mut Client, backend: &mut Backend) {
    let subscriptions = std::mem::take(&mut client.subscriptions);
    backend.subscribers.forget(client.key, &subscriptions);
}

/// Which notifications about keys `notify-keyspace-events` asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct KeyEvents {
    /// `K`: on a channel for the key.
    by_key: bool,
    /// `E`: on a channel for what happened.
    by_event: bool,
    generic: bool,
    string: bool,
    expired: bool,
    /// As it is shown; kinds of events that never happen here are kept in it.
    text: String,
}

impl KeyEvents {
    /// Reads the setting. `None`: a letter that means nothing.
    pub(super) fn parse(text: &[u8]) -> Option<KeyEvents> {
        // In the order in which Redis shows them.
        const CLASSES: &str = "g$lshzxetd";
        const LETTERS: &str = "KEnm";
        let is_known = |byte: &u8| {
            let letter = char::from(*byte);
            letter == 'A' || CLASSES.contains(letter) || LETTERS.contains(letter)
        };
        if !text.iter().all(is_known) {
            return None;
        }
        let has = |letter: char| text.iter().any(|byte| char::from(*byte) == letter);
        let all = has('A') || CLASSES.chars().all(has);
        let mut shown = String::new();
        if all {
            shown.push('A');
        } else {
            shown.extend(CLASSES.chars().filter(|letter| has(*letter)));
        }
        shown.extend(LETTERS.chars().filter(|letter| has(*letter)));
        Some(KeyEvents {
            by_key: has('K'),
            by_event: has('E'),
            generic: all || has('g'),
            string: all || has('$'),
            expired: all || has('x'),
            text: shown,
        })
    }

    /// As `CONFIG GET` shows it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn any(&self) -> bool {
        (self.by_key || self.by_event) && (self.generic || self.string || self.expired)
    }

    fn wants(&self, class: EventClass) -> bool {
        match class {
            EventClass::Generic => self.generic,
            EventClass::String => self.string,
            EventClass::Expired => self.expired,
        }
    }
}

/// Whether the store is to tell what happens to keys.
pub(super) fn wants_key_events(backend: &Backend) -> bool {
    backend.key_events.any() && !backend.subscribers.is_empty()
}

/// Whether keys that expire are among it.
pub(super) fn wants_expired(backend: &Backend) -> bool {
    backend.key_events.wants(EventClass::Expired)
}

/// What a command has brought about.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Of this nobody has been told yet.
    pub(super) events: VecDeque<Event>,
    /// How many got each message that was published.
    pub(super) published: Vec<usize>,
}

/// Tells subscribers what has happened, as far as the fund goes, but of one event at least.
pub(super) fn tell(
    backend: &mut Backend,
    clients: &mut ClientTable,
    backlog: &mut VecDeque<ClientKey>,
    effects: &mut Effects,
    now: Now,
    telling: &mut Telling,
    fund: &mut Fund,
) {
    while let Some(event) = telling.events.pop_front() {
        let mut reached = 0;
        let mut send = |channel: &Arc<[u8]>, message: &Arc<[u8]>, backend: &mut Backend| {
            let count = send(backend, clients, backlog, effects, now, channel, message);
            reached += count;
            count
        };
        match event {
            Event::Published { channel, message } => {
                telling.published.push(send(&channel, &message, backend));
            }
            Event::Key { class, name, key } => {
                if !backend.key_events.wants(class) {
                    continue;
                }
                if backend.key_events.by_key {
                    let channel: Arc<[u8]> = [&b"__keyspace@0__:"[..], &key].concat().into();
                    send(&channel, &Arc::from(name.as_bytes()), backend);
                }
                if backend.key_events.by_event {
                    let channel: Arc<[u8]> = [&b"__keyevent@0__:"[..], name.as_bytes()].concat().into();
                    send(&channel, &key, backend);
                }
            }
        }
        let work = reached / MESSAGES_PER_UNIT + backend.subscribers.pattern_count() / PATTERNS_PER_UNIT;
        let before = backend.store.work();
        backend.store.count_work(work as u64);
        backend.store.charge(fund, before);
        if fund.is_spent() {
            break;
        }
    }
}

fn send(
    backend: &mut Backend,
    clients: &mut ClientTable,
    backlog: &mut VecDeque<ClientKey>,
    effects: &mut Effects,
    now: Now,
    channel: &Arc<[u8]>,
    message: &Arc<[u8]>,
) -> usize {
    let mut count = 0;
    for (key, via) in backend.subscribers.receivers(channel) {
        let Some(client) = clients.get_mut(key) else { continue };
        let Some(style) = client.subscriptions.style else { continue };
        let waiting_len = client.queue.messages_len();
        if via == Via::Unknown
            || client.queue.unanswered() >= WAITING_MAX
            || waiting_len > 0 && waiting_len + message.len() > WAITING_LEN_MAX
        {
            if !client.closing {
                client.closing = true;
                client.end_input();
                backend.stats.cut += 1;
                effects.closing.push(key);
            }
            continue;
        }
        let len = message.len();
        let (channel, message) =
            (Reply::Bulk(Arc::clone(channel).into()), Reply::Bulk(Arc::clone(message).into()));
        let parts = match via {
            Via::Channel => vec![Reply::bulk(b"message"), channel, message],
            Via::Unknown => continue,
            Via::Pattern(pattern) => {
                vec![Reply::bulk(b"pmessage"), Reply::Bulk(pattern.into()), channel, message]
            }
        };
        client.queue.push_message(client.style_of_pushes(style), Reply::Push(parts), len);
        settle(client, backend, backlog, effects, now);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_events_are_shown_as_in_redis() {
        for (given, shown) in [
            ("", ""),
            ("KEA", "AKE"),
            ("AKE", "AKE"),
            ("xK", "xK"),
            ("Eg$", "g$E"),
            ("g$lshzxetdK", "AK"),
            ("Knm", "Knm"),
        ] {
            let events = KeyEvents::parse(given.as_bytes()).expect("known letters");
            assert_eq!(events.text(), shown, "{given}");
        }
        assert_eq!(KeyEvents::parse(b"Q"), None);
        assert!(!KeyEvents::parse(b"Ag").expect("known").any(), "neither by key nor by event");
    }

    #[test]
    fn a_message_goes_to_names_and_patterns() {
        let key = |index| ClientKey { index, generation: 0 };
        let name = |text: &str| Arc::from(text.as_bytes());
        let mut all = Subscribers::default();
        all.insert(Kind::Channel, &name("news"), key(1));
        all.insert(Kind::Pattern, &name("n*"), key(1));
        all.insert(Kind::Pattern, &name("x*"), key(2));
        assert_eq!(all.receivers(b"news"), [(key(1), Via::Channel), (key(1), Via::Pattern(name("n*")))]);
        assert_eq!((all.count(b"news"), all.pattern_count()), (1, 2));
        all.remove(Kind::Channel, &name("news"), key(1));
        all.remove(Kind::Pattern, &name("n*"), key(1));
        assert!(all.receivers(b"news").is_empty() && !all.is_empty());
    }

    /// Neither is the loop held up nor a message missed in silence.
    #[test]
    fn a_pattern_that_takes_too_long_is_found_out() {
        let key = |index| ClientKey { index, generation: 0 };
        let mut all = Subscribers::default();
        let costly: Arc<[u8]> = [&b"*"[..], &[b'a'; 2_000], b"b"].concat().into();
        all.insert(Kind::Pattern, &costly, key(1));
        all.insert(Kind::Pattern, &Arc::from(&b"a*"[..]), key(2));
        let (long, longer) = (vec![b'a'; 3_000], vec![b'a'; 10_000]);
        let fitting = || (key(2), Via::Pattern(Arc::from(&b"a*"[..])));
        assert_eq!(all.receivers(&long), [fitting()]);
        assert_eq!(all.receivers(&longer), [(key(1), Via::Unknown), fitting()]);
        assert_eq!(all.receivers(&long), [(key(1), Via::Unknown), fitting()], "nothing is left in this turn");
        all.begin_turn();
        assert_eq!(all.receivers(&long), [fitting()]);
        assert_eq!(all.receivers(b"aaa"), [fitting()]);
    }
}
