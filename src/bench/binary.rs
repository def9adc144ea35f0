//! lanekv's own frames. No session: a load generator repeats nothing.

use crate::types::limits;
use crate::wire::client::{Consistency, KIND_RESPONSE, WireReply, decode_response, encode_request};
use crate::wire::{FrameError, split_frame};

use super::dialect::{Answer, Taken};
use super::workload::{Command, Operation};

/// One connection.
#[derive(Debug)]
pub(super) struct Binary {
    consistency: Option<Consistency>,
}

impl Binary {
    pub(super) fn new(consistency: Option<Consistency>) -> Binary {
        Binary { consistency }
    }

    pub(super) fn encode(&mut self, seq: u64, command: &Command, out: &mut Vec<u8>) {
        let name = command.operation.name().as_bytes();
        let mut encode = |arguments: &[&[u8]]| encode_request(out, seq, self.consistency, None, arguments);
        match (command.operation, command.keys) {
            (Operation::Set, [key]) => encode(&[name, key, command.value]),
            (Operation::Get | Operation::Incr, [key]) => encode(&[name, key]),
            (_, keys) => {
                let mut arguments: Vec<&[u8]> = vec![name];
                arguments.extend(keys.iter().flat_map(|key| [key.as_slice(), command.value]));
                encode(&arguments);
            }
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Taken, String> {
        let (kind, payload, len) = match split_frame(bytes, limits::FRAME_LEN_MAX) {
            Ok(frame) => frame,
            Err(FrameError::Incomplete { .. }) => return Ok(Taken::Incomplete),
            Err(error) => return Err(error.to_string()),
        };
        if kind != KIND_RESPONSE {
            return Err(format!("a frame of kind {kind:#04x}"));
        }
        let response = decode_response(payload).map_err(|error| error.to_string())?;
        let answer = match response.reply {
            WireReply::Nil => Answer::Missing,
            WireReply::Error(text) => Answer::Error(text),
            WireReply::Status(_) | WireReply::Bulk(_) | WireReply::Integer(_) | WireReply::Array(_) => {
                Answer::Done
            }
        };
        Ok(Taken::Reply { len, seq: response.id, answer })
    }
}
