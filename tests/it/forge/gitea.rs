//! Gitea and Forgejo. The answers are those of Gitea 1.26.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use serin::forge::GiteaForge;
use serin::ports::{CommitState, CommitStatus, Forge as _, ForgeError};
use wiremock::matchers::{body_json, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{TOKEN, Want, status};
use crate::metrics::StillClock;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn forge(server: &MockServer, clock: StillClock) -> GiteaForge {
    let api = format!("{}/git/api/v1/", server.uri());
    GiteaForge::new(&api, "acme/apps", &SecretString::from(format!("{TOKEN}\n")), Arc::new(clock)).expect("a forge")
}

fn listed(id: usize, state: &str, context: &str) -> Value {
    json!({"id": id, "status": state, "context": context, "description": "d", "target_url": "", "url": "http://h/s"})
}

#[tokio::test]
async fn a_status_is_posted_as_gitea_wants_it() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path(format!("/git/api/v1/repos/acme/apps/statuses/{SHA}")))
        .and(header("authorization", format!("token {TOKEN}").as_str()))
        .and(body_json(json!({
            "state": "failure",
            "context": "serin/prod/shop/web",
            "description": "rolled back at weight 20",
            "target_url": "https://example.com/status",
        })))
        .respond_with(ResponseTemplate::new(201).set_body_json(listed(1, "failure", "serin/prod/shop/web")))
        .expect(1)
        .mount(&server)
        .await;
    forge(&server, StillClock::default()).set_status(&status()).await.expect("taken");
}

#[tokio::test]
async fn what_is_in_force_is_read_with_its_own_words() {
    let server = MockServer::start().await;
    let mut ours = listed(9, "failure", "serin/prod/shop/web");
    ours["description"] = json!("rolled back at weight 20");
    ours["target_url"] = json!("https://example.com/status");
    let found = json!({"state": "failure", "total_count": 3, "statuses": [
        ours, listed(8, "pending", "serin/prod"), listed(7, "warning", "ci/lint")]});
    Mock::given(method("GET"))
        .and(path(format!("/git/api/v1/repos/acme/apps/commits/{SHA}/status")))
        .and(header("authorization", format!("token {TOKEN}").as_str()))
        .respond_with(ResponseTemplate::new(200).set_body_json(found))
        .expect(1)
        .mount(&server)
        .await;
    let found = forge(&server, StillClock::default()).statuses(&status().sha).await.expect("read");
    let other = CommitStatus {
        context: "serin/prod".to_owned(),
        state: CommitState::Pending,
        description: "d".to_owned(),
        target_url: None,
        ..status()
    };
    assert_eq!(found, [other, status()], "a warning is nobody's of ours");
}

#[tokio::test]
async fn commits_with_many_contexts_are_read_page_by_page() {
    let server = MockServer::start().await;
    let page = |number: usize, count: usize| {
        let statuses: Vec<Value> = (0..count).map(|i| listed(i, "success", &format!("c/{number}/{i}"))).collect();
        Mock::given(method("GET"))
            .and(query_param("page", number.to_string()))
            .respond_with(ResponseTemplate::new(200).set_body_json(json!({"statuses": statuses})))
            .expect(1)
            .mount(&server)
    };
    // A server that is configured to give thirty at most.
    page(1, 30).await;
    page(2, 30).await;
    page(3, 4).await;
    let found = forge(&server, StillClock::default()).statuses(&status().sha).await.expect("read");
    assert_eq!(found.len(), 64);
}

#[tokio::test]
async fn a_commit_without_statuses_has_none() {
    for body in ["", "\n", r#"{"state":"","statuses":null,"total_count":0}"#, r#"{"statuses":[]}"#] {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(200).set_body_string(body);
        Mock::given(method("GET")).respond_with(answer).mount(&server).await;
        let found = forge(&server, StillClock::default()).statuses(&status().sha).await.expect(body);
        assert_eq!(found, [], "{body}");
    }
    let server = MockServer::start().await;
    let page = ResponseTemplate::new(200).set_body_string("<html>sign in</html>");
    Mock::given(method("GET")).respond_with(page).mount(&server).await;
    let error = forge(&server, StillClock::default()).statuses(&status().sha).await.expect_err("a web page");
    assert!(matches!(error, ForgeError::Later { retry_after: None, .. }), "{error}");
}

