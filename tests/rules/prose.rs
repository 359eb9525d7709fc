//! The prose as a test: words that the style bans, the length of lines, and the length of sentences.

use crate::tidy::{Text, assert_none, texts};

/// The last column of a line.
const COLUMNS: usize = 120;

/// The longest sentence in a document, in words.
const SENTENCE_WORDS: usize = 45;

/// Words and phrases that a plain text does not need. Functions return, values are, and actors have names.
const BANNED: [&str; 24] = [
    "whoever",
    "whomever",
    "somebody",
    "someone",
    "nobody",
    "anybody",
    "anyone",
    "answers",
    "answered",
    "tells",
    "is told",
    "are told",
    "was told",
    "says",
    "goes on",
    "went on",
    "comes by",
    "is found out",
    "the upper hand",
    "sees to it",
    "is at it",
    "mends",
    "mended",
    "half way",
];

/// Returns whether the project's authors write the file as prose or code.
fn is_written(file: &Text) -> bool {
    let ends = [
        ".c", ".go", ".h", ".md", ".mjs", ".py", ".rs", ".service", ".socket", ".sql", ".toml", ".ts", ".wit", ".yml",
        "Makefile",
    ];
    // This file lists the banned words.
    let is_exempt = file.path == "tests/rules/prose.rs";
    (ends.iter().any(|end| file.path.ends_with(end)) || file.path.starts_with("scripts/")) && !is_exempt
}

/// Returns whether a phrase occurs in a lower-case line as whole words.
fn contains(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(at, _)| {
        let is_letter = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        !is_letter(line[..at].chars().next_back()) && !is_letter(line[at + phrase.len()..].chars().next())
    })
}

#[test]
fn texts_have_none_of_the_banned_words() {
    let mut faults: Vec<String> = Vec::new();
    for file in texts().into_iter().filter(is_written) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let line = line.to_lowercase();
            let found = BANNED.into_iter().filter(|phrase| contains(&line, phrase));
            faults.extend(found.map(|phrase| format!("{}:{number} has \"{phrase}\"", file.path)));
        }
    }
    assert_none(faults.into_iter());
}

/// Returns the lines of a document outside fenced blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut is_fenced = false;
    let outside = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    };
    text.lines().filter(outside).collect()
}

#[test]
fn lines_end_at_column_120() {
    let mut faults: Vec<String> = Vec::new();
    let is_table = |line: &str| line.trim_start().starts_with('|');
    for file in texts().into_iter().filter(is_written) {
        let is_document = file.path.ends_with(".md");
        let lines = if is_document { prose(&file.text) } else { file.text.lines().collect() };
        let long = lines.into_iter().filter(|line| line.chars().count() > COLUMNS && !(is_document && is_table(line)));
        // A text without a place to break it, such as a URL or a recorded line, may be longer.
        let breakable =
            long.filter(|line| line.trim().contains(' ') && !line.contains("://") && !line.contains("r#\""));
        faults.extend(breakable.map(|line| format!("{}: {line}", file.path)));
    }
    assert_none(faults.into_iter());
}

#[test]
fn sentences_in_documents_are_short() {
    let mut faults: Vec<String> = Vec::new();
    let is_document = |file: &Text| file.path.ends_with(".md");
    for file in texts().into_iter().filter(is_document) {
        let prose = prose(&file.text).join("\n");
        let blocks = prose.split("\n\n").flat_map(|block| block.split("\n- ")).flat_map(|block| block.split("\n|"));
        let sentences = blocks.flat_map(|block| block.split_inclusive(['.', '|', ':', ';']));
        let long = sentences.filter(|sentence| sentence.split_whitespace().count() > SENTENCE_WORDS);
        faults.extend(long.map(|sentence| format!("{}: {sentence}", file.path)));
    }
    assert_none(faults.into_iter());
}
