//! The report of a replay that did not complete, and where to continue.

use std::fmt::Write;

use uuid::Uuid;

use super::progress::{Mark, Position, State};
use crate::output::timestamp;

/// Returns the lines of the message that follow the reason.
///
/// `flushed` is whether the last flush succeeded, and `names` are the recordings.
pub(super) fn advice(state: &State, flushed: bool, replica: Uuid, names: &[String]) -> String {
    let tracked = state.mark();
    if flushed {
        return certain(tracked, names);
    }
    if !state.in_doubt {
        return certain(state.written, names);
    }
    let Mark { activities, next } = state.written;
    let more = tracked.activities - activities;
    let mut text = if activities == 0 {
        format!("the outcome of the commit is unknown: all {more} activities may be in the database, or none")
    } else {
        format!(
            "the outcome of the commit is unknown: the first {activities} activities are in the database, and the \
             {more} after them may be"
        )
    };
    let unchanged = match state.last_flush {
        Some(flush) => format!("is still number {flush}"),
        None => "is missing or older than this replay".to_owned(),
    };
    write!(
        text,
        "\n`boundary-usage status` shows the last flush of replica {replica}: if it {unchanged}, continue {}; \
         otherwise continue {}\nthe time is now {}",
        place(next, names),
        place(tracked.next, names),
        timestamp(chrono::Utc::now()),
    )
    .expect("writing to a string succeeds");
    text
}

fn certain(Mark { activities, next }: Mark, names: &[String]) -> String {
    let written = match activities {
        0 => "no activity is in the database".to_owned(),
        1 => "the 1 activity before it is in the database".to_owned(),
        _ => format!("the {activities} activities before it are in the database"),
    };
    let how = match names.get(next.input) {
        Some(name) if next.line > 1 && name != "stdin" => {
            format!(" (tail -n +{} FILE | boundary-usage replay -)", next.line)
        }
        _ => String::new(),
    };
    format!("{written}; continue {}{how}", place(next, names))
}

/// Describes where to continue, and the recordings that follow.
fn place(Position { input, line }: Position, names: &[String]) -> String {
    let Some(name) = names.get(input) else { return "nowhere: every recording was read to its end".into() };
    let rest = &names[input + 1..];
    let rest = match rest {
        [] => String::new(),
        [next] => format!(", then with {next}"),
        [next, .., last] => format!(", then with {next} to {last}"),
    };
    format!("at line {line} of {name}{rest}")
}

#[cfg(test)]
mod tests {
    use boundary_usage::{Error, Flushed};

    use super::super::progress::Progress;
    use super::*;

    fn unknown() -> Error {
        Error::CommitUnknown { source: "the connection was cut".into() }
    }

    #[test]
    fn an_unknown_commit_is_not_reported_as_certain() {
        let progress = Progress::new();
        let mut state = progress.state();
        let names = ["a".to_owned(), "b".to_owned(), "c".to_owned(), "d".to_owned()];
        state.replayed.activities = 5;
        state.next = Position { input: 0, line: 6 };
        let carried = state.mark();
        state.flushed(&Ok(Flushed::Written { flush: 3, new_period: true }), carried);
        state.replayed.activities = 9;
        state.next = Position { input: 1, line: 4 };
        let carried = state.mark();
        state.flushed(&Err(unknown()), carried);
        let advice = |state: &State, flushed| super::advice(state, flushed, Uuid::nil(), &names);
        let text = advice(&state, false);
        for part in [
            "outcome of the commit is unknown: the first 5 activities are in the database, and the 4 after them may be",
            "if it is still number 3, continue at line 6 of a, then with b to d; otherwise continue at line 4 of b",
            &Uuid::nil().to_string(),
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let certain = "the 9 activities before it are in the database; continue at line 4 of b, then with c to d";
        assert!(advice(&state, true).starts_with(certain), "{}", advice(&state, true));
        state.in_doubt = false;
        assert!(
            advice(&state, false).starts_with("the 5 activities before it are in the database; continue at line 6")
        );
    }
}
