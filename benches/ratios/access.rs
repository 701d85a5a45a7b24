//! What keys and limits cost, and what floods do to others.

use std::fmt::Write as _;
use std::time::Duration;

use clipper::access::{Access, Refused, Shown, hash, new_secret};
use clipper_clock as clock;
use clipper_config::AccessConfig;
use clipper_domain::access::listed::parse;
use clipper_domain::admin::NewSecret;
use clipper_domain::{Action, Limits};
use clipper_tools::admin::Client;
use clipper_tools::bench::inputs::Choice;
use clipper_tools::bench::report::Report;
use clipper_tools::bench::{Arrivals, Load, Plan};
use clipper_tools::tls::Trust;
use serde_json::json;

use crate::Result;
use crate::cases::Series;
use crate::limits::{SLEEP, ideal, open, sleepy};
use crate::process::pause;
use crate::setup::{self, Server, Settings, Shape, measure, note, plan};
use crate::table::{Table, median};

/// Wrong keys a second.
const WRONG: f64 = 10_000.0;

/// How much more the tenant that floods asks for than it may.
const FLOOD: f64 = 10.0;

/// A client of the management frontend that may do everything.
struct Admin(Client);

impl Admin {
    /// Makes the first key, of the role admin.
    fn first(server: &Server) -> Result<Self> {
        let url = format!("http://{}", server.management);
        let client = Client::new(&url, Duration::from_secs(10), &Trust::default())?;
        let body = json!({"name": "root", "role": "admin"});
        let made: NewSecret = serde_json::from_value(client.ask("add_key", &body)?)?;
        Ok(Self(client.with_key(made.secret.as_deref())?))
    }

    /// Makes a key that may ask for so much.
    fn key(&self, name: &str, limits: Limits) -> Result<String> {
        let body = json!({"name": name, "role": "predict", "limits": limits});
        let made: NewSecret = serde_json::from_value(self.0.ask("add_key", &body)?)?;
        Ok(made.secret.ok_or("a key without a secret")?)
    }

    fn limit(&self, name: &str, limits: Limits) -> Result<()> {
        self.0.post("limit_key", &json!({"name": name, "limits": limits}))?;
        Ok(())
    }
}

fn limits(rate: f64, concurrent: Option<i64>) -> Result<Limits> {
    #[allow(clippy::cast_possible_truncation, reason = "a rate of some thousands")]
    let rate = rate as i64;
    Ok(Limits::of([Some(rate), None, concurrent, None], None)?)
}

/// One server whose list of keys is there or not.
struct Listed {
    file: std::path::PathBuf,
    text: String,
    stranger: Client,
}

impl Listed {
    /// Takes the list away, or puts it back, and waits until that is so.
    fn are_there(&self, are: bool) -> Result<()> {
        let next = self.file.with_extension("next");
        std::fs::write(&next, if are { &self.text } else { "" })?;
        std::fs::rename(next, &self.file)?;
        for _ in 0..1_000 {
            let is_let_in = self.stranger.ask("get_all_models", &json!({"verbose": false})).is_ok();
            if is_let_in != are {
                return Ok(());
            }
            pause(Duration::from_millis(10));
        }
        Err("the list of keys is not read again".into())
    }
}

/// Hits without keys, with one, and with one that has limits, in turn, by the same process: another
/// one may be a few percent quicker for no reason.
pub(crate) fn keys(settings: &Settings) -> Result<Table> {
    let dir = tempfile::tempdir()?;
    let secret = || new_secret().ok_or("no random numbers");
    let (root, free) = (secret()?, secret()?);
    let mut text = format!("root admin {root}\nfree predict {free}\n");
    for n in 0..100 {
        writeln!(text, "other-{n} predict {}", secret()?)?;
    }
    let file = dir.path().join("keys");
    std::fs::write(&file, "")?;
    let env = vec![("CLIPPER_ACCESS__KEYS_FILE", file.display().to_string())];
    let mut server = Server::start(settings, &Shape { env, ..Shape::RATIOS })?;
    server.replicas(0, 1, Duration::ZERO)?;
    let url = format!("http://{}", server.management);
    let client = || Client::new(&url, Duration::from_secs(10), &Trust::default());
    let admin = Admin(client()?.with_key(Some(&root))?);
    let listed = Listed { file, text, stranger: client()? };
    let wide = Limits::of([Some(1_000_000), None, Some(1_000_000), Some(1 << 30)], None)?;
    let plan_of = |key: Option<&str>| {
        let mut plan = plan(settings, server.query);
        plan.inputs.choice = Choice::Same;
        plan.target.key = key.map(str::to_owned);
        plan
    };
    let mut warm_up = plan_of(None);
    warm_up.duration = Duration::from_secs(1);
    setup::load(&warm_up)?;
    let names = ["no keys", "no keys, and a header", "key", "key with limits"];
    let mut series: [Series; 4] = Default::default();
    for round in 0..settings.rounds {
        note(format_args!("round {} ...", round + 1));
        for (at, series) in series.iter_mut().enumerate() {
            let mut own = free.clone();
            if at == 3 {
                own = admin.key("limited", wide)?;
            }
            let plan = plan_of((at > 0).then_some(&own));
            series.push(measure(&plan, &server.process, &server.containers)?);
            if at == 1 {
                listed.are_there(true)?;
            }
        }
        admin.0.post("revoke_key", &json!({"name": "limited"}))?;
        listed.are_there(false)?;
    }
    let columns = ["server us", "ratio", "of header", "queries/s", "p99 ms", "no answer"];
    let mut table = Table::new("keys", &columns);
    for (name, kind) in names.iter().zip(&series) {
        table.row(
            *name,
            &[
                kind.server_us(),
                kind.server_us() / series[0].server_us(),
                kind.server_us() / series[1].server_us(),
                kind.median(|m| m.report.queries_per_s),
                kind.median(|m| m.report.latency.p99_ms),
                kind.not_predicted(),
            ],
        );
    }
    table.note(format!(
        "Hits at 64 connections of one server, whose list of 102 keys comes and goes, medians of \
         {} alternating rounds of {} s; us: CPU per query. of header: against one without keys \
         that is sent the same header, which it reads and does not look at. Wanted: key <= 1.03.",
        settings.rounds, settings.seconds
    ));
    checks(&mut table)?;
    Ok(table)
}

