//! Policies, and links to one model or several.

use std::collections::BTreeSet;

use super::{Catalog, Effect};
use crate::store::event::Event;
use clipper_domain::{AppName, AppSpec, CommandError, DEFAULT_POLICY, ModelName, PolicySpec};
use clipper_selection::bound::BoundPolicy;
use clipper_selection::parameters::MODELS_MAX;

impl Catalog {
    #[must_use]
    pub fn is_linked(&self, app: &AppName, model: &ModelName) -> bool {
        self.links.has(app, model)
    }

    pub(super) fn decide_link(
        &self,
        app: &AppName,
        models: &[ModelName],
        may_be_absent: bool,
    ) -> Result<Vec<Event>, CommandError> {
        let Some(spec) = self.apps.get(app) else {
            return Err(CommandError::LinkUnknownApp(app.clone()));
        };
        for model in models {
            // What becomes its current version later is checked then.
            if !may_be_absent || self.current.contains_key(model) {
                self.check_linkable(spec, model)?;
            }
        }
        self.check_alike(app, self.linked_models(app.as_str()).chain(models), None)?;
        if !spec.has_default_policy() {
            return self.decide_links(app, models);
        }
        let model = match models {
            [model] => model,
            [] => return Err(CommandError::LinkNone(app.clone())),
            more => return Err(CommandError::LinkCount(more.len())),
        };
        match self.linked_models(app.as_str()).next() {
            Some(linked) if linked == model => {
                Err(CommandError::AlreadyLinked { app: app.clone(), model: model.clone() })
            }
            Some(linked) => {
                Err(CommandError::LinkedElsewhere { app: app.clone(), linked: linked.clone() })
            }
            None => Ok(vec![Event::ModelLinked { app: app.clone(), model: model.clone() }]),
        }
    }

    fn check_linkable(&self, app: &AppSpec, model: &ModelName) -> Result<(), CommandError> {
        let current = self.current.get(model).map(|v| self.model(model.as_str(), v.as_str()));
        let Some(Some(current)) = current else {
            return Err(CommandError::LinkUnknownModel(model.clone()));
        };
        if current.input_type != app.input_type {
            return Err(CommandError::LinkIncompatible {
                model: model.clone(),
                model_type: current.input_type,
                app_type: app.input_type,
            });
        }
        Ok(())
    }

    /// A parameter may name models that are not linked: links come after the policy that allows
    /// several.
    pub(super) fn decide_policy(
        &self,
        app: &AppName,
        policy: &PolicySpec,
    ) -> Result<Vec<Event>, CommandError> {
        let Some(spec) = self.apps.get(app) else {
            return Err(CommandError::AppUnknown(app.clone()));
        };
        Self::check_policy(app, policy)?;
        let links = self.links.count_of_app(app);
        if policy.name == DEFAULT_POLICY && links > 1 {
            return Err(CommandError::PolicyOfOneModel { app: app.clone(), links });
        }
        if spec.policy_spec() == *policy {
            return Ok(Vec::new());
        }
        Ok(vec![Event::PolicySet { app: app.clone(), policy: policy.clone() }])
    }

    pub(super) fn check_policy(app: &AppName, policy: &PolicySpec) -> Result<(), CommandError> {
        BoundPolicy::check(policy).map_err(|error| CommandError::Policy {
            app: app.clone(),
            field: error.field,
            problem: error.problem.to_string(),
        })
    }

    /// Under a policy that chooses. All or nothing; that each can be linked has been checked.
    fn decide_links(
        &self,
        app: &AppName,
        models: &[ModelName],
    ) -> Result<Vec<Event>, CommandError> {
        if models.is_empty() {
            return Err(CommandError::LinkNone(app.clone()));
        }
        if let Some(model) = models.iter().find(|model| self.is_linked(app, model)) {
            return Err(CommandError::AlreadyLinked { app: app.clone(), model: model.clone() });
        }
        let new: BTreeSet<&ModelName> = models.iter().collect();
        let count = self.links.count_of_app(app) + new.len();
        if count > MODELS_MAX {
            return Err(CommandError::LinkTooMany { app: app.clone(), count, max: MODELS_MAX });
        }
        let link =
            |model: &ModelName| Event::ModelLinked { app: app.clone(), model: model.clone() };
        Ok(new.into_iter().map(link).collect())
    }

    pub(super) fn apply_policy(&mut self, app: &AppName, policy: &PolicySpec) -> Vec<Effect> {
        let Some(spec) = self.apps.get_mut(app) else { return Vec::new() };
        spec.policy.clone_from(&policy.name);
        spec.policy_parameters.clone_from(&policy.parameters);
        vec![Effect::ServeApp(spec.clone())]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::samples::{
        add_app, add_model, app_name, changes, model, model_name, set_policy,
    };
    use clipper_domain::{Command, InputType};

    fn link(models: &[&str]) -> Command {
        let models = models.iter().map(|name| model_name(name)).collect();
        Command::AddModelLinks { app: app_name("a"), models }
    }

    fn catalog() -> Catalog {
        let strings = Command::AddModel(model("s", "1", InputType::Strings));
        changes(&[
            add_app("a"),
            add_model("m", "1"),
            add_model("n", "1"),
            add_model("o", "1"),
            strings,
        ])
        .1
    }

    fn after(catalog: &Catalog, command: &Command) -> Catalog {
        let mut catalog = catalog.clone();
        for event in catalog.decide(command).unwrap() {
            catalog.apply(&event);
        }
        catalog
    }

    fn refusal(catalog: &Catalog, command: &Command) -> String {
        catalog.decide(command).unwrap_err().to_string()
    }

    #[test]
    fn under_a_policy_that_chooses_several_models_are_linked_all_or_none() {
        let one = catalog();
        let text = refusal(&one, &link(&["m", "n"]));
        assert!(text.starts_with("Applications must be linked with at most one model."), "{text}");
        let chooses = after(&one, &set_policy("a", "exp3", json!({"explore": 0.1})));
        let spec = chooses.app("a").unwrap().policy_spec();
        assert_eq!((spec.name.as_str(), &spec.parameters["explore"]), ("exp3", &json!(0.1)));
        assert!(refusal(&chooses, &link(&["m", "s"])).contains("incompatible input_type"));
        assert!(refusal(&chooses, &link(&["m", "x"])).contains("No model with name 'x'"));
        let linked = after(&chooses, &link(&["m", "n"]));
        assert_eq!(linked.linked_models("a").count(), 2);
        assert!(refusal(&linked, &link(&["o", "n"])).contains("already linked"));
        let three = after(&linked, &link(&["o"]));
        assert_eq!(three.linked_models("a").count(), 3);
        let text = refusal(&three, &set_policy("a", DEFAULT_POLICY, json!({})));
        assert!(text.contains("linked to 3"), "{text}");
    }

    #[test]
    fn a_wrong_policy_is_refused_by_its_field_and_changes_nothing() {
        let catalog = catalog();
        let text = refusal(&catalog, &set_policy("a", "exp3", json!({"explore": 2})));
        assert!(text.contains("explore: it must be a number from 0 to 1, not 2"), "{text}");
        assert!(
            refusal(&catalog, &set_policy("a", "best", json!({}))).contains("policy: there is")
        );
        let text = refusal(&catalog, &set_policy("b", "exp3", json!({})));
        assert_eq!(text, "Application 'b' does not exist");
        // What is so already changes nothing.
        assert_eq!(catalog.decide(&set_policy("a", DEFAULT_POLICY, json!({}))), Ok(vec![]));
    }
}
