//! Models of one application read the same requests: where their signatures are registered, these
//! are the same. What only a container has said is not known here.

use super::Catalog;
use clipper_domain::{AppName, CommandError, ModelName, ModelSpec, Signature, TensorSpec};

impl Catalog {
    /// Whether these models can answer for one application, as they are when `new` has become the
    /// current version of its model.
    pub(super) fn check_alike<'m>(
        &self,
        app: &AppName,
        models: impl IntoIterator<Item = &'m ModelName>,
        new: Option<&ModelSpec>,
    ) -> Result<(), CommandError> {
        let mut first: Option<(&ModelSpec, &Signature)> = None;
        for model in models {
            let spec = new.filter(|new| new.id.name == *model).or_else(|| self.current_of(model));
            let Some((spec, signature)) = spec.and_then(|s| Some((s, s.signature.as_ref()?)))
            else {
                continue;
            };
            let Some((other, wanted)) = first else {
                first = Some((spec, signature));
                continue;
            };
            if let Some(difference) = difference(wanted, signature) {
                let (model, other) = (spec.id.clone(), other.id.clone());
                return Err(CommandError::SignaturesDiffer {
                    app: app.clone(),
                    model,
                    other,
                    difference,
                });
            }
        }
        Ok(())
    }

    /// The definition of a model's current version.
    fn current_of(&self, model: &ModelName) -> Option<&ModelSpec> {
        self.model(model.as_str(), self.current.get(model)?.as_str())
    }
}

/// The first tensor that is another; `None` where all are the same, whatever their labels.
pub(super) fn difference(wanted: &Signature, found: &Signature) -> Option<String> {
    if wanted.serves_as(found) {
        return None;
    }
    let sides = [
        ("inputs", wanted.inputs(), found.inputs()),
        ("outputs", wanted.outputs(), found.outputs()),
    ];
    sides.into_iter().find_map(|(side, wanted, found)| {
        let at = (0..wanted.len().max(found.len())).find(|at| {
            let tensor = |of: &[TensorSpec]| of.get(*at).map(shown);
            tensor(wanted) != tensor(found)
        })?;
        let tensor = |of: &[TensorSpec]| of.get(at).map_or_else(|| "nothing".to_owned(), shown);
        Some(format!("{side}[{at}] is {}, not {}", tensor(found), tensor(wanted)))
    })
}

/// `image FP32 [-1,3]`
fn shown(TensorSpec { name, datatype, shape, .. }: &TensorSpec) -> String {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("{name} {} [{}]", datatype.name(), dims.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::samples::{app, app_name, changes, model, model_name, set_policy};
    use clipper_domain::{Command, InputType, ModelVersion};

    fn tensors(name: &str, version: &str, datatype: &str) -> ModelSpec {
        let signature = json!({
            "inputs": [{"name": "x", "datatype": datatype, "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
        });
        ModelSpec {
            signature: Some(serde_json::from_value(signature).unwrap()),
            ..model(name, version, InputType::Tensors)
        }
    }

    #[test]
    fn models_of_one_application_have_one_signature() {
        let add = |spec: &ModelSpec| Command::AddModel(spec.clone());
        let link = |models: &[&str]| Command::AddModelLinks {
            app: app_name("a"),
            models: models.iter().map(|name| model_name(name)).collect(),
        };
        let (_, mut catalog) = changes(&[
            Command::AddApp(app("a", InputType::Tensors)),
            set_policy("a", "exp3", json!({})),
            add(&tensors("m", "1", "FP32")),
            add(&tensors("n", "1", "FP64")),
            add(&tensors("o", "1", "FP32")),
            // A container will say what it takes.
            add(&model("p", "1", InputType::Tensors)),
        ]);
        let refused =
            |catalog: &Catalog, command: &Command| catalog.decide(command).unwrap_err().to_string();
        let text = refused(&catalog, &link(&["m", "n"]));
        assert!(text.contains("inputs[0] is x FP64 [-1,2], not x FP32 [-1,2]"), "{text}");
        for event in catalog.decide(&link(&["m", "o", "p"])).unwrap() {
            catalog.apply(&event);
        }
        assert!(refused(&catalog, &link(&["n"])).contains("'n:1'"));
        // Nor does a new version become another one.
        let text = refused(&catalog, &add(&tensors("o", "2", "INT64")));
        assert!(text.contains("'a'") && text.contains("x INT64 [-1,2]"), "{text}");
        let same = add(&tensors("o", "2", "FP32"));
        assert_eq!(catalog.decide(&same).unwrap().len(), 2);
    }

    #[test]
    fn the_only_model_of_an_application_may_change() {
        let add = |version, datatype| Command::AddModel(tensors("m", version, datatype));
        let link = Command::AddModelLinks { app: app_name("a"), models: vec![model_name("m")] };
        let app = Command::AddApp(app("a", InputType::Tensors));
        let (_, catalog) = changes(&[app, add("1", "FP32"), link, add("2", "FP64")]);
        let current = catalog.current_version("m").map(ModelVersion::as_str);
        assert_eq!(current, Some("2"));
    }
}
