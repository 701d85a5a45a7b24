//! Whose keys are good at the start, and whether the server may listen where it is told to.

use std::sync::Arc;

use tracing::warn;

use super::error::StartError;
use super::sockets::Sockets;
use crate::access::exposure::{self, Port};
use crate::access::{Access, listed};
use crate::actors::catalog::keys::KeyKeeper;
use crate::actors::catalog::writer::CatalogWriter;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::Journal;
use crate::supervision::budget::RestartBudget;
use crate::supervision::kept::Kept;

/// Who may do what, and what keeps it equal to the metadata.
pub(super) struct Guard {
    pub(super) access: Arc<Access>,
    _keeper: Kept<KeyKeeper>,
}

/// Reads all keys, and refuses to go on where other machines could do as they like.
fn keys(config: &Config, sockets: &Sockets, journal: &Journal) -> Result<Arc<Access>, StartError> {
    // No secret may be among the settings, which are shown and logged.
    let variable = std::env::var(listed::VARIABLE).ok();
    let listed = listed::read(&config.access.keys_file, variable.as_deref())?;
    let view = journal.view();
    let has_keys = !listed.is_empty() || view.read().keys().next().is_some();
    let ports = ports(config, sockets, has_keys)?;
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
    let access = Access::new(&config.access, listed, opens);
    access.take(view.read().keys());
    Ok(access)
}

fn ports(config: &Config, sockets: &Sockets, has_keys: bool) -> Result<Vec<Port>, StartError> {
    let tls = &config.tls;
    let port = |setting, socket: &std::net::TcpListener, speaks_tls, asks_for_keys| {
        let addr = socket.local_addr().map_err(StartError::Socket)?;
        let is_encrypted = tls.is_on() && speaks_tls;
        Ok::<_, StartError>(Port { setting, addr, is_encrypted, asks_for_keys })
    };
    let is_set = |path: &std::path::Path| !path.as_os_str().is_empty();
    let rpc = Port {
        setting: "rpc.addr",
        addr: sockets.rpc.local_addr().map_err(StartError::Socket)?,
        is_encrypted: is_set(&config.rpc.curve_key),
        asks_for_keys: is_set(&config.rpc.keys),
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
