//! Splunk Observability Cloud: "SignalFlow API", `POST /v2/signalflow/execute`, whose answer is a stream of server-sent
//! events. Flagger speaks the same API by WebSocket; for one program that ends by itself, plain HTTP is as good.

use std::collections::BTreeMap;

use http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::Value;
use url::Url;

use super::request::{Ask, judge, no_data, sensitive, several};
use crate::ports::Reading;

pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    let url = endpoint(ask, "stream.", "/v2/signalflow/execute")?;
    let (from, to) = ask.period();
    let milliseconds = |seconds: i64| seconds.saturating_mul(1000).to_string();
    let period = [("start", milliseconds(from)), ("stop", milliseconds(to))];
    let request = ask
        .client(&url)?
        .post(url)
        .headers(ask.headers()?)
        .query(&period)
        // Do not wait for data that comes late.
        .query(&[("immediate", "true")])
        .header("X-SF-Token", sensitive(ask.secret("sf_token_key")?)?)
        .header(CONTENT_TYPE, "text/plain")
        .header(ACCEPT, "text/event-stream")
        .body(ask.query.query.clone());
    let body = ask.success(request).await?;
    read(&String::from_utf8_lossy(&body)).map_err(|error| format!("querying {}: {error}", ask.place()))
}

/// The first of all metrics, `GET /v2/metric` of the API.
pub(super) async fn probe(ask: &Ask<'_>) -> Result<(), String> {
    let url = endpoint(ask, "api.", "/v2/metric")?;
    let request = ask.client(&url)?.get(url).headers(ask.headers()?).query(&[("limit", "1")]);
    ask.success(request.header("X-SF-Token", sensitive(ask.secret("sf_token_key")?)?)).await.map(drop)
}

/// An endpoint of the API or of the stream, whose hosts differ by this prefix. People give either, or that of the WebSocket.
fn endpoint(ask: &Ask<'_>, prefix: &str, path: &str) -> Result<Url, String> {
    let address = &ask.query.address;
    let address = match address.split_once("://") {
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(("ws", rest)) => format!("http://{rest}"),
        _ => address.clone(),
    };
    let query = crate::ports::MetricQuery { address, ..ask.query.clone() };
    let mut url = Ask { query: &query, ..*ask }.endpoint(None, path)?;
    let host = url.host_str().and_then(|host| host.strip_prefix("api.").or_else(|| host.strip_prefix("stream.")));
    let host = host.map(|rest| format!("{prefix}{rest}"));
    if let Some(host) = host {
        url.set_host(Some(&host)).map_err(|error| format!("reading the address: {error}"))?;
    }
    Ok(url)
}

/// The newest value of the one time series. Each event is lines of `event: KIND` and `data: …`, and ends with an empty
/// line.
fn read(text: &str) -> Result<Reading, String> {
    let mut newest: BTreeMap<String, f64> = BTreeMap::new();
    for event in text.replace("\r\n", "\n").split("\n\n") {
        let field = |name: &str| {
            let lines = event.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'));
            lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
        };
        let data: Value = serde_json::from_str(&field("data")).unwrap_or_default();
        match field("event").as_str() {
            "error" => return Err(format!("the program failed: {}", words(&data))),
            "control-message" if data["event"] == "CHANNEL_ABORT" => {
                return Err(format!("the program was aborted: {}", words(&data)));
            }
            "data" => {
                for point in data["data"].as_array().into_iter().flatten() {
                    if let (Some(series), Some(value)) = (point["tsId"].as_str(), number(&point["value"])) {
                        newest.insert(series.to_owned(), value);
                    }
                }
            }
            _ => {}
        }
    }
    let values: Vec<f64> = newest.into_values().collect();
    Ok(match values.as_slice() {
        [] => no_data(),
        [one] => judge(*one),
        many => several(many.len(), "time series", "aggregate them to one (for instance with .sum())"),
    })
}

/// JSON has no NaN, so that it comes as a text.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn words(data: &Value) -> String {
    let found = [&data["message"], &data["abortInfo"]["sf_job_abortReason"], &data["errors"]];
    let found = found.into_iter().find(|value| !value.is_null()).unwrap_or(data);
    found.as_str().map_or_else(|| found.to_string(), str::to_owned)
}
