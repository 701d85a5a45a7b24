//! One file for each policy: what it does, its source, its parameters. Four share `voting`.

pub(crate) mod average;
pub(crate) mod cascade;
pub(crate) mod epsilon_greedy;
pub(crate) mod exp3;
pub(crate) mod exp4;
pub(crate) mod fixed;
pub(crate) mod majority;
pub(crate) mod median;
pub(crate) mod thompson;
pub(crate) mod ucb1;
mod voting;
pub(crate) mod weighted;
