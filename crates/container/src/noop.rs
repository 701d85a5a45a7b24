//! A model that answers a constant: for benchmarks and for trying the wiring.

use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::batch_model::{BatchModel, ModelOutput};
use clipper_clock as clock;
use clipper_domain::InputType;

/// A sleeper may be woken so much too late. It wakes up so much earlier and watches the clock, or
/// 5 ms would be 5.1 and every ideal computed from them wrong.
const LATE_WAKING: Duration = Duration::from_micros(200);

/// Answers every input with the same text after a fixed time per batch.
#[derive(Debug, Clone)]
pub struct NoopModel {
    /// Announced to the server.
    pub input_type: InputType,
    /// The answer to every input.
    pub output: String,
    /// How long a batch takes, whatever its size.
    pub sleep: Duration,
}

impl BatchModel for NoopModel {
    fn input_type(&self) -> InputType {
        self.input_type
    }

    fn predict(&mut self, inputs: &[Bytes]) -> Vec<ModelOutput> {
        if !self.sleep.is_zero() {
            // Blocks on purpose: a real model keeps its process busy just like this.
            let end = clock::now() + self.sleep;
            #[allow(clippy::disallowed_methods, reason = "stands for a model's computation")]
            thread::sleep(self.sleep.saturating_sub(LATE_WAKING));
            while clock::now() < end {
                std::hint::spin_loop();
            }
        }
        vec![Ok(self.output.clone()); inputs.len()]
    }
}
