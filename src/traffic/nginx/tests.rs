//! Tests of the NGINX router: shapes against the record, conditions of an A/B test, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::super::copied::ingress_keys;
use super::{PREFIX, ingress, router};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::{RouteError, TrafficRouter};

fn spec() -> Value {
    // `extensions/v1beta1` is what old manifests say; v1 is used whatever they say.
    json!({"ingressRef": {"apiVersion": "extensions/v1beta1", "kind": "Ingress", "name": "podinfo"}})
}

fn plain() -> CanaryView {
    canary(spec())
}

fn testing(matches: Value) -> CanaryView {
    let mut spec = spec();
    spec["analysis"] = json!({"iterations": 2, "match": matches});
    canary(spec)
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

/// The annotations about the canary, without their prefix.
fn about(object: &Object) -> Vec<String> {
    let own = object.annotations().into_iter().filter_map(|(key, value)| {
        let key = key.strip_prefix(PREFIX)?.trim_start_matches('/').to_owned();
        Some(format!("{key}={value}"))
    });
    own.collect()
}

fn made(canary: &CanaryView, weights: Weights) -> Object {
    ingress::desired(&plain_users(), canary, weights, PREFIX).unwrap()
}

#[test]
fn a_new_ingress_is_the_one_of_the_record() {
    // nginx-canary-succeeds/objects.jsonl
    assert_eq!(
        made(&plain(), Weights::PRIMARY).0,
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {
            "annotations": {"example.com/note": "mine", "helm.toolkit.fluxcd.io/driftDetection": "disabled",
                "kustomize.toolkit.fluxcd.io/reconcile": "disabled", "nginx.ingress.kubernetes.io/canary": "true",
                "nginx.ingress.kubernetes.io/canary-weight": "0"},
            "labels": {"app": "podinfo"}, "name": "podinfo-canary", "namespace": "test",
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
        "spec": {"ingressClassName": "x", "rules": [{"host": "app.example.com", "http": {"paths": [
            path("/", "podinfo-canary")]}}]}})
    );
    assert_eq!(about(&made(&plain(), Weights::canary(25))), ["canary=true", "canary-weight=25"]);
}

#[test]
fn only_backends_of_the_apex_change_and_notes_about_the_original_stay_behind() {
    let annotations = json!({"serin.dev/commit": "c", "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "argocd.argoproj.io/tracking-id": "shop", "nginx.ingress.kubernetes.io/canary-weight-total": "1000",
        "nginx.ingress.kubernetes.io/rewrite-target": "/"});
    let mut user = users(annotations, json!([path("/", "podinfo"), path("/other", "other")]));
    // Flagger panics at a rule without paths.
    user.0["spec"]["rules"].as_array_mut().unwrap().push(json!({"host": "bare.example.com"}));
    let made = ingress::desired(&user, &plain(), Weights::PRIMARY, PREFIX).unwrap();
    assert_eq!(
        made.at("/spec/rules/0/http/paths"),
        Some(&json!([path("/", "podinfo-canary"), path("/other", "other")]))
    );
    assert_eq!(about(&made), ["canary=true", "canary-weight=0", "rewrite-target=/"]);
    assert_eq!(made.annotations().len(), 5, "besides, those that tell Flux to keep off");
}

#[test]
fn the_operators_prefix_is_used() {
    let made = ingress::desired(&plain_users(), &plain(), Weights::canary(5), "custom.io").unwrap();
    assert_eq!(
        (made.annotation("custom.io/canary"), made.annotation("custom.io/canary-weight")),
        (Some("true"), Some("5"))
    );
    assert_eq!(ingress::weights(&made, &plain(), "custom.io").unwrap(), Weights::canary(5));
    assert!(about(&made).is_empty());
}

