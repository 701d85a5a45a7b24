//! How much the holder of a key, or all clients of an application, may ask for, and what they have
//! asked for. Pure: the time is an argument. Shared by all threads, without a lock.
//!
//! A rate is kept by the generic cell rate algorithm: one number says when the allowance would be
//! whole again, and each query moves it on. What no wait would let through, such as a list that is
//! longer than the burst, is told apart from what comes too soon.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clipper_clock::Instant;
use clipper_domain::limits::{Class, Limits};
use clipper_domain::{AppName, KeyName};
use smallvec::SmallVec;

use crate::share::Tenant;

const SECOND_NS: u64 = 1_000_000_000;

/// When one of many places is free again nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// Whose limits they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    Key(KeyName),
    App(AppName),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => write!(f, "Key '{name}'"),
            Self::App(name) => write!(f, "Application '{name}'"),
        }
    }
}

/// Which of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Rate,
    Concurrent,
    BodyBytes,
}

impl Limit {
    pub const ALL: [Self; 3] = [Self::Rate, Self::Concurrent, Self::BodyBytes];

    /// As a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Concurrent => "concurrent",
            Self::BodyBytes => "body_bytes",
        }
    }
}

/// More was asked for than somebody may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    pub whose: Whose,
    pub limit: Limit,
    /// What is allowed.
    pub max: u64,
    /// After so long the same may be asked again; `None`: never, it is too much by itself.
    pub wait: Option<Duration>,
}

impl std::error::Error for Exceeded {}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whose, limit, max, wait } = self;
        match (limit, wait) {
            (Limit::Rate, Some(_)) => write!(f, "{whose} may make {max} queries a second (rate)"),
            (Limit::Rate, None) => write!(
                f,
                "{whose} may make {max} queries at once (burst), and this request alone has more"
            ),
            (Limit::Concurrent, Some(_)) => {
                write!(f, "{whose} may have {max} queries under way (concurrent)")
            }
            (Limit::Concurrent, None) => write!(
                f,
                "{whose} may have {max} queries under way (concurrent), and this request alone \
                 has more"
            ),
            (Limit::BodyBytes, Some(_)) => {
                write!(f, "{whose} may have bodies of {max} bytes under way (body_bytes)")
            }
            (Limit::BodyBytes, None) => write!(
                f,
                "{whose} may have bodies of {max} bytes under way (body_bytes), and this one alone \
                 has more"
            ),
        }
    }
}

/// What somebody has asked for; it outlives a change of the limits.
#[derive(Debug)]
struct Usage {
    /// Times count from here.
    since: Instant,
    /// When the allowance of the rate is whole again, nanoseconds.
    whole_at: AtomicU64,
    /// Queries and bytes of bodies under way.
    queries: AtomicU64,
    bytes: AtomicU64,
    admitted: AtomicU64,
    refused: [AtomicU64; Limit::ALL.len()],
}

/// The limits of one key or application.
#[derive(Debug)]
pub struct Quota {
    whose: Whose,
    limits: Limits,
    usage: Arc<Usage>,
}

impl Quota {
    /// Nothing has been asked for yet.
    #[must_use]
    pub fn new(whose: Whose, limits: Limits, now: Instant) -> Arc<Self> {
        let usage = Usage {
            since: now,
            whole_at: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            refused: Default::default(),
        };
        Arc::new(Self { whose, limits, usage: Arc::new(usage) })
    }

    /// Other limits from now on; what has been asked for counts.
    #[must_use]
    pub fn with(&self, limits: Limits) -> Arc<Self> {
        Arc::new(Self { whose: self.whose.clone(), limits, usage: Arc::clone(&self.usage) })
    }

    #[must_use]
    pub fn whose(&self) -> &Whose {
        &self.whose
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Queries that are being answered.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.usage.queries.load(Relaxed)
    }

