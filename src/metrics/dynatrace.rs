//! Dynatrace: Metrics API v2, `GET /api/v2/metrics/query`.

use http::header::AUTHORIZATION;
use reqwest::RequestBuilder;
use serde::Deserialize;

use super::request::{Ask, judge, no_data, sensitive, several};
use crate::ports::Reading;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    #[serde(default)]
    data: Vec<Series>,
}

/// The data of one combination of dimensions.
#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    values: Vec<Option<f64>>,
}

/// The first of all metrics, `GET /api/v2/metrics`, for which the token needs the same right.
pub(super) async fn probe(ask: &Ask<'_>) -> Result<(), String> {
    ask.success(request(ask, "/api/v2/metrics")?.query(&[("pageSize", "1")])).await.map(drop)
}

fn request(ask: &Ask<'_>, path: &str) -> Result<RequestBuilder, String> {
    let url = ask.endpoint(None, path)?;
    let token = format!("Api-Token {}", ask.secret("dynatrace_token")?);
    Ok(ask.client(&url)?.get(url).headers(ask.headers()?).header(AUTHORIZATION, sensitive(&token)?))
}

pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    let (from, to) = ask.period();
    let milliseconds = |seconds: i64| seconds.saturating_mul(1000).to_string();
    let request = request(ask, "/api/v2/metrics/query")?
        // One value for the whole time, instead of one for each minute.
        .query(&[("metricSelector", ask.query.query.trim()), ("resolution", "Inf")])
        .query(&[("from", milliseconds(from)), ("to", milliseconds(to))]);
    let answer: Answer = ask.json(request).await?;
    let series: Vec<&Series> = answer.result.iter().flat_map(|metric| &metric.data).collect();
    Ok(match series.as_slice() {
        [] => no_data(),
        [one] => one.values.iter().rev().find_map(|value| *value).map_or_else(no_data, judge),
        many => several(many.len(), "series", "merge their dimensions (for instance with :splitBy())"),
    })
}
