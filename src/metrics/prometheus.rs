//! Prometheus and what speaks its query API.
//!
//! `prometheus-http-query` gives the shapes of the answers. Its client is not used to send: it drops the query string
//! of an address without a path (Flagger's Q-16), and refuses answers that proxies label as plain text.

use base64::Engine as _;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use prometheus_http_query::error::PrometheusError;
use prometheus_http_query::response::{Data, PromqlResult};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use url::Url;

use crate::domain::{format_float, redact, truncate, with_causes};
use crate::outbound::Clients;
use crate::ports::{Clock, MetricQuery, Reading, timeout};

/// Longest message of a provider error, in characters.
const MESSAGE_LIMIT: usize = 500;

/// Largest answer that is read. An instant query that can be judged answers in a few hundred bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Sends one instant query.
pub(super) async fn query(clock: &dyn Clock, clients: &Clients, query: &MetricQuery) -> Reading {
    let guard = clock.in_flight();
    let answer = timeout(clock, query.timeout, ask(clients, query)).await;
    drop(guard);
    match answer {
        Ok(Ok(data)) => read(&data),
        Ok(Err(message)) => Reading::ProviderError(clean(&message, query)),
        Err(elapsed) => Reading::ProviderError(clean(&format!("querying {}: {elapsed}", query.address), query)),
    }
}

/// What the API wraps its answers in. Source: Prometheus HTTP API, "Format overview".
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope {
    Success { data: PromqlResult },
    Error(PrometheusError),
}

async fn ask(clients: &Clients, query: &MetricQuery) -> Result<Data, String> {
    let url = endpoint(&query.address)?;
    let headers = headers(query, &url)?;
    // Flagger folds white space, so that a query over several lines stays readable in the server's log.
    let text = query.query.split_whitespace().collect::<Vec<_>>().join(" ");
    let client = clients.get(&url, query.insecure_skip_verify)?;
    let request = client.get(without_credentials(url)).headers(headers).query(&[("query", text)]);
    let doing = || format!("querying {}", query.address);
    let mut response = request.send().await.map_err(|error| format!("{}: {}", doing(), with_causes(&error)))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| format!("{}: reading the answer: {}", doing(), with_causes(&error)))?
    {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(format!("{}: the answer is larger than {BODY_LIMIT} bytes", doing()));
        }
        body.extend_from_slice(&chunk);
    }
    match serde_json::from_slice(&body) {
        Ok(Envelope::Error(error)) => Err(format!("{}: {} {error}", doing(), status.as_u16())),
        Ok(Envelope::Success { data }) if status.is_success() => Ok(data.into_inner().0),
        _ if !status.is_success() => {
            Err(format!("{}: {} {}", doing(), status.as_u16(), String::from_utf8_lossy(&body).trim()))
        }
        Ok(Envelope::Success { .. }) => Err(format!("{}: {} with a result", doing(), status.as_u16())),
        Err(error) => Err(format!("{}: reading the answer: {error}", doing())),
    }
}

/// The query endpoint under an address, whose path and query string are kept.
fn endpoint(address: &str) -> Result<Url, String> {
    let mut url = Url::parse(address).map_err(|error| format!("reading the address {address}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("reading the address {address}: {} is neither http nor https", url.scheme()));
    }
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn without_credentials(mut url: Url) -> Url {
    // Both only fail on URLs without a host, which http URLs have.
    url.set_username("").ok();
    url.set_password(None).ok();
    url
}

/// Extra headers, and credentials from the Secret (`token`, or `username` and `password`) or the address.
fn headers(query: &MetricQuery, url: &Url) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in &query.headers {
        let header = HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is no header name"))?;
        for value in values {
            let value = HeaderValue::try_from(value.as_str())
                .map_err(|_| format!("the value of header {name} holds characters that a header cannot"))?;
            headers.append(header.clone(), value);
        }
    }
    if let Some(mut value) = authorization(query, url)? {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn authorization(query: &MetricQuery, url: &Url) -> Result<Option<HeaderValue>, String> {
    let key = |name: &str| query.secret.get(name).map(|secret| secret.expose_secret().trim_end_matches('\n'));
    let basic = |user: &str, password: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
    };
    let text = match (key("token"), key("username"), key("password")) {
        (Some(token), _, _) => format!("Bearer {token}"),
        (None, Some(user), Some(password)) => basic(user, password),
        (None, None, None) if query.secret.is_empty() && url.username().is_empty() && url.password().is_none() => {
            return Ok(None);
        }
        (None, None, None) if query.secret.is_empty() => {
            let decode = |text: &str| percent_decode(text);
            basic(&decode(url.username()), &decode(url.password().unwrap_or_default()))
        }
        _ => return Err("the Secret has neither the key token nor the keys username and password".to_owned()),
    };
    HeaderValue::try_from(text)
        .map(Some)
        .map_err(|_| "the Secret holds characters that a header cannot carry".to_owned())
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
            [] => Reading::NoData("the query has no result".to_owned()),
            [one] => judge(one.sample().value()),
            many => Reading::Inconclusive(format!(
                "the query has {} series in its result, aggregate them to one (for instance with sum)",
                many.len()
            )),
        },
        Data::Scalar(sample) => judge(sample.value()),
        Data::Matrix(series) if series.is_empty() => Reading::NoData("the query has no result".to_owned()),
        Data::Matrix(_) => Reading::Inconclusive(
            "the query gives a range of values, ask for one (for instance with avg_over_time)".to_owned(),
        ),
    }
}

fn judge(value: f64) -> Reading {
    if value.is_nan() {
        Reading::NoData("the result is NaN: most often nothing was measured".to_owned())
    } else if value.is_infinite() {
        Reading::Inconclusive(format!("the result is {}", format_float(value)))
    } else {
        Reading::Value(value)
    }
}

/// Credentials of the query never leave this module.
fn clean(message: &str, query: &MetricQuery) -> String {
    let values = query.secret.values().map(|secret| secret.expose_secret());
    let headers = query.headers.values().flatten().map(String::as_str);
    truncate(&redact(message, values.chain(headers)), MESSAGE_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_path_and_query_string() {
        for (address, want) in [
            ("http://prometheus:9090", Ok("http://prometheus:9090/api/v1/query")),
            ("http://prometheus:9090/", Ok("http://prometheus:9090/api/v1/query")),
            ("https://m.example.com/prom/", Ok("https://m.example.com/prom/api/v1/query")),
            ("https://m.example.com/?tenant=a", Ok("https://m.example.com/api/v1/query?tenant=a")),
            (
                "https://m.example.com/select/0/prometheus?x=1",
                Ok("https://m.example.com/select/0/prometheus/api/v1/query?x=1"),
            ),
            ("prometheus:9090", Err("reading the address prometheus:9090: prometheus is neither http nor https")),
            ("", Err("reading the address : relative URL without a base")),
        ] {
            assert_eq!(
                endpoint(address).as_ref().map(Url::as_str),
                want.map_err(str::to_owned).as_ref().copied(),
                "{address}"
            );
        }
    }
}
