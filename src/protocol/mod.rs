//! The replication core: Lamport lanes with sealed views, as `docs/protocol.md` describes it.
//!
//! It is pure: bytes, sockets, clocks and disks are elsewhere. [`Replica::handle`] takes one input and
//! appends outputs, which are carried out in order before the next input. The same state and input give
//! the same outputs.

mod api;
mod base;
mod catch_up;
mod codec;
mod delivery;
mod forgetting;
mod lane;
pub(crate) mod marks;
mod message;
mod mutation;
mod offers;
mod origins;
mod peers;
mod reads;
mod recovery;
mod replica;
mod seal;
mod suspicion;

pub use api::{
    Delivery, HaltReason, Identity, Input, Intake, Note, OfferTicket, Output, ReadTicket, Report, Settings,
    Verdict,
};
pub use base::{Base, BaseParts};
pub use codec::{
    HELLO_KIND, REFUSAL_KIND, decode_hello, decode_message, decode_record, decode_refusal, encode_hello,
    encode_message, encode_record, encode_refusal, record_kind,
};
pub use marks::{Mark, Marks};
pub use message::{
    Ballot, Decision, Hello, LaneRow, LaneVector, Message, Nonce, Promise, Record, Refusal, Remembered,
    Sender, Status, Value, View, Voter,
};
pub use mutation::Mutation;
pub(crate) use mutation::mutated;
#[cfg(feature = "mutations")]
pub use mutation::set_mutation;
pub use recovery::{Recovery, RecoveryError};
pub use replica::Replica;
