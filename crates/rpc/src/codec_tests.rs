//! Tests of [`super`]: recorded bytes of the original containers, broken messages, round trips.

use super::*;
use crate::protocol;
use bytes::Buf;
use proptest::prelude::*;

use crate::zmtp::{Decoder, Incoming, Limits, LimitsOf};
use bytes::BytesMut;

const MAX: usize = 100;
const PLAIN: AnswerLimits =
    AnswerLimits { outputs_max: MAX, error_max_bytes: None, joined: false, computed: false };
/// After both sides have agreed on errors.
const WITH_ERRORS: AnswerLimits = AnswerLimits { error_max_bytes: Some(16), ..PLAIN };

/// What pyzmq 27.3 wrote for the calls of the original's Python container.
const PY_HEARTBEAT: &[u8] = b"\x01\x00\x00\x04\x02\0\0\0";
const PY_NEW: &[u8] = b"\x01\x00\x01\x04\0\0\0\0\x01\x06digits\x01\x011\x01\x013\x00\x04\x03\0\0\0";
/// Outputs `1` and `\u{e9}7`; the sizes in the header are those of the UTF-8 text.
const PY_ANSWER: &[u8] = b"\x01\x00\x01\x04\x01\0\0\0\x01\x04\x07\0\0\0\x01\x08\x18\0\0\0\0\0\0\0\
    \x01\x18\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\x011\x00\x03\xc3\xa97";
/// What a libzmq ROUTER wrote for a heartbeat answer that asks for metadata.
const ROUTER_HEARTBEAT: &[u8] = b"\x01\x00\x01\x04\x03\0\0\0\x01\x04\x02\0\0\0\x00\x04\x01\0\0\0";
/// The same for message 7 with the doubles `[1.5, -2]` and `[0.25]`.
const ROUTER_PREDICT: &[u8] = b"\x01\x00\x01\x04\x03\0\0\0\x01\x04\x01\0\0\0\x01\x04\x07\0\0\0\
    \x01\x04\0\0\0\0\x01\x08\x20\0\0\0\0\0\0\0\x01\x20\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\
    \x10\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01\x10\0\0\0\0\0\0\xf8\x3f\0\0\0\0\0\0\0\xc0\
    \x00\x08\0\0\0\0\0\0\xd0\x3f";

const FORM: AnswerForm = AnswerForm { joined: false, computed: None };

fn frames_of(wire: &[u8]) -> Vec<Bytes> {
    let of = LimitsOf::Answers;
    let (frame_max_bytes, message_max_bytes) = (1 << 20, 1 << 20);
    let limits = Limits { frames_max: 100, frame_max_bytes, message_max_bytes, of };
    let mut buf = BytesMut::from(wire);
    match Decoder::new(limits).next(&mut buf) {
        Ok(Some(Incoming::Message(frames))) if buf.is_empty() => frames,
        other => panic!("{other:?}"),
    }
}

fn bytes_of(mut out: WireChunks) -> Bytes {
    out.copy_to_bytes(out.remaining())
}

fn written(frames: &[Bytes]) -> Bytes {
    let mut out = WireChunks::new();
    out.push_message(frames);
    bytes_of(out)
}

fn from_container(frames: &[&[u8]]) -> Result<FromContainer, DecodeError> {
    decode_from_container(frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect(), PLAIN)
}

fn digits() -> (ModelName, ModelVersion) {
    (ModelName::parse("digits").unwrap(), ModelVersion::parse("1").unwrap())
}

#[test]
fn the_original_python_container_is_understood_and_imitated_to_the_byte() {
    let (name, version) = digits();
    let input_type = InputType::Doubles;
    assert_eq!(decode_from_container(frames_of(PY_HEARTBEAT), PLAIN), Ok(FromContainer::Heartbeat));
    assert_eq!(written(&encode_container_heartbeat()), PY_HEARTBEAT);
    assert_eq!(
        written(&encode_new_container(&name, &version, input_type, Extensions::NONE, None)),
        PY_NEW
    );
    assert_eq!(
        decode_from_container(frames_of(PY_NEW), PLAIN),
        Ok(FromContainer::NewContainer {
            name,
            version,
            input_type,
            extensions: Extensions::NONE,
            signature: None
        })
    );
    let outputs = vec![Bytes::from_static(b"1"), Bytes::from("\u{e9}7")];
    assert_eq!(written(&encode_answer(7, outputs.clone(), &[], FORM)), PY_ANSWER);
    assert_eq!(
        decode_from_container(frames_of(PY_ANSWER), PLAIN),
        Ok(FromContainer::Answer { message_id: 7, outputs, errors: Vec::new(), computed: None })
    );
}

