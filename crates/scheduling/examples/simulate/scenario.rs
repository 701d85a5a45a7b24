//! What happens in one simulated run: drawn from a seed, and a list so that it can be shortened.

use std::time::Duration;

use clipper_domain::BatchSize;
use clipper_scheduling::dispatch::{BusyLimits, Limits};
use clipper_scheduling::share::{AppId, Class, Share, Tenant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Something that happens to the dispatcher's surroundings.
#[derive(Debug, Clone)]
pub enum Step {
    /// An application asks `queries` queries, due after its objective.
    Ask {
        app: usize,
        queries: usize,
        kind: Kind,
    },
    /// Every caller of an application goes away.
    Cancel {
        app: usize,
    },
    Join {
        replica: u32,
    },
    /// A replica dies; the dispatcher hears of it a little later.
    Die {
        replica: u32,
    },
    /// A replica is told to go.
    Retire {
        replica: u32,
    },
    /// A replica computes nothing any more.
    Hang {
        replica: u32,
    },
    /// A replica takes so many times as long from now on.
    Slow {
        replica: u32,
        times: u32,
    },
    /// The timer stands still for so long.
    Stall(Duration),
    /// The dispatcher is replaced by another one.
    Restart,
}

/// What an input does to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Replicas die of it.
    Deadly,
    /// Replicas never end with it.
    Endless,
    /// Its answer takes this many hundredths of what fits into a message.
    Large(u32),
}

/// How long replicas compute: so much a batch and so much a query, microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    pub batch: u64,
    pub query: u64,
    /// Latencies are up to so many hundredths longer.
    pub noise: u64,
}

