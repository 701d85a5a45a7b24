//! `grpc.health.v1`: the server, its service, and every name that can be asked for.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clipper_grpc::health::{self, HealthCheckRequest, HealthCheckResponse, ServingStatus};
use clipper_grpc::{Reply, framed, reflection};
use clipper_oip::grpc::SERVICE;
use clipper_scheduling::quota::Claim;

use super::reader::{self, Message, Reader};
use super::refusal::Refusal;
use super::service::Service;
use crate::http::serve::calls::Calls;
use crate::http::v2::{errors, pages};

/// How often a watcher of a model looks at it; changes of the server itself are told at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Service {
    pub(super) fn check(&self, message: &Message) -> Result<Bytes, Refusal> {
        let HealthCheckRequest { service } = reader::decoded(message)?;
        match self.status_of(&service) {
            ServingStatus::ServiceUnknown => Err(errors::unknown_model(&service, None).into()),
            status => Ok(framed(&HealthCheckResponse::from(status))),
        }
    }

    fn status_of(&self, service: &str) -> ServingStatus {
        let is_serving = if is_of_the_server(service) {
            self.v2.readiness.is_ready()
        } else {
            match pages::is_model_ready(&self.v2, service, None) {
                Ok(is_ready) => is_ready,
                Err(_) => return ServingStatus::ServiceUnknown,
            }
        };
        if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    /// Tells the state, and each further one until the client goes.
    pub(super) async fn watch(
        &self,
        reader: &mut Reader,
        reply: &mut Reply,
        calls: &Rc<Calls>,
    ) -> Result<(), Refusal> {
        let message = reader::only(reader, Claim::default(), self.limits()).await?;
        let HealthCheckRequest { service } = reader::decoded(&message)?;
        let mut told = None;
        loop {
            let changed = self.v2.readiness.changed();
            let status = self.status_of(&service);
            if told.replace(status) != Some(status) {
                reply.message(framed(&HealthCheckResponse::from(status))).await?;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(LOOK_EVERY), if !is_of_the_server(&service) => {}
                () = calls.closing() => return Err(Refusal::stopping()),
                () = reply.given_up() => return Err(Refusal::gone()),
            }
        }
    }
}

fn is_of_the_server(service: &str) -> bool {
    ["", SERVICE, health::SERVICE].contains(&service) || reflection::SERVICES.contains(&service)
}
