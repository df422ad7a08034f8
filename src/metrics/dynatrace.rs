//! Dynatrace: Metrics API v2, `GET /api/v2/metrics/query`.

use http::header::AUTHORIZATION;
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

pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    let url = ask.endpoint(None, "/api/v2/metrics/query")?;
    let (from, to) = ask.period();
    let token = format!("Api-Token {}", ask.secret("dynatrace_token")?);
    let milliseconds = |seconds: i64| seconds.saturating_mul(1000).to_string();
    let request = ask
        .client(&url)?
        .get(url)
        .headers(ask.headers()?)
        .header(AUTHORIZATION, sensitive(&token)?)
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
