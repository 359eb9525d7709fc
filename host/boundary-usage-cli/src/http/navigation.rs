//! The views of the page, and the links between them.

use boundary_usage::WindowLength;

/// A view, as a link.
pub(super) struct View {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) is_current: bool,
}

/// The views of the history: the path, the name of the link, and the length of the windows.
const HISTORY: [(&str, &str, WindowLength); 3] = [
    ("days", "days", WindowLength::Day),
    ("weeks", "weeks", WindowLength::Week),
    ("months", "months", WindowLength::Month),
];

/// Returns the length of the windows that a path shows, if it is a view of the history.
pub(super) fn length_of(path: &str) -> Option<WindowLength> {
    let name = path.strip_prefix('/')?;
    HISTORY.into_iter().find(|(path, _, _)| *path == name).map(|(_, _, length)| length)
}

/// Returns all views. `current` is the length of the current view, or `None` for the status.
pub(super) fn views(current: Option<WindowLength>) -> Vec<View> {
    let status = View { path: "./", name: "now", is_current: current.is_none() };
    let history = HISTORY.map(|(path, name, length)| View { path, name, is_current: current == Some(length) });
    std::iter::once(status).chain(history).collect()
}
