//! The server is killed at random points while clients change metadata over HTTP: what was
//! acknowledged is there after the restart, what was not is there whole or not at all.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::served::{Http, Served, until};

/// Clients at the same time; each changes names of its own, so that it knows their state.
const CLIENTS: usize = 4;
/// Names of each kind that one client uses.
const NAMES: usize = 3;

/// What one client knows of its names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    apps: BTreeSet<String>,
    /// `model:version`, and the current ones among them.
    versions: BTreeSet<String>,
    current: BTreeSet<String>,
    /// `app>model`
    links: BTreeSet<String>,
}

/// One change.
#[derive(Debug, Clone)]
enum Change {
    AddApp(String),
    DeleteApp(String),
    AddModel(String, String),
    SetVersion(String, String),
    DeleteVersion(String, String),
    Link(String, String),
    Unlink(String, String),
}

impl Change {
    fn random(rng: &mut SmallRng, client: usize) -> Self {
        let app = format!("app-{client}-{}", rng.random_range(0..NAMES));
        let model = format!("model-{client}-{}", rng.random_range(0..NAMES));
        let version = rng.random_range(1..4).to_string();
        match rng.random_range(0..9) {
            0 | 1 => Self::AddApp(app),
            2 => Self::DeleteApp(app),
            3 | 4 => Self::AddModel(model, version),
            5 => Self::SetVersion(model, version),
            6 => Self::DeleteVersion(model, version),
            7 => Self::Link(app, model),
            _ => Self::Unlink(app, model),
        }
    }

    fn request(&self) -> (&'static str, Value) {
        let version = |m, v| json!({ "model_name": m, "model_version": v });
        let link = |a, m| json!({ "app_name": a, "model_names": [m] });
        match self {
            Self::AddApp(app) => ("add_app", crate::support::served::app(app, 100_000)),
            Self::DeleteApp(app) => ("delete_app", json!({ "name": app })),
            Self::AddModel(m, v) => {
                let mut body = crate::support::served::model(m);
                body["model_version"] = json!(v);
                ("add_model", body)
            }
            Self::SetVersion(m, v) => ("set_model_version", version(m, v)),
            Self::DeleteVersion(m, v) => ("delete_versioned_model", version(m, v)),
            Self::Link(a, m) => ("add_model_links", link(a, m)),
            Self::Unlink(a, m) => ("delete_model_links", link(a, m)),
        }
    }

    /// What the rules of the management page make of it.
    fn apply(&self, state: &mut State) {
        match self {
            Self::AddApp(app) => drop(state.apps.insert(app.clone())),
            Self::DeleteApp(app) => {
                state.apps.remove(app);
                state.links.retain(|link| link.split('>').next() != Some(app));
            }
            Self::AddModel(m, v) => {
                state.versions.insert(format!("{m}:{v}"));
                Self::SetVersion(m.clone(), v.clone()).apply(state);
            }
            Self::SetVersion(m, v) => {
                state.current.retain(|id| id.split(':').next() != Some(m));
                state.current.insert(format!("{m}:{v}"));
            }
            Self::DeleteVersion(m, v) => {
                state.versions.remove(&format!("{m}:{v}"));
                state.current.remove(&format!("{m}:{v}"));
            }
            Self::Link(a, m) => drop(state.links.insert(format!("{a}>{m}"))),
            Self::Unlink(a, m) => drop(state.links.remove(&format!("{a}>{m}"))),
        }
    }
}

