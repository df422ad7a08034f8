//! Every provider at wire level: the request of its documentation, and what each kind of answer means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use serin::metrics::Metrics;
use serin::ports::{MetricQuery, MetricSource as _, Reading};
use wiremock::matchers::{any, body_string, body_string_contains, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::StillClock;

/// What every Secret of these tests holds: no reading may show it.
const SECRET: &str = "hunter2hunter2";

/// A query with all keys that any provider wants.
pub(super) fn query(provider: &str, address: &str) -> MetricQuery {
    let keys = [
        "datadog_api_key",
        "datadog_application_key",
        "newrelic_query_key",
        "dynatrace_token",
        "sf_token_key",
        "aws_access_key_id",
        "aws_secret_access_key",
        "username",
        "password",
        "token",
    ];
    let mut secret: BTreeMap<String, SecretString> =
        keys.into_iter().map(|key| (key.to_owned(), SecretString::from(SECRET))).collect();
    for (key, value) in [("newrelic_account_id", "51312"), ("org", "acme"), ("project", "shop-1")] {
        secret.insert(key.to_owned(), SecretString::from(value));
    }
    let text = match provider {
        "graphite" => "target=sumSeries(a.*)\n  &from=-5min",
        "cloudwatch" => {
            r#"[{"Id": "m1", "MetricStat": {"Metric": {"Namespace": "App", "MetricName": "Errors", "Dimensions": [{"Name": "a", "Value": "b c"}]}, "Period": 60, "Stat": "Sum"}, "ReturnData": true}]"#
        }
        "externalmetrics" => "shop/queue?labelSelector=app%3Dweb",
        _ => "the query",
    };
    MetricQuery {
        provider: provider.to_owned(),
        address: address.to_owned(),
        query: text.to_owned(),
        headers: BTreeMap::from([("X-Team".to_owned(), vec!["shop".to_owned()])]),
        secret,
        region: Some("eu-west-1".to_owned()),
        window: Duration::from_secs(60),
        insecure_skip_verify: false,
        timeout: Duration::from_secs(5),
    }
}

/// Asks a provider whose server is given.
async fn ask(server: &MockServer, query: MetricQuery) -> Reading {
    metrics(server).query(query).await
}

/// The providers on a machine of Google's whose operator names the server.
fn metrics(server: &MockServer) -> Metrics {
    let (host, uri) = (server.address().to_string(), server.uri());
    let environment = move |name: &str| match name {
        "GCE_METADATA_HOST" => Some(host.clone()),
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING" => Some(uri.clone()),
        _ => None,
    };
    Metrics::new(Arc::new(StillClock::default())).with_environment(Arc::new(environment))
}

/// A server that hands out tokens of the machine, as Google's does.
async fn server() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(path("/computeMetadata/v1/instance/service-accounts/default/token"))
        .and(header("metadata-flavor", "Google"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"access_token": SECRET, "expires_in": 60})))
        .with_priority(1)
        .mount(&server)
        .await;
    server
}

async fn reading(provider: &str, answer: ResponseTemplate) -> Reading {
    let server = server().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    ask(&server, query(provider, &server.uri())).await
}

fn body(provider: &str, value: &Value) -> ResponseTemplate {
    let ok = ResponseTemplate::new(200);
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match provider {
        "datadog" => ok.set_body_json(json!({"status": "ok", "series": [{"pointlist": [[1.0, 7.0], [2.0, value]]}]})),
        "newrelic" => ok.set_body_json(json!({"results": [{"result": value}]})),
        "graphite" => ok.set_body_json(json!([{"target": "a", "datapoints": [[7.0, 1], [value, 2]]}])),
        "influxdb" => ok.set_body_string(format!(
            "#datatype,string,long,double\r\n#group,false,false,false\r\n#default,_result,,\r\n,result,table,_value\r\n,,0,{text}\r\n\r\n"
        )),
        "dynatrace" => ok.set_body_json(json!({"result": [{"metricId": "a", "data": [{"timestamps": [1], "values": [value]}]}]})),
        "splunk" => ok.set_body_string(format!(
            "event: control-message\ndata: {{\"event\": \"STREAM_START\"}}\n\nevent: data\ndata: {{\"data\": [{{\"tsId\": \"A\", \
             \"value\": 7}}]}}\n\nevent: data\ndata: {{\ndata: \"data\": [{{\"tsId\": \"A\", \"value\": {value}}}]}}\n\n"
        )),
        "stackdriver" => {
            let point = json!({"values": [{"doubleValue": value}]});
            ok.set_body_json(json!({"timeSeriesData": [{"pointData": [point, {"values": [{"doubleValue": 7.0}]}]}]}))
        }
        "cloudwatch" => ok.set_body_string(format!(
            "<GetMetricDataResponse xmlns=\"http://monitoring.amazonaws.com/doc/2010-08-01/\"><GetMetricDataResult><MetricDataResults>\
             <member><Id>m1</Id><Values><member>{text}</member><member>7.0</member></Values></member></MetricDataResults>\
             </GetMetricDataResult></GetMetricDataResponse>"
        )),
        _ => ok.set_body_json(json!({"items": [{"metricName": "queue", "value": value}]})),
    }
}

