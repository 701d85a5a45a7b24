//! The least that a Rust server must do: parse the same JSON with the same code, answer the same
//! bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::header;
use actix_web::{App, HttpResponse, HttpServer, web};
use clipper_domain::InputType;
use clipper_scheduling::parse::predict_body;

use crate::Result;

/// Inputs of one request, as the server's default.
const INPUTS_MAX: usize = 10_000;

static NEXT_QUERY_ID: AtomicU64 = AtomicU64::new(0);

async fn predict(body: web::Bytes) -> HttpResponse {
    let Ok(read) = predict_body(&body, InputType::Doubles, INPUTS_MAX) else {
        return HttpResponse::BadRequest().finish();
    };
    std::hint::black_box(&read.inputs);
    let query_id = NEXT_QUERY_ID.fetch_add(1, Ordering::Relaxed);
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(format!("{{\"query_id\":{query_id},\"output\":0,\"default\":false}}"))
}

/// Serves with a thread per core, as the server does.
pub(crate) fn serve(addr: SocketAddr) -> Result<()> {
    actix_web::rt::System::new().block_on(async move {
        HttpServer::new(|| App::new().route("/{app}/predict", web::post().to(predict)))
            .workers(std::thread::available_parallelism().map_or(1, usize::from))
            .bind(addr)?
            .run()
            .await
    })?;
    Ok(())
}
