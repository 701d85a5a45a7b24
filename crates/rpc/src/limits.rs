//! How much a peer may send.

/// Longest accepted command body, READY included. libzmq sends under 100 bytes.
pub const COMMAND_MAX_BYTES: usize = 8 << 10;

/// How much one peer may send in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames of one message.
    pub frames_max: usize,
    /// Bytes of one frame.
    pub frame_max_bytes: usize,
    /// Bytes of one message, all its frames.
    pub message_max_bytes: usize,
    /// What the limits are for.
    pub of: LimitsOf,
}

/// Which messages [`Limits`] are for; said where one of them is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsOf {
    /// What comes before the peer has said what it serves. Fixed.
    Handshake,
    /// What nobody asked for. Fixed.
    Unasked,
    /// Answers (`[rpc]` of the config).
    Answers,
}

/// Which of the [`Limits`] is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::frames_max`]
    Frames,
    /// [`Limits::frame_max_bytes`]
    FrameBytes,
    /// [`Limits::message_max_bytes`]
    MessageBytes,
}
