//! The endpoints of applications, by their paths.

use std::borrow::Cow;

use actix_web::guard::GuardContext;
use percent_encoding::percent_decode_str;

use super::v2;

/// Whether a request is for none of these endpoints and none of [`v2`], so that routes have to be
/// looked through.
#[must_use]
pub fn is_for_pages(request: &GuardContext<'_>) -> bool {
    let path = request.head().uri.path();
    !v2::owns(path) && named(path).is_none()
}

#[derive(Clone, Copy)]
pub(super) enum Verb {
    Predict,
    Update,
}

/// Reads `/{app}/predict` or `/{app}/update`, with or without a slash at its end; the application
/// as it is written there.
fn named(path: &str) -> Option<(&str, Verb)> {
    let path = path.strip_prefix('/')?;
    let (app, rest) = path.split_at(path.bytes().position(|byte| byte == b'/')?);
    match rest {
        "/predict" | "/predict/" => Some((app, Verb::Predict)),
        "/update" | "/update/" => Some((app, Verb::Update)),
        _ => None,
    }
}

/// Reads the path of an application's endpoint.
pub(super) fn endpoint(path: &str) -> Option<(Cow<'_, str>, Verb)> {
    let (app, verb) = named(path)?;
    Some((percent_decode_str(app).decode_utf8().ok()?, verb))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn predictions_do_not_pass_the_pages() {
        let is_for_pages =
            |path: &str| is_for_pages(&TestRequest::with_uri(path).to_srv_request().guard_ctx());
        for path in ["/a/predict", "/a/update/", "/a/predict?explain=1", "/v2/models/a/infer"] {
            assert!(!is_for_pages(path), "{path}");
        }
        for path in ["/metrics", "/livez/", "/docs/style.css", "/%6Detrics", "/", "/a/predictor"] {
            assert!(is_for_pages(path), "{path}");
        }
    }

    #[test]
    fn the_endpoints_are_found_with_or_without_a_last_slash() {
        let found = |path| endpoint(path).map(|(app, verb)| (app.into_owned(), verb));
        for path in ["/digits/predict", "/digits/predict/"] {
            assert!(matches!(found(path), Some((app, Verb::Predict)) if app == "digits"), "{path}");
        }
        assert!(matches!(found("/a%20b/update"), Some((app, Verb::Update)) if app == "a b"));
        for path in
            ["/", "//", "/predict", "/a/b/predict", "/digits/predict//", "/a/foo", "/%ff/predict"]
        {
            assert!(found(path).is_none(), "{path}");
        }
        assert!(matches!(found("//predict"), Some((app, _)) if app.is_empty()));
    }
}