/// What one check takes, and whether it tells kinds of wrong secrets apart.
fn checks(table: &mut Table) -> Result<()> {
    const CHECKS: u32 = 2_000;
    const SAMPLES: usize = 400;
    let secret = || new_secret().ok_or("no random numbers");
    let good = secret()?;
    let mut list = format!("good predict {good}\n");
    for n in 0..100 {
        writeln!(list, "other-{n} predict {}", secret()?)?;
    }
    let access = Access::new(&AccessConfig::default(), parse(&list, hash)?, true);
    let kinds = ["good", "unknown", "last letters"];
    let mut samples = [const { Vec::new() }; 3];
    for at in 0..SAMPLES * kinds.len() {
        // Others each time: where a secret's hash falls among those that are known costs a few
        // nanoseconds more or less, whatever its letters.
        let shown = match at % 3 {
            0 => good.clone(),
            1 => secret()?,
            _ => with_another_end(&good, &secret()?),
        };
        let header = format!("Bearer {shown}");
        let start = clock::now();
        for _ in 0..CHECKS {
            let shown = Shown { header: Some(header.as_bytes()), ..Shown::default() };
            let checked = access.check((Action::Predict, Some("app0")), shown);
            assert!(matches!(checked, Ok(Some(_)) | Err(Refused::Unknown)));
        }
        samples[at % 3].push((clock::now() - start).as_secs_f64() * 1e9 / f64::from(CHECKS));
    }
    for (name, samples) in kinds.iter().zip(&samples) {
        table.note(format!("A check of a {name} key: {:.0} ns (median).", median(samples)));
    }
    table.note(format!(
        "Welch's t of unknown against last letters over {SAMPLES} samples each: {:.2} (above 4.5 \
         they would be told apart). Wanted: a check below 1,000 ns.",
        welch(&samples[1], &samples[2])
    ));
    Ok(())
}

/// A secret that is wrong in its last letters alone.
fn with_another_end(good: &str, other: &str) -> String {
    const ALIKE: usize = 3;
    let (start, end) = (&good[..good.len() - ALIKE], &other[other.len() - ALIKE..]);
    format!("{start}{end}")
}

/// Of the faster half of each: what else the machine does makes samples slow, not fast.
fn welch(a: &[f64], b: &[f64]) -> f64 {
    let stats = |samples: &[f64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.truncate(sorted.len() / 2);
        let n = f64::from(u32::try_from(sorted.len()).unwrap_or(1));
        let mean = sorted.iter().sum::<f64>() / n;
        let variance = sorted.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    };
    let ((mean_a, of_a), (mean_b, of_b)) = (stats(a), stats(b));
    (mean_a - mean_b) / (of_a + of_b).sqrt()
}

/// Two loads at the same time.
fn beside(plan: &Plan, flood: &Plan) -> Result<(Report, Report)> {
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| setup::load(flood));
        // It is under way.
        pause(Duration::from_millis(500));
        let report = setup::load(plan);
        let flood = flood.join().map_err(|_| "the load generator died")?;
        Ok((report?, flood?))
    })
}

