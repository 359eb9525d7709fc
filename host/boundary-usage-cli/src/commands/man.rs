//! `man`: renders the manual pages.
//!
//! `clap_mangen` renders most sections. This module renders the synopsis, because `clap_mangen` omits the values of
//! options. This module also renders the sections after the options, because `clap_mangen` would wrap the lines of
//! examples.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Args, Command, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::arguments::Global;
use crate::{output, printable};

/// Print the manual's first page, or write all pages.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Directory to write all pages to: one for the program, and one for each command.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage man > boundary-usage.1
  boundary-usage man --output /usr/local/share/man/man1";

pub(crate) fn run(global: &Global, arguments: &Arguments, program: Command) -> Result<()> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let Some(directory) = &arguments.output else {
        let mut page = Vec::new();
        render(&program, &mut page).context("cannot write the page")?;
        return output::print_bytes(&page);
    };
    let shown = printable::path(directory);
    let written = write_pages(&program, directory);
    written.with_context(|| format!("cannot write the manual into {shown}"))?;
    global.format.print(&serde_json::json!({ "output": directory }), || format!("written  {shown}"))
}

fn write_pages(program: &Command, directory: &Path) -> io::Result<()> {
    for command in program.get_subcommands().chain([program]) {
        let mut page = Vec::new();
        render(command, &mut page)?;
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        File::create(directory.join(format!("{name}.1")))?.write_all(&page)?;
    }
    Ok(())
}

/// Writes the page of a command.
fn render(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command.clone()).source(concat!("boundary-usage ", env!("CARGO_PKG_VERSION")));
    man.render_title(page)?;
    // Commands and options must look as they are typed, so neither hyphenate nor justify.
    Roff::new().control("nh", []).control("ad", ["l"]).to_writer(page)?;
    man.render_name_section(page)?;
    synopsis(command).to_writer(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    sections(&after.map(ToString::to_string).unwrap_or_default()).to_writer(page)?;
    man.render_version_section(page)
}

/// Renders the synopsis.
///
/// Options that may be omitted come first, then required options, then positional arguments.
fn synopsis(command: &Command) -> Roff {
    let mut line = vec![bold(command.get_bin_name().unwrap_or_else(|| command.get_name()))];
    let options = command.get_arguments().filter(|argument| !argument.is_positional() && !argument.is_hide_set());
    let (required, optional): (Vec<_>, Vec<_>) = options.partition(|option| is_required(command, option));
    for option in optional.iter().filter(|option| !matches!(option.get_action(), ArgAction::Help | ArgAction::Version))
    {
        line.push(roman(" ["));
        line.extend(usage(option));
        line.push(roman("]"));
    }
    for (number, option) in required.iter().enumerate() {
        line.push(roman(if number == 0 { " {" } else { " | " }));
        line.extend(usage(option));
    }
    if !required.is_empty() {
        line.push(roman("}"));
    }
    for argument in command.get_positionals() {
        line.push(roman(" "));
        line.push(italic(argument.to_string()));
    }
    if command.has_subcommands() {
        line.push(roman(" "));
        line.push(italic("COMMAND"));
    }
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]).text(line);
    synopsis
}

/// Returns whether the option is required, or belongs to a required group.
fn is_required(command: &Command, option: &Arg) -> bool {
    let required = command.get_groups().filter(|group| group.is_required_set());
    option.is_required_set() || required.flat_map(|group| group.get_args()).any(|id| id == option.get_id())
}

/// Renders an option as it is typed, for example `-v` or `--replica <UUID>`.
fn usage(option: &Arg) -> Vec<Inline> {
    let name = match (option.get_long(), option.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => return Vec::new(),
    };
    let values = option.get_num_args().filter(|range| range.takes_values()).and_then(|_| option.get_value_names());
    let mut usage = vec![bold(name)];
    for value in values.unwrap_or_default() {
        usage.extend([roman(" "), italic(format!("<{value}>"))]);
    }
    usage
}

/// Renders the sections after the options.
///
/// A line that ends with a colon is a heading. Indented lines are shown unchanged, and other lines are sentences.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_example = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if is_example && !indented && !line.is_empty() {
            roff.control("EE", []);
            is_example = false;
        }
        match line.strip_suffix(':').filter(|_| !indented) {
            _ if indented => {
                if !is_example {
                    roff.control("EX", []);
                    is_example = true;
                }
                roff.text([roman(&line[2..])]);
            }
            Some(heading) => {
                roff.control("SH", [heading.to_uppercase().as_str()]);
            }
            None if line.is_empty() && is_example => {
                roff.text([roman("")]);
            }
            None if line.is_empty() => {
                roff.control("PP", []);
            }
            None => {
                roff.text([roman(line)]);
            }
        }
    }
    if is_example {
        roff.control("EE", []);
    }
    roff
}
