//! Who takes a core from whom: threads that answer queries come first, before other programs too,
//! and what nobody waits for who asks for a prediction gives way.

mod lane;
mod turns;

pub use self::lane::{Lane, Undone};
pub use self::turns::{BACKGROUND, as_others, come_first, give_way};
