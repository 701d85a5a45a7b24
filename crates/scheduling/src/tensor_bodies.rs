//! Request bodies of applications over tensors: rows are read by the signature of the model that
//! the body asks for.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use clipper_domain::{Input, Signature};
use clipper_tensors::json::read_row;
use serde::Deserialize;
use serde::de::{Deserializer as _, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::smallvec;

use super::bodies::{BodyError, Digests, Inputs, PredictBody, UpdateBody, query_key};
use super::parse::{Fields, semantic};
use super::update::update_of;

/// The members of a body, not looked into.
#[derive(Debug, Deserialize)]
struct BodyMembers<'b> {
    #[serde(borrow, default)]
    input: Option<&'b RawValue>,
    #[serde(borrow, default)]
    input_batch: Option<&'b RawValue>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    uid: Option<i64>,
    #[serde(default)]
    label: Option<Value>,
    #[serde(default)]
    query_id: Option<Value>,
    #[serde(default)]
    loss: Option<Value>,
}

fn members(body: &[u8]) -> Result<BodyMembers<'_>, BodyError> {
    let found = match body.trim_ascii_start().first() {
        Some(b'{') => None,
        Some(b'[') => Some("Array"),
        Some(b'"') => Some("String"),
        Some(b'0'..=b'9' | b'-') => Some("Number"),
        _ => Some("another value"),
    };
    if let Some(found) = found {
        let is_json = serde_json::from_slice::<IgnoredAny>(body);
        return Err(is_json.map_or_else(BodyError::Syntax, |_| BodyError::NotAnObject(found)));
    }
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { semantic(error.to_string()) } else { BodyError::Syntax(error) }
    })
}

/// Reads a predict body; `signature` is that of a version, or of the current one. Where it is not
/// known nobody can be asked, and the inputs stay what they are.
///
/// # Errors
/// See [`BodyError`].
pub fn predict_body(
    body: &[u8],
    signature: impl FnOnce(Option<&str>) -> Option<Arc<Signature>>,
    inputs_max: usize,
    key_field: Option<&Arc<str>>,
) -> Result<PredictBody, BodyError> {
    let members = members(body)?;
    let signature = signature(members.version.as_deref());
    let signature = signature.as_deref();
    let inputs = match (members.input_batch, members.input) {
        (Some(batch), _) => batch_of(batch, signature, inputs_max)?,
        (None, Some(input)) => smallvec![row(input, signature, &"input")?],
        (None, None) => {
            let text = "JSON object does not have required keys input or input_batch";
            return Err(semantic(text));
        }
    };
    let key = match key_field.and_then(|field| Some((field, member(body, field)?))) {
        Some((field, value)) => query_key(field, value)?,
        None => None,
    };
    let (version, uid) = (members.version, members.uid.unwrap_or(0));
    Ok(PredictBody { inputs, digests: Digests::new(), version, uid, key })
}

/// The member of this name, of a body that has been read before.
fn member(body: &[u8], name: &str) -> Option<Value> {
    struct Member<'n>(&'n str);

    impl<'de> Visitor<'de> for Member<'_> {
        type Value = Option<Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                if key == self.0 && found.is_none() {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }

    serde_json::Deserializer::from_slice(body).deserialize_map(Member(name)).ok().flatten()
}

/// Reads an update body.
///
/// # Errors
/// See [`BodyError`].
pub fn update_body(body: &[u8], signature: Option<&Signature>) -> Result<UpdateBody, BodyError> {
    let BodyMembers { input, uid, label, query_id, loss, .. } = members(body)?;
    let input = input.map(|input| row(input, signature, &"input")).transpose()?;
    update_of(Fields { input, uid, label, query_id, loss, ..Fields::default() })
}

fn row(
    json: &RawValue,
    signature: Option<&Signature>,
    place: &impl fmt::Display,
) -> Result<Input, BodyError> {
    let Some(signature) = signature else {
        return Ok(Input(Arc::from(json.get().as_bytes())));
    };
    let row = read_row(json.get(), signature.inputs(), place);
    row.map(Input).map_err(|error| semantic(error.to_string()))
}

fn batch_of(
    json: &RawValue,
    signature: Option<&Signature>,
    inputs_max: usize,
) -> Result<Inputs, BodyError> {
    let mut batch = TensorBatch { signature, inputs_max, inputs: Inputs::new(), fault: None };
    let mut json = serde_json::Deserializer::from_str(json.get());
    let read = json.deserialize_any(&mut batch);
    match (batch.fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(semantic(format!("input_batch: {error}"))),
        (None, Ok(())) => Ok(batch.inputs),
    }
}

