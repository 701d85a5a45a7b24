//! Tests of [`super`].

use super::*;
use clipper_domain::access::listed::parse;
use clipper_domain::access::{Denied, PublicIdentity};
use futures_util::FutureExt as _;

fn access(text: &str) -> Arc<Access> {
    Access::new(&AccessConfig::default(), parse(text, hash).unwrap(), true)
}

fn bearer(secret: &str) -> Vec<u8> {
    format!("Bearer {secret}").into_bytes()
}

#[test]
fn without_a_key_nothing_is_asked_and_with_one_everything_is() {
    let none = access("");
    assert_eq!(none.check((Action::ManageKeys, None), Shown::default()), Ok(None));
    let own = access(&format!("c container {}", "0".repeat(32)));
    assert!(own.asks_containers() && !own.asks(), "keys of containers ask nobody else");
    let secret = new_secret().unwrap();
    let some = access(&format!("ci predict {secret} a-*"));
    let check = |action, name, header: Option<&[u8]>| {
        some.check((action, name), Shown { header, ..Shown::default() })
    };
    assert_eq!(check(Action::Predict, Some("a-1"), None), Err(Refused::Missing));
    assert_eq!(check(Action::Health, None, None), Ok(None));
    let good = bearer(&secret);
    let holder = check(Action::Predict, Some("a-1"), Some(&good)).unwrap().unwrap();
    assert_eq!(holder.key.name.as_str(), "ci");
    assert!(matches!(
        check(Action::Predict, Some("b"), Some(&good)),
        Err(Refused::Denied(Denied::Name { .. }))
    ));
    assert!(matches!(
        check(Action::Operate, None, Some(&good)),
        Err(Refused::Denied(Denied::Role { .. }))
    ));
    let wrong = bearer(&secret[1..]);
    assert_eq!(check(Action::Predict, None, Some(&wrong)), Err(Refused::Unknown));
    assert_eq!(check(Action::Predict, None, Some(b"x")), Err(Refused::Malformed));
}

#[test]
fn a_certificate_stands_for_a_key_where_no_header_came() {
    let secret = new_secret().unwrap();
    let list = format!("ci predict {secret}\neye observe certificate:dns:eye.example");
    let some = access(&list);
    let of = |name: &str| {
        let identity = PublicIdentity::certificate(name).unwrap();
        hash(identity.as_bytes())
    };
    let own = [of(&"0a".repeat(32)), of("dns:eye.example")];
    let check = |header: Option<&[u8]>, certificates: &[SecretHash]| {
        let shown = Shown { header, certificates, from: None };
        some.check((Action::Observe, None), shown)
    };
    let holder = check(None, &own).unwrap().unwrap();
    assert!(holder.key.name.as_str() == "eye" && holder.is_by_certificate());
    assert_eq!(check(None, &own[..1]), Err(Refused::Certificate));
    assert_eq!(check(None, &[]), Err(Refused::Missing));
    // A header says who asks, whatever certificate the connection has.
    let header = bearer(&secret);
    assert!(matches!(check(Some(&header), &own), Err(Refused::Denied(_))));
    let header = bearer("certificate:dns:eye.example");
    assert_eq!(check(Some(&header), &own), Err(Refused::Malformed));
}

#[test]
fn an_address_with_many_wrong_keys_is_told_to_wait_and_its_good_ones_are_good() {
    let secret = new_secret().unwrap();
    let some = access(&format!("ci predict {secret}"));
    let from = Some(IpAddr::from([10, 0, 0, 1]));
    let check = |header: Vec<u8>| {
        let shown = Shown { header: Some(&header), from, ..Shown::default() };
        some.check((Action::Predict, None), shown)
    };
    let told = std::iter::repeat_with(|| check(bearer("wrong")).unwrap_err());
    let first = told.take(1_000).find(|refused| matches!(refused, Refused::TooOften { .. }));
    assert!(first.is_some());
    assert!(check(bearer(&secret)).is_ok());
}

#[tokio::test]
async fn what_goes_on_ends_with_its_key() {
    let secret = new_secret().unwrap();
    let line = format!("ci predict {secret}");
    let some = access(&line);
    let holder = some.identify(KnownBy::Secret, secret.as_bytes()).unwrap();
    let mut ended = std::pin::pin!(some.ended(&holder));
    assert!(ended.as_mut().now_or_never().is_none());
    assert!(!some.take_listed(parse(&line, hash).unwrap()), "the same keys");
    assert!(some.take_listed(parse(&format!("{line}\neye observe {secret}1"), hash).unwrap()));
    assert!(ended.as_mut().now_or_never().is_none(), "its line is there");
    some.take_listed(Vec::new());
    assert_eq!(ended.await, Refused::NoMore(holder.key.name.clone()));
    // At its time.
    let soon = clock::unix_millis() + 50;
    let key = AccessKey { expires_at_ms: Some(soon), ..(*holder.key).clone() };
    some.take(std::iter::once(&key));
    assert_eq!(some.ended(&holder).await, Refused::NoMore(holder.key.name.clone()));
    assert!(clock::unix_millis() >= soon);
}
