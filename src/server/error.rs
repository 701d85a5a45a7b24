//! Why the server could not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::access::exposure::Exposed;
use crate::access::listed::ListedError;
use crate::access::token::KeySetError;
use crate::actors::models::registry::CatalogEnded;
use crate::actors::pool::file_sd::FileSdError;
use crate::bootstrap::BootstrapError;
use crate::children::NoUser;
use crate::children::launch::LaunchError;
use crate::store::StoreError;
use crate::tls::TlsError;
use clipper_config::InvalidId;
use clipper_rpc::curve::InvalidKey;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "this process may open {limit} files and needs {needed} to start, and one more for each \
         connection: raise the limit (ulimit -n, LimitNOFILE)"
    )]
    OpenFiles { limit: u64, needed: u64 },
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    #[error("rpc.addr: {0} is no address")]
    RpcAddress(String),
    #[error("{key}: cannot listen on {addr}: {error}")]
    Listen { key: String, addr: SocketAddr, error: io::Error },
    #[error("a port cannot be used: {0}")]
    Socket(io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("where is this program? {0}")]
    ThisProgram(io::Error),
    #[error("model '{model}': {why}")]
    Plan { model: String, why: LaunchError },
    #[error(transparent)]
    User(#[from] NoUser),
    #[error(transparent)]
    ModelId(#[from] InvalidId),
    #[error(transparent)]
    Targets(#[from] FileSdError),
    #[error("the models ended while they were started")]
    ModelsEnded,
    #[error(transparent)]
    Models(#[from] CatalogEnded),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Keys(#[from] ListedError),
    #[error(transparent)]
    Tokens(#[from] KeySetError),
    #[error(transparent)]
    Exposed(#[from] Exposed),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("rpc.curve_key: {}: {why}", file.display())]
    CurveKey { file: PathBuf, why: CurveKeyFault },
    #[error("access_log.file {}: {error}", file.display())]
    AccessLog { file: PathBuf, error: io::Error },
    #[error("threads beside those that answer: {0}")]
    Threads(io::Error),
}

/// Why a file has no key of CURVE.
#[derive(Debug, thiserror::Error)]
pub enum CurveKeyFault {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Key(#[from] InvalidKey),
}
