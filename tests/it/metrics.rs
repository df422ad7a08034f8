//! The Prometheus adapter at wire level: what is sent, and what every kind of answer means. The other providers have
//! modules of their own.

mod clouds;
mod in_cluster;
mod providers;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use serin::metrics::Metrics;
use serin::ports::{Clock, InFlight, MetricQuery, MetricSource as _, Reading};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A clock that stands still while a call is under way, and jumps when something only waits. Other tests of adapters
/// use it too.
#[derive(Default)]
pub(crate) struct StillClock {
    passed: Mutex<Vec<Duration>>,
    in_flight: Arc<AtomicUsize>,
    impatient: bool,
}

impl StillClock {
    /// A clock that jumps even while a call is under way, so that timeouts strike at once.
    pub(crate) fn jumping() -> Self {
        Self { impatient: true, ..Self::default() }
    }

    /// Calls under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// The waits so far, in seconds.
    pub(crate) fn waits(&self) -> Vec<u64> {
        self.passed.lock().expect("no panic").iter().map(Duration::as_secs).collect()
    }
}

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        let passed: Duration = self.passed.lock().expect("no panic").iter().sum();
        Timestamp::from_second(1_700_000_000).expect("a time") + passed
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        if Self::in_flight(self) > 0 && !self.impatient {
            pending::<()>().await;
        }
        let wait = Duration::try_from(deadline.duration_since(self.now())).unwrap_or_default();
        self.passed.lock().expect("no panic").push(wait);
    }

    fn in_flight(&self) -> InFlight {
        let count = Arc::clone(&self.in_flight);
        count.fetch_add(1, Ordering::SeqCst);
        InFlight(Some(Box::new(move || {
            count.fetch_sub(1, Ordering::SeqCst);
        })))
    }
}

fn query(address: &str) -> MetricQuery {
    MetricQuery {
        provider: "prometheus".to_owned(),
        address: address.to_owned(),
        query: "vector(1)".to_owned(),
        headers: BTreeMap::new(),
        secret: BTreeMap::new(),
        region: None,
        window: Duration::from_secs(60),
        insecure_skip_verify: false,
        timeout: Duration::from_secs(5),
    }
}

fn secret(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretString> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect()
}

fn success(kind: &str, result: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(json!({"status": "success", "data": {"resultType": kind, "result": result}}))
}

fn sample(value: &str) -> Value {
    json!({"metric": {"le": "1"}, "value": [1_435_781_451.781, value]})
}

async fn answer(response: ResponseTemplate) -> Reading {
    let server = MockServer::start().await;
    Mock::given(method("GET")).and(path("/api/v1/query")).respond_with(response).mount(&server).await;
    Metrics::new(Arc::new(StillClock::default())).query(query(&server.uri())).await
}

#[tokio::test]
async fn only_one_finite_number_is_a_value() {
    for (response, want) in [
        (success("vector", &json!([sample("99.5")])), Reading::Value(99.5)),
        (success("vector", &json!([sample("-0")])), Reading::Value(0.0)),
        (success("scalar", &json!([1_435_781_451.781, "7"])), Reading::Value(7.0)),
        (success("vector", &json!([])), Reading::NoData("the query has no result".to_owned())),
        (success("matrix", &json!([])), Reading::NoData("the query has no result".to_owned())),
        (
            success("vector", &json!([sample("NaN")])),
            Reading::NoData("the result is NaN: most often nothing was measured".to_owned()),
        ),
        (success("vector", &json!([sample("+Inf")])), Reading::Inconclusive("the result is +Inf".to_owned())),
        (success("scalar", &json!([1.0, "-Inf"])), Reading::Inconclusive("the result is -Inf".to_owned())),
    ] {
        assert_eq!(answer(response).await, want);
    }
}

#[tokio::test]
async fn several_series_and_ranges_cannot_be_judged() {
    let two = answer(success("vector", &json!([sample("1"), sample("2")]))).await;
    assert!(matches!(&two, Reading::Inconclusive(text) if text.contains("2 series")), "{two:?}");
    let range = json!([{"metric": {}, "values": [[1.0, "1"], [2.0, "2"]]}]);
    let range = answer(success("matrix", &range)).await;
    assert!(matches!(&range, Reading::Inconclusive(text) if text.contains("range of values")), "{range:?}");
}

