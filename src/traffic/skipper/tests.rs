//! Tests of the Skipper router: shapes against the record, quirks by name, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::super::copied::ingress_keys;
use super::{ingress, router};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::{RouteError, TrafficRouter};

fn plain() -> CanaryView {
    canary(spec())
}

fn spec() -> Value {
    // `extensions/v1beta1` is what old manifests say; v1 is used whatever they say.
    json!({"ingressRef": {"apiVersion": "extensions/v1beta1", "kind": "Ingress", "name": "podinfo"}})
}

fn path(path: &str, service: &str) -> Value {
    json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}})
}

fn users(annotations: Value, paths: Value) -> Object {
    Object(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "podinfo", "namespace": "test", "labels": {"app": "podinfo"}, "annotations": annotations},
        "spec": {"ingressClassName": "x", "rules": [{"host": "app.example.com", "http": {"paths": paths}}]}}))
}

fn plain_users() -> Object {
    users(json!({"example.com/note": "mine"}), json!([path("/", "podinfo")]))
}

fn annotation(object: &Object, name: &str) -> String {
    object.annotation(&format!("zalando.org/{name}")).unwrap_or_default().to_owned()
}

#[test]
fn a_new_ingress_is_the_one_of_the_record() {
    // skipper-canary-succeeds/objects.jsonl
    let made = ingress::desired(&plain_users(), &plain(), Weights::PRIMARY, true).unwrap();
    assert_eq!(
        made.0,
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"annotations": {"example.com/note": "mine",
                "zalando.org/backend-weights": "{\"podinfo-canary\":0,\"podinfo-primary\":100}",
                "zalando.org/skipper-predicate": "Weight(100)"},
            "labels": {"app": "podinfo"}, "name": "podinfo-canary", "namespace": "test",
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
        "spec": {"ingressClassName": "x", "rules": [{"host": "app.example.com", "http": {"paths": [
            path("/", "podinfo-primary"), path("/", "podinfo-canary")]}}]}})
    );
}

