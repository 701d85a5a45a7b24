//! The description itself, in the form of `OpenAPI`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::operation::{BodySchema, Operation};
use super::{management, notation, query};
use crate::access::table::Port;
use crate::http::errors::TABLE;
use clipper_oip::Encoding;

fn parameters(path: &str, query: &[(&str, &str)]) -> Vec<Value> {
    let names = path.split('{').skip(1).filter_map(|part| part.split('}').next());
    let in_path = names.map(|name| {
        let example = match name {
            "version" => "1",
            "file" => "page.js",
            _ => "digits",
        };
        json!({"name": name, "in": "path", "required": true, "example": example,
               "schema": {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_.-]+$"}})
    });
    let in_query = query.iter().map(|(name, about)| {
        json!({"name": name, "in": "query", "required": false, "description": about,
               "schema": {"type": "string"}})
    });
    in_path.chain(in_query).collect()
}

/// What may stand behind the `?` of a path.
fn queries(path: &str) -> &'static [(&'static str, &'static str)] {
    match path {
        "/admin/dashboard/history" => &[("app", "The application")],
        "/admin/dashboard/stream" => &[
            ("app", "The application of the page"),
            ("model", "The model of the page, with its version"),
            ("version", "The version of the model"),
        ],
        "/admin/explain" => &[
            ("query_id", "Only this query"),
            ("slow", "Only those that were slow"),
            ("default", "Only those that got the default output"),
            ("app", "Only those of this application"),
            ("limit", "So many, the newest; 20 unless said, at most 200"),
        ],
        "/{name}/predict" => &[("explain", "1: say why it is answered so")],
        "/admin/journal/stream" => &[
            ("after", "The last event that is known"),
            ("app", "Only changes of this application"),
            ("model", "Only changes of this model"),
        ],
        _ => &[],
    }
}

/// The answers that are errors, by status: which errors have it, and when each is sent.
fn failures() -> BTreeMap<u16, String> {
    let mut failures: BTreeMap<u16, String> = BTreeMap::new();
    for kind in TABLE {
        let told = failures.entry(kind.status.as_u16()).or_default();
        if !told.is_empty() {
            told.push_str("; ");
        }
        told.push_str(kind.error);
        told.push_str(": ");
        told.push_str(kind.when);
    }
    failures.entry(500).or_insert_with(|| "A fault of the server or of a model".to_owned());
    failures
}

fn operation(row: &Operation) -> Value {
    let types = row.answer.types();
    let content: Map<String, Value> =
        types.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect();
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({"description": "Done", "content": content}));
    for status in failures().keys() {
        let component = format!("#/components/responses/E{status}");
        responses.insert(status.to_string(), json!({"$ref": component}));
    }
    let name: String = format!("{} {}", row.method.to_lowercase(), row.path)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut told = json!({
        "operationId": name,
        "summary": row.summary,
        "parameters": parameters(row.path, queries(row.path)),
        "responses": responses,
    });
    let schema = match row.body {
        BodySchema::None => return told,
        BodySchema::Notation(text) => notation::schema(text),
        BodySchema::Schema(text) | BodySchema::Optional(text) => {
            serde_json::from_str(text).unwrap_or_default()
        }
    };
    let mut media = json!({"schema": schema});
    if let Ok(example) = serde_json::from_str::<Value>(row.example) {
        media["example"] = example;
    }
    let required = !matches!(row.body, BodySchema::Optional(_));
    told["requestBody"] = json!({
        "description": format!("May be compressed; Content-Encoding is one of {}", Encoding::NAMES),
        "required": required,
        "content": {"application/json": media},
    });
    told
}

/// The description of a frontend.
#[must_use]
pub fn document(port: Port) -> Value {
    let (title, rows) = match port {
        Port::Query => ("Clipper: queries", query::OPERATIONS.to_vec()),
        _ => ("Clipper: management", management::operations()),
    };
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for row in &rows {
        paths.entry(row.path).or_default().insert(row.method.to_lowercase(), operation(row));
    }
    let errors: Vec<&str> = TABLE.iter().map(|kind| kind.error).collect();
    let responses: Map<String, Value> = failures()
        .into_iter()
        .map(|(status, when)| {
            let error = json!({"schema": {"$ref": "#/components/schemas/Error"}});
            let content = json!({"application/json": error, "text/plain": {}});
            (format!("E{status}"), json!({"description": when, "content": content}))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": {
                "type": "object",
                "properties": {
                    "error": {"type": "string", "description": errors.join(", ")},
                    "cause": {"type": "string"},
                    "request_id": {"type": "string", "description": "As in X-Request-Id"},
                },
                "required": ["error"],
            }},
            "responses": responses,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::table::TABLE as ROWS;

    #[test]
    fn every_endpoint_is_described_and_nothing_else_is() {
        for port in [Port::Query, Port::Management] {
            let document = document(port);
            let mut described: Vec<(String, String)> = Vec::new();
            for (path, operations) in document["paths"].as_object().unwrap() {
                for (method, told) in operations.as_object().unwrap() {
                    assert!(!told["summary"].as_str().unwrap().is_empty(), "{path}");
                    described.push((method.to_uppercase(), path.clone()));
                }
            }
            let rows = ROWS.iter().filter(|row| row.port == port);
            let mut wanted: Vec<(String, String)> =
                rows.map(|row| (row.method.to_owned(), row.path.to_owned())).collect();
            described.sort();
            wanted.sort();
            assert_eq!(described, wanted);
        }
    }

    #[test]
    fn every_error_is_in_it_with_its_code() {
        let document = document(Port::Query);
        for kind in TABLE {
            let name = format!("E{}", kind.status.as_u16());
            let told = document["components"]["responses"][&name]["description"].as_str();
            assert!(told.unwrap().contains(&format!("{}: {}", kind.error, kind.when)));
            let errors = &document["components"]["schemas"]["Error"]["properties"]["error"];
            assert!(errors["description"].as_str().unwrap().contains(kind.error));
        }
    }
}
