//! Old bytes stay readable, and no bytes are read as something else.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::store::event::{Author, Event, Origin};
use crate::store::projection::Catalog;
use crate::store::replay::Snapshot;
use crate::store::samples::{
    access_key, add_app, add_model, app, app_name, changes, model, model_id, model_name, replicas,
    rollout, set_policy, update,
};
use clipper_domain::access::PreviousSecret;
use clipper_domain::limits::Class;
use clipper_domain::rollout::{Evidence, Rollout, RolloutEnd};
use clipper_domain::{
    Asker, Command, InputType, KeyName, Limits, ModelSpec, Note, Pattern, Role, SecretHash,
};

/// One record of each kind of event, as they were when version 1 was the newest.
fn version_1() -> Vec<(&'static str, usize, Envelope)> {
    let mut records = of_models();
    for (name, event) in key_events() {
        let key = KeyName::parse("root").ok();
        let author = Author { origin: Origin::Admin, asker: Asker { key, ..Asker::default() } };
        let seq = records.len() as u64 + 1;
        records.push((name, 0, Envelope { seq, recorded_at_ms: 0, author, event }));
    }
    records
}

fn of_models() -> Vec<(&'static str, usize, Envelope)> {
    let (name, model) = (app_name("digits"), model_name("digits-model"));
    let commands = [
        Command::AddApp(app("digits", InputType::Doubles)),
        add_model("digits-model", "1"),
        Command::AddModelLinks { app: name.clone(), models: vec![model.clone()] },
        Command::DeleteModelLinks { app: name.clone(), models: vec![model] },
        Command::DeleteVersionedModel(model_id("digits-model", "1")),
        Command::DeleteApp(name),
    ];
    let mut records = Vec::new();
    for change in changes(&commands).0 {
        let count = change.len();
        for (at, mut envelope) in change.into_iter().enumerate() {
            let name = match envelope.event {
                Event::AppAdded { .. } => "app_added",
                Event::AppChanged { .. } => "app_changed",
                Event::AppDeleted { .. } => "app_deleted",
                Event::PolicySet { .. } => "policy_set",
                Event::RolloutStarted { .. } => "rollout_started",
                Event::RolloutStepped { .. } => "rollout_stepped",
                Event::RolloutEnded { .. } => "rollout_ended",
                Event::ModelAdded { .. } => "model_added",
                Event::ModelVersionSet { .. } => "model_version_set",
                Event::ModelVersionUnset { .. } => "model_version_unset",
                Event::ModelVersionRetired { .. } => "model_version_retired",
                Event::ModelLinked { .. } => "model_linked",
                Event::ModelUnlinked { .. } => "model_unlinked",
                Event::ReplicasPlanned { .. } => "replicas_planned",
                Event::ReplicasReleased { .. } => "replicas_released",
                other => panic!("{other:?}"),
            };
            let origins = [Origin::Admin, Origin::Bootstrap, Origin::Redis];
            envelope.author.origin = origins[records.len() % origins.len()];
            records.push((name, count - 1 - at, envelope));
        }
    }
    // No command causes it; it comes from Redis only.
    let event = Event::ModelVersionUnset { model: model_name("digits-model") };
    let unset = Envelope {
        seq: records.len() as u64 + 1,
        recorded_at_ms: 0,
        author: Origin::Redis.into(),
        event,
    };
    records.push(("model_version_unset", 0, unset));
    let id = model_id("digits-model", "1");
    let event = Event::ReplicasPlanned { id, replicas: replicas() };
    let seq = records.len() as u64 + 1;
    let author = Origin::Admin.into();
    let planned = Envelope { seq, recorded_at_ms: 0, author, event };
    records.push(("replicas_planned", 0, planned));
    // Kinds that version 1 has got since.
    let changed = update("digits", 7).applied_to(&app("digits", InputType::Doubles));
    let id = model_id("digits-model", "1");
    for (name, event) in [
        ("app_changed", Event::AppChanged { app: changed }),
        ("replicas_released", Event::ReplicasReleased { id }),
        ("policy_set", policy_set()),
        (
            "rollout_started",
            Event::RolloutStarted { app: app_name("digits"), rollout: rollout_at(0) },
        ),
        (
            "rollout_stepped",
            Event::RolloutStepped { app: app_name("digits"), rollout: rollout_at(1) },
        ),
        ("rollout_ended", Event::RolloutEnded { app: app_name("digits"), rollout: rolled_back() }),
    ] {
        let (seq, author) = (records.len() as u64 + 1, Origin::Admin.into());
        records.push((name, 0, Envelope { seq, recorded_at_ms: 0, author, event }));
    }
    records
}

