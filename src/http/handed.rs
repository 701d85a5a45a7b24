//! Predictions that another frontend was asked for: handed to a thread that answers queries, and
//! answered there as any other, within the same limits.

use std::sync::Arc;

use actix_web::body::to_bytes;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError as _};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::body::Body;
use super::errors::ApiError;
use super::explaining::Explaining;
use super::gate::Asker;
use super::query;
use super::v2::state::V2;

/// One on its way to that thread.
pub struct Handed {
    app: String,
    body: Body,
    asker: Asker,
    explaining: Explaining,
    reply: oneshot::Sender<WholeAnswer>,
    _place: OwnedSemaphorePermit,
}

/// Its answer, whole.
struct WholeAnswer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

/// Where they are handed over. Clones share it.
#[derive(Debug, Clone)]
pub struct HandOver {
    to: mpsc::Sender<Handed>,
    places: Arc<Semaphore>,
    at_once_max: usize,
}

/// Both sides of it; so many predictions are under way at once.
#[must_use]
pub fn hand_over(at_once_max: usize) -> (HandOver, mpsc::Receiver<Handed>) {
    let (to, handed) = mpsc::channel(at_once_max.max(1));
    (HandOver { to, places: Arc::new(Semaphore::new(at_once_max)), at_once_max }, handed)
}

impl HandOver {
    /// Has a predict request answered.
    ///
    /// # Errors
    /// Too many are under way, or nobody answers queries at the moment.
    pub(super) async fn predict(
        &self,
        app: String,
        body: Body,
        asker: Asker,
        explaining: Explaining,
    ) -> Result<HttpResponse, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let max = self.at_once_max;
            ApiError::too_many(format!(
                "{max} predictions by the form are under way (dashboard.predictions_max)"
            ))
        })?;
        let (reply, answered) = oneshot::channel();
        let handed = Handed { app, body, asker, explaining, reply, _place: place };
        let gone = || ApiError::unavailable("The thread that answers queries is being restarted");
        self.to.send(handed).await.map_err(|_| gone())?;
        let answered = answered.await.map_err(|_| gone())?;
        let mut response = HttpResponse::build(answered.status);
        if let Some(content_type) = answered.content_type {
            response.insert_header((header::CONTENT_TYPE, content_type));
        }
        Ok(response.body(answered.body))
    }
}

/// Answers what is handed over, on a thread that answers queries.
pub async fn serve(v2: V2, mut handed: mpsc::Receiver<Handed>) {
    while let Some(handed) = handed.recv().await {
        let v2 = v2.clone();
        actix::spawn(async move {
            let Handed { app, body, asker, explaining, reply, _place } = handed;
            let response = query::predict_for(&v2, &app, (body, explaining), asker).await;
            let response = response.unwrap_or_else(|error| error.error_response());
            let (status, headers) = (response.status(), response.headers());
            let content_type = headers.get(header::CONTENT_TYPE).cloned();
            let body = to_bytes(response.into_body()).await.unwrap_or_default();
            // Who asked may have gone.
            let _ = reply.send(WholeAnswer { status, content_type, body });
        });
    }
}
