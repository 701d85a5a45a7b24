//! The gRPC frontend: the Open Inference Protocol with Triton's additions, health and reflection,
//! on a port of its own.
//!
//! A call goes the way of a request to `/v2/...`: [`crate::http::v2`] finds who is meant, keeps the
//! limits and asks the actors; here messages are read and answers written. `clipper_grpc` speaks
//! the protocol below. The threads are those of the query frontend, whose `App`s are asked.

mod accessed;
mod connection;
mod health;
mod infer;
mod pages;
mod pieces;
mod reader;
mod refusal;
mod said;
mod service;
mod stream;
mod traced;

use std::rc::Rc;

use tokio::sync::mpsc;

pub use self::service::{Parts, Settings};

use self::service::Service;
use crate::http::serve::acceptor::{Accepted, serve_each};

/// Serves the connections that one thread gets, until there are no more.
pub async fn serve(parts: Parts, accepted: mpsc::Receiver<Accepted>) {
    let service = Rc::new(Service::new(parts));
    serve_each(accepted, |io, peer, seat| connection::serve(io, peer, seat, Rc::clone(&service)))
        .await;
}
