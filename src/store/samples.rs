//! Commands and events for tests.

use proptest::prelude::*;

use super::event::{Envelope, Origin};
use super::journal::Change;
use super::projection::Catalog;
use clipper_domain::access::KnownBy;
use clipper_domain::rollout::plan::{RolloutKind, RolloutPlan};
use clipper_domain::rollout::{Rollout, RolloutEnd};
use clipper_domain::{
    AccessKey, AppName, AppSpec, AppUpdate, BatchSize, Command, DEFAULT_POLICY, Deployment,
    InputType, KeyName, LatencySlo, Limits, ModelId, ModelName, ModelSpec, ModelUpdate,
    ModelVersion, OldReplicas, OnModelError, OnnxEngine, Pattern, PolicyParameters, PolicySpec,
    Replicas, Role, Runtime, SecretHash, Weight,
};

pub(crate) fn app_name(name: &str) -> AppName {
    AppName::parse(name).unwrap()
}

pub(crate) fn model_name(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

/// A model version's id.
pub(crate) fn model_id(name: &str, version: &str) -> ModelId {
    ModelId::new(model_name(name), ModelVersion::parse(version).unwrap())
}

pub(crate) fn app(name: &str, input_type: InputType) -> AppSpec {
    AppSpec {
        name: app_name(name),
        input_type,
        policy: DEFAULT_POLICY.to_owned(),
        policy_parameters: PolicyParameters::new(),
        default_output: "-1".to_owned(),
        latency_slo: LatencySlo::from_micros(100_000).unwrap(),
        on_model_error: OnModelError::Default,
        cache: true,
        weight: Weight::default(),
        limits: Limits::default(),
        rollout: None,
    }
}

/// A model version's definition.
pub(crate) fn model(name: &str, version: &str, input_type: InputType) -> ModelSpec {
    ModelSpec {
        id: model_id(name, version),
        input_type,
        labels: Vec::new(),
        container_name: "noop:1".to_owned(),
        model_data_path: "/models/x".to_owned(),
        batch_size: BatchSize::Adaptive,
        cache: true,
        signature: None,
    }
}

/// A key whose secret has a hash of these bytes.
pub(crate) fn access_key(name: &str, role: Role, hash: u8) -> AccessKey {
    AccessKey {
        name: KeyName::parse(name).unwrap(),
        role,
        only: Pattern::default(),
        expires_at_ms: None,
        known_by: KnownBy::Secret,
        hash: SecretHash([hash; 32]),
        previous: None,
        limits: Limits::default(),
    }
}

/// `AddApp` of doubles.
pub(crate) fn add_app(name: &str) -> Command {
    Command::AddApp(app(name, InputType::Doubles))
}

/// `AddModel` of doubles: two events.
pub(crate) fn add_model(name: &str, version: &str) -> Command {
    Command::AddModel(model(name, version, InputType::Doubles))
}

/// Two ONNX replicas of anything.
pub(crate) fn replicas() -> Replicas {
    Replicas {
        runtime: Runtime::Onnx {
            path: "/models/x.onnx".to_owned(),
            engine: OnnxEngine::Auto,
            library: None,
            threads: None,
        },
        count: 2,
    }
}

/// `Deploy`; with what it takes to register the application, if `new`.
pub(crate) fn deploy(
    name: &str,
    version: &str,
    app_of: &str,
    input_type: InputType,
    new: bool,
) -> Command {
    Command::Deploy(Box::new(Deployment {
        model: model(name, version, input_type),
        replicas: replicas(),
        app: app_name(app_of),
        new_app: new.then(|| app(app_of, input_type)),
        app_update: None,
        make_current: true,
        old_replicas: OldReplicas::Previous,
    }))
}

/// An application's objective and use of the cache become others.
pub(crate) fn update(name: &str, slo_micros: i64) -> AppUpdate {
    AppUpdate {
        latency_slo: LatencySlo::from_micros(slo_micros),
        cache: Some(slo_micros % 2 == 0),
        ..AppUpdate::of(app_name(name))
    }
}

/// A version's size of batches and use of the cache become others.
pub(crate) fn update_model(name: &str, version: &str, size: i64) -> ModelUpdate {
    ModelUpdate {
        batch_size: BatchSize::from_number(size),
        cache: Some(size % 2 == 0),
        ..ModelUpdate::of(model_id(name, version))
    }
}

/// `SetPolicy`; `parameters` is an object.
pub(crate) fn set_policy(app: &str, name: &str, parameters: serde_json::Value) -> Command {
    let serde_json::Value::Object(parameters) = parameters else { panic!("{parameters}") };
    Command::SetPolicy {
        app: app_name(app),
        policy: PolicySpec { name: name.to_owned(), parameters },
    }
}

/// A rollout in two steps.
pub(crate) fn rollout(id: u64, from: &str, to: &str) -> Rollout {
    let percent = |percent: f64| percent.try_into().unwrap();
    let guard = |guard: &str| guard.to_owned().try_into().unwrap();
    Rollout::new(
        id,
        RolloutPlan {
            kind: RolloutKind::Canary,
            from: ModelId::parse(from).unwrap(),
            to: ModelId::parse(to).unwrap(),
            steps: vec![percent(1.0), percent(100.0)],
            hold_ms: 60_000,
            guards: vec![guard("errors<1%"), guard("p99<slo")],
            min_queries: 100,
        },
    )
}

/// The changes that `commands` make, refused ones left out, numbered from 1; and the final state.
pub(crate) fn changes(commands: &[Command]) -> (Vec<Change>, Catalog) {
    let mut catalog = Catalog::default();
    let mut changes = Vec::new();
    let mut seq = 0;
    for command in commands {
        let Ok(events) = catalog.decide(command) else { continue };
        let envelope = |event| {
            catalog.apply(&event);
            seq += 1;
            Envelope {
                seq,
                recorded_at_ms: 1_700_000_000_000 + seq,
                author: Origin::Admin.into(),
                event,
            }
        };
        let change: Change = events.into_iter().map(envelope).collect();
        if !change.is_empty() {
            changes.push(change);
        }
    }
    (changes, catalog)
}

/// Any command over few names, so that commands meet each other's results.
pub(crate) fn any_command() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let version = prop::sample::select(vec!["1", "2", "3"]);
    let input_type = prop::sample::select(vec![InputType::Doubles, InputType::Strings]);
    let models = prop::collection::vec(name.clone().prop_map(model_name), 0..3);
    prop_oneof![
        (name.clone(), input_type.clone()).prop_map(|(n, t)| Command::AddApp(app(n, t))),
        (name.clone(), 1..4_i64).prop_map(|(n, slo)| Command::UpdateApp(update(n, slo))),
        name.clone().prop_map(|n| Command::DeleteApp(app_name(n))),
        (name.clone(), version.clone(), input_type.clone())
            .prop_map(|(n, v, t)| Command::StageModel(model(n, v, t))),
        (name.clone(), version.clone())
            .prop_map(|(n, v)| Command::DeleteUnqueriedModel(model_id(n, v))),
        (name.clone(), version.clone(), input_type.clone())
            .prop_map(|(n, v, t)| Command::AddModel(model(n, v, t))),
        (name.clone(), version.clone()).prop_map(|(n, v)| Command::SetModelVersion(model_id(n, v))),
        (name.clone(), version.clone())
            .prop_map(|(n, v)| Command::DeleteVersionedModel(model_id(n, v))),
        (name.clone(), version.clone(), 1..3_u32)
            .prop_map(|(n, v, count)| Command::SetReplicas { id: model_id(n, v), count }),
        (name.clone(), version.clone(), name.clone(), input_type.clone(), any::<bool>())
            .prop_map(|(n, v, a, t, new)| deploy(n, v, a, t, new)),
        (name.clone(), prop::sample::select(vec![DEFAULT_POLICY, "exp3", "majority"]))
            .prop_map(|(n, policy)| set_policy(n, policy, serde_json::json!({}))),
        (name.clone(), name.clone(), version.clone(), version.clone()).prop_map(
            |(app, model, from, to)| Command::StartRollout {
                app: app_name(app),
                rollout: Box::new(rollout(1, &format!("{model}:{from}"), &format!("{model}:{to}"))),
            }
        ),
        (name.clone(), 0..3_u32).prop_map(|(n, step)| Command::StepRollout {
            app: app_name(n),
            id: 1,
            step
        }),
        (name.clone(), any::<bool>()).prop_map(|(n, good)| Command::EndRollout {
            app: app_name(n),
            id: None,
            end: if good {
                RolloutEnd::Promoted
            } else {
                RolloutEnd::Aborted { reason: "no".to_owned() }
            },
        }),
        (name.clone(), version.clone(), -1..3_i64)
            .prop_map(|(n, v, size)| Command::UpdateModel(update_model(n, v, size))),
        name.clone().prop_map(|n| Command::UnsetModelVersion(model_name(n))),
        (name.clone(), version.clone(), 1..3_u32).prop_map(|(n, v, count)| {
            let replicas = Replicas { count, ..replicas() };
            Command::KeepReplicas { id: model_id(n, v), replicas }
        }),
        (name.clone(), version).prop_map(|(n, v)| Command::ReleaseReplicas(model_id(n, v))),
        (name.clone(), models.clone())
            .prop_map(|(n, models)| Command::LinkAbsentModels { app: app_name(n), models }),
        (name.clone(), models.clone())
            .prop_map(|(n, models)| Command::AddModelLinks { app: app_name(n), models }),
        (name, models)
            .prop_map(|(n, models)| Command::DeleteModelLinks { app: app_name(n), models }),
    ]
}
