//! Tests of the Contour router: shapes against the record, quirks by name, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::{Refusal, routes};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::TrafficRouter;

fn route(canary: &CanaryView, live: Option<&Object>, weights: Weights) -> Object {
    routes::desired(live, canary, None, weights).unwrap()
}

fn yaml(object: &Object) -> String {
    serde_json::to_string_pretty(&object.0).unwrap()
}

fn service(name: &str, weight: u8) -> Value {
    json!({"name": name, "port": 80, "weight": weight, "requestHeadersPolicy": {"set": [
        {"name": "l5d-dst-override", "value": format!("{name}.test.svc.cluster.local:80")}]}})
}

fn user_proxy() -> Object {
    Object(json!({"apiVersion": "projectcontour.io/v1", "kind": "HTTPProxy",
        "metadata": {"labels": {"team": "a"}, "name": "podinfo", "namespace": "test", "uid": "u", "resourceVersion": "1"},
        "spec": {"ingressClassName": "edge", "routes": [
            {"conditions": [{"prefix": "/a"}], "enableWebsockets": true, "timeoutPolicy": {"response": "9s"},
                "services": [{"name": "podinfo", "port": 80, "healthPort": 81}, {"name": "shadow", "port": 80, "mirror": true}]},
            {"conditions": [{"prefix": "/docs"}], "services": [{"name": "docs", "port": 80}]}]}}))
}

#[test]
fn a_plain_route_is_the_one_of_the_record() {
    // contour-canary-succeeds/objects.jsonl; there the weight 0 is omitted.
    let made = route(&canary(json!({})), None, Weights::canary(25));
    assert_eq!(
        made.0,
        json!({"apiVersion": "projectcontour.io/v1", "kind": "HTTPProxy",
        "metadata": {"name": "podinfo", "namespace": "test",
            "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"},
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
        "spec": {"routes": [{"conditions": [{"prefix": "/"}], "services": [service("podinfo-primary", 75), service("podinfo-canary", 25)]}]}})
    );
}

#[test]
fn timeouts_retries_prefix_and_class() {
    let canary = canary(json!({"service": {"port": 80, "timeout": "15s", "match": [{"uri": {"prefix": "/api"}}],
        "retries": {"attempts": 3, "perTryTimeout": "5s", "retryOn": "gateway-error,5xx"},
        "apex": {"labels": {"l": "apex"}, "annotations": {"a": "apex"}}}}));
    let made = routes::desired(None, &canary, Some("contour"), Weights::PRIMARY).unwrap();
    insta::assert_snapshot!(yaml(&made));
}

#[test]
fn q38_empty_retry_on_is_left_out() {
    let canary = canary(json!({"service": {"port": 80, "retries": {"attempts": 2, "retryOn": ""}}}));
    let made = route(&canary, None, Weights::PRIMARY);
    assert_eq!(made.at("/spec/routes/0/retryPolicy"), Some(&json!({"count": 2})));
}

#[test]
fn q38_each_entry_of_an_ab_test_has_a_route_with_one_prefix_and_all_its_conditions() {
    let canary = canary(json!({"analysis": {"iterations": 2, "match": [
        {"headers": {"x-canary": {"exact": "insider"}, "x-user": {"suffix": "er"}}}, {"headers": {"cookie": {"regex": "^(.*?;)?(canary=always)(;.*)?$"}}, "queryParams": {"q": {"prefix": "a"}}}]}}));
    let made = route(&canary, None, Weights::canary(100));
    insta::assert_snapshot!(yaml(&made));
    let live = Object(made.0.clone());
    assert_eq!(routes::weights(&live, &canary).unwrap(), Some(Weights::canary(100)));
    assert_eq!(route(&canary, Some(&live), Weights::canary(100)).at("/spec"), made.at("/spec"), "made once, not twice");
}

#[test]
fn an_ab_route_of_flagger_is_recognised_and_ends_with_the_test() {
    // contour-ab-prefix-suffix/objects.jsonl: prefix and header in one condition.
    let ab = canary(json!({"analysis": {"iterations": 2, "match": [{"headers": {"x-canary": {"prefix": "in"}}}]}}));
    let plain = canary(json!({}));
    let live = Object(json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": {"routes": [
        {"conditions": [{"header": {"contains": "in", "name": "x-canary"}, "prefix": "/"}],
            "services": [{"name": "podinfo-primary", "port": 80}, {"name": "podinfo-canary", "port": 80, "weight": 100}]},
        {"conditions": [{"prefix": "/"}],
            "services": [{"name": "podinfo-primary", "port": 80, "weight": 100}, {"name": "podinfo-canary", "port": 80}]}]}}));
    assert_eq!(routes::weights(&live, &ab).unwrap(), Some(Weights::canary(100)));
    assert_eq!(routes::weights(&live, &plain).unwrap(), Some(Weights::PRIMARY), "the test's users are not everybody");
    let after = route(&plain, Some(&live), Weights::PRIMARY);
    assert_eq!(after.at("/spec/routes"), route(&plain, None, Weights::PRIMARY).at("/spec/routes"));
}

