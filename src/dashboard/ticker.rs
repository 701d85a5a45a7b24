//! Works out what pages are told: once for all that show the same, at most once a tick, and not at
//! all while nobody looks. Steps of the history go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::history::History;
use super::moment::{Moment, Sources};
use super::picture::{self, Painter};
use super::topic::Topic;
use crate::priority::Lane;
use clipper_clock as clock;
use clipper_config::DashboardConfig;

/// The latest picture of each topic that is watched; `None` before the first.
type Topics = BTreeMap<Topic, watch::Sender<Option<Bytes>>>;

struct DashboardState {
    sources: Sources,
    /// Where pictures are worked out.
    threads: Arc<Lane>,
    config: DashboardConfig,
    moment: Mutex<Moment>,
    topics: Mutex<Topics>,
    /// Somebody shows a topic that nobody showed before.
    wake: Notify,
    places: Arc<Semaphore>,
    started_ms: u64,
}

/// What all pages are told by. Clones share it.
#[derive(Clone)]
pub struct Dashboard(Arc<DashboardState>);

/// A page that is told. Dropping it leaves.
#[derive(Debug)]
pub struct Viewer {
    pictures: watch::Receiver<Option<Bytes>>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    /// The next picture, as a server-sent event of JSON; those that came while it was not asked for
    /// are skipped. `None`: there are no more.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pictures.changed().await.ok()?;
        self.pictures.borrow_and_update().clone()
    }
}

/// There are as many viewers as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{viewers_max} pages are told what happens already (dashboard.viewers_max)")]
pub struct NoPlace {
    viewers_max: usize,
}

impl Dashboard {
    #[must_use]
    pub fn new(sources: Sources, config: DashboardConfig, threads: Arc<Lane>) -> Self {
        let history = History::new(config.history_points, config.history_applications_max);
        Self(Arc::new(DashboardState {
            sources,
            threads,
            moment: Mutex::new(Moment::new(history)),
            topics: Mutex::default(),
            wake: Notify::new(),
            places: Arc::new(Semaphore::new(config.viewers_max)),
            started_ms: clock::unix_millis(),
            config,
        }))
    }

    /// Starts to watch a topic.
    ///
    /// # Errors
    /// Too many watch.
    pub fn watch(&self, topic: Topic) -> Result<Viewer, NoPlace> {
        let viewers_max = self.0.config.viewers_max;
        let place = Arc::clone(&self.0.places).try_acquire_owned();
        let place = place.map_err(|_| NoPlace { viewers_max })?;
        let mut topics = self.0.topics.lock();
        let sender = topics.entry(topic).or_insert_with(|| watch::Sender::new(None));
        if sender.receiver_count() == 0 {
            // It is of a time when somebody watched.
            sender.send_replace(None);
        }
        let mut pictures = sender.subscribe();
        if pictures.borrow().is_some() {
            pictures.mark_changed();
        } else {
            self.0.wake.notify_one();
        }
        Ok(Viewer { pictures, _place: place })
    }

    /// The history of an application, as JSON.
    #[must_use]
    pub fn history(&self, app: &str) -> String {
        picture::history(&self.0.moment.lock(), app, self.step_ms())
    }

    #[must_use]
    pub fn config(&self) -> &DashboardConfig {
        &self.0.config
    }

    fn step_ms(&self) -> u64 {
        self.0.config.history_step_s.max(1) * 1_000
    }

    /// Works until it is dropped.
    pub async fn run(self) {
        let tick = Duration::from_millis(self.0.config.tick_ms);
        let mut step = clock::unix_millis() / self.step_ms();
        loop {
            let left = self.step_ms() - clock::unix_millis() % self.step_ms();
            let until_step = Duration::from_millis(left);
            let pause = if self.is_watched() { tick.min(until_step) } else { until_step };
            let is_newcomer = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = self.0.wake.notified() => true,
            };
            let now = clock::unix_millis() / self.step_ms();
            // The clock may have been set back.
            let ended = (now > step && !is_newcomer).then_some(now);
            step = if is_newcomer { step } else { now };
            let this = self.clone();
            let work = move || if is_newcomer { this.greet() } else { this.tick(ended) };
            if self.0.threads.done(work).await.is_none() {
                tracing::error!("the dashboard is not told of this moment");
            }
        }
    }

    fn is_watched(&self) -> bool {
        self.0.topics.lock().values().any(|viewers| viewers.receiver_count() > 0)
    }

    /// Tells those who have not been told anything yet.
    fn greet(&self) {
        let mut moment = self.0.moment.lock();
        moment.look_first(&self.0.sources.plane, clock::now());
        self.tell(&moment, Option::is_none);
    }

    fn tick(&self, ended: Option<u64>) {
        let mut moment = self.0.moment.lock();
        moment.look(&self.0.sources.plane, clock::now());
        self.tell(&moment, |_| true);
        if let Some(step) = ended {
            moment.step(step);
        }
    }

    fn tell(&self, moment: &Moment, wants: impl Fn(&Option<Bytes>) -> bool) {
        let watched: Vec<Topic> = {
            let mut topics = self.0.topics.lock();
            topics.retain(|_, viewers| viewers.receiver_count() > 0);
            let wanting = topics.iter().filter(|(_, viewers)| wants(&viewers.borrow()));
            wanting.map(|(topic, _)| topic.clone()).collect()
        };
        if watched.is_empty() {
            return;
        }
        let times = (clock::unix_millis(), self.0.started_ms);
        let painter = Painter::new(&self.0.sources, moment, times);
        for topic in watched {
            let picture = painter.paint(&topic, self.0.config.rows_max);
            let picture = Bytes::from(format!("data: {picture}\n\n"));
            if let Some(viewers) = self.0.topics.lock().get(&topic) {
                viewers.send_replace(Some(picture));
            }
        }
    }
}
