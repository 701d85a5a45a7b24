//! The actors: thin shells with timers, mailboxes and addresses around pure structs.
//!
//! ```text
//! HTTP worker threads (each)     control thread                 data threads
//!   Router --starts--> App         CatalogWriter                  Model --starts--> Batcher
//!                       |            | Followed, by a follower each ^                 ^ |
//!                       |            +--> Router (each worker)      | starts    Ready | | RunBatch
//!                       |            +--> FeedbackKeeper            |                 | |
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
//! losses, policy states and malformed entries, are in the `redis_` files and do not know it.
//!
//! A [deployment](crate::deploy) has `ContainerPool` start replicas that no `Model` knows, sends
//! the first one trial batches past everything else, and only then asks for the change of metadata.
//!
//! `App` answers with a [`prediction`], which its handler waits for; feedback goes from it to the
//! one `FeedbackKeeper`.
//!
//! A prediction crosses threads once each way: `App` to `Batcher`, and the answer to the waiting
//! handler.
//!
//! Architecture invariant: control overtakes data and is never lost. Queries go through the bounded
//! intake of their model, which sheds when it is full; mailboxes carry control only. They hold
//! `serving.mailbox_max` messages, and a sender that finds one full waits, also from `stopped()`
//! ([`control`]).
//!
//! Architecture invariant: each parent starts its children by a factory and hears of their end from
//! `stopped()`, which runs after a panic too; actix's own supervisor does not survive one.

pub mod app;
pub mod batcher;
pub mod catalog;
pub mod container;
mod container_list;
pub mod container_pool;
mod control;
pub mod data_plane;
pub mod directory;
mod dispatching;
pub mod feedback;
pub mod file_sd;
pub mod follower;
pub mod kept;
pub mod kept_curves;
mod landing;
pub mod learned;
pub mod messages;
pub mod model;
pub mod models;
pub mod prediction;
mod redis_changes;
mod redis_keys;
mod redis_loss;
mod redis_malformed;
mod redis_notices;
mod redis_rows;
mod redis_session;
mod redis_states;
pub mod redis_watcher;
pub mod router;
mod spin;
pub mod supervisor;
pub mod trial;
pub mod watchdog;

#[cfg(test)]
mod supervision_tests;