struct TensorBatch<'s> {
    signature: Option<&'s Signature>,
    inputs_max: usize,
    inputs: Inputs,
    fault: Option<BodyError>,
}

impl<'de> Visitor<'de> for &mut TensorBatch<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of inputs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(input) = seq.next_element::<&RawValue>()? {
            let at = self.inputs.len();
            let input = if at == self.inputs_max {
                Err(BodyError::TooManyInputs(at))
            } else {
                row(input, self.signature, &format_args!("input_batch[{at}]"))
            };
            match input {
                Ok(input) => self.inputs.push(input),
                Err(fault) => {
                    self.fault = Some(fault);
                    return Err(A::Error::custom("refused"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clipper_domain::{Datatype, TensorSpec};
    use clipper_tensors::row::RowCheck;

    use super::*;
    use crate::bodies::{FeedbackSays, FeedbackSubject};

    fn signature() -> Arc<Signature> {
        let spec = |name: &str, shape: &[i64]| TensorSpec {
            name: name.to_owned(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
            labels: Vec::new(),
        };
        Arc::new(Signature::new(vec![spec("x", &[-1, 2])], vec![spec("y", &[-1])]).unwrap())
    }

    fn read(body: &str, max: usize) -> Result<PredictBody, String> {
        let signature = |version: Option<&str>| (version != Some("0")).then(signature);
        let field = Arc::from("who");
        predict_body(body.as_bytes(), signature, max, Some(&field)).map_err(|error| match error {
            BodyError::Semantic(text) => text,
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn rows_are_read_by_the_signature() {
        let one = read(r#"{"input": {"x": [1, 2]}, "uid": 7}"#, 1).unwrap();
        assert!(RowCheck::new(signature().inputs()).takes(&one.inputs[0].0));
        assert_eq!(one.uid, 7);
        let keyed = read(r#"{"input": {"x": [1, 2]}, "who": 9}"#, 1).unwrap();
        assert_eq!((one.key, keyed.key), (None, Some("9".to_owned())));
        let two = read(r#"{"input_batch": [{"x": [1, 2]}, {"x": [3, 4]}], "version": "1"}"#, 2);
        assert_eq!(two.unwrap().inputs.len(), 2);
        let unknown = read(r#"{"version": "0", "input": {"x": [1]}}"#, 1).unwrap();
        assert_eq!(&*unknown.inputs[0].0, br#"{"x": [1]}"#);
        assert_eq!(read(r#"{"input_batch": []}"#, 1).unwrap().inputs.len(), 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, expected) in [
            (r#"{"input": {"x": [1]}}"#, "input.x: its shape is [1]"),
            (r#"{"input": [1, 2]}"#, "input: it must be an object"),
            (r#"{"input_batch": [{"x": [1, 2]}, {"x": 1}]}"#, "input_batch[1].x: its shape"),
            (r#"{"input_batch": {"x": [1, 2]}}"#, "input_batch: invalid type: map"),
            (r#"{"input_batch": [{}, {}]}"#, "input_batch[0].x: the tensor is missing"),
            (r#"{"uid": 1}"#, "JSON object does not have required keys"),
            (r#"{"input": {}, "uid": "x"}"#, "invalid type: string"),
            ("[]", "NotAnObject(\"Array\")"),
            ("{", "Syntax("),
            ("x", "Syntax("),
        ] {
            let error = read(body, 2).unwrap_err();
            assert!(error.starts_with(expected), "{body}: {error}");
        }
        let three = read(r#"{"input_batch": [{"x": [1, 2]}, {"x": [1, 2]}, 3]}"#, 2);
        assert_eq!(three.unwrap_err(), "TooManyInputs(2)");
    }

    #[test]
    fn feedback_names_a_query_or_an_input() {
        let signature = signature();
        let read = |body: &str| update_body(body.as_bytes(), Some(&signature));
        let update = read(r#"{"uid": 3, "input": {"x": [1, 2]}, "label": 1}"#).unwrap();
        assert!(matches!(update.about, FeedbackSubject::Input(3, _)));
        let update = read(r#"{"query_id": 9, "loss": 0.5}"#).unwrap();
        assert!(matches!(update.about, FeedbackSubject::Query(9)));
        assert!(matches!(update.told, FeedbackSays::Loss(_)));
        assert!(read(r#"{"uid": 3, "input": {"x": 1}, "label": 1}"#).is_err());
    }
}
