//! Selection policies: which of its models an application asks, what it makes of their answers,
//! and what it learns from feedback. Pure: no IO, no clock; randomness is a number that comes with
//! the query.
//!
//! - [`policy`]: what a policy does: `select`, `combine`, `observe`; [`kind`]: what it says of
//!   itself.
//! - [`table`]: every policy there is, one line each; [`bound`]: one with its parameters.
//! - [`state`]: what feedback left, as sums that several servers merge by adding.
//! - [`shared`]: such sums of several servers, however what they tell each other travels.
//! - [`value`]: outputs as a policy reads them; [`loss`]: how wrong one was.
//! - [`parameters`]: a policy's parameters, and what is wrong with them.
//! - [`given`], [`window`]: answers that feedback may still be about.
//! - [`rollout`]: from one version of a model to another, by what guards see.
//! - [`weights`], [`votes`], [`beta`]: what several policies have in common.
//!
//! A policy is one file in `policies/` and one line in [`table::TABLE`].

pub mod beta;
pub mod bound;
pub mod given;
pub mod kind;
pub mod loss;
pub mod parameters;
mod policies;
pub mod policy;
pub mod rollout;
pub mod shared;
pub mod state;
pub mod sticky;
pub mod table;
pub mod value;
pub mod votes;
pub mod weights;
pub mod window;
