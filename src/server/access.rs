//! Whose keys are good at the start, and whether the server may listen where it is told to.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::error::StartError;
use super::sockets::Sockets;
use crate::access::Access;
use crate::access::exposure::{self, Port};
use crate::access::fresh::keep_fresh;
use crate::access::listed::{Lists, VARIABLE};
use crate::actors::catalog::keys::KeyKeeper;
use crate::actors::catalog::writer::CatalogWriter;
use crate::metrics::Metrics;
use crate::store::Journal;
use crate::supervision::budget::RestartBudget;
use crate::supervision::kept::Kept;
use clipper_config::Config;
use clipper_domain::AccessKey;

/// Who may do what, and what keeps it equal to the metadata.
pub(super) struct Guard {
    pub(super) access: Arc<Access>,
    _keeper: Kept<KeyKeeper>,
}

/// Reads all keys, and refuses to go on where other machines could do as they like.
fn keys(config: &Config, sockets: &Sockets, journal: &Journal) -> Result<Arc<Access>, StartError> {
    let lists = Lists {
        keys: config.access.keys_file.clone(),
        container_keys: config.rpc.keys.clone(),
        // No secret may be among the settings, which are shown and logged.
        variable: std::env::var(VARIABLE).ok(),
    };
    let listed = lists.read()?;
    let view = journal.view();
    let has_own = view.read().keys().next().is_some();
    let takes_tokens = is_set(&config.access.jwt_keys);
    let has_keys = has_own || takes_tokens || listed.iter().any(AccessKey::is_of_people);
    let asks_containers = has_keys || !listed.is_empty() || is_set(&config.rpc.keys);
    let ports = ports(config, sockets, (has_keys, asks_containers))?;
    if let Err(exposed) = exposure::check(&ports) {
        if !config.access.insecure {
            return Err(exposed.into());
        }
        warn!(
            has_keys,
            "INSECURE: other machines can reach this server without TLS, or without a key, and \
             --insecure says that something else protects it"
        );
    }
    let opens = exposure::is_all_loopback(&ports) || config.access.insecure;
    let access = Access::load(&config.access, listed, opens)?;
    access.take(view.read().keys());
    actix::spawn(keep_fresh(lists, Arc::clone(&access)));
    Ok(access)
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn ports(
    config: &Config,
    sockets: &Sockets,
    (has_keys, asks_containers): (bool, bool),
) -> Result<Vec<Port>, StartError> {
    let tls = &config.tls;
    let port = |setting, socket: &std::net::TcpListener, speaks_tls, asks_for_keys| {
        let addr = socket.local_addr().map_err(StartError::Socket)?;
        let is_encrypted = tls.is_on() && speaks_tls;
        Ok::<_, StartError>(Port { setting, addr, is_encrypted, asks_for_keys })
    };
    let rpc = Port {
        setting: "rpc.addr",
        addr: sockets.rpc.local_addr().map_err(StartError::Socket)?,
        is_encrypted: is_set(&config.rpc.curve_key),
        asks_for_keys: asks_containers,
    };
    let mut ports = vec![
        port("http.query_addr", &sockets.query, tls.query, has_keys)?,
        port("http.management_addr", &sockets.management, tls.management, has_keys)?,
        port(
            "http.metrics_addr",
            &sockets.metrics,
            tls.metrics,
            has_keys || config.access.open_metrics,
        )?,
        rpc,
    ];
    if let Some(grpc) = &sockets.grpc {
        ports.push(port("grpc.addr", grpc, tls.grpc, has_keys)?);
    }
    Ok(ports)
}

impl Guard {
    /// Keys and addresses, checked; the keys of the metadata are followed as long as it is held.
    pub(super) fn start(
        config: &Config,
        sockets: &Sockets,
        (catalog, journal): (&Kept<CatalogWriter>, &Journal),
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let access = keys(config, sockets, journal)?;
        let of_metrics = Arc::clone(&access);
        metrics.watch_keys(move || of_metrics.quotas());
        let budget = RestartBudget::for_actor(&config.containers);
        let (shared, view, catalog) = (Arc::clone(&access), journal.view(), catalog.clone());
        let keeper = Kept::start("key_keeper", Arc::clone(metrics), budget, move |lifeline| {
            KeyKeeper::new(Arc::clone(&shared), view.clone(), catalog.clone(), lifeline)
        });
        Ok(Self { access, _keeper: keeper })
    }
}
