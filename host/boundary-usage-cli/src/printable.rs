//! Escapes untrusted text for terminals and logs.
//!
//! JSON keys, file names, servers' messages and database rows are untrusted. A terminal obeys escape sequences in such
//! text, and a newline in it forges a log line. Therefore control characters, and characters that reorder or hide text,
//! are escaped, and long text is shortened.
//!
//! A message embeds untrusted text with [`printable`] or [`path`]. Errors, logs and human output are escaped once more
//! with [`lines`] and [`log_record`], in case a message embeds text without escaping it.

use std::borrow::Cow;
use std::fmt::{Display, Write};
use std::path::Path;

/// The character limit of untrusted text: two or three lines of a terminal.
const TEXT_CHARS: usize = 300;

/// The character limit of a path. Linux allows 4,096 bytes.
const PATH_CHARS: usize = 1_000;

/// The character limit of a line of an error, of the log, or of human output.
const LINE_CHARS: usize = 4_000;

/// Escapes and shortens untrusted text. Returns one line.
pub fn printable(text: impl Display) -> String {
    shorten(escape(&text.to_string()), TEXT_CHARS).into_owned()
}

/// Escapes a path, and shortens it if it is very long. Returns one line.
pub fn path(path: &Path) -> String {
    shorten(escape(&path.to_string_lossy()), PATH_CHARS).into_owned()
}

/// Escapes a line, and shortens it if it is very long.
pub fn line(text: &str) -> String {
    shorten(escape(text), LINE_CHARS).into_owned()
}

/// Escapes each line of a text, and shortens it if it is very long.
///
/// Keeps the text's newlines.
pub fn lines(text: &str) -> String {
    let lines = text.split('\n').map(|line| shorten(escape(line), LINE_CHARS));
    lines.collect::<Vec<_>>().join("\n")
}

/// Replaces control characters in JSON by JSON's escapes, which keeps the meaning.
///
/// `serde_json` leaves some control characters as they are.
pub fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(escaped, "\\u{unit:04x}").expect("writing to a string succeeds");
            }
        }
    }
    escaped
}

/// Escapes a formatted log record.
///
/// Returns one line, which keeps the formatter's colours.
pub fn log_record(record: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(record);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let mut safe = String::with_capacity(text.len() + 1);
    let mut rest = text;
    while let Some(start) = rest.find('\x1b') {
        safe += &escape(&rest[..start]);
        let colour = colour(&rest[start..]);
        safe += if colour.is_empty() { "\\u{1b}" } else { colour };
        rest = &rest[start + colour.len().max(1)..];
    }
    safe += &escape(rest);
    let mut safe = shorten(Cow::Owned(safe), LINE_CHARS).into_owned();
    safe.push('\n');
    safe.into_bytes()
}

/// Returns the colour sequence at the start: `ESC [`, digits and semicolons, `m`.
fn colour(text: &str) -> &str {
    let parameters = text.strip_prefix("\x1b[").unwrap_or_default();
    match parameters.find(|character: char| !character.is_ascii_digit() && character != ';') {
        Some(end) if parameters[end..].starts_with('m') => &text[..end + 3],
        _ => "",
    }
}

/// Escapes every character that is not printable.
fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_printable(character) {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_default());
        }
    }
    Cow::Owned(escaped)
}

/// Shortens the middle of a text, because the end of a message is often important.
fn shorten(text: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    // A character has at least one byte, so the characters of most texts need not be counted.
    if text.len() <= most || text.chars().count() <= most {
        return text;
    }
    let (characters, tail) = (text.chars().count(), most / 3);
    let at = |number: usize| text.char_indices().nth(number).map_or(text.len(), |(at, _)| at);
    let (head, end) = (&text[..at(most - tail)], &text[at(characters - tail)..]);
    Cow::Owned(format!("{head} … ({} characters left out) … {end}", characters - most))
}

/// Returns whether a character is visible and leaves other characters unchanged.
fn is_printable(character: char) -> bool {
    match character {
        // The control characters C0, DEL and C1.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => false,
        // Soft hyphen, marks and embeddings of bidirectional text, separators of lines and paragraphs.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => false,
        // Invisible operators, isolates, the byte order mark, annotations, tags.
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b[2Jb\nc\r\td\u{9b}31me\u{202e}f\u{2066}g\u{7f}h\u{feff}i\u{e0041}";

    #[test]
    fn untrusted_text_becomes_one_line_without_control_characters() {
        let shown = "a\\u{1b}[2Jb\\nc\\r\\td\\u{9b}31me\\u{202e}f\\u{2066}g\\u{7f}h\\u{feff}i\\u{e0041}";
        assert_eq!(printable(HOSTILE), shown);
        assert_eq!(path(Path::new(HOSTILE)), shown);
        assert_eq!(line(HOSTILE), shown);
        assert_eq!(lines(HOSTILE), shown.replace("\\n", "\n"));
        assert_eq!(log_record(format!("{HOSTILE}\n").as_bytes()), format!("{shown}\n").into_bytes());
    }

    #[test]
    fn text_of_any_language_stays_unchanged() {
        for text in ["Grüße, 世界", "مرحبا", "👩", "e\u{301}", "C:\\new \"quoted\" 'text'"] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn long_text_keeps_its_beginning_and_its_end() {
        let long = format!("begin{}end", "é".repeat(60_000));
        let shown = printable(&long);
        assert!(shown.starts_with("beginéé") && shown.ends_with("ééend"), "{shown}");
        assert!(shown.contains("(59708 characters left out)"), "{shown}");
        assert!(shown.chars().count() < TEXT_CHARS + 50);
        assert_eq!(printable("x".repeat(TEXT_CHARS)), "x".repeat(TEXT_CHARS));
    }

    #[test]
    fn json_keeps_its_meaning_without_control_characters() {
        let text = serde_json::to_string(&HOSTILE).unwrap();
        let shown = json(&text);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), HOSTILE);
    }

    #[test]
    fn a_log_record_keeps_only_colours() {
        let record = "\x1b[33m WARN\x1b[0m \x1b[1;31mred\x1b[0m \x1b[2J\x1b]0;title\x07\x1b[\x1b[12\n";
        let shown = String::from_utf8(log_record(record.as_bytes())).unwrap();
        let expected = "\x1b[33m WARN\x1b[0m \x1b[1;31mred\x1b[0m \\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{1b}[\\u{1b}[12\n";
        assert_eq!(shown, expected);
    }
}
