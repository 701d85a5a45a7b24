//! What a command says, and what it exits with.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clipper_domain::printable::{printable_json, printable_lines};

use crate::logging;

/// Exit code of a wrong use of the command line.
pub const USAGE: u8 = 2;

/// Exit code where the server that was to be asked cannot be reached.
pub const UNREACHABLE: u8 = 3;

/// Success, or a failure that is said.
pub fn exit(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say(&printable_lines(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// Prints one answer to stdout, whoever its words are from; a closed stdout is the reader's choice.
pub fn answer(text: impl Display) {
    let text = text.to_string();
    let _ = writeln!(std::io::stdout(), "{}", printable_lines(&text));
}

/// The same of JSON.
pub fn answer_json(json: impl Display) {
    let json = json.to_string();
    let _ = writeln!(std::io::stdout(), "{}", printable_json(&json));
}
