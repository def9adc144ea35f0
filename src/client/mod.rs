//! The client library behind `kvclient`.
//!
//! A [`Client`] knows all nodes of a cluster and speaks the binary dialect with one of them at a time. It
//! stays with a node as long as that answers, and moves to the next when it does not: every node takes
//! every command. What makes that safe for writes is the session: each write carries `(session, seq)`, is
//! repeated with the same pair until its fate is known, and is applied once however often it arrives
//! ([`session`]). Where the fate cannot be learned in time, the client says so and never guesses.
//!
//! On top of that stand the programs' parts: [`commands`] says what may be repeated and what HELP shows,
//! [`mod@print`] turns replies into text, Redis' notation or JSON, [`shell`] runs one command, a pipe or a
//! prompt, [`local_cluster`] starts three nodes inside the process, and [`log_file`] keeps what they log away
//! from the prompt.
//!
//! The client blocks: one thread, one request in flight. Left out on purpose: pipelining, subscriptions,
//! and everything else that ties a user to one connection.

pub mod backup;
pub mod commands;
mod connection;
mod failover;
pub mod local_cluster;
pub mod log_file;
pub mod print;
mod prompt;
pub mod session;
pub mod shell;

pub use connection::{CallError, Connection};
pub use failover::{Client, ClientError, Options};
