//! Whatever the tables hold and whatever the catalog was, the events lead to one state.

use proptest::prelude::*;

use super::*;
use crate::store::redis::tables::{Table, app_fields, model_fields};
use crate::store::redis::writes::{Entries, of_catalog, related, writes};
use crate::store::samples::{access_key, add_app, add_model, app_name, model_name};
use clipper_domain::{Command, Limits, Role};

fn apply(entries: &mut Entries, writes: &[crate::store::redis::writes::Write]) {
    for write in writes {
        let text = |n: usize| write.args[n].clone();
        match write.command {
            "DEL" => {
                entries.remove(&write.key);
            }
            "SET" => {
                entries.insert(write.key.clone(), Raw::Text(text(0)));
            }
            "HMSET" => {
                let fields = write.args.chunks(2).map(|p| (p[0].clone(), p[1].clone())).collect();
                entries.insert(write.key.clone(), Raw::Hash(fields));
            }
            "HDEL" => {
                if let Some(Raw::Hash(fields)) = entries.get_mut(&write.key) {
                    fields.remove(&text(0));
                }
            }
            "SADD" => match entries.entry(write.key.clone()).or_insert(Raw::Set(BTreeSet::new())) {
                Raw::Set(members) => {
                    members.insert(text(0));
                }
                other => panic!("{other:?}"),
            },
            "SREM" => {
                if let Some(Raw::Set(members)) = entries.get_mut(&write.key) {
                    members.remove(&text(0));
                    if members.is_empty() {
                        entries.remove(&write.key);
                    }
                }
            }
            other => panic!("{other}"),
        }
    }
}

fn catch_up(catalog: &mut Catalog, entries: &Entries) -> Vec<Event> {
    let mut observed = Observed::of(entries);
    observed.complete(catalog);
    let events = diff(&observed, catalog);
    for event in &events {
        catalog.apply(event);
    }
    events
}

/// A change of the tables by somebody who knows no rules.
#[derive(Debug, Clone)]
enum Poke {
    App(u8, u8),
    Model(u8, u8, u8),
    Current(u8, u8),
    Links(u8, u8),
    Field(u8, &'static str, &'static str),
    Mark(u8, u8),
    Del(u8, u8),
    WrongType(u8),
}

fn pokes() -> impl Strategy<Value = Vec<Poke>> {
    let values = prop_oneof![Just("x"), Just("-5"), Just("doubles"), Just("7")];
    let fields = prop_oneof![Just("latency_slo_micros"), Just("input_type"), Just("junk")];
    let poke = prop_oneof![
        (0..3u8, 0..3u8).prop_map(|(a, d)| Poke::App(a, d)),
        (0..3u8, 0..3u8, 0..2u8).prop_map(|(m, v, l)| Poke::Model(m, v, l)),
        (0..3u8, 0..4u8).prop_map(|(m, v)| Poke::Current(m, v)),
        (0..3u8, 0..8u8).prop_map(|(a, m)| Poke::Links(a, m)),
        (0..3u8, fields, values).prop_map(|(a, f, v)| Poke::Field(a, f, v)),
        (0..3u8, 0..3u8).prop_map(|(m, v)| Poke::Mark(m, v)),
        (0..4u8, 0..9u8).prop_map(|(t, n)| Poke::Del(t, n)),
        (0..3u8).prop_map(Poke::WrongType),
    ];
    prop::collection::vec(poke, 0..12)
}

