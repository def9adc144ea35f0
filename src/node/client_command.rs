//! `CLIENT`: about the connections of this node.

use std::fmt::Write as _;

use crate::dialect::ReplyStyle;
use crate::store::{CommandError, CommandSpec};
use crate::types::{Millis, Reply, decimal};

use super::Node;
use super::backend::Backend;
use super::clients::{Client, Replies};
use super::commands::{excerpt, is, resp_number, take_name, unknown_subcommand, wrong_arity};

/// The longest that a library may say about itself.
const LIBRARY_LEN_MAX: usize = 512;

/// Whether a CLIENT command looks at other connections than its own.
pub(super) fn is_about_others(arguments: &[&[u8]]) -> bool {
    arguments.first().is_some_and(|subcommand| is(subcommand, "LIST") || is(subcommand, "KILL"))
}

/// Whether it is a CLIENT REPLY.
pub(super) fn is_about_replies(spec: &CommandSpec, arguments: &[&[u8]]) -> bool {
    spec.name == "CLIENT" && arguments.first().is_some_and(|word| is(word, "REPLY"))
}

/// Whether a command is answered even by a connection that is silent: because it ends that.
pub(super) fn ends_silence(client: &Client, spec: &CommandSpec, arguments: &[&[u8]]) -> bool {
    match spec.name {
        "CLIENT" => matches!(arguments, [word, on] if is(word, "REPLY") && is(on, "ON")),
        "RESET" => client.replies == Replies::Off,
        _ => false,
    }
}

fn number(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Answers a CLIENT command about its own connection.
pub(super) fn client_command(client: &mut Client, backend: &Backend, arguments: &[&[u8]]) -> Reply {
    let [subcommand, rest @ ..] = arguments else {
        return wrong_arity("client");
    };
    let of = |word: &str| is(subcommand, word);
    match rest {
        [] if of("ID") => number(client.id),
        [] if of("GETNAME") && client.name.is_empty() => Reply::Nil,
        [] if of("GETNAME") => Reply::bulk(&client.name),
        [] if of("INFO") => Reply::Verbatim(line(client, backend.now.mono, backend).into_bytes().into()),
        [name] if of("SETNAME") => take_name(client, name).err().unwrap_or(Reply::OK),
        [what, value] if of("SETINFO") => set_library(client, what, value),
        [word] if of("NO-EVICT") || of("NO-TOUCH") => {
            if is(word, "ON") || is(word, "OFF") {
                Reply::OK
            } else {
                CommandError::Syntax.into()
            }
        }
        [word] if of("REPLY") => {
            client.replies = match () {
                () if is(word, "ON") => Replies::On,
                () if is(word, "OFF") => Replies::Off,
                // Where all are left out, the next is anyway.
                () if is(word, "SKIP") && client.replies == Replies::Off => Replies::Off,
                () if is(word, "SKIP") => Replies::SkipNext,
                () => return CommandError::Syntax.into(),
            };
            Reply::OK
        }
        [word, options @ ..] if of("TRACKING") => match () {
            () if !are_of_tracking(options) => CommandError::Syntax.into(),
            () if is(word, "OFF") => Reply::OK,
            () if is(word, "ON") => Reply::error("ERR client-side caching is not supported by this server"),
            () => CommandError::Syntax.into(),
        },
        [] if of("GETREDIR") => Reply::Integer(-1),
        [] if of("COUNT") => number(backend.client_count as u64),
        _ => {
            let known = [
                "ID", "GETNAME", "INFO", "SETNAME", "SETINFO", "NO-EVICT", "NO-TOUCH", "REPLY", "TRACKING",
                "GETREDIR",
            ];
            match known.iter().find(|word| of(word)) {
                Some(word) => wrong_arity(&format!("client|{}", word.to_ascii_lowercase())),
                None => unknown_subcommand("CLIENT", arguments),
            }
        }
    }
}

/// Whether these are options of CLIENT TRACKING.
fn are_of_tracking(mut options: &[&[u8]]) -> bool {
    while let [option, after @ ..] = options {
        let of = |words: &[&str]| words.iter().any(|word| is(option, word));
        options = match after {
            after if of(&["BCAST", "OPTIN", "OPTOUT", "NOLOOP"]) => after,
            [_, after @ ..] if of(&["REDIRECT", "PREFIX"]) => after,
            _ => return false,
        };
    }
    true
}

fn set_library(client: &mut Client, what: &[u8], value: &[u8]) -> Reply {
    let place = match () {
        () if is(what, "LIB-NAME") => 0,
        () if is(what, "LIB-VER") => 1,
        () => {
            let option = excerpt(what);
            return Reply::error(format!("ERR Unrecognized option '{option}'"));
        }
    };
    if value.len() > LIBRARY_LEN_MAX || !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        let name = excerpt(what).to_ascii_lowercase();
        return Reply::error(format!("ERR {name} cannot contain spaces, newlines or special characters."));
    }
    client.library[place] = Box::from(value);
    Reply::OK
}

fn kind(client: &Client) -> &'static str {
    if client.subscriptions.is_empty() { "normal" } else { "pubsub" }
}

