//! The ports, and what is served on the one for containers.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::Arc;

use actix::prelude::*;
use tracing::{error, info};

use super::error::StartError;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::list::ContainerList;
use crate::actors::pool::messages::Register;
use crate::rpc::access::Gate;
use crate::rpc::listener;
use crate::rpc::registration::NotTaken;
use crate::supervision::kept::Kept;
use clipper_config::{Config, TlsConfig};

/// All listening sockets, bound before anything is started: a port in use is a clear first error.
pub(super) struct Sockets {
    pub(super) query: TcpListener,
    pub(super) management: TcpListener,
    pub(super) metrics: TcpListener,
    /// Unless it is switched off.
    pub(super) grpc: Option<TcpListener>,
    pub(super) rpc: TcpListener,
}

/// Where the server listens.
pub(super) struct Addresses {
    query: SocketAddr,
    management: SocketAddr,
    metrics: SocketAddr,
    grpc: Option<SocketAddr>,
    rpc: SocketAddr,
}

impl Addresses {
    /// Says so in the log.
    pub(super) fn say(&self, tls: &TlsConfig) {
        let scheme = |here: bool| if tls.is_on() && here { "https" } else { "http" };
        info!(
            query = %format_args!("{}://{}", scheme(tls.query), self.query),
            management = %format_args!("{}://{}", scheme(tls.management), self.management),
            metrics = %format_args!("{}://{}/metrics", scheme(tls.metrics), self.metrics),
            grpc = self.grpc.map(|addr| addr.to_string()),
            rpc = %format_args!("tcp://{}", self.rpc),
            "listening"
        );
    }
}

impl Sockets {
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let backlog = i32::try_from(config.http.backlog).unwrap_or(i32::MAX);
        let http = |key: &str, addr| listen(key, addr, backlog);
        let rpc = config.rpc.addr.strip_prefix("tcp://").unwrap_or(&config.rpc.addr);
        let rpc = rpc
            .replace('*', "0.0.0.0")
            .to_socket_addrs()
            .ok()
            .and_then(|mut addrs| addrs.next())
            .ok_or_else(|| StartError::RpcAddress(config.rpc.addr.clone()))?;
        let grpc = config.grpc.enabled.then(|| http("grpc.addr", config.grpc.addr));
        Ok(Self {
            grpc: grpc.transpose()?,
            query: http("http.query_addr", config.http.query_addr)?,
            management: http("http.management_addr", config.http.management_addr)?,
            metrics: http("http.metrics_addr", config.http.metrics_addr)?,
            rpc: listen("rpc.addr", rpc, backlog)?,
        })
    }

    pub(super) fn addresses(&self) -> Result<Addresses, StartError> {
        let addr = |socket: &TcpListener| socket.local_addr().map_err(StartError::Socket);
        Ok(Addresses {
            query: addr(&self.query)?,
            management: addr(&self.management)?,
            metrics: addr(&self.metrics)?,
            grpc: self.grpc.as_ref().map(addr).transpose()?,
            rpc: addr(&self.rpc)?,
        })
    }

    /// Where containers on this machine connect.
    pub(super) fn rpc_addr(&self) -> Result<SocketAddr, StartError> {
        let mut addr = self.rpc.local_addr().map_err(StartError::Socket)?;
        if addr.ip().is_unspecified() {
            addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        Ok(addr)
    }

    pub(super) fn serve_rpc(
        &self,
        arbiter: &Arbiter,
        plane: &DataPlane,
        list: &ContainerList,
        pool: &Kept<ContainerPool>,
        gate: Gate,
    ) -> Result<(), StartError> {
        let socket = self.rpc.try_clone().map_err(StartError::Socket)?;
        let (query, management) = (self.query.local_addr(), self.management.local_addr());
        let (query, management) =
            (query.map_err(StartError::Socket)?, management.map_err(StartError::Socket)?);
        let parts = listener::Parts {
            config: plane.rpc.clone(),
            metrics: Arc::clone(&plane.metrics),
            unasked: plane.unasked.clone(),
            known: list.clone(),
            gate,
            help: format!(
                "This is the RPC port of clipper, where model containers connect with ZeroMQ; it \
                 does not speak HTTP.\nApplications are queried at http://{query}/NAME/predict, \
                 and the server is managed at http://{management}/admin/...\n"
            ),
        };
        let pool = pool.clone();
        let register = move |registration| {
            let answer = pool.send(Register(registration));
            async move { answer.await.unwrap_or_else(|error| Err(NotTaken::lost(error))) }
        };
        arbiter.spawn(async move {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => listener::serve(socket, parts, register).await,
                Err(error) => error!(%error, "the RPC port cannot be served"),
            }
        });
        Ok(())
    }
}

fn listen(key: &str, addr: SocketAddr, backlog: i32) -> Result<TcpListener, StartError> {
    let bind = || {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(backlog)?;
        socket.set_nonblocking(true)?;
        Ok::<TcpListener, std::io::Error>(socket.into())
    };
    bind().map_err(|error| StartError::Listen { key: key.to_owned(), addr, error })
}