#[test]
fn conditions_of_a_test_become_annotations() {
    let header = |name: &str, how: Value| json!({"headers": {name: how}});
    let cookie = header("cookie", json!({"exact": "canary"}));
    let insider = header("x-canary", json!({"exact": "insider"}));
    for (matches, want) in [
        // nginx-ab-header, -header-regex, -cookie, -header-and-cookie
        (json!([insider]), vec!["canary-by-header=x-canary", "canary-by-header-value=insider"]),
        (
            json!([header("x-canary", json!({"regex": "in.*"}))]),
            vec!["canary-by-header=x-canary", "canary-by-header-pattern=in.*"],
        ),
        (json!([cookie]), vec!["canary-by-cookie=canary"]),
        (
            json!([insider, cookie]),
            vec!["canary-by-cookie=canary", "canary-by-header=x-canary", "canary-by-header-value=insider"],
        ),
        (json!([insider, insider]), vec!["canary-by-header=x-canary", "canary-by-header-value=insider"]),
        // Flagger drops these without a word.
        (
            json!([insider, header("X-Canary", json!({"regex": "^out"}))]),
            vec!["canary-by-header=x-canary", "canary-by-header-pattern=(?:^insider$)|(?:^out)"],
        ),
        (
            json!([header("x-canary", json!({"prefix": "a.b"}))]),
            vec!["canary-by-header=x-canary", "canary-by-header-pattern=^a\\.b"],
        ),
        (
            json!([header("x-canary", json!({"suffix": "z"}))]),
            vec!["canary-by-header=x-canary", "canary-by-header-pattern=z$"],
        ),
    ] {
        let canary = testing(matches);
        let on = made(&canary, Weights::canary(100));
        let found = about(&on);
        let conditions: Vec<_> = found.iter().filter(|entry| entry.starts_with("canary-by")).collect();
        assert_eq!(conditions, want);
        assert!(found.contains(&"canary-weight=0".to_owned()), "who does not match keeps the primary");
        assert_eq!(ingress::weights(&on, &canary, PREFIX).unwrap(), Weights::canary(100));
        let off = made(&canary, Weights::PRIMARY);
        assert_eq!(about(&off), ["canary=true", "canary-weight=0"]);
        assert_eq!(ingress::weights(&off, &canary, PREFIX).unwrap(), Weights::PRIMARY);
    }
}

#[test]
fn tests_that_the_annotations_cannot_express_are_refused() {
    let router = router(Arc::new(MemoryCluster::default()), None);
    let refused = |canary: &CanaryView| router.refused(canary);
    let said = |canary: &CanaryView| refused(canary).unwrap_or_default();
    for (matches, want) in [
        (json!([{"headers": {"a": {"exact": "1"}, "b": {"exact": "2"}}}]), "one header or one cookie in each entry"),
        (json!([{"headers": {"a": {"exact": "1"}}}, {"headers": {"b": {"exact": "2"}}}]), "there are a and b"),
        (json!([{"headers": {"cookie": {"exact": "1"}}}, {"headers": {"Cookie": {"exact": "2"}}}]), "there are two"),
        (json!([{"headers": {"cookie": {"regex": "a=b"}}}]), "takes the name of a cookie"),
        (json!([{"headers": {"a": {}}}]), "needs exact, regex, prefix or suffix for header a"),
        (json!([{"queryParams": {"a": {"exact": "1"}}}]), "headers and cookies only"),
        (json!([{}]), "one header or one cookie in each entry"),
    ] {
        assert!(said(&testing(matches)).contains(want), "{want}");
    }
    let mut weighted = spec();
    weighted["analysis"] = json!({"stepWeight": 10, "match": [{"headers": {"a": {"exact": "1"}}}]});
    assert!(said(&canary(weighted.clone())).contains("set analysis.iterations"));
    weighted["skipAnalysis"] = json!(true);
    assert_eq!(refused(&canary(weighted)), None, "without analysis there is no test");
    assert_eq!(said(&canary(json!({}))), "ingressRef is missing: provider nginx needs an Ingress");
    assert_eq!(refused(&plain()), None);
}

