//! What the server says of itself and of its models.

use bytes::Bytes;
use clipper_grpc::framed;
use clipper_oip::EXTENSIONS;
use clipper_oip::grpc::{
    ModelConfigResponse, ModelMetadataResponse, ModelReadyResponse, ModelStatisticsResponse,
    OfModel, RepositoryIndexRequest, RepositoryIndexResponse, ServerLiveResponse,
    ServerMetadataResponse, ServerReadyResponse,
};

use super::accessed::Noted;
use super::reader::{self, Message};
use super::refusal::Refusal;
use super::service::{Service, Unary};
use crate::http::v2::{errors, pages};
use clipper_domain::Action;

impl Service {
    /// The frame of what `method` answers.
    pub(super) async fn page(
        &self,
        method: Unary,
        message: Message,
        noted: &Noted,
    ) -> Result<Bytes, Refusal> {
        Ok(match method {
            Unary::ServerLive => framed(&ServerLiveResponse { live: true }),
            Unary::ServerReady => {
                framed(&ServerReadyResponse { ready: self.v2.readiness.is_ready() })
            }
            Unary::ServerMetadata => framed(&ServerMetadataResponse {
                name: pages::NAME.to_owned(),
                version: pages::VERSION.to_owned(),
                extensions: EXTENSIONS.iter().map(|name| (*name).to_owned()).collect(),
            }),
            Unary::Check => self.check(&message)?,
            Unary::Index => self.index(&message).await?,
            Unary::LoadOrUnload => return Err(errors::no_repository().into()),
            Unary::ModelStatistics => self.statistics(&message, noted).await?,
            Unary::ModelReady | Unary::ModelMetadata | Unary::ModelConfig | Unary::Infer => {
                self.page_of_model(method, &message, noted)?
            }
        })
    }

    fn page_of_model(
        &self,
        method: Unary,
        message: &Message,
        noted: &Noted,
    ) -> Result<Bytes, Refusal> {
        let of: OfModel = reader::decoded(message)?;
        noted.app(&of.name);
        let (name, version) = (of.name.as_str(), version(&of));
        self.check_name(name)?;
        Ok(match method {
            Unary::ModelReady => {
                let ready = pages::is_model_ready(&self.v2, name, version)?;
                framed(&ModelReadyResponse { ready })
            }
            Unary::ModelMetadata => {
                let signature = pages::signature_of(&self.v2, name, version)?;
                let catalog = self.v2.view.read();
                let metadata = pages::metadata_of(&catalog, signature.as_deref(), name, version)?;
                framed(&ModelMetadataResponse::from(metadata))
            }
            _ => {
                let config = pages::config_of(&self.v2, name, version)?;
                framed(&ModelConfigResponse { config: Some(config.into()) })
            }
        })
    }

    async fn statistics(&self, message: &Message, noted: &Noted) -> Result<Bytes, Refusal> {
        let of: OfModel = reader::decoded(message)?;
        noted.app(&of.name);
        match &self.limited {
            Some(key) if of.name.is_empty() => key.check(Action::Observe, None)?,
            _ => self.check_name(&of.name)?,
        }
        if of.name.is_empty() {
            let made = pages::made(&self.v2, |catalog, plane| {
                let rows = pages::statistics_of_all(catalog, plane).map(Into::into);
                framed(&ModelStatisticsResponse { model_stats: rows.collect() })
            });
            return Ok(made.await?);
        }
        let catalog = self.v2.view.read();
        let rows = pages::statistics_of(&catalog, &self.v2.plane, &of.name, version(&of))?;
        let model_stats = rows.into_iter().map(Into::into).collect();
        Ok(framed(&ModelStatisticsResponse { model_stats }))
    }

    async fn index(&self, message: &Message) -> Result<Bytes, Refusal> {
        let request: RepositoryIndexRequest = reader::decoded(message)?;
        let is_ready = self.v2.readiness.is_ready();
        let made = pages::made(&self.v2, move |catalog, plane| {
            let rows = pages::index_of(catalog, plane, is_ready, request.ready);
            let models = rows.into_iter().map(Into::into).collect();
            framed(&RepositoryIndexResponse { models })
        });
        Ok(made.await?)
    }
}

fn version(of: &OfModel) -> Option<&str> {
    (!of.version.is_empty()).then_some(of.version.as_str())
}
