//! What an HTTP worker serves: its applications, and what becomes of their queries and feedback.

mod answering;
pub mod app;
pub mod asking;
mod chooser;
mod chosen;
mod ensemble;
pub mod feedback;
pub mod inputs;
mod judging;
pub mod keeping;
pub mod messages;
pub mod model_progress;
pub mod prediction;
mod rolling;
pub mod rollouts;
pub mod router;
mod save_pace;
pub mod streaming;
pub mod traced;
