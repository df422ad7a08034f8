//! The wire shape of the cluster adapter, against a scripted server inside the process.
#![expect(clippy::unwrap_used, clippy::disallowed_types, reason = "a test, and the client is what it tests")]

mod sandboxed;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::stream::pending;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use serin::api::CanaryView;
use serin::cluster::lease::{self, LeaseOptions};
use serin::cluster::{Options, connect};
use serin::domain::{FieldManager, Gvk, Object, ObjectKey, Weights};
use serin::ports::{Change, Clock, Cluster, ClusterError, EventType, KubeEvent};
use serin::rollout::objects::adoption::primary_carries;
use serin::rollout::objects::deployment::{self, PrimaryInput};
use serin::rollout::objects::services::{self, Role};
use serin::rollout::objects::{ObjectOptions, SelectorLabel};
use serin::sandbox::store::Store;
use tokio::sync::broadcast;

/// A clock that follows tokio's, which the tests pause: it jumps whenever nothing can run.
struct TokioClock(tokio::time::Instant);

#[async_trait]
impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap() + self.0.elapsed()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let wait = Duration::try_from(deadline.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep_until(tokio::time::Instant::now() + wait).await;
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(TokioClock(tokio::time::Instant::now()))
}

/// A request as it arrived.
#[derive(Debug, Clone)]
struct Sent {
    method: String,
    path: String,
    query: String,
    content_type: String,
    body: Value,
}

impl Sent {
    fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }
}

enum Reply {
    Json(u16, Value),
    Stream(UnboundedReceiver<Result<String, std::io::Error>>),
    /// A watch on which nothing happens.
    Idle,
    Broken,
    /// No answer ever.
    Silent,
}

fn ok(value: Value) -> Reply {
    Reply::Json(200, value)
}

fn status(code: u16, reason: &str, message: &str) -> Reply {
    Reply::Json(
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}),
    )
}

/// The open end of a watch.
#[derive(Clone)]
struct Feed(UnboundedSender<Result<String, std::io::Error>>);

impl Feed {
    fn line(&self, line: &str) {
        self.0.unbounded_send(Ok(format!("{line}\n"))).unwrap();
    }

    fn event(&self, type_: &str, object: Value) {
        self.line(&json!({"type": type_, "object": object}).to_string());
    }
}

fn stream() -> (Feed, Reply) {
    let (sender, receiver) = unbounded();
    (Feed(sender), Reply::Stream(receiver))
}

type Log = Arc<Mutex<Vec<Sent>>>;

/// A client whose server is the given function. All requests are logged in order.
fn server(handler: impl FnMut(&Sent) -> Reply + Send + 'static) -> (kube::Client, Log) {
    let log = Log::default();
    let handler = Arc::new(Mutex::new(handler));
    let logged = log.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (handler, log) = (handler.clone(), logged.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let sent = Sent {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                content_type: parts.headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned(),
                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            };
            log.lock().unwrap().push(sent.clone());
            let reply = (handler.lock().unwrap())(&sent);
            match reply {
                Reply::Json(code, value) => {
                    Ok(http::Response::builder().status(code).body(Body::from(value.to_string())).unwrap())
                }
                Reply::Stream(lines) => Ok(http::Response::new(Body::from_stream(lines))),
                Reply::Idle => Ok(http::Response::new(Body::from_stream(pending::<Result<String, std::io::Error>>()))),
                Reply::Silent => std::future::pending().await,
                Reply::Broken => Err(std::io::Error::other("connection refused")),
            }
        }
    });
    (kube::Client::new(service, "default"), log)
}

fn paged() -> Options {
    Options { streaming_lists: false, ..Options::default() }
}

fn core_types() -> Reply {
    ok(json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
        {"name": "configmaps", "kind": "ConfigMap", "namespaced": true},
        {"name": "configmaps/status", "kind": "ConfigMap", "namespaced": true},
        {"name": "namespaces", "kind": "Namespace", "namespaced": false}]}))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("v1", "ConfigMap", "test", name)
}