const PROVIDERS: [&str; 9] = [
    "datadog",
    "newrelic",
    "graphite",
    "influxdb",
    "dynatrace",
    "splunk",
    "stackdriver",
    "cloudwatch",
    "externalmetrics",
];

#[tokio::test]
async fn one_number_is_a_value() {
    for provider in PROVIDERS {
        let value = if provider == "externalmetrics" { json!("1500m") } else { json!(1.5) };
        assert_eq!(reading(provider, body(provider, &value)).await, Reading::Value(1.5), "{provider}");
    }
    assert_eq!(reading("externalmetrics", body("externalmetrics", &json!("2Ki"))).await, Reading::Value(2048.0));
    let count = ResponseTemplate::new(200).set_body_json(json!({"results": [{"count": 3}]}));
    assert_eq!(reading("newrelic", count).await, Reading::Value(3.0));
    let int = json!({"timeSeriesData": [{"pointData": [{"values": [{"int64Value": "12"}]}]}]});
    assert_eq!(reading("stackdriver", ResponseTemplate::new(200).set_body_json(int)).await, Reading::Value(12.0));
}

#[tokio::test]
async fn nothing_is_no_data() {
    let json = |value: Value| ResponseTemplate::new(200).set_body_json(value);
    for (provider, answer) in [
        ("datadog", json(json!({"status": "ok", "series": []}))),
        ("datadog", json(json!({"series": [{"pointlist": []}]}))),
        ("newrelic", json(json!({"results": []}))),
        ("newrelic", json(json!({"results": [{"result": null}]}))),
        ("graphite", json(json!([]))),
        ("graphite", json(json!([{"target": "a", "datapoints": [[null, 1]]}]))),
        // Q-33: Flagger takes this for the number 0.
        ("influxdb", ResponseTemplate::new(200).set_body_string("\r\n")),
        ("influxdb", body("influxdb", &json!(""))),
        ("dynatrace", json(json!({"result": [{"data": []}]}))),
        ("dynatrace", json(json!({"result": [{"data": [{"values": [null]}]}]}))),
        ("splunk", ResponseTemplate::new(200).set_body_string("event: data\ndata: {\"data\": []}\n\n")),
        ("stackdriver", json(json!({}))),
        ("stackdriver", json(json!({"timeSeriesData": [{"pointData": []}]}))),
        ("cloudwatch", ResponseTemplate::new(200).set_body_string("<a><MetricDataResults/></a>")),
        (
            "cloudwatch",
            ResponseTemplate::new(200)
                .set_body_string("<a><MetricDataResults><member><Values/></member></MetricDataResults></a>"),
        ),
        ("externalmetrics", json(json!({"items": []}))),
    ] {
        let reading = reading(provider, answer).await;
        assert!(matches!(reading, Reading::NoData(_)), "{provider}: {reading:?}");
    }
}

#[tokio::test]
async fn nan_is_no_data_and_infinity_is_inconclusive() {
    // JSON has neither; the other formats and Graphite's and Google's texts do.
    for provider in ["graphite", "influxdb", "splunk", "stackdriver", "cloudwatch"] {
        let reading_of = |text: &'static str| reading(provider, body(provider, &json!(text)));
        let nan = reading_of("NaN").await;
        assert!(matches!(nan, Reading::NoData(_)), "{provider}: {nan:?}");
        let infinite = reading_of("Infinity").await;
        assert!(matches!(infinite, Reading::Inconclusive(_)), "{provider}: {infinite:?}");
    }
}

