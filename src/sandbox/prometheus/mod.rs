//! The HTTP API of Prometheus over any [`Series`].
//!
//! On the wire: `GET /api/v1/query?query=Q&time=T` and `POST /api/v1/query` with the same fields as a form. `time` is
//! seconds since the epoch with an optional fraction, or RFC 3339; without it the clock's time counts. A time in the
//! clock's future is the present. Answers are those of Prometheus:
//!
//! ```json
//! {"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1700000000.5,"99.5"]}]}}
//! {"status":"success","data":{"resultType":"scalar","result":[1700000000,"1"]}}
//! {"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": …"}
//! ```
//!
//! A query that cannot be parsed, or none, is `bad_data` with 400; one that cannot be evaluated is `execution` with 422.
//! `/-/healthy` and `/-/ready` answer too. Everything else is 404.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::promql::{Labels, Point, QueryError, Series, Value, evaluate};
use crate::ports::Clock;

/// Whether the simulated Prometheus works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Availability {
    /// It answers.
    #[default]
    Up,
    /// It answers every request with this status code and a text that is not JSON, as a proxy in front of it would.
    Failing(u16),
    /// Connections are refused. A router cannot do that: whoever accepts connections asks for it and closes them; a
    /// request that reaches the router all the same gets 503.
    Refused,
}

/// The simulated Prometheus: series, the clock for queries without a time, and a switch.
pub struct Prometheus {
    /// Where samples come from.
    pub series: Arc<dyn Series>,
    /// The present time.
    pub clock: Arc<dyn Clock>,
    availability: Mutex<Availability>,
}

impl Prometheus {
    /// A Prometheus that is up.
    pub fn new(series: Arc<dyn Series>, clock: Arc<dyn Clock>) -> Self {
        Self { series, clock, availability: Mutex::default() }
    }

    /// Whether it works.
    pub fn availability(&self) -> Availability {
        *self.availability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks or repairs it.
    pub fn set_availability(&self, availability: Availability) {
        *self.availability.lock().unwrap_or_else(PoisonError::into_inner) = availability;
    }

    /// Answers the fields of a request, in URL encoding.
    fn respond(&self, fields: &[u8]) -> Response {
        let field = |name: &str| {
            let found = url::form_urlencoded::parse(fields).find(|(field, _)| field == name);
            found.map(|(_, value)| value.into_owned())
        };
        let now = self.clock.now().as_millisecond();
        let time = match field("time").filter(|text| !text.is_empty()).map(|text| (parse_time(&text), text)) {
            None => now,
            Some((Some(time), _)) => time.min(now),
            Some((None, text)) => {
                let message = format!("invalid parameter \"time\": cannot parse {text:?} to a valid timestamp");
                return reply(400, &failure("bad_data", &message));
            }
        };
        let (status, body) = answer(&field("query").unwrap_or_default(), time, &*self.series);
        reply(status, &body)
    }
}

/// Answers an instant query at `time` (milliseconds since the epoch): HTTP status code and body.
pub fn answer(query: &str, time: i64, series: &dyn Series) -> (u16, Json) {
    match evaluate(query, time, series) {
        Ok(value) => (200, json!({"status": "success", "data": data(value, time)})),
        Err(error @ QueryError::Parse(_)) => {
            (400, failure("bad_data", &format!("invalid parameter \"query\": {error}")))
        }
        Err(error) => (422, failure("execution", &error.to_string())),
    }
}

/// The HTTP API as a router.
pub fn router(state: Arc<Prometheus>) -> Router {
    let query = get(|State(prometheus): State<Arc<Prometheus>>, RawQuery(query): RawQuery| async move {
        prometheus.respond(query.unwrap_or_default().as_bytes())
    })
    .post(
        |State(prometheus): State<Arc<Prometheus>>, RawQuery(query), headers: HeaderMap, body: Bytes| async move {
            post(&prometheus, query, &headers, &body)
        },
    );
    Router::new()
        .route("/api/v1/query", query)
        .route("/-/healthy", get(|| async { "Prometheus Server is Healthy.\n" }))
        .route("/-/ready", get(|| async { "Prometheus Server is Ready.\n" }))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), gate))
        .with_state(state)
}

fn post(prometheus: &Prometheus, query: Option<String>, headers: &HeaderMap, body: &[u8]) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = kind.split(';').next().is_some_and(|kind| kind.trim() == "application/x-www-form-urlencoded");
    let form: &[u8] = if is_form { body } else { &[] };
    // Go reads the form first and the URL after it.
    prometheus.respond(&[form, b"&", query.unwrap_or_default().as_bytes()].concat())
}

async fn gate(
    State(prometheus): State<Arc<Prometheus>>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let code = match prometheus.availability() {
        Availability::Up => return next.run(request).await,
        Availability::Failing(code) => code,
        Availability::Refused => 503,
    };
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (code, "the sandbox's Prometheus is switched off\n").into_response()
}

fn reply(status: u16, body: &Json) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}

fn failure(kind: &str, message: &str) -> Json {
    json!({"status": "error", "errorType": kind, "error": message})
}

fn data(value: Value, time: i64) -> Json {
    let pair = |(time, value): Point| json!([seconds(time), format_value(value)]);
    let metric = |labels: Labels| json!(labels);
    match value {
        Value::Scalar(value) => json!({"resultType": "scalar", "result": pair((time, value))}),
        Value::String(text) => json!({"resultType": "string", "result": [seconds(time), text]}),
        Value::Vector(samples) => {
            let result: Vec<_> = samples
                .into_iter()
                .map(|sample| json!({"metric": metric(sample.labels), "value": pair((time, sample.value))}))
                .collect();
            json!({"resultType": "vector", "result": result})
        }
        Value::Matrix(series) => {
            let result: Vec<_> = series
                .into_iter()
                .map(|(labels, points)| {
                    json!({"metric": metric(labels), "values": points.into_iter().map(pair).collect::<Vec<_>>()})
                })
                .collect();
            json!({"resultType": "matrix", "result": result})
        }
    }
}

