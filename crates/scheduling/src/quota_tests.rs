//! Tests of [`super`]: what is let through, from seeds and by hand.

use super::*;
use clipper_clock as clock;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn limits(numbers: [Option<i64>; 4]) -> Limits {
    Limits::of(numbers, None).unwrap()
}

fn of_key(limits: Limits, now: Instant) -> Arc<Quota> {
    Quota::new(Whose::Key(KeyName::parse("a").unwrap()), limits, now)
}

fn of_app(limits: Limits, now: Instant) -> Arc<Quota> {
    Quota::new(Whose::App(AppName::parse("b").unwrap()), limits, now)
}

fn on(quotas: impl IntoIterator<Item = Arc<Quota>>) -> Claim {
    Claim::of(Tenant::NOBODY, quotas)
}

fn admit(quota: &Arc<Quota>, queries: usize, now: Instant) -> Result<Claim, Exceeded> {
    let mut claim = on([Arc::clone(quota)]);
    claim.admit(queries, now)?;
    Ok(claim)
}

#[test]
fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
    let start = clock::now();
    let quota = of_key(limits([Some(10), Some(5), None, None]), start);
    for _ in 0..5 {
        assert!(admit(&quota, 1, start).is_ok());
    }
    let refused = admit(&quota, 1, start).unwrap_err();
    assert_eq!(refused.wait, Some(Duration::from_millis(100)));
    assert_eq!(refused.to_string(), "Key 'a' may make 10 queries a second (rate)");
    let soon = start + Duration::from_millis(100);
    assert!(admit(&quota, 1, soon).is_ok() && admit(&quota, 1, soon).is_err());
    // Each query of a list counts.
    let later = start + Duration::from_secs(10);
    assert!(admit(&quota, 3, later).is_ok());
    assert_eq!(admit(&quota, 3, later).unwrap_err().wait, Some(Duration::from_millis(100)));
    assert!(admit(&quota, 2, later).is_ok());
    let told = admit(&quota, 6, later).unwrap_err();
    assert!(told.wait.is_none() && told.to_string().contains("5 queries at once (burst)"));
    assert_eq!((quota.admitted(), quota.refused(Limit::Rate)), (11, 4));
}

#[test]
fn without_a_burst_a_second_of_the_rate_goes_at_once() {
    let now = clock::now();
    let quota = of_key(limits([Some(7), None, None, None]), now);
    assert!(admit(&quota, 7, now).is_ok() && admit(&quota, 1, now).is_err());
}

/// In every window the queries that were let through are at most a burst and what the rate gives
/// in it; and whoever waits as long as was said is let through.
#[test]
fn whatever_comes_the_rate_and_the_burst_are_kept() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (rate, burst): (u32, u32) =
            (random.random_range(1..2_000), random.random_range(1..300));
        let start = clock::now();
        let quota =
            of_key(limits([Some(i64::from(rate)), Some(i64::from(burst)), None, None]), start);
        let mut now = start;
        let mut through: Vec<(Instant, u32)> = Vec::new();
        for _ in 0..400 {
            let pause = if random.random_bool(0.1) { 1_000_000_000 } else { 3_000_000 };
            now += Duration::from_nanos(random.random_range(0..pause));
            let queries = random.random_range(1..=burst);
            match admit(&quota, queries as usize, now) {
                Ok(_) => through.push((now, queries)),
                Err(Exceeded { wait, .. }) => {
                    let wait = wait.expect("no more than a burst");
                    if random.random_bool(0.2) {
                        now += wait;
                        assert!(admit(&quota, queries as usize, now).is_ok(), "seed {seed}");
                        through.push((now, queries));
                    }
                }
            }
        }
        for (first, (from, _)) in through.iter().enumerate() {
            let mut sum = 0.0;
            for (at, queries) in &through[first..] {
                sum += f64::from(*queries);
                let window = at.duration_since(*from).as_secs_f64();
                // An interval is a whole number of nanoseconds.
                let most = f64::from(burst) + window * f64::from(rate) * 1.001 + 1e-6;
                assert!(sum <= most, "seed {seed}: {sum} in {window} s, at most {most}");
            }
        }
    }
}

#[test]
fn somebody_within_the_rate_is_never_refused() {
    for rate in [1_u32, 3, 7, 100, 999, 1_000_000] {
        let start = clock::now();
        let quota = of_key(limits([Some(i64::from(rate)), Some(1), None, None]), start);
        let interval = Duration::from_secs_f64(1.0 / f64::from(rate));
        for n in 0..1_000 {
            assert!(admit(&quota, 1, start + interval * n).is_ok(), "{rate}, query {n}");
        }
    }
}

