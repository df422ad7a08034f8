//! Alerts at wire level: what each kind of channel is sent. The payloads of whole runs are compared with recorded ones in
//! `tests/conformance`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::{Value, json};
use serin::alerts::HttpAlerts;
use serin::controller::{Channel, Ports};
use serin::ports::{AlertCall, AlertMessage, AlertSender, Clock as _};
use serin::sim::BedOptions;
use serin::sim::bed::Adjust;
use wiremock::matchers::{any, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::loops::{GOOD, image, play, release, start, until, web, world};
use crate::metrics::StillClock;

fn call(type_: &str, address: &str) -> AlertCall {
    AlertCall {
        type_: type_.to_owned(),
        address: SecretString::from(address),
        token: None,
        username: "bot".to_owned(),
        channel: "canaries".to_owned(),
        proxy: None,
        message: AlertMessage {
            about: "podinfo.test".to_owned(),
            text: "50% < 99% & <!channel>".to_owned(),
            is_error: true,
            fields: vec![("Target".to_owned(), "Deployment/podinfo.test".to_owned())],
        },
        timeout: Duration::from_secs(5),
    }
}

async fn send(call: AlertCall) -> Result<(), String> {
    HttpAlerts::new(Arc::new(StillClock::default())).send(call).await
}

/// The body and the path of what a channel is sent.
async fn sent(edit: impl FnOnce(AlertCall) -> AlertCall, type_: &str) -> (Value, String) {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    send(edit(call(type_, &format!("{}/hook", server.uri())))).await.expect("sent");
    let request = server.received_requests().await.expect("requests").remove(0);
    (serde_json::from_slice(&request.body).expect("JSON"), request.url.path().to_owned())
}

#[tokio::test]
async fn each_channel_speaks_its_own_language() {
    let plain = "50% < 99% & <!channel>";
    let escaped = "50% &lt; 99% &amp; &lt;!channel&gt;";
    let (slack, to) = sent(|call| call, "slack").await;
    assert_eq!(to, "/hook");
    assert_eq!(
        slack,
        json!({"channel": "canaries", "username": "bot", "icon_url": "", "icon_emoji": ":rocket:", "attachments": [{
            "color": "danger", "author_name": "podinfo.test", "text": escaped, "mrkdwn_in": ["text"],
            "fields": [{"title": "Target", "value": "Deployment/podinfo.test", "short": false}]}]})
    );
    let (discord, to) = sent(|call| call, "discord").await;
    assert_eq!((discord["attachments"][0]["text"].as_str(), to.as_str()), (Some(plain), "/hook/slack"));
    let (rocket, _) = sent(|call| call, "rocket").await;
    assert_eq!(rocket["attachments"][0]["color"], "#FF0000");
    let (teams, _) = sent(|call| call, "msteams").await;
    assert_eq!((&teams["themeColor"], &teams["sections"][0]["activityTitle"]), (&json!("FF0000"), &json!(plain)));
    let (chat, _) = sent(|call| call, "gchat").await;
    let text = chat.pointer("/cards/0/sections/0/widgets/0/textParagraph/text").and_then(Value::as_str);
    assert_eq!(text, Some(format!("<font color=#848484><strong>{escaped}</strong></font>").as_str()));
    assert_eq!(chat["cards"][0]["sections"].as_array().map(Vec::len), Some(2));
    let (news, _) = sent(
        |mut call| {
            call.message.is_error = false;
            call.channel.clear();
            call.username.clear();
            call
        },
        "slack",
    )
    .await;
    assert_eq!(
        (&news["attachments"][0]["color"], &news["channel"], &news["username"]),
        (&json!("good"), &json!("general"), &json!("flagger"))
    );
}

#[tokio::test]
async fn a_token_goes_to_slack_only() {
    let server = MockServer::start().await;
    Mock::given(header("authorization", "Bearer xoxb-1")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let with_token =
        |type_: &str| AlertCall { token: Some(SecretString::from("xoxb-1\n")), ..call(type_, &server.uri()) };
    assert_eq!(send(with_token("slack")).await, Ok(()));
    assert!(send(with_token("rocket")).await.is_err(), "a token was sent");
}

#[tokio::test]
async fn a_proxy_is_asked() {
    let proxy = MockServer::start().await;
    Mock::given(path("/services/x")).respond_with(ResponseTemplate::new(200)).mount(&proxy).await;
    let call = AlertCall { proxy: Some(proxy.uri()), ..call("slack", "http://hooks.example.invalid/services/x") };
    assert_eq!(send(call).await, Ok(()));
}

#[tokio::test]
async fn what_goes_wrong_is_told_without_the_address() {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(404).set_body_string("no_service at services/T0/hunter2hunter2");
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let error = send(call("slack", &format!("{}/services/T0/hunter2hunter2", server.uri()))).await.expect_err("404");
    assert_eq!(error, "404 Not Found no_service at ***");
    for (type_, address, want) in [
        ("pager", "http://127.0.0.1:1/hunter2", "type `pager` is not known"),
        ("slack", "hunter2", "reading the address: relative URL without a base"),
        ("slack", "file:///hunter2", "reading the address: file is neither http nor https"),
        ("slack", "http://127.0.0.1:1/hunter2", "error"),
    ] {
        let error = send(call(type_, address)).await.expect_err(want);
        assert!(error.contains(want) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_silent_channel_is_given_up() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(60))).mount(&server).await;
    let clock = Arc::new(StillClock::jumping());
    assert_eq!(HttpAlerts::new(clock).send(call("slack", &server.uri())).await, Err("no answer within 5s".to_owned()));
}

/// Takes every alert and never comes back.
#[derive(Default)]
struct BlackHole(AtomicUsize);

#[async_trait]
impl AlertSender for BlackHole {
    async fn send(&self, _: AlertCall) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    }
}

#[test]
fn q11_a_channel_that_never_answers_disturbs_no_run() {
    play(async |clock| {
        let channel = Channel {
            type_: "slack".to_owned(),
            address: SecretString::from("http://127.0.0.1:1"),
            token: None,
            proxy: None,
            username: String::new(),
            channel: String::new(),
        };
        let adjust = Adjust(Arc::new(move |settings| settings.outgoing.channel = Some(channel.clone())));
        let bed = world(clock, BedOptions { adjust: Some(adjust), ..BedOptions::default() }).await;
        start(&bed);
        let hole = Arc::new(BlackHole::default());
        let ports = Ports { alerts: hole.clone(), ..bed.ports() };
        let _daemon = bed.daemon_with(ports, bed.git().expect("a repository"), bed.forge.clone());
        until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
        release(&bed, "1.1.0", GOOD);
        until(&bed, "promoted", |bed| image(bed, "web-primary") == "1.1.0").await;
        until(&bed, "succeeded", |bed| bed.phase(&web()) == "Succeeded").await;
        // Each waits for the one before, which hangs and is given up after half a minute.
        let tried = hole.0.load(Ordering::Relaxed);
        assert!((2..5).contains(&tried), "{tried} were tried");
    });
}

/// Nobody looks into the log of a controller for a message that did not come.
#[test]
fn an_alert_that_cannot_be_sent_is_told_once_on_the_canary() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        start(&bed);
        let canary = "clusters/demo/shop/canary.yaml";
        let text = serin::sim::example::FILES.iter().find(|(path, _)| *path == canary).unwrap().1;
        let alerts = "    alerts: [{name: on-call, severity: info, providerRef: {name: pager}}]\n";
        let text = format!("{}\n{alerts}", text.trim_end());
        bed.remote.commit("main", "Tell somebody", &[(canary, Some(text.as_str()))], bed.clock.now()).unwrap();
        bed.daemon().unwrap();
        until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
        release(&bed, "1.1.0", GOOD);
        until(&bed, "promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        let events = bed.sandbox.store.list(&serin::domain::Gvk::new("v1", "Event"), Some("shop"));
        let told: Vec<_> = events
            .iter()
            .filter(|event| {
                event.str("/message") == "Alert on-call not sent: alertprovider.flagger.app \"pager\" not found"
            })
            .map(|event| (event.str("/type").to_owned(), event.int("/count").unwrap_or(1)))
            .collect();
        assert_eq!(told, [("Warning".to_owned(), 1)]);
    });
}
