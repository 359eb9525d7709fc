//! Collects the faults of a configuration file, so that all are reported.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use crate::printable::printable;

/// A key, with its place in the file.
pub(super) type Key = Spanned<String>;

/// An optional value, with its place in the file.
pub(super) type Field<T> = Option<Spanned<Typed<T>>>;

/// A value, which has the expected type or a wrong one.
///
/// A value of a wrong type must not end the deserialization, because that would hide the other faults.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Typed<T> {
    Right(T),
    Wrong(IgnoredAny),
}

/// The faults of a text.
pub(super) struct Faults<'a> {
    text: &'a str,
    /// The byte offset of each fault, and its message.
    faults: Vec<(usize, String)>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, faults: Vec::new() }
    }

    /// Adds a fault at a byte offset of the text.
    pub(super) fn push(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push((at, message.into()));
    }

    /// Returns the line of a byte offset, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// Adds a fault for each unknown key.
    pub(super) fn check_keys(&mut self, keys: &BTreeMap<Key, IgnoredAny>, known: &[&str]) {
        for key in keys.keys().filter(|key| !known.contains(&key.get_ref().as_str())) {
            let (unknown, known) = (printable(key.get_ref()), known.join("`, `"));
            self.push(key.span().start, format!("unknown key `{unknown}`; the known keys are `{known}`"));
        }
    }

    /// Returns a field's value, or adds a fault if it has the wrong type.
    pub(super) fn typed<T>(&mut self, key: &str, field: Field<T>, expected: &str) -> Option<Spanned<T>> {
        let (span, value) = field.map(|field| (field.span(), field.into_inner()))?;
        match value {
            Typed::Right(value) => Some(Spanned::new(span, value)),
            Typed::Wrong(_) => {
                self.push(span.start, format!("`{key}` must be {expected}"));
                None
            }
        }
    }

    /// Parses a field, or adds a fault if it is not valid.
    pub(super) fn parse<T>(
        &mut self,
        key: &str,
        field: Field<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        let text = self.typed(key, field, "a string")?;
        match parse(text.get_ref()) {
            Ok(value) => Some(Spanned::new(text.span(), value)),
            Err(fault) => {
                self.push(text.span().start, format!("`{key}` is `{}`: {fault}", printable(text.get_ref())));
                None
            }
        }
    }

    /// Parses a field, or adds a fault if it is not valid or missing.
    ///
    /// `table` is the byte offset of the field's table.
    pub(super) fn required<T>(
        &mut self,
        table: usize,
        key: &str,
        field: Field<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        if field.is_none() {
            self.push(table, format!("`{key}` is missing"));
        }
        self.parse(key, field, parse)
    }

    /// Parses a list. Adds a fault for each element that is not valid.
    pub(super) fn parse_list<T>(
        &mut self,
        key: &str,
        field: Field<Vec<String>>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(list) = self.typed(key, field, "a list of strings") else { return Vec::new() };
        let at = list.span().start;
        let mut parsed = |text: String| {
            let fault = |fault| self.push(at, format!("`{key}` contains `{}`: {fault}", printable(&text)));
            parse(&text).map_err(fault).ok()
        };
        list.into_inner().into_iter().filter_map(&mut parsed).collect()
    }

    /// Returns the value, or all faults in the order of the text.
    pub(super) fn into_result<T>(mut self, value: T) -> Result<T, Vec<String>> {
        if self.faults.is_empty() {
            return Ok(value);
        }
        self.faults.sort_by_key(|(at, _)| *at);
        let place = |at: usize| {
            let before = &self.text[..at];
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {}, column {column}", self.line(at))
        };
        Err(self.faults.iter().map(|(at, message)| format!("{}: {message}", place(*at))).collect())
    }
}
