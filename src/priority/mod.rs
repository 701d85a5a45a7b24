//! Who takes a core from whom: what nobody waits for who asks for a prediction gives way to threads
//! that answer.

mod lane;
mod looking;
mod share;
mod turns;

pub use self::lane::{Lane, Undone};
pub use self::looking::Looking;
pub use self::turns::{BACKGROUND, give_way};