fn hash(fields: super::super::tables::Fields) -> Raw {
    Raw::Hash(fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
}

fn poke(entries: &mut Entries, poke: &Poke) {
    let app = |n: &u8| Key::new(Table::Application, &format!("a{n}"));
    let model = |m: &u8, v: &u8| Key::new(Table::Model, &format!("m{m}:{v}"));
    let (key, raw) = match poke {
        Poke::App(a, d) => {
            let Command::AddApp(mut spec) = add_app(&format!("a{a}")) else { unreachable!() };
            spec.default_output = d.to_string();
            (app(a), hash(app_fields(&spec)))
        }
        Poke::Model(m, v, path) => {
            let Command::AddModel(mut spec) = add_model(&format!("m{m}"), &v.to_string()) else {
                unreachable!()
            };
            spec.model_data_path = path.to_string();
            (model(m, v), hash(model_fields(&spec)))
        }
        Poke::Current(m, v) => (
            Key::new(Table::Metadata, &format!("CURRENT_MODEL_VERSION:m{m}")),
            Raw::Text(v.to_string().into_bytes()),
        ),
        Poke::Links(a, bits) => {
            let members = (0..3).filter(|m| bits & (1 << m) != 0);
            let members: BTreeSet<Vec<u8>> = members.map(|m| format!("m{m}").into()).collect();
            let raw = if members.is_empty() { Raw::Absent } else { Raw::Set(members) };
            (Key::new(Table::Links, &format!("a{a}")), raw)
        }
        Poke::Field(a, name, value) => {
            let mut fields = match entries.get(&app(a)) {
                Some(Raw::Hash(fields)) => fields.clone(),
                _ => BTreeMap::new(),
            };
            fields.insert(name.as_bytes().to_vec(), value.as_bytes().to_vec());
            (app(a), Raw::Hash(fields))
        }
        Poke::Mark(m, v) => match entries.get(&model(m, v)) {
            Some(Raw::Hash(fields)) => {
                let mut fields = fields.clone();
                fields.remove(b"valid".as_slice());
                (model(m, v), Raw::Hash(fields))
            }
            _ => return,
        },
        Poke::Del(table, n) => {
            let key = match table {
                0 => app(&(n % 3)),
                1 => model(&(n % 3), &(n / 3)),
                2 => Key::new(Table::Metadata, &format!("CURRENT_MODEL_VERSION:m{}", n % 3)),
                _ => Key::new(Table::Links, &format!("a{}", n % 3)),
            };
            (key, Raw::Absent)
        }
        Poke::WrongType(a) => (app(a), Raw::OtherType),
    };
    if raw == Raw::Absent {
        entries.remove(&key);
    } else {
        entries.insert(key, raw);
    }
}

fn poke_all(entries: &mut Entries, pokes: &[Poke]) {
    for one in pokes {
        poke(entries, one);
    }
}

proptest! {
    #[test]
    fn the_catalog_is_a_function_of_the_tables(before in pokes(), after in pokes()) {
        let mut entries = Entries::new();
        let mut warm = Catalog::default();
        poke_all(&mut entries, &before);
        catch_up(&mut warm, &entries);
        poke_all(&mut entries, &after);
        catch_up(&mut warm, &entries);
        let mut cold = Catalog::default();
        catch_up(&mut cold, &entries);
        prop_assert_eq!(&warm, &cold, "R1: what came before makes no difference");
        prop_assert_eq!(catch_up(&mut warm, &entries), Vec::new());
    }

    #[test]
    fn following_hints_one_by_one_is_the_same_as_reading_everything(all in pokes()) {
        let mut entries = Entries::new();
        let mut follower = Catalog::default();
        for p in &all {
            let before = entries.clone();
            poke(&mut entries, p);
            let changed = entries.keys().chain(before.keys())
                .filter(|key| entries.get(*key) != before.get(*key));
            let mut keys: BTreeSet<Key> = changed.flat_map(related).collect();
            loop {
                let look = keys.iter().map(|k| (k, entries.get(k).unwrap_or(&Raw::Absent)));
                let observed = Observed::of(look);
                let more: Vec<Key> = observed.follow_up().collect();
                if more.is_empty() {
                    for event in diff(&observed, &follower) {
                        follower.apply(&event);
                    }
                    break;
                }
                keys.extend(more);
            }
        }
        let mut cold = Catalog::default();
        catch_up(&mut cold, &entries);
        prop_assert_eq!(follower, cold);
    }

    #[test]
    fn a_catalog_written_into_empty_tables_reads_back_equal(all in pokes()) {
        let mut entries = Entries::new();
        poke_all(&mut entries, &all);
        let mut catalog = Catalog::default();
        catch_up(&mut catalog, &entries);
        let mut restored = Entries::new();
        for group in of_catalog(&catalog) {
            apply(&mut restored, &group);
        }
        let mut read = Catalog::default();
        catch_up(&mut read, &restored);
        prop_assert_eq!(read, catalog);
    }
}

#[test]
fn commands_write_what_reads_back_as_their_events() {
    let mut entries = Entries::new();
    let mut catalog = Catalog::default();
    let link = Command::AddModelLinks { app: app_name("a"), models: vec![model_name("m")] };
    let commands = [
        add_app("a"),
        add_model("m", "1"),
        link,
        add_model("m", "2"),
        Command::DeleteApp(app_name("a")),
        add_app("a"),
    ];
    for command in commands {
        for event in catalog.decide(&command).unwrap() {
            let writes = writes(&event, &entries);
            apply(&mut entries, &writes);
            catalog.apply(&event);
        }
        assert_eq!(catch_up(&mut catalog, &entries), Vec::new(), "{command:?}");
    }
}

#[test]
fn traffic_moves_before_a_version_goes() {
    let mut entries = Entries::new();
    let mut catalog = Catalog::default();
    poke(&mut entries, &Poke::Model(0, 1, 0));
    poke(&mut entries, &Poke::Current(0, 1));
    catch_up(&mut catalog, &entries);
    poke(&mut entries, &Poke::Model(0, 2, 0));
    poke(&mut entries, &Poke::Current(0, 2));
    poke(&mut entries, &Poke::Del(1, 3));
    let kinds: Vec<String> = catch_up(&mut catalog, &entries)
        .iter()
        .map(|e| serde_json::to_value(e).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["model_added", "model_version_set", "model_version_retired"]);
}

#[test]
fn malformed_entries_are_named_with_the_reason() {
    let hash = |pairs: &[(&str, &str)]| {
        Raw::Hash(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
    };
    let app = |fields: &[(&str, &str)]| (Key::new(Table::Application, "a"), hash(fields));
    let whole = [
        ("input_type", "doubles"),
        ("policy", "p"),
        ("default_output", "0"),
        ("latency_slo_micros", "1000"),
    ];
    let with = |name: &str, value: &'static str| {
        let mut fields = whole;
        fields.iter_mut().filter(|(n, _)| *n == name).for_each(|(_, v)| *v = value);
        app(&fields)
    };
    let cases = [
        (app(&whole[..3]), "it has no field latency_slo_micros"),
        (with("latency_slo_micros", "1e3"), "latency_slo_micros: \"1e3\" is no whole number"),
        (with("latency_slo_micros", "0"), "latency_slo_micros must be 1 to"),
        (
            with("default_output", &*"x".repeat(70_000).leak()),
            "70000 bytes; at most 65536 are kept",
        ),
        (app(&[&whole[..], &[("weight", "0")]].concat()), "weight must be 1 to 100, not 0"),
        (with("input_type", "tensor"), "input_type: \"tensor\" is unknown"),
        (
            app(&[&whole[..], &[("on_model_error", "shrug")]].concat()),
            "on_model_error must be 'default' or 'error', not 'shrug'",
        ),
        ((Key::new(Table::Application, "a/b"), hash(&whole)), "application name: it contains '/'"),
        ((Key::new(Table::Application, "a"), Raw::OtherType), "its type is not hash"),
        ((Key::new(Table::Links, "a"), Raw::OtherType), "its type is not set"),
        ((Key::new(Table::Model, "m"), hash(&[])), "the key is not NAME:VERSION"),
        ((Key::new(Table::Model, "m:1"), hash(&[("model_name", "x")])), "model_name is \"x\""),
    ];
    for ((key, raw), reason) in cases {
        let observed = Observed::of([(&key, &raw)]);
        let got = &observed.malformed[&key];
        assert!(got.contains(reason), "{key}: {got}");
        assert_eq!(diff(&observed, &Catalog::default()), Vec::new());
    }
}

/// A look at what these events write.
fn look(events: &[Event]) -> Observed {
    let mut entries = Entries::new();
    for event in events {
        let written = writes(event, &entries);
        apply(&mut entries, &written);
    }
    Observed::of(&entries)
}

#[test]
fn a_key_reaches_the_others_and_so_does_its_end_but_not_its_absence() {
    let key = Box::new(access_key("root", Role::Admin, 1));
    let name = key.name.clone();
    let mut other = Catalog::default();
    let added = [Event::KeyAdded { key: key.clone() }];
    assert_eq!(diff(&look(&added), &other), added);
    other.fold(&added[0]);
    assert_eq!(diff(&look(&added), &other), []);

    let rotated = [Event::KeyRotated { key: Box::new(access_key("root", Role::Admin, 2)) }];
    assert_eq!(diff(&look(&rotated), &other), rotated);

    let limits = Limits::of([Some(5), None, None, None], None).unwrap();
    let limited = [Event::KeyLimited { key: Box::new(AccessKey { limits, ..*key.clone() }) }];
    assert_eq!(diff(&look(&limited), &other), limited);

    let mut lost = Observed::default();
    lost.add(&Key::access(&name), &Raw::Absent);
    lost.complete(&other);
    assert_eq!(diff(&lost, &other), [], "lost tables open nothing");
    let entries = of_catalog(&other).concat();
    assert_eq!(entries.len(), 1, "it is written again");

    let revoked = [added[0].clone(), Event::KeyRevoked { name }];
    assert_eq!(diff(&look(&revoked), &other), revoked[1..]);
    other.fold(&revoked[1]);
    assert_eq!(diff(&look(&revoked), &other), []);
}