impl Speed {
    /// For a batch of so many, microseconds.
    pub fn nominal(self, queries: usize) -> u64 {
        self.batch + self.query * queries as u64
    }
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub limits: Limits,
    pub speed: Speed,
    /// Latency objectives of the applications, or of the classes of one.
    pub objectives: Vec<Duration>,
    /// Their shares.
    pub shares: Vec<Share>,
    /// One application, or class, floods, the other one asks for less than its share; nothing
    /// fails.
    pub is_contest: bool,
    /// At which time, in order.
    pub steps: Vec<(Duration, Step)>,
}

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        if random.random_ratio(1, 12) {
            Self::contest(seed, random)
        } else {
            Self::chaos(seed, random)
        }
    }

    fn chaos(number: u64, mut random: SmallRng) -> Self {
        let r = &mut random;
        let speed = Speed {
            batch: r.random_range(20..3_000),
            query: r.random_range(0..1_500),
            noise: r.random_range(0..60),
        };
        let apps = r.random_range(1..4);
        let objectives: Vec<_> =
            (0..apps).map(|_| us(1_000 * [10, 20, 50, 100][r.random_range(0..4)])).collect();
        let replicas = r.random_range(1..4);
        let mut steps: Vec<_> = (0..replicas)
            .map(|n| (us(r.random_range(0..2_000)), Step::Join { replica: n }))
            .collect();
        let mut at = 0;
        let pause = [50, 500, 3_000, 8_000][r.random_range(0..4)];
        for _ in 0..r.random_range(5..40) {
            at += r.random_range(0..pause);
            let step = Step::Ask {
                app: r.random_range(0..apps),
                queries: if r.random_ratio(1, 4) { r.random_range(1..24) } else { 1 },
                kind: kind(r),
            };
            steps.push((us(at), step));
        }
        let mut next_replica = replicas;
        for _ in 0..r.random_range(0..6) {
            let when = us(r.random_range(0..=at + 5_000));
            let replica = r.random_range(0..next_replica);
            let step = match r.random_range(0..10) {
                0..3 => Step::Die { replica },
                3 => Step::Retire { replica },
                4 => Step::Hang { replica },
                5 => Step::Slow { replica, times: r.random_range(2..30) },
                6 => Step::Cancel { app: r.random_range(0..apps) },
                7 => Step::Stall(us(r.random_range(0..20_000))),
                8 => Step::Restart,
                _ => Step::Join { replica },
            };
            if let Step::Die { .. } | Step::Hang { .. } = step {
                let replica = next_replica;
                next_replica += 1;
                steps.push((when + us(r.random_range(0..10_000)), Step::Join { replica }));
            }
            steps.push((when, step));
        }
        steps.sort_by_key(|(at, _)| *at);
        let shares = (0..apps as u64)
            .map(|app| Share { class: class(number + app), ..Share::equal(AppId(app)) })
            .collect();
        Self {
            seed: number,
            limits: limits(r),
            speed,
            objectives,
            shares,
            is_contest: false,
            steps,
        }
    }

    /// Application 0 asks several times what the replica can do, application 1 a sixth of it. Or so
    /// do two classes, or two who ask, of one application.
    fn contest(number: u64, mut random: SmallRng) -> Self {
        let r = &mut random;
        let query = r.random_range(500..2_000);
        let speed = Speed { batch: 0, query, noise: 5 };
        let objective = 50 * query;
        let mut limits = limits(r);
        limits.batch_size = BatchSize::Adaptive;
        limits.batch_max = 100;
        limits.queue_max = 1_000;
        let mut steps = vec![(us(0), Step::Join { replica: 0 })];
        // It learns what batches take.
        for n in 0..60_u64 {
            let queries = usize::try_from(1 + n % 12).unwrap_or(1);
            let ask = Step::Ask { app: 0, queries, kind: Kind::Plain };
            steps.push((us(n * 13 * query), ask));
        }
        let start = 60 * 13 * query;
        let (flood, end) = (r.random_range(20..100), start + 500 * query);
        let every = query * flood / r.random_range(2..5);
        let burst = usize::try_from(flood).unwrap_or(1);
        let mut at = start;
        while at < end {
            steps.push((us(at), Step::Ask { app: 0, queries: burst, kind: Kind::Plain }));
            at += every;
        }
        let mut at = start + 20 * query;
        while at < end {
            steps.push((us(at), Step::Ask { app: 1, queries: 1, kind: Kind::Plain }));
            at += query * r.random_range(6..10);
        }
        steps.sort_by_key(|(at, _)| *at);
        let objectives = vec![us(objective); 2];
        let pair = match number % 7 {
            0 => [Class::Low, Class::Normal],
            1 => [Class::Low, Class::High],
            2 => [Class::Normal, Class::High],
            3 => [Class::Normal, Class::Low],
            4 => [Class::High, Class::Normal],
            5 => [Class::High, Class::Low],
            _ => [Class::Normal; 2],
        };
        let are_equal = pair[0] == pair[1];
        let is_by_tenant = are_equal && (number / 7).is_multiple_of(2);
        let app = |at: u64| AppId(if are_equal && !is_by_tenant { at } else { 0 });
        let tenant =
            |at: usize| if is_by_tenant { Tenant::of(["a", "b"][at]) } else { Tenant::NOBODY };
        let share = |at: usize| Share {
            class: pair[at],
            tenant: tenant(at),
            ..Share::equal(app(at as u64))
        };
        let shares = vec![share(0), share(1)];
        Self { seed: number, limits, speed, objectives, shares, is_contest: true, steps }
    }
}

fn class(number: u64) -> Class {
    Class::ALL[usize::try_from(number % 3).unwrap_or(0)]
}

fn kind(r: &mut SmallRng) -> Kind {
    match r.random_range(0..40) {
        0 => Kind::Deadly,
        1 => Kind::Endless,
        2 => Kind::Large(r.random_range(5..130)),
        _ => Kind::Plain,
    }
}

fn limits(r: &mut SmallRng) -> Limits {
    let size = if r.random_bool(0.5) { -1 } else { r.random_range(1..20) };
    let busy = BusyLimits { min: us(r.random_range(20_000..60_000)), max: us(300_000) };
    Limits {
        batch_size: BatchSize::from_number(size).unwrap_or(BatchSize::Adaptive),
        batch_max: r.random_range(4..40),
        queue_max: r.random_range(20..200),
        attempts_max: r.random_range(1..4),
        hedge_share: 0.05,
        hedge_burst: us(r.random_range(0..10_000)),
        poison_keep: Duration::from_secs(10),
        poison_max: 64,
        busy,
    }
}
