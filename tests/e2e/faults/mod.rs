//! What breaks the original, one test a case, while a second application has to be served.

mod crashes;
mod misleads;
mod survives;
mod wedges;

use serde_json::json;

use crate::e2e::support::bystander::Bystander;
use crate::e2e::support::container::Container;
use crate::e2e::support::server::{Prediction, Server};

/// Long enough for every answer that comes at all on a busy machine.
const GENEROUS_SLO_US: u64 = 30_000_000;

/// A server with the application, model and link `m`, and a second application that is queried all
/// the time.
fn scene() -> (Server, Bystander) {
    scene_with_slo(GENEROUS_SLO_US)
}

fn scene_with_slo(slo_us: u64) -> (Server, Bystander) {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    server.serve("m", "doubles", slo_us);
    (server, bystander)
}

/// Asks `m` for the prediction of one number.
fn ask(server: &Server, input: f64) -> Prediction {
    server.predict("m", &json!({"input": [input]}))
}

/// A container in order serves `m`: the server holds no grudge after a fault.
fn served_by_a_good_container(server: &Server, input: f64) {
    let _container = Container::serving(server, "m", &[]);
    let prediction = ask(server, input);
    assert_eq!(prediction.output(), &json!([input]), "{prediction:?}");
    assert!(!prediction.is_default());
}
