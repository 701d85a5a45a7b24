//! Rollouts: when one may start, move and end.

use super::signatures::difference;
use super::{Catalog, Effect};
use crate::store::event::Event;
use clipper_domain::rollout::{Rollout, RolloutEnd, RolloutRefusal, check_guards};
use clipper_domain::{AppName, AppSpec, CommandError};

impl Catalog {
    pub(super) fn decide_rollout_start(
        &self,
        app: &AppName,
        rollout: &Rollout,
    ) -> Result<Vec<Event>, CommandError> {
        let Some(spec) = self.apps.get(app) else {
            return Err(CommandError::AppUnknown(app.clone()));
        };
        self.check_rollout(spec, rollout).map_err(|why| refused(app, why))?;
        let rollout = Box::new(Rollout::new(rollout.id, rollout.plan.clone()));
        Ok(vec![Event::RolloutStarted { app: app.clone(), rollout }])
    }

    fn check_rollout(&self, spec: &AppSpec, rollout: &Rollout) -> Result<(), RolloutRefusal> {
        if let Some(running) = spec.running_rollout() {
            let (from, to) = (running.plan.from.clone(), running.plan.to.clone());
            return Err(RolloutRefusal::Running { from, to });
        }
        let plan = &rollout.plan;
        plan.check()?;
        if !self.is_linked(&spec.name, &plan.from.name) {
            return Err(RolloutRefusal::NotLinked(plan.from.name.clone()));
        }
        let current = self.current.get(&plan.from.name);
        if current != Some(&plan.from.version) {
            let current = current.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(RolloutRefusal::FromIsNotCurrent(current));
        }
        let Some(new) = self.model_by_id(&plan.to) else {
            return Err(RolloutRefusal::NoSuchVersion(plan.to.clone()));
        };
        if new.input_type != spec.input_type {
            return Err(RolloutRefusal::InputType {
                to: plan.to.clone(),
                found: new.input_type.long_name(),
                wanted: spec.input_type.long_name(),
            });
        }
        let old = self.model_by_id(&plan.from).and_then(|old| old.signature.as_ref());
        if let (Some(old), Some(signature)) = (old, &new.signature)
            && let Some(difference) = difference(old, signature)
        {
            return Err(RolloutRefusal::Signature { to: plan.to.clone(), difference });
        }
        check_guards(plan, spec.latency_slo.as_micros(), !spec.has_default_policy())
    }

    /// A step is taken once: only from the one before it.
    pub(super) fn decide_rollout_step(
        &self,
        app: &AppName,
        id: u64,
        step: u32,
    ) -> Result<Vec<Event>, CommandError> {
        let running = self.running(app, Some(id))?;
        let is_next = step > 0 && running.step == step - 1 && !running.is_last_step();
        if !is_next {
            return Err(refused(app, RolloutRefusal::Moved(running.step + 1)));
        }
        let rollout = Box::new(Rollout { step, ..running.clone() });
        Ok(vec![Event::RolloutStepped { app: app.clone(), rollout }])
    }

    pub(super) fn decide_rollout_end(
        &self,
        app: &AppName,
        id: Option<u64>,
        end: &RolloutEnd,
    ) -> Result<Vec<Event>, CommandError> {
        let running = self.running(app, id)?;
        let rollout = Box::new(Rollout { end: Some(end.clone()), ..running.clone() });
        let mut events = Vec::new();
        if *end == RolloutEnd::Promoted {
            let new = &running.plan.to;
            if self.model_by_id(new).is_none() {
                return Err(refused(app, RolloutRefusal::NoSuchVersion(new.clone())));
            }
            // First: nobody is between the versions when the rollout is over.
            events = self.decide_set_version(new)?;
        }
        events.push(Event::RolloutEnded { app: app.clone(), rollout });
        Ok(events)
    }

    fn running(&self, app: &AppName, id: Option<u64>) -> Result<&Rollout, CommandError> {
        let Some(spec) = self.apps.get(app) else {
            return Err(CommandError::AppUnknown(app.clone()));
        };
        let running = spec.running_rollout().filter(|running| id.is_none_or(|id| id == running.id));
        running.ok_or_else(|| refused(app, RolloutRefusal::NotRunning))
    }

    pub(super) fn apply_rollout(&mut self, app: &AppName, rollout: &Rollout) -> Vec<Effect> {
        let Some(spec) = self.apps.get_mut(app) else { return Vec::new() };
        spec.rollout = Some(Box::new(rollout.clone()));
        vec![Effect::ServeApp(spec.clone())]
    }
}

