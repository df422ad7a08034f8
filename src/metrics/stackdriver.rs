//! Google Cloud Monitoring: `projects.timeSeries.query` of API v3, with MQL.

use http::StatusCode;
use http::header::{AUTHORIZATION, HOST};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Ask, Whose, judge, no_data, sensitive, several};
use super::{Environment, google};
use crate::ports::Reading;

const SITE: &str = "https://monitoring.googleapis.com";
/// Where the operator has another site, as Google's own command line has it (`gcloud topic configurations`).
const SITE_VARIABLE: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    time_series_data: Vec<Series>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    /// Newest first.
    #[serde(default)]
    point_data: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    #[serde(default)]
    values: Vec<Value>,
}

/// An empty query, as Flagger sends it: whoever may ask is told that it is none. No other request needs exactly the right
/// that a query needs.
pub(super) async fn probe(ask: &Ask<'_>, environment: &Environment) -> Result<(), String> {
    let (status, body) = ask.send(request(ask, environment, "").await?).await?;
    let text = String::from_utf8_lossy(&body);
    if status.is_success() || status == StatusCode::BAD_REQUEST && text.contains("INVALID_ARGUMENT") {
        return Ok(());
    }
    Err(format!("querying {}: {} {}", ask.place(), status.as_u16(), text.trim()))
}

async fn request(ask: &Ask<'_>, environment: &Environment, query: &str) -> Result<RequestBuilder, String> {
    let whose = google::whose(ask);
    let site = ask.site(environment(SITE_VARIABLE), SITE, whose)?;
    let access = google::access(ask, environment).await?;
    let url = ask.endpoint(Some(&site), &format!("/v3/projects/{}/timeSeries:query", access.project))?;
    let mut headers = ask.headers()?;
    if whose == Whose::Machine {
        // A front end with many hosts behind it would hand the token to the one that is named here.
        headers.remove(HOST);
    }
    Ok(ask
        .site_client(&url, whose)?
        .post(url)
        .headers(headers)
        .header(AUTHORIZATION, sensitive(&format!("Bearer {}", access.token))?)
        .json(&json!({"query": query})))
}

pub(super) async fn ask(ask: &Ask<'_>, environment: &Environment) -> Result<Reading, String> {
    let answer: Answer = ask.json(request(ask, environment, &ask.query.query).await?).await?;
    Ok(match answer.time_series_data.as_slice() {
        [] => no_data(),
        [one] => one.point_data.first().and_then(|point| number(point.values.first()?)).map_or_else(no_data, judge),
        many => several(many.len(), "time series", "aggregate them to one (for instance with group_by [])"),
    })
}

/// A `TypedValue`: JSON carries 64-bit integers, and what is no finite number, as texts.
fn number(value: &Value) -> Option<f64> {
    let read = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    ["doubleValue", "int64Value"].iter().find_map(|key| read(value.get(key)?))
}
