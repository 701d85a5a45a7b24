//! Text of strangers, fit for a terminal and a log.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character can change how the text around it looks: control characters, and those that
/// turn the direction of writing or are not seen.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with every deceptive character as `\u{...}`; line breaks and tabs as `\n`, `\r` and
/// `\t`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, false)
}

/// As [`printable`], with line breaks kept.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, true)
}

/// JSON with every deceptive character of its strings as an escape of JSON: the same value, and
/// safe to look at. Line breaks and tabs between its parts stay.
#[must_use]
pub fn printable_json(json: &str) -> Cow<'_, str> {
    // JSON itself does not have the other control characters in it unescaped.
    let is_kept = |c: char| !is_deceptive(c) || matches!(c, '\n' | '\r' | '\t');
    if json.chars().all(is_kept) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_kept(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to memory does not fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    Cow::Owned(escaped)
}

fn escaped(text: &str, keeps_lines: bool) -> Cow<'_, str> {
    let is_kept = |c: char| !is_deceptive(c) || (keeps_lines && c == '\n');
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if is_kept(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Writing to memory does not fail.
            c => drop(write!(escaped, "\\u{{{:x}}}", u32::from(c))),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_is_escaped_and_all_else_stays() {
        let plain = "Grüße, 你好, שלום, emoji 🎉 and \"quotes\" \\n";
        assert!(matches!(printable(plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(printable("a\u{1b}[31mred\r\nb\tc"), "a\\u{1b}[31mred\\r\\nb\\tc");
        assert_eq!(
            printable("abc\u{202e}fdp.exe\u{2066}\u{9b}0m"),
            "abc\\u{202e}fdp.exe\\u{2066}\\u{9b}0m"
        );
        assert_eq!(printable_lines("one\ntwo\u{7}\rthree"), "one\ntwo\\u{7}\\rthree");
    }

    #[test]
    fn line_11b_json_stays_the_same_value() {
        let plain = "{\n  \"a\": \"Grüße, שלום \\u001b\"\n}";
        assert!(matches!(printable_json(plain), Cow::Borrowed(text) if text == plain));
        let json = "{\"a\": \"x\u{202e}y\u{9b}z\u{e0041}\"}";
        assert_eq!(printable_json(json), r#"{"a": "x\u202ey\u009bz\udb40\udc41"}"#);
    }
}