#[tokio::test]
async fn failures_are_provider_errors_with_the_servers_words() {
    let error = json!({"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end of input"});
    for (response, words) in [
        (ResponseTemplate::new(400).set_body_json(error), "400 bad_data: parse error: unexpected end of input"),
        (ResponseTemplate::new(500).set_body_string("oh no"), "500 oh no"),
        (ResponseTemplate::new(302).insert_header("location", "http://elsewhere/"), "302"),
        (ResponseTemplate::new(200).set_body_string("<html>"), "reading the answer"),
        (ResponseTemplate::new(200).set_body_json(json!({"status": "success"})), "reading the answer"),
        (success("string", &json!([1.0, "a"])), "reading the answer"),
        (success("vector", &json!([sample("many")])), "reading the answer"),
        (ResponseTemplate::new(200).set_body_string("x".repeat((1 << 20) + 1)), "larger than"),
    ] {
        let reading = answer(response).await;
        assert!(matches!(&reading, Reading::ProviderError(text) if text.contains(words)), "{words}: {reading:?}");
    }
}

/// Flagger loses the query string of an address.
#[tokio::test]
async fn q16_path_and_query_string_of_the_address_are_kept() {
    let server = MockServer::start().await;
    Mock::given(path("/select/0/prometheus/api/v1/query"))
        .and(query_param("tenant", "a"))
        .and(query_param("query", "sum( up )"))
        .and(header("x-scope-orgid", "one"))
        .respond_with(success("vector", &json!([sample("1")])))
        .expect(1)
        .mount(&server)
        .await;
    let mut query = query(&format!("{}/select/0/prometheus/?tenant=a", server.uri()));
    query.query = " sum(\n   up\t)\n".to_owned();
    query.headers.insert("X-Scope-OrgID".to_owned(), vec!["one".to_owned()]);
    assert_eq!(Metrics::new(Arc::new(StillClock::default())).query(query).await, Reading::Value(1.0));
}

#[tokio::test]
async fn credentials_come_from_the_secret_or_the_address() {
    let server = MockServer::start().await;
    for value in ["Bearer t0ken", "Basic dXNlcjpwYXNz"] {
        Mock::given(header("authorization", value))
            .respond_with(success("vector", &json!([sample("1")])))
            .expect(1..)
            .mount(&server)
            .await;
    }
    let metrics = Metrics::new(Arc::new(StillClock::default()));
    for (pairs, user) in [
        (&[("token", "t0ken\n")][..], ""),
        (&[("username", "user"), ("password", "pass")], ""),
        (&[("token", "t0ken"), ("username", "other")], ""),
        (&[], "user:pass@"),
    ] {
        let mut query = query(&server.uri().replace("http://", &format!("http://{user}")));
        query.secret = secret(pairs);
        assert_eq!(metrics.query(query).await, Reading::Value(1.0), "{pairs:?} {user}");
    }
    let mut query = query(&server.uri());
    query.secret = secret(&[("password", "pass")]);
    let reading = metrics.query(query).await;
    assert!(matches!(&reading, Reading::ProviderError(text) if text.contains("neither the key token")), "{reading:?}");
}

#[tokio::test]
async fn credentials_stay_out_of_messages() {
    let server = MockServer::start().await;
    let echo = ResponseTemplate::new(401).set_body_string("no such token: s3cr3t-token, header h3ader-value");
    Mock::given(method("GET")).respond_with(echo).mount(&server).await;
    let metrics = Metrics::new(Arc::new(StillClock::default()));
    for address in [server.uri(), "http://user:pa55word@127.0.0.1:1/".to_owned(), "ftp://user:pa55word@host".to_owned()]
    {
        let mut query = query(&address);
        query.secret = secret(&[("token", "s3cr3t-token")]);
        query.headers.insert("X-Api-Key".to_owned(), vec!["h3ader-value".to_owned()]);
        let Reading::ProviderError(text) = metrics.query(query).await else { panic!("an error") };
        for secret in ["s3cr3t-token", "h3ader-value", "pa55word"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_by_the_clock() {
    let server = MockServer::start().await;
    let slow = success("vector", &json!([sample("1")])).set_delay(Duration::from_secs(600));
    Mock::given(method("GET")).respond_with(slow).mount(&server).await;
    let clock = Arc::new(StillClock::jumping());
    let reading = Metrics::new(clock.clone()).query(query(&server.uri())).await;
    assert!(matches!(&reading, Reading::ProviderError(text) if text.contains("no answer within 5s")), "{reading:?}");
    assert_eq!(StillClock::in_flight(&clock), 0);
}
