//! The id of a request in the body of an error about it.
//!
//! Of `/{app}/predict` and `/{app}/update` the bodies are those that clients of the original know;
//! there it is in the header alone, as it is where an answer is plain text.

use actix_web::body::{BoxBody, MessageBody as _};
use actix_web::dev::ServiceResponse;
use actix_web::web::Bytes;

use super::errors::ErrorLabel;
use super::{request_id, v2};
use crate::access::table::Port;

/// An answer; an error of ours says which request it is about.
pub(super) fn named(port: Port, answer: ServiceResponse) -> ServiceResponse {
    let is_ours = answer.response().extensions().get::<ErrorLabel>().is_some();
    let path = answer.request().path();
    let is_free = port == Port::Management || port == Port::Query && v2::owns(path);
    let id = request_id::of(answer.request()).filter(|_| is_ours && is_free);
    let Some(id) = id else { return answer };
    answer.map_body(|_, body| match body.try_into_bytes() {
        Ok(text) => BoxBody::new(with_id(text, &id)),
        Err(body) => body,
    })
}

/// A JSON object with one more member; anything else as it is.
fn with_id(text: Bytes, id: &str) -> Bytes {
    let Some(open) = text.strip_suffix(b"}").filter(|open| open.len() > 1) else { return text };
    let id = serde_json::to_string(id).unwrap_or_default();
    [open, b",\"request_id\":", id.as_bytes(), b"}"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_one_more_member_and_nothing_else_changes() {
        for (text, expected) in [
            (r#"{"error":"x"}"#, r#"{"error":"x","request_id":"a\"b"}"#),
            ("{}", "{}"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(with_id(Bytes::from(text), "a\"b"), expected);
        }
    }
}
