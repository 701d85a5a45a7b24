//! What the port for containers asks of whoever connects.

use std::path::Path;
use std::sync::Arc;

use tracing::info;

use super::container_keys::ContainerKeys;
use super::error::{CurveKeyFault, StartError};
use crate::rpc::access::Gate;
use clipper_config::RpcConfig;
use clipper_rpc::curve::SecretKey;

/// Who may connect, and how.
pub(super) fn gate(config: &RpcConfig, keys: ContainerKeys) -> Result<Gate, StartError> {
    Ok(Gate::new(Arc::new(keys), config, curve_key(config)?))
}

/// The server's secret key of CURVE, if it has one.
fn curve_key(config: &RpcConfig) -> Result<Option<SecretKey>, StartError> {
    let file = &config.curve_key;
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    let key = read(file).map_err(|why| StartError::CurveKey { file: file.clone(), why })?;
    info!(public = %key.public(), "containers may encrypt their connections (CURVE)");
    Ok(Some(key))
}

fn read(file: &Path) -> Result<SecretKey, CurveKeyFault> {
    let text = std::fs::read_to_string(file)?;
    Ok(SecretKey::parse(text.trim())?)
}
