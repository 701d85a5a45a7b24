//! From a body to what is made of it, whatever protocol it came by: it is inflated within the
//! limits, whoever sent it pays for what comes of it, and only then it is read; away from the
//! threads that answer queries where that may take long.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Payload};

use super::body::{self, Body, BodyLimits};
use super::errors::{self, ApiError};
use super::parsing::Parsing;
use crate::priority::Undone;
use clipper_clock::Instant;
use clipper_oip::{Encoding, InflateError, inflate};
use clipper_scheduling::budget::Held;
use clipper_scheduling::quota::Claim;

/// A body in one piece, as it was before it was compressed.
#[derive(Debug)]
pub struct Opened {
    pub text: Bytes,
    /// What it holds of the sum of all bodies.
    pub held: Option<Held>,
    /// Whether this thread may take its time.
    pub is_aside: bool,
}

/// What `then` makes of a body that is of use until `due`. Of a compressed one `claim` has paid for
/// the packed bytes; it pays for the rest as they come, so that a body that is broken, endless or
/// not understood costs what was made of it.
///
/// # Errors
/// What `then` refuses. 400 where the body is not of its encoding, 413 above the limit of one body,
/// 503 above that of all or when it is not made in time, 413 or 429 by the claim.
pub async fn opened<T: Send + 'static>(
    mut body: Body,
    claim: &mut Claim,
    within: (&BodyLimits, &Parsing),
    due: Option<Instant>,
    then: impl FnOnce(Opened) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if body.encoding() == Encoding::Identity && !within.1.is_long(body.size()) {
        let held = body.take_held();
        return then(Opened { text: body.join(), held, is_aside: false });
    }
    // Boxed: most bodies are short, and would have its room moved about for nothing.
    Box::pin(apart(body, claim, within, due, then)).await
}

async fn apart<T: Send + 'static>(
    body: Body,
    claim: &mut Claim,
    (limits, parsing): (&BodyLimits, &Parsing),
    due: Option<Instant>,
    then: impl FnOnce(Opened) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (is_packed, bytes) = (body.encoding() != Encoding::Identity, body.size());
    // How long an inflated body takes is not known from its size: half a kilobyte can be 16 MB.
    let most = if is_packed { limits.max_bytes } else { bytes };
    // With the work goes the claim: what nobody waits for any more is under way until it ends.
    let (limits, mut paying) = (limits.clone(), std::mem::take(claim));
    let work = move || {
        let made = inflated(body, &mut paying, &limits).and_then(then);
        (made, paying)
    };
    let done = match due {
        None => parsing.aside(most, work).await.ok_or(Undone::Broken),
        Some(due) if is_packed => parsing.run_apart(most, due, work).await,
        Some(due) => parsing.run(most, due, work).await,
    };
    let (made, paid) = done.map_err(not_parsed)?;
    *claim = paid;
    made
}

fn inflated(mut body: Body, claim: &mut Claim, limits: &BodyLimits) -> Result<Opened, ApiError> {
    let (encoding, held) = (body.encoding(), body.take_held());
    let packed = body.join();
    if encoding == Encoding::Identity {
        return Ok(Opened { text: packed, held, is_aside: true });
    }
    let mut held = held.unwrap_or_else(|| limits.all.hold());
    let (mut paid, mut exceeded) = (packed.len(), None);
    let pays_for = |made: usize| {
        let owed = made.saturating_sub(paid);
        paid += owed;
        exceeded = claim.grow(owed).err();
        exceeded.is_none()
    };
    let text = inflate(&packed, encoding, limits.max_bytes, |more| held.grow(more), pays_for)
        .map_err(|error| exceeded.map_or_else(|| not_inflated(&error, limits), ApiError::from))?;
    drop(packed);
    // Less is always granted.
    let _ = held.resize(text.len());
    Ok(Opened { text: text.into(), held: Some(held), is_aside: true })
}

fn not_inflated(error: &InflateError, limits: &BodyLimits) -> ApiError {
    match error {
        InflateError::Broken(_) => {
            ApiError::new(errors::BROKEN_BODY, format!("{}: {error}", limits.terms.encoding))
        }
        InflateError::TooLong(_) | InflateError::Unpaid => limits.too_large(),
        InflateError::NoRoom => body::too_much_in_sum(limits),
    }
}

