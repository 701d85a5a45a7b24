//! Fields of rows as values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::row_error::RowError;
use clipper_domain::{BatchSize, InputType, LatencySlo, Signature};

/// Of a model of type tensors; one of ours.
pub(super) const SIGNATURE: &str = "signature";

pub(super) type Hash = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn text<'b>(what: &str, bytes: &'b [u8]) -> Result<&'b str, RowError> {
    std::str::from_utf8(bytes).map_err(|_| RowError::NotText(what.to_owned()))
}

pub(super) fn field<'h>(fields: &'h Hash, name: &str) -> Result<&'h str, RowError> {
    let value = fields.get(name.as_bytes()).ok_or_else(|| RowError::NoField(name.to_owned()))?;
    text(name, value)
}

pub(super) fn parse<T, E: fmt::Display>(
    fields: &Hash,
    name: &str,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, RowError> {
    read(field(fields, name)?).map_err(RowError::of(name))
}

pub(super) fn input_type(fields: &Hash) -> Result<InputType, RowError> {
    parse(fields, "input_type", |t| InputType::parse(t).ok_or_else(|| format!("{t:?} is unknown")))
}

pub(super) fn number(text: &str) -> Result<i64, RowError> {
    text.parse().map_err(|_| RowError::NotANumber(text.to_owned()))
}

pub(super) fn slo(text: &str) -> Result<LatencySlo, RowError> {
    LatencySlo::try_from(number(text)?).map_err(RowError::invalid)
}

pub(super) fn batch_size(text: &str) -> Result<BatchSize, RowError> {
    BatchSize::try_from(number(text)?).map_err(RowError::invalid)
}

pub(super) fn signature(fields: &Hash) -> Result<Option<Arc<Signature>>, RowError> {
    let Some(value) = fields.get(SIGNATURE.as_bytes()) else { return Ok(None) };
    let signature = Signature::parse(value).map_err(RowError::of(SIGNATURE))?;
    Ok(Some(Arc::new(signature)))
}

#[cfg(test)]
mod tests {
    use super::super::tables::{Entry, Key, Raw, decode, model_fields};
    use super::*;
    use crate::store::samples::model;

    #[test]
    fn a_signature_is_a_field_of_its_own_and_comes_back() {
        let mut spec = model("m", "1", InputType::Tensors);
        let plain = model_fields(&spec);
        let tensor = r#"{"name":"x","datatype":"FP32","shape":[-1,2]}"#;
        let both = format!(r#"{{"inputs":[{tensor}],"outputs":[{tensor}]}}"#);
        spec.signature = Some(Arc::new(Signature::parse(both.as_bytes()).unwrap()));
        let signed = model_fields(&spec);
        assert_eq!(
            signed.split_last().map(|(last, rest)| (last.clone(), rest)),
            Some((("signature", both), plain.as_slice()))
        );
        let raw = |fields: &[(&str, String)]| {
            let bytes = |(name, value): &(&str, String)| {
                (name.as_bytes().to_vec(), value.clone().into_bytes())
            };
            Raw::Hash(fields.iter().map(bytes).collect())
        };
        let key = Key::model(&spec.id);
        assert_eq!(decode(&key, &raw(&signed)).unwrap(), Some(Entry::Model(spec)));
        let mut broken = signed;
        if let Some((_, value)) = broken.last_mut() {
            *value = "{}".to_owned();
        }
        let error = decode(&key, &raw(&broken)).unwrap_err().to_string();
        assert!(error.contains("signature"), "{error}");
    }
}
