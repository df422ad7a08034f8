//! Datadog: "Query timeseries data across multiple products", `GET /api/v1/query`.

use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::Value;

use super::request::{Ask, judge, no_data, sensitive, several};
use crate::ports::Reading;

/// The American site, which an address replaces.
const SITE: &str = "https://api.datadoghq.com";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    series: Vec<Series>,
    /// Says `error` in an answer of 200, too.
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Series {
    /// Time in milliseconds and value, oldest first.
    #[serde(default)]
    pointlist: Vec<(Option<f64>, Option<f64>)>,
}

/// "Validate API key", `GET /api/v1/validate`.
pub(super) async fn probe(ask: &Ask<'_>) -> Result<(), String> {
    let answer: Value = ask.json(request(ask, "/api/v1/validate")?).await?;
    if answer["valid"] == true { Ok(()) } else { Err(format!("querying {}: the API key is not valid", ask.place())) }
}

fn request(ask: &Ask<'_>, path: &str) -> Result<RequestBuilder, String> {
    let url = ask.endpoint(Some(SITE), path)?;
    Ok(ask
        .client(&url)?
        .get(url)
        .headers(ask.headers()?)
        .header("DD-API-KEY", sensitive(ask.secret("datadog_api_key")?)?)
        .header("DD-APPLICATION-KEY", sensitive(ask.secret("datadog_application_key")?)?))
}

pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    let (from, to) = ask.period();
    let period = [("from", from.to_string()), ("to", to.to_string())];
    let request = request(ask, "/api/v1/query")?.query(&[("query", ask.query.query.trim())]).query(&period);
    let answer: Answer = ask.json(request).await?;
    if let Some(error) = answer.error.filter(|error| !error.is_empty()) {
        return Err(format!("querying {}: {error}", ask.place()));
    }
    if answer.status.as_deref() == Some("error") {
        return Err(format!("querying {}: the status of the answer is error", ask.place()));
    }
    match answer.series.as_slice() {
        [] => Ok(no_data()),
        // what is newest counts. Flagger takes the oldest of ten intervals, from before the release began.
        [series] => Ok(series.pointlist.iter().rev().find_map(|(_, value)| *value).map_or_else(no_data, judge)),
        many => Ok(several(many.len(), "series", "aggregate them to one (leave out `by {…}`)")),
    }
}
