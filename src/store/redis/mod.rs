//! Redis as the place where frontends meet (docs/redis.md). Only this folder names the redis crate.
//!
//! [`tables`] is the original's form of every entry, [`diff`] what a look at the tables means for
//! the catalog, [`writes`] what an event means for the tables, [`transaction`] how several writes
//! happen at once or not at all, [`marker`] how lost tables are told from emptied ones, [`whole`]
//! what is kept of whole tables, [`client`] the connection. All but the last are pure.
//!
//! Invariants:
//! - **R1** The catalog is a function of the tables: whoever reads them whole, whenever, whatever
//!   journal it has, arrives at the same state.
//! - **R2** No change is half-done: the writes of a command happen in one transaction, and only if
//!   what they were decided on is still there.

mod answers;
pub mod client;
pub mod connect;
pub mod diff;
mod fields;
mod key_rows;
pub mod keys;
pub mod marker;
pub mod row_error;
pub mod scan;
pub mod sums;
pub mod tables;
pub mod transaction;
pub mod whole;
mod writers;
pub mod writes;
