//! Why a measurement could not be made.

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The server cannot be reached, or a thread not be started.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// Latencies cannot be counted.
    #[error("cannot count latencies: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// A thread of the generator ended before its time.
    #[error("a thread of the load generator died")]
    ThreadDied,
}

impl BenchError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