#[test]
fn the_server_writes_what_a_libzmq_router_writes() {
    let mut out = WireChunks::new();
    encode_heartbeat(&mut out, true);
    assert_eq!(bytes_of(out), ROUTER_HEARTBEAT);
    assert_eq!(
        decode_from_server(frames_of(ROUTER_HEARTBEAT), MAX),
        Ok(FromServer::Heartbeat { send_metadata: true })
    );
    let bytes = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Bytes>();
    let inputs = vec![bytes(&[1.5, -2.0]), bytes(&[0.25])];
    let mut out = WireChunks::new();
    let as_inputs: Vec<Input> = inputs.iter().map(|i| Input(Arc::from(&i[..]))).collect();
    encode_predict(&mut out, 7, (InputType::Doubles, false), &as_inputs);
    assert_eq!(bytes_of(out), ROUTER_PREDICT);
    assert_eq!(
        decode_from_server(frames_of(ROUTER_PREDICT), MAX),
        Ok(FromServer::Predict { message_id: 7, input_type: InputType::Doubles, inputs })
    );
}

#[test]
fn containers_of_other_languages_are_understood() {
    let (name, version) = digits();
    let expected = Ok(FromContainer::NewContainer {
        name,
        version,
        input_type: InputType::Doubles,
        extensions: Extensions::NONE,
        signature: None,
    });
    let new = |input_type: &[u8], rpc: &[u8]| {
        from_container(&[b"", &[0; 4], b"digits", b"1", input_type, rpc])
    };
    assert_eq!(new(b"3", b"\x03\0\0\0\0\0\0\0"), expected, "JVM: the version in 8 bytes");
    assert_eq!(new(b"3\0\x7f", b"\x03\0\0\0"), expected, "C++, R: input type with a tail");
}

#[test]
fn a_bad_new_container_message_says_what_is_bad() {
    let new = |name: &[u8], version: &[u8], input_type: &[u8]| {
        from_container(&[b"", &[0; 4], name, version, input_type, &[3, 0, 0, 0]])
            .expect_err("should be refused")
    };
    assert!(matches!(new(b"a:b", b"1", b"3"), DecodeError::Name { field: "model name", .. }));
    assert!(matches!(new(b"a", b"", b"3"), DecodeError::Name { field: "model version", .. }));
    assert!(new(b"\xff", b"1", b"3").to_string().contains("not UTF-8"));
    for text in ["", "5", "-1", "doubles", "3 ", "99999999999999999999"] {
        assert_eq!(new(b"a", b"1", text.as_bytes()), DecodeError::InputType(text.to_owned()));
    }
    let version = |rpc: &[u8]| from_container(&[b"", &[0; 4], b"a", b"1", b"3", rpc]);
    let found = |found| Err(DecodeError::RpcVersion { found });
    assert_eq!(version(&[2, 0, 0, 0]), found(Some(2)));
    assert_eq!(version(b"3"), found(None));
    assert_eq!(from_container(&[b"", &[0; 4], b"a", b"1", b"3"]), found(None));
    assert_eq!(from_container(&[b"", &[0; 4]]), found(None));
    let error = version(&[2, 0, 0, 0]).expect_err("refused");
    assert_eq!(error.to_string(), "the peer speaks RPC version 2; version 3 is needed");
    let extra = from_container(&[b"", &[0; 4], b"a", b"1", b"3", &[3, 0, 0, 0], b"x"]);
    assert_eq!(extra, Err(DecodeError::FrameCount { expected: 6, found: 7 }));
}

