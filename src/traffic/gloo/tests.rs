//! Tests of the Gloo router: shapes against the record, quirks by name, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::{Route, RouteTable, routes, verified};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{TrafficRouter, Verified};

fn made(canary: &CanaryView, live: Option<&Object>, weights: Weights) -> Object {
    routes::desired(live, canary, weights).unwrap()
}

fn ab(entries: Value) -> CanaryView {
    canary(json!({"analysis": {"iterations": 2, "match": entries}}))
}

fn multi(parts: &[(&str, u8)]) -> Value {
    let destination = |(role, weight): &(&str, u8)| json!({"destination": {"upstream": {"name": format!("test-podinfo-{role}upstream-80"), "namespace": "test"}}, "weight": weight});
    json!({"multi": {"destinations": parts.iter().map(destination).collect::<Vec<_>>()}})
}

fn both(weight: u8) -> Value {
    multi(&[("primary", 100 - weight), ("canary", weight)])
}

fn service(name: &str, app: &str) -> Object {
    Object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "test"},
        "spec": {"selector": {"app": app}}}))
}

fn services(cluster: &MemoryCluster) {
    cluster.seed(service("podinfo-primary", "podinfo-primary"));
    cluster.seed(service("podinfo-canary", "podinfo"));
}

#[test]
fn a_route_table_is_the_one_of_the_record() {
    // gloo-ab/objects.jsonl, without the test.
    let object = made(&canary(json!({})), None, Weights::canary(25));
    assert_eq!(
        object.at("/spec"),
        Some(&json!({"routes": [{"inheritablePathMatchers": true, "routeAction": both(25)}]}))
    );
    assert_eq!(object.gvk().api_version(), "gateway.solo.io/v1");
}

#[test]
fn everybody_but_the_users_of_a_test_has_a_route() {
    let canary = ab(json!([{"headers": {"x-canary": {"exact": "insider"}}},
        {"headers": {"cookie": {"regex": "a.*"}, "ua": {"prefix": "M.b"}}, "queryParams": {"q": {"suffix": "z"}}}]));
    let object = made(&canary, None, Weights::canary(100));
    let matchers = json!([{"headers": [{"name": "x-canary", "value": "insider"}]},
        {"headers": [{"name": "cookie", "value": "a.*", "regex": true}, {"name": "ua", "value": "M\\.b.*", "regex": true}],
            "queryParameters": [{"name": "q", "value": ".*z", "regex": true}]}]);
    let rest = json!({"inheritablePathMatchers": true, "routeAction": multi(&[("primary", 100)])});
    let want = json!([{"inheritablePathMatchers": true, "matchers": matchers, "routeAction": both(100)}, rest]);
    assert_eq!(object.at("/spec/routes"), Some(&want));
    assert_eq!(routes::weights(&object, &canary).unwrap(), Some(Weights::canary(100)));
    assert_eq!(made(&canary, Some(&object), Weights::canary(100)).at("/spec"), object.at("/spec"), "made once");
    let ended = super::super::conformance::canary(json!({}));
    assert_eq!(routes::weights(&object, &ended).unwrap(), Some(Weights::PRIMARY));
    let refused = routes::desired(None, &ab(json!([{"sourceLabels": {"a": "b"}}])), Weights::canary(100)).unwrap_err();
    assert!(refused.to_string().contains("everybody would match it"), "{refused}");
}

#[tokio::test]
async fn upstreams_are_those_of_the_record_with_the_settings_of_the_one_that_is_named() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = super::router(cluster.clone());
    let plain = canary(json!({}));
    let words = router.reconcile(&plain).await.unwrap_err().to_string();
    assert_eq!(words, "Service podinfo-primary is not there or has no selector");
    services(&cluster);
    router.reconcile(&plain).await.unwrap();
    let key = |name: &str| ObjectKey::namespaced(super::UPSTREAM, "Upstream", "test", name);
    let upstream = cluster.peek(&key("test-podinfo-canaryupstream-80")).unwrap();
    let kube = json!({"selector": {"app": "podinfo"}, "serviceName": "podinfo-canary", "serviceNamespace": "test", "servicePort": 80});
    assert_eq!(upstream.at("/spec"), Some(&json!({"kube": kube})));
    assert!(crate::rollout::objects::is_controlled_by(&upstream, &plain));

    let named = canary(json!({"upstreamRef": {"apiVersion": super::UPSTREAM, "kind": "Upstream", "name": "base"}}));
    let words = router.reconcile(&named).await.unwrap_err().to_string();
    assert!(words.ends_with("is not there: upstreamRef names it"), "{words}");
    let circuit = json!({"maxConnections": 3});
    cluster.seed(Object(
        json!({"apiVersion": super::UPSTREAM, "kind": "Upstream", "metadata": {"name": "base", "namespace": "test"},
        "spec": {"circuitBreakers": circuit, "kube": {"serviceName": "x"}}}),
    ));
    router.reconcile(&named).await.unwrap();
    let upstream = cluster.peek(&key("test-podinfo-canaryupstream-80")).unwrap();
    assert_eq!(upstream.at("/spec"), Some(&json!({"circuitBreakers": circuit, "kube": kube})));
    let watched = router.objects(&named);
    assert!(watched.contains(&key("base")) && watched.contains(&key("test-podinfo-primaryupstream-80")));
    router.reconcile(&plain).await.unwrap();
    assert_eq!(cluster.peek(&key("test-podinfo-canaryupstream-80")).unwrap().at("/spec"), Some(&json!({"kube": kube})));
}

