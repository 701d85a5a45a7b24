//! What happened between the recorded exchanges without being recorded.

/// One unrecorded step; all of them succeed.
pub enum Step {
    /// A management request.
    Post { path: &'static str, body: &'static str },
    /// A replica of version 1 connects; it answers every query with `output`.
    Connect { model: &'static str, input_type: &'static str, output: &'static str },
    /// A model's replicas stop answering.
    Freeze(&'static str),
    /// They answer again.
    Thaw(&'static str),
}

const fn app(body: &'static str) -> Step {
    Step::Post { path: "/admin/add_app", body }
}

const fn model(body: &'static str) -> Step {
    Step::Post { path: "/admin/add_model", body }
}

const fn link(body: &'static str) -> Step {
    Step::Post { path: "/admin/add_model_links", body }
}

const fn connect(model: &'static str, input_type: &'static str, output: &'static str) -> Step {
    Step::Connect { model, input_type, output }
}

/// Steps before the exchange of that name.
pub const BEFORE: &[(&str, &[Step])] = &[
    (
        "add_app input_type upper case",
        &[
            app(r#"{"name": "app_floats", "input_type": "floats", "default_output": "none",
                "latency_slo_micros": 100000}"#),
            app(r#"{"name": "app_integers", "input_type": "integers", "default_output": "-1",
                "latency_slo_micros": 100000}"#),
        ],
    ),
    // The original refused the version of the exchange before, so that version 1 stayed current.
    (
        "add_model name with ','",
        &[
            Step::Post {
                path: "/admin/delete_versioned_model",
                body: r#"{"model_name": "m", "model_version": "9"}"#,
            },
            Step::Post {
                path: "/admin/set_model_version",
                body: r#"{"model_name": "m", "model_version": "1"}"#,
            },
        ],
    ),
    (
        "add_model_links second link",
        &[model(
            r#"{"model_name": "m_other", "model_version": "1", "labels": [],
            "input_type": "doubles", "container_name": "noop:1",
            "model_data_path": "/models/x", "batch_size": -1}"#,
        )],
    ),
    (
        "add_model_links strings",
        &[model(
            r#"{"model_name": "m_strings", "model_version": "1", "labels": ["a", "b"],
            "input_type": "strings", "container_name": "noop:1",
            "model_data_path": "/models/x", "batch_size": 4}"#,
        )],
    ),
    (
        "add_model_links bytes",
        &[
            link(r#"{"app_name": "app_ints", "model_names": ["m_ints"]}"#),
            link(r#"{"app_name": "app_floats", "model_names": ["m_floats"]}"#),
        ],
    ),
    ("get_all_containers verbose=false", &[connect("m", "doubles", "0")]),
    ("ints predict", &[connect("m_ints", "integers", "plain text")]),
    ("floats predict", &[connect("m_floats", "floats", r#"{"a":[1,2.5],"b":null}"#)]),
    ("strings predict", &[connect("m_strings", "strings", "\"quoted\"")]),
    ("bytes predict not base64", &[connect("m_bytes", "bytes", "3.0")]),
    ("predict SLO timeout (container frozen)", &[Step::Freeze("m")]),
    ("predict the input that timed out", &[Step::Thaw("m")]),
    (
        "delete_model_links again",
        &[Step::Post {
            path: "/admin/delete_model_links",
            body: r#"{"app_name": "app", "model_names": ["m"]}"#,
        }],
    ),
    (
        "get_model deleted",
        &[Step::Post {
            path: "/admin/delete_versioned_model",
            body: r#"{"model_name": "m", "model_version": "2"}"#,
        }],
    ),
    ("predict after empty input doubles", &[connect("empty_doubles", "doubles", "0")]),
    (
        "add_model_links empty_strings",
        &[app(r#"{"name": "empty_strings", "input_type": "strings", "default_output": "-1",
            "latency_slo_micros": 100000}"#)],
    ),
    ("predict after empty input strings", &[connect("empty_strings", "strings", "0")]),
    (
        "add_model_links empty_batch",
        &[app(r#"{"name": "empty_batch", "input_type": "doubles", "default_output": "-1",
            "latency_slo_micros": 100000}"#)],
    ),
    ("predict after empty input batch", &[connect("empty_batch", "doubles", "0")]),
];
