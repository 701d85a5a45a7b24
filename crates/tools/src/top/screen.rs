//! The screen of `clipper top`: what it knows, what its keys do, how it is drawn. No terminal, no
//! clock.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::fetch::Fetched;
use super::fetch_error::FetchError;
use super::grid::{self, LineLevel, Sort};
use super::view::View;

const HELP: &[&str] = &[
    "n  sort by name",
    "t  sort by throughput",
    "l  sort by latency (replicas: by busy share)",
    "d  sort by defaults, errors and queues",
    "r  reverse the order",
    "up, down, page up, page down, home  move through what does not fit",
    "?  this help, on and off",
    "q  quit (also Esc and Ctrl-C)",
    "",
    "Rates and percentiles are those of the time between the last two looks at the server;",
    "percentiles come from the buckets of its histograms. * marks a model's current version.",
    "Red: p99 above the objective, more than 1 % defaults, errors of a model, a current version",
    "without a replica, a replica that is busy more than 90 % of the time, a model that more than",
    "1 % of the answers it was asked for went out without, a rollout that was rolled back or",
    "whose evidence is more than half of what rolls it back.",
];
const KEYS: &str = "q quit  n/t/l/d sort  r reverse  ? help";
const PAGE_LINES: u16 = 10;

/// What follows a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterKey {
    Stay,
    Quit,
}

/// Since when a server does not answer, and what it says.
#[derive(Debug)]
struct Away {
    since_unix_ms: u64,
    why: String,
}

/// Everything that is shown.
#[derive(Debug)]
pub struct Screen {
    url: String,
    last: Option<Fetched>,
    view: Option<View>,
    away: Option<Away>,
    sort: Sort,
    reversed: bool,
    help: bool,
    scroll: u16,
}

