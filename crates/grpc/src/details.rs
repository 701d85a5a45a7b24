//! What a status says beside its code and message, as `google/rpc/status.proto` and
//! `error_details.proto` have it: here only when to try again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use bytes::Bytes;
use http::HeaderValue;
use prost::Message as _;

use crate::status::Status;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Headers of binary values may be padded or not.
const EITHER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Clone, PartialEq, prost::Message)]
struct Detailed {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The `grpc-status-details-bin` header; `None` where there is nothing to say.
pub(crate) fn header(status: &Status) -> Option<HeaderValue> {
    let after = status.retry_after?;
    let delay = Delay {
        seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(after.subsec_nanos()).unwrap_or_default(),
    };
    let info = RetryInfo { retry_delay: Some(delay) };
    let value = info.encode_to_vec().into();
    let detailed = Detailed {
        code: status.code as i32,
        message: status.message.clone(),
        details: vec![Detail { type_url: RETRY_INFO.to_owned(), value }],
    };
    HeaderValue::try_from(STANDARD_NO_PAD.encode(detailed.encode_to_vec())).ok()
}

/// After how long to try again, if the header says so.
pub(crate) fn retry_after(header: &[u8]) -> Option<Duration> {
    let detailed = Detailed::decode(&EITHER.decode(header).ok()?[..]).ok()?;
    let detail = detailed.details.into_iter().find(|detail| detail.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(detail.value).ok()?.retry_delay?;
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    Some(Duration::new(seconds, nanos.min(999_999_999)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;

    #[test]
    fn it_says_when_to_try_again() {
        let mut status = Status::new(Code::ResourceExhausted, "wait");
        assert_eq!(header(&status), None);
        for after in [Duration::from_secs(1), Duration::from_millis(2_500), Duration::ZERO] {
            status.retry_after = Some(after);
            assert_eq!(retry_after(header(&status).unwrap().as_bytes()), Some(after));
        }
        status.retry_after = Some(Duration::from_secs(1));
        // What protoc's Python writes of the same.
        let expected: &[u8] = b"\x08\x08\x12\x04wait\x1a\x30\n\x28type.googleapis.com/google.rpc.\
                                RetryInfo\x12\x04\n\x02\x08\x01";
        let written = header(&status).unwrap();
        assert_eq!(EITHER.decode(written.as_bytes()).unwrap(), expected);
        for other in [&b"!"[..], b"", b"CAgSBHdhaXQ", b"CAgSBHdhaXQ="] {
            assert_eq!(retry_after(other), None);
        }
    }
}
