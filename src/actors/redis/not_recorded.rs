//! Why what was seen in Redis, or written there, is not in the journal.

use actix::MailboxError;

use crate::store::ChangeError;

#[derive(Debug, thiserror::Error)]
pub(super) enum NotRecorded {
    #[error("the catalog writer: {0}")]
    Unheard(#[from] MailboxError),
    #[error("the journal: {0}")]
    Refused(#[from] ChangeError),
}
