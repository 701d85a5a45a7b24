//! TLS of the ports for HTTP and gRPC, as clients meet it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::client::{Tls, config, section, self_signed};
use crate::support::StopAtEnd;
use crate::support::served::{Http, PATIENCE, Served, until};

const H1: &[u8] = b"http/1.1";

/// A sample of the metrics port, which speaks TLS here.
fn metric(server: &Served, trust: &std::sync::Arc<rustls::ClientConfig>, sample: &str) -> f64 {
    let (_, text) = Tls::new(server.metrics, trust).request("GET", "/metrics", "").unwrap();
    let line = text.lines().find(|line| line.starts_with(sample));
    line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[test]
fn every_port_speaks_tls_and_whoever_does_not_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let server = Served::start(&section(&cert, &key), dir.path());
    server.says("\"query\":\"https://");
    let trust = config(&[&cert], None, H1);
    for port in [server.query, server.management, server.metrics] {
        let mut client = Tls::new(port, &trust);
        for _ in 0..3 {
            let (status, _) = client.request("GET", "/livez", "").unwrap();
            assert_eq!(status, 200);
        }
        assert_eq!(client.0.get_ref().conn.alpn_protocol(), Some(H1));
        let (status, text) = Http::new(port).request("GET", "/livez", "").unwrap();
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("This port speaks TLS"), "{text}");
    }
    let mut grpc = Tls::new(server.grpc.unwrap(), &config(&[&cert], None, b"h2"));
    grpc.0.get_mut().write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    grpc.0.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "its SETTINGS");
    let sample = "clipper_tls_handshakes_total{frontend=\"query\"}";
    assert!(metric(&server, &trust, sample) >= 1.0);
    let expiry = metric(&server, &trust, "clipper_tls_certificate_expiry_timestamp_seconds");
    assert!(expiry > 1.7e9, "{expiry}");
}

#[test]
fn a_port_can_stay_without_and_clients_need_the_right_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let (other, _) = self_signed(&dir.path().join("other"), &[]);
    let server = Served::start(&format!("{}metrics = false\n", section(&cert, &key)), dir.path());
    assert_eq!(Http::new(server.metrics).request("GET", "/livez", "").unwrap().0, 200);
    let wrong = Tls::new(server.query, &config(&[&other], None, H1)).request("GET", "/livez", "");
    assert!(wrong.unwrap_err().to_string().contains("invalid peer certificate"));
    let sample = "clipper_http_connections_ended_total{frontend=\"query\",\
                  reason=\"handshake_failed\"}";
    until("it is counted", || (server.metric(sample) >= 1.0).then_some(()));
    let url = format!("https://{}", server.management);
    let admin = |ca: &std::path::Path| {
        let mut command = Command::new(crate::binary());
        command.args(["admin", "apps", "list", "--url", &url, "--tls-ca"]).arg(ca).output().unwrap()
    };
    assert!(admin(&cert).status.success(), "{:?}", admin(&cert));
    let refused = admin(&other);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("--tls-ca FILE"), "{told}");
}

#[test]
fn the_tools_speak_it() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let app = "[[application]]\nname = \"digits\"\ninput_type = \"doubles\"\n\
               default_output = \"7\"\nlatency_slo_micros = 100000\n";
    let server = Served::start(&(section(&cert, &key) + app), dir.path());
    let ask = |args: &[&str]| {
        let mut command = Command::new(crate::binary());
        command.args(args).arg("--tls-ca").arg(&cert).stdin(Stdio::null());
        let done = command.output().unwrap();
        let (out, error) =
            (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.success(), format!("{out}{error}"))
    };
    let run = |args: &[&str]| {
        let (is_good, said) = ask(args);
        assert!(is_good, "{args:?}: {said}");
        said
    };
    let url = |addr: SocketAddr| format!("https://{addr}");
    let (query, management) = (url(server.query), url(server.management));
    assert!(run(&["admin", "apps", "list", "--url", &management]).contains("digits"));
    let top = run(&[
        "top",
        "--once",
        "--interval",
        "0.1",
        "--query-url",
        &query,
        "--management-url",
        &management,
    ]);
    assert!(top.contains("digits"), "{top}");
    let bench = [
        "bench",
        "--app",
        "digits",
        "--duration",
        "0.2",
        "--warmup",
        "0",
        "--connections",
        "4",
        "--json",
        "--url",
    ];
    run(&[&bench[..], &[&query]].concat());
    let grpc = url(server.grpc.unwrap());
    // No model answers there, which is said by a status of gRPC.
    let (_, said) = ask(&[&bench[..], &[&grpc, "--protocol", "grpc"]].concat());
    assert!(said.contains("\"http_errors\":{\"14\":"), "{said}");
    assert!(said.contains("\"failures\":{}"), "{said}");
}

#[test]
fn a_certificate_is_replaced_under_load_without_a_failed_request() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let (next_cert, next_key) = self_signed(&dir.path().join("next"), &[]);
    let kept = dir.path().join("first.pem");
    std::fs::copy(&cert, &kept).unwrap();
    let server = Served::start(&section(&cert, &key), dir.path());
    let trust = config(&[&kept, &next_cert], None, H1);
    let (stop, requests) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let at_end = StopAtEnd(&stop);
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut long = Tls::new(server.query, &trust);
                    while !stop.load(Ordering::Relaxed) {
                        let short = Tls::new(server.query, &trust).request("GET", "/livez", "");
                        assert_eq!(short.unwrap().0, 200);
                        assert_eq!(long.request("GET", "/livez", "").unwrap().0, 200);
                        requests.fetch_add(2, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let shown = || {
            let mut client = Tls::new(server.query, &trust);
            client.request("GET", "/livez", "").unwrap();
            client.certificate()
        };
        let before = shown();
        // One after the other, as tools do: in between they do not belong together.
        std::fs::copy(&next_cert, &cert).unwrap();
        let failed = "clipper_tls_reloads_total{result=\"failed\"}";
        until("the pair is refused", || (metric(&server, &trust, failed) >= 1.0).then_some(()));
        assert_eq!(shown(), before);
        std::fs::copy(&next_key, &key).unwrap();
        until("the new one is shown", || (shown() != before).then_some(()));
        let until_now = requests.load(Ordering::Relaxed);
        until("they go on", || (requests.load(Ordering::Relaxed) > until_now + 4).then_some(()));
        drop(at_end);
        for client in clients {
            client.join().unwrap();
        }
    });
    server.says("it is not the key of the certificate");
    server.says("the certificate was read again");
}

