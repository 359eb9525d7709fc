//! A real browser: Chromium without a window, driven over its debugging pipe.
//!
//! Commands go in and answers come out as JSON, each ended by a zero byte, on the file descriptors 3 and 4. Nothing is
//! waited for by the clock: a command waits for its answer, and a script that returns a promise for what it promises.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// No sandbox, because tests may run as root, where Chromium has none; nothing that speaks to anybody by itself.
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

/// The pipes to file descriptors 3 and 4, which Chromium reads commands from and writes answers to.
const START: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#;

/// A browser with one page; ends when dropped.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    sent: u64,
    complaints: Vec<String>,
    /// Removed with the browser.
    _profile: TempDir,
}

impl Browser {
    /// Starts it, with an empty profile and an empty page.
    ///
    /// # Errors
    ///
    /// When Chromium is not installed.
    pub fn start(javascript: bool) -> Result<Self> {
        Self::start_with(javascript, &[])
    }

    /// Starts it with more flags.
    ///
    /// # Errors
    ///
    /// When Chromium is not installed.
    pub fn start_with(javascript: bool, flags: &[&str]) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", START, "chromium"]).args(FLAGS).args(flags);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run `sh`")?;
        let commands = child.stdin.take().context("its stdin is a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("its stdout is a pipe")?);
        let mut browser =
            Self { child, commands, answers, session: None, sent: 0, complaints: Vec::new(), _profile: profile };
        let target = browser.send("Target.createTarget", &json!({ "url": "about:blank" }))?["targetId"].clone();
        let attached = browser.send("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.send(domain, &json!({}))?;
        }
        browser.send("Emulation.setScriptExecutionDisabled", &json!({ "value": !javascript }))?;
        Ok(browser)
    }

    /// Goes to a page, and waits until all of it is there.
    ///
    /// # Errors
    ///
    /// When the page cannot be loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let gone = self.send("Page.navigate", &json!({ "url": url }))?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        while self.receive()?["method"] != "Page.loadEventFired" {}
        Ok(())
    }

    /// What a script comes to, on the page, also where the page itself may run none.
    ///
    /// # Errors
    ///
    /// When the script fails.
    pub fn evaluate(&mut self, script: &str) -> Result<Value> {
        let script = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let answer = self.send("Runtime.evaluate", &script)?;
        ensure!(answer["exceptionDetails"].is_null(), "{}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until a condition, a JavaScript expression, is true of the page.
    ///
    /// # Errors
    ///
    /// When the condition cannot be evaluated.
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

    /// Shows the page that wide, in a light or a dark setting.
    ///
    /// # Errors
    ///
    /// When the browser refuses.
    pub fn show(&mut self, width: u32, scheme: &str) -> Result<()> {
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.send("Emulation.setEmulatedMedia", &scheme)?;
        self.resize(width, 800)
    }

    fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.send("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// A picture of the whole page as it is shown, a PNG file.
    ///
    /// # Errors
    ///
    /// When the browser refuses.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let size = self.evaluate("[innerWidth, document.documentElement.scrollHeight]")?;
        let side = |place: usize| size[place].as_u64().and_then(|side| u32::try_from(side).ok());
        self.resize(side(0).context("no width")?, side(1).context("no height")?)?;
        let answer = self.send("Page.captureScreenshot", &json!({ "format": "png" }))?;
        Ok(BASE64_STANDARD.decode(answer["data"].as_str().context("no picture")?)?)
    }

    /// What the browser has complained of so far, on its console and in its log.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn send(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        // It may have ended: then that is what the answer says.
        let _ = self.commands.write_all(format!("{command}\0").as_bytes());
        loop {
            let answer = self.receive()?;
            if answer["id"] == self.sent {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].clone());
            }
        }
    }

    /// The next answer or event.
    fn receive(&mut self) -> Result<Value> {
        let mut message = Vec::new();
        self.answers.read_until(0, &mut message)?;
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
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
