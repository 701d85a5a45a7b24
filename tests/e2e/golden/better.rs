//! Where we answer otherwise than the original on purpose, and why.

use std::collections::BTreeMap;

use serde_json::Value;

use super::replay::Exchange;

pub struct Better {
    /// The recorded exchanges.
    pub names: &'static [&'static str],
    /// Our status.
    pub status: u16,
    /// Is this our body?
    pub body: fn(&Exchange, &str) -> bool,
    /// What is better about it.
    pub why: &'static str,
}

pub const BETTER: &[Better] = &[
    Better {
        names: &["ping POST", "predict GET", "predict PUT"],
        status: 405,
        body: |_, body| body.contains("Method not allowed"),
        why: "405 with Allow instead of a closed connection",
    },
    Better {
        names: &["mgmt unknown path"],
        status: 404,
        body: |_, body| body.contains("/admin/nope") && body.contains("POST /admin/add_app"),
        why: "404 that lists the endpoints instead of a closed connection",
    },
    Better {
        names: &["mgmt GET on POST endpoint"],
        status: 405,
        body: |_, body| body.contains("GET is not one of: POST"),
        why: "405 with Allow instead of a closed connection",
    },
    Better {
        names: &["mgmt metrics (declared, not served)"],
        status: 200,
        body: |_, body| !body.is_empty(),
        why: "the declared page is served",
    },
    Better {
        names: &["add_app input_type upper case"],
        status: 200,
        body: |_, body| body == "Successfully added application with name 'app_upper'",
        why: "input types are taken in any case instead of silence",
    },
    Better {
        names: &["add_app odd chars in name"],
        status: 400,
        body: |_, body| {
            body == "Invalid application name supplied: a b,c:d. Contains one of: ',', ':'"
        },
        why: "a name that breaks Redis keys and URLs is refused",
    },
    Better {
        names: &["add_model missing batch_size"],
        status: 200,
        body: |_, body| body == "Successfully added model with name 'm' and input type 'doubles'",
        why: "-1 where it is left out; the schema shown never listed it",
    },
    Better {
        names: &["get_all_applications verbose=true"],
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
        names: &["metrics empty server"],
        status: 200,
        body: |_, body| has_metric_groups(body),
        why: "the same groups of names; values are live, and 0 where the original said nan",
    },
    Better {
        names: &["metrics after that (is the query frontend alive?)"],
        status: 200,
        body: |_, body| has_metric_groups(body),
        why: "the server is still alive",
    },
    Better {
        names: &["predict unknown app"],
        status: 404,
        body: |_, body| body.contains("nosuchapp"),
        why: "404 that names the application instead of a closed connection",
    },
    Better {
        names: &["predict wrong type: ints for doubles"],
        status: 200,
        body: |_, body| body.contains("\"output\":0,\"default\":false"),
        why: "whole numbers are doubles too",
    },
    Better {
        names: &["floats predict ints given"],
        status: 200,
        body: |_, body| body.contains("\"default\":false"),
        why: "whole numbers are floats too",
    },
    Better {
        names: &["predict unknown verb path"],
        status: 404,
        body: |_, body| body.contains("/app/foo"),
        why: "404 that names the path instead of a closed connection",
    },
    Better {
        names: &["update uid 5"],
        status: 200,
        body: |_, body| body == "Feedback received? 1",
        why: "feedback of every user is accepted",
    },
    Better {
        names: &["update label int"],
        status: 200,
        body: |_, body| body == "Feedback received? 1",
        why: "integer labels are accepted",
    },
    Better {
        names: &["bytes predict not base64"],
        status: 400,
        body: |_, body| body.contains("The input is not base64-encoded"),
        why: "400 that names the fault instead of a prediction for other bytes",
    },
    Better {
        names: &["empty input doubles"],
        status: 400,
        body: |_, body| body.contains("The input is empty"),
        why: "400 instead of a replica that never gets another batch",
    },
    Better {
        names: &["predict after empty input doubles", "predict after empty input strings"],
        status: 200,
        body: |_, body| body.contains("\"output\":0,\"default\":false"),
        why: "the replica goes on serving",
    },
    Better {
        names: &[
            "add_app name wrong type",
            "add_app latency_slo string",
            "add_model labels not array",
            "add_model_links model_names not array",
        ],
        status: 400,
        body: |recorded, body| body == recorded.body.replace("but found", " but found"),
        why: "the words do not run together",
    },
    Better {
        names: &[
            "predict empty body",
            "predict empty object",
            "predict huge double",
            "predict NaN literal",
        ],
        status: 400,
        body: |recorded, body| has_cause_and_schema(body, &cause_of(&recorded.body)),
        why: "the schema is that of the application, with input_batch and version",
    },
    Better {
        names: &["predict wrong type: input string"],
        status: 400,
        body: |_, body| {
            let cause = "JSON key input expected type Array of doubles but found type String";
            has_cause_and_schema(body, &mismatch(cause))
        },
        why: "it says which member, what was expected and what was found",
    },
    Better {
        names: &["predict input_batch wrong type: flat"],
        status: 400,
        body: |_, body| {
            let cause = "JSON key input_batch, input 0, expected type Array of doubles but found \
                         type Number";
            has_cause_and_schema(body, &mismatch(cause))
        },
        why: "it says which member, what was expected and what was found",
    },
    Better {
        names: &["predict input_batch wrong type: string"],
        status: 400,
        body: |_, body| {
            let cause = "JSON key input_batch expected type Array of inputs but found type String";
            has_cause_and_schema(body, &mismatch(cause))
        },
        why: "it says which member, what was expected and what was found",
    },
    Better {
        names: &["predict version wrong type"],
        status: 400,
        body: |_, body| {
            let cause = "JSON key version expected type String but found type Number";
            has_cause_and_schema(body, &mismatch(cause))
        },
        why: "it says which member, what was expected and what was found",
    },
    Better {
        names: &["predict not an object (array)"],
        status: 400,
        body: |_, body| {
            has_cause_and_schema(
                body,
                &mismatch("The body expected type Object but found type Array"),
            )
        },
        why: "it says what was found and what is expected",
    },
    Better {
        names: &["predict not an object (number)"],
        status: 400,
        body: |_, body| {
            let cause = "The body expected type Object but found type Number";
            has_cause_and_schema(body, &mismatch(cause))
        },
        why: "it says what was found and what is expected",
    },
    Better {
        names: &["add_app latency_slo > int32"],
        status: 400,
        body: |_, body| {
            body.starts_with(&mismatch(
                "JSON key latency_slo_micros expected a whole number of 32 bits but found \
                 3000000000",
            ))
        },
        why: "it says which member, and what is wrong with the number",
    },
    Better {
        names: &["add_model labels not strings"],
        status: 400,
        body: |_, body| {
            let cause = "JSON key labels, element 0, expected type String but found type Number";
            body.starts_with(&mismatch(cause))
        },
        why: "it says which member, what was expected and what was found",
    },
    Better {
        names: &["strings predict array given"],
        status: 400,
        body: |_, body| {
            body.contains("JSON key input expected type String but found type Array")
                && body.contains("\\\"input\\\" := string,")
        },
        why: "it says which member, what was expected and what was found",
    },
    Better {
        names: &["predict no linked model"],
        status: 200,
        body: |recorded, body| {
            let unlinked = "The application is not linked to a model (POST /admin/add_model_links)";
            let expected = recorded.body.replace("No connected models found for query", unlinked);
            without_query_id(&expected) == without_query_id(body)
        },
        why: "the reason is that there is no link, which no container can mend",
    },
];

/// What the original says is wrong with a body.
fn cause_of(recorded: &str) -> String {
    let recorded: Value = serde_json::from_str(recorded).unwrap();
    let cause = recorded["cause"].as_str().unwrap();
    cause.split_once(" Expected JSON schema").unwrap().0.to_owned()
}

fn mismatch(what: &str) -> String {
    format!("Error parsing JSON: Type mismatch! {what}.")
}

/// Whether it is this error, with the schema of an application over doubles.
fn has_cause_and_schema(body: &str, cause: &str) -> bool {
    let schema = "\n  {\n   \"input\" := [double],\n   \"input_batch\" := [[double]] (instead of \
                  input, for several),\n   \"version\" := string (optional)\n  }\n";
    let expected = serde_json::json!({
        "error": "Json error", "cause": format!("{cause} Expected JSON schema: {schema}"),
    });
    serde_json::from_str(body).is_ok_and(|body: Value| body == expected)
}

fn without_query_id(body: &str) -> Value {
    let mut body: Value = serde_json::from_str(body).unwrap();
    body["query_id"].take();
    body
}

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
