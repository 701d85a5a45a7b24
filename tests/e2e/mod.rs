//! The whole system from outside: the real binary, real sockets, containers on stock pyzmq.
//!
//! `faults` does everything that is known to break the original; a second application has to be
//! served meanwhile. `golden` replays recorded exchanges of the original. The tests need a Python
//! with pyzmq, named by `CLIPPER_TEST_PYTHON`. A test that waits polls a condition, with a deadline
//! far above what a healthy server needs.

mod access;
mod accesses;
mod admin;
mod admin_cli;
mod applying;
mod bounds;
mod changing;
mod choosing;
mod cors;
mod dashboard;
mod deploy;
mod described;
mod explain;
mod faults;
pub mod golden;
mod grpc;
mod held;
mod inference_v2;
mod inputs;
mod learned;
mod model_errors;
mod packed;
mod plans;
mod policies;
mod priorities;
mod quickstart;
mod quotas;
mod replicas;
mod rollouts;
mod runtimes;
mod seen;
mod shutdown;
mod standing;
mod streams;
pub mod support;
mod tokens;
mod top;
mod turns;
mod undoing;