#[test]
fn malformed_multiparts_are_refused() {
    let malformed = |frames: &[&[u8]], part, bytes| {
        assert_eq!(from_container(frames), Err(DecodeError::Malformed { part, bytes }));
    };
    malformed(&[], Part::Delimiter, None);
    malformed(&[b"x"], Part::Delimiter, Some(1));
    malformed(&[b""], Part::MessageType, None);
    malformed(&[b"", b"\x02"], Part::MessageType, Some(1));
    malformed(&[&[2, 0, 0, 0], b""], Part::Delimiter, Some(4));
    assert_eq!(
        from_container(&[b"", &[2, 0, 0, 0], b""]),
        Err(DecodeError::FrameCount { expected: 2, found: 3 })
    );
    assert_eq!(
        from_container(&[b"", &[9, 0, 0, 0]]),
        Err(DecodeError::Unknown { part: Part::MessageType, value: 9 })
    );
}

#[test]
fn a_wrong_answer_says_what_is_wrong() {
    let words =
        |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let answer = |announced: u64, header: &[u8], outputs: &[&[u8]]| {
        let length = announced.to_le_bytes();
        let mut frames: Vec<&[u8]> = vec![b"", &[1, 0, 0, 0], &[7, 0, 0, 0], &length, header];
        frames.extend(outputs);
        from_container(&frames)
    };
    let fault = |announced: u64, header: &[u64], outputs: &[&[u8]]| {
        answer(announced, &words(header), outputs).expect_err("should be refused")
    };
    assert!(answer(16, &words(&[1, 2]), &[b"ok"]).is_ok());
    let empty = Ok(FromContainer::Answer {
        message_id: 7,
        outputs: Vec::new(),
        errors: Vec::new(),
        computed: None,
    });
    assert_eq!(answer(8, &words(&[0]), &[]), empty);
    let header = |bytes| DecodeError::Malformed { part: Part::Header, bytes: Some(bytes) };
    assert_eq!(fault(0, &[], &[]), header(0));
    assert_eq!(fault(24, &[1, 2], &[b"ok"]), header(16));
    assert_eq!(fault(8, &[1], &[b"ok"]), header(8));
    assert_eq!(fault(24, &[1, 2, 3], &[b"ok"]), header(24));
    assert_eq!(answer(9, &[0; 9], &[]), Err(header(9)));
    for count in [1 << 40, u64::MAX] {
        assert_eq!(fault(8, &[count], &[]), DecodeError::TooMany { count, max: MAX });
    }
    assert_eq!(fault(24, &[2, 2, 2], &[b"ok"]), DecodeError::ItemCount { count: 2, frames: 1 });
    assert_eq!(
        fault(16, &[1, 3], &[b"ok"]),
        DecodeError::ItemBytes { index: 0, announced: 3, bytes: 2 }
    );
    assert_eq!(
        from_container(&[b"", &[1, 0, 0, 0], &[7, 0, 0, 0], b"ACK"]),
        Err(DecodeError::Malformed { part: Part::HeaderBytes, bytes: Some(3) })
    );
}

#[test]
fn extensions_are_announced_behind_the_rpc_version_and_accepted_by_a_message() {
    let (name, version) = digits();
    let frames = encode_new_container(
        &name,
        &version,
        InputType::Doubles,
        Extensions(Extensions::QUERY_ERRORS.0 | 1 << 31),
        None,
    );
    assert_eq!(frames[5], &b"\x03\0\0\0\x01\0\0\x80"[..], "the original reads the first 4 bytes");
    match decode_from_container(frames, PLAIN) {
        Ok(FromContainer::NewContainer { extensions, .. }) => {
            assert_eq!(extensions.and(Extensions::QUERY_ERRORS), Extensions::QUERY_ERRORS);
        }
        other => panic!("{other:?}"),
    }
    for rpc in [&b"\x04\0\0\0\x01\0\0\0"[..], b"\x03\0\0\0\x01", b"\x03\0\0\0\x01\0\0\0\0"] {
        let refused = from_container(&[b"", &[0; 4], b"a", b"1", b"3", rpc]);
        assert!(matches!(refused, Err(DecodeError::RpcVersion { .. })), "{rpc:?}: {refused:?}");
    }
    let mut out = WireChunks::new();
    encode_extensions(&mut out, Extensions::QUERY_ERRORS, 4096);
    let accepted =
        FromServer::Extensions { accepted: Extensions::QUERY_ERRORS, error_max_bytes: 4096 };
    assert_eq!(decode_from_server(frames_of(&bytes_of(out)), MAX), Ok(accepted));
}

