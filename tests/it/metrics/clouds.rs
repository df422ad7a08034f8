//! How a cloud lets us in: Google's service accounts, and the places where AWS keeps credentials.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use secrecy::SecretString;
use serde_json::{Value, json};
use serin::metrics::Metrics;
use serin::ports::{MetricQuery, MetricSource as _, Reading};
use wiremock::matchers::{body_string_contains, header, header_exists, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::StillClock;
use super::providers::query;

/// A key that guards nothing: made for these tests.
const KEY: &str = include_str!("../../fixtures/rsa-for-tests.pem");

fn metrics(environment: &[(&str, &str)]) -> Metrics {
    let environment: HashMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let look = move |name: &str| environment.get(name).cloned();
    Metrics::new(Arc::new(StillClock::default())).with_environment(Arc::new(look))
}

async fn ask(query: MetricQuery, environment: &[(&str, &str)]) -> Reading {
    metrics(environment).query(query).await
}

#[tokio::test]
async fn a_service_account_signs_for_its_token() {
    let server = MockServer::start().await;
    Mock::given(path("/token"))
        .and(body_string_contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"access_token": "fresh-token"})))
        .mount(&server)
        .await;
    Mock::given(path("/v3/projects/of-the-key/timeSeries:query"))
        .and(header("authorization", "Bearer fresh-token"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(json!({"timeSeriesData": [{"pointData": [{"values": [{"doubleValue": 4.5}]}]}]})),
        )
        .mount(&server)
        .await;
    let key = json!({
        "type": "service_account",
        "project_id": "of-the-key",
        "private_key_id": "k1",
        "private_key": KEY,
        "client_email": "serin@of-the-key.iam.gserviceaccount.com",
        "token_uri": format!("{}/token", server.uri()),
    });
    let mut query = query("stackdriver", &server.uri());
    query.secret.remove("project");
    query.secret.insert("serviceAccountKey".to_owned(), SecretString::from(key.to_string()));
    assert_eq!(ask(query, &[]).await, Reading::Value(4.5));

    let requests = server.received_requests().await.expect("requests");
    let form = String::from_utf8(requests[0].body.clone()).expect("a form");
    let assertion = form.split("assertion=").nth(1).expect("an assertion");
    let (text, signature) = assertion.rsplit_once('.').expect("a signature");
    let body: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(body).expect("base64")).expect("a key");
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref().to_vec());
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    public.verify(text.as_bytes(), &signature).expect("a signature by the key");
    let claims = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!(claims["iss"], "serin@of-the-key.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/monitoring.read");
    assert_eq!(claims["exp"].as_i64().expect("a time") - claims["iat"].as_i64().expect("a time"), 300);
}

#[tokio::test]
async fn a_key_that_is_none_is_not_repeated() {
    for key in
        ["not JSON: hunter2", r#"{"private_key": "hunter2", "client_email": "a", "token_uri": "http://127.0.0.1:1"}"#]
    {
        let mut query = query("stackdriver", "http://127.0.0.1:1");
        query.secret.insert("serviceAccountKey".to_owned(), SecretString::from(key));
        let Reading::ProviderError(message) = ask(query, &[]).await else { panic!("an error") };
        assert!(message.contains("service account") && !message.contains("hunter2"), "{message}");
    }
}

/// A server that answers CloudWatch's question when it is signed with this key and token.
async fn cloudwatch(id: &str, token: &str) -> MockServer {
    let server = MockServer::start().await;
    let mock = Mock::given(method("POST"))
        .and(path("/"))
        .and(header("x-amz-security-token", token))
        .and(header_exists("x-amz-date"))
        .and(Signed(format!("Credential={id}/20231114/eu-west-1/monitoring/aws4_request")));
    let answer =
        "<r><MetricDataResults><member><Values><member>1.25</member></Values></member></MetricDataResults></r>";
    mock.respond_with(ResponseTemplate::new(200).set_body_string(answer)).mount(&server).await;
    server
}

struct Signed(String);

impl wiremock::Match for Signed {
    fn matches(&self, request: &wiremock::Request) -> bool {
        let value = request.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.contains(&self.0) && value.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,")
    }
}

/// Asks CloudWatch at the operator's address, as this machine.
async fn ask_as_machine(server: &MockServer, environment: &[(&str, &str)]) -> Reading {
    let uri = server.uri();
    ask(without_keys(""), &[environment, &[("AWS_ENDPOINT_URL_CLOUDWATCH", &uri)]].concat()).await
}

fn without_keys(address: &str) -> MetricQuery {
    let mut query = query("cloudwatch", address);
    query.secret.clear();
    query
}

#[tokio::test]
async fn credentials_of_the_machine_go_nowhere_that_a_template_names() {
    let (machine, stranger) = (MockServer::start().await, MockServer::start().await);
    Mock::given(path("/computeMetadata/v1/instance/service-accounts/default/token"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"access_token": "of-the-machine"})))
        .mount(&machine)
        .await;
    let metadata = machine.address().to_string();
    let google = [("GCE_METADATA_HOST", metadata.as_str())];
    let aws = [("AWS_ACCESS_KEY_ID", "ID1"), ("AWS_SECRET_ACCESS_KEY", "S"), ("AWS_SESSION_TOKEN", "T1")];
    for (metrics, provider) in [(metrics(&google), "stackdriver"), (metrics(&aws), "cloudwatch")] {
        let mut query = query(provider, &stranger.uri());
        query.secret.retain(|key, _| key == "project");
        let reading = metrics.query(query.clone()).await;
        assert!(
            matches!(&reading, Reading::ProviderError(words) if words.contains("own credentials")),
            "{provider}: {reading:?}"
        );
        let probed = metrics.probe(query).await;
        assert!(probed.as_ref().is_err_and(|words| words.contains("own credentials")), "{provider}: {probed:?}");
    }
    assert_eq!(stranger.received_requests().await.expect("requests").len(), 0);
    assert_eq!(machine.received_requests().await.expect("requests").len(), 0, "a token was made for nothing");
}

