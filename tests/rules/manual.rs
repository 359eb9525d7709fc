//! Help, manual and completions: in the program, in `groff`, and in bash, zsh and fish.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::cli::COMMANDS;
use crate::program::{Ended, PROGRAM, Workplace};

/// Sentences that must be in the help and in the manual.
const SENTENCES: [(&str, &[&str]); 15] = [
    (
        "serve",
        &[
            "SIGTERM, SIGINT and SIGQUIT stop the process in order",
            "A faulty file changes nothing",
            "writes everything to the database with a last flush",
        ],
    ),
    (
        "replay",
        &[
            "One JSON object on each line, in UTF-8",
            concat!(
                r#"{"workspace":"0193a1b2-0000-7000-8000-000000000001","#,
                r#""owner":"0193a1b2-0000-7000-8000-0000000000aa","allowed":5,"denied":2}"#
            ),
            "An invalid line, SIGINT, SIGTERM, SIGQUIT and SIGHUP stop the replay",
            "A recording that is replayed twice counts twice.",
        ],
    ),
    ("collect", &["The summary stays in the database, undelivered, until", "does not create it"]),
    ("status", &["the oldest undelivered summaries", "and change nothing"]),
    ("report", &["So active = new + returning + resurrected", "estimates with 95 % bounds", "changes nothing"]),
    (
        "export",
        &[
            "Sketches of databases with the same hashing key can be merged",
            "If the export fails, the file stays as it was.",
        ],
    ),
    ("deliver", &["With --dry-run, the command sends nothing and changes nothing"]),
    ("check", &["and for each fault what to do", "The exit code is 1 if there is a fault"]),
    ("monitor", &["An unavailable database is critical", "changes nothing"]),
    ("prune", &["The newest period always stays.", "`report` never counts them as new again"]),
    ("init", &["`report` can merge databases that have the same key", "keep the file as secret as the database"]),
    ("component", &["Any host with a component runtime can load it"]),
    ("demo", &["Everything happens in a temporary directory"]),
    ("completions", &["It calls the program at each completion"]),
    ("man", &["one for the program, and one for each command"]),
];

/// Returns the text as one line with single spaces, because line breaks do not matter.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the indented lines after a heading.
fn examples(text: &str, heading: &str) -> Vec<String> {
    let after = text.split_once(heading).unwrap_or_else(|| panic!("{heading} is not in {text}")).1;
    let lines = after.lines().skip(1).take_while(|line| line.starts_with(' ') || line.is_empty());
    lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn help(workplace: &Workplace, command: &str) -> String {
    let help: Ended = workplace.command([command, "--help"]).env("COLUMNS", "80").output().unwrap().into();
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    help.stdout
}

/// Returns a page as `man` shows it on a terminal with 80 columns.
fn page(workplace: &Workplace, name: &str) -> String {
    let mut groff = Command::new("groff");
    groff.args(["-man", "-Tutf8", "-P-cbou", "-rLL=78n", "-ww"]).arg(workplace.path(name));
    let output = groff.output().expect("`groff` must be installed; `make setup` installs it");
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && warnings.is_empty(), "{name}: {warnings}");
    String::from_utf8(output.stdout).unwrap().replace(['\u{2010}', '\u{2212}'], "-")
}

#[test]
fn help_and_manual_contain_the_important_sentences() {
    let workplace = Workplace::new();
    workplace.json(["man", "--output", "."]);
    for (command, sentences) in SENTENCES {
        let help = words(&help(&workplace, command));
        let page = words(&page(&workplace, &format!("boundary-usage-{command}.1")));
        for sentence in sentences {
            assert!(help.contains(sentence), "{sentence:?} is not in the help of {command}: {help}");
            assert!(page.contains(sentence), "{sentence:?} is not in the page of {command}: {page}");
        }
    }
}

