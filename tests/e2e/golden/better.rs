//! Where we answer otherwise than the original on purpose, and why.

use std::collections::BTreeMap;

use serde_json::Value;

use super::replay::Exchange;

pub struct Better {
    /// The recorded exchange.
    pub name: &'static str,
    /// Our status.
    pub status: u16,
    /// Is this our body?
    pub body: fn(&Exchange, &str) -> bool,
    /// What is better about it.
    pub why: &'static str,
}

pub const BETTER: &[Better] = &[
    Better {
        name: "ping POST",
        status: 405,
        body: |_, body| body.contains("Method not allowed"),
        why: "405 with Allow instead of a closed connection",
    },
    Better {
        name: "mgmt unknown path",
        status: 404,
        body: |_, body| body.contains("/admin/nope") && body.contains("POST /admin/add_app"),
        why: "404 that lists the endpoints instead of a closed connection",
    },
    Better {
        name: "mgmt GET on POST endpoint",
        status: 405,
        body: |_, body| body.contains("GET is not one of: POST"),
        why: "405 with Allow instead of a closed connection",
    },
    Better {
        name: "mgmt metrics (declared, not served)",
        status: 200,
        body: |_, body| !body.is_empty(),
        why: "the declared page is served",
    },
    Better {
        name: "add_app input_type upper case",
        status: 200,
        body: |_, body| body == "Successfully added application with name 'app_upper'",
        why: "input types are taken in any case instead of silence",
    },
    Better {
        name: "add_app odd chars in name",
        status: 400,
        body: |_, body| {
            body == "Invalid application name supplied: a b,c:d. Contains one of: ',', ':'"
        },
        why: "a name that breaks Redis keys and URLs is refused",
    },
    Better {
        name: "add_model missing batch_size",
        status: 200,
        body: |_, body| body == "Successfully added model with name 'm' and input type 'doubles'",
        why: "-1 where it is left out; the schema shown never listed it",
    },
    Better {
        name: "get_all_applications verbose=true",
        status: 200,
        body: |recorded, body| {
            let (mut recorded, mut ours) = (by_name(&recorded.body), by_name(body));
            recorded.remove("a b,c:d");
            ours.remove("app_upper").is_some()
                && recorded == ours
                && recorded.values().all(|application| body.contains(application))
        },
        why: "sorted by name; follows the two rows above",
    },
    Better {
        name: "metrics empty server",
        status: 200,
        body: |_, body| has_metric_groups(body),
        why: "the same groups of names; values are live, and 0 where the original said nan",
    },
    Better {
        name: "metrics after that (is the query frontend alive?)",
        status: 200,
        body: |_, body| has_metric_groups(body),
        why: "the server is still alive",
    },
    Better {
        name: "predict unknown app",
        status: 404,
        body: |_, body| body.contains("nosuchapp"),
        why: "404 that names the application instead of a closed connection",
    },
    Better {
        name: "predict wrong type: ints for doubles",
        status: 200,
        body: |_, body| body.contains("\"output\":0,\"default\":false"),
        why: "whole numbers are doubles too",
    },
    Better {
        name: "floats predict ints given",
        status: 200,
        body: |_, body| body.contains("\"default\":false"),
        why: "whole numbers are floats too",
    },
    Better {
        name: "predict GET",
        status: 405,
        body: |_, body| body.contains("Method not allowed"),
        why: "405 with Allow instead of a closed connection",
    },
    Better {
        name: "predict PUT",
        status: 405,
        body: |_, body| body.contains("Method not allowed"),
        why: "405 with Allow instead of a closed connection",
    },
    Better {
        name: "predict unknown verb path",
        status: 404,
        body: |_, body| body.contains("/app/foo"),
        why: "404 that names the path instead of a closed connection",
    },
    Better {
        name: "update uid 5",
        status: 200,
        body: |_, body| body == "Feedback received? 1",
        why: "feedback of every user is accepted",
    },
    Better {
        name: "update label int",
        status: 200,
        body: |_, body| body == "Feedback received? 1",
        why: "integer labels are accepted",
    },
    Better {
        name: "bytes predict not base64",
        status: 400,
        body: |_, body| body.contains("The input is not base64-encoded"),
        why: "400 that names the fault instead of a prediction for other bytes",
    },
    Better {
        name: "empty input doubles",
        status: 400,
        body: |_, body| body.contains("The input is empty"),
        why: "400 instead of a replica that never gets another batch",
    },
    Better {
        name: "predict after empty input doubles",
        status: 200,
        body: |_, body| body.contains("\"output\":0,\"default\":false"),
        why: "the replica goes on serving",
    },
    Better {
        name: "predict after empty input strings",
        status: 200,
        body: |_, body| body.contains("\"output\":0,\"default\":false"),
        why: "the replica goes on serving",
    },
];

fn has_metric_groups(body: &str) -> bool {
    let Ok(page) = serde_json::from_str::<Value>(body) else { return false };
    ["counters", "ratio_counters", "meters", "histograms"].iter().all(|g| page[*g].is_array())
}

/// The objects of a list by name, each as compact text with its members in their order.
fn by_name(list: &str) -> BTreeMap<String, String> {
    let raw: Vec<&serde_json::value::RawValue> = serde_json::from_str(list).unwrap();
    let name = |text: &str| {
        let object: Value = serde_json::from_str(text).unwrap();
        object["name"].as_str().unwrap().to_owned()
    };
    raw.into_iter().map(|object| (name(object.get()), object.get().to_owned())).collect()
}