#[test]
fn q38_a_condition_that_contour_lacks_is_refused() {
    for matches in [
        json!([{"headers": {"cookie": {}}}]),
        json!([{"sourceLabels": {"app": "x"}}]),
        json!([{"headers": {"x-a": {"exact": "1"}}}, {"headers": {}}]),
    ] {
        let canary = canary(json!({"analysis": {"iterations": 2, "match": matches}}));
        let refused = routes::desired(None, &canary, None, Weights::PRIMARY);
        assert!(matches!(refused, Err(Refusal::Unsupported(_))), "{refused:?}");
        // Whoever was in the test before goes back all the same.
        let before =
            self::canary(json!({"analysis": {"iterations": 2, "match": [{"headers": {"x-a": {"exact": "1"}}}]}}));
        let live = route(&before, None, Weights::canary(100));
        let back = route(&canary, Some(&live), Weights::PRIMARY);
        assert_eq!(routes::weights(&back, &canary).unwrap(), Some(Weights::PRIMARY));
        assert_eq!(back.at("/spec/routes").and_then(Value::as_array).map(Vec::len), Some(2));
    }
}

#[test]
fn q36_routes_to_the_apex_are_divided_in_place_and_others_kept() {
    let canary = canary(json!({}));
    let made = route(&canary, Some(&user_proxy()), Weights::canary(10));
    insta::assert_snapshot!(yaml(&made));
}

#[test]
fn q36_a_proxy_without_a_route_to_the_apex_gets_ours_beside_its_own() {
    let canary = canary(json!({}));
    let mut proxy = user_proxy();
    proxy.0["spec"]["routes"] =
        json!([{"conditions": [{"prefix": "/docs"}], "services": [{"name": "docs", "port": 80}]}]);
    let made = route(&canary, Some(&proxy), Weights::PRIMARY);
    assert_eq!(made.at("/spec/routes/0/conditions"), Some(&json!([{"prefix": "/"}])));
    assert_eq!(made.at("/spec/routes/1"), proxy.at("/spec/routes/0"));

    proxy.0["spec"]["routes"][0]["conditions"] = json!([{"prefix": "/"}]);
    let refused = routes::desired(Some(&proxy), &canary, None, Weights::PRIMARY).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "HTTPProxy test/podinfo has a route for prefix / to docs: point it at Service podinfo or remove it"
    );
}

#[test]
fn the_generated_route_follows_the_prefix_and_stays_alone() {
    let (old, new) =
        (canary(json!({})), canary(json!({"service": {"port": 80, "match": [{"uri": {"prefix": "/v2"}}]}})));
    let mut live = route(&old, None, Weights::canary(30));
    let copy = live.0["spec"]["routes"][0].clone();
    live.0["spec"]["routes"].as_array_mut().unwrap().push(copy);
    let made = route(&new, Some(&live), Weights::canary(30));
    assert_eq!(made.at("/spec/routes/0/conditions"), Some(&json!([{"prefix": "/v2"}])));
    assert_eq!(made.at("/spec/routes/1"), None);
}

#[test]
fn weights_by_hand_are_read_as_percent() {
    let canary = canary(json!({}));
    let with = |primary: Value, canary_weight: Value| {
        let mut made = route(&canary, None, Weights::PRIMARY);
        made.0["spec"]["routes"][0]["services"][0]["weight"] = primary;
        made.0["spec"]["routes"][0]["services"][1]["weight"] = canary_weight;
        routes::weights(&made, &canary)
    };
    for (primary, other, want) in
        [(json!(90), json!(10), 10), (json!(1), json!(2), 67), (json!(100), Value::Null, 0), (json!(0), json!(7), 100)]
    {
        assert_eq!(with(primary, other).unwrap(), Some(Weights::canary(want)));
    }
    assert!(matches!(with(json!(0), json!(0)), Err(Refusal::Unusable(_))));
    assert_eq!(routes::weights(&user_proxy(), &canary).unwrap(), None);
}

#[tokio::test]
async fn q02_drift_is_corrected_without_touching_the_weights() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = super::router(cluster.clone(), None);
    let plain = canary(json!({}));
    router.set(&plain, Weights::canary(40)).await.unwrap();
    let edited = canary(json!({"service": {"port": 80, "timeout": "15s", "apex": {"labels": {"l": "x"}}}}));
    router.reconcile(&edited).await.unwrap();
    assert_eq!(router.observe(&edited).await.unwrap(), Some(Weights::canary(40)));
    let live = cluster.peek(&routes::key(&plain)).unwrap();
    assert_eq!(live.str("/spec/routes/0/timeoutPolicy/response"), "15s");

    router.reconcile(&plain).await.unwrap();
    let live = cluster.peek(&routes::key(&plain)).unwrap();
    assert_eq!(
        (live.at("/spec/routes/0/timeoutPolicy"), live.labels().get("l")),
        (None, None),
        "what was ours goes again"
    );
    assert_eq!(router.observe(&plain).await.unwrap(), Some(Weights::canary(40)));
}

#[tokio::test]
async fn conformance() {
    let cluster = Arc::new(MemoryCluster::default());
    conforms(Case {
        router: &super::router(cluster.clone(), Some("contour".to_owned())),
        cluster,
        route: routes::key(&canary(json!({}))),
        own_fields: json!({"spec": {"routes": null}}),
        users: Some(user_proxy()),
        deletes: false,
        spec: json!({}),
        unsupported: vec![
            (json!({"service": {"port": 80, "rewrite": {"uri": "/"}}}), "service.rewrite"),
            (json!({"service": {"port": 80, "corsPolicy": {}}}), "service.corsPolicy"),
            (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
            (json!({"analysis": {"sessionAffinity": {"cookieName": "x"}}}), "analysis.sessionAffinity"),
        ],
    })
    .await;
}