#[test]
fn help_and_manual_have_the_same_examples_on_unbroken_lines() {
    let workplace = Workplace::new();
    let written = workplace.json(["man", "--output", "."]);
    assert_eq!(written, json!({ "output": "." }));
    let mut pages: Vec<_> = COMMANDS.map(|command| format!("boundary-usage-{command}.1")).into();
    pages.push("boundary-usage.1".into());
    pages.sort();
    assert_eq!(workplace.files(), pages);
    for command in COMMANDS {
        let from_help = examples(&help(&workplace, command), "Examples:");
        let from_page = examples(&page(&workplace, &format!("boundary-usage-{command}.1")), "\nEXAMPLES");
        assert_eq!(from_page, from_help, "{command}");
        let wide: Ended = workplace.command([command, "--help"]).env("COLUMNS", "100").output().unwrap().into();
        assert_eq!(from_help, examples(&wide.stdout, "Examples:"), "{command}: a line is too long");
        assert!(from_help.iter().any(|line| line.contains(&format!("boundary-usage {command}"))), "{from_help:?}");
    }
    let first = workplace.run(["man"]);
    assert_eq!(first.stdout, std::fs::read_to_string(workplace.path("boundary-usage.1")).unwrap());
    workplace.run(["man", "--output", "missing"]).assert_failed(1, "cannot write the manual into missing");
}

#[test]
fn the_synopsis_shows_options_with_their_values() {
    let workplace = Workplace::new();
    workplace.json(["man", "--output", "."]);
    for (command, parts) in [
        ("serve", &["[--replica <UUID>]", "[--no-collect]", "{--socket <PATH> | --config <FILE>}"][..]),
        ("replay", &["[--flush-every <N>]", "[--skip-invalid]", "[--database <URL>]", " <FILE>..."]),
        ("collect", &["[--max-staleness <DURATION>]", "[--acknowledge <ID>]"]),
        ("completions", &[" <SHELL>"]),
    ] {
        let page = page(&workplace, &format!("boundary-usage-{command}.1"));
        let synopsis = words(page.split("SYNOPSIS").nth(1).unwrap().split("DESCRIPTION").next().unwrap());
        for part in parts {
            assert!(synopsis.contains(part), "{part:?} is not in {synopsis}");
        }
    }
}

#[test]
fn help_and_version_fail_on_a_full_disk() {
    let workplace = Workplace::new();
    for arguments in
        ["--help", "-h", "--version", "help replay", "serve --help", "completions bash", "man", "component"]
    {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let failed: Ended = workplace.command(arguments.split(' ')).stdout(full).output().unwrap().into();
        failed.assert_failed(1, "cannot write to stdout");
        let unread = workplace.command(arguments.split(' ')).stdout(std::io::pipe().unwrap().1).output().unwrap();
        assert!(unread.status.success(), "{arguments}: a closed pipe is not a failure");
    }
}

/// Creates a workplace with recordings and a link to the program, and returns it with a PATH for the link.
fn workplace_with_program() -> (Workplace, String) {
    let workplace = Workplace::new();
    workplace.write("record one.jsonl", "");
    workplace.write("record.jsonl", "");
    std::fs::create_dir(workplace.path("records")).unwrap();
    std::fs::create_dir(workplace.path("bin")).unwrap();
    std::os::unix::fs::symlink(PROGRAM, workplace.path("bin/boundary-usage")).unwrap();
    let path = format!("{}:{}", workplace.path("bin").display(), std::env::var("PATH").unwrap());
    (workplace, path)
}

