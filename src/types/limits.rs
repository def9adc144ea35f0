//! Every limit in one place. A length is compared with its limit before anything is allocated.

/// Longest key, in bytes.
pub const KEY_LEN_MAX: usize = 64 << 10;
/// Longest value by default, in bytes; `set value-max` changes it, up to [`VALUE_LEN_CEILING`].
pub const VALUE_LEN_MAX: usize = 64 << 20;
/// The highest value that `set value-max` accepts, in bytes.
pub const VALUE_LEN_CEILING: usize = 256 << 20;
/// Most arguments of one command, its name included.
pub const ARGUMENT_COUNT_MAX: usize = 65_536;
/// Longest inline line, in bytes, its end not counted.
pub const INLINE_LEN_MAX: usize = 64 << 10;
/// Most bytes that the arguments of one command may have together beyond the longest value that the node takes.
pub const COMMAND_LEN_SLACK: usize = 16 << 20;
/// Most bytes that the arguments of one command may ever have together.
pub const COMMAND_LEN_MAX: usize = VALUE_LEN_CEILING + (1 << 20);
/// Most bytes that the values of one reply may have together; a response with them fits into a frame.
pub const REPLY_LEN_MAX: usize = COMMAND_LEN_MAX;

/// Most payload bytes of a frame from a peer or a client.
pub const FRAME_LEN_MAX: usize = COMMAND_LEN_MAX + (16 << 20);
/// Most payload bytes of a frame before the hello exchange is done.
pub const HELLO_LEN_MAX: usize = 4 << 10;

/// A batch is closed when it has this many bytes; one larger command is a batch of its own.
pub const BATCH_LEN_SOFT: usize = 1 << 20;
/// Most commands in one batch.
pub const BATCH_COUNT_MAX: u32 = 1 << 16;
/// Most bytes of one batch: one that is almost closed, the largest command, and what encodes its arguments.
pub const BATCH_LEN_MAX: usize = COMMAND_LEN_MAX + 2 * BATCH_LEN_SOFT;

/// Most nodes of a view.
pub const MEMBER_COUNT_MAX: usize = 64;
/// A timestamp this far above one's own clock is a protocol error.
pub const CLOCK_LEAP_MAX: u64 = 1 << 48;
/// The highest timestamp that is believed: half of what there are, so that many leaps do not wear the clock out either.
pub const CLOCK_MAX: u64 = 1 << 63;
/// The highest index that is believed; no cluster gets there by commands.
pub const INDEX_MAX: u64 = 1 << 63;
/// Soft limit for the entries in one catching-up message, in bytes; one larger entry goes alone.
pub const FILL_LEN_SOFT: usize = 1 << 20;
/// Most entries in one catching-up message.
pub const FILL_COUNT_MAX: usize = 4096;
/// Most bytes of one block of a snapshot.
pub const SNAPSHOT_BLOCK_LEN_MAX: usize = 64 << 10;
/// Most blocks of a snapshot in one message.
pub const SNAPSHOT_BLOCK_COUNT_MAX: usize = 16;
/// Most decisions in one `NewView` message.
pub const DECISION_COUNT_MAX: usize = 64;
