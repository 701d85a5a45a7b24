//! Whose key came with a request: what handlers are told of it, and what a connection remembers.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::{HttpMessage as _, HttpRequest};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroize as _;

use crate::access::{Access, Holder, Refused, Shown};
use clipper_clock as clock;
use clipper_domain::{AccessKey, Action};
use clipper_scheduling::quota::Quota;
use clipper_scheduling::share::Tenant;

/// A longer header is looked up anew for each request: connections together would hold much.
const HEADER_MAX_BYTES: usize = 2 << 10;

/// Whoever asks, for handlers that have to know.
#[derive(Debug)]
pub struct Holding {
    holder: Holder,
    access: Arc<Access>,
    asker: Asker,
}

impl Holding {
    fn new(holder: Holder, access: &Arc<Access>) -> Rc<Self> {
        let asker = Asker::of(&holder.key, access);
        Rc::new(Self { holder, access: Arc::clone(access), asker })
    }

    /// Ends when the key is no good any more, and says so.
    pub async fn ended(&self) -> Refused {
        self.access.ended(&self.holder).await
    }

    /// Whose key it is.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Whoever asks, as far as limits go.
    #[must_use]
    pub fn asker(&self) -> &Asker {
        &self.asker
    }
}

/// Who holds the key that came with a request, if one was needed.
#[must_use]
pub fn holding(request: &HttpRequest) -> Option<Rc<Holding>> {
    request.extensions().get::<Rc<Holding>>().cloned()
}

/// Ends when the key of who asks is no good any more, and says so; never for those who needed none.
pub async fn ended(holding: Option<Rc<Holding>>) -> Refused {
    match holding {
        Some(holding) => holding.ended().await,
        None => std::future::pending().await,
    }
}

/// Whoever asks, as far as limits go.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    pub name: Tenant,
    /// What limits it, if anything does.
    pub quota: Option<Arc<Quota>>,
}

impl Asker {
    /// The holder of a key.
    #[must_use]
    pub fn of(key: &AccessKey, access: &Access) -> Self {
        Self { name: Tenant::of(key.name.as_str()), quota: access.quota(key) }
    }
}

/// Whoever sent a request, as far as limits go.
#[must_use]
pub fn asker(request: &HttpRequest) -> Asker {
    let holding = holding(request);
    holding.map(|holding| holding.asker.clone()).unwrap_or_default()
}

/// Whose key came with a request, if one was needed.
#[must_use]
pub fn holder(request: &HttpRequest) -> Option<Arc<AccessKey>> {
    holding(request).map(|holding| Arc::clone(&holding.holder.key))
}

/// Whose header came last over a connection: the next request mostly has the same one, which is
/// compared then and not hashed and looked up.
#[derive(Debug)]
struct LastKnown {
    header: KeyHeader,
    /// Of the keys: when they change, everybody is looked up again.
    epoch: u64,
    until_ms: Option<u64>,
    holding: Rc<Holding>,
    /// The path that it was let in to last.
    path: Box<str>,
}

/// It does not stay in memory that is given back.
struct KeyHeader(Box<[u8]>);

impl fmt::Debug for KeyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Header")
    }
}

impl KeyHeader {
    /// Takes as long whatever differs; several bytes at a time.
    fn is(&self, header: &[u8]) -> bool {
        let ((words, rest), (others, other_rest)) = (self.0.as_chunks::<8>(), header.as_chunks());
        let is_same = |(word, other): (&[u8; 8], &[u8; 8])| {
            u64::from_ne_bytes(*word).ct_eq(&u64::from_ne_bytes(*other))
        };
        let are_same = words.iter().zip(others).map(is_same).fold(Choice::from(1), |a, b| a & b);
        self.0.len() == header.len() && (are_same & rest.ct_eq(other_rest)).into()
    }
}

impl Drop for KeyHeader {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl LastKnown {
    /// `epoch` is that of the keys before the header was looked up.
    fn new(header: &[u8], epoch: u64, holding: &Rc<Holding>) -> Option<Self> {
        if header.len() > HEADER_MAX_BYTES {
            return None;
        }
        let until_ms = holding.access.until(&holding.holder).ok()?;
        let header = KeyHeader(header.into());
        let path = Box::default();
        Some(Self { header, epoch, until_ms, holding: Rc::clone(holding), path })
    }

    /// Whether it was let in to this path last.
    fn was_at(&self, path: &str) -> bool {
        *self.path == *path
    }

