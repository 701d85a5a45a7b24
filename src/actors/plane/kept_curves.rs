//! What is known of the cost of model versions before they are registered: learned by an earlier
//! process, or by the warm-up of a deployment.

use std::collections::HashMap;

use parking_lot::Mutex;

use clipper_domain::ModelId;
use clipper_scheduling::latency::LatencyCurve;

/// By version; taken when it is registered.
#[derive(Debug, Default)]
pub struct KeptCurves(Mutex<HashMap<ModelId, LatencyCurve>>);

impl KeptCurves {
    /// Keeps these, over what there is.
    pub fn keep(&self, curves: impl IntoIterator<Item = (ModelId, LatencyCurve)>) {
        self.0.lock().extend(curves);
    }

    /// What is known of a version; it is not kept any more.
    pub fn take(&self, id: &ModelId) -> Option<LatencyCurve> {
        self.0.lock().remove(id)
    }
}
