//! A real browser: Chromium without a window, driven over its debugging pipe.
//!
//! Commands and replies are JSON, each followed by a zero byte, on the file descriptors 3 and 4. No wait depends on a
//! clock: a command waits for its reply, and a script that returns a promise waits until the promise is settled.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The flags of every browser.
///
/// Chromium's sandbox does not work for root, which may run the tests. The browser must make no connections of its own.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// Moves the pipes to the file descriptors 3 (commands) and 4 (replies).
const START: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#;

/// A browser with one page. Dropping it ends the browser.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
    session: Option<String>,
    sent: u64,
    complaints: Vec<String>,
    /// The directory of the browser's profile, which is removed on drop.
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with an empty profile and an empty page.
    ///
    /// # Errors
    ///
    /// Returns an error if Chromium is not installed.
    pub fn start(javascript: bool) -> Result<Self> {
        Self::start_with(javascript, &[])
    }

    /// Starts a browser with additional flags.
    ///
    /// # Errors
    ///
    /// Returns an error if Chromium is not installed.
    pub fn start_with(javascript: bool, flags: &[&str]) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", START, "chromium"]).args(FLAGS).args(flags);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run `sh`")?;
        let commands = child.stdin.take().context("stdin is not a pipe")?;
        let replies = BufReader::new(child.stdout.take().context("stdout is not a pipe")?);
        let mut browser =
            Self { child, commands, replies, session: None, sent: 0, complaints: Vec::new(), _profile: profile };
        let target = browser.send("Target.createTarget", &json!({ "url": "about:blank" }))?["targetId"].clone();
        let attached = browser.send("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.send(domain, &json!({}))?;
        }
        browser.send("Emulation.setScriptExecutionDisabled", &json!({ "value": !javascript }))?;
        Ok(browser)
    }

    /// Opens a page, and waits until it is completely loaded.
    ///
    /// # Errors
    ///
    /// Returns an error if the page cannot be loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let navigation = self.send("Page.navigate", &json!({ "url": url }))?;
        ensure!(navigation["errorText"].is_null(), "cannot open {url}: {}", navigation["errorText"]);
        while self.receive()?["method"] != "Page.loadEventFired" {}
        Ok(())
    }

    /// Runs a script on the page, and returns its value.
    ///
    /// It also works if JavaScript is disabled for the page itself.
    ///
    /// # Errors
    ///
    /// Returns an error if the script fails.
    pub fn evaluate(&mut self, script: &str) -> Result<Value> {
        let script = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let reply = self.send("Runtime.evaluate", &script)?;
        ensure!(reply["exceptionDetails"].is_null(), "the script failed: {}", reply["exceptionDetails"]);
        Ok(reply["result"]["value"].clone())
    }

    /// Waits until a JavaScript expression is true on the page.
    ///
    /// # Errors
    ///
    /// Returns an error if the expression cannot be evaluated.
    pub fn wait_until(&mut self, condition: &str) -> Result<()> {
        self.evaluate(&format!(
            "new Promise((resolve) => {{
                const look = () => {{ if ({condition}) {{ observer.disconnect(); resolve(true); }} }};
                const observer = new MutationObserver(look);
                observer.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
                look();
            }})"
        ))?;
        Ok(())
    }

    /// Sets the width of the page in pixels, and its colour scheme, `light` or `dark`.
    ///
    /// # Errors
    ///
    /// Returns an error if the browser rejects the setting.
    pub fn show(&mut self, width: u32, scheme: &str) -> Result<()> {
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.send("Emulation.setEmulatedMedia", &scheme)?;
        self.resize(width, 800)
    }

    fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.send("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// Returns a picture of the whole page as a PNG file.
    ///
    /// # Errors
    ///
    /// Returns an error if the browser cannot take the picture.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let size = self.evaluate("[innerWidth, document.documentElement.scrollHeight]")?;
        let side = |place: usize| size[place].as_u64().and_then(|side| u32::try_from(side).ok());
        self.resize(side(0).context("no width")?, side(1).context("no height")?)?;
        let reply = self.send("Page.captureScreenshot", &json!({ "format": "png" }))?;
        Ok(BASE64_STANDARD.decode(reply["data"].as_str().context("no picture")?)?)
    }

    /// Returns all messages of the browser's console and log.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn send(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        // If the browser has ended, `receive` returns the error.
        let _ = self.commands.write_all(format!("{command}\0").as_bytes());
        loop {
            let reply = self.receive()?;
            if reply["id"] == self.sent {
                ensure!(reply["error"].is_null(), "{method} failed: {}", reply["error"]);
                return Ok(reply["result"].clone());
            }
        }
    }

    /// Returns the next reply or event.
    fn receive(&mut self) -> Result<Value> {
        let mut message = Vec::new();
        self.replies.read_until(0, &mut message)?;
        if message.pop() != Some(0) {
            bail!("Chromium has ended or is not installed; `make setup-chromium` installs it");
        }
        let message: Value = serde_json::from_slice(&message)?;
        let complaint = match message["method"].as_str() {
            Some("Log.entryAdded") => Some(&message["params"]["entry"]),
            Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown") => Some(&message["params"]),
            _ => None,
        };
        self.complaints.extend(complaint.map(ToString::to_string));
        Ok(message)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
