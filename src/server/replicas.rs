//! The replicas as the management frontend sees them.

use futures_util::future::BoxFuture;

use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::list::{ContainerInfo, ContainerList};
use crate::http::management::ports::{Containers, RestartReplicas};
use crate::store::ChangeError;
use crate::supervision::kept::Kept;

/// Those that are connected, and the processes of this server.
pub(super) struct OwnReplicas {
    pub(super) list: ContainerList,
    pub(super) pool: Kept<ContainerPool>,
}

impl Containers for OwnReplicas {
    fn list(&self) -> Vec<ContainerInfo> {
        self.list.all()
    }

    fn restart(&self, which: RestartReplicas) -> BoxFuture<'static, Result<usize, ChangeError>> {
        let restarted = self.pool.send(which);
        Box::pin(async move {
            restarted
                .await
                .map_err(|_| ChangeError::unavailable("the container pool is being restarted"))
        })
    }
}
