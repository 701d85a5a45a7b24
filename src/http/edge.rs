//! What stands at the edge of a frontend, around its gate: a line of the access log for each
//! request.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready as poll_ready};

use actix_service::{Service, Transform};
use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use pin_project_lite::pin_project;

use super::accessed::{self, Begun};
use crate::access::table::Port;

/// The edge of one frontend.
#[derive(Debug, Clone)]
pub struct Edge {
    port: Port,
}

impl Edge {
    #[must_use]
    pub fn new(port: Port) -> Self {
        Self { port }
    }
}

impl<S> Transform<S, ServiceRequest> for Edge
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = Edged<S>;
    type InitError = ();
    type Future = Ready<Result<Edged<S>, ()>>;

    fn new_transform(&self, endpoints: S) -> Self::Future {
        ready(Ok(Edged { edge: self.clone(), endpoints }))
    }
}

/// What is behind it.
pub struct Edged<S> {
    edge: Edge,
    endpoints: S,
}

impl<S> Service<ServiceRequest> for Edged<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = Passing<S::Future>;

    actix_service::forward_ready!(endpoints);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let begun = accessed::begin();
        Passing { answer: self.endpoints.call(request), begun, port: self.edge.port }
    }
}

pin_project! {
    /// An answer on its way out.
    pub struct Passing<F> {
        #[pin]
        answer: F,
        begun: Option<Begun>,
        port: Port,
    }
}

impl<F> Future for Passing<F>
where
    F: Future<Output = Result<ServiceResponse<BoxBody>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = poll_ready!(this.answer.poll(cx));
        Poll::Ready(match (this.begun, answer) {
            (Some(begun), Ok(answer)) => Ok(begun.answered(*this.port, answer)),
            (_, answer) => answer,
        })
    }
}
