//! What a request says of whoever asks, beside its key.

use actix_web::HttpRequest;
use actix_web::http::header::HeaderValue;

use super::operation::{Failure, peer};
use crate::http::request_id;
use clipper_domain::asker::{NOTE_MAX_BYTES, REASON_HEADER, USER_HEADER};
use clipper_domain::{Asker, Note};

/// Who asks, as far as the request tells; it has a name of its own from then on.
///
/// # Errors
/// A reason that is longer than what is kept of one.
pub(super) fn asker(request: &HttpRequest) -> Result<Asker, Failure> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    if let Some(bytes) = header(REASON_HEADER).map(<[u8]>::len)
        && bytes > NOTE_MAX_BYTES
    {
        let limit = format!("at most {NOTE_MAX_BYTES} are kept");
        return Err(Failure::Refused(format!("X-Clipper-Reason has {bytes} bytes, {limit}")));
    }
    let note = |name| Note::new(&String::from_utf8_lossy(header(name)?));
    Ok(Asker {
        key: None,
        user: note(USER_HEADER),
        from: peer(request).and_then(|from| Note::new(&from.to_canonical().to_string())),
        request_id: request_id::of(request).and_then(|id| Note::new(&id)),
        why: note(REASON_HEADER),
        via: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn the_headers_of_a_request_are_notes_of_its_asker() {
        let request = TestRequest::post()
            .insert_header((REASON_HEADER, "too slow: \u{e4}"))
            .insert_header((USER_HEADER, "alice"))
            .peer_addr("[::ffff:10.0.0.7]:4242".parse().unwrap())
            .to_http_request();
        let asker = asker(&request).unwrap();
        let text = |note: &Option<Note>| note.as_ref().map(|note| note.as_str().to_owned());
        assert_eq!(text(&asker.why).unwrap(), "too slow: \u{e4}");
        assert_eq!((asker.who().unwrap().as_str(), &asker.key), ("user 'alice'", &None));
        assert_eq!(text(&asker.from).unwrap(), "10.0.0.7");
    }

    #[test]
    fn nothing_is_made_up_and_a_long_reason_is_refused() {
        let bare = asker(&TestRequest::post().to_http_request()).unwrap();
        assert_eq!((bare.why, bare.user, bare.from), (None, None, None));
        let reason = "x".repeat(NOTE_MAX_BYTES + 1);
        let long = TestRequest::post().insert_header((REASON_HEADER, reason)).to_http_request();
        assert!(asker(&long).unwrap_err().to_string().contains("1025 bytes"));
    }
}
