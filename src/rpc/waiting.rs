//! Containers whose model is not registered: kept, few of them, apart from those that serve.
//!
//! A container may be started before its model is registered, so it is not turned away: it waits on
//! the listener's thread, answered its heartbeats and nothing else, and is handed over as soon as
//! its model is known. Anybody can claim any name, so those who wait have a small number of places
//! of their own, the oldest gives way, and nothing of a name stays when its last container leaves.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::access::KEY_CHECK;
use super::connection::ContainerConnection;
use super::places::WaitingLine;
use super::registration::{Introduction, KnownModels, Refused, Registration};
use crate::metrics::RpcEnd;
use clipper_clock as clock;
use clipper_config::RpcConfig;
use clipper_domain::ModelId;
use clipper_rpc::codec::{Extensions, NoticeLevel};
use clipper_rpc::unasked::UnaskedBudget;

/// Where those who wait are.
#[derive(Clone)]
pub(super) struct WaitingRoom<K> {
    pub(super) line: WaitingLine,
    pub(super) known: K,
    pub(super) config: RpcConfig,
    pub(super) unasked: UnaskedBudget,
}

impl<K: KnownModels> WaitingRoom<K> {
    /// Keeps a container until its model is known.
    pub(super) async fn wait(&self, registration: Registration) -> Result<Registration, Refused> {
        let Registration { stream, unread, introduction, peer, security, place } = registration;
        let closed = |error| Refused::new(RpcEnd::Closed, error);
        let stream = tokio::net::TcpStream::from_std(stream).map_err(closed)?;
        let mut connection =
            ContainerConnection::new(stream, unread, self.unasked.meter(), security);
        let listed = self.known.list(&introduction);
        if let Err(refused) = self.until_known(&mut connection, &introduction).await {
            if introduction.extensions.has(Extensions::NOTICES) {
                connection.notice(NoticeLevel::Error, &refused.text).await;
            }
            return Err(refused);
        }
        drop(listed);
        let (stream, unread, security) = connection.into_parts().map_err(closed)?;
        Ok(Registration { stream, unread, introduction, peer, security, place })
    }

    async fn until_known(
        &self,
        connection: &mut ContainerConnection,
        introduction: &Introduction,
    ) -> Result<(), Refused> {
        let model = &introduction.model;
        let (_turn, mut evicted) = self.line.join(self.config.unknown_connections_max);
        let mut changes = self.known.changes();
        let until = clock::now() + Duration::from_millis(self.config.unknown_timeout_ms);
        let silence = Duration::from_millis(self.config.silence_timeout_ms);
        if introduction.extensions.has(Extensions::NOTICES) {
            connection.notice(NoticeLevel::Warning, &not_known(model)).await;
        }
        let mut heard = clock::now();
        loop {
            let between_messages = connection.answer_all(silence).await?;
            if between_messages && self.known.is_known(model) {
                return Ok(());
            }
            connection.may_serve(model)?;
            tokio::select! {
                read = connection.read() => {
                    read?;
                    heard = clock::now();
                }
                _ = changes.changed() => {}
                () = tokio::time::sleep(KEY_CHECK) => {}
                _ = &mut evicted => return Err(self.gave_way(model)),
                () = sleep_until(until) => return Err(self.took_too_long(model)),
                () = sleep_until(heard + silence) => return Err(silent(heard)),
            }
        }
    }

    fn gave_way(&self, model: &ModelId) -> Refused {
        let max = self.config.unknown_connections_max;
        let text = format!(
            "the server knows no model {model}, and this container gave way to a newer one: \
             {max} of unknown models may wait (rpc.unknown_connections_max)"
        );
        Refused::new(RpcEnd::UnknownModel, text)
    }

    fn took_too_long(&self, model: &ModelId) -> Refused {
        let ms = self.config.unknown_timeout_ms;
        let text = format!(
            "the server knows no model {model}, and none was registered within {ms} ms \
             (rpc.unknown_timeout_ms)"
        );
        Refused::new(RpcEnd::UnknownModel, text)
    }
}

fn silent(heard: Instant) -> Refused {
    let silent = clock::now() - heard;
    Refused::new(RpcEnd::Silent, format!("nothing heard for {silent:?}"))
}

fn not_known(model: &ModelId) -> String {
    format!(
        "the server knows no model {model}: this container is connected and gets no queries until \
         that model and version are registered (clipper admin, or a name or version mistyped?)"
    )
}