/// Seconds since the epoch, whole ones without a fraction.
fn seconds(millis: i64) -> Json {
    if millis % 1000 == 0 { json!(millis / 1000) } else { json!(millis as f64 / 1000.0) }
}

/// A sample value as Prometheus writes it: shortest digits, an exponent only below 1e-6 and from 1e21 on.
fn format_value(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value}")
}

fn parse_time(text: &str) -> Option<i64> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => Some((seconds * 1000.0).round() as i64),
        Ok(_) => None,
        Err(_) => text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::super::promql::Matcher;
    use super::*;

    struct Fixed;

    impl Series for Fixed {
        fn select(&self, _: &[Matcher], start: i64, end: i64) -> Vec<(Labels, Vec<Point>)> {
            let labels = Labels::from([("__name__".to_owned(), "up".to_owned()), ("job".to_owned(), "x".to_owned())]);
            let points: Vec<_> =
                [(1_000, 1.0), (2_500, 2.5)].into_iter().filter(|p| p.0 > start && p.0 <= end).collect();
            if points.is_empty() { Vec::new() } else { vec![(labels, points)] }
        }
    }

    struct At(i64);

    #[async_trait]
    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_millisecond(self.0).unwrap()
        }
        async fn sleep_until(&self, _: Timestamp) {}
    }

    #[test]
    fn answers_have_the_shapes_of_prometheus() {
        for (query, time, status, want) in [
            (
                "up",
                2_500,
                200,
                r#"{"data":{"result":[{"metric":{"__name__":"up","job":"x"},"value":[2.5,"2.5"]}],"resultType":"vector"},"status":"success"}"#,
            ),
            ("up", 999, 200, r#"{"data":{"result":[],"resultType":"vector"},"status":"success"}"#),
            ("1/0", 3_000, 200, r#"{"data":{"result":[3,"+Inf"],"resultType":"scalar"},"status":"success"}"#),
            (
                "up[5s]",
                3_000,
                200,
                r#"{"data":{"result":[{"metric":{"__name__":"up","job":"x"},"values":[[1,"1"],[2.5,"2.5"]]}],"resultType":"matrix"},"status":"success"}"#,
            ),
            ("\"a\"", 3_000, 200, r#"{"data":{"result":[3,"a"],"resultType":"string"},"status":"success"}"#),
            (
                "topk(1, up)",
                0,
                422,
                r#"{"error":"evaluating the query: the sandbox does not support the aggregation `topk`","errorType":"execution","status":"error"}"#,
            ),
        ] {
            let (code, body) = answer(query, time, &Fixed);
            assert_eq!((code, crate::domain::canonical_json(&body).as_str()), (status, want), "{query}");
        }
        let (code, body) = answer("sum(", 0, &Fixed);
        assert_eq!((code, body["errorType"].as_str()), (400, Some("bad_data")));
    }

    #[test]
    fn values_are_written_as_go_writes_them() {
        for (value, want) in [
            (99.5, "99.5"),
            (1e6, "1000000"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-07"),
            (0.0, "0"),
            (-0.001, "-0.001"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(format_value(value), want);
        }
    }

    fn ask(prometheus: &Arc<Prometheus>, method: &str, uri: &str, form: &str) -> (u16, String) {
        let request = http::Request::builder().method(method).uri(uri);
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(form.to_owned()));
        futures::executor::block_on(async {
            let response = router(Arc::clone(prometheus)).oneshot(request.unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
    }

    #[test]
    fn the_router_takes_get_and_post_and_can_be_switched_off() {
        let prometheus = Arc::new(Prometheus::new(Arc::new(Fixed), Arc::new(At(3_000))));
        for (method, uri, form, status, part) in [
            ("GET", "/api/v1/query?query=up", "", 200, r#"[3,"2.5"]"#),
            ("GET", "/api/v1/query?query=up%7Bjob%3D%22x%22%7D+*+2&time=2", "", 200, r#"[2,"2"]"#),
            ("GET", "/api/v1/query?query=up&time=1970-01-01T00:00:01Z", "", 200, r#"[1,"1"]"#),
            ("GET", "/api/v1/query?query=up&time=9999999999", "", 200, r#"[3,"2.5"]"#),
            ("GET", "/api/v1/query?query=up&time=soon", "", 400, "invalid parameter \\\"time\\\""),
            ("GET", "/api/v1/query", "", 400, "bad_data"),
            ("POST", "/api/v1/query", "query=up&time=1.5", 200, r#"[1.5,"1"]"#),
            ("POST", "/api/v1/query?time=1.5", "query=up", 200, r#"[1.5,"1"]"#),
            ("GET", "/-/ready", "", 200, "Ready"),
            ("GET", "/api/v1/series", "", 404, ""),
        ] {
            let (code, body) = ask(&prometheus, method, uri, form);
            assert!(code == status && body.contains(part), "{method} {uri} {form}: {code} {body}");
        }
        prometheus.set_availability(Availability::Failing(500));
        assert_eq!(ask(&prometheus, "GET", "/api/v1/query?query=up", "").0, 500);
        prometheus.set_availability(Availability::Refused);
        assert_eq!(ask(&prometheus, "GET", "/-/healthy", "").0, 503);
        prometheus.set_availability(Availability::Up);
        assert_eq!(ask(&prometheus, "GET", "/api/v1/query?query=up", "").0, 200);
    }
}
