//! One request over HTTP/2: made into one that handlers take, and answered as they say.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::str::FromStr as _;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use actix_http::error::PayloadError;
use actix_http::{Payload, Request};
use actix_service::Service;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Uri, Version};
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage as _, HttpResponse, ResponseError as _};
use clipper_clock as clock;
use clipper_grpc::http::request::Parts;
use clipper_grpc::http::{self, Response};
use clipper_grpc::{Answer, Exchange, Gone, Pieces};
use futures_util::Stream;

use super::receive_time::ReceiveTime;
use super::shown::Certificates;
use crate::http::errors::{self, ApiError, ErrorLabel};
use crate::http::request_id::Name;
use crate::metrics::http::FrontendMetrics;

/// What belongs to a connection of HTTP/1.1, and to none of HTTP/2.
const OF_CONNECTIONS: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) peer: SocketAddr,
    /// By what it is known, if it has shown a certificate.
    pub(super) certificates: Option<Certificates>,
    pub(super) receive_time: ReceiveTime,
}

/// Answers a request.
///
/// # Errors
/// The client has given it up or does not read.
pub(super) async fn answer<S, B>(
    exchange: Exchange,
    client: Client,
    handlers: &S,
    metrics: &FrontendMetrics,
) -> Result<(), Gone>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    let Exchange { head, body, mut answer } = exchange;
    let is_head = head.method == http::Method::HEAD;
    let request = match request(&head, body, client) {
        Ok(request) => request,
        Err(refused) => {
            metrics.error(refused.label);
            return send(refused.error_response(), answer, is_head).await;
        }
    };
    let mut name = Name::of(request.headers());
    request.extensions_mut().insert(name.id());
    let answered = tokio::select! {
        biased;
        () = answer.given_up() => return Err(Gone),
        answered = handlers.call(request) => answered,
    };
    let mut response = match answered {
        Ok(response) => response.into_parts().1,
        Err(error) => {
            let mut response = error.error_response();
            name.put(response.headers_mut());
            return send(response, answer, is_head).await;
        }
    };
    name.put(response.headers_mut());
    if response.status().as_u16() >= 400 {
        let label = response.extensions().get::<ErrorLabel>().map(|label| label.0);
        metrics.error(label.unwrap_or(errors::OTHER_LABEL));
    }
    send(response, answer, is_head).await
}

fn request(head: &Parts, body: Pieces, client: Client) -> Result<Request, ApiError> {
    let payload = if body.is_over() {
        Payload::None
    } else {
        Payload::Stream { payload: Box::pin(ReceivedBody(body)) as _ }
    };
    let mut request = Request::with_payload(payload);
    if let Some(certificates) = client.certificates {
        request.extensions_mut().insert(certificates);
    }
    request.extensions_mut().insert(client.receive_time);
    let broken = |what: &str| ApiError::new(errors::NOT_HTTP, format!("{what} is not one of HTTP"));
    let to = request.head_mut();
    let target = head.uri.path_and_query().ok_or_else(|| broken("The target of the request"))?;
    to.uri = Uri::from_str(target.as_str()).map_err(|_| broken("The target of the request"))?;
    to.method = Method::from_bytes(head.method.as_str().as_bytes())
        .map_err(|_| broken("The method of the request"))?;
    to.version = Version::HTTP_2;
    to.peer_addr = Some(client.peer);
    for (name, value) in &head.headers {
        let name = HeaderName::from_bytes(name.as_ref());
        let value = HeaderValue::from_bytes(value.as_bytes());
        let (Ok(name), Ok(value)) = (name, value) else { return Err(broken("A header")) };
        to.headers.append(name, value);
    }
    name_host(head, to)?;
    Ok(request)
}

/// HTTP/2 says in `:authority` what HTTP/1.1 says in `Host`, and handlers look there. Two names
/// would let a request pass under one that it is not for.
fn name_host(head: &Parts, to: &mut actix_http::RequestHead) -> Result<(), ApiError> {
    let Some(authority) = head.uri.authority().map(http::uri::Authority::as_str) else {
        return Ok(());
    };
    let mut hosts = to.headers.get_all(header::HOST);
    let is_same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
    if !hosts.all(is_same) {
        let cause = "The request has two names of its host: :authority and Host";
        return Err(ApiError::new(errors::NOT_HTTP, cause));
    }
    if let Ok(authority) = HeaderValue::from_str(authority) {
        to.headers.insert(header::HOST, authority);
    }
    Ok(())
}

/// The body of a request as handlers read it.
struct ReceivedBody(Pieces);

impl Stream for ReceivedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let cut = |cut: clipper_grpc::Cut| PayloadError::Io(std::io::Error::other(cut));
        self.0.poll_next(cx).map(|piece| piece.map(|piece| piece.map_err(cut)))
    }
}

async fn send<B: MessageBody>(
    response: HttpResponse<B>,
    mut answer: Answer,
    is_head: bool,
) -> Result<(), Gone> {
    let head = response_head(&response);
    let body = response.into_body();
    let is_all = is_head || matches!(body.size(), BodySize::None | BodySize::Sized(0));
    answer.head(head, is_all)?;
    if is_all {
        return Ok(());
    }
    let mut body = pin!(body);
    loop {
        let piece = tokio::select! {
            biased;
            () = answer.given_up() => return Err(Gone),
            piece = poll_fn(|cx| body.as_mut().poll_next(cx)) => piece,
        };
        match piece {
            Some(Ok(piece)) => answer.piece(piece).await?,
            Some(Err(_)) => {
                answer.fail();
                return Ok(());
            }
            None => {
                answer.end();
                return Ok(());
            }
        }
    }
}

fn response_head<B: MessageBody>(response: &HttpResponse<B>) -> Response<()> {
    let mut head = Response::new(());
    // What one of the two takes for a status the other does too.
    *head.status_mut() = http::StatusCode::from_u16(response.status().as_u16())
        .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = head.headers_mut();
    for (name, value) in response.headers() {
        let of_connection = OF_CONNECTIONS.contains(&name.as_str());
        let name = http::HeaderName::from_bytes(name.as_ref());
        let value = http::HeaderValue::from_bytes(value.as_bytes());
        if let (false, Ok(name), Ok(value)) = (of_connection, name, value) {
            headers.append(name, value);
        }
    }
    let has_length = response.status() != StatusCode::NO_CONTENT;
    if let (BodySize::Sized(bytes), true) = (response.body().size(), has_length) {
        headers.insert(http::header::CONTENT_LENGTH, bytes.into());
    }
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(clock::unix_millis()));
    if let Ok(date) = http::HeaderValue::from_str(&date) {
        headers.insert(http::header::DATE, date);
    }
    head
}