#[test]
fn queries_under_way_are_given_back_with_their_request() {
    let now = clock::now();
    let quota = of_app(limits([None, None, Some(3), None]), now);
    let two = admit(&quota, 2, now).unwrap();
    let refused = admit(&quota, 2, now).unwrap_err();
    assert_eq!(refused.to_string(), "Application 'b' may have 3 queries under way (concurrent)");
    assert!(refused.wait.is_some());
    let one = admit(&quota, 1, now).unwrap();
    assert_eq!(quota.under_way(), 3);
    assert!(on([Arc::clone(&quota)]).check(now).is_err());
    assert!(admit(&quota, 4, now).unwrap_err().wait.is_none());
    drop(two);
    assert!(on([Arc::clone(&quota)]).check(now).is_ok());
    assert!(admit(&quota, 2, now).is_ok());
    drop(one);
    assert_eq!(quota.under_way(), 0);
}

#[test]
fn bodies_under_way_share_their_bytes() {
    let now = clock::now();
    let quota = of_key(limits([None, None, None, Some(100)]), now);
    let (mut one, mut two) = (on([Arc::clone(&quota)]), on([Arc::clone(&quota)]));
    assert!(one.grow(60).is_ok() && two.grow(40).is_ok());
    let refused = two.grow(1).unwrap_err();
    let told = "Key 'a' may have bodies of 100 bytes under way (body_bytes)";
    assert_eq!((refused.to_string().as_str(), refused.wait), (told, Some(SOON)));
    drop(one);
    assert!(two.grow(60).is_ok());
    assert_eq!(two.grow(1).unwrap_err().wait, None, "too much by itself");
    drop(two);
    assert_eq!(quota.usage.bytes.load(Relaxed), 0);
}

#[test]
fn a_quota_that_joins_later_counts_the_body_that_is_there() {
    let now = clock::now();
    let key = of_key(limits([None, None, None, Some(100)]), now);
    let app = of_app(limits([None, None, None, Some(50)]), now);
    let mut claim = on([Arc::clone(&key)]);
    assert!(claim.grow(40).is_ok() && claim.also(Arc::clone(&app), 40).is_ok());
    let refused = claim.grow(20).unwrap_err();
    assert_eq!(refused.whose, Whose::App(AppName::parse("b").unwrap()));
    let mut other = on([Arc::clone(&key)]);
    assert!(other.grow(20).is_ok());
    assert!(other.also(Arc::clone(&app), 20).unwrap_err().wait.is_some());
    drop((claim, other));
    assert_eq!([key, app].map(|quota| quota.usage.bytes.load(Relaxed)), [0, 0]);
}

#[test]
fn what_one_of_two_refuses_takes_nothing_of_the_others_rate() {
    let now = clock::now();
    let key = of_key(limits([Some(10), None, None, None]), now);
    let app = of_app(limits([Some(1), None, None, None]), now);
    let both = || on([Arc::clone(&key), Arc::clone(&app)]);
    assert!(both().admit(1, now).is_ok());
    for _ in 0..100 {
        let refused = both().admit(1, now).unwrap_err();
        assert_eq!(refused.whose, Whose::App(AppName::parse("b").unwrap()));
    }
    for _ in 0..9 {
        assert!(admit(&key, 1, now).is_ok());
    }
    assert!(admit(&key, 1, now).is_err());
    assert_eq!((key.under_way(), app.under_way()), (0, 0));
}

#[test]
fn other_limits_count_what_has_been_asked_for() {
    let now = clock::now();
    let quota = of_key(limits([Some(10), None, Some(5), None]), now);
    let held = admit(&quota, 4, now).unwrap();
    let tighter = quota.with(limits([Some(10), None, Some(4), None]));
    assert!(admit(&tighter, 1, now).is_err());
    drop(held);
    assert!(admit(&tighter, 1, now).is_ok());
    assert_eq!(tighter.admitted(), 5);
}

#[test]
fn the_lowest_of_the_highest_classes_counts() {
    let now = clock::now();
    let class = |class| Limits::of([None; 4], Some(class)).unwrap();
    let (key, app) = (of_key(class(Class::Normal), now), of_app(class(Class::High), now));
    let claim = on([key, app]);
    let may = Class::ALL.map(|asked| claim.class(asked));
    assert_eq!(may, [Class::Low, Class::Normal, Class::Normal]);
    let none = on([]);
    assert_eq!(Class::ALL.map(|asked| none.class(asked)), Class::ALL);
    assert!(!none.is_limited() && claim.is_limited() && none.check(now).is_ok());
}
