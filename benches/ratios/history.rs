//! What those who look into the journal's past cost those who ask for predictions.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clipper::priority::{BACKGROUND, give_way};
use clipper_clock as clock;
use clipper_tools::admin::Client;
use clipper_tools::bench::report::Report;
use clipper_tools::bench::{Arrivals, Load};
use clipper_tools::tls::Trust;
use serde_json::json;

use crate::Result;
use crate::process::{Process, pause, wait_for};
use crate::setup::{self, Server, Settings, Shape, note, number, plan};
use crate::table::{Table, median};

/// Events that the journal has, at least.
const EVENTS: u32 = 5_000;
/// Predictions a second, of an open loop.
const RATE: f64 = 2_000.0;
/// A change so often, in all windows, so that who follows has something to read.
const CHANGE_EVERY: Duration = Duration::from_millis(50);
/// What a program that does nothing else works for, before it rests again.
const STINT: Duration = Duration::from_millis(16);
/// Between two questions of one who looks: no break at all, or as people and pages ask.
const PAUSES: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(1_000)];

fn client(server: &Server) -> Result<Client> {
    let url = format!("http://{}", server.management);
    Ok(Client::new(&url, Duration::from_secs(10), &Trust::default())?)
}

fn change(client: &Client, n: u32) -> Result<()> {
    let app = format!("app{}", 1 + n % 9);
    client.post("update_app", &json!({"name": app, "latency_slo_micros": 100_000 + n}))?;
    Ok(())
}

