//! What there is to be told about.

/// What a page shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Overview,
    App(String),
    /// Name and version.
    Model(String, String),
}