impl Screen {
    /// Nothing known yet of the server at `url`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            last: None,
            view: None,
            away: None,
            sort: Sort::default(),
            reversed: false,
            help: false,
            scroll: 0,
        }
    }

    /// Takes in one look at the server. What it said before stays on the screen while it does not
    /// answer.
    pub fn take(&mut self, fetched: Result<Fetched, FetchError>, unix_ms: u64) {
        match fetched {
            Ok(fetched) => {
                self.view = Some(View::between(self.last.as_ref(), &fetched));
                self.last = Some(fetched);
                self.away = None;
            }
            Err(why) => {
                let since_unix_ms = self.away.take().map_or(unix_ms, |away| away.since_unix_ms);
                self.away = Some(Away { since_unix_ms, why: why.to_string() });
                // Not a rate over the time of its absence.
                self.last = None;
            }
        }
    }

    /// Does what a key asks for.
    pub fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> AfterKey {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return AfterKey::Quit,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => {
                return AfterKey::Quit;
            }
            KeyCode::Char('n') => self.sort = Sort::Name,
            KeyCode::Char('t') => self.sort = Sort::Rate,
            KeyCode::Char('l') => self.sort = Sort::Latency,
            KeyCode::Char('d') => self.sort = Sort::Trouble,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down => self.scroll = self.scroll.saturating_add(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE_LINES),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(PAGE_LINES),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
        AfterKey::Stay
    }

    /// Draws it all into whatever size there is.
    pub fn draw(&mut self, frame: &mut Frame<'_>, unix_ms: u64) {
        let status = self.status(unix_ms);
        let bottom = u16::from(!status.is_empty()) + 1;
        let rows = [Constraint::Min(0), Constraint::Length(bottom)];
        let [body, foot] = Layout::vertical(rows).areas(frame.area());
        let lines = self.lines();
        let most = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(body.height);
        self.scroll = self.scroll.min(most);
        frame.render_widget(Paragraph::new(lines).scroll((self.scroll, 0)), body);
        let order = if self.reversed { ", reversed" } else { "" };
        let keys = format!("{KEYS}   sorted by {}{order}", self.sort.label());
        let mut foot_lines = vec![Line::styled(keys, Style::new().add_modifier(Modifier::DIM))];
        if !status.is_empty() {
            let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
            foot_lines.insert(0, Line::styled(status, red));
        }
        frame.render_widget(Paragraph::new(foot_lines), foot);
    }

    fn lines(&self) -> Vec<Line<'static>> {
        if self.help {
            return HELP.iter().map(|line| Line::raw(*line)).collect();
        }
        let Some(view) = &self.view else {
            return vec![Line::raw(format!("asking {} ...", self.url))];
        };
        let style = |level| match level {
            LineLevel::Head => Style::new().add_modifier(Modifier::BOLD),
            LineLevel::Good => Style::new(),
            LineLevel::Bad => Style::new().fg(Color::Red),
        };
        let lines = grid::lines(view, self.sort, self.reversed);
        lines.into_iter().map(|line| Line::styled(line.text, style(line.level))).collect()
    }

    /// Empty while the server answers.
    fn status(&self, unix_ms: u64) -> String {
        let Some(Away { since_unix_ms, why }) = &self.away else { return String::new() };
        let for_s = unix_ms.saturating_sub(*since_unix_ms) / 1_000;
        let clock = since_unix_ms / 1_000 % 86_400;
        let (hours, minutes, seconds) = (clock / 3_600, clock / 60 % 60, clock % 60);
        format!("unreachable since {hours:02}:{minutes:02}:{seconds:02} UTC ({for_s} s): {why}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::top::fetch::Definitions;
    use crate::top::scrape::Samples;
    use clipper_clock as clock;

    const NOON_MS: u64 = 12 * 3_600_000;

    fn fetched(after: Duration, answered: u32) -> Fetched {
        let text = format!(
            "clipper_predictions_total{{app=\"digits\",outcome=\"prediction\"}} {answered}\n\
             clipper_predictions_total{{app=\"zebra\",outcome=\"prediction\"}} {}\n",
            answered * 3
        );
        Fetched {
            at: clock::now() + after,
            unix_ms: NOON_MS,
            samples: Samples::parse(&text),
            definitions: Ok(Definitions::default()),
        }
    }

    fn error(why: &str) -> FetchError {
        FetchError { url: "http://there/metrics".to_owned(), why: why.to_owned() }
    }

    fn shown(screen: &mut Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame, NOON_MS + 5_000)).unwrap();
        terminal.backend().to_string()
    }

    fn running() -> Screen {
        let mut screen = Screen::new("http://there");
        screen.take(Ok(fetched(Duration::ZERO, 0)), NOON_MS);
        screen.take(Ok(fetched(Duration::from_secs(10), 100)), NOON_MS);
        screen
    }

    fn press(screen: &mut Screen, key: char) -> AfterKey {
        screen.key(KeyCode::Char(key), KeyModifiers::NONE)
    }

    #[test]
    fn a_server_that_goes_away_stays_on_the_screen_with_the_time() {
        let mut screen = Screen::new("http://there");
        assert!(shown(&mut screen, 80, 10).contains("asking http://there"));
        screen.take(Ok(fetched(Duration::ZERO, 0)), NOON_MS);
        screen.take(Err(error("connection refused")), NOON_MS);
        screen.take(Err(error("still refused")), NOON_MS + 3_000);
        let away = shown(&mut screen, 80, 10);
        assert!(
            away.contains("unreachable since 12:00:00 UTC (5 s): http://there/metrics: still"),
            "{away}"
        );
        assert!(away.contains("digits"), "{away}");
        screen.take(Ok(fetched(Duration::ZERO, 7)), NOON_MS + 4_000);
        let back = shown(&mut screen, 80, 10);
        assert!(!back.contains("unreachable") && back.contains("digits"), "{back}");
    }

    #[test]
    fn keys_sort_reverse_help_and_quit() {
        let mut screen = running();
        let first = |screen: &mut Screen| {
            let text = shown(screen, 100, 20);
            text.find("digits").unwrap() < text.find("zebra").unwrap()
        };
        assert!(first(&mut screen), "by name");
        press(&mut screen, 't');
        assert!(!first(&mut screen), "zebra has more");
        press(&mut screen, 'r');
        assert!(first(&mut screen));
        assert!(shown(&mut screen, 100, 20).contains("sorted by queries/s, reversed"));
        press(&mut screen, '?');
        assert!(shown(&mut screen, 100, 20).contains("sort by throughput"));
        press(&mut screen, '?');
        assert!(!shown(&mut screen, 100, 20).contains("sort by throughput"));
        assert_eq!(press(&mut screen, 'q'), AfterKey::Quit);
        assert_eq!(screen.key(KeyCode::Char('c'), KeyModifiers::CONTROL), AfterKey::Quit);
        assert_eq!(press(&mut screen, 'c'), AfterKey::Stay);
    }

    #[test]
    fn any_size_is_drawn_and_the_rest_can_be_reached() {
        let mut screen = running();
        for (width, height) in [(1, 1), (5, 2), (200, 3), (20, 100)] {
            shown(&mut screen, width, height);
        }
        let small = shown(&mut screen, 100, 4);
        assert!(!small.contains("zebra"), "{small}");
        for _ in 0..100 {
            screen.key(KeyCode::Down, KeyModifiers::NONE);
        }
        let end = shown(&mut screen, 100, 4);
        assert!(end.contains("REPLICA"), "{end}");
        screen.key(KeyCode::Home, KeyModifiers::NONE);
        assert_eq!(shown(&mut screen, 100, 4), small);
    }
}
