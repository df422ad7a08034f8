use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt as _;

use super::*;

const SECRET: &str = "It's a Secret to Everybody";
const TAG: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

fn endpoints(room: usize) -> (Endpoints, mpsc::Receiver<String>) {
    let (triggers, receiver) = mpsc::channel(room);
    let hooks = BTreeMap::from([
        ("apps".to_owned(), SecretString::from(SECRET)),
        ("infra".to_owned(), SecretString::from(SECRET)),
    ]);
    let telemetry = Arc::new(Telemetry::new("0.1.0", "contour"));
    let records = RecordsSlot::default();
    (Endpoints { telemetry, ready: Readiness::default(), hooks, triggers, records }, receiver)
}

async fn send(endpoints: &Endpoints, request: Request<Body>) -> (u16, String) {
    let response = router(endpoints.clone()).oneshot(request).await.expect("an answer");
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

fn push(source: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(format!("/hooks/{source}"));
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(body.into())
        .expect("a request")
}

#[tokio::test]
async fn health_readiness_and_metrics_are_served() {
    let (endpoints, _receiver) = endpoints(1);
    assert_eq!(send(&endpoints, get("/healthz")).await, (200, "OK".to_owned()));
    assert_eq!(send(&endpoints, get("/readyz")).await, (503, "starting".to_owned()));
    endpoints.ready.set(Ready::Yes);
    assert_eq!(send(&endpoints, get("/readyz")).await.0, 200);
    endpoints.ready.set(Ready::No("draining"));
    assert_eq!(send(&endpoints, get("/readyz")).await, (503, "draining".to_owned()));
    let (status, text) = send(&endpoints, get("/metrics")).await;
    assert!(status == 200 && text.contains("flagger_info{"), "{text}");
    assert_eq!(send(&endpoints, get("/hooks/apps")).await.0, 405);
    assert_eq!(send(&endpoints, get("/")).await.0, 404);
}

#[tokio::test]
async fn a_signed_push_triggers_its_source() {
    let signed = format!("sha256={TAG}");
    for headers in [
        [("x-hub-signature-256", signed.as_str())],
        [("x-gitea-signature", TAG)],
        [("x-forgejo-signature", TAG)],
        [("x-gitlab-token", SECRET)],
    ] {
        let (endpoints, mut receiver) = endpoints(1);
        assert_eq!(send(&endpoints, push("apps", &headers, "Hello, World!")).await.0, 202, "{headers:?}");
        assert_eq!(receiver.try_recv().as_deref(), Ok("apps"));
        // A replay before anybody looked is harmless.
        for _ in 0..3 {
            assert_eq!(send(&endpoints, push("apps", &headers, "Hello, World!")).await.0, 202);
        }
        assert_eq!(receiver.try_recv().as_deref(), Ok("apps"));
        assert!(receiver.try_recv().is_err());
    }
}

#[tokio::test]
async fn anything_else_triggers_nothing() {
    let signed = format!("sha256={TAG}");
    let unprefixed = TAG.to_owned();
    let (endpoints, mut receiver) = endpoints(1);
    for (source, headers, body, want) in [
        ("apps", &[][..], "Hello, World!", 401),
        ("apps", &[("x-hub-signature-256", signed.as_str())], "Hello, World?", 401),
        ("apps", &[("x-hub-signature-256", unprefixed.as_str())], "Hello, World!", 401),
        ("apps", &[("x-hub-signature", signed.as_str())], "Hello, World!", 401),
        ("apps", &[("x-gitlab-token", "It's a secret to everybody")], "", 401),
        // A wrong signature is not made good by a token.
        ("apps", &[("x-hub-signature-256", "sha256=00"), ("x-gitlab-token", SECRET)], "", 401),
        ("nobody", &[("x-hub-signature-256", signed.as_str())], "Hello, World!", 404),
    ] {
        assert_eq!(send(&endpoints, push(source, headers, body)).await.0, want, "{source} {headers:?}");
    }
    assert!(receiver.try_recv().is_err());
}

#[tokio::test]
async fn large_bodies_are_refused_whether_they_say_so_or_not() {
    let (endpoints, mut receiver) = endpoints(1);
    let header = ("x-gitlab-token", SECRET);
    let announced = push("apps", &[header, ("content-length", "104857600")], Body::empty());
    assert_eq!(send(&endpoints, announced).await.0, 413);
    let silent = push("apps", &[header], vec![b'x'; (1 << 20) + 1]);
    assert_eq!(send(&endpoints, silent).await.0, 413);
    let fits = push("apps", &[header], vec![b'x'; 1 << 20]);
    assert_eq!(send(&endpoints, fits).await.0, 202);
    assert!(receiver.try_recv().is_ok());
}

#[tokio::test]
async fn the_server_stops_when_it_is_told_to() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (endpoints, _receiver) = endpoints(1);
    let server = tokio::spawn(serve(listener, endpoints, async move {
        stopped.await.ok();
    }));
    stop.send(()).expect("still serving");
    server.await.expect("no panic").expect("no error");
}

struct OneCanary;

#[async_trait::async_trait]
impl Records for OneCanary {
    async fn records(&self, list: List, namespace: Option<&str>) -> Result<Vec<serde_json::Value>, String> {
        match list {
            List::Canaries => Ok(vec![serde_json::json!({"name": "web", "namespace": namespace})]),
            _ => Err("the cluster is away".to_owned()),
        }
    }
}

#[tokio::test]
async fn api_serves_lists_and_says_why_it_cannot() {
    let (endpoints, _receiver) = endpoints(1);
    let early = send(&endpoints, get("/api/canaries")).await;
    assert_eq!(early, (503, r#"{"error":"the cluster is not reached yet"}"#.to_owned()));
    endpoints.records.set(Arc::new(OneCanary)).ok();
    let cases = [
        ("/api", 200, r#"{"paths":["/api/canaries","/api/releases","/api/sources"]}"#),
        ("/api/canaries", 200, r#"[{"name":"web","namespace":null}]"#),
        ("/api/canaries?namespace=shop", 200, r#"[{"name":"web","namespace":"shop"}]"#),
        ("/api/sources", 503, r#"{"error":"the cluster is away"}"#),
        ("/api/secrets", 404, r#"{"error":"no such list: see /api"}"#),
    ];
    for (path, code, body) in cases {
        assert_eq!(send(&endpoints, get(path)).await, (code, body.to_owned()), "{path}");
    }
}