/// Reads the whole body and inflates it, away from the thread that answers.
///
/// # Errors
/// Those of [`body::read`] and [`opened`].
pub async fn read(
    request: &HttpRequest,
    payload: Payload,
    limits: &BodyLimits,
    parsing: &Parsing,
) -> Result<Body, ApiError> {
    let body = body::read(request, payload, limits).await?;
    if body.encoding() == Encoding::Identity {
        return Ok(body);
    }
    let whole = |Opened { text, held, .. }: Opened| Ok(Body::of(text, held));
    opened(body, &mut Claim::default(), (limits, parsing), None, whole).await
}

/// 503 by `http.parse_threads`.
#[must_use]
pub fn not_parsed(why: Undone) -> ApiError {
    let cause = match why {
        Undone::Crowded => {
            "The bodies of others were parsed for as long as this one could wait \
             (http.parse_threads)"
        }
        Undone::Overdue => {
            "The body was not parsed within the latency objective: send fewer inputs at once, or \
             give the application a longer objective"
        }
        Undone::Broken => return ApiError::unavailable("The body could not be parsed"),
    };
    ApiError::new(errors::OVERLOADED, cause)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;
    use std::time::Duration;

    use clipper_clock as clock;
    use clipper_domain::{KeyName, Limits};
    use clipper_scheduling::budget::Budget;
    use clipper_scheduling::quota::{Quota, Whose};
    use clipper_scheduling::share::Tenant;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::body::Terms;
    use super::*;

    const BODY_MAX: usize = 1 << 20;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes of a gzip body of somebody who may have so many bytes under way; `left` are left
    /// to him until its request ends.
    async fn sent(gzip: &[u8], may_have: i64, left: Option<usize>) -> Result<usize, ApiError> {
        let limits = Limits::of([None, None, None, Some(may_have)], None).unwrap();
        let name = Whose::Key(KeyName::parse("team").unwrap());
        let quota = Quota::new(name, limits, clock::now());
        let claim = || Claim::of(Tenant::NOBODY, [Arc::clone(&quota)]);
        let has = |bytes| claim().grow(bytes).is_ok();
        let long = Duration::from_secs(60);
        let (all, terms) = (Budget::new(8 << 20), Terms::HTTP);
        let bodies = BodyLimits { max_bytes: BODY_MAX, idle: long, request: long, all, terms };
        let parsing = Parsing::new(1, Duration::from_millis(1)).unwrap();
        let mut own = claim();
        own.grow(gzip.len()).unwrap();
        let body = Body::of(Bytes::copy_from_slice(gzip), None).encoded(Encoding::Gzip);
        let then = |opened: Opened| match opened.text.first() {
            Some(b'{') => Ok(opened.text.len()),
            _ => Err(ApiError::json("not understood")),
        };
        let due = Some(clock::now() + long);
        let made = opened(body, &mut own, (&bodies, &parsing), due, then).await;
        assert!(left.is_none_or(|left| has(left) && !has(left + 1)), "{left:?} are left");
        drop(own);
        assert!(has(usize::try_from(may_have).unwrap()), "all is given back");
        made
    }

    #[tokio::test]
    async fn what_comes_of_a_body_is_paid_for_before_it_is_read_and_whatever_it_is() {
        let text = |first: u8, bytes: usize| [vec![first], vec![b' '; bytes - 1]].concat();
        let good = sent(&packed(&text(b'{', 5_000)), 6_000, Some(1_000)).await;
        assert_eq!(good.unwrap(), 5_000);
        let label = |made: Result<usize, ApiError>| made.unwrap_err().label;
        let unread = packed(&text(b'[', 5_000));
        assert_eq!(label(sent(&unread, 6_000, Some(1_000)).await), errors::JSON.label);
        let mut broken = packed(&text(b'{', 5_000));
        let checksum = broken.len() - 8;
        broken[checksum] ^= 1;
        assert_eq!(label(sent(&broken, 6_000, Some(1_000)).await), errors::BROKEN_BODY.label);
        let (bomb, most) = (packed(&text(b'{', 4 * BODY_MAX)), i64::try_from(BODY_MAX).unwrap());
        assert_eq!(label(sent(&bomb, most + 10, Some(10)).await), errors::TOO_LARGE.label);
        // Who may not have so much hears that, and not what is wrong with it.
        for beyond in [unread, broken, bomb] {
            let refused = sent(&beyond, 4_500, None).await.unwrap_err();
            assert_eq!(refused.label, errors::TOO_LARGE.label);
            assert!(refused.cause.contains("Key 'team'"), "{}", refused.cause);
        }
    }
}
