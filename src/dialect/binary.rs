//! The project's own frames, as clients send them: see [`crate::wire::client`] for every byte.

use crate::wire::client::{KIND_REQUEST, Request, decode_request};
use crate::wire::{FrameError, split_frame};

use super::error::ProtocolError;

/// A request with the length of its frame, or how many bytes are needed at least.
pub(super) enum Progress<'a> {
    Whole { request: Request<'a>, len: usize },
    Partial { needed: usize },
}

/// Reads the frame at the front of `input`.
pub(super) fn decode(input: &[u8], frame_len_max: usize) -> Result<Progress<'_>, ProtocolError> {
    let (kind, payload, len) = match split_frame(input, frame_len_max) {
        Ok(frame) => frame,
        Err(FrameError::Incomplete { needed }) => {
            return Ok(Progress::Partial { needed: input.len().saturating_add(needed) });
        }
        Err(error) => return Err(ProtocolError::Frame(error)),
    };
    if kind != KIND_REQUEST {
        return Err(ProtocolError::FrameKind { found: kind });
    }
    let request = decode_request(payload).map_err(ProtocolError::Payload)?;
    if request.arguments.is_empty() {
        return Err(ProtocolError::NoCommand);
    }
    Ok(Progress::Whole { request, len })
}