#[tokio::test]
async fn several_numbers_are_inconclusive() {
    let json = |value: Value| ResponseTemplate::new(200).set_body_json(value);
    let text = |text: &str| ResponseTemplate::new(200).set_body_string(text);
    for (provider, answer) in [
        ("datadog", json(json!({"series": [{"pointlist": [[1, 1]]}, {"pointlist": [[1, 2]]}]}))),
        ("newrelic", json(json!({"results": [{"result": 1}, {"result": 2}]}))),
        ("newrelic", json(json!({"results": [{"a": 1, "b": 2}]}))),
        ("graphite", json(json!([{"datapoints": [[1, 1]]}, {"datapoints": [[2, 1]]}]))),
        ("influxdb", text(",result,table,_value\n,,0,1\n,,0,2\n")),
        ("influxdb", text(",result,table,_value\n,,0,1\n\n,result,table,_value\n,,1,2\n")),
        ("dynatrace", json(json!({"result": [{"data": [{"values": [1]}, {"values": [2]}]}]}))),
        (
            "splunk",
            text(
                "event: data\ndata: {\"data\": [{\"tsId\": \"A\", \"value\": 1}, {\"tsId\": \"B\", \"value\": 2}]}\n\n",
            ),
        ),
        ("stackdriver", json(json!({"timeSeriesData": [{"pointData": []}, {"pointData": []}]}))),
        ("cloudwatch", text("<a><MetricDataResults><member/><member/></MetricDataResults></a>")),
        ("externalmetrics", json(json!({"items": [{"value": "1"}, {"value": "2"}]}))),
    ] {
        let reading = reading(provider, answer).await;
        assert!(matches!(reading, Reading::Inconclusive(_)), "{provider}: {reading:?}");
    }
}

#[tokio::test]
async fn errors_are_told_without_secrets() {
    for provider in PROVIDERS {
        for answer in [
            ResponseTemplate::new(500).set_body_string(format!("broken {SECRET}")),
            ResponseTemplate::new(403)
                .set_body_string(format!("<e><Code>No</Code><Message>broken {SECRET}</Message></e>")),
            ResponseTemplate::new(200).set_body_string("{"),
        ] {
            let reading = reading(provider, answer).await;
            let Reading::ProviderError(message) = &reading else {
                // An empty stream and an empty table are answers, though useless ones.
                assert!(matches!(provider, "splunk" | "influxdb"), "{provider}: {reading:?}");
                continue;
            };
            assert!(!message.contains(SECRET), "{provider}: {message}");
            assert!(message.contains("broken") || message.contains("reading"), "{provider}: {message}");
        }
    }
    let failed = ResponseTemplate::new(200)
        .set_body_string("event: error\ndata: {\"error\": 400, \"message\": \"bad program\"}\n\n");
    let failed = reading("splunk", failed).await;
    assert!(matches!(&failed, Reading::ProviderError(words) if words.contains("bad program")), "{failed:?}");
    let failed = ResponseTemplate::new(200).set_body_string("error,reference\nno such bucket,1\n");
    let failed = reading("influxdb", failed).await;
    assert!(matches!(&failed, Reading::ProviderError(words) if words.contains("no such bucket")), "{failed:?}");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let missing = async |provider: &str, edit: &dyn Fn(&mut MetricQuery)| {
        let mut query = query(provider, "http://127.0.0.1:1");
        edit(&mut query);
        match Metrics::new(Arc::new(StillClock::default())).query(query).await {
            Reading::ProviderError(message) => message,
            other => panic!("{other:?}"),
        }
    };
    for (provider, key) in [
        ("datadog", "datadog_application_key"),
        ("newrelic", "newrelic_query_key"),
        ("newrelic", "newrelic_account_id"),
        ("graphite", "password"),
        ("influxdb", "org"),
        ("dynatrace", "dynatrace_token"),
        ("splunk", "sf_token_key"),
        ("cloudwatch", "aws_secret_access_key"),
    ] {
        let message = missing(provider, &|query| drop(query.secret.remove(key))).await;
        assert_eq!(message, format!("the Secret has no key {key}"), "{provider}");
    }
    for provider in ["graphite", "influxdb", "dynatrace", "splunk", "prometheus"] {
        let message = missing(provider, &|query| query.address.clear()).await;
        assert!(message.contains("address"), "{provider}: {message}");
    }
    assert!(missing("cloudwatch", &|query| query.region = None).await.contains("region"));
    assert!(missing("cloudwatch", &|query| query.region = Some("a.evil/".into())).await.contains("region"));
    assert!(missing("cloudwatch", &|query| query.query = "SELECT".into()).await.contains("reading the query"));
    assert!(missing("graphite", &|query| query.query = "a.b".into()).await.contains("target="));
    assert!(missing("externalmetrics", &|query| query.query = "a/b/c".into()).await.contains("NAMESPACE/METRIC"));
    assert!(
        missing("newrelic", &|query| drop(query.secret.insert("newrelic_account_id".into(), "1/../2".into())))
            .await
            .contains("no number")
    );
    assert_eq!(missing("tea-leaves", &|_| {}).await, "provider type tea-leaves is not known");
}

