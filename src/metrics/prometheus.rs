//! Prometheus and what speaks its query API.
//!
//! `prometheus-http-query` gives the shapes of the answers. Its client is not used to send: it drops the query string
//! of an address without a path (Flagger's Q-16), and refuses answers that proxies label as plain text.

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use prometheus_http_query::error::PrometheusError;
use prometheus_http_query::response::{Data, PromqlResult};
use serde::Deserialize;

use super::request::{Ask, basic, http_url, is_one, judge, no_data, sensitive, several};
use crate::ports::{MetricQuery, Reading};

/// What the API wraps its answers in. Source: Prometheus HTTP API, "Format overview".
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope {
    Success { data: PromqlResult },
    Error(PrometheusError),
}

/// Sends one instant query.
pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    let url = ask.endpoint(None, "/api/v1/query")?;
    let headers = headers(ask)?;
    // Flagger folds white space, so that a query over several lines stays readable in the server's log.
    let request = ask.client(&url)?.get(url).headers(headers).query(&[("query", ask.folded())]);
    let doing = || format!("querying {}", ask.place());
    let (status, body) = ask.send(request).await?;
    match serde_json::from_slice(&body) {
        Ok(Envelope::Error(error)) => Err(format!("{}: {} {error}", doing(), status.as_u16())),
        Ok(Envelope::Success { data }) if status.is_success() => Ok(read(&data.into_inner().0)),
        _ if !status.is_success() => {
            Err(format!("{}: {} {}", doing(), status.as_u16(), String::from_utf8_lossy(&body).trim()))
        }
        Ok(Envelope::Success { .. }) => Err(format!("{}: {} with a result", doing(), status.as_u16())),
        Err(error) => Err(format!("{}: reading the answer: {error}", doing())),
    }
}

/// Asks for `vector(1)`, as Flagger does.
pub(super) async fn probe(probed: &Ask<'_>) -> Result<(), String> {
    let question = "vector(1)";
    let query = MetricQuery { query: question.to_owned(), ..probed.query.clone() };
    let answer = ask(&Ask { query: &query, ..*probed }).await?;
    is_one(probed, question, answer)
}

/// Extra headers, and credentials from the Secret (`token`, or `username` and `password`) or the address.
fn headers(ask: &Ask<'_>) -> Result<HeaderMap, String> {
    let mut headers = ask.headers()?;
    if let Some(value) = authorization(ask)? {
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn authorization(ask: &Ask<'_>) -> Result<Option<HeaderValue>, String> {
    let key = |name: &str| ask.optional_secret(name);
    let url = http_url(&ask.query.address)?;
    let unnamed = ask.query.secret.is_empty();
    let text = match (key("token"), key("username"), key("password")) {
        (Some(token), _, _) => format!("Bearer {token}"),
        (None, Some(user), Some(password)) => basic(user, password),
        (None, None, None) if unnamed && url.username().is_empty() && url.password().is_none() => return Ok(None),
        (None, None, None) if unnamed => {
            basic(&percent_decode(url.username()), &percent_decode(url.password().unwrap_or_default()))
        }
        _ => return Err("the Secret has neither the key token nor the keys username and password".to_owned()),
    };
    sensitive(&text).map(Some)
}

/// Undoes percent encoding of user information (RFC 3986, section 2.1).
fn percent_decode(text: &str) -> String {
    let query = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// What an answer says, if it can be judged at all.
fn read(data: &Data) -> Reading {
    match data {
        Data::Vector(series) => match series.as_slice() {
            [] => no_data(),
            [one] => judge(one.sample().value()),
            many => several(many.len(), "series", "aggregate them to one (for instance with sum)"),
        },
        Data::Scalar(sample) => judge(sample.value()),
        Data::Matrix(series) if series.is_empty() => no_data(),
        Data::Matrix(_) => Reading::Inconclusive(
            "the query gives a range of values, ask for one (for instance with avg_over_time)".to_owned(),
        ),
    }
}
