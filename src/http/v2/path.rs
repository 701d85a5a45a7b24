//! The endpoints, by hand as those of the query frontend.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'p> {
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/models`
    Models,
    /// `/v2/models/stats`
    AllStatistics,
    /// `/v2/repository/index`
    Index,
    /// `/v2/repository/models/{name}/load` and `unload`
    Repository,
    /// `/v2/models/{name}[/versions/{version}][/...]`
    Model { name: Cow<'p, str>, version: Option<Cow<'p, str>>, page: Page },
}

/// What of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Metadata,
    Ready,
    Config,
    Statistics,
    Infer,
    Generate,
    GenerateStream,
}

const PAGE: &str = "GET, HEAD, OPTIONS";
const ORDER: &str = "POST, OPTIONS";

impl Endpoint<'_> {
    /// The methods it takes.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Index
            | Self::Repository
            | Self::Model { page: Page::Infer | Page::Generate | Page::GenerateStream, .. } => {
                ORDER
            }
            _ => PAGE,
        }
    }

    /// What is asked for predictions, its names left out; none of the others.
    pub(super) fn route(&self) -> Option<&'static str> {
        let Self::Model { version, page, .. } = self else { return None };
        Some(match (page, version.is_some()) {
            (Page::Infer, false) => "/v2/models/{name}/infer",
            (Page::Infer, true) => "/v2/models/{name}/versions/{version}/infer",
            (Page::Generate, false) => "/v2/models/{name}/generate",
            (Page::Generate, true) => "/v2/models/{name}/versions/{version}/generate",
            (Page::GenerateStream, false) => "/v2/models/{name}/generate_stream",
            (Page::GenerateStream, true) => "/v2/models/{name}/versions/{version}/generate_stream",
            _ => return None,
        })
    }
}

/// The endpoint of a path, if it is one.
pub(super) fn endpoint(path: &str) -> Option<Endpoint<'_>> {
    let rest = path.strip_prefix("/v2")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut parts = rest.split('/').skip(1);
    // No path here is longer than six.
    let parts: [Option<&str>; 7] = std::array::from_fn(|_| parts.next());
    let page = |part: Option<&str>| {
        Some(match part {
            None => Page::Metadata,
            Some("ready") => Page::Ready,
            Some("config") => Page::Config,
            Some("stats") => Page::Statistics,
            Some("infer") => Page::Infer,
            Some("generate") => Page::Generate,
            Some("generate_stream") => Page::GenerateStream,
            Some(_) => return None,
        })
    };
    Some(match parts {
        [None, ..] => Endpoint::Server,
        [Some("health"), Some("live"), None, ..] => Endpoint::Live,
        [Some("health"), Some("ready"), None, ..] => Endpoint::Ready,
        [Some("models"), None, ..] => Endpoint::Models,
        [Some("models"), Some("stats"), None, ..] => Endpoint::AllStatistics,
        [Some("models"), Some(name), Some("versions"), Some(version), last, None, ..] => {
            Endpoint::Model {
                name: name_of(name)?,
                version: Some(name_of(version)?),
                page: page(last)?,
            }
        }
        [Some("models"), Some(name), last, None, ..] => {
            Endpoint::Model { name: name_of(name)?, version: None, page: page(last)? }
        }
        [Some("repository"), Some("index"), None, ..] => Endpoint::Index,
        [Some("repository"), Some("models"), Some(_), Some("load" | "unload"), None, ..] => {
            Endpoint::Repository
        }
        _ => return None,
    })
}

fn name_of(part: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(part).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::table::{Port, TABLE, listed};

    #[test]
    fn every_row_of_who_may_do_what_is_an_endpoint() {
        let rows =
            TABLE.iter().filter(|row| row.port == Port::Query && row.path.starts_with("/v2"));
        for row in rows {
            let found = endpoint(row.path).map(|found| found.methods().contains(row.method));
            assert_eq!(found, Some(true), "{} {}", row.method, row.path);
        }
    }

    #[test]
    fn every_endpoint_is_found_with_or_without_a_last_slash() {
        let model = |name: &'static str, version: Option<&'static str>, page| Endpoint::Model {
            name: name.into(),
            version: version.map(Into::into),
            page,
        };
        for (path, expected) in [
            ("/v2", Endpoint::Server),
            ("/v2/health/live", Endpoint::Live),
            ("/v2/health/ready", Endpoint::Ready),
            ("/v2/models", Endpoint::Models),
            ("/v2/models/stats", Endpoint::AllStatistics),
            ("/v2/repository/index", Endpoint::Index),
            ("/v2/repository/models/m/load", Endpoint::Repository),
            ("/v2/models/m", model("m", None, Page::Metadata)),
            ("/v2/models/a%20b/ready", model("a b", None, Page::Ready)),
            ("/v2/models/m/infer", model("m", None, Page::Infer)),
            ("/v2/models/m/generate", model("m", None, Page::Generate)),
            (
                "/v2/models/m/versions/1/generate_stream",
                model("m", Some("1"), Page::GenerateStream),
            ),
            ("/v2/models/m/versions/v10", model("m", Some("v10"), Page::Metadata)),
            ("/v2/models/m/versions/1/config", model("m", Some("1"), Page::Config)),
            ("/v2/models/m/versions/1/stats", model("m", Some("1"), Page::Statistics)),
        ] {
            assert_eq!(endpoint(path), Some(expected), "{path}");
            assert_eq!(endpoint(&format!("{path}/")), endpoint(path), "{path}");
            assert!(listed(Port::Query, path).is_some(), "{path} is not in access/table.rs");
        }
        for path in [
            "/v2//",
            "/v2/health",
            "/v2/models/m/generated",
            "/v2/models/m/versions",
            "/v2/models/m/versions/1/infer/x",
            "/v2/models/%ff/infer",
            "/v2/systemsharedmemory/status",
            "/v2/a/b/c/d/e/f/g/h/i",
        ] {
            assert_eq!(endpoint(path), None, "{path}");
        }
    }
}