/// The clock of these tests stands here, and a period of ten minutes ends there.
const NOW: &str = "1700000000";
const FROM: &str = "1699999400";

#[tokio::test]
async fn requests_are_as_documented() {
    for provider in PROVIDERS {
        let server = server().await;
        let get = || Mock::given(method("GET")).and(header("x-team", "shop"));
        let post = || Mock::given(method("POST")).and(header("x-team", "shop"));
        let mock = match provider {
            "datadog" => get()
                .and(path("/api/v1/query"))
                .and(query_param("query", "the query"))
                .and(query_param("from", FROM))
                .and(query_param("to", NOW))
                .and(header("dd-api-key", SECRET))
                .and(header("dd-application-key", SECRET)),
            "newrelic" => get()
                .and(path("/v1/accounts/51312/query"))
                .and(query_param("nrql", "the query SINCE 60 seconds ago"))
                .and(header("x-query-key", SECRET)),
            "graphite" => get()
                .and(path("/render"))
                .and(query_param("target", "sumSeries(a.*) "))
                .and(query_param("from", "-5min"))
                .and(query_param("format", "json"))
                .and(header("authorization", "Basic aHVudGVyMmh1bnRlcjI6aHVudGVyMmh1bnRlcjI=")),
            "influxdb" => post()
                .and(path("/api/v2/query"))
                .and(query_param("org", "acme"))
                .and(header("authorization", "Token hunter2hunter2"))
                .and(header("content-type", "application/vnd.flux"))
                .and(body_string("the query")),
            "dynatrace" => get()
                .and(path("/api/v2/metrics/query"))
                .and(query_param("metricSelector", "the query"))
                .and(query_param("resolution", "Inf"))
                .and(query_param("from", format!("{FROM}000")))
                .and(query_param("to", format!("{NOW}000")))
                .and(header("authorization", "Api-Token hunter2hunter2")),
            "splunk" => post()
                .and(path("/v2/signalflow/execute"))
                .and(query_param("start", format!("{FROM}000")))
                .and(query_param("stop", format!("{NOW}000")))
                .and(query_param("immediate", "true"))
                .and(header("x-sf-token", SECRET))
                .and(body_string("the query")),
            "stackdriver" => post()
                .and(path("/v3/projects/shop-1/timeSeries:query"))
                .and(header("authorization", "Bearer hunter2hunter2"))
                .and(body_string(r#"{"query":"the query"}"#)),
            "cloudwatch" => Mock::given(method("POST"))
                .and(path("/"))
                .and(body_string_contains("Action=GetMetricData&Version=2010-08-01&StartTime=2023-11-14T22%3A03%3A20Z"))
                .and(body_string_contains("&EndTime=2023-11-14T22%3A13%3A20Z&MaxDatapoints=20"))
                .and(body_string_contains("MetricDataQueries.member.1.MetricStat.Metric.Dimensions.member.1.Value=b+c"))
                .and(body_string_contains("MetricDataQueries.member.1.ReturnData=true"))
                .and(header("x-amz-date", "20231114T221320Z")),
            _ => get()
                .and(path("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue"))
                .and(query_param("labelSelector", "app=web"))
                .and(header("authorization", "Bearer hunter2hunter2")),
        };
        let value = if provider == "externalmetrics" { json!("2") } else { json!(2.0) };
        mock.respond_with(body(provider, &value)).mount(&server).await;
        assert_eq!(ask(&server, query(provider, &server.uri())).await, Reading::Value(2.0), "{provider}");
    }
}

/// What a probe sends besides its credentials, and a good answer.
fn probed(provider: &str) -> (wiremock::MockBuilder, ResponseTemplate) {
    let get = |at: &str| Mock::given(method("GET")).and(path(at)).and(header("x-team", "shop"));
    let ok = ResponseTemplate::new(200).set_body_json(json!({}));
    match provider {
        "prometheus" => (
            get("/api/v1/query").and(query_param("query", "vector(1)")).and(header("authorization", "Bearer hunter2hunter2")),
            ResponseTemplate::new(200).set_body_json(
                json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "1"]}]}}),
            ),
        ),
        "datadog" => (
            get("/api/v1/validate").and(header("dd-api-key", SECRET)),
            ResponseTemplate::new(200).set_body_json(json!({"valid": true})),
        ),
        "newrelic" => (
            get("/v1/accounts/51312/query")
                .and(query_param("nrql", "SELECT count(*) FROM Transaction SINCE 1 minute ago"))
                .and(header("x-query-key", SECRET)),
            ResponseTemplate::new(200).set_body_json(json!({"results": [{"count": 0}]})),
        ),
        "graphite" => (
            get("/render")
                .and(query_param("target", "test"))
                .and(query_param("from", "-1min"))
                .and(query_param("format", "json"))
                .and(header("authorization", "Basic aHVudGVyMmh1bnRlcjI6aHVudGVyMmh1bnRlcjI=")),
            ResponseTemplate::new(200).set_body_json(json!([])),
        ),
        "influxdb" => (
            Mock::given(method("POST"))
                .and(path("/api/v2/query"))
                .and(header("authorization", "Token hunter2hunter2"))
                .and(body_string("import \"array\" array.from(rows: [{_value: 1.0}])")),
            body("influxdb", &json!(1.0)),
        ),
        "dynatrace" => (
            get("/api/v2/metrics")
                .and(query_param("pageSize", "1"))
                .and(header("authorization", "Api-Token hunter2hunter2")),
            ok,
        ),
        "splunk" => (get("/v2/metric").and(query_param("limit", "1")).and(header("x-sf-token", SECRET)), ok),
        "stackdriver" => (
            Mock::given(method("POST"))
                .and(path("/v3/projects/shop-1/timeSeries:query"))
                .and(header("authorization", "Bearer hunter2hunter2"))
                .and(body_string(r#"{"query":""}"#)),
            ResponseTemplate::new(400).set_body_json(json!({"error": {"code": 400, "status": "INVALID_ARGUMENT"}})),
        ),
        "cloudwatch" => (
            Mock::given(method("POST"))
                .and(body_string_contains("Action=GetMetricData"))
                .and(body_string_contains("MetricDataQueries.member.1.MetricStat.Metric.Namespace=serin")),
            ResponseTemplate::new(200).set_body_string("<GetMetricDataResponse/>"),
        ),
        _ => (get("/apis/external.metrics.k8s.io/v1beta1").and(header("authorization", "Bearer hunter2hunter2")), ok),
    }
}

