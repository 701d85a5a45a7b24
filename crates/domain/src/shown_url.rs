//! An address as it may stand in a log: without what is a secret in it.

use std::borrow::Cow;

/// A URL without user and password, and without its query, which may have a key.
#[must_use]
pub fn shown_url(url: &str) -> Cow<'_, str> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(start);
    // A password may have any of these.
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("***@", rest));
    let (rest, query) = rest.split_once(['?', '#']).map_or((rest, ""), |(rest, _)| (rest, "?***"));
    if user.is_empty() && query.is_empty() {
        return Cow::Borrowed(url);
    }
    Cow::Owned(format!("{scheme}{user}{rest}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_password_and_query_are_not_shown() {
        for (url, shown) in [
            ("https://h:1338", "https://h:1338"),
            ("h:1338", "h:1338"),
            ("https://any:secret@h:1338/path", "https://***@h:1338/path"),
            ("any:se@cret@h", "***@h"),
            ("http://u:se/cret@h/p?key=x#y", "http://***@h/p?***"),
            ("https://h/jwks?key=x", "https://h/jwks?***"),
            ("https://:secret@", "https://***@"),
            ("", ""),
        ] {
            assert_eq!(shown_url(url), shown, "{url}");
        }
    }
}