#[test]
fn q36_a_users_routes_to_the_apex_are_divided_in_place() {
    let canary = ab(json!([{"headers": {"x": {"exact": "1"}}}]));
    for action in [
        json!({"single": {"upstream": {"name": "test-podinfo-80", "namespace": "gloo-system"}}}),
        json!({"single": {"kube": {"ref": {"name": "podinfo", "namespace": "test"}, "port": 80}}}),
    ] {
        let mut live = users_table();
        live.0["spec"]["routes"][1]["routeAction"] = action;
        let object = made(&canary, Some(&live), Weights::canary(100));
        let list = object.at("/spec/routes").unwrap();
        assert_eq!(list[0], live.0["spec"]["routes"][0]);
        assert_eq!(list[1]["matchers"], json!([{"prefix": "/app", "headers": [{"name": "x", "value": "1"}]}]));
        assert_eq!((&list[1]["options"], &list[1]["routeAction"]), (&json!({"timeout": "1s"}), &both(100)));
        assert_eq!(
            (&list[2]["matchers"], &list[2]["routeAction"]),
            (&json!([{"prefix": "/app"}]), &multi(&[("primary", 100)]))
        );
    }
    let mut live = users_table();
    live.0["spec"]["routes"] = json!([{"routeAction": {"single": {"upstream": {"name": "docs"}}}}]);
    let refused = routes::desired(Some(&live), &canary, Weights::PRIMARY).unwrap_err().to_string();
    assert!(refused.contains("has a route for everything to {\"single\":"), "{refused}");
}

fn users_table() -> Object {
    Object(json!({"apiVersion": "gateway.solo.io/v1", "kind": "RouteTable",
        "metadata": {"labels": {"team": "a"}, "name": "podinfo", "namespace": "test", "uid": "u", "resourceVersion": "1"},
        "spec": {"weight": 3, "routes": [
            {"matchers": [{"prefix": "/docs"}], "routeAction": {"single": {"upstream": {"name": "docs", "namespace": "gloo-system"}}}},
            {"matchers": [{"prefix": "/app"}], "options": {"timeout": "1s"},
                "routeAction": {"single": {"upstream": {"name": "test-podinfo-80", "namespace": "gloo-system"}}}}]}}))
}

#[test]
fn only_a_refusal_counts_as_verification() {
    let state = |status: Value| verified(&Object(json!({"status": status})));
    let rejected = Verified::No("RouteTable : state is Rejected: no such upstream".to_owned());
    for (status, want) in [
        (json!({}), Verified::CannotTell),
        (json!({"state": 1}), Verified::CannotTell),
        (json!({"state": 2, "reason": "no such upstream"}), rejected.clone()),
        (json!({"statuses": {"gloo-system": {"state": "Accepted"}}}), Verified::CannotTell),
        (json!({"statuses": {"gloo-system": {"state": "Rejected", "reason": "no such upstream"}}}), rejected),
    ] {
        assert_eq!(state(status.clone()), want, "{status}");
    }
}

#[tokio::test]
async fn conformance() {
    let cluster = Arc::new(MemoryCluster::default());
    services(&cluster);
    conforms(Case {
        router: &super::router(cluster.clone()),
        cluster,
        route: RouteTable.key(&canary(json!({}))),
        own_fields: json!({"spec": {"routes": null}}),
        users: Some(users_table()),
        deletes: false,
        spec: json!({}),
        unsupported: vec![
            (json!({"service": {"port": 80, "timeout": "1s"}}), "service.timeout"),
            (json!({"service": {"port": 80, "match": [{"uri": {"prefix": "/"}}]}}), "service.match"),
            (json!({"analysis": {"match": [{"sourceLabels": {"a": "b"}}]}}), "analysis.match.sourceLabels"),
            (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
            (json!({"analysis": {"sessionAffinity": {"cookieName": "x"}}}), "analysis.sessionAffinity"),
        ],
    })
    .await;
}
