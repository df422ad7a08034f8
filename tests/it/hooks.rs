//! The webhook caller at wire level: attempts, pauses and what every kind of answer means.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use serin::hooks::HttpHooks;
use serin::ports::{HookCall, HookReply, HookRunner as _};
use wiremock::matchers::{any, body_json, header, header_exists, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::metrics::StillClock;

fn call(url: &str, retries: u32) -> HookCall {
    HookCall {
        url: url.to_owned(),
        body: json!({"name": "podinfo", "namespace": "test", "phase": "Progressing", "checksum": "1"}),
        timeout: Duration::from_secs(10),
        retries,
        disable_tls: false,
    }
}

/// Answers of a receiver, one after another; the last one for ever.
async fn receiver(answers: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    let last = answers.len();
    for (index, answer) in answers.into_iter().enumerate() {
        let mock = Mock::given(any()).respond_with(answer);
        if index + 1 < last { mock.up_to_n_times(1).mount(&server).await } else { mock.mount(&server).await }
    }
    server
}

fn status(code: u16) -> ResponseTemplate {
    ResponseTemplate::new(code)
}

async fn reply(answers: Vec<ResponseTemplate>, retries: u32) -> (HookReply, Vec<u64>, usize) {
    let server = receiver(answers).await;
    let clock = Arc::new(StillClock::default());
    let reply = HttpHooks::new(clock.clone()).call(call(&server.uri(), retries)).await;
    let requests = server.received_requests().await.unwrap_or_default().len();
    assert_eq!(StillClock::in_flight(&clock), 0);
    let text = server.uri();
    let hide = |words: String| words.replace(&text, "URL");
    let reply = match reply {
        HookReply::Unreachable(words) => HookReply::Unreachable(hide(words)),
        other => other,
    };
    (reply, clock.waits(), requests)
}

fn refused(words: &str) -> HookReply {
    HookReply::Refused(words.to_owned())
}

fn unreachable(words: &str) -> HookReply {
    HookReply::Unreachable(words.to_owned())
}

/// Flagger takes only 200 to 202, and loses the words of a 5xx.
#[tokio::test]
async fn q30_every_2xx_passes_and_the_words_of_a_5xx_are_kept() {
    for code in [200, 201, 202, 203, 204, 206] {
        assert_eq!(reply(vec![status(code)], 0).await, (HookReply::Passed, vec![], 1), "{code}");
    }
    let (got, waits, requests) = reply(vec![status(500).set_body_string("database is down\n")], 0).await;
    let want = "POST URL/ giving up after 1 attempt(s): 500 Internal Server Error database is down";
    assert_eq!((got, waits, requests), (unreachable(want), vec![], 1));
}

#[tokio::test]
async fn a_4xx_is_a_no_with_the_receivers_words_and_without_retries() {
    for (answer, want) in [
        (status(400).set_body_string(" not on a Friday\n"), refused("not on a Friday")),
        (status(403), refused("403 Forbidden")),
        (status(404).set_body_string("no such gate"), refused("no such gate")),
    ] {
        assert_eq!(reply(vec![answer], 5).await, (want, vec![], 1));
    }
}

#[tokio::test]
async fn what_may_pass_is_retried_with_growing_pauses() {
    let bad = || status(502);
    assert_eq!(reply(vec![bad(), status(429), status(200)], 3).await, (HookReply::Passed, vec![1, 2], 3));
    let (got, waits, requests) = reply(vec![bad()], 6).await;
    assert_eq!((waits, requests), (vec![1, 2, 4, 8, 16, 30], 7));
    assert_eq!(got, unreachable("POST URL/ giving up after 7 attempt(s): 502 Bad Gateway"));
    // A no among the answers ends the retries.
    assert_eq!(reply(vec![bad(), status(403)], 3).await, (refused("403 Forbidden"), vec![1], 2));
}

#[tokio::test]
async fn what_will_not_pass_is_not_retried() {
    let (got, waits, requests) = reply(vec![status(501)], 5).await;
    assert_eq!((got, waits, requests), (unreachable("POST URL/: 501 Not Implemented"), vec![], 1));
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_thirty_seconds() {
    let busy = |value: &str| status(503).insert_header("retry-after", value);
    assert_eq!(reply(vec![busy("7"), busy("600"), status(200)], 2).await.1, [7, 30]);
    // Only 429 and 503 say it.
    let other = status(500).insert_header("retry-after", "7");
    assert_eq!(reply(vec![other, status(200)], 1).await.1, [1]);
}

/// A redirect would send the payload, and perhaps credentials, where the user did not send them.
#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = receiver(vec![status(200)]).await;
    let moved = status(307).insert_header("location", elsewhere.uri().as_str());
    let (got, _, _) = reply(vec![moved], 0).await;
    assert_eq!(got, unreachable("POST URL/: 307 Temporary Redirect"));
    assert!(elsewhere.received_requests().await.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn the_call_is_a_json_post_with_the_urls_credentials_as_basic_auth() {
    let server = MockServer::start().await;
    let call = call(&format!("{}/gate?x=1", server.uri().replace("http://", "http://user:p%40ss@")), 0);
    Mock::given(method("POST"))
        .and(path("/gate"))
        .and(header("content-type", "application/json"))
        .and(header("authorization", "Basic dXNlcjpwQHNz"))
        .and(header_exists("user-agent"))
        .and(body_json(&call.body))
        .respond_with(status(200))
        .expect(1)
        .mount(&server)
        .await;
    assert_eq!(HttpHooks::new(Arc::new(StillClock::default())).call(call).await, HookReply::Passed);
}

#[tokio::test]
async fn credentials_stay_out_of_replies() {
    let server =
        receiver(vec![status(400).set_body_string("user hook, password p@ssw0rd or p%40ssw0rd is wrong")]).await;
    let hooks = HttpHooks::new(Arc::new(StillClock::default()));
    for base in [server.uri(), "http://127.0.0.1:1".to_owned(), "ftp://host".to_owned(), "http://[bad".to_owned()] {
        let url = base.replacen("://", "://hook:p%40ssw0rd@", 1);
        let text = match hooks.call(call(&url, 0)).await {
            HookReply::Refused(text) | HookReply::Unreachable(text) => text,
            HookReply::Passed => panic!("{url} cannot pass"),
        };
        assert!(!text.contains("ssw0rd"), "{text}");
    }
}

#[tokio::test]
async fn long_answers_are_cut() {
    let (got, _, _) = reply(vec![status(400).set_body_string("x".repeat(1 << 20))], 0).await;
    assert!(matches!(&got, HookReply::Refused(text) if text.chars().count() == 500 && text.ends_with('…')));
}

#[tokio::test]
async fn a_silent_receiver_is_given_up_at_each_attempt() {
    let server = receiver(vec![status(200).set_delay(Duration::from_secs(600))]).await;
    let clock = Arc::new(StillClock::jumping());
    let reply = HttpHooks::new(clock.clone()).call(call(&server.uri(), 1)).await;
    assert!(matches!(&reply, HookReply::Unreachable(text) if text.ends_with("2 attempt(s): no answer within 10s")));
    assert_eq!(clock.waits(), [10, 1, 10]);
}
