//! The actors: thin shells with timers, mailboxes and addresses around pure structs.
//!
//! ```text
//! HTTP worker threads (each)     control thread                 data threads
//!   Router --starts--> App         CatalogWriter                  Model --starts--> Batcher
//!                       |            | Followed, by a follower each ^                 ^ |
//!                       |            +--> Router (each worker)      | starts    Ready | | RunBatch
//!                       |            +--> FeedbackKeeper            |                 | |
//!                       |            +--> RolloutKeeper             |                 | |
//!                       |            +--> Models -------------------+            Done | v
//!                       |                   | ModelsChanged             Container == ZeroMQ
//!                       |                   v                               ^
//!                       |            ContainerPool ---- starts, attaches ---+
//!                       |                   ^ Register      RPC thread: listener, handshakes
//!                       +---------- intake -----------------------------> Batcher
//! ```
//!
//! With Redis, a `RedisWatcher` stands before `CatalogWriter`: changes and what others have changed
//! in the tables come through it. It is a supervised actor; its session, and the session's rows,
//! losses, policy states and malformed entries, are in [`redis`] and do not know it.
//!
//! A [deployment](crate::deploy) has `ContainerPool` start replicas that no `Model` knows, sends
//! the first one trial batches past everything else, and only then asks for the change of metadata.
//!
//! `App` answers with a [`Prediction`](apps::prediction::Prediction), which its handler waits for;
//! feedback goes from it to the one `FeedbackKeeper`. Under a rollout it counts what comes of
//! queries, by which the one `RolloutKeeper` decides.
//!
//! A prediction crosses threads once each way: `App` to `Batcher`, and the answer to the waiting
//! handler.
//!
//! Architecture invariant: control overtakes data and is never lost. Queries go through the bounded
//! intake of their model, which sheds when it is full; its mailboxes carry control only. They hold
//! `serving.mailbox_max` messages, and a sender that finds one full waits, also from `stopped()`
//! ([`control`](crate::supervision::control)).
//!
//! Architecture invariant: each parent starts its children by a factory and hears of their end by
//! a lifeline that they hold, which a panic drops too; actix's own supervisor does not survive one
//! ([`kept`](crate::supervision::kept)).

pub mod apps;
pub mod catalog;
pub mod models;
pub mod plane;
pub mod pool;
pub mod redis;
pub mod replica;

#[cfg(test)]
mod paused;
#[cfg(test)]
mod supervision_tests;
