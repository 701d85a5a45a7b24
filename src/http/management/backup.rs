//! `POST /admin/journal/backup`: journal and policy state in one file, while the server goes on.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::past::Past;
use crate::http::errors::ApiError;
use crate::http::gate::{self, Holding};
use crate::http::serve::connection::Connection;
use crate::store::backup::{BackupError, back_up};
use clipper_clock as clock;

/// The path served here.
pub(super) const PATH: &str = "/admin/journal/backup";

/// Pieces that a slow client may be behind, of up to about a quarter of a megabyte each.
const BEHIND_MAX: usize = 4;

/// What a backup's thread has written and its client has not taken.
type Written = Rc<RefCell<mpsc::Receiver<Bytes>>>;

/// Begins one. A client that goes away ends it, and so does the end of the key that it came with,
/// also while it reads nothing.
pub(super) fn respond(request: &HttpRequest, past: Past) -> HttpResponse {
    let Ok(place) = Arc::clone(&past.backups).try_acquire_owned() else {
        return ApiError::unavailable("A backup is under way already").error_response();
    };
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        connection.streams();
    }
    let (pieces, written) = mpsc::channel::<Bytes>(BEHIND_MAX);
    let written: Written = Rc::new(RefCell::new(written));
    let holding = gate::holding(request);
    actix_web::rt::spawn(make(past, (pieces, place), (Rc::clone(&written), holding.clone())));
    let body = stream::unfold((written, holding), |(written, holding)| async move {
        let piece = tokio::select! {
            biased;
            // Its client finds no end.
            _ = gate::ended(holding.clone()) => None,
            piece = poll_fn(|cx| written.borrow_mut().poll_recv(cx)) => piece,
        };
        Some((Ok::<_, Infallible>(piece?), (written, holding)))
    });
    HttpResponse::Ok().content_type("application/octet-stream").streaming(body)
}

/// Makes one on a thread of its own, and tells of its end.
async fn make(
    past: Past,
    (pieces, place): (mpsc::Sender<Bytes>, OwnedSemaphorePermit),
    (written, holding): (Written, Option<Rc<Holding>>),
) {
    // Feedback that was acknowledged before this began belongs to it.
    past.feedback.save().await;
    let (history, states) = (past.history.clone(), past.states.clone());
    let mut made = pin!(past.threads.once(move || {
        let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let put = |piece: Vec<u8>| -> Result<(), BackupError> {
            Ok(pieces.blocking_send(piece.into()).map_err(gone)?)
        };
        let made = back_up((&history, &states), clock::unix_millis(), put);
        // Before its client sees the end.
        drop(place);
        drop(pieces);
        made
    }));
    let made = tokio::select! {
        made = &mut made => made,
        _ = gate::ended(holding) => {
            // Whoever reads nothing does not hear of it, and would keep the place.
            written.borrow_mut().close();
            made.await
        }
    };
    match made {
        Some(Ok(header)) => tracing::info!(last = header.last, "a backup was made"),
        // Its client finds no end.
        Some(Err(error)) => tracing::warn!(%error, "a backup was not finished"),
        None => tracing::warn!("a backup was not finished: its thread failed"),
    }
}
