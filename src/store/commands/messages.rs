//! What goes through the total order without changing a key: messages to subscribers, and the time.

use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run};
use crate::store::{Applied, Event, Store};
use crate::types::Reply;

use super::{WRITE, exactly};

/// The code of the command that brings nothing but the time.
pub const TICK_CODE: u8 = 63;

pub(crate) static COMMANDS: [CommandSpec; 2] = [
    CommandSpec {
        name: "PUBLISH",
        code: 62,
        arity: 3,
        keys: KeyPositions::NONE,
        group: Group::Pubsub,
        usage: "channel message",
        summary: "sends a message to all subscribers of a channel, at whatever node, and answers how many there are \
                  at this one",
        run: Run::Write(publish),
        ..WRITE
    },
    CommandSpec {
        name: "TICK",
        code: TICK_CODE,
        arity: 1,
        class: Class::Internal,
        keys: KeyPositions::NONE,
        group: Group::Server,
        usage: "",
        summary: "does nothing: the entry that brings it brings the time",
        run: Run::Write(tick),
        ..WRITE
    },
];

/// How many receive it is another number on every node, so whoever answers the client counts them.
fn publish(store: &mut Store, _: Applied, arguments: &[&[u8]]) -> Answer {
    let [channel, message] = exactly(arguments)?;
    store.events.push(Event::Published { channel: channel.into(), message: message.into() });
    Ok(Reply::Integer(0))
}

#[expect(clippy::unnecessary_wraps, reason = "as all commands")]
fn tick(_: &mut Store, _: Applied, _: &[&[u8]]) -> Answer {
    Ok(Reply::OK)
}