/// Runs a script in a shell, and returns the sorted candidates that it prints.
///
/// Its arguments are the file of completions and the words of the command line.
fn complete(shell: &str, script: &str, completions: &Path, path: &str, line: &str) -> Vec<String> {
    let mut command = Command::new(shell);
    command.args(["-c", script, "complete"]).arg(completions).args(line.split('|')).env("PATH", path);
    command.current_dir(completions.parent().unwrap()).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|_| panic!("`{shell}` must be installed; `make setup` installs it"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{shell}: {line}: {stderr}");
    let mut candidates: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    candidates.sort();
    candidates
}

const BASH: &str = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    compopt() { [[ "$*" != "-o filenames" ]] || echo "(file names)"; }
    function=$(complete -p boundary-usage | sed 's/.* -F \([^ ]*\) .*/\1/')
    $function boundary-usage "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\n' "${COMPREPLY[@]}""#;

/// zsh completes only in its line editor, so the script runs the editor in a pseudo-terminal.
const ZSH: &str = r#"zmodload zsh/zpty; completions=$1; shift; line="${(j: :)@}"
    zpty session zsh -f -i
    zpty -w session 'PS1=; autoload -Uz compinit; compinit -u -D; source '${(q)completions}
    zpty -w session 'compadd() { local -a found; builtin compadd -O found "$@"; print -rl -- "<"$^found">"; }'
    zpty -w session 'zle -C complete-word complete-word _main_complete'
    zpty -w session 'complete-and-report() { zle complete-word; print -r -- "done-$((1+1))"; }'
    zpty -w session 'zle -N complete-and-report; bindkey "^I" complete-and-report; print ready-$((1+1))'
    while zpty -r session out; do [[ $out == *ready-2* ]] && break; done
    zpty -n -w session "$line"$'\t'
    while zpty -r session out; do output+=$out; [[ $output == *done-2* ]] && break; done
    print -r -- $output | grep -o '<[^>]*>' | tr -d '<>'
    zpty -d session"#;

const FISH: &str = r#"source $argv[2]; complete -C (string join -- ' ' $argv[3..]) | cut -f 1"#;

/// Checks that the candidates include the expected ones.
#[track_caller]
fn assert_has(candidates: &[String], expected: &[&str]) {
    for candidate in expected {
        assert!(candidates.iter().any(|found| found == candidate), "{candidate} is not in {candidates:?}");
    }
}

#[test]
fn bash_completes_commands_flags_values_and_files() {
    let (workplace, path) = workplace_with_program();
    let script = Ended::from(workplace.command(["completions", "bash"]).output().unwrap()).stdout;
    let script = workplace.write("completions", &script);
    let complete = |line: &str| complete("bash", BASH, &script, &path, line);
    assert_eq!(complete("boundary-usage|repl"), ["replay"]);
    assert_eq!(complete("boundary-usage|serve|--deliver-t"), ["--deliver-timeout", "--deliver-token-file"]);
    assert_has(&complete("boundary-usage|status|--format|"), &["human", "json"]);
    assert_has(&complete("boundary-usage|completions|"), &["bash", "elvish", "fish", "powershell", "zsh"]);
    let files = complete("boundary-usage|replay|rec");
    assert_has(&files, &["(file names)", "record one.jsonl", "record.jsonl", "records/"]);
    assert_has(&complete("boundary-usage|replay|record.jsonl|rec"), &["record one.jsonl"]);
    assert_has(&complete("boundary-usage|man|--output|rec"), &["records/"]);
}

#[test]
fn fish_completes_commands_flags_values_and_files() {
    let (workplace, path) = workplace_with_program();
    let script = workplace.run(["completions", "fish"]).stdout;
    let script = workplace.write("completions", &script);
    let complete = |line: &str| complete("fish", FISH, &script, &path, line);
    assert_eq!(complete("boundary-usage|repl"), ["replay"]);
    assert_has(&complete("boundary-usage|serve|--deliver-t"), &["--deliver-token-file", "--deliver-timeout"]);
    assert_has(&complete("boundary-usage|completions|"), &["bash", "elvish", "fish", "powershell", "zsh"]);
    assert_has(&complete("boundary-usage|replay|rec"), &["record one.jsonl", "record.jsonl", "records/"]);
    assert_has(&complete("boundary-usage|status|--format|"), &["human", "json"]);
}

#[test]
fn zsh_completes_commands_flags_values_and_files() {
    let (workplace, path) = workplace_with_program();
    let script = workplace.run(["completions", "zsh"]).stdout;
    let script = workplace.write("completions", &script);
    let complete = |line: &str| complete("zsh", ZSH, &script, &path, line);
    assert_has(&complete("boundary-usage|completions|"), &["bash", "elvish", "fish", "powershell", "zsh"]);
    assert_has(&complete("boundary-usage|serve|--deliver-t"), &["--deliver-token-file", "--deliver-timeout"]);
    assert_has(&complete("boundary-usage|replay|rec"), &["record one.jsonl", "record.jsonl"]);
}
