//! A state in words.

use std::fmt::Write;

use crate::store::inspect::StateAt;
use clipper_domain::BatchSize;

pub(super) fn state_text(StateAt { seq, catalog }: &StateAt) -> String {
    let mut text = format!("after event {seq}");
    for app in catalog.apps() {
        let models: Vec<_> =
            catalog.linked_models(app.name.as_str()).map(ToString::to_string).collect();
        let models = match &models[..] {
            [] => "no model".to_owned(),
            models => format!("model {}", models.join(", ")),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\napplication {}: {}, {} us, default {:?}, {models}",
            app.name,
            app.input_type,
            app.latency_slo.as_micros(),
            app.default_output
        );
        if !app.on_model_error.is_default() {
            let _ = write!(text, ", errors of the model: {}", app.on_model_error.name());
        }
    }
    for model in catalog.models() {
        let current = catalog.current_version(model.id.name.as_str()) == Some(&model.id.version);
        let batch = match model.batch_size {
            BatchSize::Adaptive => "adaptive batches".to_owned(),
            BatchSize::Fixed(size) => format!("batches of {size}"),
        };
        let mark = if current { ", current" } else { "" };
        let _ = write!(text, "\nmodel {}: {}, {batch}{mark}", model.id, model.input_type);
    }
    for (id, replicas) in catalog.replicas() {
        let (runtime, source) = (replicas.runtime.name(), replicas.runtime.source());
        let _ = write!(text, "\nreplicas of {id}: {} by {runtime}, {source}", replicas.count);
    }
    text
}