#[tokio::test]
async fn a_token_of_the_machine_is_for_the_host_that_it_is_sent_to() {
    let server = MockServer::start().await;
    Mock::given(path("/computeMetadata/v1/instance/service-accounts/default/token"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"access_token": "of-the-machine"})))
        .mount(&server)
        .await;
    Mock::given(path("/v3/projects/shop-1/timeSeries:query"))
        .and(header("host", server.address().to_string().as_str()))
        .and(header("x-team", "shop"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({})))
        .mount(&server)
        .await;
    let (metadata, site) = (server.address().to_string(), format!("{}/", server.uri()));
    let environment = [("GCE_METADATA_HOST", metadata.as_str()), ("CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING", &site)];
    // A front end that serves many hosts would hand it to another one.
    for address in ["", &server.uri()] {
        let mut query = query("stackdriver", address);
        query.headers.insert("Host".to_owned(), vec!["elsewhere.example".to_owned()]);
        let reading = ask(query, &environment).await;
        assert!(matches!(reading, Reading::NoData(_)), "{reading:?}");
    }
}

#[tokio::test]
async fn aws_keys_come_from_variables() {
    let server = cloudwatch("ID1", "T1").await;
    let environment = [("AWS_ACCESS_KEY_ID", "ID1"), ("AWS_SECRET_ACCESS_KEY", "S"), ("AWS_SESSION_TOKEN", "T1")];
    assert_eq!(ask_as_machine(&server, &environment).await, Reading::Value(1.25));
}

#[tokio::test]
async fn aws_keys_come_from_a_web_identity() {
    let server = cloudwatch("ID2", "T2").await;
    let answer = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><R><Credentials>\
                  <AccessKeyId>ID2</AccessKeyId><SecretAccessKey>S</SecretAccessKey><SessionToken>T2</SessionToken>\
                  </Credentials></R></AssumeRoleWithWebIdentityResponse>";
    Mock::given(path("/sts"))
        .and(body_string_contains("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam"))
        .and(body_string_contains("WebIdentityToken=the-identity"))
        .respond_with(ResponseTemplate::new(200).set_body_string(answer))
        .mount(&server)
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "the-identity\n").expect("a file");
    let sts = format!("{}/sts", server.uri());
    let environment = [
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/serin"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().expect("a path")),
        ("AWS_ENDPOINT_URL_STS", &sts),
    ];
    assert_eq!(ask_as_machine(&server, &environment).await, Reading::Value(1.25));
}

#[tokio::test]
async fn aws_keys_come_from_the_pod_and_the_instance() {
    let keys = |id: &str, token: &str| {
        let answer = json!({"AccessKeyId": id, "SecretAccessKey": "S", "Token": token});
        ResponseTemplate::new(200).set_body_json(answer)
    };
    let server = cloudwatch("ID3", "T3").await;
    Mock::given(path("/pod"))
        .and(header("authorization", "pod-token"))
        .respond_with(keys("ID3", "T3"))
        .mount(&server)
        .await;
    let pod = format!("{}/pod", server.uri());
    let environment =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", pod.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-token")];
    assert_eq!(ask_as_machine(&server, &environment).await, Reading::Value(1.25));

    let server = cloudwatch("ID4", "T4").await;
    let text = |text: &str| ResponseTemplate::new(200).set_body_string(text);
    Mock::given(method("PUT")).and(path("/latest/api/token")).respond_with(text("imds")).mount(&server).await;
    let roles = "/latest/meta-data/iam/security-credentials/";
    let known = || Mock::given(method("GET")).and(header("x-aws-ec2-metadata-token", "imds"));
    known().and(path(roles)).respond_with(text("node-role")).mount(&server).await;
    known().and(path(format!("{roles}node-role"))).respond_with(keys("ID4", "T4")).mount(&server).await;
    let uri = server.uri();
    let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", uri.as_str())];
    assert_eq!(ask_as_machine(&server, &environment).await, Reading::Value(1.25));

    let none = ask(without_keys(""), &[("AWS_EC2_METADATA_DISABLED", "true")]).await;
    assert!(
        matches!(&none, Reading::ProviderError(words) if words.starts_with("there are no AWS credentials")),
        "{none:?}"
    );
}
