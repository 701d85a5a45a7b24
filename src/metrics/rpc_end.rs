//! Why connections of containers end.

/// Why a container connection ended or was refused, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RpcEnd {
    /// Too many connections.
    Limit,
    /// Not ZMTP, or a ZMTP rule broken.
    Zmtp,
    /// Not a Clipper message, or one out of turn.
    Protocol,
    /// No new-container message in time.
    HandshakeTimeout,
    /// RPC version missing or not 3.
    RpcVersion,
    /// The container's input type is not its model's.
    InputType,
    /// A model name or version that cannot be one.
    Name,
    /// The peer closed the connection.
    Closed,
    /// Silent for too long.
    Silent,
    /// Computed for longer than anybody waited.
    Hung,
    /// Did not read; its write queue was full.
    Stuck,
    /// Sent too many messages that nobody asked for.
    Flood,
    /// Wrong number of outputs.
    OutputCount,
    /// An answer over a limit of one message (`rpc.message_max_bytes` and the like).
    AnswerTooLarge,
    /// Its model was not registered in time, or it gave way to others that wait.
    UnknownModel,
    /// Its unfinished message gave way when memory was needed (`rpc.receive_max_bytes`).
    Memory,
    /// Its model version was retired.
    Retired,
    /// The connection's actor panicked.
    Panicked,
    /// Orderly shutdown of the server.
    Shutdown,
    /// It has no key, a wrong one, or one that is not for its model.
    Denied,
}

impl RpcEnd {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 20] = [
        Self::Limit,
        Self::Zmtp,
        Self::Protocol,
        Self::HandshakeTimeout,
        Self::RpcVersion,
        Self::InputType,
        Self::Name,
        Self::Closed,
        Self::Silent,
        Self::Hung,
        Self::Stuck,
        Self::Flood,
        Self::OutputCount,
        Self::AnswerTooLarge,
        Self::UnknownModel,
        Self::Memory,
        Self::Retired,
        Self::Panicked,
        Self::Shutdown,
        Self::Denied,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Zmtp => "zmtp",
            Self::Protocol => "protocol",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::RpcVersion => "rpc_version",
            Self::InputType => "input_type",
            Self::Name => "name",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Hung => "hung",
            Self::Stuck => "stuck",
            Self::Flood => "flood",
            Self::OutputCount => "output_count",
            Self::AnswerTooLarge => "answer_too_large",
            Self::UnknownModel => "unknown_model",
            Self::Memory => "memory",
            Self::Retired => "retired",
            Self::Panicked => "panicked",
            Self::Shutdown => "shutdown",
            Self::Denied => "denied",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_domain::Outcome;

    #[test]
    fn every_reason_has_its_remedy_in_the_docs() {
        let page = include_str!("../../docs/errors.md");
        for end in RpcEnd::ALL {
            assert!(page.contains(&format!("- **`{}`** ", end.label())), "{}", end.label());
        }
        for outcome in Outcome::ALL.into_iter().filter(|it| *it != Outcome::Prediction) {
            assert!(
                page.contains(&format!("- **`{}`**, ", outcome.label())),
                "{}",
                outcome.label()
            );
        }
    }
}