#[test]
fn predicates_and_other_backends_are_kept_as_in_the_record() {
    // skipper-predicate-kept/objects.jsonl
    let annotations = json!({"zalando.org/skipper-predicate": "Method(\"GET\")", "serin.dev/commit": "c",
        "kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let users = users(annotations, json!([path("/", "podinfo"), path("/other", "other"), path("/again", "podinfo")]));
    let made = ingress::desired(&users, &plain(), Weights::canary(25), true).unwrap();
    assert_eq!(
        made.at("/spec/rules/0/http/paths"),
        Some(&json!([
            path("/", "podinfo-primary"),
            path("/other", "other"),
            path("/again", "podinfo-primary"),
            path("/", "podinfo-canary"),
            path("/again", "podinfo-canary")
        ]))
    );
    assert_eq!(annotation(&made, "skipper-predicate"), "Weight(100) && Method(\"GET\")");
    assert_eq!(annotation(&made, "backend-weights"), "{\"podinfo-canary\":25,\"podinfo-primary\":75}");
    assert_eq!(made.annotations().len(), 2, "neither kubectl's words nor ours are copied");
    let made = ingress::desired(&users, &plain(), Weights::PRIMARY, false).unwrap();
    assert_eq!(annotation(&made, "skipper-predicate"), "False() && Method(\"GET\")");
}

#[test]
fn predicates_of_flagger_are_replaced_as_its_tests_say() {
    let annotations = json!({"zalando.org/skipper-predicate": "Host(..) &&  False() && Method(\"GET\")"});
    let made = ingress::desired(&users(annotations, json!([path("/", "podinfo")])), &plain(), Weights::PRIMARY, true);
    assert_eq!(annotation(&made.unwrap(), "skipper-predicate"), "Weight(100) && Host(..) && Method(\"GET\")");
}

#[tokio::test]
async fn the_ingress_serves_while_the_canary_has_weight() {
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(plain_users());
    let router = router(cluster.clone());
    let (_, key) = ingress_keys(&plain(), "skipper").unwrap();
    let predicate = || annotation(&cluster.peek(&key).unwrap(), "skipper-predicate");
    router.reconcile(&plain()).await.unwrap();
    assert_eq!(predicate(), "Weight(100)");
    router.set(&plain(), Weights::canary(50)).await.unwrap();
    assert_eq!(predicate(), "Weight(100)");
    router.set(&plain(), Weights::PRIMARY).await.unwrap();
    assert_eq!(predicate(), "False()");
    router.reconcile(&plain()).await.unwrap();
    assert_eq!(predicate(), "False()", "a correction does not switch it on");
    router.set(&plain(), Weights::canary(100)).await.unwrap();
    assert_eq!(predicate(), "Weight(100)");
}

#[tokio::test]
async fn q02_a_changed_ingress_is_followed_without_touching_the_weights() {
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(plain_users());
    let router = router(cluster.clone());
    router.set(&plain(), Weights::canary(40)).await.unwrap();
    cluster.seed(users(json!({"a": "b"}), json!([path("/v2", "podinfo")])));
    router.reconcile(&plain()).await.unwrap();
    let (_, key) = ingress_keys(&plain(), "skipper").unwrap();
    let live = cluster.peek(&key).unwrap();
    assert_eq!(live.str("/spec/rules/0/http/paths/1/path"), "/v2");
    assert_eq!((live.annotation("a"), live.annotation("example.com/note")), (Some("b"), None));
    assert_eq!(router.observe(&plain()).await.unwrap(), Some(Weights::canary(40)));
}

#[tokio::test]
async fn what_is_missing_or_in_the_way_is_named() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = router(cluster.clone());
    let message = |result: Result<(), RouteError>| result.unwrap_err().to_string();
    let without = router.reconcile(&canary(json!({}))).await;
    assert_eq!(message(without), "ingressRef is missing: provider skipper needs an Ingress");
    assert!(message(router.reconcile(&plain()).await).ends_with("is not there: ingressRef names it"));
    // Flagger copies such an Ingress and moves no traffic.
    cluster.seed(users(json!({}), json!([path("/", "other")])));
    assert!(message(router.reconcile(&plain()).await).ends_with("has no path to Service podinfo"));
    // without annotations Flagger panics.
    let mut bare = plain_users();
    bare.0["metadata"].as_object_mut().unwrap().remove("annotations");
    cluster.seed(bare);
    router.reconcile(&plain()).await.unwrap();
    let (_, key) = ingress_keys(&plain(), "skipper").unwrap();
    cluster.remove(&key);
    let mut foreign = plain_users();
    foreign.0["metadata"]["name"] = json!("podinfo-canary");
    cluster.seed(foreign.clone());
    assert!(message(router.set(&plain(), Weights::PRIMARY).await).contains("not made for this canary"));
    assert!(message(router.observe(&plain()).await.map(drop)).contains("is missing"));
    router.finalize(&plain()).await.unwrap();
    assert_eq!(cluster.peek(&key).as_deref(), Some(&foreign), "what is not ours is not deleted");
}

#[test]
fn weights_by_hand_are_read_as_percent() {
    let read = |text: &str| {
        let mut live = plain_users();
        live.0["metadata"]["annotations"]["zalando.org/backend-weights"] = json!(text);
        ingress::weights(&live, &plain()).ok()
    };
    for (text, want) in [
        ("{\"podinfo-canary\":10,\"podinfo-primary\":90}", Some(10)),
        ("{\"podinfo-canary\":2.0,\"podinfo-primary\":1}", Some(67)),
        ("{\"podinfo-primary\":1, \"other\": 9}", Some(0)),
        ("{\"podinfo-canary\":0,\"podinfo-primary\":0}", None),
        ("{\"podinfo-canary\":-1}", None),
        ("{}", None),
        ("half", None),
    ] {
        assert_eq!(read(text), want.map(Weights::canary), "{text}");
    }
}

#[tokio::test]
async fn conformance() {
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(plain_users());
    conforms(Case {
        router: &router(cluster.clone()),
        cluster,
        route: ingress_keys(&plain(), "skipper").unwrap().1,
        own_fields: json!({}),
        users: None,
        deletes: true,
        spec: spec(),
        unsupported: vec![
            (json!({"service": {"port": 80, "timeout": "1s"}}), "service.timeout"),
            (json!({"service": {"port": 80, "corsPolicy": {}}}), "service.corsPolicy"),
            (json!({"analysis": {"match": [{}]}}), "analysis.match"),
            (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
        ],
    })
    .await;
}
