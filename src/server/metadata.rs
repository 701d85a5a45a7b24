//! The metadata as the frontends see it: a view, and a writer whose commands are counted.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::actors::redis::watcher::{Availability, RedisMetadata};
use crate::http::health::{Condition, Readiness};
use crate::http::management::ports::{CatalogRead, Metadata};
use crate::metrics::Metrics;
use crate::store::event::{Author, Origin};
use crate::store::history::{History, Point, StateAt};
use crate::store::projection::Catalog;
use crate::store::{CatalogView, ChangeError, Journal, MetadataWriter, SharedWriter, StoreError};
use clipper_domain::{Asker, Command};

/// A writer whose commands are counted by what came of them: those of operators, not those of the
/// config file.
pub(super) struct Counted {
    pub(super) writer: SharedWriter,
    pub(super) metrics: Arc<Metrics>,
}

impl MetadataWriter for Counted {
    fn execute(
        &self,
        command: Command,
        author: Author,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let origin = author.origin;
        let (answer, metrics) = (self.writer.execute(command, author), Arc::clone(&self.metrics));
        Box::pin(async move {
            let answer = answer.await;
            if origin == Origin::Admin {
                metrics.admin_command(answer.is_ok());
            }
            answer
        })
    }

    fn may_be_away(&self) -> bool {
        self.writer.may_be_away()
    }
}

/// The metadata as the management frontend sees it.
pub(super) struct ManagedMetadata {
    pub(super) writer: SharedWriter,
    pub(super) view: CatalogView,
    pub(super) history: History,
}

impl Metadata for ManagedMetadata {
    fn execute(
        &self,
        command: Command,
        asker: Asker,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        self.writer.execute(command, Author { origin: Origin::Admin, asker })
    }

    fn catalog(&self) -> CatalogRead<'_> {
        self.view.read()
    }

    fn copy(&self) -> (u64, Arc<Catalog>) {
        self.view.copy()
    }

    fn state_at(&self, point: Point) -> Result<StateAt, StoreError> {
        self.history.state_at(point)
    }
}

/// A server that has never seen the tables knows nothing that it could serve: it is ready when it
/// has, and says until then why not.
pub(super) fn meet_when_known(
    readiness: &Arc<Readiness>,
    redis: Option<&RedisMetadata>,
    journal: &Journal,
) {
    let readiness = Arc::clone(readiness);
    let Some(redis) = redis.filter(|_| journal.view().seq() == 0) else {
        return readiness.meet(Condition::MetadataKnown);
    };
    let mut availability = redis.availability();
    actix::spawn(async move {
        loop {
            match &*availability.borrow_and_update() {
                Availability::Following => return readiness.meet(Condition::MetadataKnown),
                Availability::Away(reason) => {
                    readiness.explain(Condition::MetadataKnown, format!("Redis is away: {reason}"));
                }
                Availability::Starting => {}
            }
            if availability.changed().await.is_err() {
                return;
            }
        }
    });
}
