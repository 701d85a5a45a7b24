//! The log of metadata changes and what is derived from it.
//!
//! [`event`] is the durable alphabet, [`journal`] the append-only log and its thread ([`record`]
//! its bytes, [`scan`] its checks, `wal` its newest part, [`sled`] the rest), [`projection`] the
//! state that replaying gives, [`view`] the shared copy of that state, [`policy_state`] what users'
//! feedback left (`logged_states` takes bursts of it), [`soft_file`] other things worth keeping but
//! not worth a log, [`durable`] what makes files last. [`history`] reads what the log keeps
//! while it is written, [`backup`] puts it into a file, [`difference`] tells two states apart.
//! Predictions never come here.
//!
//! Invariants:
//! - **J1** Sequence numbers have no gap. An acknowledged change is on the disk: it survives a kill
//!   and a power cut at any point. A torn or corrupt tail is detected, reported with its offset and
//!   cut, never half-applied.
//! - **J2** Replaying from the start and from any snapshot gives equal state.

mod as_list;
pub mod backup;
pub mod difference;
pub mod durable;
pub mod error;
pub mod event;
pub mod head;
pub mod history;
pub mod inspect;
pub mod journal;
mod logged_states;
pub mod memory;
pub mod plan;
pub mod policy_state;
pub mod projection;
pub mod record;
pub mod redis;
pub mod replay;
pub mod scan;
pub mod served;
pub mod sled;
pub mod soft_file;
mod state_log;
pub mod view;
mod wal;
pub mod writer;

#[cfg(test)]
pub(crate) mod samples;

pub use error::StoreError;
pub use journal::{EventLog, Journal};
pub use view::CatalogView;
pub use writer::{ChangeError, MetadataWriter, SharedWriter};