fn refused(app: &AppName, why: RolloutRefusal) -> CommandError {
    CommandError::Rollout { app: app.clone(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{
        add_app, add_model, app_name, changes, model, model_id, model_name, rollout,
    };
    use clipper_domain::{Command, InputType};

    fn catalog() -> Catalog {
        let models = vec![model_name("m")];
        changes(&[
            add_app("a"),
            add_model("m", "1"),
            Command::StageModel(model("m", "2", InputType::Doubles)),
            Command::AddModelLinks { app: app_name("a"), models },
            add_model("n", "1"),
            Command::StageModel(model("n", "2", InputType::Doubles)),
        ])
        .1
    }

    fn start(to: &str) -> Command {
        let rollout = Box::new(rollout(7, "m:1", to));
        Command::StartRollout { app: app_name("a"), rollout }
    }

    fn step(id: u64, step: u32) -> Command {
        Command::StepRollout { app: app_name("a"), id, step }
    }

    fn end(end: RolloutEnd) -> Command {
        Command::EndRollout { app: app_name("a"), id: None, end }
    }

    fn apply(catalog: &mut Catalog, command: &Command) -> Vec<Event> {
        let events = catalog.decide(command).unwrap();
        for event in &events {
            catalog.apply(event);
        }
        events
    }

    fn refusal(catalog: &Catalog, command: &Command) -> String {
        catalog.decide(command).unwrap_err().to_string()
    }

    #[test]
    fn a_step_is_taken_once_and_only_from_the_one_before() {
        let mut catalog = catalog();
        apply(&mut catalog, &start("m:2"));
        let text = refusal(&catalog, &start("m:2"));
        assert!(text.contains("A rollout from m:1 to m:2 is running"), "{text}");
        assert!(refusal(&catalog, &step(7, 2)).contains("it is at step 1"));
        apply(&mut catalog, &step(7, 1));
        assert!(refusal(&catalog, &step(7, 1)).contains("it is at step 2"));
        assert!(refusal(&catalog, &step(8, 2)).contains("No rollout is running"));
        // The plan has two steps.
        assert!(refusal(&catalog, &step(7, 2)).contains("it is at step 2"));
    }

    #[test]
    fn a_promotion_makes_the_new_version_current_at_once() {
        let mut catalog = catalog();
        apply(&mut catalog, &start("m:2"));
        let events = apply(&mut catalog, &end(RolloutEnd::Promoted));
        assert_eq!(events.len(), 2);
        assert_eq!(events[0], Event::ModelVersionSet { id: model_id("m", "2") });
        let rollout = catalog.app("a").unwrap().rollout.as_deref().unwrap();
        assert!(!rollout.is_running() && rollout.end == Some(RolloutEnd::Promoted));
        assert!(refusal(&catalog, &end(RolloutEnd::Promoted)).contains("No rollout is running"));
        assert_eq!(catalog.current_version("m"), Some(&model_id("m", "2").version));
    }

    #[test]
    fn what_cannot_be_rolled_out_is_refused_by_its_field() {
        let catalog = catalog();
        let strings = Event::ModelAdded { model: model("m", "3", InputType::Strings) };
        let mut with_strings = catalog.clone();
        with_strings.apply(&strings);
        let of = |from, to| Command::StartRollout {
            app: app_name("a"),
            rollout: Box::new(rollout(1, from, to)),
        };
        let cases = [
            (of("m:1", "m:9"), "to: model m:9 is not registered"),
            (of("m:2", "m:1"), "from: the current version of the model is 1"),
            (of("n:1", "n:2"), "from: the application is not linked to model n"),
            (of("m:1", "m:1"), "to: it is the same version as from"),
            (of("m:1", "m:3"), "to: model m:3 takes strings"),
        ];
        for (command, expected) in cases {
            let text = refusal(&with_strings, &command);
            assert!(text.starts_with("Application 'a': ") && text.contains(expected), "{text}");
        }
        let nobody = Command::StartRollout {
            app: app_name("x"),
            rollout: Box::new(rollout(1, "m:1", "m:2")),
        };
        assert_eq!(refusal(&catalog, &nobody), "Application 'x' does not exist");
        // Feedback of the default policy judges nothing.
        let mut loss = rollout(1, "m:1", "m:2");
        loss.plan.guards = vec!["loss<=baseline".to_owned().try_into().unwrap()];
        let command = Command::StartRollout { app: app_name("a"), rollout: Box::new(loss) };
        assert!(refusal(&catalog, &command).contains("guards: loss<=baseline needs feedback"));
    }
}