    /// Queries that were within the limits.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.usage.admitted.load(Relaxed)
    }

    /// Requests that were not.
    #[must_use]
    pub fn refused(&self, limit: Limit) -> u64 {
        self.usage.refused.get(limit as usize).map_or(0, |count| count.load(Relaxed))
    }

    fn exceeded(&self, limit: Limit, max: u64, wait: Option<Duration>) -> Exceeded {
        if let Some(count) = self.usage.refused.get(limit as usize) {
            count.fetch_add(1, Relaxed);
        }
        Exceeded { whose: self.whose.clone(), limit, max, wait }
    }

    /// The time of one query, and of a burst, nanoseconds.
    fn pace(&self) -> Option<(u64, u64)> {
        let rate = self.limits.rate?;
        let interval = (SECOND_NS / u64::from(rate.get())).max(1);
        Some((interval, interval.saturating_mul(self.burst(rate.get()))))
    }

    fn burst(&self, rate: u32) -> u64 {
        u64::from(self.limits.burst.map_or(rate, std::num::NonZeroU32::get))
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.usage.since);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// Whether one more query would be let through; nothing is taken.
    fn check(&self, now: Instant) -> Result<(), Exceeded> {
        if let Some(max) = self.limits.concurrent.map(|max| u64::from(max.get()))
            && self.under_way() >= max
        {
            return Err(self.exceeded(Limit::Concurrent, max, Some(SOON)));
        }
        let (Some((interval, burst)), Some(rate)) = (self.pace(), self.limits.rate) else {
            return Ok(());
        };
        let now = self.nanos(now);
        let next = self.usage.whole_at.load(Relaxed).max(now).saturating_add(interval);
        match next.saturating_sub(now.saturating_add(burst)) {
            0 => Ok(()),
            wait => {
                let wait = Some(Duration::from_nanos(wait));
                Err(self.exceeded(Limit::Rate, u64::from(rate.get()), wait))
            }
        }
    }

    /// Takes queries of the rate.
    fn take(&self, queries: u64, now: Instant) -> Result<(), Exceeded> {
        let (Some((interval, burst)), Some(rate)) = (self.pace(), self.limits.rate) else {
            return Ok(());
        };
        let at_once = self.burst(rate.get());
        if queries > at_once {
            return Err(self.exceeded(Limit::Rate, at_once, None));
        }
        let (now, cost) = (self.nanos(now), interval.saturating_mul(queries));
        let mut wait = 0;
        let taken = self.usage.whole_at.fetch_update(Relaxed, Relaxed, |whole_at| {
            let next = whole_at.max(now).saturating_add(cost);
            wait = next.saturating_sub(now.saturating_add(burst));
            (wait == 0).then_some(next)
        });
        let wait = || Some(Duration::from_nanos(wait));
        taken.map(drop).map_err(|_| self.exceeded(Limit::Rate, u64::from(rate.get()), wait()))
    }

    /// Gives back what [`Self::take`] has taken.
    fn give_back(&self, queries: u64) {
        if let Some((interval, _)) = self.pace() {
            self.usage.whole_at.fetch_sub(interval.saturating_mul(queries), Relaxed);
        }
    }
}

/// What one request takes of a quota.
#[derive(Debug)]
struct QuotaUse {
    quota: Arc<Quota>,
    queries: u64,
    bytes: u64,
}

