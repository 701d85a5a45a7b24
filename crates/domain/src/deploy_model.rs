//! `POST /admin/deploy_model`: what is asked for, and the lines of JSON that say how far it is.

use serde::{Deserialize, Serialize};

use crate::app::{cached, is_cached};
use crate::deployment::Runtime;
use crate::signature::Signature;

/// The request. An `I` is a trial input, JSON of the kind that predictions take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployBody<I> {
    pub model_name: String,
    pub model_version: String,
    pub input_type: String,
    pub runtime: Runtime,
    pub app_name: String,
    /// How to register the application if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_app: Option<NewApp>,
    /// How to change the application if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_app: Option<UpdateApp>,
    #[serde(default = "one")]
    pub replicas: u32,
    /// -1 = adaptive.
    #[serde(default = "adaptive")]
    pub batch_size: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub input: Option<I>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<I>,
    /// Whether queries go to the version at once.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub make_current: bool,
    #[serde(default = "cached", skip_serializing_if = "is_cached")]
    pub cache: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewApp {
    pub default_output: String,
    pub latency_slo_micros: i64,
}

/// What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateApp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_output: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_slo_micros: Option<i64>,
}

fn one() -> u32 {
    1
}

fn adaptive() -> i64 {
    -1
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_true(value: &bool) -> bool {
    *value
}

fn none<I>() -> Option<I> {
    None
}

/// One line of the answer. An `O` is a model's output, JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Progress<O> {
    /// A replica starts and is tried out.
    Started { model: String },
    /// It has come to the server after so many milliseconds.
    Connected {
        after_ms: u64,
        /// Of type tensors: what it has said that it takes and gives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<Signature>,
    },
    /// It has answered the trial queries.
    Answered {
        /// Its first output; the beginning of it, as a text, if it is long.
        output: O,
        /// How long it is, if it is not shown whole, bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_bytes: Option<usize>,
        queries: usize,
        /// The last batch took so long, milliseconds.
        batch_ms: f64,
    },
    /// It has computed batches of growing size.
    WarmedUp {
        batches: usize,
        /// Queries of the largest.
        largest: usize,
    },
    /// It works, but the operator should look at something.
    Warning { text: String },
    /// So many of its replicas have come.
    Replicas { connected: usize, wanted: u32 },
    /// Model, replicas and link are durable, and queries go to the version, unless it waits.
    Registered,
    /// Something takes its time.
    Waiting,
    /// The last line: it is served.
    Done {
        model: String,
        /// By which application it is queried.
        app: String,
        /// Its replicas; all are connected.
        replicas: u32,
        /// It is not the current version yet.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        waits: bool,
    },
    /// The last line: nothing has changed.
    Failed(Failed),
}

/// Why a deployment did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub cause: String,
    /// The last lines that the container has written.
    pub output: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let request = json!({"model_name": "m", "model_version": "1", "input_type": "doubles",
            "runtime": {"runtime": "command", "command": ["x"]}, "app_name": "a"});
        let body: DeployBody<Value> = serde_json::from_value(request).unwrap();
        assert!(
            (body.replicas, body.batch_size, body.make_current, body.cache) == (1, -1, true, true)
        );
        assert_eq!(body.input, None);
        let again = serde_json::to_value(&body).unwrap();
        assert_eq!(serde_json::from_value::<DeployBody<Value>>(again).unwrap(), body);
        let wrong = json!({"stage": "done", "model": "m:1"});
        assert!(serde_json::from_value::<Progress<Value>>(wrong).is_err());
        let line = json!({"stage": "warmed_up", "batches": 3, "largest": 8});
        let step: Progress<Value> = serde_json::from_value(line.clone()).unwrap();
        assert_eq!(step, Progress::WarmedUp { batches: 3, largest: 8 });
        assert_eq!(serde_json::to_value(step).unwrap(), line);
    }
}
