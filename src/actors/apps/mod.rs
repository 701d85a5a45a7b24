//! What an HTTP worker serves: its applications, and what becomes of their queries and feedback.

pub mod app;
pub mod feedback;
pub mod messages;
pub mod prediction;
pub mod router;