fn config(name: &str, version: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "test", "uid": format!("uid-{name}"), "resourceVersion": version.to_string()}})
}

fn list(version: u32, items: Value) -> Reply {
    ok(
        json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": items}),
    )
}

async fn next(changes: &mut broadcast::Receiver<Change>) -> String {
    let change = changes.recv().await.unwrap();
    format!("{}{}", if change.deleted { "-" } else { "+" }, change.key.name)
}

async fn version(cluster: &Arc<dyn Cluster>, name: &str) -> Option<String> {
    cluster.get(&key(name)).await.unwrap().map(|object| object.resource_version().to_owned())
}

fn lines(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(Sent::line).collect()
}

#[tokio::test(start_paused = true)]
async fn an_apply_is_one_forced_patch_of_ours() {
    let (client, log) = server(|sent| match sent.line().as_str() {
        "GET /api/v1" => core_types(),
        _ => ok(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "test", "resourceVersion": "7",
            "managedFields": [{"manager": "serin", "operation": "Apply"}, {"manager": "helm", "operation": "Update", "fieldsV1": {}}]}}),
        ),
    });
    let cluster = connect(client, clock(), paged());
    let object = Object(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "test", "managedFields": []}, "data": {"k": "v"}}),
    );
    let answer = cluster.apply(&object, FieldManager::Applier).await.unwrap();
    assert_eq!(answer.resource_version(), "7");
    assert_eq!(answer.at("/metadata/managedFields"), Some(&json!([{"manager": "serin", "operation": "Apply"}])));

    let sent = log.lock().unwrap().last().cloned().unwrap();
    assert_eq!(sent.line(), "PATCH /api/v1/namespaces/test/configmaps/a");
    assert_eq!(sent.content_type, "application/apply-patch+yaml");
    assert!(sent.query.contains("force=true") && sent.query.contains("fieldManager=serin"), "{}", sent.query);
    assert_eq!(
        sent.body,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "test"}, "data": {"k": "v"}})
    );

    cluster.patch(&key("a"), Some("status"), &json!({"status": {}}), FieldManager::Engine).await.unwrap();
    let sent = log.lock().unwrap().last().cloned().unwrap();
    assert_eq!(sent.line(), "PATCH /api/v1/namespaces/test/configmaps/a/status");
    assert_eq!(sent.content_type, "application/merge-patch+json");
    assert!(sent.query.contains("fieldManager=serin-canary") && !sent.query.contains("force"), "{}", sent.query);

    cluster.delete(&key("a"), Some("u1")).await.unwrap();
    let sent = log.lock().unwrap().last().cloned().unwrap();
    assert_eq!(sent.line(), "DELETE /api/v1/namespaces/test/configmaps/a");
    assert_eq!(sent.body, json!({"propagationPolicy": "Background", "preconditions": {"uid": "u1"}}));
    assert_eq!(lines(&log).iter().filter(|line| *line == "GET /api/v1").count(), 1, "discovery is asked once");
}

