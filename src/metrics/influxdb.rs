//! InfluxDB 2: "Query data", `POST /api/v2/query` with Flux; the answer is annotated CSV.

use csv::{ReaderBuilder, StringRecord};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};

use super::request::{Ask, is_one, judge, no_data, sensitive, several};
use crate::ports::{MetricQuery, Reading};

/// A table that the query brings along (`array.from` of Flux): no bucket must be there, nor readable.
pub(super) async fn probe(probed: &Ask<'_>) -> Result<(), String> {
    let question = "import \"array\" array.from(rows: [{_value: 1.0}])";
    let query = MetricQuery { query: question.to_owned(), ..probed.query.clone() };
    let answer = ask(&Ask { query: &query, ..*probed }).await?;
    is_one(probed, question, answer)
}

pub(super) async fn ask(ask: &Ask<'_>) -> Result<Reading, String> {
    let url = ask.endpoint(None, "/api/v2/query")?;
    let token = format!("Token {}", ask.secret("token")?);
    let request = ask
        .client(&url)?
        .post(url)
        .headers(ask.headers()?)
        .query(&[("org", ask.secret("org")?)])
        .header(AUTHORIZATION, sensitive(&token)?)
        .header(ACCEPT, "application/csv")
        .header(CONTENT_TYPE, "application/vnd.flux")
        .body(ask.query.query.clone());
    let body = ask.success(request).await?;
    let values = values(&body).map_err(|error| format!("querying {}: reading the answer: {error}", ask.place()))?;
    Ok(match values.as_slice() {
        // no rows are no data, not the number 0.
        [] => no_data(),
        [one] => judge(*one),
        many => several(many.len(), "rows", "make one of them (for instance with group() and last())"),
    })
}

/// The column `_value` of every row. Each table begins with a header of its own, after annotations and an empty line.
fn values(body: &[u8]) -> Result<Vec<f64>, String> {
    let mut values = Vec::new();
    for table in tables(&String::from_utf8_lossy(body)) {
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(table.as_bytes());
        let rows: Result<Vec<StringRecord>, _> = reader.records().collect();
        let rows = rows.map_err(|error| error.to_string())?;
        let Some((header, rows)) = rows.split_first() else { continue };
        let column = |name: &str| header.iter().position(|title| title == name);
        if let Some(error) = column("error") {
            let words = rows.first().and_then(|row| row.get(error)).unwrap_or_default();
            return Err(format!("the query failed: {words}"));
        }
        let Some(column) = column("_value") else { continue };
        for row in rows {
            match row.get(column).unwrap_or_default() {
                "" => {}
                text => values.push(text.parse().map_err(|_| format!("`{text}` in column _value is no number"))?),
            }
        }
    }
    Ok(values)
}

/// The tables of annotated CSV, without their annotations.
fn tables(text: &str) -> Vec<String> {
    let mut tables = vec![String::new()];
    for line in text.lines().map(|line| line.trim_end_matches('\r')) {
        if line.is_empty() {
            tables.push(String::new());
        } else if let Some(table) = tables.last_mut().filter(|_| !line.starts_with('#')) {
            table.push_str(line);
            table.push('\n');
        }
    }
    tables.retain(|table| !table.is_empty());
    tables
}