#[test]
fn a_notice_is_one_message_of_the_documented_bytes() {
    let mut out = WireChunks::new();
    encode_notice(&mut out, NoticeLevel::Warning, "no");
    let bytes = bytes_of(out);
    let documented = b"\x01\x00\x01\x04\x03\0\0\0\x01\x04\x02\0\0\0\x01\x04\x03\0\0\0\
        \x01\x04\x01\0\0\0\x00\x02no";
    assert_eq!(&bytes[..], &documented[..]);
    let notice = |level, text: &str| Ok(FromServer::Notice { level, text: text.to_owned() });
    assert_eq!(decode_from_server(frames_of(&bytes), MAX), notice(NoticeLevel::Warning, "no"));
    // What the text is made of cannot hurt: it is cut between characters, and read lossily.
    let mut out = WireChunks::new();
    encode_notice(&mut out, NoticeLevel::Error, &"\u{e9}".repeat(NOTICE_MAX_BYTES));
    let half = "\u{e9}".repeat(NOTICE_MAX_BYTES / 2);
    assert_eq!(
        decode_from_server(frames_of(&bytes_of(out)), MAX),
        notice(NoticeLevel::Error, &half)
    );
    let mut frames = frames_of(&bytes);
    frames[4] = Bytes::from_static(&[9, 0, 0, 0]);
    frames[5] = Bytes::from_static(b"\xff");
    assert_eq!(decode_from_server(frames, MAX), notice(NoticeLevel::Error, "\u{fffd}"));
}

#[test]
fn a_build_is_visible_ascii_of_some_length() {
    let build = Build::parse(b"clipper-0.1.0+sha256:00ff").unwrap();
    let frames = encode_build(&build);
    assert_eq!(written(&frames)[..8], b"\x01\x00\x01\x04\x03\0\0\0"[..]);
    assert_eq!(decode_from_container(frames, PLAIN), Ok(FromContainer::Build(build)));
    for bad in [&b""[..], b"a b", b"\xff", b"\x1b[31m", &[b'a'; protocol::BUILD_MAX_BYTES + 1]] {
        let refused = from_container(&[b"", &[3, 0, 0, 0], bad]);
        let bytes = Some(bad.len());
        assert_eq!(refused, Err(DecodeError::Malformed { part: Part::Build, bytes }));
    }
}

#[test]
fn an_error_needs_the_agreement_and_a_short_text() {
    let answer = |text: &'static [u8], limits| {
        decode_from_container(encode_answer(7, vec![Bytes::from_static(text)], &[0], FORM), limits)
    };
    let fault = |text| match answer(text, WITH_ERRORS) {
        Err(DecodeError::ErrorText { index: 0, why }) => why,
        other => panic!("{other:?}"),
    };
    assert!(answer(b"0123456789abcdef", WITH_ERRORS).is_ok());
    assert_eq!(fault(b"0123456789abcdef!"), ErrorTextFault::TooLong { bytes: 17, max: 16 });
    assert_eq!(fault(b""), ErrorTextFault::Empty);
    assert_eq!(fault(b"\xff"), ErrorTextFault::NotText);
    let length = protocol::ERROR_MARK | 2;
    let stranger = DecodeError::ItemBytes { index: 0, announced: length, bytes: 2 };
    assert_eq!(answer(b"no", PLAIN), Err(stranger), "nobody agreed");
}