#[test]
fn slow_and_broken_handshakes_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let text = "handshake_timeout_ms = 1500\nhandshakes_max = 8\nmetrics = false\n";
    let server = Served::start(&format!("{}{text}", section(&cert, &key)), dir.path());
    let trust = config(&[&cert], None, H1);
    let ended = |reason: &str| {
        server.metric(&format!(
            "clipper_http_connections_ended_total{{frontend=\"query\",reason=\"{reason}\"}}"
        ))
    };
    let connect = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.query).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may have given way to the next one by now.
        let _ = stream.write_all(bytes);
        stream
    };
    let is_closed = |mut stream: TcpStream| {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut rest);
        rest
    };
    // Silent, cut off in a record, and a record that never ends: more than there are places.
    let slow: Vec<_> = (0..30)
        .map(|n| connect([&b""[..], b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x40\x00"][n % 3]))
        .collect();
    // Of the same address, it may give way to those of them that another thread meets later.
    let mut good = until("a good one is served", || {
        let mut good = Tls::new(server.query, &trust);
        good.request("GET", "/livez", "").is_ok().then_some(good)
    });
    for stream in slow {
        is_closed(stream);
    }
    assert!(ended("handshake_timeout") >= 30.0, "{}", ended("handshake_timeout"));
    for garbage in [
        &b"\x16\x03\x01\xff\xff"[..],
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x02\x02\x28",
        b"\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        is_closed(connect(garbage));
    }
    until("they are counted", || (ended("handshake_failed") >= 3.0).then_some(()));
    assert_eq!(good.request("GET", "/livez", "").unwrap().0, 200);
}

#[test]
fn what_cannot_be_served_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let (_, other_key) = self_signed(&dir.path().join("other"), &[]);
    let none = dir.path().join("none.pem");
    let expired = super::certificates::expired(&dir.path().join("expired"));
    for (cert, key, told) in [
        (&none, &key, "tls.cert: "),
        (&cert, &other_key, "it is not the key of the certificate in "),
        (&cert, &none, "tls.key: "),
        (&expired.0, &expired.1, "it has expired: 2001-01-02 00:00 UTC"),
    ] {
        let file = dir.path().join("clipper.toml");
        std::fs::write(&file, section(cert, key)).unwrap();
        let mut command = Command::new(crate::binary());
        command.args(["serve", "--config"]).arg(&file).arg("--data-dir").arg(dir.path().join("d"));
        for port in ["--query-addr", "--management-addr", "--metrics-addr", "--grpc-addr"] {
            command.args([port, "127.0.0.1:0"]);
        }
        let ended = command.args(["--rpc-addr", "tcp://127.0.0.1:0"]).output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success() && text.contains(told), "{told}: {text}");
    }
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let made = super::certificates::authority(&dir.path().join("clients"));
    let text = format!("{}client_ca = \"{}\"\n", section(&cert, &key), made.authority.display());
    let server = Served::start(&text, dir.path());
    let own = Some((made.client.as_path(), made.key.as_path()));
    let mut client = Tls::new(server.query, &config(&[&cert], own, H1));
    assert_eq!(client.request("GET", "/livez", "").unwrap().0, 200);
    let none = Tls::new(server.query, &config(&[&cert], None, H1)).request("GET", "/livez", "");
    let told = none.unwrap_err().to_string();
    let is_told = ["CertificateRequired", "reset", "pipe"].iter().any(|why| told.contains(why));
    assert!(is_told, "{told}");
    let wrong = Some((cert.as_path(), key.as_path()));
    let wrong = Tls::new(server.query, &config(&[&cert], wrong, H1)).request("GET", "/livez", "");
    assert!(wrong.is_err());
    let url = format!("https://{}", server.management);
    let mut command = Command::new(crate::binary());
    command.args(["admin", "apps", "list", "--url", &url, "--tls-ca"]).arg(&cert);
    let refused = command.output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    // The server may have closed before the command has read why.
    assert!(!refused.status.success(), "{told}");
    command.arg("--tls-cert").arg(&made.client).arg("--tls-key").arg(&made.key);
    assert!(command.output().unwrap().status.success());
}

#[test]
fn openssl_finds_the_versions_that_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let finds = |server: &Served, version: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &server.query.to_string(), version, "-CAfile"]);
        command.arg(&cert).args(["-verify_return_error", "-servername", "localhost"]);
        command.stdin(Stdio::null()).output().unwrap().status.success()
    };
    let server = Served::start(&section(&cert, &key), dir.path());
    assert!(finds(&server, "-tls1_3") && finds(&server, "-tls1_2"));
    assert!(!finds(&server, "-tls1_1"));
    let newer = tempfile::tempdir().unwrap();
    let text = format!("{}min_version = \"1.3\"\n", section(&cert, &key));
    let server = Served::start(&text, newer.path());
    assert!(finds(&server, "-tls1_3") && !finds(&server, "-tls1_2"));
}
