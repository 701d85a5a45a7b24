//! Journals of older releases, as these have left them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{listed, offline};
use crate::support::served::{Http, Served};

/// The data directory that a release has left; which events are in it is said in `README`.
fn unpacked(release: &str, folder: &Path) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal/directories");
    let archive = fixtures.join(format!("{release}.tar.gz"));
    let tar = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(folder).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    folder.join("data")
}

#[test]
fn journals_of_older_releases_open_and_say_unknown_for_who_and_why() {
    for release in ["7c4aaf6", "684cb1a"] {
        let folder = tempfile::tempdir().unwrap();
        let data = unpacked(release, folder.path());
        let verified = offline(&data, &["verify"]);
        let verified = String::from_utf8(verified.stdout).unwrap();
        assert!(verified.ends_with("clean\n"), "{release}: {verified}");
        let events = listed(&data);
        assert_eq!(events.len(), 8, "{release}");
        assert!(events.iter().all(|event| event.get("why").is_none()), "{release}");
        let text = String::from_utf8(offline(&data, &["list"]).stdout).unwrap();
        let asked = text.lines().filter(|line| line.contains("  admin      unknown, why: unknown"));
        assert_eq!(asked.count(), 4, "{release}: {text}");
        // It serves, and goes on with records of the new form.
        let server = Served::start("", folder.path());
        let mut http = Http::new(server.management);
        let all = json!({"verbose": true}).to_string();
        let (_, apps) = http.request("POST", "/admin/get_all_applications", &all).unwrap();
        let apps: serde_json::Value = serde_json::from_str(&apps).unwrap();
        assert_eq!(
            (&apps[0]["name"], &apps[0]["linked_models"]),
            (&json!("digits"), &json!(["m"]))
        );
        let version = json!({"model_name": "m", "model_version": "1"});
        server.admin("/admin/set_model_version", &version);
        server.kill_9();
        let events = listed(&data);
        assert_eq!((events.len(), &events[8]["from"]), (9, &json!("127.0.0.1")), "{release}");
    }
}
