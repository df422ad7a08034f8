//! A Prometheus that answers every question at once and always well, and notes who asked when: the time between two
//! questions about one canary is the time between its ticks, whatever program asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::routing::any;
use axum::{Json, Router};
use serde_json::{Value, json};

/// When each canary's success rate was asked for.
#[derive(Clone, Default)]
pub(super) struct Questions(Arc<Mutex<BTreeMap<String, Vec<Instant>>>>);

impl Questions {
    /// Serves on a port of the loopback interface until the runtime ends; with the address.
    pub(super) async fn serve() -> std::io::Result<(Self, String)> {
        let questions = Self::default();
        let router = Router::new().fallback(any(answer)).with_state(questions.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((questions, address))
    }

    /// Forgets what was asked so far.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, canary: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(canary).or_default().push(Instant::now());
    }

    /// How long ticks have been due by now that have not come, of all canaries of which there was one.
    pub(super) fn overdue(&self, interval: Duration) -> Vec<Duration> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = asked.values().filter_map(|times| times.last()).map(Instant::elapsed);
        open.filter(|open| *open > interval).map(|open| open.saturating_sub(interval)).collect()
    }

    /// How much longer than `interval` it took from tick to tick, of all canaries, in ascending order.
    pub(super) fn lateness(&self, interval: Duration) -> Vec<Duration> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps = asked.values().flat_map(|times| times.windows(2).map(|pair| pair[1].duration_since(pair[0])));
        let mut late: Vec<Duration> = gaps.map(|gap| gap.saturating_sub(interval)).collect();
        late.sort();
        late
    }
}

async fn answer(State(questions): State<Questions>, RawQuery(query): RawQuery, body: String) -> Json<Value> {
    let text = if body.is_empty() { query.unwrap_or_default() } else { body };
    let pairs: BTreeMap<_, _> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    let promql = pairs.get("query").cloned().unwrap_or_default();
    let now = jiff::Timestamp::now().as_second();
    // The latency query is the one with a histogram; the other asks for the success rate, once in a tick.
    let value = if promql.contains("histogram_quantile") {
        "0.05"
    } else if let Some(canary) = canary(&promql) {
        questions.note(canary);
        "99.9"
    } else {
        "1"
    };
    let vector = json!([{"metric": {}, "value": [now, value]}]);
    Json(json!({"status": "success", "data": {"resultType": "vector", "result": vector}}))
}

/// The canary that a query names: the harness calls all of them `app-NUMBER`.
fn canary(promql: &str) -> Option<String> {
    let (_, rest) = promql.split_once("app-")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| format!("app-{digits}"))
}
