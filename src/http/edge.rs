//! What stands at the edge of a frontend, around its gate: whose pages may read its answers, the
//! ids of requests in errors, the end of a request's span, and a line of the access log for each.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready as poll_ready};

use actix_service::{Service, Transform};
use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderValue;
use futures_util::future::Either;
use pin_project_lite::pin_project;

use super::accessed::{self, Awaited};
use super::cors::Cors;
use super::named_errors;
use super::trace_context;
use crate::access::table::Port;

/// The edge of one frontend.
#[derive(Debug, Clone)]
pub struct Edge {
    port: Port,
    cors: Option<Arc<Cors>>,
}

impl Edge {
    #[must_use]
    pub fn new(port: Port, cors: Option<Arc<Cors>>) -> Self {
        Self { port, cors }
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
        // Its own: each worker counts references for itself.
        let cors = self.cors.as_deref().cloned().map(Rc::new);
        ready(Ok(Edged { port: self.port, cors, endpoints }))
    }
}

/// What is behind it.
pub struct Edged<S> {
    port: Port,
    cors: Option<Rc<Cors>>,
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
        let (awaited, port) = (accessed::begin(self.port, &request), self.port);
        let Some(cors) = &self.cors else {
            let answer = Either::Right(self.endpoints.call(request));
            return Passing { answer, awaited, port, marks: None };
        };
        let origin = cors.origin(&request);
        let preflight = origin.as_ref().and_then(|origin| cors.preflight(&request, origin));
        let answer = match preflight {
            Some(answer) => Either::Left(ready(Ok(request.into_response(answer)))),
            None => Either::Right(self.endpoints.call(request)),
        };
        Passing { answer, awaited, port, marks: Some(CorsMarks { cors: Rc::clone(cors), origin }) }
    }
}

/// Which page an answer is marked for.
struct CorsMarks {
    cors: Rc<Cors>,
    origin: Option<HeaderValue>,
}

pin_project! {
    /// An answer on its way out. Dropped before, it leaves the line of a client that has gone.
    pub struct Passing<F> {
        #[pin]
        answer: Either<Ready<Result<ServiceResponse<BoxBody>, Error>>, F>,
        awaited: Option<Box<Awaited>>,
        port: Port,
        marks: Option<CorsMarks>,
    }
}

impl<F> Future for Passing<F>
where
    F: Future<Output = Result<ServiceResponse<BoxBody>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = poll_ready!(this.answer.poll(cx));
        if let Ok(told) = answer {
            let is_error = told.status().as_u16() >= 400;
            answer = Ok(if is_error { named_errors::named(*this.port, told) } else { told });
        }
        if let (Some(marks), Ok(answer)) = (this.marks, &mut answer) {
            marks.cors.mark(marks.origin.as_ref(), answer.headers_mut());
        }
        if let Ok(answer) = &answer {
            trace_context::end(answer.request(), answer.status());
        }
        Poll::Ready(match (this.awaited.take(), answer) {
            (Some(awaited), Ok(answer)) => Ok(awaited.answered(answer)),
            (Some(awaited), Err(error)) => {
                awaited.failed(error.as_response_error().status_code());
                Err(error)
            }
            (None, answer) => answer,
        })
    }
}