/// One who has a good key: alone, beside somebody who tries keys, and beside as much that goes to
/// another program, which takes the same cores and generator: what is left is the server's part.
pub(crate) fn wrong_keys(settings: &Settings) -> Result<Table> {
    let mut server = Server::start(settings, &sleepy())?;
    server.replicas(0, 1, SLEEP)?;
    let admin = Admin::first(&server)?;
    let key = admin.key("good", Limits::default())?;
    let mut calm = open(settings, &server, ideal() * 0.3);
    calm.target.key = Some(key);
    let mut flood = plan(settings, server.query);
    flood.target.key = Some(format!("clk_{}", "x".repeat(43)));
    flood.load = Load::Open { rate: WRONG, arrivals: Arrivals::Constant };
    flood.duration = calm.warmup + calm.duration + Duration::from_secs(1);
    let (_bare, addr) = setup::bare()?;
    let mut elsewhere = flood.clone();
    (elsewhere.target.addr, elsewhere.target.host) = (addr, addr.to_string());
    let columns = ["flood/s", "in time %", "p50 ms", "p99 ms", "of alone", "gen p99", "RSS MiB"];
    let mut table = Table::new("wrong keys", &columns);
    let mut ratios = [const { Vec::new() }; 2];
    for round in 0..settings.rounds {
        note(format_args!("round {} ...", round + 1));
        let alone = setup::load(&calm)?;
        let mut row = |name: &str, report: &Report, flood: f64| {
            let numbers = &report.prediction_latency;
            let (in_time, rss) = (report.share_in_time * 100.0, server.process.rss_mib()?);
            let ratio = numbers.p99_ms / alone.prediction_latency.p99_ms;
            let name = format!("{} {name}", round + 1);
            let lag = report.send_lag.p99_ms;
            table.row(name, &[flood, in_time, numbers.p50_ms, numbers.p99_ms, ratio, lag, rss]);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(ratio)
        };
        row("alone", &alone, 0.0)?;
        let (report, other) = beside(&calm, &elsewhere)?;
        let [of_elsewhere, of_wrong] = &mut ratios;
        of_elsewhere.push(row("flood elsewhere", &report, other.queries_per_s)?);
        let (report, wrong) = beside(&calm, &flood)?;
        let refused = wrong.http_errors.values().sum::<u64>();
        of_wrong.push(row("wrong keys", &report, setup::number(refused) / wrong.duration_s)?);
    }
    let [elsewhere, wrong] = ratios.map(|ratios| median(&ratios));
    table.note(format!(
        "One good key at {:.0}/s, a model that takes {SLEEP:?} for a batch; wrong keys at \
         {WRONG}/s on 64 connections of the same address, or as many requests to the bare \
         handler. Median of p99 to alone: {wrong:.2}, with the flood elsewhere {elsewhere:.2}. \
         Wanted: the same. RSS grows by the answers that the cache keeps of the good key's \
         inputs; wrong keys add nothing.",
        ideal() * 0.3,
    ));
    Ok(table)
}

/// One of two keys of an application floods: by fair shares alone, and with limits.
pub(crate) fn tenants(settings: &Settings) -> Result<Table> {
    let mut server = Server::start(settings, &sleepy())?;
    server.replicas(0, 1, SLEEP)?;
    let admin = Admin::first(&server)?;
    let fair = ideal() * 0.3;
    let calm_key = admin.key("calm", Limits::default())?;
    let flood_key = admin.key("flood", Limits::default())?;
    let mut calm = open(settings, &server, fair);
    calm.target.key = Some(calm_key);
    let mut flood = open(settings, &server, fair * FLOOD);
    flood.target.key = Some(flood_key);
    flood.duration = calm.warmup + calm.duration + Duration::from_secs(1);
    flood.warmup = Duration::ZERO;
    let columns = ["in time %", "of alone", "p99 ms", "flood got/s", "flood 429/s"];
    let mut table = Table::new("tenants", &columns);
    let mut ratios = [const { Vec::new() }; 2];
    for round in 0..settings.rounds {
        note(format_args!("round {} ...", round + 1));
        let alone = setup::load(&calm)?;
        let mut row = |name: &str, report: &Report, flooded: Option<&Report>| {
            let ratio = report.share_in_time / alone.share_in_time;
            let got = flooded.map_or(0.0, |flood| flood.goodput_per_s);
            let refused = flooded.map_or(0.0, |flood| {
                setup::number(flood.http_errors.values().sum()) / flood.duration_s
            });
            let p99 = report.prediction_latency.p99_ms;
            let name = format!("{} {name}", round + 1);
            table.row(name, &[report.share_in_time * 100.0, ratio, p99, got, refused]);
            ratio
        };
        row("alone", &alone, None);
        admin.limit("flood", Limits::default())?;
        let (report, flooded) = beside(&calm, &flood)?;
        ratios[0].push(row("no limits", &report, Some(&flooded)));
        admin.limit("flood", limits(fair, Some(200))?)?;
        let (report, flooded) = beside(&calm, &flood)?;
        ratios[1].push(row("limits", &report, Some(&flooded)));
    }
    let [without, with] = ratios.map(|ratios| median(&ratios));
    table.note(format!(
        "Two keys of one application, whose model answers {:.0}/s; each may have {fair:.0}/s, one \
         asks for {FLOOD} times that. Medians: {without:.3} of alone by fair shares only, \
         {with:.3} with a limit. Wanted: 0.98 with limits.",
        ideal()
    ));
    Ok(table)
}