    /// It was let in.
    fn is_at(&mut self, path: &str) {
        if !self.was_at(path) {
            self.path = path.into();
        }
    }

    /// Whose this header is, if it is the same one and nothing has changed.
    fn find(&self, header: &[u8], access: &Access) -> Option<Rc<Holding>> {
        let is_over = || self.until_ms.is_some_and(|at| at <= clock::unix_millis());
        if self.epoch != access.epoch() || !self.header.is(header) || is_over() {
            return None;
        }
        Some(Rc::clone(&self.holding))
    }
}

/// What a connection remembers of who asks.
#[derive(Debug, Default)]
pub struct Memory(RefCell<Option<LastKnown>>);

impl Memory {
    /// As [`Access::check`]; without a memory everybody is looked up.
    ///
    /// # Errors
    /// As there.
    pub fn check(
        memory: Option<&Self>,
        (action, name): (Action, Option<&str>),
        (shown, access): (Shown<'_>, &Arc<Access>),
    ) -> Result<Option<Rc<Holding>>, Refused> {
        if !access.asks_for(action) {
            return Ok(None);
        }
        let holding = Self::holding(memory, shown, access)?;
        holding.holder.key.check(action, name)?;
        Ok(Some(holding))
    }

    /// Who asks, whatever for: whoever came last, if it is the same header.
    fn holding(
        memory: Option<&Self>,
        shown: Shown<'_>,
        access: &Arc<Access>,
    ) -> Result<Rc<Holding>, Refused> {
        let remembering = memory.zip(shown.header);
        let known = |(memory, header): (&Self, _)| memory.0.borrow().as_ref()?.find(header, access);
        if let Some(holding) = remembering.and_then(known) {
            return Ok(holding);
        }
        let epoch = access.epoch();
        let holding = Holding::new(access.holder(shown)?, access);
        if let Some((memory, header)) = remembering {
            memory.0.replace(LastKnown::new(header, epoch, &holding));
        }
        Ok(holding)
    }

    /// Whoever came last, if it is the same header and was let in to this path.
    pub(super) fn let_in_before(
        &self,
        path: &str,
        (header, access): (&[u8], &Access),
    ) -> Option<Rc<Holding>> {
        self.0.borrow().as_ref().filter(|known| known.was_at(path))?.find(header, access)
    }

    /// Whoever came last was let in to this path.
    pub(super) fn let_in(&self, path: &str) {
        if let Some(known) = &mut *self.0.borrow_mut() {
            known.is_at(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::hash;
    use clipper_config::AccessConfig;
    use clipper_domain::access::listed::parse;

    #[test]
    fn a_header_is_known_while_it_is_the_same_and_the_keys_are() {
        let (one, other) = ("1".repeat(32), "2".repeat(32));
        let list = format!("one predict {one}\nother predict {other}");
        let access = Access::new(&AccessConfig::default(), parse(&list, hash).unwrap(), true);
        let header = format!("Bearer {one}").into_bytes();
        let known = |header: &[u8]| {
            let epoch = access.epoch();
            let holder = access.holder(Shown { header: Some(header), ..Shown::default() }).unwrap();
            LastKnown::new(header, epoch, &Holding::new(holder, &access))
        };
        let found = known(&header).unwrap();
        assert_eq!(found.find(&header, &access).unwrap().holder.key.name.as_str(), "one");
        assert!(found.find(format!("Bearer {other}").as_bytes(), &access).is_none());
        assert!(found.find(&header[..header.len() - 1], &access).is_none());
        for at in 0..header.len() {
            let mut other = header.clone();
            other[at] ^= 1;
            assert!(found.find(&other, &access).is_none(), "{at}");
        }
        let mut found = found;
        assert!(!found.was_at("/a/predict"));
        found.is_at("/a/predict");
        assert!(found.was_at("/a/predict") && !found.was_at("/b/predict"));
        let long = [&header[..], &[b' '; HEADER_MAX_BYTES]].concat();
        assert!(known(&long).is_none(), "it is good, and not kept");
        access.take_listed(parse(&format!("other predict {other}"), hash).unwrap());
        assert!(found.find(&header, &access).is_none(), "it was taken out");
        let soon = clock::unix_millis() + 60_000;
        let later = LastKnown { epoch: access.epoch(), until_ms: Some(soon), ..found };
        assert!(later.find(&header, &access).is_some());
        let over = LastKnown { until_ms: Some(clock::unix_millis()), ..later };
        assert!(over.find(&header, &access).is_none());
    }
}
