//! Holds a conversation with a server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use serin::ports::timeout;

use super::Server;
use super::conversation::{Conversation, Step};
use super::normal::Names;

/// How long a controller may take to do what a step waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// An answer, read.
struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Vec<Value>,
    text: String,
}

/// The transcript of a conversation, normalised.
///
/// # Errors
/// When the server cannot be talked to, or what a step waits for does not happen.
pub(crate) async fn play(server: &Server, name: &str, talk: &Conversation) -> anyhow::Result<String> {
    let namespace = format!("fid-{}{}", name.replace('_', "-"), server.suffix);
    let mut player = Player {
        server,
        names: Names::new(&namespace, talk.fields),
        hide: &talk.hide,
        saved: BTreeMap::new(),
        namespace,
    };
    player.make_namespace().await?;
    let mut transcript = String::new();
    for step in &talk.steps {
        let text = player.step(step).await.with_context(|| format!("{name}: {} ({})", step.send, step.note))?;
        transcript.push_str(&text);
    }
    let gone = format!("/api/v1/namespaces/{}", player.namespace);
    player.request("DELETE", &gone, "application/json", "application/json", String::new(), None).await?;
    Ok(transcript)
}

struct Player<'a> {
    server: &'a Server,
    names: Names,
    hide: &'a [String],
    saved: BTreeMap<String, Value>,
    namespace: String,
}

impl Player<'_> {
    async fn make_namespace(&self) -> anyhow::Result<()> {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}});
        let json = "application/json";
        let made = self.request("POST", "/api/v1/namespaces", json, json, body.to_string(), None).await?;
        anyhow::ensure!(made.code == 201, "making the namespace: {}", made.text);
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> anyhow::Result<String> {
        if step.send == "COMPACT" {
            (self.server.compact)().await?;
            return Ok("== COMPACT\n".to_owned());
        }
        let answer = self.wait(step).await?;
        let mut text = format!("== {}", step.send);
        for (name, value) in [("as", &step.kind), ("asking for", &step.accept)] {
            if !value.is_empty() {
                write!(text, " {name} {value}")?;
            }
        }
        if !step.note.is_empty() {
            write!(text, " ({})", step.note)?;
        }
        writeln!(text, "\n{}", answer.code)?;
        for warning in &answer.warnings {
            writeln!(text, "warning: {}", self.names.text(warning))?;
        }
        for value in &answer.body {
            self.names.learn(value);
        }
        if answer.body.is_empty() && !answer.text.is_empty() {
            writeln!(text, "{}", self.names.text(&answer.text))?;
        }
        for value in &answer.body {
            text.push_str(&self.names.show(value, step.only.as_deref(), &[self.hide, &step.hide].concat()));
        }
        if let Some(name) = &step.save {
            self.saved.insert(name.clone(), answer.body.first().cloned().unwrap_or_default());
        }
        Ok(text)
    }

    /// Repeats a request until its answer is the one that the step waits for.
    async fn wait(&self, step: &Step) -> anyhow::Result<Answer> {
        let (method, path) = step.send.split_once(' ').context("expected a method and a path")?;
        let path = self.filled(path)?;
        let body = match (&step.body, &step.text) {
            (Some(body), _) => self.filled(&body.to_string())?,
            (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        };
        let clock = &self.server.clock;
        let end = clock.now() + PATIENCE;
        loop {
            let answer =
                self.request(method, &path, step.content_type(), step.accepted(), body.clone(), step.take).await?;
            let found = answer.body.first().unwrap_or(&Value::Null);
            let waits = step.until.iter().flatten();
            let missing: Vec<_> =
                waits.filter(|(at, want)| found.pointer(at).unwrap_or(&Value::Null) != *want).collect();
            if missing.is_empty() && step.code.is_none_or(|code| code == answer.code) {
                return Ok(answer);
            }
            if clock.now() > end {
                bail!("waited in vain for {missing:?} {:?}: {} {}", step.code, answer.code, answer.text);
            }
            clock.sleep_until(clock.now() + PAUSE).await;
        }
    }

    fn filled(&self, text: &str) -> anyhow::Result<String> {
        let text = text.replace("$NS", &self.namespace);
        let mut parts = text.split("$(");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (reference, rest) = part.split_once(')').context("a reference without an end")?;
            let (name, pointer) = reference.split_once('/').context("a reference without a pointer")?;
            let value = self.saved.get(name).and_then(|saved| saved.pointer(&format!("/{pointer}")));
            let value = value.with_context(|| format!("nothing is saved as {reference}"))?;
            filled.push_str(value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str());
            filled.push_str(rest);
        }
        Ok(filled)
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        accept: &str,
        body: String,
        take: Option<usize>,
    ) -> anyhow::Result<Answer> {
        let request = http::Request::builder().method(method).uri(path).header("accept", accept);
        let request = request.header("user-agent", "fidelity/1");
        let request = if body.is_empty() { request } else { request.header("content-type", content_type) };
        let response = self.server.client.send(request.body(body.into_bytes().into())?).await?;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        // A watch is read line by line, anything else to its end.
        let enough = |bytes: &[u8]| take.is_some_and(|n| bytes.iter().filter(|b| **b == b'\n').count() >= n);
        while !enough(&bytes) {
            let frame = timeout(&*self.server.clock, PATIENCE, body.frame()).await;
            match frame.with_context(|| format!("so far: {}", String::from_utf8_lossy(&bytes)))? {
                Some(frame) => bytes.extend(frame?.into_data().unwrap_or_default()),
                None => break,
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = match take {
            Some(n) => text.lines().take(n).map(serde_json::from_str).collect::<Result<_, _>>()?,
            None => serde_json::from_str(&text).into_iter().collect(),
        };
        Ok(Answer { code, warnings, body, text })
    }
}