fn key_events() -> [(&'static str, Event); 3] {
    let mut key = access_key("team-a", Role::Predict, 1);
    key.only = Pattern::parse("team-a-*").unwrap();
    key.expires_at_ms = Some(1_800_000_000_000);
    let mut rotated = key.clone();
    rotated.previous = Some(PreviousSecret { hash: key.hash, until_ms: 1_700_000_000_000 });
    rotated.hash = SecretHash([2; 32]);
    let name = key.name.clone();
    [
        ("key_added", Event::KeyAdded { key: Box::new(key) }),
        ("key_rotated", Event::KeyRotated { key: Box::new(rotated) }),
        ("key_revoked", Event::KeyRevoked { name }),
    ]
}

fn key_limited() -> Event {
    let mut key = access_key("team-a", Role::Predict, 2);
    let numbers = [Some(100), Some(200), Some(20), Some(1 << 20)];
    key.limits = Limits::of(numbers, Some(Class::Low)).unwrap();
    Event::KeyLimited { key: Box::new(key) }
}

fn rollout_at(step: u32) -> Box<Rollout> {
    Box::new(Rollout { step, ..rollout(7, "digits-model:1", "digits-model:2") })
}

fn rolled_back() -> Box<Rollout> {
    let evidence = Evidence {
        guard: rollout_at(1).plan.guards[0],
        seen: 640,
        value_millionths: 31_250,
        bound_millionths: 10_000,
        exposed: 652,
    };
    let end = Some(RolloutEnd::RolledBack { evidence });
    Box::new(Rollout { end, ..*rollout_at(1) })
}

fn policy_set() -> Event {
    let parameters = serde_json::json!({"explore": 0.05, "window": 4_000});
    let Command::SetPolicy { app, policy } = set_policy("digits", "exp3", parameters) else {
        panic!("another command")
    };
    Event::PolicySet { app, policy }
}

fn snapshot_1() -> Snapshot {
    let (all, catalog) = changes(&[
        add_app("digits"),
        add_model("digits-model", "1"),
        add_model("digits-model", "2"),
        Command::AddModelLinks {
            app: app_name("digits"),
            models: vec![model_name("digits-model")],
        },
    ]);
    Snapshot { seq: all.concat().len() as u64, catalog }
}

/// The same of version 2, which knows more of who asked, and the kinds that it has got since.
fn version_2() -> Vec<(&'static str, usize, Envelope)> {
    let mut records = version_1();
    // Kinds that are not as old.
    let (seq, author) = (records.len() as u64 + 1, Origin::Admin.into());
    let limited = Envelope { seq, recorded_at_ms: 0, author, event: key_limited() };
    records.push(("key_limited", 0, limited));
    let changed = ModelSpec { cache: false, ..model("digits-model", "1", InputType::Doubles) };
    let (seq, author) = (records.len() as u64 + 1, Origin::Admin.into());
    let event = Event::ModelChanged { model: changed };
    records.push(("model_changed", 0, Envelope { seq, recorded_at_ms: 0, author, event }));
    for (_, _, envelope) in &mut records {
        let asker = &mut envelope.author.asker;
        asker.user = Note::new("alice");
        asker.from = Note::new("10.0.0.7");
        asker.request_id = Note::new("0123456789abcdef");
        asker.why = Note::new("too slow at night: \u{e4}");
        asker.via = Note::new("host (127.0.0.1:1338)");
    }
    records
}

fn fixture(version: u8, name: &str) -> PathBuf {
    let folder = format!("tests/fixtures/journal/v{version}/{name}.bin");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder)
}

#[test]
fn bytes_of_every_version_are_read() {
    let all = version_1().into_iter().map(|record| (1, record));
    for (version, (name, following, envelope)) in
        all.chain(version_2().into_iter().map(|record| (2, record)))
    {
        let bytes = std::fs::read(fixture(version, name)).unwrap();
        assert_eq!(bytes[0], version, "{name}: fixtures are never written again");
        let record: Record<Envelope> = decode(&bytes).unwrap();
        assert_eq!(
            (usize::from(record.following), &record.value),
            (following, &envelope),
            "{name} of version {version}"
        );
    }
    for version in 1..=VERSION {
        let bytes = std::fs::read(fixture(version, "snapshot")).unwrap();
        assert_eq!(decode::<Snapshot>(&bytes).unwrap().value, snapshot_1());
    }
}

#[test]
fn who_and_why_of_records_of_version_1_are_unknown() {
    let bytes = std::fs::read(fixture(1, "app_deleted")).unwrap();
    let envelope = decode::<Envelope>(&bytes).unwrap().value;
    assert_eq!(
        (envelope.author.asker.clone(), envelope.author.who()),
        (Asker::default(), "unknown".to_owned())
    );
    let bytes = std::fs::read(fixture(1, "key_added")).unwrap();
    let asker = decode::<Envelope>(&bytes).unwrap().value.author.asker;
    assert_eq!((asker.who().unwrap().as_str(), asker.why), ("key 'root'", None));
}

#[test]
#[ignore = "writes the fixtures of the current version; for a new version only"]
fn write_fixtures() {
    for (name, following, envelope) in version_2() {
        let path = fixture(VERSION, name);
        if !path.exists() {
            std::fs::write(path, encode(following, &envelope).unwrap()).unwrap();
        }
    }
    let path = fixture(VERSION, "snapshot");
    if !path.exists() {
        std::fs::write(path, encode(0, &snapshot_1()).unwrap()).unwrap();
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed() {
    let (_, following, envelope) = version_1().remove(0);
    let bytes = encode(following, &envelope).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = decode::<Envelope>(&damaged).unwrap_err();
        let damaged = matches!(error, RecordError::Length { .. } | RecordError::Checksum { .. });
        assert!(damaged, "bit {bit}: {error}");
    }
    for length in 0..bytes.len() {
        let error = decode::<Envelope>(&bytes[..length]).unwrap_err();
        assert!(matches!(error, RecordError::Short(_) | RecordError::Length { .. }));
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(decode::<Envelope>(&longer), Err(RecordError::Length { .. })));
}

#[test]
fn a_change_of_too_many_events_is_refused() {
    assert_eq!(encode(1 << 16, &Catalog::default()), Err(RecordError::TooLarge));
}

proptest! {
    #[test]
    fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode::<Envelope>(&bytes).is_err());
    }
}