#[tokio::test]
async fn answers_are_told_apart_and_nothing_is_repeated() {
    let message = |code: u16, text: &str| {
        ResponseTemplate::new(code).set_body_json(json!({"message": text, "url": "http://h/api/swagger"}))
    };
    for (response, want) in [
        (message(401, "invalid username, password or token"), Want::Denied),
        (message(403, "token does not have at least one of required scope(s): [write:repository]"), Want::Denied),
        (message(404, "The target couldn't be found."), Want::Denied),
        (message(422, "context cannot be empty"), Want::Permanent),
        (message(307, "").insert_header("location", "/api/v1/repos/acme/renamed"), Want::Denied),
        (message(429, "slow down").insert_header("retry-after", "7"), Want::Later(Some(Duration::from_secs(7)))),
        (message(500, ""), Want::Later(None)),
        (ResponseTemplate::new(502).set_body_string("bad gateway"), Want::Later(None)),
    ] {
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(response).expect(1).mount(&server).await;
        let error = forge(&server, StillClock::default()).set_status(&status()).await.expect_err("a failure");
        match (&error, want) {
            (ForgeError::Permanent(text), Want::Permanent) | (ForgeError::Denied(text), Want::Denied) => {
                assert!(text.starts_with("posting status serin/prod/shop/web on 0123456: "), "{text}");
            }
            (ForgeError::Later { retry_after, .. }, Want::Later(want)) => assert_eq!(*retry_after, want),
            (error, want) => panic!("{error:?} instead of {want:?}"),
        }
    }
}

#[tokio::test]
async fn the_words_of_a_refusal_are_passed_on() {
    let gone = "object does not exist [id: 0123456789abcdef0123456789abcdef01234567, rel_path: ]";
    for (errors, want) in [
        (json!([gone]), format!("reading the statuses of 0123456: 404 Not Found: not found: {gone}")),
        (Value::Null, "reading the statuses of 0123456: 404 Not Found: not found".to_owned()),
    ] {
        let body = json!({"errors": errors, "message": "not found", "url": "http://h/api/swagger"});
        let server = MockServer::start().await;
        Mock::given(method("GET")).respond_with(ResponseTemplate::new(404).set_body_json(body)).mount(&server).await;
        let error = forge(&server, StillClock::default()).statuses(&status().sha).await.expect_err("a failure");
        assert!(matches!(&error, ForgeError::Denied(text) if *text == want), "{error}");
    }
}

#[tokio::test]
async fn the_token_stays_out_of_errors_and_links() {
    let server = MockServer::start().await;
    let odd = ResponseTemplate::new(400).set_body_string(format!("odd header token {TOKEN}"));
    Mock::given(method("POST")).respond_with(odd).mount(&server).await;
    let error = forge(&server, StillClock::default()).set_status(&status()).await.expect_err("a failure");
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
    for (api, repository, token) in [
        ("http://h", "acme/apps", "two words and s3cr3t"),
        ("http://h", "acme", TOKEN),
        ("ftp://u:s3cr3t@h", "acme/apps", TOKEN),
        ("h/api/v1", "acme/apps", TOKEN),
    ] {
        let made = GiteaForge::new(api, repository, &SecretString::from(token), Arc::new(StillClock::default()));
        let Err(error) = made else { panic!("{api} {repository} cannot be used") };
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
    let token = SecretString::from(TOKEN);
    let with_user = GiteaForge::new("https://u:s3cr3t@h/git/", "acme/apps", &token, Arc::new(StillClock::default()));
    let link = with_user.expect("a forge").file_link("serin/status/prod", "shop/web.yaml");
    assert_eq!(link.as_deref(), Some("https://h/git/acme/apps/src/branch/serin/status/prod/shop/web.yaml"));
}

#[tokio::test]
async fn an_instance_that_cannot_be_reached_or_is_silent_is_tried_later() {
    let token = SecretString::from(TOKEN);
    let gone = GiteaForge::new("http://127.0.0.1:1", "acme/apps", &token, Arc::new(StillClock::default()));
    let gone = gone.expect("a forge");
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
