//! `CONFIG`: what the settings of a Redis would be, and the few that can be changed.

use crate::store::{CommandError, StepBudget, glob_fits};
use crate::types::Reply;

use super::backend::{Backend, Stats};
use super::cluster_view::Endpoint;
use super::commands::{excerpt, is, unknown_subcommand, wrong_arity};
use super::subscribers::KeyEvents;

/// The one setting that can be changed while the node runs.
const KEY_EVENTS: &str = "notify-keyspace-events";

/// So many names that are compared with a pattern take as long as a look at a key.
const NAMES_PER_UNIT: usize = 64;

pub(super) fn config(backend: &mut Backend, endpoint: Endpoint, arguments: &[&[u8]]) -> Reply {
    let [subcommand, rest @ ..] = arguments else {
        return wrong_arity("config");
    };
    let of = |word: &str| is(subcommand, word);
    match rest {
        [_, ..] if of("GET") => get(backend, endpoint, rest),
        [_, _, ..] if of("SET") && rest.len().is_multiple_of(2) => set(backend, endpoint, rest),
        [_, _, ..] if of("SET") => CommandError::Syntax.into(),
        [] if of("RESETSTAT") => {
            backend.stats = Stats::default();
            Reply::OK
        }
        [] if of("REWRITE") => Reply::error("ERR The server is running without a config file"),
        _ => {
            for word in ["GET", "SET", "RESETSTAT", "REWRITE"] {
                if of(word) {
                    return wrong_arity(&format!("config|{}", word.to_ascii_lowercase()));
                }
            }
            unknown_subcommand("CONFIG", arguments)
        }
    }
}

fn settings(backend: &Backend, endpoint: Endpoint) -> Vec<(&'static str, String)> {
    let settings = &backend.settings;
    vec![
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        (
            "cluster-enabled",
            if settings.cluster_view.is_shown_at(endpoint) { "yes" } else { "no" }.to_owned(),
        ),
        ("databases", "1".to_owned()),
        ("maxclients", settings.clients_max.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        (KEY_EVENTS, backend.key_events.text().to_owned()),
        ("port", settings.port_at(endpoint).to_string()),
        ("proto-max-bulk-len", settings.store.value_len_max.to_string()),
        ("requirepass", String::new()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ]
}

fn get(backend: &Backend, endpoint: Endpoint, patterns: &[&[u8]]) -> Reply {
    // Some milliseconds; the names are short.
    let mut budget = StepBudget::FOR_NAMES;
    let settings = settings(backend, endpoint);
    let mut fits = vec![false; settings.len()];
    for pattern in patterns {
        let pattern = pattern.to_ascii_lowercase();
        for ((name, _), fits) in settings.iter().zip(&mut fits) {
            match glob_fits(&pattern, name.as_bytes(), &mut budget) {
                Ok(does) => *fits |= does,
                Err(error) => return error.into(),
            }
        }
    }
    backend.store.count_work((patterns.len() * settings.len() / NAMES_PER_UNIT) as u64);
    let found = settings.iter().zip(fits).filter(|(_, fits)| *fits);
    let bulks = |((name, value), _): (&(&str, String), bool)| {
        [Reply::bulk(name.as_bytes()), Reply::bulk(value.as_bytes())]
    };
    Reply::Map(found.flat_map(bulks).collect())
}

/// All or nothing, as in Redis.
fn set(backend: &mut Backend, endpoint: Endpoint, pairs: &[&[u8]]) -> Reply {
    let mut wanted = None;
    let known = settings(backend, endpoint);
    let (pairs, _) = pairs.as_chunks::<2>();
    for [name, value] in pairs {
        let shown = excerpt(name);
        let Some((name, _)) = known.iter().find(|(known, _)| is(name, known)) else {
            return Reply::error(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
            ));
        };
        if *name != KEY_EVENTS {
            return Reply::error(format!(
                "ERR CONFIG SET failed (possibly related to argument '{shown}') - can't set immutable config"
            ));
        }
        let Some(events) = KeyEvents::parse(value) else {
            return Reply::error(format!(
                "ERR CONFIG SET failed (possibly related to argument '{shown}') - Invalid event class character. Use \
                 'Ag$lshzxeKEtmdn'."
            ));
        };
        wanted = Some(events);
    }
    if let Some(events) = wanted {
        backend.key_events = events;
    }
    Reply::OK
}
