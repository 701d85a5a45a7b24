//! The loop on paused time: pauses, the end of a budget, forgiveness.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use clipper_clock::Instant;
use clipper_config::ContainersConfig;

/// Lives as long as it is told to, life after life.
struct Scripted {
    lives: Vec<(Duration, bool)>,
    forgiven_in: Option<Duration>,
    started: Rc<RefCell<Vec<Instant>>>,
    verdicts: Rc<RefCell<Vec<Verdict>>>,
}

impl Supervised for Scripted {
    async fn live(&mut self) -> LifeEnd {
        self.started.borrow_mut().push(clock::now());
        let Some((lived, has_served)) = self.lives.pop() else { return LifeEnd::Unwanted };
        tokio::time::sleep(lived).await;
        LifeEnd::Died { has_served }
    }

    fn died(&mut self, verdict: Verdict) {
        self.verdicts.borrow_mut().push(verdict);
    }

    async fn rest(&mut self, pause: Duration) -> Rested {
        match self.forgiven_in {
            Some(sooner) if sooner < pause => {
                tokio::time::sleep(sooner).await;
                Rested::Forgiven
            }
            _ => {
                tokio::time::sleep(pause).await;
                Rested::Enough
            }
        }
    }
}

fn config() -> ContainersConfig {
    ContainersConfig {
        restart_backoff_initial_ms: 100,
        restart_backoff_max_ms: 300,
        served_backoff_max_ms: 200,
        restart_budget: 3,
        restart_window_ms: 1_000,
        failing_start_pause_ms: 5_000,
        ..ContainersConfig::default()
    }
}

/// When it was started, in milliseconds, and what was said of its deaths.
async fn run(
    lives: impl IntoIterator<Item = (u64, bool)>,
    forgiven_in: Option<Duration>,
    budget: RestartBudget,
) -> (Vec<u128>, Vec<Verdict>) {
    let mut lives: Vec<_> =
        lives.into_iter().map(|(ms, served)| (Duration::from_millis(ms), served)).collect();
    lives.reverse();
    let (started, verdicts) = (Rc::default(), Rc::default());
    let scripted = Scripted {
        lives,
        forgiven_in,
        started: Rc::clone(&started),
        verdicts: Rc::clone(&verdicts),
    };
    let from = clock::now();
    supervise(scripted, budget).await;
    let times = started.borrow().iter().map(|at| (*at - from).as_millis()).collect();
    (times, verdicts.take())
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_fails_at_each_start_is_given_up() {
    let (started, verdicts) = run([(0, false); 9], None, RestartBudget::for_actor(&config())).await;
    assert_eq!(started, [0, 100, 300, 600]);
    assert_eq!(verdicts.last(), Some(&Verdict::GiveUp));
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_lives_long_is_started_again_for_ever() {
    let (started, _) = run([(2_000, false); 9], None, RestartBudget::for_actor(&config())).await;
    assert_eq!(started, (0..=9).map(|n| n * 2_100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_never_serves_is_tried_rarely_until_somebody_looks_after_it() {
    let budget = RestartBudget::for_process(&config());
    let (started, _) = run([(0, false); 6], None, budget.clone()).await;
    assert_eq!(started, [0, 100, 300, 600, 5_600, 10_600, 15_600]);
    let forgiven = Some(Duration::from_millis(400));
    let (started, _) = run([(0, false); 6], forgiven, budget).await;
    assert_eq!(started, [0, 100, 300, 600, 1_000, 1_100, 1_300]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_serves_comes_back_soon_however_often_it_dies() {
    let budget = RestartBudget::for_process(&config());
    let (started, verdicts) = run([(10, true); 20], None, budget).await;
    let longest = started.windows(2).map(|two| two[1] - two[0]).max();
    assert_eq!((started.len(), longest), (21, Some(210)));
    assert!(!verdicts.contains(&Verdict::GiveUp));
}
