//! The allocator of every process of this project, and when it gives memory back.
//!
//! Architecture invariant: beside that of `clipper_priority`, the only unsafe code is here.

use std::ffi::{c_int, c_long};

use mimalloc::MiMalloc;

/// No thread waits for another's lock in it: under the C library's, a thread of low priority that
/// lost its core as it gave back a large body kept a worker, whose arena that was, from answering
/// for 200 ms.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Free pages go back to the system after so long, and not after its second: of 50 MB that each of
/// 32 connections had sent in vain, 400 MB were held where 128 MB are the limit.
const PURGE_DELAY_MS: c_long = 10;

/// `mi_option_purge_delay` in `mimalloc.h`.
const PURGE_DELAY_OPTION: c_int = 15;

#[allow(unsafe_code, reason = "options are set through the C interface only")]
mod sys {
    use super::{c_int, c_long};

    // SAFETY: as `mimalloc.h` declares them. Any option and value may be given at any time, and
    // any thread may collect what is its own.
    unsafe extern "C" {
        pub(super) safe fn mi_option_set(option: c_int, value: c_long);
        pub(super) safe fn mi_collect(force: bool);
    }
}

/// To be called once, before threads are started.
pub fn set_up() {
    sys::mi_option_set(PURGE_DELAY_OPTION, PURGE_DELAY_MS);
}

/// Gives the system what this thread has held and does not need any more, to be called where much
/// of that has come to an end: otherwise pages that are kept for later stay in memory.
pub fn give_back() {
    sys::mi_collect(true);
}
