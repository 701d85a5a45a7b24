//! The table of rollouts. Pure.

use clipper_domain::rollout::progress::{GuardProgress, RolloutDescription};

use super::cells::{Line, LineLevel, number, percent, printable, table};
use super::view::ApplicationRow;

/// How near a rollback is that somebody should look at it.
const ALARM_BAD: f64 = 0.5;

/// Those that run or were rolled back; no table where there is none.
pub(super) fn rollouts(rows: &[ApplicationRow]) -> Vec<Line> {
    let rollouts = rows.iter().filter_map(|app| Some((app, app.rollout.as_deref()?)));
    let cells: Vec<_> = rollouts.map(|(app, rollout)| row(&app.name, rollout)).collect();
    let heads =
        ["ROLLOUT", "KIND", "FROM", "TO", "STATE", "STEP", "PART", "EXPOSED", "GUARDS", "WHY"];
    if cells.is_empty() { Vec::new() } else { table(&heads, &[0, 1, 2, 3, 4, 8, 9], cells) }
}

fn row(app: &str, rollout: &RolloutDescription) -> (Vec<String>, LineLevel) {
    let is_running = rollout.end.is_none();
    let guards: Vec<String> = rollout.live.guards.iter().map(guard).collect();
    let waits_for = (!rollout.live.waits_for.is_empty())
        .then(|| format!("waits for {}", rollout.live.waits_for));
    let why = if is_running { waits_for } else { rollout.why.clone() };
    let cells = vec![
        printable(app),
        rollout.kind.to_string(),
        printable(&rollout.from),
        printable(&rollout.to),
        rollout.state.clone(),
        format!("{}/{}", rollout.step, rollout.steps.len()),
        rollout.percent.to_string(),
        rollout.live.exposed.to_string(),
        if guards.is_empty() { "-".to_owned() } else { guards.join(", ") },
        printable(why.as_deref().unwrap_or("-")),
    ];
    let is_near = rollout.live.guards.iter().any(|guard| guard.alarm > ALARM_BAD);
    (cells, if is_running && !is_near { LineLevel::Good } else { LineLevel::Bad })
}

/// `errors<1% (0.2 % of 512, alarm 3 %)`
fn guard(GuardProgress { guard, seen, value, alarm, .. }: &GuardProgress) -> String {
    let alarm = number(Some(alarm * 100.0));
    format!("{guard} ({} of {seen}, alarm {alarm} %)", percent(*value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(rollout: Option<serde_json::Value>) -> ApplicationRow {
        let rollout = rollout.map(|json| serde_json::from_value(json).unwrap());
        ApplicationRow { name: "digits".to_owned(), rollout, ..ApplicationRow::default() }
    }

    fn described(state: &str, alarm: f64) -> serde_json::Value {
        let mut rollout = json!({"app_name": "digits", "id": 1, "kind": "canary", "from": "net:1",
            "to": "net:2", "state": state, "step": 2, "steps": [1, 5], "percent": 5,
            "hold_ms": 1000, "min_queries": 500, "exposed": 512, "decides": true,
            "waits_for": "300 s to pass", "guards": [{"guard": "errors<1%", "seen": 512,
            "value": 0.002, "bound": 0.01, "alarm": alarm}]});
        if state == "rolled_back" {
            let evidence = json!({"guard": "errors<1%", "seen": 512, "value_millionths": 30000,
                "bound_millionths": 10000, "exposed": 512});
            rollout["end"] = json!({"outcome": "rolled_back", "evidence": evidence});
            rollout["why"] = json!("errors<1%: too many");
        }
        rollout
    }

    #[test]
    fn a_rollout_is_shown_with_its_step_and_the_evidence_of_its_guards() {
        assert_eq!(rollouts(&[app(None)]), []);
        let shown = rollouts(&[app(Some(described("running", 0.03)))]);
        let text: Vec<&str> = shown.iter().map(|line| &*line.text).collect();
        let line = text.iter().find(|line| line.starts_with("digits")).unwrap();
        for part in ["canary", "net:1", "net:2", "running", "2/2", "5%", " 512 ", "300 s to pass"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(line.contains("errors<1% (0.2 % of 512, alarm 3 %)"), "{line}");
        assert_eq!(shown.last().unwrap().level, LineLevel::Good);
    }

    #[test]
    fn one_that_is_near_a_rollback_or_behind_it_is_marked() {
        let level = |rollout| rollouts(&[app(Some(rollout))]).last().unwrap().level;
        assert_eq!(level(described("running", 0.6)), LineLevel::Bad);
        assert_eq!(level(described("rolled_back", 0.0)), LineLevel::Bad);
        let shown = rollouts(&[app(Some(described("rolled_back", 0.0)))]);
        assert!(shown.last().unwrap().text.contains("errors<1%: too many"));
    }
}
