//! Graphite: the render URL API with `format=json`.

use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::Value;

use super::request::{Ask, basic, judge, no_data, sensitive, several};
use crate::ports::Reading;

#[derive(Deserialize)]
struct Series {
    /// Value and time, oldest first.
    #[serde(default)]
    datapoints: Vec<(Value, Value)>,
}

/// A series that need not be there: the answer is an empty list then.
pub(super) async fn probe(ask: &Ask<'_>) -> Result<(), String> {
    let query = [("target", "test"), ("from", "-1min")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    render(ask, &query).await.map(drop)
}

pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    // The query is a query string already: `target=…&from=-5min`.
    let given: Vec<_> = url::form_urlencoded::parse(ask.folded().as_bytes()).into_owned().collect();
    if !given.iter().any(|(key, _)| key == "target") {
        return Err("the query has no `target=`".to_owned());
    }
    let series = render(ask, &given).await?;
    let with_data: Vec<f64> = series.iter().filter_map(last).collect();
    Ok(match with_data.as_slice() {
        [] => no_data(),
        [one] => judge(*one),
        many => several(many.len(), "series", "aggregate them to one (for instance with sumSeries)"),
    })
}

async fn render(ask: &Ask<'_>, given: &[(String, String)]) -> Result<Vec<Series>, String> {
    let mut url = ask.endpoint(None, "/render")?;
    url.query_pairs_mut().extend_pairs(given.iter().filter(|(key, _)| key != "format")).append_pair("format", "json");
    let mut request = ask.client(&url)?.get(url).headers(ask.headers()?);
    if !ask.query.secret.is_empty() {
        let text = basic(ask.secret("username")?, ask.secret("password")?);
        request = request.header(AUTHORIZATION, sensitive(&text)?);
    }
    ask.json(request).await
}

/// The newest value that there is. Numbers may come as texts.
fn last(series: &Series) -> Option<f64> {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    series.datapoints.iter().rev().find_map(|(value, _)| number(value))
}
