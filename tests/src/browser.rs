//! A page in headless Chromium, by the Chrome DevTools Protocol over a pair of pipes (`--remote-debugging-pipe`: each
//! message is JSON and a zero byte). That needs no port, so that the browser can be in a test's own network namespace, and
//! no library: those that speak the protocol do so over a WebSocket, most of them with an async runtime.
//! See <https://chromedevtools.github.io/devtools-protocol/>.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lifecycle::until;
use crate::{TIME_LIMIT, checkout};

/// Chromium reads commands from descriptor 3 and writes answers to 4. What it says itself is of a desktop that is not
/// there.
const START: &str = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// Its sandbox wants a user who is not root; the pages are ours. /dev/shm may be small.
const OPTIONS: [&str; 6] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
];

/// How long the browser may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A browser with one page.
pub struct Page {
    browser: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Page {
    /// A new browser, in the network namespace of the calling thread.
    pub fn open() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Command::new("sh")
            .args(["-c", START, "sh"])
            .args(OPTIONS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = browser.stdin.take().unwrap();
        let mut answers = BufReader::new(browser.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|length| length > 1) {
                let value = serde_json::from_slice(&message[..message.len() - 1]);
                if sender.send(value.unwrap()).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut page = Self {
            browser,
            commands,
            messages,
            session: None,
            asked: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = page.call("Target.attachToTarget", attach);
        page.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Runtime", "Log", "Page"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page
    }

    /// Has the browser do something that it can; gives its answer.
    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.ask(method, parameters).unwrap_or_else(|refusal| panic!("{method}: {refusal}"))
    }

    /// Has the browser do something; gives its answer or its refusal.
    #[track_caller]
    fn ask(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.asked += 1;
        let mut command = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&command).unwrap();
        bytes.push(0);
        let sent = self.commands.write_all(&bytes);
        sent.unwrap_or_else(|error| panic!("{method}: {error}; scripts/test installs chromium"));
        loop {
            let message = self.messages.recv_timeout(TIME_LIMIT);
            let message = message.unwrap_or_else(|error| {
                panic!("{method}: {error}; scripts/test installs chromium")
            });
            if message["id"] == json!(self.asked) {
                let refusal = &message["error"];
                return if refusal.is_null() {
                    Ok(message["result"].clone())
                } else {
                    Err(refusal.clone())
                };
            }
            self.complaints.extend(complaint(&message));
        }
    }

    /// Goes to this address, and waits until what is there, its styles, scripts and pictures are loaded.
    #[track_caller]
    pub fn go(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({ "url": url }));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.until("document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", evaluation(expression));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page, or in the one that comes next, is true. Between two pages there is none.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        until(expression, || {
            let answer = self.ask("Runtime.evaluate", evaluation(expression));
            answer.is_ok_and(|answer| answer["result"]["value"] == json!(true))
        });
    }

    /// Follows a link or presses a button, with the mouse; `selector` is CSS. Of a link over two lines that is the first:
    /// between them there may be nothing.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let place = self.value(&format!(
            "(() => {{ const it = document.querySelector({selector:?}); it.scrollIntoView(); \
             const [box] = it.getClientRects(); \
             return {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }}; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Puts text into a field, in the place of what is in it.
    #[track_caller]
    pub fn write(&mut self, selector: &str, text: &str) {
        self.value(&format!(
            "(() => {{ const it = document.querySelector({selector:?}); it.focus(); it.select(); }})()"
        ));
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Keeps a picture of all of the page, in target/pages; gives its place.
    #[track_caller]
    pub fn picture(&mut self, name: &str) -> PathBuf {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.call("Page.captureScreenshot", parameters);
        let picture = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
        let folder = checkout().join("target/pages");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, picture).unwrap();
        path
    }

    /// What the console says that is an error or a warning, of all pages until now.
    pub fn complaints(&mut self) -> &[String] {
        // What came before the answer to this has been read by then.
        self.value("0");
        &self.complaints
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Asked, it ends all of its processes; killed, it does when it did not hear.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        while self.messages.recv_timeout(PATIENCE).is_ok() {}
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

fn evaluation(expression: &str) -> Value {
    json!({ "expression": expression, "returnByValue": true })
}

/// What an event has to say that a page without a fault has not.
fn complaint(event: &Value) -> Option<String> {
    let parameters = &event["params"];
    let is_bad = |level: &Value| ["error", "assert", "warning"].iter().any(|bad| level == bad);
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
        "Runtime.consoleAPICalled" if is_bad(&parameters["type"]) => {
            Some(parameters["args"].to_string())
        }
        "Log.entryAdded" if is_bad(&parameters["entry"]["level"]) => {
            Some(parameters["entry"].to_string())
        }
        _ => None,
    }
}
