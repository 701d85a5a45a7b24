//! Frontends that meet in Redis: forms, propagation, conflicts, outages, loss.
//!
//! Every test starts a redis-server of its own. Sizes come from the environment, so that the same
//! tests run small on every change and large by hand:
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `CLIPPER_TEST_CHANGES` | 200 | changes whose propagation is measured |
//! | `CLIPPER_TEST_COMMANDS` | 400 | random commands to two frontends |
//! | `CLIPPER_TEST_ROUNDS` | 1 | rounds of each way in which Redis dies |
//! | `CLIPPER_TEST_FREEZE_MS` | 3000 | how long Redis is frozen |
//! | `CLIPPER_TEST_ENTRIES` | 500 | applications and models of the cold start |
//! | `CLIPPER_TEST_BINARY` | the one built along | the `clipper` that is tested |

mod access;
mod asked;
mod containers;
mod deploy;
mod follow;
mod forms;
mod frontends;
mod golden;
use crate::e2e::golden::setup as golden_setup;
pub mod harness;
mod keys;
mod large;
mod learning;
mod outages;
mod rollouts;
mod undo;

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}
