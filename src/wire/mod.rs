//! Bytes on the wire: frames, checked cursors and batches, written by hand.
//!
//! Everything is little endian. Every length is compared with a limit and with the bytes that are
//! really there before anything is allocated; nothing recurses. `docs/formats.md` shows every byte.

pub mod batch;
pub mod client;
mod cursor;
mod frame;

pub use cursor::{DecodeError, Reader, Writer};
pub use frame::{
    FRAME_HEADER_LEN, FrameError, FrameHeader, MAGIC, PayloadSum, begin_frame, end_frame, split_frame,
};
