//! Log lines and captured output: what observes never hurts what is observed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;

use super::processes::{ask, await_answer, python_config, python_server};
use crate::support::served::{Served, app, until};
use crate::support::signals::signal;

const LOUD: &str = r#"
import os, sys, time

def predict(inputs):
    return [one_of(one) for one in inputs]

def one_of(one):
    if one.startswith("long"):
        sys.stderr.write("x" * 9000)
        sys.stderr.flush()
    if one.startswith("bytes"):
        os.write(1, b"\xff\xfe\x80 not text\n")
    if one.startswith("bar"):
        for n in range(300):
            os.write(2, b"\r%d of 300" % n)
    if one.startswith("escape"):
        os.write(1, "\x1b[2J\x1b]0;title\x07 \u202egnirts\n".encode())
    if one.startswith("many"):
        for n in range(5000):
            os.write(1, b"line %d\n" % n)
    if one.startswith("exit"):
        os._exit(7)
    return "fine"
"#;

#[test]
fn line_08a_no_output_of_a_model_ends_its_capture() {
    let folder = tempfile::tempdir().unwrap();
    let server = python_server(folder.path(), "", 1, LOUD);
    await_answer(&server);
    for input in ["long", "bytes", "bar", "long again"] {
        assert_eq!(ask(&server, input).as_deref(), Some("fine"), "{input}");
    }
    for n in 0..20 {
        assert_eq!(ask(&server, &format!("later {n}")).as_deref(), Some("fine"));
    }
    let has =
        |text: &str| until(text, || server.log().iter().any(|l| l.contains(text)).then_some(()));
    has("0 of 300");
    has("99 of 300");
    has(" not text");
    has("xxx ... (cut)");
    let starts = server.metric("clipper_container_starts_total{model=\"m\",version=\"1\"}");
    assert!(starts < 1.5, "{starts} starts");
}

#[test]
fn line_11b_a_models_output_reaches_the_log_as_text_and_so_many_lines_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[containers]\noutput_lines_per_second_max = 50";
    let server = python_server(folder.path(), settings, 1, LOUD);
    await_answer(&server);
    assert_eq!(ask(&server, "escape").as_deref(), Some("fine"));
    until("the escapes are written out", || {
        let log = server.log();
        let line = log.iter().find(|line| line.contains("gnirts"))?;
        let message = serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].clone();
        let message = message.as_str().unwrap().to_owned();
        assert!(message.contains("\\u{1b}[2J") && message.contains("\\u{202e}"), "{message}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
        Some(())
    });
    assert_eq!(ask(&server, "many").as_deref(), Some("fine"));
    until("what was left out is counted", || {
        server
            .log()
            .iter()
            .any(|line| line.contains("more lines of its output were left out"))
            .then_some(())
    });
    let shown = server.log().iter().filter(|line| line.contains("\"line ")).count();
    assert!(shown < 2_500, "{shown} of 5,000 lines");
}

/// Everything that the model prints, into a short queue.
const SETTINGS: &str = "[log]\nqueue_max_bytes = 4096\n\
                        [containers]\noutput_lines_per_second_max = 1000000";

/// A server whose standard error is `stderr`.
fn served_with(stderr: Stdio, folder: &Path) -> Served {
    let config = python_config(folder, SETTINGS, 1, LOUD);
    Served::start_unheard(stderr, &config, folder)
}

/// Predictions, supervision, changes and stopping.
fn works(server: Served) {
    await_answer(&server);
    // Enough lines to fill any pipe and the queue behind it.
    for n in 0..12 {
        assert_eq!(ask(&server, &format!("quiet {n}")).as_deref(), Some("fine"), "round {n}");
        for input in ["long", "bar", "many"] {
            assert_eq!(
                ask(&server, &format!("{input} {n}")).as_deref(),
                Some("fine"),
                "{input} {n}"
            );
        }
        if n == 4 {
            // Its end and the next start are logged too.
            assert_eq!(ask(&server, "exit"), None);
            await_answer(&server);
        }
        server.admin("/admin/add_app", &app(&format!("app{n}"), 100_000));
        server.admin("/admin/delete_app", &json!({"name": format!("app{n}")}));
    }
    until("lost lines are counted", || {
        (server.metric("clipper_log_lines_lost_total") > 0.0).then_some(())
    });
    signal(server.pid(), Signal::SIGTERM);
    assert!(server.exit_status().success());
}

#[test]
fn line_08b_a_full_disk_under_the_log_hurts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    works(served_with(full.into(), folder.path()));
}

#[test]
fn line_08b_a_log_whose_reader_has_gone_hurts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let server = served_with(OwnedFd::from(writer).into(), folder.path());
    drop(reader);
    works(server);
}

#[test]
fn line_08b_a_log_that_nobody_reads_hurts_nobody_and_goes_on_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (_unread, writer) = std::io::pipe().unwrap();
    works(served_with(OwnedFd::from(writer).into(), folder.path()));

    let folder = tempfile::tempdir().unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // Full from the start.
    // As much as a pipe usually holds.
    writer.write_all(&vec![b'\n'; 65_000]).unwrap();
    let server = served_with(OwnedFd::from(writer).into(), folder.path());
    await_answer(&server);
    let lines = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        text
    });
    server.admin("/admin/add_app", &app("late", 100_000));
    signal(server.pid(), Signal::SIGTERM);
    assert!(server.exit_status().success());
    let text = lines.join().unwrap();
    assert!(text.contains("\"listening\"") && text.contains("\"stopped\""), "{text}");
}
