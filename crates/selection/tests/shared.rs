//! Servers that learn from different feedback come to the same sum, however they hear of each
//! other, and although they die and come back.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use clipper_domain::ModelName;
use clipper_selection::shared::{Part, SharedState};
use clipper_selection::state::{ArmSums, Contribution, SelectionState};
use proptest::prelude::*;

const SERVERS: usize = 3;

/// What may happen, to one of the servers.
#[derive(Debug, Clone)]
enum Step {
    /// It is given feedback about a model.
    Learn(u8, u8),
    /// It writes its part where the others find it.
    Tell,
    /// It reads a part of another, as it is or as it was, so many writes ago.
    Hear(usize, usize),
    /// It keeps its part.
    Save,
    /// It dies, comes back with what it had kept, and finds what it had told.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..4, 0_u8..5).prop_map(|(model, loss)| Step::Learn(model, loss)),
        2 => Just(Step::Tell),
        3 => (0..SERVERS, 0_usize..4).prop_map(|(whose, ago)| Step::Hear(whose, ago)),
        2 => Just(Step::Save),
        1 => Just(Step::Restart),
    ]
}

fn contribution(model: u8, loss: u8, window: Option<u64>) -> Contribution {
    let sums = ArmSums::of(f64::from(loss) / 4.0, 0.3);
    let model = ModelName::parse(&format!("m{model}")).unwrap();
    Contribution { window, arms: BTreeMap::from([(model, sums)]) }
}

/// A server as it lives, what it has kept, and all that it ever told.
#[derive(Default)]
struct Server {
    live: SharedState,
    kept: String,
    told: Vec<String>,
}

impl Server {
    fn save(&mut self) {
        self.kept = self.live.own().to_text();
    }

    fn tell(&mut self) {
        // What is told was kept before.
        self.save();
        self.told.push(self.kept.clone());
    }

    fn restart(&mut self) {
        let own = if self.kept.is_empty() {
            Part::default()
        } else {
            Part::from_text(&self.kept).unwrap()
        };
        self.live = SharedState::default();
        self.live.hear_own(own);
        if let Some(told) = self.told.last() {
            assert!(!self.live.hear_own(Part::from_text(told).unwrap()));
        }
    }
}

fn hear(servers: &mut [Server], at: usize, whose: usize, ago: usize) {
    let told = &servers[whose].told;
    let Some(text) = told.len().checked_sub(1 + ago).and_then(|n| told.get(n)) else { return };
    let part = Part::from_text(text).unwrap();
    if at != whose {
        let name: Arc<str> = format!("f{whose}").into();
        servers[at].live.hear(&name, part);
    }
}

proptest! {
    #[test]
    fn all_servers_come_to_the_sum_of_what_each_was_told(
        steps in prop::collection::vec((0..SERVERS, step()), 0..120),
        window in prop_oneof![Just(None), Just(Some(16_u64))],
    ) {
        let mut servers: Vec<Server> = (0..SERVERS).map(|_| Server::default()).collect();
        for (at, step) in steps {
            match step {
                Step::Learn(model, loss) => {
                    servers[at].live.learn(&contribution(model, loss, window));
                }
                Step::Tell => servers[at].tell(),
                Step::Hear(whose, ago) => hear(&mut servers, at, whose, ago),
                Step::Save => servers[at].save(),
                Step::Restart => servers[at].restart(),
            }
        }
        // In the end each tells, and hears all of the others, some of it twice.
        servers.iter_mut().for_each(Server::tell);
        for at in 0..SERVERS {
            for whose in (0..SERVERS).chain((0..SERVERS).rev()) {
                hear(&mut servers, at, whose, 0);
            }
        }
        let mut expected = SelectionState::default();
        for server in &servers {
            expected.add(&server.live.own().state);
        }
        for server in &servers {
            prop_assert_eq!(&**server.live.sum(), &expected);
        }
    }

    #[test]
    fn without_a_window_every_feedback_that_was_kept_counts_once(
        given in prop::collection::vec((0..SERVERS, 0_u8..4), 0..60),
        dead in 0..SERVERS,
    ) {
        let mut servers: Vec<Server> = (0..SERVERS).map(|_| Server::default()).collect();
        let half = given.len() / 2;
        for (at, model) in &given[..half] {
            servers[*at].live.learn(&contribution(*model, 2, None));
        }
        servers.iter_mut().for_each(Server::tell);
        for (at, model) in &given[half..] {
            servers[*at].live.learn(&contribution(*model, 2, None));
        }
        // It kept nothing of the second half.
        servers[dead].restart();
        servers.iter_mut().for_each(Server::tell);
        let lost = given[half..].iter().filter(|(at, _)| *at == dead).count();
        for at in 0..SERVERS {
            (0..SERVERS).for_each(|whose| hear(&mut servers, at, whose, 0));
            prop_assert_eq!(servers[at].live.sum().rounds(), (given.len() - lost) as u64);
        }
    }
}
