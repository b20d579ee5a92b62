//! A client of the gateway: JSON over HTTP, as any caller from outside would speak it.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::http::Request;
use ureq::{Agent, Body};

use crate::{clock, os};

/// Where the gateway is, and who we are to it.
#[derive(Clone)]
pub(crate) struct Api {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// What came back, good or bad.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// How the call is found in the traces.
    pub(crate) trace: Option<String>,
    pub(crate) body: Value,
}

/// The one status that asks for a repeat.
const UNAVAILABLE: u16 = 503;

/// How long a stream may last.
const LONGEST: Duration = Duration::from_secs(120);

/// How long "not now" is taken for an answer that will change.
const PATIENCE: Duration = Duration::from_secs(5);

// === impl Api ===

impl Api {
    pub(crate) fn new(base: &str) -> Self {
        Self { agent: agent(Duration::from_secs(15)), base: base.to_owned(), token: None }
    }

    /// The same gateway, called by the one who has this password.
    pub(crate) fn sign_in(&self, email: &str, password: &str) -> Result<Self> {
        let body = serde_json::json!({ "password": { "email": email, "password": password } });
        let reply = self.send("POST", "/v1/tokens:issue", Some(&body), None)?.ok("sign in")?;
        let token =
            reply.body["accessToken"].as_str().context("the answer holds no accessToken")?;
        Ok(Self { token: Some(token.to_owned()), ..self.clone() })
    }

    pub(crate) fn get(&self, path: &str) -> Result<Reply> {
        self.send("GET", path, None, None)
    }

    /// Asks once, whatever the answer.
    pub(crate) fn get_once(&self, path: &str) -> Result<Reply> {
        self.once("GET", path, None, None)
    }

    /// Changes something, once: the key makes a repeat of this very call harmless.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send("POST", path, Some(body), Some(os::uuid()?))
    }

    /// Reads a stream, value by value, until it ends or breaks off, or `each` answers false.
    pub(crate) fn watch(
        &self,
        path: &str,
        mut each: impl FnMut(&Value) -> Result<bool>,
    ) -> Result<()> {
        let url = format!("{}{path}", self.base);
        let mut request = agent(LONGEST).get(&url).header("accept", "application/x-ndjson");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.call().with_context(|| format!("GET {url}"))?;
        if !answer.status().is_success() {
            let body = read(answer.body_mut())?;
            let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
            let reply = Reply { status: answer.status().as_u16(), trace: None, body };
            return reply.ok("watch").map(drop);
        }
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            // A connection that breaks is what a resume token is for.
            let Ok(line) = line else { break };
            let value: Value =
                serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
            if !value["error"].is_null() || !each(&value)? {
                break;
            }
        }
        Ok(())
    }

    /// Sends until the answer is more than "not now". A repeat is harmless: it carries the same key.
    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<String>,
    ) -> Result<Reply> {
        let begun = clock::now();
        loop {
            let reply = self.once(method, path, body, key.as_deref());
            let again = reply.as_ref().map_or(true, |reply| reply.status == UNAVAILABLE);
            if !again || begun.elapsed() > PATIENCE {
                return reply;
            }
            clock::nap(100);
        }
    }

    fn once(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Reply> {
        let url = format!("{}{path}", self.base);
        let mut request =
            Request::builder().method(method).uri(&url).header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let answer = if body.is_some() {
            self.agent.run(request.body(text)?)
        } else {
            self.agent.run(request.body(())?)
        };
        let mut answer = answer.with_context(|| format!("{method} {url}"))?;
        let trace =
            answer.headers().get("x-trace-id").and_then(|it| it.to_str().ok()).map(str::to_owned);
        let text = read(answer.body_mut())?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        Ok(Reply { status: answer.status().as_u16(), trace, body })
    }
}

// === impl Reply ===

impl Reply {
    /// The reply, or what the gateway had against it.
    pub(crate) fn ok(self, doing: &str) -> Result<Self> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let trace = self.trace.as_deref().map(|it| format!(" (trace {it})")).unwrap_or_default();
        bail!("cannot {doing}: {} {}{trace}", self.status, self.explained())
    }

    /// `google.rpc.ErrorInfo.reason` of an error.
    pub(crate) fn reason(&self) -> &str {
        let details =
            self.body["details"].as_array().or_else(|| self.body["error"]["details"].as_array());
        details.into_iter().flatten().find_map(|it| it["reason"].as_str()).unwrap_or_default()
    }

    fn explained(&self) -> String {
        let message =
            self.body["message"].as_str().or_else(|| self.body["error"]["message"].as_str());
        match message {
            Some(message) => format!("{} {message}", self.reason()).trim().to_owned(),
            None => self.body.to_string(),
        }
    }
}

/// Whether a process says that it can serve; else what it says it misses.
pub(crate) fn ready(admin: &str) -> Result<(), String> {
    let agent = agent(Duration::from_millis(800));
    match agent.get(format!("http://{admin}/ready")).call() {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(mut answer) => Err(read(answer.body_mut()).unwrap_or_default().trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes a process die when it next comes by this point; it has to run with failpoints.
pub(crate) fn arm(admin: &str, point: &str) -> Result<()> {
    let url = format!("http://{admin}/debug/failpoints/{point}");
    // One that comes by at once is gone before it can answer; the caller sees that it died.
    let Ok(answer) = agent(Duration::from_secs(5)).post(&url).send_empty() else { return Ok(()) };
    if !answer.status().is_success() {
        bail!("{admin} has no failpoint {point}: {}", answer.status());
    }
    Ok(())
}

/// Takes that back. Whoever cannot hear it any more has died of it.
pub(crate) fn disarm(admin: &str, point: &str) {
    let url = format!("http://{admin}/debug/failpoints/{point}");
    drop(agent(Duration::from_secs(5)).delete(&url).call());
}

/// What a process counts.
pub(crate) fn metrics(admin: &str) -> Result<String> {
    let answer = agent(Duration::from_secs(5)).get(format!("http://{admin}/metrics")).call();
    read(answer.with_context(|| format!("{admin} does not answer"))?.body_mut())
}

/// The sum of a counter over all labels that hold `label`.
pub(crate) fn sum(text: &str, metric: &str, label: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(metric));
    let lines = lines.filter(|rest| rest.starts_with([' ', '{']) && rest.contains(label));
    lines.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        // The mesh is on this machine, whatever proxy leads out of it.
        .proxy(None)
        .build()
        .new_agent()
}

fn read(body: &mut Body) -> Result<String> {
    body.read_to_string().context("the answer broke off")
}
