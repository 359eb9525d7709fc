//! The layout as a test: the modules that each module may use, file names, and the table of rules.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{Text, assert_none, rust, texts};

const LIBRARY: &str = "host/boundary-usage/src/";

/// The modules of the library that each of its modules may use. Modules that use no other one are absent.
const USES: [(&str, &[&str]); 17] = [
    ("activity", &["error"]),
    // The generated code names two types of the capabilities, which implement its traits.
    ("bindings", &["capabilities"]),
    ("capabilities", &["bindings", "checkpoint", "database", "error", "ledger", "records"]),
    ("certificates", &["error"]),
    ("checkpoint", &["database", "error", "ledger", "options"]),
    ("collection", &["database", "error", "failed_attempts", "history", "pruning", "records", "summary"]),
    ("connecting", &["checkpoint", "database", "error"]),
    ("component", &["activity", "bindings", "capabilities", "error", "options", "records"]),
    ("database", &["certificates", "error", "records", "summary"]),
    ("history", &["database", "error", "records", "summary"]),
    ("intake", &["activity", "error", "threads"]),
    ("ledger", &["error", "records"]),
    ("options", &["clock", "error"]),
    ("pruning", &["database", "error", "history", "records"]),
    ("summary", &["error", "records"]),
    ("tower", &["activity", "error", "tracker"]),
    (
        "tracker",
        &[
            "activity",
            "capabilities",
            "checkpoint",
            "component",
            "database",
            "error",
            "failed_attempts",
            "intake",
            "ledger",
            "options",
            "records",
        ],
    ),
];

/// Returns the module of the library that a file belongs to.
fn module(file: &Text) -> Option<&str> {
    let path = file.path.strip_prefix(LIBRARY)?;
    Some(path.split('/').next()?.trim_end_matches(".rs")).filter(|module| *module != "lib")
}

/// Returns the other modules that a module uses, outside its unit tests.
fn used_modules() -> BTreeMap<String, BTreeSet<String>> {
    let files: Vec<_> = rust().collect();
    let modules: BTreeSet<_> = files.iter().filter_map(module).collect();
    let mut used = BTreeMap::<_, BTreeSet<_>>::new();
    for file in &files {
        let Some(module) = module(file) else { continue };
        if file.path.ends_with("/tests.rs") {
            continue;
        }
        let code = file.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let names = code.split("crate::").skip(1);
        let names =
            names.map(|rest| rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap());
        let names = names.filter(|name| *name != module && modules.contains(name)).map(ToOwned::to_owned);
        used.entry(module.to_owned()).or_default().extend(names);
    }
    used
}

#[test]
fn a_module_of_the_library_uses_only_the_modules_that_it_may_use() {
    let allowed = BTreeMap::from(USES);
    for (module, used) in used_modules() {
        let allowed = allowed.get(&*module).copied().unwrap_or_default();
        let others = used.iter().filter(|name| !allowed.contains(&name.as_str()));
        assert_none(others.map(|name| format!("{module} uses {name}")));
    }
}

#[test]
fn the_modules_of_the_library_have_no_cycle() {
    let mut remaining = BTreeMap::from(USES);
    remaining.remove("bindings");
    while !remaining.is_empty() {
        let leaf = remaining.iter().find(|(_, used)| !used.iter().any(|name| remaining.contains_key(name)));
        let Some((&leaf, _)) = leaf else { panic!("a cycle among {:?}", remaining.keys()) };
        remaining.remove(leaf);
    }
}

/// Names that files of one crate may share: the roots and tests of modules, and the files of the two kinds of database,
/// which correspond to each other.
fn may_repeat(path: &str) -> bool {
    // Unit tests in a file of their own.
    let is_root = ["/mod.rs", "/tests.rs"].iter().any(|name| path.ends_with(name));
    is_root || ["database/sqlite/", "database/postgres/"].iter().any(|folder| path.contains(folder))
}

#[test]
fn no_two_files_of_a_crate_share_a_name() {
    let mut names = BTreeMap::<_, Vec<_>>::new();
    for file in rust().filter(|file| !may_repeat(&file.path)) {
        let Some((crate_folder, path)) = file.path.split_once("src/") else { continue };
        let name = path.rsplit('/').next().unwrap().to_owned();
        names.entry((crate_folder.to_owned(), name)).or_default().push(file.path.clone());
    }
    assert_none(names.into_values().filter(|paths| paths.len() > 1).map(|paths| paths.join(" and ")));
}

/// Returns the rules in the table of docs/architecture.md.
fn rules() -> BTreeSet<String> {
    let map = texts().into_iter().find(|file| file.path == "docs/architecture.md").expect("the map exists");
    let first_cells =
        map.text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).map(|(cell, _)| cell);
    first_cells.filter(|cell| is_rule(cell)).map(ToOwned::to_owned).collect()
}

/// Returns whether a word is the id of a rule: a letter and a number from 1 to 19.
fn is_rule(word: &str) -> bool {
    let number = word.split_at_checked(1).filter(|(letter, _)| "RCDH".contains(letter)).map(|(_, number)| number);
    number.is_some_and(|number| !number.starts_with('0') && number.parse::<u8>().is_ok_and(|number| number <= 19))
}

#[test]
fn every_rule_that_a_text_names_is_in_the_table() {
    let rules = rules();
    assert!(rules.len() >= 23, "the table has only {} rules", rules.len());
    let names_rules =
        |file: &Text| [".rs", ".md", ".sql", ".wit", ".py", ".ts"].iter().any(|end| file.path.ends_with(end));
    for file in texts().into_iter().filter(names_rules) {
        let words = file.text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let unknown = words.filter(|word| is_rule(word) && !rules.contains(*word));
        assert_none(unknown.map(|word| format!("{} names {word}", file.path)));
    }
}

#[test]
fn every_rule_has_a_test_that_names_it() {
    let rust: Vec<_> = rust().collect();
    let functions = rust.iter().flat_map(|file| file.functions());
    let is_named = |word: &&str| *word == "and" || is_rule(&word.to_uppercase());
    let named: BTreeSet<_> =
        functions.flat_map(|(name, _)| name.split('_').take_while(is_named)).map(str::to_uppercase).collect();
    assert_none(rules().into_iter().filter(|rule| !named.contains(rule)).map(|rule| format!("{rule} has no test")));
}
