//! The id of a request: the client's, or one that is made; every answer has it in its header
//! `X-Request-Id`.
//!
//! It is made with every request and read with few, so it stays a number until somebody wants the
//! text.

use std::rc::Rc;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use smol_str::{SmolStr, format_smolstr};

use super::serve::connection::Connection;
use clipper_domain::RequestId;
use clipper_domain::asker::REQUEST_ID_HEADER;

static REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// How a request is called in the header of its answer.
#[derive(Debug)]
pub(super) enum Name {
    Made(u64),
    /// As it came.
    Given(HeaderValue),
}

impl Name {
    /// That of the client, if it has sent a good one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&REQUEST_ID).filter(|given| RequestId::may_be(given.as_bytes()));
        given.map_or_else(|| Self::Made(rand::random()), |given| Self::Given(given.clone()))
    }

    /// The number, if it is one.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Made(number) => Some(*number),
            Self::Given(_) => None,
        }
    }

    /// The same for those who are not at the edge.
    pub(super) fn id(&self) -> RequestId {
        match self {
            Self::Made(number) => RequestId::Made(*number),
            Self::Given(text) => RequestId::Given(String::from_utf8_lossy(text.as_bytes()).into()),
        }
    }

    /// Puts it into the headers of an answer; once.
    pub(super) fn put(&mut self, headers: &mut HeaderMap) {
        let value = match std::mem::replace(self, Self::Made(0)) {
            Self::Given(value) => Ok(value),
            Self::Made(number) => HeaderValue::from_bytes(&RequestId::digits(number)),
        };
        if let Ok(value) = value {
            headers.insert(REQUEST_ID.clone(), value);
        }
    }
}

/// The id of a request as text; none of one that came by no connection of this server.
#[must_use]
pub fn of(request: &HttpRequest) -> Option<SmolStr> {
    named(request).map(|id| format_smolstr!("{id}"))
}

/// The id of a request that has not reached its handler.
#[must_use]
pub fn of_service(request: &ServiceRequest) -> Option<SmolStr> {
    of(request.request())
}

/// [`of`], not yet text.
pub(super) fn named(request: &HttpRequest) -> Option<RequestId> {
    // Over HTTP/1.1 one request after the other is answered.
    let Some(connection) = request.conn_data::<Rc<Connection>>() else {
        return request.extensions().get::<RequestId>().cloned();
    };
    Some(match connection.request_number() {
        Some(number) => RequestId::Made(number),
        None => Name::of(request.headers()).id(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_id_is_taken_and_another_one_replaced() {
        let told = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID.clone(), HeaderValue::from_bytes(text).unwrap());
            let mut name = Name::of(&headers);
            let (id, is_made) = (name.id().to_string(), name.number().is_some());
            let mut answer = HeaderMap::new();
            name.put(&mut answer);
            assert_eq!(answer.get(&REQUEST_ID).unwrap(), id.as_str());
            (id, is_made)
        };
        assert_eq!(told(b"mine/7"), ("mine/7".to_owned(), false));
        let (made, is_made) = told(b"a b");
        assert!(is_made && made.len() == 16, "{made}");
        assert_ne!(Name::of(&HeaderMap::new()).number(), Name::of(&HeaderMap::new()).number());
    }
}
