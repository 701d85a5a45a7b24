//! `GET /openapi.json` and `/docs`: what a frontend takes and answers.
//!
//! One row for each endpoint ([`operation::Operation`]), in a table beside the handlers; a test
//! compares the tables with what asks for keys, and another sends every example. Bodies come from
//! the texts that refusals show, errors from the one table of errors: nothing is said twice.

mod document;
mod management;
mod notation;
mod operation;
mod query;
mod serve;

pub use self::serve::configure;