fn list(http: &mut Http, verb: &str, path: &str, body: &Value) -> Vec<Value> {
    let (status, text) = http.request(verb, path, &body.to_string()).unwrap();
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What the server says of one client's names.
fn shown(management: SocketAddr, client: usize) -> State {
    let mut http = Http::new(management);
    let mut state = State::default();
    let verbose = json!({ "verbose": true });
    for app in list(&mut http, "POST", "/admin/get_all_applications", &json!({"verbose": false})) {
        let app = text(&app);
        if !app.starts_with(&format!("app-{client}-")) {
            continue;
        }
        for model in list(&mut http, "POST", "/admin/get_linked_models", &json!({"app_name": app}))
        {
            state.links.insert(format!("{app}>{}", text(&model)));
        }
        state.apps.insert(app);
    }
    for model in list(&mut http, "POST", "/admin/get_all_models", &verbose) {
        let name = text(&model["model_name"]);
        if name.starts_with(&format!("model-{client}-")) {
            let id = format!("{name}:{}", text(&model["model_version"]));
            if model["is_current_version"] == json!(true) {
                state.current.insert(id.clone());
            }
            state.versions.insert(id);
        }
    }
    state
}

/// Changes until the server is gone. What was acknowledged is in the state; the change that got no
/// answer is given back.
fn change_until_killed(
    management: SocketAddr,
    client: usize,
    state: &mut State,
    rng: &mut SmallRng,
    acknowledged: &AtomicUsize,
) -> Change {
    let mut http = Http::new(management);
    loop {
        let change = Change::random(rng, client);
        let (verb, body) = change.request();
        match http.request("POST", &format!("/admin/{verb}"), &body.to_string()) {
            Ok((200, _)) => {
                change.apply(state);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            // Against the rules, so nothing has changed.
            Ok((400, _)) => {}
            Ok((status, text)) => panic!("{change:?}: {status} {text}"),
            Err(_) => return change,
        }
    }
}

#[test]
fn no_acknowledged_change_is_lost_when_the_server_is_killed() {
    let rounds = std::env::var("CLIPPER_KILL_ROUNDS").map_or(25, |r| r.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut rng = rand::rng();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut states = vec![State::default(); CLIENTS];
    let mut server = Served::start("", folder.path());
    let (mut cut_off, mut kept) = (0, 0);
    for round in 0..rounds {
        let gate = Arc::new(Barrier::new(CLIENTS + 1));
        let management = server.management;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (gate, acknowledged) = (Arc::clone(&gate), Arc::clone(&acknowledged));
                let (mut state, seed) = (states[client].clone(), rng.random());
                std::thread::spawn(move || {
                    let mut rng = SmallRng::seed_from_u64(seed);
                    gate.wait();
                    let open = change_until_killed(
                        management,
                        client,
                        &mut state,
                        &mut rng,
                        &acknowledged,
                    );
                    (state, open)
                })
            })
            .collect();
        let wanted = acknowledged.load(Ordering::Relaxed) + rng.random_range(0..10);
        gate.wait();
        until("changes are acknowledged", || {
            (acknowledged.load(Ordering::Relaxed) >= wanted).then_some(())
        });
        // Anywhere within the change that is under way.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        server.kill_9();
        let outcomes: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();

        server = Served::start("", folder.path());
        for line in server.log() {
            assert!(!line.contains("\"WARN\"") && !line.contains("\"ERROR\""), "{round}: {line}");
        }
        for (client, (known, open)) in outcomes.into_iter().enumerate() {
            let shown = shown(server.management, client);
            let mut with = known.clone();
            if open.request_fits(&known) {
                open.apply(&mut with);
                cut_off += 1;
            }
            assert!(
                shown == known || shown == with,
                "round {round}: {open:?} was cut off\nknown {known:?}\nshown {shown:?}"
            );
            kept += usize::from(shown != known);
            states[client] = shown;
        }
    }
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    println!(
        "{rounds} kills, {acknowledged} acknowledged changes, {cut_off} cut off ({kept} kept)"
    );
    assert!(acknowledged > rounds, "only {acknowledged} changes");
}

impl Change {
    /// Whether the rules allow it, so that it may have become durable before the kill.
    fn request_fits(&self, state: &State) -> bool {
        let has = |set: &BTreeSet<String>, a: &str, b: &str| set.contains(&format!("{a}{b}"));
        match self {
            Self::AddApp(app) => !state.apps.contains(app),
            Self::DeleteApp(app) => state.apps.contains(app),
            Self::AddModel(m, v) => !has(&state.versions, m, &format!(":{v}")),
            Self::SetVersion(m, v) | Self::DeleteVersion(m, v) => {
                has(&state.versions, m, &format!(":{v}"))
            }
            Self::Link(a, m) => {
                let linked = state.links.iter().any(|link| link.split('>').next() == Some(a));
                let current = state.current.iter().any(|id| id.split(':').next() == Some(m));
                state.apps.contains(a) && current && !linked
            }
            Self::Unlink(a, m) => has(&state.links, a, &format!(">{m}")),
        }
    }
}
