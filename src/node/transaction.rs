//! `MULTI`, `EXEC`, `WATCH` of a connection.
//!
//! Commands after `MULTI` are kept. `EXEC` sends those of the store, together with the revisions that `WATCH` has
//! seen, as *one* command through the total order; those about the connection are carried out when `EXEC` is read,
//! what is asked of the node is answered when the whole is, and the answers are put into its reply at their places.
//!
//! `WATCH` is a linearizable read of revisions. `EXEC` needs its answer, so a connection whose `WATCH` is on its way
//! is not read further than to its `EXEC`.

use crate::dialect::ReplyStyle;
use crate::store::{CommandSpec, TRANSACTION_CODE, TransactionBuilder, by_code};
use crate::types::{Now, Reply};

use super::clients::Client;
use super::commands;
use super::intake::Context;
use super::queue::{Part, State};
use super::talk::Talk;
use super::{Class, Node};

/// Most commands of a transaction.
const COMMAND_COUNT_MAX: usize = 65_536;
/// Most bytes of the arguments of commands about the connection in a transaction.
const CONNECTION_LEN_MAX: usize = 1 << 20;
const TOO_LARGE: &str = "ERR the transaction is too large";

/// A transaction that is being put together.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    commands: Vec<Queued>,
    builder: TransactionBuilder,
    /// Bytes of the arguments that are not for the store.
    len: usize,
    /// A command was refused: the whole will be.
    failed: bool,
}

impl Transaction {
    /// How many commands it has.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }
}

#[derive(Debug)]
enum Queued {
    Store { code: u8 },
    Node { spec: &'static CommandSpec, arguments: Vec<Box<[u8]>> },
}

/// Whether a command is carried out at once, although a transaction is being put together.
pub(super) fn is_immediate(spec: &CommandSpec) -> bool {
    matches!(spec.name, "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "QUIT" | "RESET")
}

impl Client {
    /// Notes that a command was refused while a transaction was being put together.
    pub(super) fn fail_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
    }
}

/// Keeps a command for `EXEC`.
pub(super) fn enqueue(
    client: &mut Client,
    style: ReplyStyle,
    spec: &'static CommandSpec,
    arguments: &[&[u8]],
) {
    let Some(transaction) = &mut client.transaction else { return };
    let refused = match spec.name {
        "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" | "SESSION" | "SHUTDOWN" => {
            Some(Reply::error("ERR Command not allowed inside a transaction"))
        }
        _ if transaction.commands.len() >= COMMAND_COUNT_MAX => Some(Reply::error(TOO_LARGE)),
        _ if spec.class == Class::Connection => {
            transaction.len += arguments.iter().map(|argument| argument.len()).sum::<usize>();
            if transaction.len > CONNECTION_LEN_MAX {
                transaction.failed = true;
                client.queue.push_settled(style, Reply::error(TOO_LARGE));
                return;
            }
            let arguments = arguments.iter().map(|argument| Box::from(*argument)).collect();
            transaction.commands.push(Queued::Node { spec, arguments });
            None
        }
        _ if transaction.builder.push(spec.code, arguments) => {
            transaction.commands.push(Queued::Store { code: spec.code });
            None
        }
        _ => Some(Reply::error(TOO_LARGE)),
    };
    transaction.failed |= refused.is_some();
    client.queue.push_settled(style, refused.unwrap_or(Reply::Status("QUEUED")));
}

impl Node {
    /// Carries out a command of this family. `None`: it is none.
    pub(super) fn transaction_command(
        &mut self,
        now: Now,
        client: &mut Client,
        context: &Context,
        name: &str,
        arguments: &[&[u8]],
    ) -> Option<()> {
        let reply = match name {
            // A command that is only queued would leave a gap in its session.
            "MULTI" if matches!(context.style, ReplyStyle::Binary { .. }) => {
                Reply::error("ERR the binary dialect has no transactions; use RESP")
            }
            "MULTI" if client.transaction.is_some() => Reply::error("ERR MULTI calls can not be nested"),
            "MULTI" => {
                client.transaction = Some(Box::default());
                Reply::OK
            }
            "EXEC" => {
                self.exec(now, client, context);
                return Some(());
            }
            "DISCARD" => match client.transaction.take() {
                None => Reply::error("ERR DISCARD without MULTI"),
                Some(_) => {
                    client.queue.unwatch();
                    Reply::OK
                }
            },
            "WATCH" if client.transaction.is_some() => Reply::error("ERR WATCH inside MULTI is not allowed"),
            "WATCH" => {
                if !client.queue.can_watch(arguments) {
                    Reply::error("ERR too many watched keys")
                } else if let Some(refusal) = self.refuse_read() {
                    refusal
                } else {
                    let needs = self.needs_of_read(now, client);
                    client.queue.push_watch(context.style, arguments, needs);
                    return Some(());
                }
            }
            "UNWATCH" => {
                client.queue.unwatch();
                Reply::OK
            }
            _ => return None,
        };
        client.queue.push_settled(context.style, reply);
        Some(())
    }

    fn exec(&mut self, now: Now, client: &mut Client, context: &Context) {
        let Some(transaction) = client.transaction.take() else {
            client.queue.push_settled(context.style, Reply::error("ERR EXEC without MULTI"));
            return;
        };
        let watched = client.queue.unwatch();
        if transaction.failed {
            let text = "EXECABORT Transaction discarded because of previous errors.";
            client.queue.push_settled(context.style, Reply::error(text));
            return;
        }
        let Some(watched) = watched else {
            // What they were is not known.
            client.queue.push_settled(context.style, Reply::NilArray);
            return;
        };
        let Transaction { commands, mut builder, .. } = *transaction;
        let for_store = commands.iter().any(|command| matches!(command, Queued::Store { .. }));
        let is_local = watched.is_empty() && !for_store;
        for (key, revision) in watched {
            builder.watch(&key, revision);
        }
        let mut talk = Talk::of_transaction();
        let parts = commands.into_iter().map(|command| match command {
            Queued::Store { code } => Part::Command { code },
            Queued::Node { spec, arguments } => {
                let arguments: Vec<&[u8]> = arguments.iter().map(|argument| &**argument).collect();
                commands::carry_out_part(
                    client,
                    &mut self.backend,
                    context.style,
                    spec,
                    &arguments,
                    &mut talk,
                )
            }
        });
        let parts: Vec<Part> = parts.collect();
        self.backend.talk.pay_transaction(&talk);
        if is_local {
            client.queue.push(context.style, State::AskAll(parts.into()));
            return;
        }
        debug_assert!(by_code(TRANSACTION_CODE).is_some());
        let arguments = builder.finish();
        let state = State::Multicast { session: None, parts: Some(parts.into()) };
        self.multicast(now, client, context, TRANSACTION_CODE, &arguments, state);
    }
}
