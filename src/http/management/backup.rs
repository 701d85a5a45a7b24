//! `POST /admin/journal/backup`: journal and policy state in one file, while the server goes on.

use std::convert::Infallible;
use std::io;
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
use crate::store::backup::{Backup, BackupError, Header};
use clipper_clock as clock;

/// The path served here.
pub(super) const PATH: &str = "/admin/journal/backup";

/// Pieces that a slow client may be behind, of up to about a quarter of a megabyte each.
const BEHIND_MAX: usize = 4;

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
    let holding = gate::holding(request);
    actix_web::rt::spawn(make(past, (pieces, place), holding.clone()));
    let body = stream::unfold((written, holding), |(mut written, holding)| async move {
        let piece = tokio::select! {
            biased;
            // Its client finds no end.
            _ = gate::ended(holding.clone()) => None,
            piece = written.recv() => piece,
        };
        Some((Ok::<_, Infallible>(piece?), (written, holding)))
    });
    HttpResponse::Ok().content_type("application/octet-stream").streaming(body)
}

/// Makes one, and tells of its end. Ends with the key also where its client reads nothing, and
/// would keep the place.
async fn make(
    past: Past,
    (pieces, place): (mpsc::Sender<Bytes>, OwnedSemaphorePermit),
    holding: Option<Rc<Holding>>,
) {
    let made = tokio::select! {
        made = write(&past, &pieces) => made,
        _ = gate::ended(holding) => Err(gone()),
    };
    // Before its client sees the end.
    drop(place);
    drop(pieces);
    match made {
        Ok(header) => tracing::info!(last = header.last, "a backup was made"),
        // Its client finds no end.
        Err(error) => tracing::warn!(%error, "a backup was not finished"),
    }
}

/// As fast as its client takes it and the threads get to it.
async fn write(past: &Past, pieces: &mpsc::Sender<Bytes>) -> Result<Header, BackupError> {
    // Feedback that was acknowledged before this began belongs to it.
    past.feedback.save().await;
    let (history, states) = (past.history.clone(), past.states.clone());
    let made_at_ms = clock::unix_millis();
    let begin = move || Backup::begin(history.clone(), states.clone(), made_at_ms);
    let mut backup = past.threads.look(begin).await.ok_or_else(failed)??;
    loop {
        let step = move || {
            let mut next = backup.clone();
            next.piece().map(|piece| (next, piece))
        };
        let (next, piece) = past.threads.look(step).await.ok_or_else(failed)??;
        let Some(piece) = piece else { return Ok(next.header().clone()) };
        pieces.send(piece.into()).await.map_err(|_| gone())?;
        backup = next;
    }
}

fn gone() -> BackupError {
    io::Error::from(io::ErrorKind::BrokenPipe).into()
}

fn failed() -> BackupError {
    io::Error::other("its thread failed").into()
}