#[tokio::test]
async fn a_share_of_an_ab_test_is_remembered() {
    // stepWeightPromotion: with Flagger such a promotion never ends, because it reads 100 whatever it wrote.
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(plain_users());
    let router = router(cluster.clone(), None);
    let canary = testing(json!([{"headers": {"cookie": {"exact": "canary"}}}]));
    for weight in [0, 100, 50, 100, 0] {
        router.set(&canary, Weights::canary(weight)).await.unwrap();
        assert_eq!(router.observe(&canary).await.unwrap(), Some(Weights::canary(weight)));
        let writes = cluster.writes();
        router.reconcile(&canary).await.unwrap();
        assert_eq!(cluster.writes(), writes);
    }
    router.set(&canary, Weights::canary(100)).await.unwrap();
    let edited = testing(json!([{"headers": {"x-canary": {"exact": "insider"}}}]));
    router.reconcile(&edited).await.unwrap();
    let (_, key) = ingress_keys(&plain(), "nginx").unwrap();
    let live = cluster.peek(&key).unwrap();
    assert_eq!(
        about(&live),
        ["canary=true", "canary-by-header=x-canary", "canary-by-header-value=insider", "canary-weight=0"],
        "an edited test is followed"
    );
    // When the test is taken out of the Canary, nobody is left on the canary.
    router.reconcile(&plain()).await.unwrap();
    assert_eq!(about(&cluster.peek(&key).unwrap()), ["canary=true", "canary-weight=0"]);
}

#[tokio::test]
async fn what_flagger_left_in_mid_test_is_taken_away() {
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(plain_users());
    let canary = testing(json!([{"headers": {"cookie": {"exact": "canary"}}}]));
    let mut left = made(&canary, Weights::canary(100));
    left.0["metadata"]["managedFields"] = json!([{"manager": "flagger", "operation": "Update", "fieldsV1": {"f:metadata":
        {"f:annotations": {"f:nginx.ingress.kubernetes.io/canary-by-cookie": {}}}}}]);
    let off = made(&canary, Weights::PRIMARY);
    assert!(!crate::traffic::unchanged(&left, &off), "its annotation is a reason to write");
    left.0["metadata"]["managedFields"][0]["manager"] = json!("somebody");
    assert!(crate::traffic::unchanged(&left, &off), "others may note what they want");
}

#[tokio::test]
async fn what_is_missing_or_in_the_way_is_named() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = router(cluster.clone(), Some(String::new()));
    let message = |result: Result<(), RouteError>| result.unwrap_err().to_string();
    assert_eq!(
        message(router.reconcile(&plain()).await),
        "ingress podinfo.test get query error: ingresses.networking.k8s.io \"podinfo\" not found"
    );
    cluster.seed(users(json!({}), json!([path("/", "other")])));
    assert_eq!(message(router.reconcile(&plain()).await), "backend podinfo not found in ingress podinfo");
    cluster.seed(plain_users());
    assert!(message(router.set(&plain(), Weights { primary: 0, canary: 0, mirrored: false }).await).contains("0/0"));
    let mut foreign = plain_users();
    foreign.0["metadata"]["name"] = json!("podinfo-canary");
    foreign.0["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"] = json!("half");
    cluster.seed(foreign);
    assert!(message(router.set(&plain(), Weights::PRIMARY).await).contains("not made for this canary"));
    assert!(message(router.observe(&plain()).await.map(drop)).contains("is no number: `half`"));
}

#[tokio::test]
async fn q02_a_changed_ingress_is_followed_without_touching_the_weights() {
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(plain_users());
    let router = router(cluster.clone(), None);
    router.set(&plain(), Weights::canary(40)).await.unwrap();
    cluster.seed(users(json!({"a": "b"}), json!([path("/v2", "podinfo")])));
    router.reconcile(&plain()).await.unwrap();
    let (_, key) = ingress_keys(&plain(), "nginx").unwrap();
    let live = cluster.peek(&key).unwrap();
    assert_eq!(live.str("/spec/rules/0/http/paths/0/path"), "/v2");
    assert_eq!((live.annotation("a"), live.annotation("example.com/note")), (Some("b"), None));
    assert_eq!(router.observe(&plain()).await.unwrap(), Some(Weights::canary(40)));
}

#[tokio::test]
async fn conformance() {
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(plain_users());
    conforms(Case {
        router: &router(cluster.clone(), None),
        cluster,
        route: ingress_keys(&plain(), "nginx").unwrap().1,
        own_fields: json!({}),
        users: None,
        deletes: false,
        spec: spec(),
        unsupported: vec![
            (json!({"service": {"port": 80, "timeout": "1s"}}), "service.timeout"),
            (json!({"service": {"port": 80, "retries": {"attempts": 1}}}), "service.retries"),
            (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
            (json!({"analysis": {"sessionAffinity": {"cookieName": "x"}}}), "analysis.sessionAffinity"),
        ],
    })
    .await;
}
