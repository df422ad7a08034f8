//! The metrics server and the receiver of hooks, both scripted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use regex::Regex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::log::{Entry, Log};

/// Where inputs expect the metrics server and the receiver.
pub(crate) const METRICS: &str = "127.0.0.1:9095";
pub(crate) const RECEIVER: &str = "127.0.0.1:9096";

/// How a slow hook lets time pass before it answers.
pub(crate) type Pause = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

struct Script {
    pause: Pause,
    log: Log,
    namespace: String,
    answers: Mutex<BTreeMap<String, Value>>,
    hooks: Mutex<BTreeMap<String, Value>>,
}

impl Script {
    /// Whether a request names the scenario, in its path or its text: one server served many at once when Flagger was
    /// recorded, and what names none of them (`vector(1)`) is nobody's.
    fn is_meant(&self, path: &str, text: &str) -> bool {
        let text: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        path.trim_start_matches('/').split('/').next() == Some(&self.namespace) || text.contains(&self.namespace)
    }
}

/// Where both servers are in this run.
#[derive(Clone)]
pub(crate) struct Addresses {
    metrics: String,
    receiver: String,
}

impl Addresses {
    /// A text with the addresses of this run for those of the recording.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace(METRICS, &self.metrics).replace(RECEIVER, &self.receiver)
    }
}

/// Both servers, until dropped.
pub(crate) struct Servers {
    script: Arc<Script>,
    /// Addresses as host and port.
    pub(crate) metrics: String,
    pub(crate) receiver: String,
    _tasks: JoinSet<()>,
}

impl Servers {
    pub(crate) async fn start(
        log: Log,
        pause: Pause,
        namespace: &str,
        answers: BTreeMap<String, Value>,
        hooks: BTreeMap<String, Value>,
    ) -> Self {
        let script = Arc::new(Script {
            pause,
            log,
            namespace: namespace.to_owned(),
            answers: Mutex::new(answers),
            hooks: Mutex::new(hooks),
        });
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        let routers = [Router::new().fallback(metrics), Router::new().fallback(receive)];
        for router in routers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            let router = router.with_state(script.clone());
            tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        }
        let receiver = addresses.pop().unwrap();
        let metrics = addresses.pop().unwrap();
        Self { script, metrics, receiver, _tasks: tasks }
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses { metrics: self.metrics.clone(), receiver: self.receiver.clone() }
    }

    pub(crate) fn set_answers(&self, answers: BTreeMap<String, Value>) {
        self.script.answers.lock().unwrap().extend(answers);
    }

    pub(crate) fn set_hooks(&self, hooks: BTreeMap<String, Value>) {
        self.script.hooks.lock().unwrap().extend(hooks);
    }
}

/// The answer that is next: the first of a list, the last of which stays.
fn next(answers: &mut BTreeMap<String, Value>, key: &str) -> Option<Value> {
    match answers.get_mut(key)? {
        Value::Array(list) if list.len() > 1 => Some(list.remove(0)),
        Value::Array(list) => list.first().cloned(),
        answer => Some(answer.clone()),
    }
}

fn status(code: u64) -> StatusCode {
    StatusCode::from_u16(u16::try_from(code).unwrap()).unwrap()
}

async fn metrics(State(script): State<Arc<Script>>, request: Request) -> Response {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let text = query.get("query").cloned().unwrap_or_default();
    let answer = if script.is_meant(request.uri().path(), &text) {
        let mut answers = script.answers.lock().unwrap();
        let named = answers.keys().filter(|key| !["success-rate", "duration", "online"].contains(&key.as_str()));
        let named = named.filter(|key| text.contains(key.as_str())).max_by_key(|key| key.len()).cloned();
        let percent = Regex::new(r"\* *100\s*$").unwrap();
        let metric = named.unwrap_or_else(|| match text.as_str() {
            "vector(1)" => "online".to_owned(),
            text if percent.is_match(text) => "success-rate".to_owned(),
            _ => "duration".to_owned(),
        });
        let answer = next(&mut answers, &metric).unwrap_or_else(|| json!(1));
        script.log.add(Entry::Query { metric, text, answer: answer.clone() });
        answer
    } else {
        json!(if text == "vector(1)" { 1 } else { 100 })
    };
    if let Some(code) = answer.get("status").and_then(Value::as_u64) {
        return (status(code), answer["body"].as_str().unwrap_or_default().to_owned()).into_response();
    }
    let sample = |labels: Value, value: &str| json!({"metric": labels, "value": [0, value]});
    let (kind, result) = match &answer {
        Value::String(word) if word == "empty" => ("vector", json!([])),
        Value::String(word) if word == "two" => {
            ("vector", json!([sample(json!({"a": "1"}), "100"), sample(json!({"a": "2"}), "50")]))
        }
        Value::String(word) if word == "matrix" => ("matrix", json!([{"metric": {}, "values": [[0, "1"], [1, "2"]]}])),
        Value::String(word) => ("vector", json!([sample(json!({}), word)])),
        number => ("vector", json!([sample(json!({}), &number.to_string())])),
    };
    let body = json!({"status": "success", "data": {"resultType": kind, "result": result}});
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn receive(State(script): State<Arc<Script>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let data = to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().trim_start_matches('/').to_owned();
    let (first, hook) = path.split_once('/').unwrap_or((path.as_str(), ""));
    let answer = next(&mut script.hooks.lock().unwrap(), hook).unwrap_or_else(|| json!(200));
    let code = answer.get("status").unwrap_or(&answer).as_u64().unwrap();
    let text = match (answer.get("body").and_then(Value::as_str), code) {
        (Some(body), _) => body,
        (None, 200) => "OK",
        (None, 202 | 204) => "",
        (None, 403) => "Forbidden",
        (None, _) => "broken",
    };
    let authorization = parts.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    script.log.add(Entry::Hook {
        hook: hook.to_owned(),
        method: parts.method.to_string(),
        path: if first == script.namespace { format!("/{hook}") } else { format!("/{path}") },
        authorization,
        body: serde_json::from_slice(&data).unwrap_or_else(|_| String::from_utf8_lossy(&data).into_owned().into()),
        status: u16::try_from(code).unwrap(),
    });
    if let Some(delay) = answer.get("delay").and_then(Value::as_f64) {
        (script.pause)(Duration::from_secs_f64(delay)).await;
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
    for (name, value) in answer.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let name: http::HeaderName = name.parse().unwrap();
        headers.insert(name, value.as_str().unwrap().parse().unwrap());
    }
    (status(code), headers, text.to_owned()).into_response()
}
