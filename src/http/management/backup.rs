//! `POST /admin/journal/backup`: journal and policy state in one file, while the server goes on.

use std::convert::Infallible;
use std::sync::Arc;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use futures_util::stream;
use tokio::sync::mpsc;

use super::past::Past;
use crate::http::errors::ApiError;
use crate::http::gate;
use crate::http::serve::connection::Connection;
use crate::store::backup::{BackupError, back_up};
use clipper_clock as clock;

/// The path served here.
pub(super) const PATH: &str = "/admin/journal/backup";

/// Pieces that a slow client may be behind, of up to about a quarter of a megabyte each.
const BEHIND_MAX: usize = 4;

/// Begins one. A client that goes away ends it.
pub(super) fn respond(request: &HttpRequest, past: Past) -> HttpResponse {
    let Ok(place) = Arc::clone(&past.backups).try_acquire_owned() else {
        return ApiError::unavailable("A backup is under way already").error_response();
    };
    if let Some(connection) = request.conn_data::<std::rc::Rc<Connection>>() {
        connection.streams();
    }
    let (pieces, written) = mpsc::channel::<Bytes>(BEHIND_MAX);
    actix_web::rt::spawn(async move {
        // Feedback that was acknowledged before this began belongs to it.
        past.feedback.save().await;
        let (history, states) = (past.history.clone(), past.states.clone());
        let made = past.threads.aside(1, move || {
            let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
            let put = |piece: Vec<u8>| -> Result<(), BackupError> {
                Ok(pieces.blocking_send(piece.into()).map_err(gone)?)
            };
            let made = back_up((&history, &states), clock::unix_millis(), put);
            // Before its client sees the end.
            drop(place);
            drop(pieces);
            made
        });
        match made.await {
            Some(Ok(header)) => tracing::info!(last = header.last, "a backup was made"),
            // Its client finds no end.
            Some(Err(error)) => tracing::warn!(%error, "a backup was not finished"),
            None => tracing::warn!("a backup was not finished: its thread failed"),
        }
    });
    let holding = gate::holding(request);
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