#[test]
fn a_computing_time_is_one_number_behind_the_lengths_and_needs_the_agreement() {
    let form = AnswerForm { joined: false, computed: Some(Duration::from_micros(5_000)) };
    let answer = encode_answer(7, vec![Bytes::from_static(b"1")], &[], form);
    assert_eq!(answer[3], &b"\x18\0\0\0\0\0\0\0"[..]);
    assert_eq!(answer[4][16..], b"\x88\x13\0\0\0\0\0\0"[..]);
    let agreed = AnswerLimits { computed: true, ..PLAIN };
    let computed = |answer: Vec<Bytes>| match decode_from_container(answer, agreed) {
        Ok(FromContainer::Answer { computed, outputs, .. }) => (computed, outputs.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(computed(answer.clone()), (form.computed, 1));
    let untimed = encode_answer(7, vec![Bytes::from_static(b"1")], &[], FORM);
    assert_eq!(computed(untimed), (None, 1), "it may leave it out");
    let longest = AnswerForm { computed: Some(Duration::MAX), ..FORM };
    let (found, _) = computed(encode_answer(7, vec![], &[], longest));
    assert_eq!(found, Some(Duration::from_micros(u64::MAX)));
    let refused = DecodeError::Malformed { part: Part::Header, bytes: Some(24) };
    assert_eq!(decode_from_container(answer, PLAIN), Err(refused), "nobody agreed");
}

fn frames() -> impl Strategy<Value = Vec<Bytes>> {
    let frame = prop_oneof![
        Just(Vec::new()),
        (0u32..5).prop_map(|number| number.to_le_bytes().to_vec()),
        (0u64..40).prop_map(|number| number.to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(frame.prop_map(Bytes::from), 0..12)
}

fn items() -> impl Strategy<Value = Vec<Bytes>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6000).prop_map(Bytes::from), 0..9)
}

proptest! {
    #[test]
    fn any_frames_are_read_or_refused(frames in frames()) {
        let _ = decode_from_container(frames.clone(), WITH_ERRORS);
        let _ = decode_from_server(frames, MAX);
    }

    #[test]
    fn answers_come_back(message_id: u32, outputs in items()) {
        let answer = encode_answer(message_id, outputs.clone(), &[], FORM);
        let read = decode_from_container(answer, PLAIN);
        let (errors, computed) = (vec![], None);
        prop_assert_eq!(read, Ok(FromContainer::Answer { message_id, outputs, errors, computed }));
    }

    #[test]
    fn errors_come_back_beside_outputs(
        texts in prop::collection::vec("[a-zé]{1,8}", 0..9),
        bits: u16,
    ) {
        let errors: Vec<usize> = (0..texts.len()).filter(|at| bits & 1 << at != 0).collect();
        let outputs: Vec<Bytes> = texts.into_iter().map(Bytes::from).collect();
        let answer = encode_answer(7, outputs.clone(), &errors, FORM);
        let read = decode_from_container(answer, WITH_ERRORS);
        let (message_id, computed) = (7, None);
        prop_assert_eq!(read, Ok(FromContainer::Answer { message_id, outputs, errors, computed }));
    }

    #[test]
    fn batches_come_back(message_id: u32, inputs in items()) {
        let mut out = WireChunks::new();
        let as_inputs: Vec<Input> = inputs.iter().map(|i| Input(Arc::from(&i[..]))).collect();
        encode_predict(&mut out, message_id, (InputType::Strings, false), &as_inputs);
        let read = decode_from_server(frames_of(&bytes_of(out)), MAX);
        let input_type = InputType::Strings;
        prop_assert_eq!(read, Ok(FromServer::Predict { message_id, input_type, inputs }));
    }
}

#[test]
fn a_container_for_tensors_announces_its_signature() {
    let (name, version) = digits();
    let json = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],"#.to_owned()
        + r#""outputs":[{"name":"y","datatype":"BYTES","shape":[-1]}]}"#;
    let signature = Signature::parse(json.as_bytes()).unwrap();
    let kind = InputType::Tensors;
    let new = |extensions, signature| {
        let frames = encode_new_container(&name, &version, kind, extensions, signature);
        decode_from_container(frames, PLAIN)
    };
    match new(Extensions::OF_BATCHES, Some(&signature)) {
        Ok(FromContainer::NewContainer { extensions, signature: Some(read), .. }) => {
            let with_tensors = Extensions::OF_BATCHES.0 | Extensions::TENSORS.0;
            assert_eq!((extensions.0, &*read), (with_tensors, &signature));
        }
        other => panic!("{other:?}"),
    }
    let unannounced = new(Extensions::OF_BATCHES, None);
    assert_eq!(unannounced, Err(DecodeError::InputType("5".to_owned())));
    let missing = DecodeError::Malformed { part: Part::Signature, bytes: None };
    assert_eq!(new(Extensions::KNOWN, None), Err(missing));
    let mut frames =
        encode_new_container(&name, &version, kind, Extensions::KNOWN, Some(&signature));
    frames[6] = Bytes::from_static(b"{}");
    assert!(matches!(decode_from_container(frames, PLAIN), Err(DecodeError::Signature(_))));
    let flat = InputType::Doubles;
    let frames = encode_new_container(&name, &version, flat, Extensions::NONE, Some(&signature));
    assert!(matches!(decode_from_container(frames, PLAIN), Err(DecodeError::FrameCount { .. })));
}