impl QuotaUse {
    fn hold(&mut self, queries: u64) -> Result<(), Exceeded> {
        let quota = &self.quota;
        if let Some(max) = quota.limits.concurrent.map(|max| u64::from(max.get())) {
            if queries > max {
                return Err(quota.exceeded(Limit::Concurrent, max, None));
            }
            let under_way = quota.usage.queries.fetch_add(queries, Relaxed) + queries;
            if under_way > max {
                quota.usage.queries.fetch_sub(queries, Relaxed);
                return Err(quota.exceeded(Limit::Concurrent, max, Some(SOON)));
            }
        } else {
            quota.usage.queries.fetch_add(queries, Relaxed);
        }
        self.queries += queries;
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Exceeded> {
        let quota = &self.quota;
        let Some(max) = quota.limits.body_bytes.map(std::num::NonZeroU64::get) else {
            return Ok(());
        };
        if self.bytes.saturating_add(bytes) > max {
            return Err(quota.exceeded(Limit::BodyBytes, max, None));
        }
        if quota.usage.bytes.fetch_add(bytes, Relaxed) + bytes > max {
            quota.usage.bytes.fetch_sub(bytes, Relaxed);
            return Err(quota.exceeded(Limit::BodyBytes, max, Some(SOON)));
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for QuotaUse {
    fn drop(&mut self) {
        self.quota.usage.queries.fetch_sub(self.queries, Relaxed);
        self.quota.usage.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// Who asks, and what the request takes of the quotas that it counts against; given back when it is
/// dropped. Most count against none.
#[derive(Debug, Default)]
pub struct Claim {
    by: Tenant,
    parts: Option<Box<SmallVec<[QuotaUse; 2]>>>,
}

impl Claim {
    /// Of a request of somebody that counts against these.
    #[must_use]
    pub fn of(by: Tenant, quotas: impl IntoIterator<Item = Arc<Quota>>) -> Self {
        let mut claim = Self { by, parts: None };
        quotas.into_iter().for_each(|quota| claim.count_against(quota));
        claim
    }

    fn count_against(&mut self, quota: Arc<Quota>) {
        self.parts.get_or_insert_default().push(QuotaUse { quota, queries: 0, bytes: 0 });
    }

    /// Counts against another quota as well, with so many bytes that its body has by now: who asks
    /// may be known before it is known what for.
    ///
    /// # Errors
    /// That has no room for them.
    pub fn also(&mut self, quota: Arc<Quota>, bytes: usize) -> Result<(), Exceeded> {
        self.count_against(quota);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX / 2);
        self.parts_mut().last_mut().map_or(Ok(()), |part| part.grow(bytes))
    }

    /// Who asks.
    #[must_use]
    pub fn by(&self) -> Tenant {
        self.by
    }

    fn parts(&self) -> &[QuotaUse] {
        match &self.parts {
            Some(parts) => parts,
            None => &[],
        }
    }

    fn parts_mut(&mut self) -> &mut [QuotaUse] {
        match &mut self.parts {
            Some(parts) => parts,
            None => &mut [],
        }
    }

    /// Whether it counts against any.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.parts.is_some()
    }

    /// Whether one query could be let through now; before anything else is done for the request.
    ///
    /// # Errors
    /// The limit that does not let it.
    pub fn check(&self, now: Instant) -> Result<(), Exceeded> {
        self.parts().iter().try_for_each(|part| part.quota.check(now))
    }

    /// Takes room for so many more bytes of its body.
    ///
    /// # Errors
    /// The limit that leaves none.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exceeded> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX / 2);
        self.parts_mut().iter_mut().try_for_each(|part| part.grow(bytes))
    }

    /// Lets so many queries through.
    ///
    /// # Errors
    /// The limit that does not let them; nothing of a rate is taken then.
    pub fn admit(&mut self, queries: usize, now: Instant) -> Result<(), Exceeded> {
        let queries = u64::try_from(queries).unwrap_or(u64::MAX / 2);
        let parts = self.parts_mut();
        parts.iter_mut().try_for_each(|part| part.hold(queries))?;
        for at in 0..parts.len() {
            let (before, rest) = parts.split_at(at);
            let Some(part) = rest.first() else { break };
            if let Err(exceeded) = part.quota.take(queries, now) {
                for part in before {
                    part.quota.give_back(queries);
                }
                return Err(exceeded);
            }
        }
        for part in parts {
            part.quota.usage.admitted.fetch_add(queries, Relaxed);
        }
        Ok(())
    }

    /// The class that a query may have that asks for this one.
    #[must_use]
    pub fn class(&self, asked: Class) -> Class {
        let highest = self.parts().iter().filter_map(|part| part.quota.limits.priority);
        highest.fold(asked, Class::min)
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
