//! What a request says of whoever asks, beside its key.

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use super::operation::{Failure, peer};
use crate::http::request_id;
use clipper_domain::asker::{NOTE_MAX_BYTES, REASON_HEADER, REQUEST_ID_HEADER, USER_HEADER};
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
    let made_up = || Note::new(&format!("{:016x}", rand::random::<u64>()));
    Ok(Asker {
        key: None,
        user: note(USER_HEADER),
        from: peer(request).and_then(|from| Note::new(&from.to_canonical().to_string())),
        // That of its answer.
        request_id: request_id::of(request)
            .and_then(|id| Note::new(&id))
            .or_else(|| note(REQUEST_ID_HEADER))
            .or_else(made_up),
        why: note(REASON_HEADER),
        via: None,
    })
}

/// The answer says which request it is of.
pub(super) fn named(mut response: HttpResponse, asker: &Asker) -> HttpResponse {
    let id = asker.request_id.as_ref().map(|id| HeaderValue::from_bytes(id.as_str().as_bytes()));
    if let Some(Ok(id)) = id {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID_HEADER), id);
    }
    response
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
            .insert_header((REQUEST_ID_HEADER, "r-1"))
            .peer_addr("[::ffff:10.0.0.7]:4242".parse().unwrap())
            .to_http_request();
        let asker = asker(&request).unwrap();
        let text = |note: &Option<Note>| note.as_ref().map(|note| note.as_str().to_owned());
        assert_eq!(text(&asker.why).unwrap(), "too slow: \u{e4}");
        assert_eq!((asker.who().unwrap().as_str(), &asker.key), ("user 'alice'", &None));
        assert_eq!(text(&asker.from).unwrap(), "10.0.0.7");
        assert_eq!(text(&asker.request_id).unwrap(), "r-1");
        let named = named(HttpResponse::Ok().finish(), &asker);
        assert_eq!(named.headers().get(REQUEST_ID_HEADER).unwrap(), "r-1");
    }

    #[test]
    fn a_request_without_a_name_gets_one_and_a_long_reason_is_refused() {
        let bare = asker(&TestRequest::post().to_http_request()).unwrap();
        assert_eq!(bare.request_id.unwrap().as_str().len(), 16);
        assert_eq!((bare.why, bare.user, bare.from), (None, None, None));
        let reason = "x".repeat(NOTE_MAX_BYTES + 1);
        let long = TestRequest::post().insert_header((REASON_HEADER, reason)).to_http_request();
        assert!(asker(&long).unwrap_err().to_string().contains("1025 bytes"));
    }
}