/// What CLIENT LIST tells of a connection.
fn line(client: &Client, now: Millis, backend: &Backend) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (channels, patterns) = client.subscriptions.counts();
    let multi = client.transaction.as_ref().map_or(-1, |tx| i64::try_from(tx.len()).unwrap_or(i64::MAX));
    let flags = match (client.subscriptions.is_empty(), multi) {
        (false, _) => "P",
        (true, 0..) => "x",
        (true, _) => "N",
    };
    let mut line = String::new();
    let _ = writeln!(
        line,
        "id={} addr={} laddr=:{} fd={} name={} age={} idle={} flags={flags} db=0 sub={channels} psub={patterns} ssub=0 \
         multi={multi} watch={} qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 obl={} oll={} omem=0 tot-mem=0 events=rw \
         cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.address,
        backend.settings.port_at(client.endpoint),
        client.key.index,
        text(&client.name),
        now.since(client.opened).0 / 1000,
        now.since(client.active).0 / 1000,
        client.queue.watched_len(),
        client.input.len(),
        client.queue.output().len(),
        client.queue.unanswered(),
        client.last_command.to_ascii_lowercase(),
        resp_number(client.resp),
        text(&client.library[0]),
        text(&client.library[1]),
    );
    line
}

/// So many connections that are passed over take as long as a look at a key.
const CLIENTS_PER_UNIT: usize = 16;

/// Which connections CLIENT LIST and CLIENT KILL mean.
#[derive(Debug, Default)]
struct Filter<'a> {
    /// In order.
    ids: Vec<i64>,
    address: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    /// The connection that asks is not meant.
    spares_itself: bool,
}

impl<'a> Filter<'a> {
    fn parse(mut rest: &[&'a [u8]], is_kill: bool) -> Result<Filter<'a>, Reply> {
        let mut filter = Filter { spares_itself: is_kill, ..Filter::default() };
        // CLIENT LIST takes one filter.
        if let [option, _, _, ..] = rest
            && !is_kill
            && !is(option, "ID")
        {
            return Err(CommandError::Syntax.into());
        }
        while let [option, value, after @ ..] = rest {
            rest = after;
            match () {
                () if is(option, "ID") => {
                    if is_kill {
                        let wrong = || Reply::error("ERR client-id should be greater than 0");
                        filter.ids.push(decimal::parse(value).filter(|id| *id > 0).ok_or_else(wrong)?);
                    } else {
                        for id in std::iter::once(value).chain(rest) {
                            let wrong = || Reply::error("ERR Invalid client ID");
                            filter.ids.push(decimal::parse(id).ok_or_else(wrong)?);
                        }
                        rest = &[];
                    }
                }
                () if is(option, "ADDR") && is_kill => filter.address = Some(value),
                () if is(option, "TYPE") => {
                    let known = ["normal", "master", "replica", "slave", "pubsub"];
                    if !known.iter().any(|word| is(value, word)) {
                        let value = excerpt(value);
                        return Err(Reply::error(format!("ERR Unknown client type '{value}'")));
                    }
                    filter.kind = Some(value);
                }
                () if is(option, "SKIPME") && is_kill => {
                    filter.spares_itself = match () {
                        () if is(value, "YES") => true,
                        () if is(value, "NO") => false,
                        () => return Err(CommandError::Syntax.into()),
                    };
                }
                () => return Err(CommandError::Syntax.into()),
            }
        }
        filter.ids.sort_unstable();
        if rest.is_empty() { Ok(filter) } else { Err(CommandError::Syntax.into()) }
    }

    fn means(&self, client: &Client) -> bool {
        let is_named = || i64::try_from(client.id).is_ok_and(|id| self.ids.binary_search(&id).is_ok());
        (self.ids.is_empty() || is_named())
            && self.address.is_none_or(|address| *address == *client.address.as_bytes())
            && self.kind.is_none_or(|wanted| is(wanted, kind(client)))
    }
}

impl Node {
    /// Answers CLIENT LIST and CLIENT KILL. `client` is not in the table at the moment.
    pub(super) fn about_clients(&mut self, client: &mut Client, style: ReplyStyle, arguments: &[&[u8]]) {
        let reply = self.list_or_kill(client, arguments).unwrap_or_else(|refusal| refusal);
        self.backend.talk.pay(&reply, (self.clients.len() / CLIENTS_PER_UNIT) as u64);
        client.queue.push_settled(style, reply);
    }

    fn list_or_kill(&mut self, client: &mut Client, arguments: &[&[u8]]) -> Result<Reply, Reply> {
        let [subcommand, rest @ ..] = arguments else { return Err(wrong_arity("client")) };
        if is(subcommand, "LIST") {
            let filter = Filter::parse(rest, false)?;
            let now = self.backend.now.mono;
            let mut meant: Vec<&Client> = self.clients.iter().chain([&*client]).collect();
            meant.retain(|other| filter.means(other));
            meant.sort_unstable_by_key(|other| other.id);
            let lines: String = meant.into_iter().map(|other| line(other, now, &self.backend)).collect();
            return Ok(Reply::Verbatim(lines.into_bytes().into()));
        }
        let (filter, is_old_form) = match rest {
            [] => return Err(wrong_arity("client|kill")),
            [address] => (Filter { address: Some(address), ..Filter::default() }, true),
            options => (Filter::parse(options, true)?, false),
        };
        let mut count = 0;
        for other in self.clients.iter_mut().filter(|other| filter.means(other)) {
            if !other.closing {
                other.closing = true;
                other.end_input();
                self.effects.closing.push(other.key);
                count += 1;
            }
        }
        if !filter.spares_itself && filter.means(client) {
            // It is still told that it was killed.
            client.ended = true;
            count += 1;
        }
        match (is_old_form, count) {
            (true, 0) => Err(Reply::error("ERR No such client")),
            (true, _) => Ok(Reply::OK),
            (false, count) => Ok(Reply::Integer(count)),
        }
    }
}
