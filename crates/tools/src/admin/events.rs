//! Server-sent events, line by line. Pure.

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// What kind; empty if it does not say.
    pub name: String,
    /// Its number, if it has one.
    pub id: Option<u64>,
    pub data: String,
}

/// Makes events of lines.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    begun: ServerEvent,
    has_data: bool,
}

impl EventReader {
    /// Takes a line; an empty one ends an event. Comments, and events without data, are passed
    /// over.
    pub(super) fn take(&mut self, line: &[u8]) -> Option<ServerEvent> {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            let event = std::mem::take(&mut self.begun);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.begun.name),
            "id" => self.begun.id = value.parse().ok(),
            "data" => {
                if self.has_data {
                    self.begun.data.push('\n');
                }
                self.begun.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_make_events() {
        let text =
            ": hello\n\nid: 7\r\nevent: change\r\ndata: a\r\ndata:b\r\n\r\nretry: 5\n\ndata\n\n";
        let mut reader = EventReader::default();
        let events: Vec<ServerEvent> =
            text.split_inclusive('\n').filter_map(|line| reader.take(line.as_bytes())).collect();
        let first = ServerEvent { name: "change".into(), id: Some(7), data: "a\nb".into() };
        assert_eq!(events, [first, ServerEvent::default()]);
    }
}
