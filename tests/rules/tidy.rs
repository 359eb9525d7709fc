//! The style as a test: properties of every file that a review need not check.

use std::path::{Path, PathBuf};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

/// File names that do not describe the content.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// The texts that only the database modules may contain.
const SQL: [&str; 6] =
    ["SELECT ", "INSERT INTO ", "DELETE FROM ", "UPDATE boundary_", "BEGIN IMMEDIATE", "pg_advisory"];

/// The allowed first names of absolute paths. Every machine has them, except two that no machine has.
const PLACES: [&str; 9] = ["dev", "etc", "nonexistent", "nowhere", "proc", "run", "tmp", "usr", "var"];

/// A file of the project.
pub(crate) struct Text {
    /// The path from the root of the project.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Text {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Returns whether the file is code in one of the languages whose files begin with a summary.
    pub(crate) fn is_code(&self) -> bool {
        [".c", ".h", ".mjs", ".py", ".rs", ".ts"].iter().any(|end| self.path.ends_with(end))
    }

    /// Returns whether the file is in a folder of this name at any depth.
    fn is_in(&self, folder: &str) -> bool {
        self.path.split('/').any(|part| part == folder)
    }

    /// Returns the lines before the unit tests, without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        let code = self.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        code.lines().filter(|line| !["//", "#", "/*", "*"].iter().any(|mark| line.trim_start().starts_with(mark)))
    }

    /// Returns the names of its functions with their numbers of lines.
    ///
    /// rustfmt aligns the last brace with the first word.
    pub(crate) fn functions<'a>(&'a self) -> Vec<(&'a str, usize)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let function = |(start, line): (usize, &&'a str)| {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[start..].iter().position(|line| *line == end).unwrap_or(0) + 1;
            Some((name_of_function(line)?, length))
        };
        lines.iter().enumerate().filter_map(function).collect()
    }
}

fn name_of_function(line: &str) -> Option<&str> {
    let mut words = line
        .trim_start()
        .split(' ')
        .skip_while(|word| ["async", "const", "default", "unsafe"].contains(word) || word.starts_with("pub"));
    let name = (words.next() == Some("fn")).then(|| words.next())??;
    name.split(['(', '<']).next()
}

/// Returns every text of the project except built and hidden files, and the data of earlier schemas.
pub(crate) fn texts() -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut texts, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with('.') || ["dist", "node_modules", "target", "upgrades"].contains(&name) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                texts.push(Text { path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text });
            }
        }
    }
    texts
}

pub(crate) fn rust() -> impl Iterator<Item = Text> {
    texts().into_iter().filter(Text::is_rust)
}

fn code() -> impl Iterator<Item = Text> {
    texts().into_iter().filter(Text::is_code)
}

/// Fails if there are faults, and lists all of them.
#[track_caller]
pub(crate) fn assert_none(faults: impl Iterator<Item = String>) {
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

#[test]
fn files_have_a_summary_a_good_name_and_at_most_400_lines() {
    let starts = |file: &Text| if file.is_rust() { ["//! "; 3] } else { ["// ", "/**", "\"\"\""] };
    let has_doc = |file: &Text| starts(file).iter().any(|start| file.text.starts_with(start));
    assert_none(code().filter(|file| !has_doc(file)).map(|file| format!("{} has no summary", file.path)));
    // In Go, the summary is that of the package.
    let counted = texts().into_iter().filter(|file| file.is_code() || file.path.ends_with(".go"));
    let long = counted.map(|file| (file.text.lines().count(), file.path)).filter(|(lines, _)| *lines > FILE_LINES);
    assert_none(long.map(|(lines, path)| format!("{path} has {lines} lines")));
    let stem = |file: &Text| Path::new(&file.path).file_stem().unwrap().to_str().unwrap().to_owned();
    assert_none(code().filter(|file| EMPTY_NAMES.contains(&&*stem(file))).map(|file| file.path));
}

#[test]
fn functions_have_at_most_70_lines() {
    let mut seen = 0;
    for file in rust() {
        let functions = file.functions();
        seen += functions.len();
        let long = functions.into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES);
        assert_none(long.map(|(name, lines)| format!("{}: {name} has {lines} lines", file.path)));
    }
    assert!(seen > 500, "only {seen} functions were found");
}

#[test]
fn sql_and_the_component_runtime_stay_in_their_modules() {
    let sources = || code().filter(|file| file.is_in("src") && !file.is_in("tests"));
    let contains = |file: &Text, words: &[&str]| file.code().any(|line| words.iter().any(|word| line.contains(word)));
    let sql = sources().filter(|file| !file.is_in("database") && contains(file, &SQL));
    assert_none(sql.map(|file| format!("{} contains SQL", file.path)));
    let may_use_it = |file: &Text| {
        let names = ["component", "capabilities"];
        names.iter().any(|name| file.is_in(name))
            || ["/bindings.rs", "/component.py"].iter().any(|end| file.path.ends_with(end))
    };
    let runtime = sources().filter(|file| !may_use_it(file) && contains(file, &["wasmtime::", "from wasmtime"]));
    assert_none(runtime.map(|file| format!("{} uses the component runtime", file.path)));
}

#[test]
fn absolute_paths_exist_on_every_machine() {
    let text = |file: &Text| !file.path.ends_with(".lock") && !file.path.ends_with("LICENSE");
    for file in texts().into_iter().filter(text) {
        let starts = file.text.match_indices([' ', '"', '`', '(']).map(|(at, _)| &file.text[at + 1..]);
        let paths = starts.filter_map(|rest| rest.strip_prefix('/')?.split_once('/')).map(|(first, _)| first);
        let named = |first: &&str| first.len() > 1 && first.bytes().all(|byte| byte.is_ascii_lowercase());
        let elsewhere = paths.filter(named).filter(|first| !PLACES.contains(first));
        assert_none(
            elsewhere.map(|first| format!("{} names a path in /{first}, which other machines may not have", file.path)),
        );
    }
}

#[test]
fn links_between_documents_lead_to_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in texts().into_iter().filter(|file| file.path.ends_with(".md")) {
        let folder = root.join(&file.path);
        let links = file.text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        let files = links.filter(|link| !link.contains("://")).map(|link| link.split('#').next().unwrap());
        let broken = files.filter(|link| !link.is_empty() && !folder.parent().unwrap().join(link).exists());
        assert_none(broken.map(|link| format!("{} links to {link}, which does not exist", file.path)));
    }
}
