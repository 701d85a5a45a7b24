//! `clipper top`: what a server does right now, as tables.
//!
//! Two scrapes of its metrics and its list of applications, models and replicas ([`fetch`]) make
//! rows ([`view`]), rows make tables ([`grid`]), and tables a screen ([`screen`]) or a text. All
//! but the first and the loop of the last are pure.
//!
//! The labelled metrics of the query frontend are the source: counters and buckets of two moments
//! give the rates and percentiles of the time between them, where the Clipper JSON knows
//! percentiles since the start only.

mod cells;
mod error;
pub mod fetch;
mod fetch_error;
pub mod grid;
mod options;
mod rollouts;
pub mod scrape;
pub mod screen;
pub mod view;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use clipper_clock as clock;

pub use self::error::TopError;
pub use self::fetch_error::FetchError;
pub use self::options::TopOptions;

use fetch::{Fetched, Fetcher};
use screen::{AfterKey, Screen};
use view::View;

/// How often the screen looks for keys, resizes and news.
const FRAME: Duration = Duration::from_millis(100);

/// Two scrapes an interval apart, and what they say.
///
/// # Errors
/// Why the server's metrics cannot be had.
pub fn once(options: &TopOptions) -> Result<View, TopError> {
    let fetcher = Fetcher::new(options)?;
    let before = fetcher.fetch()?;
    let (_keep, never) = mpsc::channel::<()>();
    // Waits; nobody ever sends.
    let _ = never.recv_timeout(options.interval);
    let now = fetcher.fetch()?;
    Ok(View::between(Some(&before), &now))
}

/// Draws until the user has had enough.
///
/// # Errors
/// The terminal cannot be used.
pub fn live(options: &TopOptions) -> Result<(), TopError> {
    let (news, looks) = mpsc::channel();
    let (_stop, stopped) = mpsc::channel();
    let fetcher = Fetcher::new(options)?;
    let interval = options.interval;
    thread::Builder::new()
        .name("scraper".to_owned())
        .spawn(move || scrape_until_stopped(&fetcher, interval, &news, &stopped))
        .map_err(TopError::Thread)?;
    let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    let mut screen = Screen::new(&options.query_url);
    let result = draw_until_quit(&mut terminal, &mut screen, &looks);
    ratatui::restore();
    result.map_err(TopError::Terminal)
}

/// On a thread of its own, so that a server that does not answer does not stop the keys.
fn scrape_until_stopped(
    fetcher: &Fetcher,
    interval: Duration,
    news: &Sender<Result<Fetched, FetchError>>,
    stopped: &Receiver<()>,
) {
    while news.send(fetcher.fetch()).is_ok() {
        if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn draw_until_quit(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    looks: &Receiver<Result<Fetched, FetchError>>,
) -> std::io::Result<()> {
    loop {
        for look in looks.try_iter() {
            screen.take(look, clock::unix_millis());
        }
        terminal.draw(|frame| screen.draw(frame, clock::unix_millis()))?;
        if !event::poll(FRAME)? {
            continue;
        }
        // A resize needs nothing but the next frame.
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && screen.key(key.code, key.modifiers) == AfterKey::Quit
        {
            return Ok(());
        }
    }
}
