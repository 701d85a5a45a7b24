//! What a model takes, as its server says.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use clipper_domain::{Datatype, InvalidSignature, Signature, TensorSpec};
use clipper_grpc::Code;
use clipper_grpc::client::{CallFailure, Client};
use clipper_oip::grpc::{ModelMetadataResponse, OfModel, TensorMetadata};
use prost::Message as _;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::tls::Wire;

use super::inputs::Protocol;
use super::plan::Target;

const METADATA: &str = "/inference.GRPCInferenceService/ModelMetadata";

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum NoSignature {
    #[error("cannot ask the server: {0}")]
    Io(#[from] io::Error),
    #[error("cannot ask the server: {0}")]
    Http(#[from] Box<ureq::Error>),
    #[error("cannot ask the server: {0}")]
    Grpc(#[from] CallFailure),
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("the server's answer cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
    #[error("the server's answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the model has no datatype {0} here")]
    Datatype(String),
    #[error("the server does not know it until a replica connects")]
    Nobody,
    #[error("the server says what no model of type tensors takes: {0}")]
    Invalid(#[from] InvalidSignature),
}

#[derive(Deserialize)]
struct MetadataPage {
    inputs: Vec<NamedTensor>,
    outputs: Vec<NamedTensor>,
}

#[derive(Deserialize)]
struct NamedTensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

fn specs(infos: impl IntoIterator<Item = NamedTensor>) -> Result<Vec<TensorSpec>, NoSignature> {
    let spec = |NamedTensor { name, datatype, shape }| match Datatype::parse(&datatype) {
        Some(datatype) => Ok(TensorSpec { name, datatype, shape, labels: Vec::new() }),
        None => Err(NoSignature::Datatype(datatype)),
    };
    infos.into_iter().map(spec).collect()
}

/// Asks for the metadata of the target, a model or an application.
///
/// # Errors
/// See [`NoSignature`].
pub fn of(
    target: &Target,
    protocol: Protocol,
    timeout: Duration,
) -> Result<Signature, NoSignature> {
    let page = match protocol {
        Protocol::Grpc => by_grpc(target, timeout)?,
        Protocol::Predict | Protocol::V2 | Protocol::V2Binary => {
            let url = format!("http://{}/v2/models/{}", target.host, target.app);
            let agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .proxy(None)
                .timeout_global(Some(timeout))
                .build()
                .new_agent();
            let mut answer = target.authorized(agent.get(&url)).call().map_err(Box::new)?;
            let page = answer.body_mut().read_to_string().map_err(Box::new)?;
            if answer.status() != 200 {
                return Err(NoSignature::Refused(page));
            }
            serde_json::from_str(&page)?
        }
    };
    if page.inputs.is_empty() {
        return Err(NoSignature::Nobody);
    }
    Ok(Signature::new(specs(page.inputs)?, specs(page.outputs)?)?)
}

fn by_grpc(target: &Target, timeout: Duration) -> Result<MetadataPage, NoSignature> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let message = OfModel { name: target.app.clone(), version: String::new() }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let frame = Bytes::from([&[0], &length[..], &message].concat());
    let asked = async {
        let stream = TcpStream::connect(target.addr).await?;
        let (client, connection) = Client::open(
            Wire::over(stream, target.tls.as_ref()).await?,
            &target.host,
            METADATA,
            Some(timeout),
        )
        .await?;
        tokio::spawn(connection);
        let mut client = client.with_key(target.key.as_deref());
        Ok::<_, NoSignature>(client.call(frame).await?)
    };
    let asked = runtime.block_on(async { tokio::time::timeout(timeout, asked).await });
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    let (status, message) = asked.map_err(late)??;
    if status.code != Code::Ok {
        return Err(NoSignature::Refused(status.message));
    }
    let ModelMetadataResponse { inputs, outputs, .. } = ModelMetadataResponse::decode(message)?;
    let infos = |tensors: Vec<TensorMetadata>| {
        let info = |TensorMetadata { name, datatype, shape }| NamedTensor { name, datatype, shape };
        tensors.into_iter().map(info).collect()
    };
    Ok(MetadataPage { inputs: infos(inputs), outputs: infos(outputs) })
}