async fn probe(server: &MockServer, query: MetricQuery) -> Result<(), String> {
    metrics(server).probe(query).await
}

#[tokio::test]
async fn every_provider_is_probed_by_a_cheap_request_that_reads() {
    for provider in PROVIDERS.into_iter().chain(["prometheus"]) {
        let server = server().await;
        let (request, answer) = probed(provider);
        request.respond_with(answer).mount(&server).await;
        assert_eq!(probe(&server, query(provider, &server.uri())).await, Ok(()), "{provider}");
    }
}

#[tokio::test]
async fn a_probe_says_what_is_wrong_without_secrets() {
    for provider in PROVIDERS.into_iter().chain(["prometheus"]) {
        let server = server().await;
        let denied = ResponseTemplate::new(403).set_body_string(format!("no right for {SECRET}"));
        Mock::given(any()).respond_with(denied).mount(&server).await;
        let words = probe(&server, query(provider, &server.uri())).await.expect_err(provider);
        assert!(
            words.contains("403") && words.contains("no right for") && !words.contains(SECRET),
            "{provider}: {words}"
        );
        let mut nobody = query(provider, "http://127.0.0.1:9");
        nobody.secret.insert("project".to_owned(), SecretString::from("shop-1"));
        assert!(probe(&server, nobody).await.is_err(), "{provider} answers where nobody is");
    }
    // What is refused as an answer of 200.
    for (provider, answer) in [
        ("datadog", json!({"valid": false})),
        (
            "prometheus",
            json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "2"]}]}}),
        ),
    ] {
        let server = server().await;
        Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(answer)).mount(&server).await;
        assert!(probe(&server, query(provider, &server.uri())).await.is_err(), "{provider}");
    }
    let server = server().await;
    assert_eq!(probe(&server, query("tea-leaves", "")).await, Err("provider type tea-leaves is not known".to_owned()));
}

#[tokio::test]
async fn q33_the_newest_point_of_datadog_counts() {
    let points = json!({"series": [{"pointlist": [[1, 99.0], [2, 5.0], [3, null]]}]});
    let reading = reading("datadog", ResponseTemplate::new(200).set_body_json(points)).await;
    assert_eq!(reading, Reading::Value(5.0));
}

#[tokio::test]
async fn the_last_event_of_a_stream_may_lack_its_end() {
    let text = "event: data\r\ndata: {\"data\": [{\"tsId\": \"A\", \"value\": 3}]}";
    let reading = reading("splunk", ResponseTemplate::new(200).set_body_string(text)).await;
    assert_eq!(reading, Reading::Value(3.0));
}