#[tokio::test(start_paused = true)]
async fn errors_say_what_can_be_done() {
    let replies: Arc<Mutex<Vec<Reply>>> = Arc::default();
    let script = replies.clone();
    let (client, _) = server(move |sent| match sent.line().as_str() {
        "GET /api/v1" => core_types(),
        _ => script.lock().unwrap().pop().unwrap(),
    });
    let cluster = connect(client, clock(), paged());
    let object = Object(config("a", 1));
    let outcome = async |reply: Reply| {
        replies.lock().unwrap().push(reply);
        cluster.apply(&object, FieldManager::Applier).await.unwrap_err()
    };
    assert!(matches!(outcome(status(409, "Conflict", "m")).await, ClusterError::Conflict { .. }));
    assert!(matches!(outcome(status(422, "Invalid", "m")).await, ClusterError::Refused { code: 422, .. }));
    assert!(matches!(outcome(status(403, "Forbidden", "m")).await, ClusterError::Refused { code: 403, .. }));
    assert!(matches!(outcome(status(500, "", "etcdserver: leader changed")).await, ClusterError::Unavailable { .. }));
    assert!(matches!(outcome(status(429, "TooManyRequests", "m")).await, ClusterError::Unavailable { .. }));
    let broken = outcome(Reply::Broken).await;
    assert!(
        matches!(&broken, ClusterError::Unavailable { message, .. } if message.contains("connection refused")),
        "{broken}"
    );

    let nameless = Object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let error = cluster.apply(&nameless, FieldManager::Applier).await.unwrap_err();
    assert_eq!(error.to_string(), "ConfigMap a refused: an object of this type needs a namespace");
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_listed_once_and_then_follows_the_watch() {
    let (feed, watch) = stream();
    let mut watch = Some(watch);
    let (client, log) = server(move |sent| match (sent.line().as_str(), sent.is_watch()) {
        ("GET /api/v1", _) => core_types(),
        (_, false) if sent.query.contains("continue=next") => list(10, json!([config("b", 5), {"metadata": {}}])),
        (_, false) => ok(json!({"metadata": {"resourceVersion": "10", "continue": "next"}, "items": [
            {"metadata": {"name": "a", "namespace": "test", "uid": "uid-a", "resourceVersion": "3"}}]})),
        (_, true) => watch.take().unwrap_or_else(|| Reply::Idle),
    });
    let cluster = connect(client, clock(), paged());
    assert_eq!(version(&cluster, "a").await.as_deref(), Some("3"));
    let listed = cluster.list(&Gvk::new("v1", "ConfigMap"), Some("test")).await.unwrap();
    assert_eq!(
        listed.iter().map(|object| object.key().to_string()).collect::<Vec<_>>(),
        ["ConfigMap test/a", "ConfigMap test/b"]
    );
    assert_eq!(version(&cluster, "none").await, None);

    let mut changes = cluster.changes();
    feed.line("this is no event");
    feed.event("ADDED", json!({"metadata": {"resourceVersion": "11"}}));
    feed.event("MODIFIED", config("a", 12));
    assert_eq!(next(&mut changes).await, "+a", "what cannot be read is skipped alone");
    assert_eq!(version(&cluster, "a").await.as_deref(), Some("12"));
    feed.event("DELETED", config("b", 13));
    assert_eq!(next(&mut changes).await, "-b");
    assert_eq!(version(&cluster, "b").await, None);
    assert_eq!(lines(&log).len(), 4, "discovery, two pages, one watch: {:?}", lines(&log));
    assert!(log.lock().unwrap()[3].query.contains("resourceVersion=10"));
}

#[tokio::test(start_paused = true)]
async fn a_list_is_streamed_where_the_server_offers_it_and_paged_where_not() {
    let (feed, watch) = stream();
    feed.event("ADDED", config("a", 3));
    feed.event(
        "BOOKMARK",
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "9",
        "annotations": {"k8s.io/initial-events-end": "true"}}}),
    );
    let mut watch = Some(watch);
    let (client, log) = server(move |sent| match sent.line().as_str() {
        "GET /api/v1" => core_types(),
        _ => watch.take().unwrap_or_else(|| Reply::Idle),
    });
    let cluster = connect(client, clock(), Options::default());
    assert_eq!(version(&cluster, "a").await.as_deref(), Some("3"));
    let mut changes = cluster.changes();
    feed.event("MODIFIED", config("a", 10));
    assert_eq!(next(&mut changes).await, "+a");
    assert_eq!(lines(&log).len(), 2);
    assert!(log.lock().unwrap()[1].query.contains("sendInitialEvents=true"));

    let old_etcd =
        "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled";
    for (code, reason, message) in
        [(422, "Invalid", "sendInitialEvents is forbidden"), (500, "InternalError", old_etcd)]
    {
        let (client, log) = server(move |sent| match (sent.line().as_str(), sent.is_watch()) {
            ("GET /api/v1", _) => core_types(),
            (_, true) if sent.query.contains("sendInitialEvents") => status(code, reason, message),
            (_, true) => Reply::Idle,
            (_, false) => list(4, json!([config("a", 3)])),
        });
        let cluster = connect(client, clock(), Options::default());
        assert_eq!(version(&cluster, "a").await.as_deref(), Some("3"), "{message}");
        assert_eq!(log.lock().unwrap().iter().filter(|sent| !sent.is_watch()).count(), 2, "discovery and one page");
    }
}

