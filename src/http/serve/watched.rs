//! What stands between actix-http and a frontend's handlers: it tells the connection when a request
//! begins and ends, names it, counts errors, and says `Connection: close` while the server drains.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, MessageBody};
use actix_http::{ConnectionType, HttpMessage as _, Payload, Request, Response};
use actix_service::Service;
use actix_web::web::Bytes;
use pin_project_lite::pin_project;

use super::super::errors::{self, ErrorLabel};
use super::super::request_id::Name;
use super::connection::Connection;

/// The flag that all workers of a frontend see. Each worker counts its references to it for itself:
/// a count that all of them change with every request would be passed from core to core.
struct Draining(Arc<AtomicBool>);

/// The handlers of a frontend, watched.
pub struct Watched<S, B> {
    handlers: S,
    draining: Rc<Draining>,
    body: PhantomData<fn() -> B>,
}

impl<S, B> Watched<S, B> {
    /// Once `draining`, every answer is the last of its connection.
    pub fn new(handlers: S, draining: Arc<AtomicBool>) -> Self {
        Self { handlers, draining: Rc::new(Draining(draining)), body: PhantomData }
    }
}

impl<S, B> Service<Request> for Watched<S, B>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    B: MessageBody,
{
    type Response = Response<Sent<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future, B>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.handlers.poll_ready(cx)
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let has_body = !matches!(request.payload(), Payload::None);
        let name = Name::of(request.headers());
        let under_way = request.conn_data::<Rc<Connection>>().map(|connection| {
            connection.started(has_body, name.number());
            UnansweredRequest(Rc::clone(connection))
        });
        Answer {
            handler: self.handlers.call(request),
            under_way,
            name,
            draining: Rc::clone(&self.draining),
            body: PhantomData,
        }
    }
}

/// A request that has not been answered to its end; dropping it tells the connection.
struct UnansweredRequest(Rc<Connection>);

impl Drop for UnansweredRequest {
    fn drop(&mut self) {
        self.0.answered();
    }
}

pin_project! {
    /// An answer in the making.
    pub struct Answer<F, B> {
        #[pin]
        handler: F,
        under_way: Option<UnansweredRequest>,
        name: Name,
        draining: Rc<Draining>,
        body: PhantomData<B>,
    }
}

impl<F, R, E, B> Future for Answer<F, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    B: MessageBody,
{
    type Output = Result<Response<Sent<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.handler.poll(cx));
        let under_way = this.under_way.take();
        let mut response: Response<B> = answered?.into();
        this.name.put(response.headers_mut());
        if response.status().as_u16() >= 400
            && let Some(UnansweredRequest(connection)) = &under_way
        {
            let label = response.extensions().get::<ErrorLabel>().map(|label| label.0);
            connection.metrics().error(label.unwrap_or(errors::OTHER_LABEL));
        }
        if this.draining.0.load(Ordering::Relaxed) {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        Poll::Ready(Ok(response.map_body(|_, body| Sent { body, _under_way: under_way })))
    }
}

pin_project! {
    /// A body on its way; the request is under way until it has been sent.
    pub struct Sent<B> {
        #[pin]
        body: B,
        _under_way: Option<UnansweredRequest>,
    }
}

impl<B: MessageBody> MessageBody for Sent<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.project().body.poll_next(cx)
    }
}
