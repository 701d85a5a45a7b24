//! A secret as a header carries it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clipper_domain::access::PublicIdentity;

/// What came in the header `Authorization`.
pub(super) struct Presented<'h>(Cow<'h, [u8]>);

impl<'h> Presented<'h> {
    /// Reads `Bearer KEY`, or `Basic` with a key as the password of any user: what is given an
    /// address such as `http://any:KEY@HOST:PORT` sends that, `clipper_admin` among them.
    pub(super) fn read(header: &'h [u8]) -> Option<Self> {
        let space = header.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = header.split_at(space);
        let rest = rest.trim_ascii();
        if rest.is_empty() {
            return None;
        }
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Self::of(Cow::Borrowed(rest));
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let decoded = STANDARD.decode(rest).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        Self::of(Cow::Owned(decoded.get(colon + 1..)?.to_vec()))
    }

    /// What is public is no secret.
    fn of(secret: Cow<'h, [u8]>) -> Option<Self> {
        (!PublicIdentity::is_meant(&secret)).then_some(Self(secret))
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_are_read_and_nothing_else_is() {
        let secret = |header: &str| {
            Presented::read(header.as_bytes())
                .map(|presented| String::from_utf8(presented.secret().to_vec()).unwrap())
        };
        assert_eq!(secret("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(secret("bearer  abc ").as_deref(), Some("abc"));
        let basic = STANDARD.encode("any:abc");
        assert_eq!(secret(&format!("Basic {basic}")).as_deref(), Some("abc"));
        for header in [
            "",
            "abc",
            "Bearer",
            "Bearer ",
            "Digest abc",
            "Basic !",
            "Basic YWJj",
            "Bearer curve:x",
            "Bearer certificate:x",
        ] {
            assert_eq!(secret(header), None, "{header}");
        }
    }
}
