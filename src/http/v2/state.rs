//! What the endpoints of the protocol stand on.

use std::sync::Arc;

use super::super::health::Readiness;
use super::super::limits::QueryLimits;
use crate::actors::apps::router::{Router, Routes};
use crate::actors::plane::data_plane::DataPlane;
use crate::store::CatalogView;
use crate::supervision::kept::Kept;

/// What the handlers of one worker need.
#[derive(Clone)]
pub struct V2 {
    /// Models and their load.
    pub plane: Arc<DataPlane>,
    pub view: CatalogView,
    /// Whether the server takes traffic.
    pub readiness: Arc<Readiness>,
    pub routes: Routes,
    /// Who starts an application for a model by itself.
    pub router: Kept<Router>,
    /// As for all queries.
    pub limits: QueryLimits,
}
