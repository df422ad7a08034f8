//! Forges at wire level: what GitHub and Gitea are sent, and what each of their answers means.

mod gitea;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use serin::domain::Sha;
use serin::forge::{GithubForge, LocalForge};
use serin::ports::{CommitState, CommitStatus, Forge as _, ForgeError};
use wiremock::matchers::{body_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::metrics::StillClock;

const TOKEN: &str = "ghp_s3cr3tt0ken";

fn status() -> CommitStatus {
    CommitStatus {
        sha: Sha("0123456789abcdef0123456789abcdef01234567".to_owned()),
        context: "serin/prod/shop/web".to_owned(),
        state: CommitState::Failure,
        description: "rolled back at weight 20".to_owned(),
        target_url: Some("https://example.com/status".to_owned()),
    }
}

fn forge(server: &MockServer, clock: StillClock) -> GithubForge {
    let api = format!("{}/api/v3/", server.uri());
    GithubForge::new(&api, "acme/apps", &SecretString::from(format!("{TOKEN}\n")), Arc::new(clock)).expect("a forge")
}

async fn post(response: ResponseTemplate) -> (Result<(), ForgeError>, usize) {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(response).mount(&server).await;
    let result = forge(&server, StillClock::default()).set_status(&status()).await;
    (result, server.received_requests().await.unwrap_or_default().len())
}

#[tokio::test]
async fn a_status_is_posted_as_github_wants_it() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/api/v3/repos/acme/apps/statuses/0123456789abcdef0123456789abcdef01234567"))
        .and(header("authorization", format!("Bearer {TOKEN}").as_str()))
        .and(body_json(json!({
            "state": "failure",
            "context": "serin/prod/shop/web",
            "description": "rolled back at weight 20",
            "target_url": "https://example.com/status",
        })))
        .respond_with(ResponseTemplate::new(201).set_body_json(json!({"id": 1})))
        .expect(1)
        .mount(&server)
        .await;
    forge(&server, StillClock::default()).set_status(&status()).await.expect("taken");
}

#[tokio::test]
async fn what_is_too_long_for_github_is_shortened() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(201)).mount(&server).await;
    let long = CommitStatus { context: "c".repeat(300), description: "ü".repeat(200), target_url: None, ..status() };
    forge(&server, StillClock::default()).set_status(&long).await.expect("taken");
    let requests = server.received_requests().await.expect("recorded");
    let body: serde_json::Value = requests.first().expect("a request").body_json().expect("JSON");
    let length = |key: &str| body[key].as_str().map(|text| text.chars().count());
    assert_eq!((length("context"), length("description")), (Some(255), Some(140)));
    assert!(body.get("target_url").is_none());
}

/// What an answer should be taken for.
#[derive(Debug)]
enum Want {
    Permanent,
    Denied,
    Later(Option<Duration>),
}

#[tokio::test]
async fn answers_are_told_apart_and_nothing_is_repeated() {
    let message = |code: u16, text: &str| ResponseTemplate::new(code).set_body_json(json!({"message": text}));
    let later = |seconds: u64| Want::Later(Some(Duration::from_secs(seconds)));
    for (response, want) in [
        (message(401, "Bad credentials"), Want::Denied),
        (message(404, "Not Found"), Want::Denied),
        (message(403, "Resource not accessible by personal access token"), Want::Denied),
        (message(400, "Problems parsing JSON"), Want::Permanent),
        (message(422, "Validation Failed"), Want::Permanent),
        (
            message(301, "Moved Permanently").insert_header("location", "https://api.github.com/repositories/1"),
            Want::Denied,
        ),
        (message(403, "slow down").insert_header("retry-after", "33"), later(33)),
        (
            message(403, "API rate limit exceeded")
                .insert_header("x-ratelimit-remaining", "0")
                .insert_header("x-ratelimit-reset", "1700000077"),
            later(77),
        ),
        (message(403, "You have exceeded a secondary rate limit. Please wait."), later(60)),
        (message(429, "Too many requests"), later(60)),
        (message(500, "Server Error"), Want::Later(None)),
        (ResponseTemplate::new(502).set_body_string("<html>unicorn</html>"), Want::Later(None)),
    ] {
        let (result, requests) = post(response).await;
        assert_eq!(requests, 1);
        match (result.expect_err("a failure"), want) {
            (ForgeError::Permanent(text), Want::Permanent) | (ForgeError::Denied(text), Want::Denied) => {
                assert!(text.starts_with("posting status serin/prod/shop/web on 0123456: "), "{text}");
            }
            (ForgeError::Later { retry_after, .. }, Want::Later(want)) => assert_eq!(retry_after, want),
            (error, want) => panic!("{error:?} instead of {want:?}"),
        }
    }
}

#[tokio::test]
async fn the_words_of_a_validation_are_passed_on() {
    let body = json!({
        "message": "Validation Failed",
        "errors": [{"resource": "Status", "code": "custom", "message": "This SHA and context has reached the maximum number of statuses."}],
    });
    let (result, _) = post(ResponseTemplate::new(422).set_body_json(body)).await;
    let text = result.expect_err("a failure").to_string();
    assert!(text.ends_with("422 Unprocessable Entity: Validation Failed: This SHA and context has reached the maximum number of statuses."), "{text}");
}

#[tokio::test]
async fn the_token_stays_out_of_errors() {
    let (result, _) = post(ResponseTemplate::new(400).set_body_string(format!("odd header Bearer {TOKEN}"))).await;
    let error = result.expect_err("a failure");
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
    let clock = || Arc::new(StillClock::default());
    for (api, repository, token) in [
        ("http://h", "acme/apps", "two words and s3cr3t"),
        ("http://h", "acme", TOKEN),
        ("http://h", "acme/../apps", TOKEN),
        ("::", "acme/apps", TOKEN),
        ("http://h", "acme/apps", ""),
    ] {
        let Err(error) = GithubForge::new(api, repository, &SecretString::from(token), clock()) else {
            panic!("{api} {repository} cannot be used")
        };
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
}

#[tokio::test]
async fn a_forge_that_cannot_be_reached_or_is_silent_is_tried_later() {
    let unused = Arc::new(StillClock::default());
    let token = SecretString::from(TOKEN);
    let gone = GithubForge::new("http://127.0.0.1:1", "acme/apps", &token, unused).expect("a forge");
    assert!(matches!(gone.set_status(&status()).await, Err(ForgeError::Later { retry_after: None, .. })));

    let server = MockServer::start().await;
    let slow = ResponseTemplate::new(201).set_delay(Duration::from_secs(600));
    Mock::given(method("POST")).respond_with(slow).mount(&server).await;
    let error = forge(&server, StillClock::jumping()).set_status(&status()).await.expect_err("no answer");
    assert!(
        matches!(&error, ForgeError::Later { message, .. } if message.ends_with("no answer within 15s")),
        "{error}"
    );
}

#[tokio::test]
async fn the_local_forge_keeps_everything_in_order() {
    let forge = LocalForge::default();
    let second = CommitStatus { state: CommitState::Success, ..status() };
    forge.set_status(&status()).await.expect("taken");
    forge.set_status(&second).await.expect("taken");
    assert_eq!(forge.posted(), [status(), second]);
}
