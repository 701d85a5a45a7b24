//! A container's connection by hand, with the name and secret of a key (PLAIN) or without (NULL).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::{Bytes, BytesMut};
use clipper_domain::{InputType, ModelName, ModelVersion};
use clipper_rpc::client::{Handshake, Identity, Secret, Step};
use clipper_rpc::codec::{self, AnswerForm, Build, Extensions};
use clipper_rpc::streams::{StreamNews, encode_news};
use clipper_rpc::wire::WireChunks;
use clipper_rpc::zmtp;

use super::PATIENCE;

/// What comes behind a greeting of NULL.
const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";

/// The message of this name, for model `a` or the one behind a space.
fn message(name: &str) -> Vec<Bytes> {
    let (name, model) = name.split_once(' ').unwrap_or((name, "a"));
    match name {
        "new-container" => {
            let (model, version) = (ModelName::parse(model), ModelVersion::parse("1"));
            let (model, version) = (model.unwrap(), version.unwrap());
            let (kind, extensions) = (InputType::Doubles, Extensions::NONE);
            codec::encode_new_container(&model, &version, kind, extensions, None)
        }
        "heartbeat" => codec::encode_container_heartbeat(),
        "answer" => {
            codec::encode_answer(1, vec![Bytes::from_static(b"7")], &[], AnswerForm::default())
        }
        "build" => codec::encode_build(&Build::parse(b"abc").unwrap()),
        "stream-news" => encode_news(StreamNews::Lanes(2)),
        other => panic!("no message is called {other}"),
    }
}

/// Whether a connection is let in so that it can say this. The key is its role's, by whose name it
/// is called.
pub fn says(server: SocketAddr, name: &str, key: Option<&str>) -> bool {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let is_in = if let Some(secret) = key {
        shake(&mut stream, secret)
    } else {
        stream.write_all(&zmtp::Handshake::greeting()).unwrap();
        stream.write_all(READY).unwrap();
        read_until(&mut stream, &mut Vec::new(), b"READY")
    };
    if is_in {
        let mut out = WireChunks::new();
        out.push_message(&message(name));
        while !out.is_empty() {
            let chunk = bytes::Buf::chunk(&out).to_vec();
            stream.write_all(&chunk).unwrap();
            bytes::Buf::advance(&mut out, chunk.len());
        }
        // What comes back, or the end: it has been read by then.
        let _ = stream.read(&mut [0; 64]);
    }
    is_in
}

fn shake(stream: &mut TcpStream, secret: &str) -> bool {
    let name = secret.split('-').next().unwrap_or_default().to_owned();
    let identity = Identity::Secret(Secret { name, secret: secret.to_owned() });
    let (mut handshake, mut buffer) = (Handshake::new(identity), BytesMut::new());
    stream.write_all(&handshake.greeting()).unwrap();
    loop {
        match handshake.advance(&mut buffer) {
            Ok(Step::Done(_)) => return true,
            Ok(Step::Send(bytes)) => stream.write_all(&bytes).unwrap(),
            Ok(Step::More) => {
                let mut piece = [0; 1_024];
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => return false,
                    Ok(read) => buffer.extend_from_slice(&piece[..read]),
                }
            }
            Err(_) => return false,
        }
    }
}

/// Whether these bytes come before the end.
fn read_until(stream: &mut TcpStream, heard: &mut Vec<u8>, wanted: &[u8]) -> bool {
    let mut piece = [0; 1_024];
    while !heard.windows(wanted.len()).any(|window| window == wanted) {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return false,
            Ok(read) => heard.extend_from_slice(&piece[..read]),
        }
    }
    true
}
