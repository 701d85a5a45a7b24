//! Why a call is not answered: the status, and the label under which it is counted.

use std::time::Duration;

use actix_web::http::StatusCode;
use clipper_grpc::{Broken, Code, Status, TooLong};

use crate::http::errors::{self, ApiError};
use crate::http::v2::answer::{Unanswered, Why};
use clipper_domain::access::Denied;
use clipper_scheduling::ticket::DefaultReason;

#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: Status,
    /// Of [`errors::TABLE`]; `None`: nobody is there to be refused.
    pub(super) label: Option<&'static str>,
}

impl Refusal {
    /// The client has gone: nobody reads the status.
    pub(super) fn gone() -> Self {
        Self { status: Status::new(Code::Cancelled, "the client has gone"), label: None }
    }

    pub(super) fn deadline() -> Self {
        let status = Status::new(Code::DeadlineExceeded, "The deadline of the call has passed");
        Self { status, label: Some(errors::TIMEOUT.label) }
    }

    /// `setting`: which one says how long a message may be.
    fn too_long(TooLong { length, max }: &TooLong, setting: &str) -> Self {
        let cause = format!("The message has {length} bytes, more than {setting} = {max}");
        ApiError::new(errors::TOO_LARGE, cause).into()
    }

    pub(super) fn invalid(cause: impl Into<String>) -> Self {
        ApiError::json(cause).into()
    }

    pub(super) fn unimplemented(cause: impl Into<String>) -> Self {
        ApiError::new(errors::UNSUPPORTED, cause).into()
    }

    pub(super) fn stopping() -> Self {
        ApiError::unavailable("The server stops").into()
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let label = Some(error.label);
        let is_too_much = error.status == StatusCode::TOO_MANY_REQUESTS;
        let retry_after = error.retry_after_s.filter(|_| is_too_much).map(u64::from);
        let code = code(&error);
        let retry_after = retry_after.map(Duration::from_secs);
        Self { status: Status { retry_after, ..Status::new(code, error.cause) }, label }
    }
}

/// The code of an error over HTTP.
fn code(error: &ApiError) -> Code {
    match error.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE if error.label == errors::OVERLOADED.label => {
            Code::ResourceExhausted
        }
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() && error.label != errors::MODEL.label => {
            Code::InvalidArgument
        }
        _ => Code::Internal,
    }
}

impl From<Unanswered<'_>> for Refusal {
    fn from(unanswered: Unanswered<'_>) -> Self {
        let mut refusal = Self::from(unanswered.error());
        match unanswered.why {
            Why::Default(DefaultReason::Late) => refusal.status.code = Code::DeadlineExceeded,
            Why::Default(DefaultReason::Shed(_)) => refusal.status.code = Code::ResourceExhausted,
            _ => {}
        }
        refusal
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        ApiError::new(errors::FORBIDDEN, denied.to_string()).into()
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::TooLong(too_long, setting) => Self::too_long(&too_long, setting),
            Broken::Cut => ApiError::new(errors::BROKEN_BODY, broken.to_string()).into(),
            Broken::Gone => Self::gone(),
        }
    }
}

impl From<clipper_grpc::Gone> for Refusal {
    fn from(_: clipper_grpc::Gone) -> Self {
        Self::gone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_code_that_says_whether_trying_again_helps() {
        for kind in errors::TABLE {
            let code = code(&ApiError::new(kind, ""));
            assert_ne!(code, Code::Ok, "{}", kind.label);
            let is_of_the_moment = [Code::Unavailable, Code::ResourceExhausted].contains(&code);
            // A message that is too large is refused by the same code.
            let expected = kind.retry_after_s.is_some() || kind == errors::TOO_LARGE;
            assert_eq!(is_of_the_moment, expected, "{}: {code}", kind.label);
        }
        assert_eq!(code(&ApiError::new(errors::MODEL, "")), Code::Internal);
        assert_eq!(code(&ApiError::new(errors::UNKNOWN_APPLICATION, "")), Code::NotFound);
        assert_eq!(code(&ApiError::new(errors::JSON, "")), Code::InvalidArgument);
        assert_eq!(code(&ApiError::new(errors::OVERLOADED, "")), Code::ResourceExhausted);
    }
}
