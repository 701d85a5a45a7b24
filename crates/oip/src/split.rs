//! Where the JSON of a body ends and its binary part begins.

use crate::error::{Fault, InferError, shown};

/// The header that says how many bytes of the body are JSON.
pub(crate) const LENGTH_HEADER: &str = "Inference-Header-Content-Length";

/// A body in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Split<'b> {
    /// JSON, then the binary data of the tensors that say so.
    Json { json: &'b [u8], binary: &'b [u8] },
    /// The one input and nothing else.
    Raw(&'b [u8]),
}

/// Splits a body by the value of [`LENGTH_HEADER`]; without it the whole body is JSON, with 0 there
/// is none.
pub(crate) fn split<'b>(body: &'b [u8], header: Option<&[u8]>) -> Result<Split<'b>, InferError> {
    let Some(header) = header else {
        return Ok(Split::Json { json: body, binary: &[] });
    };
    let fault = |fault| InferError::new(LENGTH_HEADER, fault);
    let said = std::str::from_utf8(header).ok().map(str::trim);
    let said = said.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(said) = said.and_then(|text| text.parse::<u64>().ok()) else {
        return Err(fault(Fault::NotANumber(shown(&String::from_utf8_lossy(header)))));
    };
    if said == 0 {
        return Ok(Split::Raw(body));
    }
    let longer = || fault(Fault::Longer { said, found: body.len() });
    let length = usize::try_from(said).map_err(|_| longer())?;
    let (json, binary) = body.split_at_checked(length).ok_or_else(longer)?;
    Ok(Split::Json { json, binary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_where_the_json_ends() {
        let of = |header: Option<&str>| split(b"{}abc", header.map(str::as_bytes));
        assert_eq!(of(None), Ok(Split::Json { json: b"{}abc", binary: b"" }));
        assert_eq!(of(Some("2")), Ok(Split::Json { json: b"{}", binary: b"abc" }));
        assert_eq!(of(Some(" 5 ")), Ok(Split::Json { json: b"{}abc", binary: b"" }));
        assert_eq!(of(Some("0")), Ok(Split::Raw(b"{}abc")));
    }

    #[test]
    fn a_header_that_lies_is_refused_by_its_name() {
        for (header, part) in [
            ("6", "it says 6 bytes, but there are 5"),
            ("18446744073709551615", "but there are 5"),
            ("18446744073709551616", "is not a number of bytes"),
            ("-1", "is not a number of bytes"),
            ("+2", "is not a number of bytes"),
            ("", "is not a number of bytes"),
            ("2\u{202e}", "is not a number of bytes"),
        ] {
            let error = split(b"{}abc", Some(header.as_bytes())).unwrap_err().to_string();
            assert!(error.starts_with(LENGTH_HEADER) && error.contains(part), "{header}: {error}");
            assert!(!error.contains('\u{202e}'), "{error}");
        }
    }
}
