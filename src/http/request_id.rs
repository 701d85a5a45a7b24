//! The id of a request: the client's, or one that is made; every answer has it in its header
//! `X-Request-Id`.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready as poll_ready};

use actix_service::{Service, Transform};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{Error, HttpMessage as _, HttpRequest};
use pin_project_lite::pin_project;
use smol_str::SmolStr;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer one of a client, or one with other than visible characters, is replaced.
const MAX_BYTES: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(SmolStr);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&REQUEST_ID).map(HeaderValue::as_bytes);
        let is_good = |text: &&[u8]| {
            (1..=MAX_BYTES).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
        };
        let given = given.filter(is_good).and_then(|text| std::str::from_utf8(text).ok());
        given.map_or_else(Self::made, |text| Self(SmolStr::new(text)))
    }

    fn made() -> Self {
        Self(smol_str::format_smolstr!("{:016x}", rand::random::<u64>()))
    }
}

/// The id of a request.
#[must_use]
pub fn of(request: &HttpRequest) -> Option<SmolStr> {
    request.extensions().get::<RequestId>().map(|id| id.0.clone())
}

/// The id of a request that has not reached its handler.
#[must_use]
pub fn of_service(request: &ServiceRequest) -> Option<SmolStr> {
    request.extensions().get::<RequestId>().map(|id| id.0.clone())
}

/// Gives each request an id, and each answer that of its request.
#[derive(Debug, Clone, Copy)]
pub struct Identify;

impl<S, B> Transform<S, ServiceRequest> for Identify
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<B>;
    type Error = Error;
    type Transform = Identifying<S>;
    type InitError = ();
    type Future = Ready<Result<Identifying<S>, ()>>;

    fn new_transform(&self, endpoints: S) -> Self::Future {
        ready(Ok(Identifying(endpoints)))
    }
}

/// The endpoints behind it.
pub struct Identifying<S>(S);

impl<S, B> Service<ServiceRequest> for Identifying<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<B>;
    type Error = Error;
    type Future = Identified<S::Future>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let id = RequestId::of(request.headers());
        request.extensions_mut().insert(id.clone());
        Identified { answer: self.0.call(request), id }
    }
}

pin_project! {
    /// An answer on its way to its header.
    pub struct Identified<F> {
        #[pin]
        answer: F,
        id: RequestId,
    }
}

impl<F, B> Future for Identified<F>
where
    F: Future<Output = Result<ServiceResponse<B>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = poll_ready!(this.answer.poll(cx));
        if let (Ok(answer), Ok(id)) = (&mut answer, HeaderValue::from_str(&this.id.0)) {
            answer.headers_mut().insert(REQUEST_ID.clone(), id);
        }
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_id_is_taken_and_another_one_replaced() {
        let id = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID.clone(), HeaderValue::from_bytes(text).unwrap());
            RequestId::of(&headers).0
        };
        for good in ["7", "a-b_c/d.e:f", &"x".repeat(MAX_BYTES)] {
            assert_eq!(id(good.as_bytes()), good);
        }
        for bad in [&b""[..], b"a b", b"\xc3\xa4", "x".repeat(MAX_BYTES + 1).as_bytes()] {
            let made = id(bad);
            assert!(made.len() == 16 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
        }
        assert_ne!(RequestId::made(), RequestId::made());
    }
}