#[tokio::test(start_paused = true)]
async fn q21_an_expired_watch_lists_again_and_tells_the_difference() {
    let (first, watch) = stream();
    let (second, again) = stream();
    let mut watches = vec![again, watch];
    let mut lists =
        vec![list(20, json!([config("a", 3), config("c", 15)])), list(10, json!([config("a", 3), config("b", 5)]))];
    let (client, log) = server(move |sent| match (sent.line().as_str(), sent.is_watch()) {
        ("GET /api/v1", _) => core_types(),
        (_, true) => watches.pop().unwrap_or_else(|| Reply::Idle),
        (_, false) => lists.pop().unwrap(),
    });
    let cluster = connect(client, clock(), paged());
    version(&cluster, "a").await;
    let mut changes = cluster.changes();
    first.event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}),
    );
    assert_eq!([next(&mut changes).await, next(&mut changes).await], ["+c", "-b"]);
    second.event("MODIFIED", config("a", 21));
    assert_eq!(next(&mut changes).await, "+a", "the new watch is followed");
    assert!(log.lock().unwrap().last().unwrap().query.contains("resourceVersion=20"));
}

#[tokio::test(start_paused = true)]
async fn a_write_is_read_back_at_once_and_old_events_do_not_undo_it() {
    let (feed, watch) = stream();
    let mut watch = Some(watch);
    let (client, _) = server(move |sent| match (sent.line().as_str(), sent.is_watch()) {
        ("GET /api/v1", _) => core_types(),
        (_, true) => watch.take().unwrap_or_else(|| Reply::Idle),
        (line, _) if line.starts_with("PATCH") => ok(config("a", 15)),
        (line, _) if line.starts_with("DELETE") => {
            ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
        }
        _ => list(10, json!([config("a", 3)])),
    });
    let cluster = connect(client, clock(), paged());
    version(&cluster, "a").await;
    let mut changes = cluster.changes();
    cluster.apply(&Object(config("a", 3)), FieldManager::Engine).await.unwrap();
    assert_eq!(version(&cluster, "a").await.as_deref(), Some("15"));
    assert_eq!(next(&mut changes).await, "+a");
    feed.event("MODIFIED", config("a", 12));
    feed.event("MODIFIED", config("a", 15));
    feed.event("ADDED", config("z", 16));
    assert_eq!(next(&mut changes).await, "+z", "neither the old event nor our own write is news");
    assert_eq!(version(&cluster, "a").await.as_deref(), Some("15"));
    cluster.delete(&key("a"), None).await.unwrap();
    assert_eq!(version(&cluster, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_missing_type_is_looked_up_again_when_crds_change() {
    let (crds, watch) = stream();
    let mut watch = Some(watch);
    let installed = Arc::new(Mutex::new(false));
    let is_installed = installed.clone();
    let (client, log) = server(move |sent| match (sent.path.as_str(), sent.is_watch()) {
        ("/apis/flagger.app/v1beta1", _) if *is_installed.lock().unwrap() => {
            ok(json!({"resources": [{"name": "canaries", "kind": "Canary", "namespaced": true}]}))
        }
        ("/apis/flagger.app/v1beta1", _) => Reply::Json(404, json!("404 page not found")),
        (path, true) if path.ends_with("customresourcedefinitions") => watch.take().unwrap_or_else(|| Reply::Idle),
        (_, true) => Reply::Idle,
        (_, false) => list(1, json!([])),
    });
    let clock = clock();
    let cluster = connect(client, clock.clone(), paged());
    let gvk = Gvk::new("flagger.app/v1beta1", "Canary");
    let asked = |log: &Log| lines(log).iter().filter(|line| *line == "GET /apis/flagger.app/v1beta1").count();
    let mut changes = cluster.changes();
    assert!(matches!(cluster.list(&gvk, None).await, Err(ClusterError::UnknownKind(_))));
    // The watch of CRDs has to be up, and discovery's lag after its first list over.
    clock.sleep_until(clock.now() + Duration::from_secs(60)).await;
    assert!(cluster.list(&gvk, None).await.is_err());
    let before = asked(&log);
    for _ in 0..10 {
        assert!(cluster.list(&gvk, None).await.is_err());
    }
    assert_eq!(asked(&log), before, "a type that is missing is not asked for again and again");
    *installed.lock().unwrap() = true;
    crds.event("ADDED", json!({"metadata": {"name": "canaries.flagger.app", "resourceVersion": "2"}}));
    assert_eq!(next(&mut changes).await, "+canaries.flagger.app");
    assert_eq!(cluster.list(&gvk, None).await.unwrap(), Vec::new());
    assert!(cluster.is_namespaced(&gvk).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_idle_hour_is_nothing_but_renewals() {
    let (client, log) = server(|sent| match (sent.line().as_str(), sent.is_watch()) {
        ("GET /api/v1", _) => core_types(),
        (_, true) => Reply::Idle,
        _ => list(10, json!([config("a", 3)])),
    });
    let clock = clock();
    let cluster = connect(client, clock.clone(), paged());
    version(&cluster, "a").await;
    let started = clock.now();
    log.lock().unwrap().clear();
    while clock.now() < started + Duration::from_secs(3600) {
        for _ in 0..5 {
            version(&cluster, "a").await;
        }
        clock.sleep_until(clock.now() + Duration::from_secs(10)).await;
    }
    let log = log.lock().unwrap();
    assert!(log.iter().all(Sent::is_watch), "{log:?}");
    assert!(log.len() <= 15, "{} renewals", log.len());
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_an_error_now_and_no_trouble_later() {
    let up = Arc::new(Mutex::new(false));
    let is_up = up.clone();
    let (client, _) = server(move |sent| match (sent.line().as_str(), sent.is_watch()) {
        ("GET /api/v1", _) => core_types(),
        _ if !*is_up.lock().unwrap() => Reply::Broken,
        (_, true) => Reply::Idle,
        _ => list(10, json!([config("a", 3)])),
    });
    let clock = clock();
    let cluster = connect(client, clock.clone(), paged());
    let error = cluster.get(&key("a")).await.unwrap_err();
    assert!(error.to_string().starts_with("listing v1/ConfigMap: "), "{error}");
    *up.lock().unwrap() = true;
    clock.sleep_until(clock.now() + Duration::from_secs(60)).await;
    assert_eq!(version(&cluster, "a").await.as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let silent = Arc::new(Mutex::new(String::new()));
    let is_silent = silent.clone();
    let (client, log) = server(move |sent| match (sent.line().as_str(), sent.is_watch()) {
        _ if *is_silent.lock().unwrap() == sent.method => Reply::Silent,
        ("GET /api/v1", _) => core_types(),
        (_, true) => Reply::Idle,
        ("PATCH /api/v1/namespaces/test/configmaps/a" | "POST /api/v1/namespaces/test/events", _) => {
            ok(config("a", 15))
        }
        _ => list(10, json!([config("a", 3)])),
    });
    let clock = clock();
    let began = clock.now();
    let waited = |since: Timestamp| (clock.now().duration_since(since)).as_secs();
    let silence = |method: &str| method.clone_into(&mut silent.lock().unwrap());
    let cluster = connect(client, clock.clone(), paged());

    silence("GET");
    let error = cluster.get(&key("a")).await.unwrap_err();
    assert!(matches!(&error, ClusterError::Unavailable { message, .. } if message.contains("no answer")), "{error}");
    assert!(cluster.raw("/metrics").await.is_err());
    assert!(waited(began) < 150, "{} s", waited(began));
    silence("");
    assert_eq!(version(&cluster, "a").await.as_deref(), Some("3"));

    // More than there is room for at once, and room again when they are given up.
    silence("PATCH");
    let (began, object) = (clock.now(), Object(config("a", 3)));
    let writes = (0..100).map(|_| cluster.apply(&object, FieldManager::Engine));
    let answers = futures::future::join_all(writes).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(ClusterError::Unavailable { .. }))));
    assert!(waited(began) < 150, "{} s", waited(began));
    silence("");
    cluster.apply(&object, FieldManager::Engine).await.unwrap();

    silence("POST");
    let event = |message: &str| KubeEvent {
        about: key("a"),
        uid: "u".to_owned(),
        type_: EventType::Normal,
        message: message.to_owned(),
    };
    cluster.publish(event("lost")).await;
    clock.sleep_until(clock.now() + Duration::from_secs(600)).await;
    silence("");
    cluster.publish(event("sent")).await;
    clock.sleep_until(clock.now() + Duration::from_secs(10)).await;
    let last = log.lock().unwrap().iter().rfind(|sent| sent.method == "POST").cloned().unwrap();
    assert_eq!(last.body["message"], "sent", "the queue goes on");
}

#[tokio::test(start_paused = true)]
async fn a_cache_whose_watch_is_not_renewed_is_not_read_from() {
    for (trouble, listed) in [("silent", true), ("silent", false), ("broken", true), ("silent pages", true)] {
        let state = Arc::new(Mutex::new("up"));
        let now = state.clone();
        let mut lists = 0;
        let (client, _) = server(move |sent| match (sent.line().as_str(), sent.is_watch(), *now.lock().unwrap()) {
            ("GET /api/v1", ..) => core_types(),
            (_, _, "silent") => Reply::Silent,
            (_, _, "broken") => Reply::Broken,
            (_, true, "silent pages") => status(410, "Expired", "too old"),
            (_, false, "silent pages") => Reply::Silent,
            (_, true, _) => Reply::Idle,
            _ => {
                lists += 1;
                list(lists * 10, json!([config("a", lists * 10)]))
            }
        });
        let clock = clock();
        let pass = async |seconds| clock.sleep_until(clock.now() + Duration::from_secs(seconds)).await;
        let cluster = connect(client, clock.clone(), paged());
        if listed {
            assert_eq!(version(&cluster, "a").await.as_deref(), Some("10"));
        }
        *state.lock().unwrap() = trouble;
        // Until the watch is to be renewed, there is nothing to notice.
        pass(if listed { 320 } else { 0 }).await;
        if listed {
            assert_eq!(version(&cluster, "a").await.as_deref(), Some("10"), "{trouble}: a short trouble is none");
        }
        pass(if listed { 100 } else { 0 }).await;
        let error = cluster.get(&key("a")).await.unwrap_err();
        assert!(matches!(&error, ClusterError::Unavailable { .. }), "{trouble}: {error}");
        let mut changes = cluster.changes();
        *state.lock().unwrap() = "up";
        assert_eq!(next(&mut changes).await, "+a", "{trouble}");
        let newest = version(&cluster, "a").await;
        assert_eq!(newest.as_deref(), Some(if listed { "20" } else { "10" }), "{trouble}: by a list");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_back_in_time_or_not_at_all() {
    let silent = Arc::new(Mutex::new(false));
    let is_silent = silent.clone();
    let (client, _) = server(move |sent| match sent.method.as_str() {
        _ if *is_silent.lock().unwrap() => Reply::Silent,
        "GET" => status(404, "NotFound", "none"),
        _ => ok(sent.body.clone()),
    });
    let mut leadership = lease::hold(client, clock(), LeaseOptions::new("serin-system", "serin", "one"));
    leadership.leader.wait_for(|leader| *leader).await.unwrap();
    *silent.lock().unwrap() = true;
    let released = tokio::time::timeout(Duration::from_secs(60), leadership.release()).await;
    assert!(released.is_ok(), "who stops does not wait for a dead server");
}

#[tokio::test(start_paused = true)]
async fn the_first_apply_takes_over_the_fields_of_kubectl() {
    let with = |manager: &str| {
        let mut object = config("a", 3);
        object["metadata"]["managedFields"] = json!([{"manager": manager, "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:old": {}}}}]);
        object
    };
    let (client, log) = server(move |sent| match (sent.line().as_str(), sent.is_watch()) {
        ("GET /api/v1", _) => core_types(),
        (_, true) => Reply::Idle,
        ("GET /api/v1/configmaps", _) => list(10, json!([with("kubectl-client-side-apply")])),
        ("GET /api/v1/namespaces/test/configmaps/a", _) => ok(with("kubectl-client-side-apply")),
        _ if sent.content_type.contains("json-patch") => ok({
            let mut object = with("serin");
            object["metadata"]["resourceVersion"] = json!("11");
            object["metadata"]["managedFields"][0]["operation"] = json!("Apply");
            object
        }),
        _ => ok(config("a", 12)),
    });
    let cluster = connect(client, clock(), paged());
    version(&cluster, "a").await;
    log.lock().unwrap().clear();
    let object =
        Object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "test"}}));
    cluster.apply(&object, FieldManager::Applier).await.unwrap();
    let writes: Vec<_> = log.lock().unwrap().iter().filter(|sent| !sent.is_watch()).cloned().collect();
    assert_eq!(writes.iter().map(|sent| sent.method.as_str()).collect::<Vec<_>>(), ["GET", "PATCH", "PATCH"]);
    assert_eq!(
        writes[1].body[1]["value"],
        json!([{"manager": "serin", "operation": "Apply", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:old": {}}}}])
    );
    cluster.apply(&object, FieldManager::Applier).await.unwrap();
    let writes = log.lock().unwrap().iter().filter(|sent| !sent.is_watch()).count();
    assert_eq!(writes, 4, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn s08_events_are_flaggers_and_count_repeats_without_folding() {
    let (client, log) = server(|_| ok(json!({"kind": "Event", "metadata": {"name": "x"}})));
    let clock = clock();
    let cluster = connect(client, clock.clone(), paged());
    let about = ObjectKey::namespaced("flagger.app/v1beta1", "Canary", "test", "podinfo");
    let event =
        |message: String| KubeEvent { about: about.clone(), uid: "u1".to_owned(), type_: EventType::Normal, message };
    cluster.publish(event("New revision detected!".to_owned())).await;
    cluster.publish(event("New revision detected!".to_owned())).await;
    for step in 0..20 {
        cluster.publish(event(format!("Advance podinfo.test canary weight {step}"))).await;
    }
    clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 22);
    assert_eq!(log[0].line(), "POST /api/v1/namespaces/test/events");
    let mut body = log[0].body.clone();
    let name = body["metadata"]["name"].take();
    assert!(name.as_str().unwrap().starts_with("podinfo."));
    assert_eq!(
        body,
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": null, "namespace": "test"},
        "involvedObject": {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo", "namespace": "test", "uid": "u1"},
        "reason": "Synced", "message": "New revision detected!", "type": "Normal", "source": {"component": "flagger"},
        "reportingComponent": "flagger", "reportingInstance": "", "count": 1,
        "firstTimestamp": "2023-11-14T22:13:20Z", "lastTimestamp": "2023-11-14T22:13:20Z"})
    );
    assert_eq!(log[1].line(), format!("PATCH /api/v1/namespaces/test/events/{}", name.as_str().unwrap()));
    assert_eq!(log[1].body["count"], 2);
    let names: std::collections::BTreeSet<_> =
        log[2..].iter().map(|sent| sent.body["metadata"]["name"].to_string()).collect();
    assert_eq!(names.len(), 20, "different messages are different Events, also within one instant");
    assert!(log[2..].iter().all(|sent| !sent.body["message"].as_str().unwrap().contains("combined")));
}

/// A server with one Lease and optimistic concurrency.
fn lease_server(up: Arc<Mutex<bool>>) -> (kube::Client, Arc<Mutex<Option<Value>>>) {
    let stored: Arc<Mutex<Option<Value>>> = Arc::default();
    let lease = stored.clone();
    let (client, _) = server(move |sent| {
        let mut lease = lease.lock().unwrap();
        if !*up.lock().unwrap() {
            return status(503, "ServiceUnavailable", "down");
        }
        let version = |lease: &Option<Value>| {
            lease.as_ref().map_or(0, |l| l["metadata"]["resourceVersion"].as_str().unwrap().parse::<u32>().unwrap())
        };
        match (sent.method.as_str(), lease.as_ref()) {
            ("GET", Some(lease)) => ok(lease.clone()),
            ("GET", None) => status(404, "NotFound", "no lease"),
            ("POST", Some(_)) => status(409, "AlreadyExists", "there is one"),
            ("PUT", Some(live)) if live["metadata"]["resourceVersion"] != sent.body["metadata"]["resourceVersion"] => {
                status(409, "Conflict", "changed")
            }
            _ => {
                let mut new = sent.body.clone();
                new["metadata"]["resourceVersion"] = json!((version(&lease) + 1).to_string());
                *lease = Some(new.clone());
                ok(new)
            }
        }
    });
    (client, stored)
}

#[tokio::test(start_paused = true)]
async fn one_candidate_leads_and_another_follows_when_it_is_gone() {
    let up = Arc::new(Mutex::new(true));
    let (client, stored) = lease_server(up.clone());
    let clock = clock();
    let candidate =
        |name: &str| lease::hold(client.clone(), clock.clone(), LeaseOptions::new("serin-system", "serin", name));
    let holder = || stored.lock().unwrap().as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned();
    let wait = |seconds: u64| clock.sleep_until(clock.now() + Duration::from_secs(seconds));

    let mut one = candidate("one");
    one.leader.wait_for(|leading| *leading).await.unwrap();
    let two = candidate("two");
    wait(60).await;
    assert_eq!(
        (holder().as_str(), *one.leader.borrow(), *two.leader.borrow()),
        ("one", true, false),
        "renewals keep it"
    );

    drop(one);
    wait(10).await;
    assert!(!*two.leader.borrow(), "the lease has not run out yet");
    wait(10).await;
    assert!(*two.leader.borrow());
    assert_eq!(stored.lock().unwrap().as_ref().unwrap()["spec"]["leaseTransitions"], 1);

    let three = candidate("three");
    two.release().await;
    wait(3).await;
    assert_eq!(
        (holder().as_str(), *three.leader.borrow()),
        ("three", true),
        "a lease that was given back is free at once"
    );

    *up.lock().unwrap() = false;
    wait(8).await;
    assert!(*three.leader.borrow(), "a short outage costs nothing");
    wait(5).await;
    assert!(!*three.leader.borrow(), "but before others may take it, the writers stop");
    *up.lock().unwrap() = true;
    wait(3).await;
    assert!(*three.leader.borrow());
}
