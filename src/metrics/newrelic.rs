//! New Relic: the Insights query API, `GET /v1/accounts/ID/query` with NRQL.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::request::{Ask, judge, no_data, sensitive, several};
use crate::ports::Reading;

const SITE: &str = "https://insights-api.newrelic.com";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Map<String, Value>>,
}

/// A query that any account answers, be it with nothing.
pub(super) async fn probe(ask: &Ask<'_>) -> Result<(), String> {
    send(ask, "SELECT count(*) FROM Transaction SINCE 1 minute ago".to_owned()).await.map(drop)
}

async fn send(ask: &Ask<'_>, query: String) -> Result<Answer, String> {
    let account = ask.secret("newrelic_account_id")?.trim();
    if account.is_empty() || !account.chars().all(|c| c.is_ascii_digit()) {
        return Err("the key newrelic_account_id of the Secret is no number".to_owned());
    }
    let url = ask.endpoint(Some(SITE), &format!("/v1/accounts/{account}/query"))?;
    let request = ask
        .client(&url)?
        .get(url)
        .headers(ask.headers()?)
        .header("X-Query-Key", sensitive(ask.secret("newrelic_query_key")?)?)
        .query(&[("nrql", query)]);
    ask.json(request).await
}

pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    let query = format!("{} SINCE {} seconds ago", ask.query.query.trim(), ask.query.window.as_secs());
    let answer = send(ask, query).await?;
    Ok(match answer.results.as_slice() {
        [] => no_data(),
        [one] => number(one),
        many => several(many.len(), "results", "select one expression"),
    })
}

/// `result`, which expressions are called, or the only number when the query has another name for it (`count`, `average`).
fn number(result: &Map<String, Value>) -> Reading {
    if let Some(value) = result.get("result") {
        return value.as_f64().map_or_else(no_data, judge);
    }
    let numbers: Vec<f64> = result.values().filter_map(Value::as_f64).collect();
    match numbers.as_slice() {
        [] => no_data(),
        [one] => judge(*one),
        many => several(many.len(), "values", "select one expression"),
    }
}
