//! What a browser may be made to send by somebody else's page. Pure.
//!
//! A page of a stranger reaches this machine by a name of his that he makes lead here (DNS
//! rebinding), or by sending a form to another site, which browsers do without asking if the body
//! is of a type that forms have.

use std::net::IpAddr;

/// Whether a `Host` header names this server: by an address, as `localhost`, by a name without a
/// dot, or by one of `names`. A stranger can have none of these but the last lead anywhere: names
/// without a dot are those of one network.
#[must_use]
pub fn is_host_ours(host: &str, names: &[String]) -> bool {
    let name = without_port(host);
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let name = name.trim_end_matches('.');
    let is_local = !name.is_empty() && !name.contains('.') && !name.contains(char::is_whitespace);
    let is_named = || names.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    is_address || is_local || name.to_ascii_lowercase().ends_with(".localhost") || is_named()
}

/// Whether an `Origin` header is that of a page of this server itself.
#[must_use]
pub fn is_origin_ours(origin: &str, host: &str) -> bool {
    let of_page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    of_page.is_some_and(|of_page| !host.is_empty() && of_page.eq_ignore_ascii_case(host))
}

/// Whether a content type is JSON, which no form has.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_stranger_can_own_are_not_ours() {
        let names = ["clipper.example.com".to_owned()];
        for host in [
            "127.0.0.1:1338",
            "10.0.0.7",
            "[::1]:1338",
            "localhost:1338",
            "LOCALHOST",
            "a.localhost",
            "clipper:1338",
            "clipper.example.com:1338",
            "CLIPPER.example.com.",
        ] {
            assert!(is_host_ours(host, &names), "{host}");
        }
        for host in ["", "evil.com", "evil.com:1338", "127.0.0.1.evil.com", "localhost.evil.com"] {
            assert!(!is_host_ours(host, &names), "{host}");
        }
    }

    #[test]
    fn a_page_is_ours_if_it_came_from_here() {
        assert!(is_origin_ours("http://127.0.0.1:1338", "127.0.0.1:1338"));
        assert!(is_origin_ours("https://clipper:1338", "clipper:1338"));
        for origin in ["null", "", "http://evil.com", "http://127.0.0.1:8000", "file://"] {
            assert!(!is_origin_ours(origin, "127.0.0.1:1338"), "{origin}");
        }
        assert!(!is_origin_ours("http://", ""));
    }

    #[test]
    fn json_has_its_own_types() {
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
            assert!(is_json(kind), "{kind}");
        }
        for kind in ["", "text/plain", "application/x-www-form-urlencoded", "text/plain; a=json"] {
            assert!(!is_json(kind), "{kind}");
        }
    }
}