/// Reads all events that there are from the stream.
fn stream(addr: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /admin/journal/stream?after=10 HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let last = format!("id: {EVENTS}\n");
    let (mut buffer, mut tail) = (vec![0; 65_536], String::new());
    loop {
        let read = stream.read(&mut buffer)?;
        tail.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if tail.contains(&last) {
            return Ok(());
        }
        if read == 0 {
            return Err("the stream has ended".into());
        }
        // What is looked for may lie across two reads.
        let keep = tail.len().saturating_sub(32);
        let keep = (keep..=tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(0);
        tail.drain(..keep);
    }
}

/// Those who look, and how often they did.
fn lookers(server: &Server, looks: &AtomicU64, over: &AtomicBool, between: Duration) -> Result<()> {
    let (one, other, management) = (client(server)?, client(server)?, server.management);
    let diff = move || -> Result<()> {
        one.ask("journal/diff", &json!({"from": "10", "to": "now"}))?;
        Ok(())
    };
    let backup = move || -> Result<()> {
        io::copy(&mut other.download("journal/backup")?, &mut io::sink())?;
        Ok(())
    };
    let all: [Box<dyn Fn() -> Result<()> + Send>; 3] =
        [Box::new(diff), Box::new(backup), Box::new(move || stream(management))];
    let again = |look: Box<dyn Fn() -> Result<()> + Send>| {
        // Those who look are usually elsewhere; here they at least give way.
        give_way(BACKGROUND);
        while !over.load(Ordering::Relaxed) {
            match look() {
                Ok(()) => looks.fetch_add(1, Ordering::Relaxed),
                Err(error) => return note(error),
            };
            pause(between);
        }
    };
    std::thread::scope(|scope| {
        for look in all {
            scope.spawn(move || again(look));
        }
    });
    Ok(())
}

/// `clipper journal log -f`, once it follows: what it takes to start is not what is measured.
fn log(settings: &Settings, server: &Server) -> Result<Process> {
    let printed = tempfile::NamedTempFile::new()?;
    let url = format!("http://{}", server.management);
    let mut command = Command::new("nice");
    command.arg(&settings.clipper);
    command.args(["journal", "log", "-f", "--url", &url]).stdout(printed.reopen()?);
    let log = Process::start(&mut command)?;
    let writer = client(server)?;
    let mut n = 0;
    wait_for("journal log -f prints a change", || {
        n += 1;
        change(&writer, n).ok()?;
        (printed.as_file().metadata().ok()?.len() > 0).then_some(())
    })?;
    Ok(log)
}

/// Who else has the cores in a window.
#[derive(Clone, Copy)]
enum Beside {
    Nobody,
    /// Those who look, with that between two questions.
    Lookers(Duration),
    /// A program of low priority that has nothing to do with the server, and takes such a part of
    /// a core.
    Elsewhere(f64),
}

/// Takes that part of a core.
fn burn(part: f64, over: &AtomicBool) {
    give_way(BACKGROUND);
    let work = STINT.mul_f64(part.clamp(0.0, 1.0));
    while !over.load(Ordering::Relaxed) {
        let until = clock::now() + work;
        while clock::now() < until {
            std::hint::spin_loop();
        }
        pause(STINT.saturating_sub(work));
    }
}

/// What was seen in a window.
struct Seen {
    report: Report,
    looks: u64,
    /// Of a core, that the server took.
    part: f64,
}

/// What predictions take.
fn window(settings: &Settings, server: &Server, beside: Beside) -> Result<Seen> {
    let mut plan = plan(settings, server.query);
    plan.load = Load::Open { rate: RATE, arrivals: Arrivals::Poisson };
    let (over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let writer = client(server)?;
    let between = match beside {
        Beside::Lookers(between) => Some(between),
        Beside::Nobody | Beside::Elsewhere(_) => None,
    };
    let _log = between.map(|_| log(settings, server)).transpose()?;
    let (start, used) = (clock::now(), server.process.cpu_us()?);
    let report = std::thread::scope(|scope| {
        let (over, looks) = (&over, &looks);
        scope.spawn(move || {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = change(&writer, n) {
                    return note(error);
                }
                pause(CHANGE_EVERY);
            }
        });
        if let Beside::Elsewhere(part) = beside {
            scope.spawn(move || burn(part, over));
        }
        if let Some(between) = between {
            scope.spawn(move || {
                if let Err(error) = lookers(server, looks, over, between) {
                    note(error);
                }
            });
        }
        let report = setup::load(&plan);
        over.store(true, Ordering::Relaxed);
        report
    });
    let took = clock::now().saturating_duration_since(start).as_secs_f64() * 1e6;
    let part = (server.process.cpu_us()? - used) / took;
    Ok(Seen { report: report?, looks: looks.load(Ordering::Relaxed), part })
}

/// Windows without and with `diff`, `backup`, the stream and `log -f`, and with a program that
/// takes as much of the cores, in turn: what that one costs is the machine's doing and not the
/// server's.
pub(crate) fn history(settings: &Settings) -> Result<Table> {
    let shape = Shape { apps: 10, ..Shape::RATIOS };
    let mut server = Server::start(settings, &shape)?;
    server.replicas(0, 1, Duration::ZERO)?;
    note(format_args!("{EVENTS} changes ..."));
    let writer = client(&server)?;
    (0..EVENTS).try_for_each(|n| change(&writer, n))?;
    window(settings, &server, Beside::Nobody)?;
    let columns = [
        "p50 ms",
        "beside",
        "p99 ms",
        "beside",
        "elsewhere",
        "of alone",
        "of alone",
        "looks/s",
        "cores",
    ];
    let mut table = Table::new("history", &columns);
    for between in PAUSES {
        note(format_args!("{between:?} between two looks ..."));
        let (mut alone, mut beside, mut elsewhere, mut looked, mut parts) =
            (Vec::new(), Vec::new(), Vec::new(), 0, Vec::new());
        for _ in 0..settings.rounds {
            let without = window(settings, &server, Beside::Nobody)?;
            let with = window(settings, &server, Beside::Lookers(between))?;
            let part = with.part - without.part;
            parts.push(part);
            let other = Beside::Elsewhere(part);
            elsewhere.push(window(settings, &server, other)?.report);
            alone.push(without.report);
            beside.push(with.report);
            looked += with.looks;
        }
        let of = |reports: &[Report], of: fn(&Report) -> f64| {
            median(&reports.iter().map(of).collect::<Vec<_>>())
        };
        let p50 = |reports: &[Report]| of(reports, |report| report.latency.p50_ms);
        let p99 = |reports: &[Report]| of(reports, |report| report.latency.p99_ms);
        let seconds = settings.seconds * number(settings.rounds as u64);
        table.row(
            format!("every {between:?}"),
            &[
                p50(&alone),
                p50(&beside),
                p99(&alone),
                p99(&beside),
                p99(&elsewhere),
                p99(&beside) / p99(&alone),
                p99(&elsewhere) / p99(&alone),
                number(looked) / seconds,
                median(&parts),
            ],
        );
    }
    table.note(format!(
        "Medians of {} alternating windows of {} s: {RATE} predictions a second, 20 changes a \
         second in all of them, {EVENTS} events. Beside: one each of diff, backup and the whole \
         stream, again after so long, and log -f. Elsewhere: a program that takes as much of a \
         core as the server did for them, which the last column says.",
        settings.rounds, settings.seconds
    ));
    Ok(table)
}
